//! The push that ended in its own call while no other completion was ready: nearly all of a program that waits for each. Its
//! completion is a token and a queue beside the table, which are cheaper to keep and to take than a slot. Whoever wants to see
//! it in the table, as all other completions are, makes a slot of it first.

use super::OperationTable;
use crate::queues::slot::{INDEX_BITS, NO_SLOT, Slot, Stage};
use crate::{Outcome, QueueDescriptor, Token};

/// The slot of such a push, and the low bits of its token. No other operation ever has it.
pub(super) const LONE: u32 = 1;

pub(super) const RESERVED_SLOTS: usize = 2;

/// Where the completion is kept.
#[derive(Debug)]
pub(super) struct LonePush {
    /// 0 for none.
    raw_token: u64,
    queue: QueueDescriptor,
    /// Its slot holds it, or an earlier one.
    is_in_slot: bool,
    /// Such pushes ever, and those of them that became slots.
    kept: u64,
    unfolded: u64,
}

impl LonePush {
    pub(super) const NONE: Self = Self {
        raw_token: 0,
        queue: QueueDescriptor::from_raw(u32::MAX),
        is_in_slot: false,
        kept: 0,
        unfolded: 0,
    };
}

impl OperationTable {
    /// Keeps the completion of a push that ended well and for which no future waits, and makes its token: if no completion
    /// is ready. It is the first one since the last poll, which has called [`Self::unfold`].
    #[inline(always)]
    pub(crate) fn keep_lone_push(&mut self, queue: QueueDescriptor) -> Option<Token> {
        self.prepare_lone_push(queue).then(|| self.put_lone_push())
    }

    /// True when [`Self::keep_lone_push`] keeps the next one. The queue is noted, so that nobody has to remember it.
    #[inline(always)]
    pub(crate) fn prepare_lone_push(&mut self, queue: QueueDescriptor) -> bool {
        debug_assert_eq!(self.lone.raw_token, 0);
        self.lone.queue = queue;
        self.ready.head == NO_SLOT && !self.lone.is_in_slot
    }

    /// [`Self::keep_lone_push`], after [`Self::prepare_lone_push`].
    #[inline(always)]
    pub(crate) fn put_lone_push(&mut self) -> Token {
        let lone = &mut self.lone;
        lone.kept += 1;
        lone.raw_token = (lone.kept << INDEX_BITS) | u64::from(LONE);
        Token::from_raw(lone.raw_token)
    }

    /// Takes the push that [`Self::keep_lone_push`] kept, if it has this token.
    #[inline(always)]
    pub(crate) fn take_lone_push(&mut self, token: Token) -> Option<QueueDescriptor> {
        let is_it = self.lone.raw_token == token.raw() && token.raw() != 0;
        is_it.then(|| {
            self.lone.raw_token = 0;
            self.lone.queue
        })
    }

    /// As [`Self::take_lone_push`], whatever its token is.
    #[inline(always)]
    pub(crate) fn take_any_lone_push(&mut self) -> Option<(Token, QueueDescriptor)> {
        let token = Token::from_raw(self.lone.raw_token);
        self.take_lone_push(token).map(|queue| (token, queue))
    }

    /// Makes a slot of the push that [`Self::keep_lone_push`] kept, in front of whatever has become ready since.
    #[inline(always)]
    pub(crate) fn unfold(&mut self) {
        if self.lone.raw_token != 0 {
            self.unfold_lone_push();
        }
    }

    #[cold]
    #[inline(never)]
    fn unfold_lone_push(&mut self) {
        let lone = &mut self.lone;
        let token = Token::from_raw(std::mem::take(&mut lone.raw_token));
        lone.is_in_slot = true;
        lone.unfolded += 1;
        self.submitted += 1;
        self.completed += 1;
        let slot = &mut self.slots[LONE as usize];
        // Earlier than whatever is ready.
        (slot.token, slot.queue, slot.ordinal) = (token, lone.queue, 0);
        (slot.stage, slot.outcome) = (Stage::COMPLETED, Outcome::Pushed);
        if self.ready.is_empty() {
            self.make_ready(LONE);
        } else {
            self.link(LONE, self.ready.head);
            self.ready.head = LONE;
        }
    }

    /// Pushes ever kept by [`Self::keep_lone_push`].
    pub(crate) fn lone_pushes(&self) -> u64 {
        self.lone.kept
    }

    /// Operations ever submitted and ever completed in the table, without the pushes that became slots later.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.submitted - self.lone.unfolded, self.completed - self.lone.unfolded)
    }
}

/// Frees a slot that is on no list.
#[inline(always)]
pub(super) fn free(slot: &mut Slot, index: u32, free: &mut u32, lone: &mut LonePush) {
    if index == LONE {
        slot.retire();
        lone.is_in_slot = false;
    } else {
        slot.free(free, index);
    }
}

/// The slots that no operation gets: one that stands for nothing, so that no token is 0 however often a generation begins anew,
/// and [`LONE`].
pub(super) fn reserved_slots() -> Vec<Slot> {
    (0..RESERVED_SLOTS as u32).map(Slot::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OperationKind;

    const QUEUE: QueueDescriptor = QueueDescriptor::from_raw(3);

    fn take(table: &mut OperationTable) -> Option<(Token, OperationKind)> {
        let taken = table.take_first_ready()?;
        table.completion(taken).map(|completion| (completion.token, completion.kind))
    }

    #[test]
    fn a_lone_push_is_taken_once_by_its_token_or_by_whoever_comes_next() {
        let mut table = OperationTable::new(4);
        let first = table.keep_lone_push(QUEUE).unwrap();
        assert!(table.take_lone_push(Token::from_raw(first.raw() + 1)).is_none());
        assert!(table.take_lone_push(Token::from_raw(0)).is_none());
        assert_eq!(table.take_lone_push(first), Some(QUEUE));
        assert!(table.take_lone_push(first).is_none() && table.take_lone_push(Token::from_raw(0)).is_none());
        let second = table.keep_lone_push(QUEUE).unwrap();
        assert_ne!(first, second);
        assert_eq!(table.take_any_lone_push(), Some((second, QUEUE)));
        assert!(table.take_any_lone_push().is_none());
        assert_eq!((table.lone_pushes(), table.used(), table.totals()), (2, 0, (0, 0)));
    }

    #[test]
    fn in_a_slot_it_is_before_all_that_completed_later_and_frees_its_place_when_it_is_taken() {
        let mut table = OperationTable::new(4);
        let lone = table.keep_lone_push(QUEUE).unwrap();
        let (slot, later) = table.submit(QUEUE, OperationKind::Accept, false).unwrap();
        table.complete(slot, Outcome::Closed);
        table.unfold();
        assert!(table.take_any_lone_push().is_none());
        assert_eq!((table.used(), table.totals()), (2, (1, 1)));
        let completed_at = [lone, later].map(|token| table.find_completed(token).unwrap().unwrap().1);
        assert!(completed_at[0] < completed_at[1]);
        assert!(!table.prepare_lone_push(QUEUE), "others are ready");
        assert_eq!(take(&mut table), Some((lone, OperationKind::Push)));
        assert_eq!(take(&mut table), Some((later, OperationKind::Accept)));
        assert!(table.find_completed(lone).is_err());
        assert!(table.keep_lone_push(QUEUE).is_some_and(|next| next != lone));
    }

    #[test]
    fn while_a_future_has_it_the_next_push_is_like_any_other() {
        let mut table = OperationTable::new(4);
        let lone = table.keep_lone_push(QUEUE).unwrap();
        table.unfold();
        table.claim(lone).unwrap();
        assert!(!table.has_ready() && !table.prepare_lone_push(QUEUE));
        let slot = table.find_claimed(lone).unwrap().unwrap();
        assert_eq!(table.take(slot).token, lone);
        assert!(table.prepare_lone_push(QUEUE));
    }
}
