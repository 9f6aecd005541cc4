//! The allocator inside a region: slabs of size classes for small buffers, spans for large ones.
//!
//! One thread uses it, so that taking a block and giving it back are a few plain loads and stores:
//! each class has a current slab that allocations come from, and each slab a free list that its blocks
//! go back to. Everything else is out of line.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::arena::ArenaStats;
use super::block::{Block, DATA_OFFSET_BYTES};
use super::classes::{CLASS_TABLE, CLASSES, Class, GRAIN_BYTES, SLAB_BYTES};
use super::copies::CopyCounter;
use super::external::External;
use super::poison::{poison, unpoison};
use super::region::Region;
use super::remote::Returns;
use super::slab::{Slab, SlabList};
use super::spans::{CHUNK_BYTES, Spans};
use crate::SetupError;

const SLAB_CHUNKS: u32 = (SLAB_BYTES / CHUNK_BYTES) as u32;

/// The inner side of an arena. Lives on the heap until the last handle and the last block are gone.
pub(super) struct Allocator {
    /// The slab that each class allocates from; [`Self::no_slab`] when there is none yet.
    current: [Cell<NonNull<Slab>>; CLASS_TABLE],
    /// Handles, and blocks that have views on this thread. At 0 this thread is done.
    owners: Cell<usize>,
    used_bytes: Cell<usize>,
    peak_used_bytes: Cell<usize>,
    /// The smallest limit that any handle has.
    smallest_limit_bytes: Cell<usize>,
    /// An allocation up to which no more bytes are used is neither a new peak nor beyond anybody's limit.
    watermark_bytes: Cell<usize>,
    handles: Cell<usize>,
    /// Blocks that only other threads have views of.
    parked: Cell<usize>,
    lent_bytes: Cell<usize>,
    lent_limit_bytes: Cell<usize>,
    lent_copies: Cell<u64>,
    failed_allocations: Cell<u64>,
    pub(super) copies: CopyCounter,
    /// Each class's further slabs that have free slots.
    partial: [SlabList; CLASSES],
    spans: RefCell<Spans>,
    /// A slab for each chunk that a span may begin at, and one without slots at the end.
    slabs: NonNull<[MaybeUninit<Slab>]>,
    /// The first chunk.
    base: NonNull<u8>,
    region: Region,
    /// This object, with the right to free it.
    this: NonNull<Self>,
    pub(super) returns: Returns,
}

impl Allocator {
    /// An allocator for `region`, with one handle.
    pub(super) fn create(region: Region) -> Result<NonNull<Self>, SetupError> {
        let before = region.base().as_ptr().align_offset(GRAIN_BYTES);
        let count = u32::try_from(region.len().saturating_sub(before) / CHUNK_BYTES).unwrap_or(u32::MAX - 1);
        if count < SLAB_CHUNKS {
            let reason = format!("a region has at least {SLAB_BYTES} bytes");
            return Err(SetupError::Memory { bytes: region.len(), reason });
        }
        // SAFETY: `before` is less than the region's length, which is at least a slab's.
        let base = unsafe { region.base().add(before) };
        poison(region.base().as_ptr(), region.len());

        let slabs = NonNull::from(Box::leak(Box::<[Slab]>::new_uninit_slice(count as usize + 1)));
        let this: NonNull<Self> = NonNull::from(Box::leak(Box::<Self>::new_uninit())).cast();
        let no_slab = nth_slab(slabs, count as usize);
        // SAFETY: both were just allocated, for exactly this.
        unsafe {
            no_slab.write(Slab::without_slots(this));
            this.write(Self {
                current: [const { Cell::new(NonNull::dangling()) }; CLASS_TABLE],
                owners: Cell::new(1),
                used_bytes: Cell::new(0),
                peak_used_bytes: Cell::new(0),
                smallest_limit_bytes: Cell::new(usize::MAX),
                watermark_bytes: Cell::new(0),
                handles: Cell::new(1),
                parked: Cell::new(0),
                lent_bytes: Cell::new(0),
                lent_limit_bytes: Cell::new(region.len() / 2),
                lent_copies: Cell::new(0),
                failed_allocations: Cell::new(0),
                copies: CopyCounter::default(),
                partial: [const { SlabList::new() }; CLASSES],
                spans: RefCell::new(Spans::new(count)),
                slabs,
                base,
                region,
                this,
                returns: Returns::new(),
            });
            for current in &this.as_ref().current {
                current.set(no_slab);
            }
        }
        Ok(this)
    }

    /// A block with one reference and room for `capacity` bytes of data. With it, no more than `limit_bytes` are used, which
    /// [`Self::note_limit`] knows.
    #[inline(always)]
    pub(super) fn allocate(&self, capacity: usize, limit_bytes: usize) -> Option<NonNull<Block>> {
        if let Some(class) = Class::of(capacity)
            && let slab = self.current_slab(class)
            && let Some((block, held_bytes)) = slab.first_free()
            && let used_bytes = self.used_bytes.get() + held_bytes
            && used_bytes <= self.watermark_bytes.get()
        {
            self.used_bytes.set(used_bytes);
            self.owners.set(self.owners.get() + 1);
            slab.take_first(block);
            return Some(block);
        }
        self.allocate_carefully(capacity, limit_bytes)
    }

    /// [`Self::allocate`], with all that hardly ever is.
    #[cold]
    #[inline(never)]
    fn allocate_carefully(&self, capacity: usize, limit_bytes: usize) -> Option<NonNull<Block>> {
        if self.used_bytes().saturating_add(capacity) > limit_bytes && !self.gets_below(limit_bytes, capacity)
        {
            return None;
        }
        let Some(class) = Class::of(capacity) else {
            return self.allocate_span(capacity);
        };
        let block = match self.current_slab(class).take() {
            Some(block) => block,
            None => self.allocate_from_next_slab(class)?,
        };
        // SAFETY: a live block of ours.
        self.count_used(unsafe { block.as_ref() }.held_bytes);
        Some(block)
    }

    #[inline]
    fn current_slab(&self, class: Class) -> &Slab {
        // SAFETY: current slabs are slabs of ours, in use or the one without slots.
        unsafe { self.current[class.index()].get().as_ref() }
    }

    /// True when there is room for `capacity` bytes below `limit_bytes` once what other threads gave back is
    /// counted; else the allocation has failed.
    fn gets_below(&self, limit_bytes: usize, capacity: usize) -> bool {
        self.reclaim();
        let fits = self.used_bytes().saturating_add(capacity) <= limit_bytes;
        if !fits {
            self.count_failure();
        }
        fits
    }

    fn count_used(&self, bytes: usize) {
        self.owners.set(self.owners.get() + 1);
        let used_bytes = self.used_bytes.get() + bytes;
        self.used_bytes.set(used_bytes);
        self.peak_used_bytes.set(self.peak_used_bytes.get().max(used_bytes));
        self.set_watermark();
    }

    fn set_watermark(&self) {
        self.watermark_bytes.set(self.peak_used_bytes.get().min(self.smallest_limit_bytes.get()));
    }

    /// Says that there is a handle with this limit.
    pub(super) fn note_limit(&self, limit_bytes: usize) {
        self.smallest_limit_bytes.set(self.smallest_limit_bytes.get().min(limit_bytes));
        self.set_watermark();
    }

    /// The current slab is used up: goes on with one that has free slots, or a new one.
    fn allocate_from_next_slab(&self, class: Class) -> Option<NonNull<Block>> {
        self.reclaim();
        if let Some(block) = self.current_slab(class).take() {
            return Some(block);
        }
        let slab = self.partial[class.index()].pop().or_else(|| self.cut_span(SLAB_CHUNKS, Some(class)));
        let Some(slab) = slab else { return self.allocate_from_larger(class) };
        self.replace_current(class, slab);
        self.current_slab(class).take()
    }

    /// No slab is left for the class: takes a slot of a larger one. Else memory that received data has cut up could
    /// have room enough and still none for the header of an acknowledgment, and so never get rid of that data.
    fn allocate_from_larger(&self, class: Class) -> Option<NonNull<Block>> {
        for larger in Class::all().skip(class.index() + 1) {
            if let Some(block) = self.current_slab(larger).take() {
                return Some(block);
            }
            if let Some(slab) = self.partial[larger.index()].pop() {
                self.replace_current(larger, slab);
                return self.current_slab(larger).take();
            }
        }
        self.count_failure();
        None
    }

    fn count_failure(&self) {
        self.failed_allocations.set(self.failed_allocations.get() + 1);
    }

    /// Makes `slab` the one that the class allocates from.
    fn replace_current(&self, class: Class, slab: NonNull<Slab>) {
        let no_slab = self.no_slab();
        let previous = self.current[class.index()].replace(slab);
        // SAFETY: slabs of ours in use.
        unsafe {
            if previous != no_slab {
                previous.as_ref().make_other();
            }
            if slab != no_slab {
                slab.as_ref().make_current();
            }
        }
    }

    /// A block that has a span for itself.
    fn allocate_span(&self, capacity: usize) -> Option<NonNull<Block>> {
        self.reclaim();
        // More chunks than can be counted are more than there are: the search then fails.
        let chunks = capacity.saturating_add(DATA_OFFSET_BYTES).div_ceil(CHUNK_BYTES);
        let Some(slab) = self.cut_span(u32::try_from(chunks).unwrap_or(u32::MAX), None) else {
            self.count_failure();
            return None;
        };
        // SAFETY: the slab was just made.
        let block = unsafe { slab.as_ref() }.take()?;
        // SAFETY: a live block of ours.
        self.count_used(unsafe { block.as_ref() }.held_bytes);
        Some(block)
    }

    /// A new slab on a span of its own.
    fn cut_span(&self, chunks: u32, class: Option<Class>) -> Option<NonNull<Slab>> {
        let mut found = self.spans.borrow_mut().allocate(chunks);
        if found.is_none() {
            self.release_empty_slabs();
            found = self.spans.borrow_mut().allocate(chunks);
        }
        let head = found?;
        let slab = nth_slab(self.slabs, head as usize);
        // SAFETY: the pool gave the span, and with it the slab, to nobody else.
        unsafe { Slab::cut(slab, self.this, self.chunk(head), head, class, chunks as usize * CHUNK_BYTES) };
        Some(slab)
    }

    fn chunk(&self, index: u32) -> NonNull<u8> {
        // SAFETY: the pool's chunks are within the region.
        unsafe { self.base.add(index as usize * CHUNK_BYTES) }
    }

    /// Gives the current slabs that have no block in use back, so that their chunks may join others.
    fn release_empty_slabs(&self) {
        let no_slab = self.no_slab();
        for class in Class::all() {
            let slab = self.current[class.index()].get();
            if slab != no_slab && self.current_slab(class).is_idle() {
                self.replace_current(class, no_slab);
                self.release_span(slab);
            }
        }
    }

    fn no_slab(&self) -> NonNull<Slab> {
        nth_slab(self.slabs, self.slabs.len() - 1)
    }

    /// Gives a slab's span back to the pool. Nothing in it is in use.
    fn release_span(&self, slab: NonNull<Slab>) {
        // SAFETY: a slab of ours, in use up to now.
        let chunk = unsafe { slab.as_ref() }.chunk;
        let mut spans = self.spans.borrow_mut();
        if let Some((_, chunks)) = spans.used_span_of(chunk) {
            poison(self.chunk(chunk).as_ptr(), chunks as usize * CHUNK_BYTES);
        }
        spans.free(chunk);
    }

    /// Gives a block back to its slab.
    ///
    /// # Safety
    /// `block` is a block of this allocator that nobody uses any more.
    unsafe fn put_back(&self, block: NonNull<Block>) {
        // SAFETY: the caller's promise; a block in use keeps its slab in use.
        unsafe {
            let slab = block.as_ref().slab;
            self.uncount_used(block.as_ref().held_bytes);
            if slab.as_ref().put(block) {
                self.sort_in(slab);
            }
        }
    }

    #[inline]
    fn uncount_used(&self, bytes: usize) {
        self.used_bytes.set(self.used_bytes.get() - bytes);
    }

    /// Moves a slab that was full, or is unused now, to where it belongs. Current slabs stay as they are.
    fn sort_in(&self, slab: NonNull<Slab>) {
        // SAFETY: a slab of ours in use.
        let (class, is_unused) = unsafe { (slab.as_ref().class, slab.as_ref().is_unused()) };
        let Some(class) = class else {
            self.release_span(slab);
            return;
        };
        if self.current[class.index()].get() == slab {
            return;
        }
        let partial = &self.partial[class.index()];
        // SAFETY: slabs of a class other than the current one are in the list exactly when they have
        // free slots; every class has two slots at least, so a full slab never becomes unused at once.
        unsafe {
            if is_unused {
                partial.remove(slab);
                self.release_span(slab);
            } else {
                partial.push(slab);
            }
        }
    }

    /// Takes back what other threads returned.
    #[inline]
    pub(super) fn reclaim(&self) {
        if !self.returns.is_empty() {
            self.reclaim_returned();
        }
    }

    #[inline]
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes.get()
    }

    #[cold]
    #[inline(never)]
    fn reclaim_returned(&self) {
        let mut returned = self.returns.take();
        while let Some(block) = returned {
            // SAFETY: a block in the return list is in use by nobody but who took the list.
            unsafe {
                returned = block.as_ref().next.get();
                self.uncount_lent(block.as_ref());
                self.parked.set(self.parked.get() - 1);
                self.put_back(block);
            }
        }
    }

    /// True while the limit of what may be lent to other threads allows to lend the block.
    pub(super) fn may_lend(&self, block: &Block) -> bool {
        let allowed =
            !block.is_plain() || self.lent_bytes.get() + block.held_bytes <= self.lent_limit_bytes.get();
        if !allowed {
            self.lent_copies.set(self.lent_copies.get() + 1);
        }
        allowed
    }

    /// Counts a view that goes to another thread.
    pub(super) fn count_lent(&self, block: &Block) {
        if block.lend() {
            self.lent_bytes.set(self.lent_bytes.get() + block.held_bytes);
        }
    }

    fn uncount_lent(&self, block: &Block) {
        self.lent_bytes.set(self.lent_bytes.get() - block.held_bytes);
    }

    pub(super) fn set_lent_limit_bytes(&self, bytes: usize) {
        self.lent_limit_bytes.set(bytes);
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// The block that `address` is in, when there is one with views on this thread.
    pub(super) fn live_block(&self, address: *const u8) -> Option<NonNull<Block>> {
        let offset = (address as usize).checked_sub(self.base.as_ptr() as usize)?;
        let chunk = u32::try_from(offset / CHUNK_BYTES).ok()?;
        let (head, _) = self.spans.borrow().used_span_of(chunk)?;
        // SAFETY: the pool says that the span is in use, so it has a slab.
        let class = unsafe { nth_slab(self.slabs, head as usize).as_ref() }.class;
        let slot_offset = match class {
            Some(class) => {
                let slot = (offset - head as usize * CHUNK_BYTES) / class.slot_bytes();
                (slot < class.slots()).then_some(slot * class.slot_bytes())?
            }
            None => 0,
        };
        // SAFETY: within the span, where the slab has a slot, whose header is always initialised.
        let block = unsafe { self.chunk(head).add(slot_offset).cast::<Block>() };
        // SAFETY: as above.
        unsafe { block.as_ref() }.is_live().then_some(block)
    }

    pub(super) fn stats(&self) -> ArenaStats {
        self.reclaim();
        ArenaStats {
            region_bytes: self.region.len(),
            used_bytes: self.used_bytes.get(),
            peak_used_bytes: self.peak_used_bytes.get(),
            live_buffers: self.owners.get() - self.handles.get() + self.parked.get(),
            lent_bytes: self.lent_bytes.get(),
            lent_copies: self.lent_copies.get(),
            failed_allocations: self.failed_allocations.get(),
            copied_bytes: self.copies.get(),
        }
    }

    /// Counts one more handle.
    pub(super) fn add_handle(&self) {
        self.handles.set(self.handles.get() + 1);
        self.owners.set(self.owners.get() + 1);
    }

    /// Counts one handle less, and frees the allocator when nothing is left.
    ///
    /// # Safety
    /// The caller has the handle and does not use the allocator any more.
    pub(super) unsafe fn drop_handle(this: NonNull<Self>) {
        // SAFETY: the handle keeps the allocator alive.
        unsafe {
            let handles = &this.as_ref().handles;
            handles.set(handles.get() - 1);
            Self::drop_owner(this);
        }
    }

    /// # Safety
    /// The caller is one of the counted owners and does not use the allocator any more.
    #[inline]
    unsafe fn drop_owner(this: NonNull<Self>) {
        // SAFETY: the caller still counts.
        unsafe {
            let owners = this.as_ref().owners.get() - 1;
            this.as_ref().owners.set(owners);
            if owners == 0 {
                Self::retire(this);
            }
        }
    }

    /// This thread is done: frees the allocator, or leaves that to the threads that still have blocks.
    #[cold]
    #[inline(never)]
    unsafe fn retire(this: NonNull<Self>) {
        // SAFETY: there are no owners on this thread, so nobody but other threads' blocks is left,
        // and those are counted; `orphan` says who is the last.
        unsafe {
            let allocator = this.as_ref();
            allocator.reclaim();
            let parked = allocator.parked.get();
            if parked == 0 || allocator.returns.orphan(parked) {
                Self::destroy(this);
            }
        }
    }

    /// Frees the allocator and its region.
    ///
    /// # Safety
    /// No handle and no block is left, on any thread.
    pub(super) unsafe fn destroy(this: NonNull<Self>) {
        // SAFETY: `create` leaked the box; the caller is the last to know of it.
        drop(unsafe { Box::from_raw(this.as_ptr()) });
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        // The addresses may be mapped again by somebody who knows nothing of this.
        unpoison(self.region.base().as_ptr(), self.region.len());
        // SAFETY: `create` leaked the box. Slabs need no drop of their own.
        drop(unsafe { Box::from_raw(self.slabs.as_ptr()) });
    }
}

/// The slab for the span that begins at chunk `index`.
fn nth_slab(slabs: NonNull<[MaybeUninit<Slab>]>, index: usize) -> NonNull<Slab> {
    debug_assert!(index < slabs.len());
    // SAFETY: all callers' indices are chunks or the one more at the end.
    unsafe { slabs.cast::<Slab>().add(index) }
}

/// The last view of a block on its thread is gone.
///
/// # Safety
/// `block` was live, has no reference any more, and the caller does not use it afterwards.
#[inline(never)]
pub(super) unsafe fn free(block: NonNull<Block>) {
    // SAFETY: the caller's promise; a block that was in use keeps slab and allocator alive.
    unsafe {
        if !block.as_ref().is_plain() {
            return free_shared(block);
        }
        let slab = block.as_ref().slab;
        let allocator = slab.as_ref().owner;
        allocator.as_ref().uncount_used(block.as_ref().held_bytes);
        if slab.as_ref().put(block) {
            return free_sorting(allocator, slab);
        }
        Allocator::drop_owner(allocator);
    }
}

/// The end of [`free`] when the slab has to move.
#[cold]
#[inline(never)]
unsafe fn free_sorting(allocator: NonNull<Allocator>, slab: NonNull<Slab>) {
    // SAFETY: as in `free`.
    unsafe {
        allocator.as_ref().sort_in(slab);
        Allocator::drop_owner(allocator);
    }
}

/// [`free`] for blocks outside the region, and those that other threads have or had views of.
#[cold]
#[inline(never)]
unsafe fn free_shared(block: NonNull<Block>) {
    // SAFETY: as in `free`. This thread's part of a lent block is taken away here, once.
    unsafe {
        if block.as_ref().is_external() {
            External::free(block);
            return;
        }
        let allocator = block.as_ref().slab.as_ref().owner;
        {
            let allocator = allocator.as_ref();
            // Before the part is given up, as another thread may return the block right afterwards.
            allocator.parked.set(allocator.parked.get() + 1);
            if Block::return_lent(block) {
                allocator.parked.set(allocator.parked.get() - 1);
                allocator.uncount_lent(block.as_ref());
                allocator.put_back(block);
            }
        }
        Allocator::drop_owner(allocator);
    }
}
