//! Buffers: reference-counted views into registered memory.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;

use super::allocator;
use super::block::{Block, DATA_OFFSET_BYTES};

/// A shared, read-only view of bytes in registered memory. Cloning and slicing never copy.
///
/// Belongs to the arena's thread; as [`bytes::Bytes`] the same bytes go to others. Made from `Bytes`,
/// `Vec<u8>` or `&'static [u8]`, it refers to these, outside any arena.
pub struct Buffer {
    pub(super) data: NonNull<u8>,
    pub(super) len: usize,
    pub(super) block: NonNull<Block>,
}

/// The only view of a buffer, which may be written to.
pub struct BufferMut {
    pub(super) inner: Buffer,
}

impl Buffer {
    #[inline]
    pub(super) fn block(&self) -> &Block {
        // SAFETY: the view is counted in the block, which lives as long.
        unsafe { self.block.as_ref() }
    }

    /// True when no other view of the same memory exists, on any thread, and it may be written to.
    /// Memory from outside the arena never may.
    #[inline]
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.block().is_writable()
    }

    /// True when there are more than `own` views of the same memory, of which this is one, or other threads have some.
    #[must_use]
    pub fn has_views_besides(&self, own: usize) -> bool {
        self.block().is_held_besides(own)
    }

    /// Bytes of memory that this view keeps from being reused, at least its length.
    #[inline]
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.block().held_bytes
    }

    /// A view of part of the bytes.
    ///
    /// # Panics
    /// When the range is not within the buffer; see [`Self::try_slice`].
    #[inline]
    #[must_use]
    #[track_caller]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        match self.try_slice(range) {
            Some(slice) => slice,
            None => slice_out_of_bounds(self.len),
        }
    }

    /// A view of part of the bytes, `None` when the range is not within the buffer.
    #[inline]
    #[must_use]
    pub fn try_slice(&self, range: impl RangeBounds<usize>) -> Option<Self> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.checked_add(1)?,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.checked_add(1)?,
            Bound::Excluded(&end) => end,
            Bound::Unbounded => self.len,
        };
        if start > end || end > self.len {
            return None;
        }
        let mut slice = self.clone();
        // SAFETY: `start` is at most the length of the view.
        slice.data = unsafe { slice.data.add(start) };
        slice.len = end - start;
        Some(slice)
    }

    /// Drops the first `count` bytes from the view, all of them when there are fewer.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len);
        // SAFETY: `count` is at most the length of the view.
        self.data = unsafe { self.data.add(count) };
        self.len -= count;
    }

    /// Drops all but the first `len` bytes from the view.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Cuts the first `count` bytes off and returns them as a view of their own; all when fewer.
    #[inline]
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        let mut front = self.clone();
        front.truncate(count);
        self.advance(count);
        front
    }

    /// Bytes of the block in front of this view; none in memory from outside the arena.
    #[inline]
    #[must_use]
    pub fn headroom(&self) -> usize {
        if self.block().is_external() { 0 } else { self.bytes_in_front() }
    }

    /// Bytes between the block's header and the view, in a block of an arena.
    #[inline]
    fn bytes_in_front(&self) -> usize {
        self.data.as_ptr() as usize - self.block.as_ptr() as usize - size_of::<Block>()
    }

    /// Bytes from the view's first to the block's end, in a block of an arena.
    #[inline]
    fn bytes_to_end(&self) -> usize {
        self.held_bytes() - size_of::<Block>() - self.bytes_in_front()
    }

    /// True when `len` bytes can be put in front of the data in place: this is the only view of the memory, and there
    /// is room.
    #[inline(always)]
    #[must_use]
    pub fn takes_header(&self, len: usize) -> bool {
        self.is_unique() && self.bytes_in_front() >= len
    }

    /// The same view, moved field by field, each through a register. A view that was put together just before is in
    /// several stores, and a load that is as wide as two of them waits until both have left for the cache.
    #[inline(always)]
    #[must_use]
    pub fn by_fields(self) -> Self {
        let this = ManuallyDrop::new(self);
        let (len, block) = apart(this.len, this.block);
        Self { data: this.data, len, block }
    }

    /// Writes `header` directly in front of the data and returns a view of both, if this is the
    /// only view of the memory and there is room. Bytes in front of the view are overwritten.
    #[inline]
    #[must_use]
    pub fn with_header(&mut self, header: &[u8]) -> Option<Self> {
        self.with_header_by(header.len(), |bytes| bytes.copy_from_slice(header))
    }

    /// As [`Self::with_header`]; `write` fills in the header's `len` bytes in place, which hold
    /// whatever the memory held before.
    #[inline(always)]
    #[must_use]
    pub fn with_header_by(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Option<Self> {
        if !self.takes_header(len) {
            return None;
        }
        let mut framed = self.clone();
        // SAFETY: there is room, and apart from the new view this one is alone, and borrowed meanwhile.
        unsafe { framed.widen(len, write) };
        Some(framed)
    }

    /// Widens the view by `len` bytes in front, if it is the only one of the memory and there is room; `write` fills
    /// them in, which hold whatever the memory held before. False, and nothing done, otherwise.
    #[inline(always)]
    #[must_use]
    pub fn prepend_by(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> bool {
        if !self.takes_header(len) {
            return false;
        }
        // SAFETY: there is room, and this view is alone.
        unsafe { self.widen(len, write) };
        true
    }

    /// Begins the view `len` bytes earlier; `write` fills them in.
    ///
    /// # Safety
    /// The memory is an arena's and not lent, there are as many bytes between the block's header and the view,
    /// and no view covers them, now or while `write` runs.
    #[inline(always)]
    unsafe fn widen(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        // SAFETY: the bytes are within the block, whose bytes are initialised, and nobody else's.
        unsafe {
            self.data = self.data.sub(len);
            write(std::slice::from_raw_parts_mut(self.data.as_ptr(), len));
        }
        self.len += len;
    }

    /// The same bytes to write to, if this is the only view of the memory.
    ///
    /// # Errors
    /// The buffer itself, when there are other views, or the memory is from outside the arena.
    #[inline]
    pub fn try_into_mut(self) -> Result<BufferMut, Self> {
        if self.is_unique() { Ok(BufferMut { inner: self }) } else { Err(self) }
    }
}

/// The same two words, of which the compiler does not know that: else it moves two together after all.
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
#[inline(always)]
fn apart<T>(mut len: usize, block: NonNull<T>) -> (usize, NonNull<T>) {
    let mut raw = block.as_ptr();
    #[allow(clippy::pointers_in_nomem_asm_block, reason = "there is no instruction that could use it")]
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!(
            "/* {0} {1} */",
            inout(reg) len,
            inout(reg) raw,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    // SAFETY: what it was before.
    (len, unsafe { NonNull::new_unchecked(raw) })
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[inline(always)]
fn apart<T>(len: usize, block: NonNull<T>) -> (usize, NonNull<T>) {
    (len, block)
}

#[cold]
#[inline(never)]
#[track_caller]
#[expect(clippy::panic, reason = "the documented panic of `slice`, as of a slice's index")]
fn slice_out_of_bounds(len: usize) -> ! {
    panic!("slice out of the bounds of a buffer of {len} bytes")
}

impl Clone for Buffer {
    #[inline]
    fn clone(&self) -> Self {
        self.block().retain();
        Self { data: self.data, len: self.len, block: self.block }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if self.block().release() {
            // SAFETY: this was the last reference, and nothing uses it after this.
            unsafe { allocator::free(self.block) };
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the view is within its block, whose bytes are initialised, and are written to by
        // nobody while there are views other than a writer's own.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len).finish_non_exhaustive()
    }
}

impl BufferMut {
    /// An empty buffer over a new block.
    ///
    /// # Safety
    /// The block is an arena's, larger than [`DATA_OFFSET_BYTES`], and has one reference, which
    /// becomes this.
    #[inline]
    pub(super) unsafe fn from_new_block(block: NonNull<Block>) -> Self {
        // SAFETY: the caller's promise.
        let data = unsafe { block.cast::<u8>().add(DATA_OFFSET_BYTES) };
        Self { inner: Buffer { data, len: 0, block } }
    }

    /// The buffer with a copy of `bytes` in it.
    ///
    /// # Safety
    /// They fit, and are not the buffer's own.
    #[inline(always)]
    pub(super) unsafe fn filled_with(mut self, bytes: &[u8]) -> Self {
        // SAFETY: the caller's promise.
        unsafe { bytes.as_ptr().copy_to_nonoverlapping(self.inner.data.as_ptr(), bytes.len()) };
        self.inner.len = bytes.len();
        self
    }

    /// Bytes that fit, from the start of the data to the end of the block.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.bytes_to_end()
    }

    /// Sets the length, at most the capacity. New bytes hold whatever the memory held before.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        self.inner.len = len.min(self.capacity());
    }

    /// Appends as many of `bytes` as fit; returns how many.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let end = self.inner.len;
        let count = bytes.len().min(self.capacity() - end);
        self.inner.len += count;
        self[end..].copy_from_slice(&bytes[..count]);
        count
    }

    /// Ends writing; costs nothing.
    #[inline]
    #[must_use]
    pub fn freeze(self) -> Buffer {
        self.inner
    }
}

impl From<BufferMut> for Buffer {
    #[inline]
    fn from(buffer: BufferMut) -> Self {
        buffer.freeze()
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.inner
    }
}

impl DerefMut for BufferMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the view is within its block, whose bytes are initialised, and it is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.inner.data.as_ptr(), self.inner.len) }
    }
}

impl AsRef<[u8]> for BufferMut {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for BufferMut {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("len", &self.inner.len).finish_non_exhaustive()
    }
}
