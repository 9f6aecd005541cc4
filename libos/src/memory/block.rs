//! The block header: the bookkeeping in front of every buffer's memory.

use std::cell::Cell;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::external::External;
use super::slab::Slab;

/// Bytes from a block's first to its data's first: header and headroom. A multiple of the cache line,
/// so that data begins on one; what that leaves over is more headroom than was promised.
pub(super) const DATA_OFFSET_BYTES: usize =
    (size_of::<Block>() + super::HEADROOM_BYTES).next_multiple_of(super::classes::GRAIN_BYTES);

/// [`Block::lent`] of a block whose bytes are outside any region.
const EXTERNAL: u32 = u32::MAX;

/// More references than a program can hold; a count beyond is a leak in a loop.
const MOST_REFERENCES: u32 = i32::MAX as u32;

/// What stands in front of a buffer's memory.
///
/// `references` and `next` belong to the arena's thread, `next` to the thread that returns the block
/// while it does so. `held_bytes` and `slab` do not change while the block exists.
#[repr(C, align(32))]
pub(super) struct Block {
    /// Views on the arena's thread.
    references: Cell<u32>,
    /// 0: never lent to other threads. Else the number of lent views, and one more while
    /// `references` is not 0: whoever takes the last one away gives the block back.
    lent: AtomicU32,
    /// Bytes of the slot or span, this header included.
    pub(super) held_bytes: usize,
    /// The slab that the block is part of; dangling for external blocks.
    pub(super) slab: NonNull<Slab>,
    /// The next block of the free list or return list that this one is in.
    pub(super) next: Cell<Option<NonNull<Block>>>,
}

const _: () = assert!(size_of::<Block>() == 32);

impl Block {
    /// The header of a free block of a region.
    pub(super) fn free(slab: NonNull<Slab>, held_bytes: usize, next: Option<NonNull<Self>>) -> Self {
        Self { references: Cell::new(0), lent: AtomicU32::new(0), held_bytes, slab, next: Cell::new(next) }
    }

    /// The header of a block outside any region, with one reference.
    pub(super) fn external(held_bytes: usize) -> Self {
        Self {
            references: Cell::new(1),
            lent: AtomicU32::new(EXTERNAL),
            held_bytes,
            slab: NonNull::dangling(),
            next: Cell::new(None),
        }
    }

    /// Makes a free block a live one.
    #[inline]
    pub(super) fn start(&self) {
        self.references.set(1);
    }

    /// True when somebody on the arena's thread has a view of the block.
    pub(super) fn is_live(&self) -> bool {
        self.references.get() != 0
    }

    /// Counts one more view.
    #[inline]
    pub(super) fn retain(&self) {
        let references = self.references.get() + 1;
        self.references.set(references);
        if references > MOST_REFERENCES {
            too_many_references();
        }
    }

    /// Counts one view less; true when it was the last one of this thread.
    #[inline]
    pub(super) fn release(&self) -> bool {
        let references = self.references.get() - 1;
        self.references.set(references);
        references == 0
    }

    /// True when the block's bytes are outside any region, see [`super::external`].
    #[inline]
    pub(super) fn is_external(&self) -> bool {
        self.lent.load(Ordering::Relaxed) == EXTERNAL
    }

    /// True when neither lent nor external, which nearly all blocks are.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.lent.load(Ordering::Relaxed) == 0
    }

    /// True when one view alone exists in any thread, and its bytes may be written to.
    #[inline]
    pub(super) fn is_writable(&self) -> bool {
        // Acquire: what other threads read happened before what is written next. An external block
        // has a large number here and is never writable.
        self.references.get() == 1 && self.lent.load(Ordering::Acquire) <= 1
    }

    /// True when there are other views than `own` ones of this thread.
    pub(super) fn is_held_besides(&self, own: usize) -> bool {
        // An external block's count of lent views is not one.
        let lent = self.lent.load(Ordering::Acquire);
        self.references.get() as usize > own || (lent > 1 && lent != EXTERNAL)
    }

    /// Counts a view that goes to another thread; true when it is the first one.
    /// The caller has a view of its own.
    pub(super) fn lend(&self) -> bool {
        if self.lent.load(Ordering::Relaxed) == 0 {
            self.lent.store(2, Ordering::Relaxed);
            return true;
        }
        if self.lent.fetch_add(1, Ordering::Relaxed) > MOST_REFERENCES {
            too_many_references();
        }
        false
    }

    /// Takes one of the lent views, or the thread's own part, away; true when it was the last, and
    /// the caller has the block for itself. Any thread may do this.
    ///
    /// # Safety
    /// `block` is lent, and the caller has the part that it takes away.
    pub(super) unsafe fn return_lent(block: NonNull<Self>) -> bool {
        // SAFETY: the part keeps the block alive up to here. The field is named through the pointer, as
        // a reference to the whole would have to live while others may already free the block.
        unsafe { (*block.as_ptr()).lent.fetch_sub(1, Ordering::AcqRel) == 1 }
    }

    /// Addresses that views of the block may cover, headroom included.
    ///
    /// # Safety
    /// The block has a reference.
    pub(super) unsafe fn range(block: NonNull<Self>) -> Range<usize> {
        // SAFETY: the caller's promise.
        let header = unsafe { block.as_ref() };
        if header.is_external() {
            // SAFETY: external blocks are the first field of an `External`, which lives as long.
            let bytes = unsafe { &block.cast::<External>().as_ref().bytes };
            let start = bytes.as_ptr() as usize;
            return start..start + bytes.len();
        }
        let start = block.as_ptr() as usize;
        start + size_of::<Self>()..start + header.held_bytes
    }
}

/// Ends the program: the count would wrap and free memory that is in use.
#[cold]
#[inline(never)]
fn too_many_references() -> ! {
    std::process::abort()
}
