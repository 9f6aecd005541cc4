//! The system calls that the standard library has no safe call for.
#![allow(
    unsafe_code,
    reason = "mapping memory, seals and epoll have no safe wrapper in the standard library"
)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr::{self, NonNull};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

/// A mapping of another process's memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a range of addresses that this object alone gives back, which any thread may do. What is behind it is
// written to by another process at any time, so nobody may hold references into it from either thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; it hands out nothing but its address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of `file` for reading and writing, which others see.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        // SAFETY: a new mapping wherever the kernel likes touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    pub fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours that nothing points into any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// True when the file can never become shorter.
pub(crate) fn is_sealed_against_shrinking(file: &File) -> bool {
    // SAFETY: takes no pointers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

/// True when the file is made of reserved hugepages.
pub(crate) fn is_on_hugepages(file: &File) -> bool {
    // SAFETY: plain integers, for which all zeros are a valid value.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `about` takes one `statfs`.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut about) };
    result == 0 && about.f_type == libc::HUGETLBFS_MAGIC
}

/// Has the calling thread take no signals: they are the program's, and a write to a peer that is gone is an
/// error here and nothing else.
pub(crate) fn block_signals() {
    // SAFETY: a signal set is plain integers, and the calls read and write it alone.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, ptr::null_mut());
    }
}

/// Makes an event descriptor of what a peer sent; None when it is something else, which could block or end the
/// program when it is written to.
pub(crate) fn event_fd_from_peer(file: File) -> Option<EventFd> {
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    if name.as_os_str() != "anon_inode:[eventfd]" {
        return None;
    }
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above. A full counter then refuses to be added to, instead of blocking.
    if flags < 0 || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and `file` gave it up.
    Some(unsafe { EventFd::from_raw_fd(file.into_raw_fd()) })
}

/// Bytes that can be read, at most one; none when the other end hung up. Takes nothing, and never blocks.
pub(crate) fn peek(stream: &UnixStream) -> io::Result<usize> {
    let mut byte = 0_u8;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: room for one byte, which lives during the call.
    let count = unsafe { libc::recv(stream.as_raw_fd(), (&raw mut byte).cast(), 1, flags) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// Waits until so many bytes have come, and copies them without taking them. False when the other end leaves first.
pub(crate) fn peek_all(stream: &UnixStream, bytes: &mut [u8]) -> bool {
    receive_all(stream, bytes, libc::MSG_PEEK)
}

/// Takes so many bytes. False when the other end leaves first.
pub(crate) fn read_all(stream: &UnixStream, bytes: &mut [u8]) -> bool {
    receive_all(stream, bytes, 0)
}

/// The control thread takes no signals, so nothing interrupts the wait.
fn receive_all(stream: &UnixStream, bytes: &mut [u8], flags: c_int) -> bool {
    // SAFETY: writes at most the length of `bytes`, which live during the call.
    let count = unsafe {
        libc::recv(stream.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), flags | libc::MSG_WAITALL)
    };
    usize::try_from(count) == Ok(bytes.len())
}

/// Waits until one of the descriptors is readable or was hung up, or for `longest`. Says which are.
pub(crate) fn wait_readable<const N: usize>(fds: [&dyn AsRawFd; N], longest: Duration) -> [bool; N] {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let timeout = c_int::try_from(longest.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the array is that long, and lives during the call.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout) };
    polled.map(|polled| ready > 0 && polled.revents != 0)
}

/// Readable when one of several event descriptors was written to. They are watched for changes, never read: what a
/// peer has done to one of them cannot hold us up.
#[derive(Debug)]
pub(crate) struct Watch {
    epoll: OwnedFd,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened, and nobody else has it.
        Ok(Self { epoll: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Watches `event` until it is closed.
    pub fn add(&self, event: &EventFd) -> io::Result<()> {
        let mut about = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both descriptors are open, and `about` is read during the call alone.
        let result = unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, event.as_raw_fd(), &raw mut about)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Forgets the changes up to now.
    pub fn clear(&self) {
        const MOST: c_int = 16;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST as usize];
        // Bounded: a peer that writes on and on must not keep us here.
        for _ in 0..MOST {
            // SAFETY: the array is that long, and lives during the call, which does not wait.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), MOST, 0) };
            if count < MOST {
                break;
            }
        }
    }

    pub fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
