//! Buffers in other threads.
//!
//! A buffer goes to other threads as [`Bytes`]. Dropped there, its block cannot be given back at
//! once, since the arena belongs to its own thread: it is pushed on the arena's return list, a lock-free stack
//! that many threads push to and the arena's thread empties. When the arena's thread is done
//! with everything and only lent blocks are left, the arena itself is left to them: the thread that
//! returns the last one frees it.

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use bytes::Bytes;

use super::allocator::Allocator;
use super::block::Block;
use super::buffer::Buffer;
use super::external::External;

/// Blocks that other threads gave back. Has its cache line for itself.
#[repr(align(64))]
pub(super) struct Returns {
    /// The last one given back, or [`orphaned`].
    head: AtomicPtr<Block>,
    /// Once orphaned: the blocks that are still out.
    out: AtomicUsize,
}

/// What the list's head is when the arena's thread is gone.
fn orphaned() -> *mut Block {
    ptr::without_provenance_mut(1)
}

impl Returns {
    pub(super) const fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), out: AtomicUsize::new(0) }
    }

    /// True when there is nothing to be taken. May miss what is pushed at this moment.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes all blocks, linked by [`Block::next`]. The arena's thread only.
    pub(super) fn take(&self) -> Option<NonNull<Block>> {
        NonNull::new(self.head.swap(ptr::null_mut(), Ordering::Acquire))
    }

    /// Gives a block back; true when it was the last one of an orphaned arena, which the caller then
    /// has to free. Unless true is returned, `self` may be gone.
    ///
    /// # Safety
    /// The caller has the block for itself.
    unsafe fn push(&self, block: NonNull<Block>) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == orphaned() {
                // AcqRel: all that other threads did with the arena happens before it is freed.
                return self.out.fetch_sub(1, Ordering::AcqRel) == 1;
            }
            // SAFETY: the block is the caller's alone.
            unsafe { block.as_ref() }.next.set(NonNull::new(head));
            match self.head.compare_exchange_weak(head, block.as_ptr(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return false,
                Err(now) => head = now,
            }
        }
    }

    /// Leaves the arena to the threads that hold the last `out` blocks; true when they all were
    /// returned meanwhile and the caller has to free the arena. Else `self` may be gone.
    pub(super) fn orphan(&self, out: usize) -> bool {
        self.out.store(out, Ordering::Relaxed);
        // Release: whoever sees the mark sees the count, and all that this thread did.
        let mut returned = NonNull::new(self.head.swap(orphaned(), Ordering::AcqRel));
        let mut count = 0;
        while let Some(block) = returned {
            count += 1;
            // SAFETY: a block in the list belongs to who took the list.
            returned = unsafe { block.as_ref() }.next.get();
        }
        // With none, nothing of ours keeps the count from reaching 0 in another thread by now.
        count > 0 && self.out.fetch_sub(count, Ordering::AcqRel) == count
    }
}

/// A view of a block that may be dropped by any thread.
struct Lent {
    data: NonNull<u8>,
    len: usize,
    block: NonNull<Block>,
}

// SAFETY: the bytes are not written to while a lent view exists, and dropping it touches nothing but
// the block's atomic count, and the return list.
unsafe impl Send for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the view keeps the block alive and unchanged.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: the view is the part that is taken away. If it is the last, the block is ours: it
        // still counts as used in its arena, which therefore lives, and whose address and slab do not
        // change. Only fields that no other thread writes to are read.
        unsafe {
            if !Block::return_lent(self.block) {
                return;
            }
            let slab = (*self.block.as_ptr()).slab;
            let allocator = (*slab.as_ptr()).owner;
            let returns = &raw const (*allocator.as_ptr()).returns;
            if (*returns).push(self.block) {
                Allocator::destroy(allocator);
            }
        }
    }
}

impl From<Buffer> for Bytes {
    /// The same bytes, for any thread; not copied. When the arena has lent its limit (see
    /// [`super::Arena::set_lent_limit_bytes`]), they are copied to the heap instead.
    fn from(buffer: Buffer) -> Self {
        if buffer.is_empty() {
            return Self::new();
        }
        let header = buffer.block();
        if header.is_external() {
            // SAFETY: external blocks are the first field of an `External`, which the buffer keeps alive.
            let bytes = unsafe { &buffer.block.cast::<External>().as_ref().bytes };
            return bytes.slice_ref(&buffer);
        }
        // SAFETY: the buffer keeps its slab alive, and that its allocator, on whose thread we are.
        let allocator = unsafe { header.slab.as_ref().owner.as_ref() };
        if !allocator.may_lend(header) {
            return Self::copy_from_slice(&buffer);
        }
        allocator.count_lent(header);
        let lent = Lent { data: buffer.data, len: buffer.len(), block: buffer.block };
        Self::from_owner(lent)
    }
}
