//! Rings in the library OS's own memory.
#![allow(unsafe_code, reason = "the memory is shared with another process")]

use std::ptr::NonNull;

use libos::{Arena, SetupError};

use crate::ring::{RingKind, RingMemory};

/// Each area begins in a cache line of its own.
const AREA_ALIGN_BYTES: usize = 64;

/// Memory of `arena` for a ring, and where its areas are.
pub(super) fn ring_memory(
    arena: &Arena,
    kind: RingKind,
    size: u16,
) -> Result<(RingMemory, [u64; 3]), SetupError> {
    let area_bytes = kind.area_bytes(size).map(|bytes| bytes.next_multiple_of(AREA_ALIGN_BYTES));
    let bytes = area_bytes.iter().sum::<usize>() + AREA_ALIGN_BYTES;
    let full = || SetupError::Memory { bytes, reason: "no room for a ring in the region".to_owned() };
    let mut buffer = arena.allocate(bytes).ok_or_else(full)?;
    buffer.set_len(bytes);
    buffer.fill(0);
    let first = buffer.as_mut_ptr();
    let mut offset = first.align_offset(AREA_ALIGN_BYTES);
    let areas = area_bytes.map(|bytes| {
        let area = first.wrapping_add(offset);
        offset += bytes;
        area
    });
    let [Some(descriptors), Some(driver), Some(device)] = areas.map(NonNull::new) else { return Err(full()) };
    // SAFETY: the areas are within the buffer, which the ring keeps and nobody else in this process uses.
    let memory = unsafe { RingMemory::new([descriptors, driver, device], kind, size, Box::new(buffer)) };
    Ok((memory.ok_or_else(full)?, areas.map(|area| area as u64)))
}
