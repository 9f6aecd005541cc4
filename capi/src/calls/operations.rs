//! `demi/libos.h`: operations, each of which stores a token.

use std::ffi::{c_int, c_void};
use std::slice;

use catnip_os::libos::memory::CopyCause;
use catnip_os::libos::{Buffer, Error, PopLimit, QueueDescriptor, ScatterGather, Token};
use libc::{sockaddr, socklen_t};

use super::queue;
use crate::abi::{SGARRAY_MAXSIZE, SgArray};
use crate::arrays::{Mark, POP_LIMIT};
use crate::instance::{self, Instance};
use crate::{address, errno};

/// One segment that a plain result can carry.
const PLAIN_POP: PopLimit = PopLimit { segments: 1, bytes: u32::MAX as usize };

/// `demi_accept`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_accept(out: *mut u64, qd: c_int) -> c_int {
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, |instance, queue| instance.libos.accept(queue).map_err(errno::of)) }
}

/// `demi_connect`.
///
/// # Safety
/// `out` is null or can be written; `peer` is null or `size` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_connect(
    out: *mut u64,
    qd: c_int,
    peer: *const sockaddr,
    size: socklen_t,
) -> c_int {
    // SAFETY: the caller vouches for the address.
    let Some(peer) = (unsafe { address::read(peer, size) }) else { return libc::EINVAL };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, |instance, queue| instance.libos.connect(queue, peer).map_err(errno::of)) }
}

/// `demi_push`.
///
/// # Safety
/// `out` is null or can be written; `array` is null or can be read, and so can its segments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_push(out: *mut u64, qd: c_int, array: *const SgArray) -> c_int {
    if array.is_null() {
        return libc::EINVAL;
    }
    let submit = |instance: &mut Instance, queue| {
        // SAFETY: not null, so the caller vouches for it.
        let data = unsafe { read_array(instance, array) }?;
        instance.libos.push(queue, data).map_err(errno::of)
    };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, submit) }
}

/// `demi_pushto`.
///
/// # Safety
/// As [`demi_push`]; `peer` is null or `size` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_pushto(
    out: *mut u64,
    qd: c_int,
    array: *const SgArray,
    peer: *const sockaddr,
    size: socklen_t,
) -> c_int {
    if array.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: the caller vouches for the address.
    let Some(peer) = (unsafe { address::read(peer, size) }) else { return libc::EINVAL };
    let submit = |instance: &mut Instance, queue| {
        // SAFETY: not null, so the caller vouches for it.
        let data = unsafe { read_array(instance, array) }?;
        instance.libos.pushto(queue, data, peer).map_err(errno::of)
    };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, submit) }
}

/// `demi_pop`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_pop(out: *mut u64, qd: c_int) -> c_int {
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, |instance, queue| pop(instance, queue, PLAIN_POP)) }
}

/// Starts an operation on a queue and stores its token.
///
/// # Safety
/// `out` is null or can be written.
pub unsafe fn start(
    out: *mut u64,
    qd: c_int,
    submit: impl FnOnce(&mut Instance, QueueDescriptor) -> Result<Token, c_int>,
) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let token = submit(instance, queue(qd)?)?;
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(token.raw()) };
        Ok(())
    })
}

/// Starts a pop, unless the program holds so many arrays that the result might find no place.
pub fn pop(instance: &mut Instance, queue: QueueDescriptor, limit: PopLimit) -> Result<Token, c_int> {
    if instance.arrays.live() >= POP_LIMIT {
        return Err(libc::ENOBUFS);
    }
    instance.libos.pop_with(queue, limit).map_err(errno::of)
}

/// The data of an array: shared where it lies in memory of ours, else copied.
///
/// # Safety
/// `array` can be read, and so can its segments.
unsafe fn read_array(instance: &mut Instance, array: *const SgArray) -> Result<ScatterGather, c_int> {
    // SAFETY: the caller vouches for it.
    let array = unsafe { array.read_unaligned() };
    let count = array.segment_count as usize;
    if count == 0 || count > SGARRAY_MAXSIZE {
        return Err(libc::EINVAL);
    }
    let mut data = ScatterGather::new();
    let segments = array.segments;
    for segment in segments.iter().take(count) {
        let (start, len_bytes) = (segment.buffer, segment.len_bytes as usize);
        // SAFETY: the caller vouches for the segments.
        if let Some(buffer) = unsafe { read_segment(instance, array.owner, start, len_bytes) }? {
            data.push(buffer);
        }
    }
    Ok(data)
}

/// The bytes of one segment: shared when `owner` names memory of ours or says that they are in some, else copied; `None`
/// for no bytes.
///
/// # Errors
/// `EINVAL` when `owner` is not live or the segment does not lie in its memory, `ENOBUFS`.
///
/// # Safety
/// With a null `owner`, `start` is null or `len_bytes` bytes can be read there.
pub unsafe fn read_segment(
    instance: &mut Instance,
    owner: *mut c_void,
    start: *const c_void,
    len_bytes: usize,
) -> Result<Option<Buffer>, c_int> {
    if !owner.is_null() {
        let shared = match Mark::from_pointer(owner) {
            Mark::REGION => instance.arrays.share_at(instance.libos.arena(), start, len_bytes),
            mark => instance.arrays.share(mark, start, len_bytes),
        };
        return shared.map_err(|_| libc::EINVAL);
    }
    if len_bytes == 0 {
        return Ok(None);
    }
    let longest = isize::MAX as usize;
    if start.is_null() || len_bytes > longest || start.addr().checked_add(len_bytes).is_none() {
        return Err(libc::EINVAL);
    }
    // SAFETY: not null, within the address space, and the caller vouches for the bytes.
    let bytes = unsafe { slice::from_raw_parts(start.cast::<u8>(), len_bytes) };
    let arena = instance.libos.arena();
    let copy = arena.copy_from(bytes).ok_or(errno::of(Error::NoBuffers))?;
    arena.count_copy(CopyCause::Program, len_bytes);
    Ok(Some(copy.freeze()))
}
