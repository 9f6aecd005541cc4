//! Buffers over memory outside any region: what a program brings along.
//!
//! Such a buffer refers to the program's own memory, which is neither copied nor written to. Devices
//! that send from registered memory alone copy it at their border.

use std::ptr::NonNull;

use bytes::Bytes;

use super::block::Block;
use super::buffer::Buffer;

/// A block header on the heap and the memory it stands for.
#[repr(C)]
pub(super) struct External {
    block: Block,
    pub(super) bytes: Bytes,
}

impl External {
    /// Frees an external block and what it stands for.
    ///
    /// # Safety
    /// `block` is external and nobody uses it any more.
    pub(super) unsafe fn free(block: NonNull<Block>) {
        // SAFETY: external blocks are the first field of what `From<Bytes>` boxed.
        drop(unsafe { Box::from_raw(block.cast::<Self>().as_ptr()) });
    }
}

impl From<Bytes> for Buffer {
    /// The same bytes; not copied. They count in no arena, and are dropped with the last view.
    fn from(bytes: Bytes) -> Self {
        let len = bytes.len();
        let data = NonNull::from(&*bytes).cast();
        let external = Box::new(External { block: Block::external(len), bytes });
        Self { data, len, block: NonNull::from(Box::leak(external)).cast() }
    }
}

impl From<Vec<u8>> for Buffer {
    /// The same bytes; not copied. See `From<Bytes>`.
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Buffer {
    /// The same bytes; not copied. See `From<Bytes>`.
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}
