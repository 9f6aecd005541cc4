//! `demi/wait.h`, and the same calls with wide results.

use std::ffi::c_int;
use std::time::Duration;

use catnip_os::libos::{Arena, Completion, Error, LibOs, Token};
use libc::timespec;

use super::timeout;
use crate::abi::{ExtResult, OperationResult};
use crate::arrays::Arrays;
use crate::instance::{self, Instance};
use crate::{errno, results};

/// Makes one of the two kinds of results.
type Convert<R> = fn(Completion, &mut Arrays, &Arena) -> R;

/// `demi_wait`.
///
/// # Safety
/// `out` is null or can be written; `limit` is null or can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_wait(out: *mut OperationResult, token: u64, limit: *const timespec) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait(out, token, limit, results::plain) }
}

/// `demi_ext_wait`.
///
/// # Safety
/// As [`demi_wait`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_wait(out: *mut ExtResult, token: u64, limit: *const timespec) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait(out, token, limit, results::wide) }
}

/// `demi_wait_any`.
///
/// # Safety
/// `out` and `place` are null or can be written, `limit` is null or can be read, and `tokens` is null or `count`
/// tokens can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_wait_any(
    out: *mut OperationResult,
    place: *mut c_int,
    tokens: *const u64,
    count: c_int,
    limit: *const timespec,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait_any(out, place, tokens, count, limit, results::plain) }
}

/// `demi_ext_wait_any`.
///
/// # Safety
/// As [`demi_wait_any`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_wait_any(
    out: *mut ExtResult,
    place: *mut c_int,
    tokens: *const u64,
    count: c_int,
    limit: *const timespec,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait_any(out, place, tokens, count, limit, results::wide) }
}

/// `demi_wait_next_n`.
///
/// # Safety
/// `count` is null or can be written, `limit` is null or can be read, and `out` is null or `max` results can be
/// written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_wait_next_n(
    out: *mut OperationResult,
    max: c_int,
    count: *mut c_int,
    limit: *const timespec,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait_next_n(out, max, count, limit, results::plain) }
}

/// `demi_ext_wait_next_n`.
///
/// # Safety
/// As [`demi_wait_next_n`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_ext_wait_next_n(
    out: *mut ExtResult,
    max: c_int,
    count: *mut c_int,
    limit: *const timespec,
) -> c_int {
    // SAFETY: the caller vouches for the pointers.
    unsafe { wait_next_n(out, max, count, limit, results::wide) }
}

/// # Safety
/// As [`demi_wait`].
unsafe fn wait<R>(out: *mut R, token: u64, limit: *const timespec, convert: Convert<R>) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        // SAFETY: the caller vouches for it.
        let limit = unsafe { timeout(limit) }?;
        let completion = instance.libos.wait(Token::from_raw(token), limit);
        instance.report_late_polls();
        let completion = completion.map_err(errno::of)?;
        let result = convert(completion, &mut instance.arrays, instance.libos.arena());
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(result) };
        Ok(())
    })
}

/// # Safety
/// As [`demi_wait_any`].
unsafe fn wait_any<R>(
    out: *mut R,
    place: *mut c_int,
    tokens: *const u64,
    count: c_int,
    limit: *const timespec,
    convert: Convert<R>,
) -> c_int {
    let count = match usize::try_from(count) {
        Ok(count @ 1..) if !(out.is_null() || place.is_null() || tokens.is_null()) => count,
        _ => return libc::EINVAL,
    };
    instance::call(|instance| {
        // SAFETY: the caller vouches for it.
        let limit = unsafe { timeout(limit) }?;
        instance.tokens.clear();
        // SAFETY: `count` tokens can be read at `tokens`, for which the caller vouches.
        let read = (0..count).map(|index| Token::from_raw(unsafe { tokens.add(index).read_unaligned() }));
        instance.tokens.extend(read);
        let completed = instance.libos.wait_any(&instance.tokens, limit);
        instance.report_late_polls();
        let (index, completion) = completed.map_err(errno::of)?;
        let result = convert(completion, &mut instance.arrays, instance.libos.arena());
        // SAFETY: not null, so the caller vouches for both.
        unsafe { out.write_unaligned(result) };
        // SAFETY: as above. The index is less than `count`, which came from a `c_int`.
        unsafe { place.write_unaligned(index as c_int) };
        Ok(())
    })
}

/// # Safety
/// As [`demi_wait_next_n`].
unsafe fn wait_next_n<R>(
    out: *mut R,
    max: c_int,
    count: *mut c_int,
    limit: *const timespec,
    convert: Convert<R>,
) -> c_int {
    if count.is_null() {
        return libc::EINVAL;
    }
    // SAFETY: not null, so the caller vouches for it.
    unsafe { count.write_unaligned(0) };
    let max = match usize::try_from(max) {
        Ok(max @ 1..) if !out.is_null() => max,
        _ => return libc::EINVAL,
    };
    instance::call(|instance| {
        // SAFETY: the caller vouches for it.
        let limit = unsafe { timeout(limit) }?;
        let waited = next(instance, max, limit);
        instance.report_late_polls();
        waited?;
        let Instance { libos, arrays, completions, .. } = instance;
        let mut written = 0;
        for completion in completions.drain(..) {
            let result = convert(completion, arrays, libos.arena());
            // SAFETY: there are at most `max` completions, and `max` results can be written at `out`.
            unsafe { out.add(written).write_unaligned(result) };
            written += 1;
        }
        // SAFETY: not null, so the caller vouches for it. It is at most `max`, which came from a `c_int`.
        unsafe { count.write_unaligned(written as c_int) };
        Ok(())
    })
}

/// Waits for completions and leaves them in the instance.
fn next(instance: &mut Instance, max: usize, limit: Option<Duration>) -> Result<(), c_int> {
    instance.completions.clear();
    match instance.libos.wait_next(&mut instance.completions, max, limit) {
        Ok(_) => Ok(()),
        // Nothing is outstanding: the time passes all the same, because closed connections still send.
        Err(Error::WouldBlock) => Err(pass_time(&instance.libos, limit)),
        Err(error) => Err(errno::of(error)),
    }
}

/// Drives the library OS for the time that a program waits although it has started nothing. The error it gets.
fn pass_time(libos: &LibOs, limit: Option<Duration>) -> c_int {
    match limit {
        None => libc::EDEADLK,
        Some(limit) => match libos.block_on(libos.sleep(limit)) {
            Ok(()) => libc::ETIMEDOUT,
            Err(error) => errno::of(error),
        },
    }
}
