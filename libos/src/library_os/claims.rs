//! What futures and typed sockets need of the tables beyond the public calls.

use super::{Abandoned, LibOs};
use crate::executor::WakeTarget;
use crate::queues::QueueReference;
use crate::{Completion, Error, QueueDescriptor, Token};

impl LibOs {
    /// Reserves the token's completion for a future.
    pub(crate) fn claim(&self, token: Token) -> Result<(), Error> {
        self.state()?.tables.operations.claim(token)
    }

    /// Takes the completion of a claimed token; `None` while it is outstanding.
    #[inline]
    pub(crate) fn take_claimed(&self, token: Token) -> Result<Option<Completion>, Error> {
        let operations = &mut self.state()?.tables.operations;
        Ok(operations.find_claimed(token)?.map(|slot| operations.take(slot)))
    }

    /// Sets whom to wake for a claimed token. Returns a target for the caller to drop once
    /// nothing is borrowed: the previous one.
    #[inline]
    pub(crate) fn wake_claimed(&self, token: Token, wake: WakeTarget) -> WakeTarget {
        match self.state() {
            Ok(mut state) => state.tables.operations.set_wake(token, wake).unwrap_or_default(),
            Err(_) => wake,
        }
    }

    /// Number of operations that ever completed: moves whenever a wait might be over.
    pub(crate) fn completed(&self) -> Result<u64, Error> {
        Ok(self.state()?.tables.operations.completed())
    }

    /// The queue as it is now, not whatever gets its descriptor later.
    pub(crate) fn reference(&self, queue: QueueDescriptor) -> Result<QueueReference, Error> {
        self.state()?.tables.descriptors.reference(queue)
    }

    /// For destructors: gives up now, or at the next poll when called from inside a callback.
    pub(crate) fn abandon(&self, abandoned: Abandoned) {
        match self.state() {
            Ok(mut state) => {
                state.give_up(self.now(), &abandoned);
                self.release(state);
            }
            Err(_) => {
                self.inner.abandoned.borrow_mut().push(abandoned);
                self.inner.executor.be_due(true);
            }
        }
    }
}
