//! The operation table: a slab of slots, threaded through with the lists they are on.
//!
//! A slot is free, outstanding or completed. It is on one list at most (the free list, its queue's
//! outstanding list, or the ready list), so one pair of links is enough, and every step of an
//! operation's life costs the same however many others there are.

use crate::executor::WakeTarget;
use crate::{Completion, Error, OperationKind, Outcome, QueueDescriptor, Token};

/// Bits of a token that hold the slot; the others hold the slot's generation. Even a single slot that
/// is used ten million times a second meets the same token again after 30 hours only.
const INDEX_BITS: u32 = 24;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_MASK: u64 = u64::MAX >> INDEX_BITS;
const NO_SLOT: u32 = u32::MAX;

/// Most operations that tokens can tell apart.
pub(crate) const MAX_OPERATIONS: usize = 1 << INDEX_BITS;

/// Ends of a doubly linked list of slots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List {
    head: u32,
    tail: u32,
}

impl List {
    pub(crate) const EMPTY: Self = Self { head: NO_SLOT, tail: NO_SLOT };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    /// With its module for the first time, and on no list: most operations complete right there.
    Submitted,
    /// On its queue's list.
    Outstanding,
    Completed,
}

/// One operation: what is looked at in every step of its life, in half a cache line.
#[derive(Debug)]
struct Slot {
    generation: u64,
    /// The how-manieth completion this is, so that the earliest of several can be picked.
    completed_at: u64,
    queue: QueueDescriptor,
    previous: u32,
    next: u32,
    stage: Stage,
    kind: OperationKind,
    /// A future waits for the token: the completion is for it alone and never on the ready list.
    awaited: bool,
    /// Somebody is to be woken.
    watched: bool,
}

/// What a slot holds beyond its links, moved in once and out once.
#[derive(Debug)]
struct Content {
    /// `Closed`, which owns nothing, unless the operation is completed.
    outcome: Outcome,
    wake: WakeTarget,
}

/// A slot that a token was found to stand for. Good until the operation goes on to its next stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotIndex(u32);

/// Operations by token.
#[derive(Debug)]
pub(crate) struct OperationTable {
    slots: Vec<Slot>,
    /// Of the slots, at the same places.
    contents: Vec<Content>,
    free: u32,
    limit: usize,
    ready: List,
    used: usize,
    outstanding: usize,
    /// Operations that have or will have a place on the ready list.
    unclaimed: usize,
    completed: u64,
}

impl OperationTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            contents: Vec::new(),
            free: NO_SLOT,
            limit: limit.min(MAX_OPERATIONS),
            ready: List::EMPTY,
            used: 0,
            outstanding: 0,
            unclaimed: 0,
            completed: 0,
        }
    }

    /// Operations that did not complete yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// Operations for which no future waits, completed or not.
    pub(crate) fn unclaimed(&self) -> usize {
        self.unclaimed
    }

    /// Slots in use: operations outstanding, and completions that nobody took yet.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Number of operations that ever completed.
    pub(crate) fn completed(&self) -> u64 {
        self.completed
    }

    pub(crate) fn has_ready(&self) -> bool {
        self.ready.head != NO_SLOT
    }

    /// Fails with [`Error::TooManyOperations`] when no slot is left.
    #[inline(always)]
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.used < self.limit { Ok(()) } else { Err(Error::TooManyOperations) }
    }

    /// Takes a slot. Once the module has had it, [`Self::settle`] follows. With `awaited`, the
    /// completion is a future's from the start, as after [`Self::claim`].
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        awaited: bool,
    ) -> Result<(SlotIndex, Token), Error> {
        self.check_room()?;
        let index = if self.free == NO_SLOT { self.grow() } else { self.free };
        let slot = &mut self.slots[index as usize];
        // The slot used last is the one still in the cache.
        self.free = slot.next;
        slot.stage = Stage::Submitted;
        slot.kind = kind;
        slot.queue = queue;
        slot.awaited = awaited;
        self.used += 1;
        self.outstanding += 1;
        self.unclaimed += usize::from(!awaited);
        let token = Token::from_raw((slot.generation << INDEX_BITS) | u64::from(index));
        Ok((SlotIndex(index), token))
    }

    /// True when the operation did not complete while its module had it for the first time. It then has
    /// to go onto its queue's list.
    #[inline(always)]
    pub(crate) fn is_unsettled(&self, SlotIndex(index): SlotIndex) -> bool {
        self.slots[index as usize].stage == Stage::Submitted
    }

    /// Puts an operation at the end of its queue's `outstanding` list.
    pub(crate) fn settle(&mut self, SlotIndex(index): SlotIndex, outstanding: &mut List) {
        self.slots[index as usize].stage = Stage::Outstanding;
        self.push_back(outstanding, index);
    }

    /// Makes one more slot.
    #[cold]
    fn grow(&mut self) -> u32 {
        // Fits: `check_room` keeps the slab under `MAX_OPERATIONS`.
        let index = self.slots.len() as u32;
        self.slots.push(Slot {
            generation: 1,
            completed_at: 0,
            queue: QueueDescriptor::from_raw(u32::MAX),
            previous: NO_SLOT,
            next: NO_SLOT,
            stage: Stage::Free,
            kind: OperationKind::Close,
            awaited: false,
            watched: false,
        });
        self.contents.push(Content { outcome: Outcome::Closed, wake: WakeTarget::Nobody });
        index
    }

    /// The slot of a token, with the stage it is in if the token is good.
    #[inline(always)]
    fn find(&self, token: Token) -> Result<(u32, &Slot), Error> {
        let index = token.raw() & INDEX_MASK;
        match self.slots.get(index as usize) {
            Some(slot) if slot.generation == token.raw() >> INDEX_BITS => Ok((index as u32, slot)),
            _ => Err(Error::BadToken),
        }
    }

    fn token_of(&self, index: u32) -> Token {
        Token::from_raw((self.slots[index as usize].generation << INDEX_BITS) | u64::from(index))
    }

    /// The slot and the queue of an operation that did not complete yet.
    #[inline(always)]
    pub(crate) fn find_outstanding(&self, token: Token) -> Result<(SlotIndex, QueueDescriptor), Error> {
        let (index, slot) = self.find(token)?;
        match slot.stage {
            Stage::Submitted | Stage::Outstanding => Ok((SlotIndex(index), slot.queue)),
            Stage::Free | Stage::Completed => Err(Error::BadToken),
        }
    }

    /// The slot of an operation that has completed and when it did, `None` while it is outstanding.
    /// Fails for a token that is unknown, taken or awaited by a future.
    #[inline(always)]
    pub(crate) fn find_completed(&self, token: Token) -> Result<Option<(SlotIndex, u64)>, Error> {
        let (index, slot) = self.find(token)?;
        match (slot.stage, slot.awaited) {
            (Stage::Completed, false) => Ok(Some((SlotIndex(index), slot.completed_at))),
            (Stage::Submitted | Stage::Outstanding, false) => Ok(None),
            (Stage::Free, _) | (_, true) => Err(Error::BadToken),
        }
    }

    /// As [`Self::find_completed`], whoever waits for the token.
    #[inline(always)]
    pub(crate) fn find_claimed(&self, token: Token) -> Result<Option<SlotIndex>, Error> {
        let (index, slot) = self.find(token)?;
        match slot.stage {
            Stage::Completed => Ok(Some(SlotIndex(index))),
            Stage::Submitted | Stage::Outstanding => Ok(None),
            Stage::Free => Err(Error::BadToken),
        }
    }

    /// Takes an operation off its queue's list.
    #[inline(always)]
    pub(crate) fn unsettle(&mut self, SlotIndex(index): SlotIndex, outstanding: &mut List) {
        self.unlink(outstanding, index);
    }

    /// Puts an operation that is on no queue's list onto the ready list, or hands it to the future that
    /// waits. Returns the operation's kind, and whether [`Self::take_wake`] says whom to wake.
    #[inline(always)]
    pub(crate) fn complete(
        &mut self,
        SlotIndex(index): SlotIndex,
        outcome: Outcome,
    ) -> (OperationKind, bool) {
        self.completed += 1;
        self.outstanding -= 1;
        // What was there is `Closed` and owns nothing: no need to look at it to drop it.
        std::mem::forget(std::mem::replace(&mut self.contents[index as usize].outcome, outcome));
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Completed;
        slot.completed_at = self.completed;
        let (kind, watched) = (slot.kind, slot.watched);
        if !slot.awaited {
            self.make_ready(index);
        }
        (kind, watched)
    }

    /// Whom to wake for a slot.
    #[cold]
    pub(crate) fn take_wake(&mut self, SlotIndex(index): SlotIndex) -> WakeTarget {
        self.slots[index as usize].watched = false;
        std::mem::take(&mut self.contents[index as usize].wake)
    }

    /// The oldest outstanding operation of a list.
    pub(crate) fn first(&self, list: &List) -> Option<SlotIndex> {
        (list.head != NO_SLOT).then_some(SlotIndex(list.head))
    }

    /// The completion that is ready for longest.
    #[inline(always)]
    pub(crate) fn first_ready(&self) -> Option<SlotIndex> {
        self.first(&self.ready)
    }

    /// Takes a completion out and frees its slot.
    #[inline(always)]
    pub(crate) fn take(&mut self, SlotIndex(index): SlotIndex) -> Completion {
        if !self.slots[index as usize].awaited {
            self.unready(index);
        }
        let slot = &self.slots[index as usize];
        let (token, queue, kind) = (self.token_of(index), slot.queue, slot.kind);
        self.free_slot(index);
        let outcome = std::mem::replace(&mut self.contents[index as usize].outcome, Outcome::Closed);
        Completion { token, queue, kind, outcome }
    }

    /// Frees the slot of an operation that is on no queue's list, without completing it.
    pub(crate) fn forget(&mut self, SlotIndex(index): SlotIndex) {
        self.outstanding -= 1;
        self.free_slot(index);
    }

    #[inline(always)]
    fn free_slot(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Free;
        // Generation 0 is left out, so that no token is 0.
        slot.generation = ((slot.generation + 1) & GENERATION_MASK).max(1);
        slot.next = self.free;
        self.free = index;
        self.used -= 1;
        self.unclaimed -= usize::from(!slot.awaited);
        if std::mem::take(&mut slot.watched) {
            self.contents[index as usize].wake = WakeTarget::Nobody;
        }
    }

    /// Reserves the completion for a future: only [`Self::find_claimed`] finds it from now on.
    pub(crate) fn claim(&mut self, token: Token) -> Result<(), Error> {
        let completed = self.find_completed(token)?;
        let (index, _) = self.find(token)?;
        self.slots[index as usize].awaited = true;
        self.unclaimed -= 1;
        if completed.is_some() {
            self.unready(index);
        }
        Ok(())
    }

    /// Replaces who is woken when an outstanding operation completes; returns who was to be, for the
    /// caller to drop.
    #[inline(always)]
    pub(crate) fn set_wake(&mut self, token: Token, wake: WakeTarget) -> Result<WakeTarget, Error> {
        let (SlotIndex(index), _) = self.find_outstanding(token)?;
        self.slots[index as usize].watched = true;
        Ok(std::mem::replace(&mut self.contents[index as usize].wake, wake))
    }

    #[inline(always)]
    fn make_ready(&mut self, index: u32) {
        let mut ready = self.ready;
        self.push_back(&mut ready, index);
        self.ready = ready;
    }

    #[inline(always)]
    fn unready(&mut self, index: u32) {
        let mut ready = self.ready;
        self.unlink(&mut ready, index);
        self.ready = ready;
    }

    #[inline(always)]
    fn push_back(&mut self, list: &mut List, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.previous = list.tail;
        slot.next = NO_SLOT;
        match self.slots.get_mut(list.tail as usize) {
            Some(last) => last.next = index,
            None => list.head = index,
        }
        list.tail = index;
    }

    #[inline(always)]
    fn unlink(&mut self, list: &mut List, index: u32) {
        let slot = &self.slots[index as usize];
        let (previous, next) = (slot.previous, slot.next);
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.next = next,
            None => list.head = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.previous = previous,
            None => list.tail = previous,
        }
    }
}

#[cfg(test)]
mod tests;
