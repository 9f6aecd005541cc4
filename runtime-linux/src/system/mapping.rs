//! Memory that is shared with the kernel.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
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
        Self::map(bytes, libc::MAP_SHARED | libc::MAP_POPULATE, fd.as_raw_fd(), offset)
    }

    /// As much memory of our own, for tests of what is shared.
    #[cfg(test)]
    pub fn anonymous(bytes: usize) -> io::Result<Self> {
        Self::map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
    }

    fn map(bytes: usize, flags: c_int, fd: RawFd, offset: libc::off_t) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping wherever the kernel likes touches nothing that exists.
        let base = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, bytes })
    }

    /// Bytes of the mapping.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// True when a value of this type is within the mapping at `at`, and aligned.
    pub fn contains<T>(&self, at: usize) -> bool {
        at.is_multiple_of(align_of::<T>()) && self.holds(at, size_of::<T>())
    }

    /// True when so many bytes at `at` are within the mapping.
    #[inline]
    pub fn holds(&self, at: usize, bytes: usize) -> bool {
        at <= self.bytes && bytes <= self.bytes - at
    }

    /// A pointer to `bytes` bytes at `at`.
    ///
    /// # Panics
    /// When they are not within the mapping.
    #[inline]
    pub fn range(&self, at: usize, bytes: usize) -> NonNull<u8> {
        assert!(self.holds(at, bytes), "beyond what the kernel shares");
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
