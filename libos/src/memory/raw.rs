//! Buffers as plain pointers, for a C API: a reference leaves Rust's care with `into_raw` and comes
//! back with `from_raw`.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use super::block::Block;
use super::buffer::{Buffer, BufferMut};

/// The block of memory that a buffer is a view of, as an opaque pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawBlock(pub(super) NonNull<Block>);

impl RawBlock {
    /// The pointer, never null.
    #[must_use]
    pub fn as_ptr(self) -> *mut u8 {
        self.0.as_ptr().cast()
    }

    /// The reverse of [`Self::as_ptr`]; `None` for null.
    ///
    /// # Safety
    /// The pointer is null or came from [`Self::as_ptr`].
    #[must_use]
    pub unsafe fn from_ptr(pointer: *mut u8) -> Option<Self> {
        NonNull::new(pointer.cast()).map(Self)
    }
}

/// A buffer as plain pointers. Holds one reference to the block, but does not give it back by
/// itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawBuffer {
    /// The first byte of the view.
    pub data: NonNull<u8>,
    /// Bytes of the view.
    pub len: usize,
    /// The block.
    pub block: RawBlock,
}

impl Buffer {
    /// Takes the buffer apart. Its reference to the block stays counted until [`Self::from_raw`].
    #[must_use = "the block is leaked unless it comes back"]
    pub fn into_raw(self) -> RawBuffer {
        let this = ManuallyDrop::new(self);
        RawBuffer { data: this.data, len: this.len, block: RawBlock(this.block) }
    }

    /// Puts a buffer together again.
    ///
    /// # Safety
    /// `raw` came from an `into_raw` on this thread, as it is, and comes back once.
    #[must_use]
    pub unsafe fn from_raw(raw: RawBuffer) -> Self {
        Self { data: raw.data, len: raw.len, block: raw.block.0 }
    }

    /// Puts a buffer together again as another view of its block, of `len` bytes from `data` on: what a device wrote
    /// there. `None`, and the reference given back, unless they are all in the block.
    ///
    /// # Safety
    /// As [`Self::from_raw`], and nobody writes to the bytes while the view exists.
    #[must_use]
    #[inline]
    pub unsafe fn from_raw_at(raw: RawBuffer, data: *const u8, len: usize) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (mut buffer, range) = unsafe { (Self::from_raw(raw), Block::range(raw.block.0)) };
        let start = data as usize;
        if start < range.start || len > range.end.checked_sub(start)? {
            return None;
        }
        buffer.data = NonNull::new(data.cast_mut())?;
        buffer.len = len;
        Some(buffer)
    }

    /// The block that the buffer is a view of.
    #[must_use]
    pub fn raw_block(&self) -> RawBlock {
        RawBlock(self.block)
    }

    /// A further view of `len` bytes from `data` on; `None` unless they are all in the block. The
    /// bytes a program in C fills and sends are part of what it was handed, and not always all.
    ///
    /// # Safety
    /// The block has a reference on this thread, and nobody writes to it while the view exists.
    #[must_use]
    pub unsafe fn view_raw(block: RawBlock, data: *const u8, len: usize) -> Option<Self> {
        // SAFETY: the caller's promise.
        let (header, range) = unsafe { (block.0.as_ref(), Block::range(block.0)) };
        let start = data as usize;
        if start < range.start || len > range.end.checked_sub(start)? {
            return None;
        }
        header.retain();
        Some(Self { data: NonNull::new(data.cast_mut())?, len, block: block.0 })
    }
}

impl BufferMut {
    /// Takes the buffer apart. Its reference to the block stays counted until [`Self::from_raw`] or,
    /// when nobody writes to it any more, [`Buffer::from_raw`].
    #[must_use = "the block is leaked unless it comes back"]
    pub fn into_raw(self) -> RawBuffer {
        self.freeze().into_raw()
    }

    /// Puts a buffer together again.
    ///
    /// # Safety
    /// `raw` came from a `BufferMut::into_raw` on this thread, as it is, comes back once, and no
    /// other view of the block exists.
    #[must_use]
    pub unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the caller's promise.
        Self { inner: unsafe { Buffer::from_raw(raw) } }
    }
}
