//! `demi/ext.h`, except its waits.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use catnip_os::libos::memory::CopyCause;
use catnip_os::libos::{Buffer, PopLimit, ScatterGather, Shutdown, Token};
use libc::{sockaddr, socklen_t};

use super::memory::allocate;
use super::operations::{pop, read_segment, start};
use super::queue;
use crate::abi::{EXT_POP_MAXSEGS, EXT_PUSH_MAXSEGS, ExtSegment, SGARRAY_MAXSIZE, SgArray};
use crate::arrays::Mark;
use crate::instance::{self, Instance};
use crate::metrics::Metrics;
use crate::{address, errno, results};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// `demi_ext_version`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_ext_version() -> *const c_char {
    VERSION.as_ptr()
}

/// `demi_ext_init_error`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_ext_init_error() -> *const c_char {
    instance::init_error()
}

/// `demi_ext_fini`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_ext_fini() -> c_int {
    instance::destroy()
}

/// `demi_ext_queue`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_queue(out: *mut c_int) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let queue = instance.libos.queue().map_err(errno::of)?;
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(results::descriptor(queue.raw())) };
        Ok(())
    })
}

/// `demi_ext_shutdown`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_ext_shutdown(qd: c_int, how: c_int) -> c_int {
    instance::call(|instance| {
        let queue = queue(qd)?;
        let how = match how {
            libc::SHUT_RD => Shutdown::Read,
            libc::SHUT_WR => Shutdown::Write,
            libc::SHUT_RDWR => Shutdown::Both,
            _ => return Err(libc::EINVAL),
        };
        instance.libos.shutdown(queue, how).map_err(errno::of)
    })
}

/// `demi_ext_cancel`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_ext_cancel(token: u64) -> c_int {
    instance::call(|instance| instance.libos.cancel(Token::from_raw(token)).map_err(errno::of))
}

/// `demi_ext_alloc`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_alloc(out: *mut ExtSegment, size: usize) -> c_int {
    if out.is_null() || size == 0 {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let buffer = allocate(instance, size)?;
        let segment = results::give_wide(&mut instance.arrays, buffer).map_err(|_| libc::ENOBUFS)?;
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(segment) };
        Ok(())
    })
}

/// `demi_ext_free`.
///
/// # Safety
/// `segment` is null or can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_free(segment: *mut ExtSegment) -> c_int {
    if segment.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        // SAFETY: not null, so the caller vouches for it.
        let owner = unsafe { segment.read_unaligned() }.owner;
        instance.arrays.remove(Mark::from_pointer(owner)).map_err(|_| libc::EINVAL)?;
        // SAFETY: as above.
        unsafe { segment.write_unaligned(ExtSegment::NULL) };
        Ok(())
    })
}

/// `demi_ext_unshare`.
///
/// # Safety
/// `array` is null or can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_unshare(array: *mut SgArray) -> c_int {
    if array.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        // SAFETY: not null, so the caller vouches for it.
        let mut unshared = unsafe { array.read_unaligned() };
        let mark = Mark::from_pointer(unshared.owner);
        let [segment] = unshared.segments;
        if unshared.segment_count as usize != SGARRAY_MAXSIZE {
            return Err(libc::EINVAL);
        }
        let alone = instance.arrays.get(mark).is_ok_and(Buffer::is_unique);
        let shared = instance.arrays.share(mark, segment.buffer, segment.len_bytes as usize);
        let Some(bytes) = shared.map_err(|_| libc::EINVAL)? else { return Ok(()) };
        if !alone {
            let arena = instance.libos.arena();
            let copy = arena.copy_from(&bytes).ok_or(libc::ENOBUFS)?.freeze();
            arena.count_copy(CopyCause::Program, copy.len());
            unshared.segments[0].buffer = copy.as_ptr().cast_mut().cast();
            instance.arrays.replace(mark, copy).map_err(|_| libc::EINVAL)?;
            // SAFETY: not null, so the caller vouches for it.
            unsafe { array.write_unaligned(unshared) };
        }
        Ok(())
    })
}

/// `demi_ext_in_use`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_in_use(address: *const c_void, out: *mut c_int) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let shared = instance.arrays.is_shared_at(instance.libos.arena(), address);
        let in_use = c_int::from(shared.map_err(|_| libc::EINVAL)?);
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(in_use) };
        Ok(())
    })
}

/// `demi_ext_push`.
///
/// # Safety
/// `out` is null or can be written; `segments` is null or `count` segments can be read there, and their bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_push(
    out: *mut u64,
    qd: c_int,
    segments: *const ExtSegment,
    count: usize,
) -> c_int {
    let submit = |instance: &mut Instance, queue| {
        // SAFETY: the caller vouches for the segments.
        let data = unsafe { read_segments(instance, segments, count) }?;
        instance.libos.push(queue, data).map_err(errno::of)
    };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, submit) }
}

/// `demi_ext_pushto`.
///
/// # Safety
/// As [`demi_ext_push`]; `peer` is null or `size` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_pushto(
    out: *mut u64,
    qd: c_int,
    segments: *const ExtSegment,
    count: usize,
    peer: *const sockaddr,
    size: socklen_t,
) -> c_int {
    // SAFETY: the caller vouches for the address.
    let Some(peer) = (unsafe { address::read(peer, size) }) else { return libc::EINVAL };
    let submit = |instance: &mut Instance, queue| {
        // SAFETY: the caller vouches for the segments.
        let data = unsafe { read_segments(instance, segments, count) }?;
        instance.libos.pushto(queue, data, peer).map_err(errno::of)
    };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, submit) }
}

/// `demi_ext_pop`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_pop(
    out: *mut u64,
    qd: c_int,
    max_segments: usize,
    max_bytes: usize,
) -> c_int {
    if max_segments == 0 || max_segments > EXT_POP_MAXSEGS || max_bytes == 0 {
        return libc::EINVAL;
    }
    let limit = PopLimit { segments: max_segments, bytes: max_bytes };
    // SAFETY: the caller vouches for `out`.
    unsafe { start(out, qd, |instance, queue| pop(instance, queue, limit)) }
}

/// `demi_ext_device_failure`.
///
/// # Safety
/// `text_out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_device_failure(text_out: *mut *const c_char) -> c_int {
    if text_out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let failure = instance.libos.device_failure().map_err(errno::of)?;
        instance.failure = failure.and_then(|text| CString::new(text).ok());
        let text = instance.failure.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        // SAFETY: not null, so the caller vouches for it.
        unsafe { text_out.write_unaligned(text) };
        Ok(())
    })
}

/// `demi_ext_metrics`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_metrics(out: *mut usize) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let snapshot = instance.libos.metrics().map_err(errno::of)?;
        let metrics = instance.metrics.insert(Metrics::new(&snapshot));
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(metrics.len()) };
        Ok(())
    })
}

/// `demi_ext_metric_at`.
///
/// # Safety
/// `name_out` and `value_out` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_metric_at(
    index: usize,
    name_out: *mut *const c_char,
    value_out: *mut u64,
) -> c_int {
    if name_out.is_null() || value_out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let metric = instance.metrics.as_ref().and_then(|metrics| metrics.at(index));
        let (name, value) = metric.ok_or(libc::EINVAL)?;
        // SAFETY: not null, so the caller vouches for both.
        unsafe { name_out.write_unaligned(name.as_ptr()) };
        // SAFETY: as above.
        unsafe { value_out.write_unaligned(value) };
        Ok(())
    })
}

/// `demi_ext_metric`.
///
/// # Safety
/// `name` is null or a string that ends with NUL; `value_out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_metric(name: *const c_char, value_out: *mut u64) -> c_int {
    if name.is_null() || value_out.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: not null, so the caller vouches for it.
    let name = unsafe { CStr::from_ptr(name) };
    instance::call(|instance| {
        let metrics = instance.metrics.as_ref().ok_or(libc::EINVAL)?;
        let value = metrics.get(name).ok_or(libc::ENOENT)?;
        // SAFETY: not null, so the caller vouches for it.
        unsafe { value_out.write_unaligned(value) };
        Ok(())
    })
}

/// # Safety
/// `segments` is null or `count` segments can be read there, and their bytes.
unsafe fn read_segments(
    instance: &mut Instance,
    segments: *const ExtSegment,
    count: usize,
) -> Result<ScatterGather, c_int> {
    if segments.is_null() || count == 0 || count > EXT_PUSH_MAXSEGS {
        return Err(libc::EINVAL);
    }
    let mut data = ScatterGather::new();
    for index in 0..count {
        // SAFETY: `index` is below `count`, for which the caller vouches.
        let segment = unsafe { segments.add(index).read_unaligned() };
        // SAFETY: the caller vouches for the segments' bytes.
        let buffer = unsafe { read_segment(instance, segment.owner, segment.buffer, segment.len_bytes) }?;
        if let Some(buffer) = buffer {
            data.push(buffer);
        }
    }
    Ok(data)
}
