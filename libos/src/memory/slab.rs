//! Slabs: spans cut into slots of one size, each slab with a free list of its own.

use std::cell::Cell;
use std::ptr::NonNull;

use super::allocator::Allocator;
use super::block::Block;
use super::classes::{Class, GRAIN_BYTES};
use super::poison::{poison, unpoison};

/// What is known about a used span: a slab of equal slots, or one large block.
/// Lives outside the region, one cache line each.
#[repr(align(64))]
pub(super) struct Slab {
    /// The allocator that owns the slab. Other threads read this to find where to return blocks.
    pub(super) owner: NonNull<Allocator>,
    /// Free slots. All of them: a slab is cut up at once.
    free: Cell<Option<NonNull<Block>>>,
    /// Slots that are not free, and one more while allocations come from the slab: so that freeing
    /// the last slot of a slab that stays anyhow is nothing special.
    used: Cell<u32>,
    /// The span's first chunk.
    pub(super) chunk: u32,
    /// The slots' size class; `None` for one large block.
    pub(super) class: Option<Class>,
    /// Neighbours in the class's list of slabs with free slots.
    previous: Cell<Option<NonNull<Self>>>,
    next: Cell<Option<NonNull<Self>>>,
}

const _: () = assert!(size_of::<Slab>() == 64);

impl Slab {
    /// A slab without a single slot.
    pub(super) fn without_slots(owner: NonNull<Allocator>) -> Self {
        Self {
            owner,
            free: Cell::new(None),
            used: Cell::new(0),
            chunk: 0,
            class: None,
            previous: Cell::new(None),
            next: Cell::new(None),
        }
    }

    /// Makes the span at `start`, whose first chunk is `chunk`, a slab of free slots, or a single free
    /// block of `bytes` when there is no class, and describes it in `slab`.
    ///
    /// # Safety
    /// The span is used by nobody, `slab` may be written to and outlives the span's use, and both
    /// belong to `owner`.
    pub(super) unsafe fn cut(
        slab: NonNull<Self>,
        owner: NonNull<Allocator>,
        start: NonNull<u8>,
        chunk: u32,
        class: Option<Class>,
        bytes: usize,
    ) {
        let (slots, slot_bytes) = class.map_or((1, bytes), |class| (class.slots(), class.slot_bytes()));
        debug_assert!(slots * slot_bytes <= bytes && slot_bytes % GRAIN_BYTES == 0);
        let mut free = None;
        for slot in (0..slots).rev() {
            // SAFETY: slots are within the span, which is at least aligned to grains, and so are they.
            unsafe {
                let block = start.add(slot * slot_bytes).cast::<Block>();
                unpoison(block.as_ptr().cast(), size_of::<Block>());
                block.write(Block::free(slab, slot_bytes, free));
                free = Some(block);
            }
        }
        // SAFETY: the caller gave `slab` to be written to.
        unsafe { slab.write(Self { free: Cell::new(free), chunk, class, ..Self::without_slots(owner) }) };
    }

    /// The free slot that [`Self::take_first`] takes, and the bytes it holds.
    #[inline(always)]
    pub(super) fn first_free(&self) -> Option<(NonNull<Block>, usize)> {
        let block = self.free.get()?;
        // SAFETY: blocks in the free list are initialised headers in the slab's span.
        Some((block, unsafe { block.as_ref() }.held_bytes))
    }

    /// Takes the slot that [`Self::first_free`] showed.
    #[inline(always)]
    pub(super) fn take_first(&self, block: NonNull<Block>) {
        debug_assert_eq!(self.free.get(), Some(block));
        // SAFETY: as in `first_free`.
        let header = unsafe { block.as_ref() };
        unpoison(block.as_ptr().cast(), header.held_bytes);
        self.free.set(header.next.get());
        self.used.set(self.used.get() + 1);
        header.start();
    }

    /// Takes a free slot.
    pub(super) fn take(&self) -> Option<NonNull<Block>> {
        let (block, _) = self.first_free()?;
        self.take_first(block);
        Some(block)
    }

    /// Gives a slot back; true when it is the first free one, or nothing uses the slab any more.
    ///
    /// # Safety
    /// `block` was taken from this slab and nobody uses it any more.
    #[inline]
    pub(super) unsafe fn put(&self, block: NonNull<Block>) -> bool {
        // SAFETY: the caller's promise.
        let header = unsafe { block.as_ref() };
        let free = self.free.get();
        let used = self.used.get() - 1;
        header.next.set(free);
        self.free.set(Some(block));
        self.used.set(used);
        poison(
            block.as_ptr().cast::<u8>().wrapping_add(size_of::<Block>()),
            header.held_bytes - size_of::<Block>(),
        );
        free.is_none() || used == 0
    }

    /// True when no slot is taken and allocations come from elsewhere.
    pub(super) fn is_unused(&self) -> bool {
        self.used.get() == 0
    }

    /// True when no slot is taken, in a slab that allocations come from.
    pub(super) fn is_idle(&self) -> bool {
        self.used.get() == 1
    }

    /// From now on, allocations come from this slab.
    pub(super) fn make_current(&self) {
        self.used.set(self.used.get() + 1);
    }

    /// From now on, allocations come from elsewhere.
    pub(super) fn make_other(&self) {
        self.used.set(self.used.get() - 1);
    }
}

/// The slabs of a class that have free slots, apart from the one that allocations come from.
pub(super) struct SlabList {
    head: Cell<Option<NonNull<Slab>>>,
}

impl SlabList {
    /// An empty list.
    pub(super) const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// Enters a slab in front.
    ///
    /// # Safety
    /// The slab and all in the list live, and it is in no list.
    pub(super) unsafe fn push(&self, slab: NonNull<Slab>) {
        let next = self.head.replace(Some(slab));
        // SAFETY: the caller's promise.
        unsafe {
            slab.as_ref().previous.set(None);
            slab.as_ref().next.set(next);
            if let Some(next) = next {
                next.as_ref().previous.set(Some(slab));
            }
        }
    }

    /// Takes a slab out.
    ///
    /// # Safety
    /// The slab is in this list.
    pub(super) unsafe fn remove(&self, slab: NonNull<Slab>) {
        // SAFETY: slabs in the list live.
        unsafe {
            let previous = slab.as_ref().previous.take();
            let next = slab.as_ref().next.take();
            if let Some(next) = next {
                next.as_ref().previous.set(previous);
            }
            match previous {
                Some(previous) => previous.as_ref().next.set(next),
                None => self.head.set(next),
            }
        }
    }

    /// Takes the first slab out.
    pub(super) fn pop(&self) -> Option<NonNull<Slab>> {
        let slab = self.head.get()?;
        // SAFETY: it is in this list.
        unsafe { self.remove(slab) };
        Some(slab)
    }
}
