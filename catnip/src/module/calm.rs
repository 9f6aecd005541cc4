//! The stack of a module, which is calm until something is done with it.

use std::ops::Deref;

use libos::Instant;

use crate::stack::Stack;

/// A stack, and until when nothing has to be done for it unless something arrives: its next timer, while nothing waits to
/// be sent or told. A poll of a calm stack asks for the time and for nothing else.
///
/// Whoever changes the stack says so with [`Self::stir`], except for the straight ways, which are known to leave nothing
/// behind: they go through [`Self::quietly`].
pub(super) struct Calm {
    stack: Stack,
    until: Instant,
}

impl Calm {
    pub(super) fn new(stack: Stack) -> Self {
        Self { stack, until: Instant::ZERO }
    }

    /// The stack, for a change after which the next poll has to look at everything.
    #[inline(always)]
    pub(super) fn stir(&mut self) -> &mut Stack {
        self.until = Instant::ZERO;
        &mut self.stack
    }

    /// The stack, for a change that leaves nothing to be done. One that does after all is followed by [`Self::stir`].
    #[inline(always)]
    pub(super) fn quietly(&mut self) -> &mut Stack {
        &mut self.stack
    }

    /// True when a poll at this time has nothing to do.
    #[inline(always)]
    pub(super) fn is_calm(&self, now: Instant) -> bool {
        let is_calm = now < self.until;
        debug_assert!(!is_calm || self.stack.is_at_rest(), "what leaves something to be done says so");
        debug_assert!(!is_calm || self.stack.next_deadline().is_none_or(|due| due > now), "a timer is due");
        is_calm
    }

    /// True from a poll that left nothing to be done until something is.
    #[inline(always)]
    pub(super) fn is_settled(&self) -> bool {
        self.until != Instant::ZERO
    }

    /// Finds out until when the stack is calm, after a poll.
    pub(super) fn settle(&mut self) {
        if self.stack.is_at_rest() {
            self.until = self.stack.next_deadline().unwrap_or(Instant::FAR_FUTURE);
        }
    }
}

impl Deref for Calm {
    type Target = Stack;

    #[inline(always)]
    fn deref(&self) -> &Stack {
        &self.stack
    }
}
