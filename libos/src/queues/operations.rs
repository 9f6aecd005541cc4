//! The operation table: a slab of slots, threaded through with the lists they are on.
//!
//! A slot is free, outstanding or completed. It is on one list at most (the free list, its queue's
//! outstanding list, or the ready list), so one pair of links is enough, and every step of an
//! operation's life costs the same however many others there are.

use crate::executor::WakeTarget;
use crate::{Error, OperationKind, Outcome, QueueDescriptor, Token};

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

#[derive(Debug)]
enum Stage {
    Free,
    Outstanding,
    Completed(Outcome),
}

/// One operation.
#[derive(Debug)]
struct Slot {
    generation: u64,
    stage: Stage,
    kind: OperationKind,
    /// A future waits for the token: the completion is for it alone and never on the ready list.
    awaited: bool,
    queue: QueueDescriptor,
    previous: u32,
    next: u32,
    /// The how-manieth completion this is, so that the earliest of several can be picked.
    completed_at: u64,
    wake: WakeTarget,
}

/// Taken out of its slot: what became of an operation.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) queue: QueueDescriptor,
    pub(crate) kind: OperationKind,
    pub(crate) outcome: Outcome,
}

/// Operations by token.
#[derive(Debug)]
pub(crate) struct OperationTable {
    slots: Vec<Slot>,
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
    #[inline]
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.used < self.limit { Ok(()) } else { Err(Error::TooManyOperations) }
    }

    /// Takes a slot and puts it at the end of its queue's `outstanding` list.
    #[inline]
    pub(crate) fn submit(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        outstanding: &mut List,
    ) -> Result<Token, Error> {
        self.check_room()?;
        let index = self.take_free_slot();
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Outstanding;
        slot.kind = kind;
        slot.queue = queue;
        slot.awaited = false;
        let token = Token::from_raw((slot.generation << INDEX_BITS) | u64::from(index));
        self.push_back(outstanding, index);
        self.used += 1;
        self.outstanding += 1;
        self.unclaimed += 1;
        Ok(token)
    }

    fn take_free_slot(&mut self) -> u32 {
        if let Some(slot) = self.slots.get(self.free as usize) {
            // The slot used last is the one still in the cache.
            let index = self.free;
            self.free = slot.next;
            return index;
        }
        self.slots.push(Slot {
            generation: 1,
            stage: Stage::Free,
            kind: OperationKind::Close,
            awaited: false,
            queue: QueueDescriptor::from_raw(u32::MAX),
            previous: NO_SLOT,
            next: NO_SLOT,
            completed_at: 0,
            wake: WakeTarget::Nobody,
        });
        // Fits: `check_room` keeps the slab under `MAX_OPERATIONS`.
        self.slots.len() as u32 - 1
    }

    /// The slot of a token that was not taken yet.
    #[inline]
    fn index_of(&self, token: Token) -> Result<u32, Error> {
        let index = token.raw() & INDEX_MASK;
        match self.slots.get(index as usize) {
            Some(slot)
                if slot.generation == token.raw() >> INDEX_BITS && !matches!(slot.stage, Stage::Free) =>
            {
                Ok(index as u32)
            }
            _ => Err(Error::BadToken),
        }
    }

    fn token_of(&self, index: u32) -> Token {
        Token::from_raw((self.slots[index as usize].generation << INDEX_BITS) | u64::from(index))
    }

    /// The queue of an operation that did not complete yet.
    #[inline]
    pub(crate) fn outstanding_queue(&self, token: Token) -> Result<QueueDescriptor, Error> {
        let slot = &self.slots[self.index_of(token)? as usize];
        match slot.stage {
            Stage::Outstanding => Ok(slot.queue),
            Stage::Free | Stage::Completed(_) => Err(Error::BadToken),
        }
    }

    /// Moves an outstanding operation off its queue's list and onto the ready list, or hands it to
    /// the future that waits. Returns the operation's kind and whom to wake.
    #[inline]
    pub(crate) fn complete(
        &mut self,
        token: Token,
        outcome: Outcome,
        outstanding: &mut List,
    ) -> Result<(OperationKind, WakeTarget), Error> {
        let index = self.index_of(token)?;
        if !matches!(self.slots[index as usize].stage, Stage::Outstanding) {
            return Err(Error::BadToken);
        }
        self.unlink(outstanding, index);
        self.completed += 1;
        self.outstanding -= 1;
        let slot = &mut self.slots[index as usize];
        slot.stage = Stage::Completed(outcome);
        slot.completed_at = self.completed;
        let kind = slot.kind;
        let wake = std::mem::take(&mut slot.wake);
        if !slot.awaited {
            let mut ready = self.ready;
            self.push_back(&mut ready, index);
            self.ready = ready;
        }
        Ok((kind, wake))
    }

    /// The oldest outstanding operation of a list.
    pub(crate) fn first(&self, list: &List) -> Option<Token> {
        (list.head != NO_SLOT).then(|| self.token_of(list.head))
    }

    /// When the operation completed, `None` while it is outstanding. Fails for a token that is
    /// unknown, taken or awaited by a future.
    #[inline]
    pub(crate) fn completed_at(&self, token: Token) -> Result<Option<u64>, Error> {
        let slot = &self.slots[self.index_of(token)? as usize];
        match (&slot.stage, slot.awaited) {
            (Stage::Outstanding, false) => Ok(None),
            (Stage::Completed(_), false) => Ok(Some(slot.completed_at)),
            (Stage::Free, _) | (_, true) => Err(Error::BadToken),
        }
    }

    /// Takes the completion out and frees the slot; `None` while the operation is outstanding.
    #[inline]
    pub(crate) fn take(&mut self, token: Token) -> Result<Option<Finished>, Error> {
        let index = self.index_of(token)?;
        if matches!(self.slots[index as usize].stage, Stage::Outstanding) {
            return Ok(None);
        }
        Ok(self.take_completed(index))
    }

    /// Takes the completion that is ready for longest.
    #[inline]
    pub(crate) fn take_ready(&mut self) -> Option<(Token, Finished)> {
        if self.ready.head == NO_SLOT {
            return None;
        }
        let index = self.ready.head;
        let token = self.token_of(index);
        self.take_completed(index).map(|finished| (token, finished))
    }

    fn take_completed(&mut self, index: u32) -> Option<Finished> {
        if self.slots[index as usize].awaited {
            self.unclaimed += 1;
        } else {
            let mut ready = self.ready;
            self.unlink(&mut ready, index);
            self.ready = ready;
        }
        match self.free_slot(index) {
            (queue, kind, Stage::Completed(outcome)) => Some(Finished { queue, kind, outcome }),
            (_, _, Stage::Free | Stage::Outstanding) => None,
        }
    }

    /// Frees the slot of an outstanding operation without completing it.
    pub(crate) fn forget(&mut self, token: Token, outstanding: &mut List) -> Result<(), Error> {
        let index = self.index_of(token)?;
        if !matches!(self.slots[index as usize].stage, Stage::Outstanding) {
            return Err(Error::BadToken);
        }
        self.unlink(outstanding, index);
        self.outstanding -= 1;
        if self.slots[index as usize].awaited {
            self.unclaimed += 1;
        }
        self.free_slot(index);
        Ok(())
    }

    fn free_slot(&mut self, index: u32) -> (QueueDescriptor, OperationKind, Stage) {
        let slot = &mut self.slots[index as usize];
        let stage = std::mem::replace(&mut slot.stage, Stage::Free);
        slot.wake = WakeTarget::Nobody;
        // Generation 0 is left out, so that no token is 0.
        slot.generation = ((slot.generation + 1) & GENERATION_MASK).max(1);
        slot.next = self.free;
        self.free = index;
        self.used -= 1;
        self.unclaimed -= 1;
        (slot.queue, slot.kind, stage)
    }

    /// Reserves the completion for a future: only [`Self::take`] gets it from now on.
    pub(crate) fn claim(&mut self, token: Token) -> Result<(), Error> {
        let index = self.index_of(token)?;
        let slot = &mut self.slots[index as usize];
        if slot.awaited {
            return Err(Error::BadToken);
        }
        slot.awaited = true;
        self.unclaimed -= 1;
        if matches!(slot.stage, Stage::Completed(_)) {
            let mut ready = self.ready;
            self.unlink(&mut ready, index);
            self.ready = ready;
        }
        Ok(())
    }

    /// Replaces who is woken when the operation completes; returns who was to be.
    #[inline]
    pub(crate) fn set_wake(&mut self, token: Token, wake: WakeTarget) -> Result<WakeTarget, Error> {
        let index = self.index_of(token)?;
        Ok(std::mem::replace(&mut self.slots[index as usize].wake, wake))
    }

    #[inline]
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

    #[inline]
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
