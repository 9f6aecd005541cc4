//! The system calls that time and sleeping take.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{c_void, nfds_t, pollfd, timespec};

/// Nanoseconds on the machine's monotonic clock. Straight from the system, because what the standard
/// library returns has to be taken apart and converted again.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writes of a timespec. The call cannot fail: the clock is one that
    // every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    // Neither part is ever negative.
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// Sleeps until one of the descriptors is readable or broken, `timeout` is over (`None`: never), or
/// a signal arrives.
pub(crate) fn wait_readable(fds: &mut [pollfd], timeout: Option<Duration>) {
    let timeout = timeout.map(|timeout| timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: `fds` is valid for reads and writes of as many elements as are given, `timeout` is null or
    // points to a timespec on this stack frame, and a null signal mask is allowed.
    // The result does not matter: whatever ended the sleep, the caller polls everything afterwards.
    unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as nfds_t, timeout, ptr::null()) };
}

/// One entry of [`wait_readable`].
pub(crate) fn readable(fd: RawFd) -> pollfd {
    pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// A descriptor that any thread can make readable.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call succeeded, so `fd` is an open descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Makes the descriptor readable.
    pub(crate) fn signal(&self) {
        let one = 1_u64;
        // SAFETY: `one` is valid for reads of its 8 bytes. The write can only fail when the counter
        // is full, and then the descriptor is readable already.
        unsafe { libc::write(self.raw(), ptr::from_ref(&one).cast::<c_void>(), size_of::<u64>()) };
    }

    /// Makes the descriptor unreadable again.
    pub(crate) fn clear(&self) {
        let mut count = 0_u64;
        // SAFETY: `count` is valid for writes of its 8 bytes. The read can only fail when the
        // descriptor was not readable, which is what is wanted.
        unsafe { libc::read(self.raw(), ptr::from_mut(&mut count).cast::<c_void>(), size_of::<u64>()) };
    }
}

/// The processors that the calling thread may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: a set of bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for writes of the size given. A failure leaves it empty.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    // SAFETY: every number is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Lets the calling thread run on one processor alone.
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    // SAFETY: a set of bits, for which all zeros is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the number is below the set's size.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is valid for reads of the size given.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
