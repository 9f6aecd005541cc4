//! The functions of the headers, a file a header. What they promise is written there.
//!
//! Pointers are checked for null first (`EINVAL`), then the thread's instance (`ENOSYS`, `EBUSY`), then the rest.
//! No pointer is trusted to be aligned, because the structures they lie in are packed.

mod cores;
mod ext;
mod init;
mod memory;
mod operations;
mod sockets;
mod wait;

use std::ffi::c_int;
use std::time::Duration;

use catnip_os::libos::{LibOs, Outcome, QueueDescriptor, Token};
use libc::timespec;

use crate::errno;

/// The descriptor a program names. Whether it is open shows when it is used.
fn queue(qd: c_int) -> Result<QueueDescriptor, c_int> {
    u32::try_from(qd).map(QueueDescriptor::from_raw).map_err(|_| libc::EBADF)
}

/// Closes a queue, and waits for the end of that, which most closes come with.
fn close(libos: &LibOs, queue: QueueDescriptor) -> Result<(), c_int> {
    let token: Token = libos.close(queue).map_err(errno::of)?;
    // A socket that lingers: as with POSIX, closing waits, at most for its time.
    match libos.wait(token, None).map_err(errno::of)?.outcome {
        Outcome::Failed(error) => Err(errno::of(error)),
        _ => Ok(()),
    }
}

/// Reads a timeout: `None` for a null pointer.
///
/// # Errors
/// `EINVAL` when a part is out of range.
///
/// # Safety
/// `place` is null or can be read.
unsafe fn timeout(place: *const timespec) -> Result<Option<Duration>, c_int> {
    if place.is_null() {
        return Ok(None);
    }
    // SAFETY: not null, so the caller vouches for it.
    let spec = unsafe { place.read_unaligned() };
    let seconds = u64::try_from(spec.tv_sec).map_err(|_| libc::EINVAL)?;
    match u32::try_from(spec.tv_nsec) {
        Ok(nanos @ 0..1_000_000_000) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(libc::EINVAL),
    }
}
