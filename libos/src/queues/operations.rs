//! The operation table: a slab of slots, threaded through with the lists they are on.
//!
//! A slot is free, outstanding or completed. It is on one list at most (the free list, one of its queue's
//! two lists, or the ready list), so one pair of links is enough, and every step of an
//! operation's life costs the same however many others there are.

mod lone_push;

use std::num::NonZeroU32;

use super::slot::{INDEX_BITS, INDEX_MASK, List, MAX_OPERATIONS, NO_SLOT, Slot, Stage, token};
use crate::executor::WakeTarget;
use crate::{Completion, Error, OperationKind, Outcome, PopLimit, QueueDescriptor, Token};
use lone_push::{LONE, LonePush};

/// A pop that [`OperationTable::lone_pop`] found.
pub(crate) struct LonePop<'a> {
    slot: &'a mut Slot,
    index: u32,
    ready: &'a mut List,
    completed: &'a mut u64,
}

impl LonePop<'_> {
    /// How much it takes.
    #[inline(always)]
    pub(crate) fn limit(&self) -> PopLimit {
        self.slot.limit()
    }

    /// [`OperationTable::unsettle`] and [`OperationTable::complete`] at once. `pops` is the list it is on.
    #[inline(always)]
    pub(crate) fn complete(self, pops: &mut List, outcome: Outcome) {
        *pops = List::EMPTY;
        *self.ready = List { head: self.index, tail: self.index };
        *self.completed += 1;
        self.slot.stage = Stage::COMPLETED;
        self.slot.ordinal = *self.completed;
        // What was in its place owns nothing.
        std::mem::forget(std::mem::replace(&mut self.slot.outcome, outcome));
    }
}

/// A slot that a token was found to stand for. Good until the operation goes on to its next stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotIndex(u32);

/// The slot of an operation that was taken, with the completion in it until [`OperationTable::completion`] moves it out. The
/// slot is free already, so that follows at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken(NonZeroU32);

/// Operations by token.
#[derive(Debug)]
pub(crate) struct OperationTable {
    slots: Vec<Slot>,
    free: u32,
    limit: usize,
    ready: List,
    lone: LonePush,
    /// Of the slots in use, those of operations that a future waits for.
    claimed: usize,
    /// Operations that were ever submitted, whose completion was taken out, that completed, and that ended
    /// without completion.
    submitted: u64,
    taken: u64,
    completed: u64,
    forgotten: u64,
}

impl OperationTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            slots: lone_push::reserved_slots(),
            free: NO_SLOT,
            limit: limit.min(MAX_OPERATIONS),
            ready: List::EMPTY,
            lone: LonePush::NONE,
            claimed: 0,
            submitted: 0,
            completed: 0,
            taken: 0,
            forgotten: 0,
        }
    }

    /// Operations that did not complete yet.
    pub(crate) fn outstanding(&self) -> usize {
        (self.submitted - self.completed - self.forgotten) as usize
    }

    /// Operations for which no future waits, completed or not: those that have or will have a place on the
    /// ready list.
    pub(crate) fn unclaimed(&self) -> usize {
        self.used() - self.claimed
    }

    /// Slots in use: operations outstanding, and completions that nobody took yet.
    pub(crate) fn used(&self) -> usize {
        (self.submitted - self.taken - self.forgotten) as usize
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
        if self.used() < self.limit { Ok(()) } else { Err(Error::TooManyOperations) }
    }

    /// The token that the next operation gets.
    #[inline(always)]
    pub(crate) fn next_token(&mut self) -> Result<Token, Error> {
        match self.slots.get(self.free as usize) {
            Some(slot) => Ok(slot.token),
            None => self.grow().map(|index| token(1, index)),
        }
    }

    /// An operation that begins and ends at once. [`Self::next_token`] has given its token.
    #[inline(always)]
    pub(crate) fn submit_completed(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        awaited: bool,
        outcome: Outcome,
    ) {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        self.free = slot.next;
        self.submitted += 1;
        self.completed += 1;
        slot.kind = kind;
        slot.queue = queue;
        slot.ordinal = self.completed;
        // What was in its place owns nothing.
        std::mem::forget(std::mem::replace(&mut slot.outcome, outcome));
        slot.stage = Stage::COMPLETED;
        if awaited {
            slot.stage.0 |= Stage::AWAITED;
            self.claimed += 1;
        } else {
            self.make_ready(index);
        }
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
        match self.submit_in_free(queue, kind, awaited) {
            Some(submitted) => Ok(submitted),
            None => self.submit_in_new(queue, kind, awaited),
        }
    }

    /// [`Self::submit`], while there is a slot that was used before.
    #[inline(always)]
    pub(crate) fn submit_in_free(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        awaited: bool,
    ) -> Option<(SlotIndex, Token)> {
        let index = self.free;
        let slot = self.slots.get_mut(index as usize)?;
        // The slot used last is the one still in the cache.
        self.free = slot.next;
        slot.kind = kind;
        slot.queue = queue;
        slot.stage = Stage::SUBMITTED;
        slot.ordinal = self.submitted;
        self.submitted += 1;
        if awaited {
            slot.stage.0 |= Stage::AWAITED;
            self.claimed += 1;
        }
        Some((SlotIndex(index), slot.token))
    }

    /// [`Self::submit_in_free`], [`Self::set_limit`] and [`Self::settle`] at once, for a pop where none waits: in `pops`.
    #[inline(always)]
    pub(crate) fn submit_lone_pop(
        &mut self,
        queue: QueueDescriptor,
        limit: PopLimit,
        awaited: bool,
        pops: &mut List,
    ) -> Option<Token> {
        let index = self.free;
        let slot = self.slots.get_mut(index as usize)?;
        self.free = slot.next;
        slot.kind = OperationKind::Pop;
        slot.queue = queue;
        slot.stage = Stage::OUTSTANDING;
        slot.ordinal = self.submitted;
        slot.limit = narrow(limit);
        self.submitted += 1;
        if awaited {
            slot.stage.0 |= Stage::AWAITED;
            self.claimed += 1;
        }
        *pops = List { head: index, tail: index };
        Some(slot.token)
    }

    /// True when the operation did not complete while its module had it for the first time. It then has
    /// to go onto its queue's list.
    #[inline(always)]
    pub(crate) fn is_unsettled(&self, SlotIndex(index): SlotIndex) -> bool {
        self.slots[index as usize].stage.bare() == Stage::SUBMITTED
    }

    /// Puts an operation at the end of a list of its queue.
    #[inline(always)]
    pub(crate) fn settle(&mut self, SlotIndex(index): SlotIndex, list: &mut List) {
        let slot = &mut self.slots[index as usize];
        slot.stage = slot.stage.at(Stage::OUTSTANDING);
        self.push_back(list, index);
    }

    /// Says how much a pop takes that is to wait.
    #[inline(always)]
    pub(crate) fn set_limit(&mut self, SlotIndex(index): SlotIndex, limit: PopLimit) {
        self.slots[index as usize].limit = narrow(limit);
    }

    /// [`Self::submit`] when all slots are taken: in one more.
    fn submit_in_new(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        awaited: bool,
    ) -> Result<(SlotIndex, Token), Error> {
        self.grow()?;
        self.submit_in_free(queue, kind, awaited).ok_or(Error::TooManyOperations)
    }

    /// Makes one more slot, the only free one.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) -> Result<u32, Error> {
        self.check_room()?;
        // Fits: the limit is at most `MAX_OPERATIONS`.
        let index = self.slots.len() as u32;
        self.slots.push(Slot::new(index));
        self.free = index;
        Ok(index)
    }

    /// The slot of a token, with the stage it is in if the token is good.
    #[inline(always)]
    fn find(&self, token: Token) -> Result<(u32, &Slot), Error> {
        let index = token.raw() & INDEX_MASK;
        match self.slots.get(index as usize) {
            Some(slot) if slot.token == token => Ok((index as u32, slot)),
            _ => Err(Error::BadToken),
        }
    }

    /// Takes the operation whose completion is the only one that is ready, if it has this token: the usual case where each
    /// is waited for by itself. Nothing is taken that was a lone push.
    #[inline(always)]
    pub(crate) fn take_only_ready(&mut self, token: Token) -> Option<Taken> {
        let List { head, tail } = self.ready;
        let slot = self.slots.get_mut(head as usize)?;
        if head != tail || slot.token != token || head <= LONE {
            return None;
        }
        self.ready = List::EMPTY;
        self.taken += 1;
        slot.free(&mut self.free, head);
        NonZeroU32::new(head).map(Taken)
    }

    /// Takes the operation whose completion is ready for longest.
    #[inline(always)]
    pub(crate) fn take_first_ready(&mut self) -> Option<Taken> {
        let List { head, tail } = self.ready;
        let slot = self.slots.get_mut(head as usize)?;
        // A list's first slot has no link to a previous one that means anything.
        self.ready = if head == tail { List::EMPTY } else { List { head: slot.next, tail } };
        self.taken += 1;
        lone_push::free(slot, head, &mut self.free, &mut self.lone);
        NonZeroU32::new(head).map(Taken)
    }

    /// The completion of what was taken a moment ago.
    #[inline(always)]
    pub(crate) fn completion(&mut self, Taken(index): Taken) -> Option<Completion> {
        let slot = self.slots.get_mut(index.get() as usize)?;
        // A slot that is free has its next token.
        let token = Token::from_raw(slot.token.raw().wrapping_sub(1 << INDEX_BITS));
        Some(slot.take(token))
    }

    /// The slot and the queue of an operation that did not complete yet.
    #[inline(always)]
    pub(crate) fn find_outstanding(&self, token: Token) -> Result<(SlotIndex, QueueDescriptor), Error> {
        let (index, slot) = self.find(token)?;
        match slot.stage.bare() {
            Stage::SUBMITTED | Stage::OUTSTANDING => Ok((SlotIndex(index), slot.queue)),
            _ => Err(Error::BadToken),
        }
    }

    /// The slot of an operation that has completed and when it did, `None` while it is outstanding.
    /// Fails for a token that is unknown, taken or awaited by a future.
    #[inline(always)]
    pub(crate) fn find_completed(&self, token: Token) -> Result<Option<(SlotIndex, u64)>, Error> {
        let (index, slot) = self.find(token)?;
        match slot.stage {
            Stage::COMPLETED => Ok(Some((SlotIndex(index), slot.ordinal))),
            stage if stage.is_awaited() || stage == Stage::FREE => Err(Error::BadToken),
            _ => Ok(None),
        }
    }

    /// As [`Self::find_completed`], whoever waits for the token.
    #[inline(always)]
    pub(crate) fn find_claimed(&self, token: Token) -> Result<Option<SlotIndex>, Error> {
        let (index, slot) = self.find(token)?;
        match slot.stage.bare() {
            Stage::COMPLETED => Ok(Some(SlotIndex(index))),
            Stage::FREE => Err(Error::BadToken),
            _ => Ok(None),
        }
    }

    /// What an operation is.
    pub(crate) fn kind_of(&self, SlotIndex(index): SlotIndex) -> OperationKind {
        self.slots[index as usize].kind
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
        let slot = &mut self.slots[index as usize];
        // What was in its place owns nothing.
        std::mem::forget(std::mem::replace(&mut slot.outcome, outcome));
        let before = slot.stage;
        slot.stage = Stage::COMPLETED;
        slot.ordinal = self.completed;
        let kind = slot.kind;
        if before.is_awaited() {
            slot.stage.0 |= Stage::AWAITED;
        } else {
            self.make_ready(index);
        }
        (kind, before.is_watched())
    }

    /// The first pop of its queue's list, if nobody watches it, it is the only one that waits there, and nothing is on the
    /// ready list: the usual case where each is waited for by itself.
    #[inline(always)]
    pub(crate) fn lone_pop(&mut self, pops: &List) -> Option<LonePop<'_>> {
        let index = pops.head;
        let slot = self.slots.get_mut(index as usize)?;
        let is_lone =
            pops.head == pops.tail && slot.stage == Stage::OUTSTANDING && self.ready.head == NO_SLOT;
        is_lone.then_some(LonePop { slot, index, ready: &mut self.ready, completed: &mut self.completed })
    }

    /// True when [`Self::lone_pop`] finds one.
    #[inline(always)]
    pub(crate) fn has_lone_pop(&self, pops: &List) -> bool {
        self.slots.get(pops.head as usize).is_some_and(|slot| {
            pops.head == pops.tail && slot.stage == Stage::OUTSTANDING && self.ready.head == NO_SLOT
        })
    }

    /// Whom to wake for a slot.
    pub(crate) fn take_wake(&mut self, SlotIndex(index): SlotIndex) -> WakeTarget {
        std::mem::take(&mut self.slots[index as usize].wake)
    }

    /// The first operation of a list.
    pub(crate) fn first(&self, list: &List) -> Option<SlotIndex> {
        (list.head != NO_SLOT).then_some(SlotIndex(list.head))
    }

    /// The first pop of a queue's list: its token, and how much it takes.
    #[inline(always)]
    pub(crate) fn first_pop(&self, pops: &List) -> Option<(Token, PopLimit)> {
        self.slots.get(pops.head as usize).map(|slot| (slot.token, slot.limit()))
    }

    /// The how-manieth submission an outstanding operation is.
    pub(crate) fn submitted_at(&self, SlotIndex(index): SlotIndex) -> u64 {
        self.slots[index as usize].ordinal
    }

    /// Takes a completion out and frees its slot.
    #[inline(always)]
    pub(crate) fn take(&mut self, SlotIndex(index): SlotIndex) -> Completion {
        let token = self.slots[index as usize].token;
        self.unlist(index);
        let slot = &mut self.slots[index as usize];
        lone_push::free(slot, index, &mut self.free, &mut self.lone);
        slot.take(token)
    }

    /// Takes the operation of a slot that has completed.
    pub(crate) fn take_completed(&mut self, SlotIndex(index): SlotIndex) -> Option<Taken> {
        self.unlist(index);
        lone_push::free(&mut self.slots[index as usize], index, &mut self.free, &mut self.lone);
        NonZeroU32::new(index).map(Taken)
    }

    /// Takes a completion off the ready list, or from the future that waits for it.
    #[inline(always)]
    fn unlist(&mut self, index: u32) {
        self.taken += 1;
        if self.slots[index as usize].stage.is_awaited() {
            self.claimed -= 1;
        } else if self.ready.head == self.ready.tail {
            // It is the only one on the ready list.
            self.ready = List::EMPTY;
        } else {
            self.unready(index);
        }
    }

    /// Takes the completion out that is ready for longest to the end of a list that has room: what is moved as a whole goes
    /// from place to place, and all else is put there by itself.
    #[inline(always)]
    pub(crate) fn take_first_ready_to(&mut self, completions: &mut Vec<Completion>) -> bool {
        let List { head, tail } = self.ready;
        let Some(slot) = self.slots.get_mut(head as usize) else { return false };
        self.ready = if head == tail { List::EMPTY } else { List { head: slot.next, tail } };
        self.taken += 1;
        let Slot { token, queue, kind, .. } = *slot;
        completions.push(Completion { token, queue, kind, outcome: Outcome::Closed });
        if let Some(last) = completions.last_mut() {
            let outcome = std::mem::replace(&mut slot.outcome, Outcome::Closed);
            // What was in its place owns nothing.
            std::mem::forget(std::mem::replace(&mut last.outcome, outcome));
        }
        lone_push::free(slot, head, &mut self.free, &mut self.lone);
        true
    }

    /// Frees the slot of an operation that is on no queue's list, without completing it.
    pub(crate) fn forget(&mut self, SlotIndex(index): SlotIndex) {
        self.forgotten += 1;
        let slot = &mut self.slots[index as usize];
        self.claimed -= usize::from(slot.stage.is_awaited());
        slot.wake = WakeTarget::Nobody;
        lone_push::free(slot, index, &mut self.free, &mut self.lone);
    }

    /// Reserves the completion for a future: only [`Self::find_claimed`] finds it from now on.
    pub(crate) fn claim(&mut self, token: Token) -> Result<(), Error> {
        let completed = self.find_completed(token)?;
        let (index, _) = self.find(token)?;
        self.slots[index as usize].stage.0 |= Stage::AWAITED;
        self.claimed += 1;
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
        let slot = &mut self.slots[index as usize];
        slot.stage.0 |= Stage::WATCHED;
        Ok(std::mem::replace(&mut slot.wake, wake))
    }

    #[inline(always)]
    fn make_ready(&mut self, index: u32) {
        if self.ready.tail == NO_SLOT {
            self.ready = List { head: index, tail: index };
        } else {
            self.make_ready_behind(index);
        }
    }

    #[inline(never)]
    fn make_ready_behind(&mut self, index: u32) {
        self.link(self.ready.tail, index);
        self.ready.tail = index;
    }

    #[inline(never)]
    fn unready(&mut self, index: u32) {
        let mut ready = self.ready;
        self.unlink(&mut ready, index);
        self.ready = ready;
    }

    #[inline(always)]
    fn push_back(&mut self, list: &mut List, index: u32) {
        if list.tail == NO_SLOT {
            *list = List { head: index, tail: index };
        } else {
            self.link_behind(list, index);
        }
    }

    #[inline(never)]
    fn link_behind(&mut self, list: &mut List, index: u32) {
        self.link(list.tail, index);
        list.tail = index;
    }

    /// Makes two slots neighbours.
    #[inline(always)]
    fn link(&mut self, first: u32, second: u32) {
        self.slots[first as usize].next = second;
        self.slots[second as usize].previous = first;
    }

    /// A list's only slot has no links that mean anything, its first one none to a previous, its last one none to
    /// a next.
    #[inline(always)]
    fn unlink(&mut self, list: &mut List, index: u32) {
        if list.head == list.tail {
            *list = List::EMPTY;
        } else {
            self.unlink_beside_others(list, index);
        }
    }

    #[inline(never)]
    fn unlink_beside_others(&mut self, list: &mut List, index: u32) {
        let Slot { previous, next, .. } = self.slots[index as usize];
        if index == list.head {
            list.head = next;
        } else {
            self.slots[previous as usize].next = next;
        }
        if index == list.tail {
            list.tail = previous;
        } else {
            self.slots[next as usize].previous = previous;
        }
    }
}

/// A limit in the room that a slot has for it.
#[inline(always)]
fn narrow(PopLimit { segments, bytes }: PopLimit) -> [u32; 2] {
    [segments, bytes].map(|limit| u32::try_from(limit).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
