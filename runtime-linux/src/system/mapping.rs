//! Memory that is shared with the kernel.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

/// A mapping of what a socket shares, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is a range of addresses that this object alone gives back, which any thread may do.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `bytes` of what the socket shares at `offset`, and has the pages there from the start.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize, offset: libc::off_t) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping wherever the kernel likes touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd.as_raw_fd(), offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// A pointer to `bytes` bytes at `at`.
    ///
    /// # Panics
    /// When they are not within the mapping.
    #[inline]
    pub fn range(&self, at: usize, bytes: usize) -> NonNull<u8> {
        assert!(at <= self.bytes && bytes <= self.bytes - at, "beyond what the kernel shares");
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.base.add(at) }
    }

    /// A word at `at` that both sides change.
    ///
    /// # Panics
    /// When it is not within the mapping, or not aligned.
    #[inline]
    pub fn word(&self, at: usize) -> &AtomicU32 {
        let word = self.range(at, size_of::<u32>()).cast::<AtomicU32>();
        assert!(word.is_aligned(), "a word that is shared with the kernel is aligned");
        // SAFETY: within the mapping, aligned, lives as long as `self`, and only changed as an atomic from here.
        unsafe { word.as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours, and whatever points into it borrows `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
