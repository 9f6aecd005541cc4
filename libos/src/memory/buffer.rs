//! Buffers: reference-counted views into registered memory.
#![allow(clippy::undocumented_unsafe_blocks)]
use std::cell::Cell;
use std::fmt;
use std::ops::{Bound, Deref, DerefMut, RangeBounds};
use std::ptr::NonNull;
use std::rc::Rc;

use super::{Arena, HEADROOM_BYTES};

struct Block {
    references: Cell<usize>,
    memory: Box<[u8]>,
    live: Rc<Cell<(usize, usize)>>,
}

/// A shared, read-only view of bytes in registered memory. Cloning and slicing never copy.
pub struct Buffer {
    data: NonNull<u8>,
    len: usize,
    block: NonNull<Block>,
}

/// The only view of a buffer, which may be written to.
pub struct BufferMut {
    inner: Buffer,
}

impl Buffer {
    fn block(&self) -> &Block {
        unsafe { self.block.as_ref() }
    }

    /// True when no other view of the same memory exists.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.block().references.get() == 1
    }

    /// Bytes of memory that this view keeps from being reused, at least its length.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.block().memory.len()
    }

    /// A view of part of the bytes.
    ///
    /// # Panics
    /// When the range is not within the buffer; see [`Self::try_slice`].
    #[must_use]
    #[allow(clippy::panic)]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        match self.try_slice(range) {
            Some(slice) => slice,
            None => panic!("slice out of bounds"),
        }
    }

    /// A view of part of the bytes, `None` when the range is not within the buffer.
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
        slice.data = unsafe { slice.data.add(start) };
        slice.len = end - start;
        Some(slice)
    }

    /// Drops the first `count` bytes from the view, all of them when there are fewer.
    pub fn advance(&mut self, count: usize) {
        let count = count.min(self.len);
        self.data = unsafe { self.data.add(count) };
        self.len -= count;
    }

    /// Drops all but the first `len` bytes from the view.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Cuts the first `count` bytes off and returns them as a view of their own; all when fewer.
    #[must_use]
    pub fn split_to(&mut self, count: usize) -> Self {
        let mut front = self.clone();
        front.truncate(count);
        self.advance(count);
        front
    }

    /// Bytes of the block in front of this view.
    #[must_use]
    pub fn headroom(&self) -> usize {
        self.data.as_ptr() as usize - self.block().memory.as_ptr() as usize
    }

    /// Writes `header` directly in front of the data and returns a view of both, if this is the
    /// only view of the memory and there is room. Bytes in front of the view are overwritten.
    #[must_use]
    pub fn with_header(&mut self, header: &[u8]) -> Option<Self> {
        if !self.is_unique() || self.headroom() < header.len() {
            return None;
        }
        let mut framed = self.clone();
        unsafe {
            framed.data = framed.data.sub(header.len());
            std::ptr::copy_nonoverlapping(header.as_ptr(), framed.data.as_ptr(), header.len());
        }
        framed.len += header.len();
        Some(framed)
    }

    /// The same bytes to write to, if this is the only view of the memory.
    ///
    /// # Errors
    /// The buffer itself, when there are other views.
    pub fn try_into_mut(self) -> Result<BufferMut, Self> {
        if self.is_unique() { Ok(BufferMut { inner: self }) } else { Err(self) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.block().references.set(self.block().references.get() + 1);
        Self { data: self.data, len: self.len, block: self.block }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let references = self.block().references.get() - 1;
        self.block().references.set(references);
        if references == 0 {
            let block = unsafe { Box::from_raw(self.block.as_ptr()) };
            let (live, bytes) = block.live.get();
            block.live.set((live - 1, bytes - block.memory.len()));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for Buffer {
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
    pub(super) fn heap(arena: &Arena, capacity: usize) -> Self {
        let memory = vec![0; capacity + HEADROOM_BYTES].into_boxed_slice();
        let (live, bytes) = arena.live.get();
        arena.live.set((live + 1, bytes + memory.len()));
        let mut block = Box::new(Block { references: Cell::new(1), memory, live: arena.live.clone() });
        let data = unsafe { NonNull::new_unchecked(block.memory.as_mut_ptr().add(HEADROOM_BYTES)) };
        let block = unsafe { NonNull::new_unchecked(Box::into_raw(block)) };
        Self { inner: Buffer { data, len: 0, block } }
    }

    /// Bytes that fit, from the start of the data to the end of the block.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.inner.block().memory.len() - self.inner.headroom()
    }

    /// Sets the length, at most the capacity. New bytes hold whatever the memory held before.
    pub fn set_len(&mut self, len: usize) {
        self.inner.len = len.min(self.capacity());
    }

    /// Appends as many of `bytes` as fit; returns how many.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.capacity() - self.inner.len);
        let end = self.inner.len;
        self.inner.len += count;
        self[end..].copy_from_slice(&bytes[..count]);
        count
    }

    /// Ends writing; costs nothing.
    #[must_use]
    pub fn freeze(self) -> Buffer {
        self.inner
    }
}

impl Deref for BufferMut {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.inner
    }
}

impl DerefMut for BufferMut {
    fn deref_mut(&mut self) -> &mut [u8] {
        unsafe { std::slice::from_raw_parts_mut(self.inner.data.as_ptr(), self.inner.len) }
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferMut").field("len", &self.inner.len).finish_non_exhaustive()
    }
}
