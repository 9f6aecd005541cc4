//! Where things are in a ring's memory.
#![allow(unsafe_code, reason = "the memory is shared with another process")]

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use super::Keeper;

// Virtio is little-endian; this crate keeps its structures in the machine's own order.
const _: () = assert!(cfg!(target_endian = "little"));

/// The chain goes on with the descriptor in `next`, or the one behind this.
pub(super) const FLAG_NEXT: u16 = 1;
/// The device writes to the memory.
pub(super) const FLAG_WRITE: u16 = 2;
/// The memory is a table of descriptors.
pub(super) const FLAG_INDIRECT: u16 = 4;
/// Of a packed ring: the driver's pass over the ring.
pub(super) const FLAG_AVAILABLE: u16 = 1 << 7;
/// Of a packed ring: the device's pass over the ring.
pub(super) const FLAG_USED: u16 = 1 << 15;

/// Of a packed ring's event suppression: always.
pub(super) const EVENTS_ENABLED: u16 = 0;
/// Never.
pub(super) const EVENTS_DISABLED: u16 = 1;
/// At one descriptor.
pub(super) const EVENTS_AT_DESCRIPTOR: u16 = 2;

const DESCRIPTOR_BYTES: usize = 16;

/// How a ring is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RingKind {
    /// A table of descriptors and two rings of indices (virtio 1.2, section 2.7).
    Split,
    /// One ring that both write to (virtio 1.2, section 2.8): fewer cache lines move.
    Packed,
}

impl RingKind {
    /// Bytes of the descriptor, driver and device area.
    pub(crate) const fn area_bytes(self, size: u16) -> [usize; 3] {
        let size = size as usize;
        match self {
            Self::Split => [size * DESCRIPTOR_BYTES, 6 + 2 * size, 6 + 8 * size],
            Self::Packed => [size * DESCRIPTOR_BYTES, 4, 4],
        }
    }

    /// Multiples that the areas begin at (virtio 1.2, section 2.7 and 2.8.10.1).
    pub(crate) const fn area_alignment(self) -> [usize; 3] {
        match self {
            Self::Split => [16, 2, 4],
            Self::Packed => [16, 4, 4],
        }
    }
}

/// A descriptor, as it is in either kind of ring: an address, and a word with length and flags.
#[derive(Clone, Copy)]
pub(super) struct Descriptor<'a> {
    pub address: &'a AtomicU64,
    pub word: &'a AtomicU64,
}

/// A descriptor's second word. In a split ring `low` are the flags and `high` is the next descriptor; in a packed ring
/// `low` is the buffer's id and `high` are the flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub len: u32,
    pub low: u16,
    pub high: u16,
}

impl Word {
    #[inline]
    pub fn to_bits(self) -> u64 {
        u64::from(self.len) | u64::from(self.low) << 32 | u64::from(self.high) << 48
    }

    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self { len: bits as u32, low: (bits >> 32) as u16, high: (bits >> 48) as u16 }
    }
}

/// The three areas of a ring.
pub(crate) struct RingMemory {
    descriptors: NonNull<u8>,
    driver: NonNull<u8>,
    device: NonNull<u8>,
    kind: RingKind,
    mask: u16,
    _keeper: Keeper,
}

impl RingMemory {
    /// The areas in the order of [`RingKind::area_bytes`]. None unless `size` is a power of two and
    /// the areas are aligned.
    ///
    /// # Safety
    /// The areas have their bytes, which stay mapped for as long as `keeper` lives. Whoever else reads or writes them
    /// while a ring uses them does so from another process, or by atomic operations of the same widths.
    pub unsafe fn new(areas: [NonNull<u8>; 3], kind: RingKind, size: u16, keeper: Keeper) -> Option<Self> {
        let aligned = areas
            .iter()
            .zip(kind.area_alignment())
            .all(|(area, to)| (area.as_ptr() as usize).is_multiple_of(to));
        let [descriptors, driver, device] = areas;
        (aligned && size.is_power_of_two()).then_some(Self {
            descriptors,
            driver,
            device,
            kind,
            mask: size - 1,
            _keeper: keeper,
        })
    }

    pub fn size(&self) -> u16 {
        self.mask + 1
    }

    /// The descriptor at `index`, which is taken modulo the ring's size.
    #[inline]
    pub(super) fn descriptor(&self, index: u16) -> Descriptor<'_> {
        let at = usize::from(index & self.mask) * DESCRIPTOR_BYTES;
        // SAFETY: within the area, which is aligned to 16 bytes.
        unsafe {
            let address = self.descriptors.add(at).cast::<AtomicU64>();
            Descriptor { address: address.as_ref(), word: address.add(1).as_ref() }
        }
    }

    /// `at` is less than the area has, and even.
    #[inline]
    fn u16_of(&self, area: NonNull<u8>, at: usize) -> &AtomicU16 {
        debug_assert!(self.kind == RingKind::Split && at < 6 + 8 * usize::from(self.size()));
        // SAFETY: the private callers pass offsets within the area, which is aligned.
        unsafe { area.add(at).cast().as_ref() }
    }

    /// Of a split ring: what the driver says about notifications.
    #[inline]
    pub(super) fn available_flags(&self) -> &AtomicU16 {
        self.u16_of(self.driver, 0)
    }

    /// Of a split ring: chains that the driver ever offered.
    #[inline]
    pub(super) fn available_index(&self) -> &AtomicU16 {
        self.u16_of(self.driver, 2)
    }

    /// Of a split ring: the first descriptor of the chain offered at `index`.
    #[inline]
    pub(super) fn available_entry(&self, index: u16) -> &AtomicU16 {
        self.u16_of(self.driver, 4 + 2 * usize::from(index & self.mask))
    }

    /// Of a split ring: the used index at which the driver wants to be notified.
    #[inline]
    pub(super) fn used_event(&self) -> &AtomicU16 {
        self.u16_of(self.driver, 4 + 2 * usize::from(self.size()))
    }

    /// Of a split ring: what the device says about notifications.
    #[inline]
    pub(super) fn used_flags(&self) -> &AtomicU16 {
        self.u16_of(self.device, 0)
    }

    /// Of a split ring: chains that the device ever returned.
    #[inline]
    pub(super) fn used_index(&self) -> &AtomicU16 {
        self.u16_of(self.device, 2)
    }

    /// Of a split ring: the chain returned at `index`, and the bytes written to it.
    #[inline]
    pub(super) fn used_entry(&self, index: u16) -> (&AtomicU32, &AtomicU32) {
        debug_assert!(self.kind == RingKind::Split);
        let at = 4 + 8 * usize::from(index & self.mask);
        // SAFETY: within the area, which is aligned to 4 bytes.
        unsafe {
            let id = self.device.add(at).cast::<AtomicU32>();
            (id.as_ref(), id.add(1).as_ref())
        }
    }

    /// Of a split ring: the available index at which the device wants to be notified.
    #[inline]
    pub(super) fn available_event(&self) -> &AtomicU16 {
        self.u16_of(self.device, 4 + 8 * usize::from(self.size()))
    }

    /// Of a packed ring: when the driver wants to be notified.
    #[inline]
    pub(super) fn driver_events(&self) -> &AtomicU32 {
        // SAFETY: every driver area has four bytes, and that of a packed ring is aligned to them.
        unsafe { self.driver.cast().as_ref() }
    }

    /// Of a packed ring: when the device wants to be notified.
    #[inline]
    pub(super) fn device_events(&self) -> &AtomicU32 {
        // SAFETY: every device area has four bytes and is aligned to them.
        unsafe { self.device.cast().as_ref() }
    }
}

impl fmt::Debug for RingMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingMemory")
            .field("kind", &self.kind)
            .field("mask", &self.mask)
            .finish_non_exhaustive()
    }
}

/// Of a packed ring: a place and a pass, and what is to happen there, as the event suppression structures
/// have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Events {
    pub offset: u16,
    pub wrap: bool,
    pub flags: u16,
}

impl Events {
    pub fn from_bits(bits: u32) -> Self {
        Self { offset: bits as u16 & 0x7fff, wrap: bits & 0x8000 != 0, flags: (bits >> 16) as u16 & 3 }
    }

    /// All or none.
    pub fn all(wanted: bool) -> u32 {
        u32::from(if wanted { EVENTS_ENABLED } else { EVENTS_DISABLED }) << 16
    }

    /// True when who wrote this wants to be told of the `count` places before `index`, of a ring of `size` in the
    /// pass `wrap` (virtio 1.2, section 2.8.10).
    #[inline]
    pub fn wants(self, event_index: bool, index: u16, wrap: bool, count: u16, size: u16) -> bool {
        match self.flags {
            EVENTS_DISABLED => false,
            EVENTS_AT_DESCRIPTOR if event_index => {
                // A place of the last pass lies before the ring's beginning.
                let event = if self.wrap == wrap { self.offset } else { self.offset.wrapping_sub(size) };
                super::passes(event, index, index.wrapping_sub(count))
            }
            _ => true,
        }
    }
}
