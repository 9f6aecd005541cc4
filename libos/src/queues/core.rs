//! What modules post completions to: both tables, and whom to wake.

use std::net::SocketAddr;
use std::task::Waker;

use super::descriptors::DescriptorTable;
use super::operations::{Finished, List, OperationTable};
use super::{ModuleIndex, QueueReference};
use crate::executor::{SharedTasks, WakeTarget};
use crate::module::Completions;
use crate::{Completion, Error, Handle, OperationKind, Outcome, QueueDescriptor, Token};

/// Operations by kind since the start.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OperationCounts {
    pub(crate) submitted: [u64; OperationKind::COUNT],
    pub(crate) completed: [u64; OperationKind::COUNT],
    pub(crate) failed: [u64; OperationKind::COUNT],
}

/// Descriptors and operations.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) descriptors: DescriptorTable,
    pub(crate) operations: OperationTable,
    pub(crate) counts: OperationCounts,
    /// Wakers of other executors: called when nothing is borrowed any more.
    pub(crate) foreign_wakers: Vec<Waker>,
    tasks: SharedTasks,
}

impl Core {
    pub(crate) fn new(max_descriptors: usize, max_operations: usize, tasks: SharedTasks) -> Self {
        Self {
            descriptors: DescriptorTable::new(max_descriptors),
            operations: OperationTable::new(max_operations),
            counts: OperationCounts::default(),
            foreign_wakers: Vec::new(),
            tasks,
        }
    }

    /// Gives the operation a token and says who serves it.
    #[inline]
    pub(crate) fn submit(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
    ) -> Result<(Token, ModuleIndex, Handle), Error> {
        let open = self.descriptors.get_mut(queue)?;
        let token = self.operations.submit(queue, kind, &mut open.outstanding)?;
        self.counts.submitted[kind.index()] += 1;
        Ok((token, open.module, open.handle))
    }

    /// Completes every outstanding operation of the queue as cancelled, frees the descriptor, and
    /// makes the token of the close, which is complete already.
    pub(crate) fn close(&mut self, queue: QueueDescriptor) -> Result<(Token, ModuleIndex, Handle), Error> {
        self.descriptors.get(queue)?;
        // First, so that a close for which there is no token leaves the queue as it was.
        self.operations.check_room()?;
        let (module, handle) = self.tear_down(queue)?;
        self.counts.submitted[OperationKind::Close.index()] += 1;
        let mut list = List::EMPTY;
        let token = self.operations.submit(queue, OperationKind::Close, &mut list)?;
        let (kind, wake) = self.operations.complete(token, Outcome::Closed, &mut list)?;
        self.record(kind, false, wake);
        Ok((token, module, handle))
    }

    /// As [`Self::close`], without a token for it.
    pub(crate) fn tear_down(&mut self, queue: QueueDescriptor) -> Result<(ModuleIndex, Handle), Error> {
        let mut closed = self.descriptors.close(queue)?;
        while let Some(token) = self.operations.first(&closed.outstanding) {
            let outcome = Outcome::Failed(Error::Cancelled);
            let (kind, wake) = self.operations.complete(token, outcome, &mut closed.outstanding)?;
            self.record(kind, true, wake);
        }
        Ok((closed.module, closed.handle))
    }

    /// Ends an outstanding operation.
    #[inline]
    pub(crate) fn end(&mut self, token: Token, outcome: Outcome) -> Result<(), Error> {
        let queue = self.operations.outstanding_queue(token)?;
        let outstanding = &mut self.descriptors.get_mut(queue)?.outstanding;
        let failed = matches!(outcome, Outcome::Failed(_));
        let (kind, wake) = self.operations.complete(token, outcome, outstanding)?;
        self.record(kind, failed, wake);
        Ok(())
    }

    #[inline]
    fn record(&mut self, kind: OperationKind, failed: bool, wake: WakeTarget) {
        self.counts.completed[kind.index()] += 1;
        self.counts.failed[kind.index()] += u64::from(failed);
        self.wake(wake);
    }

    /// Frees an outstanding operation's slot; its completion will be ignored.
    pub(crate) fn forget(&mut self, token: Token) -> Result<(), Error> {
        let queue = self.operations.outstanding_queue(token)?;
        self.operations.forget(token, &mut self.descriptors.get_mut(queue)?.outstanding)
    }

    /// Who serves an outstanding operation.
    pub(crate) fn server_of(&self, token: Token) -> Result<(ModuleIndex, Handle), Error> {
        let queue = self.descriptors.get(self.operations.outstanding_queue(token)?)?;
        Ok((queue.module, queue.handle))
    }

    /// Takes the completion; `None` while the operation is outstanding.
    #[inline]
    pub(crate) fn take(&mut self, token: Token) -> Result<Option<Completion>, Error> {
        let finished = self.operations.take(token)?;
        Ok(finished.map(|finished| completion(token, finished)))
    }

    /// Takes the completion that is ready for longest.
    #[inline]
    pub(crate) fn take_ready(&mut self) -> Option<Completion> {
        self.operations.take_ready().map(|(token, finished)| completion(token, finished))
    }

    /// The descriptor a reference stands for, if it is still the same queue.
    pub(crate) fn resolve(&self, reference: QueueReference) -> Result<QueueDescriptor, Error> {
        self.descriptors.resolve(reference)
    }

    #[inline]
    pub(crate) fn wake(&mut self, wake: WakeTarget) {
        match wake {
            WakeTarget::Nobody => {}
            WakeTarget::Task(task) => self.tasks.schedule(task),
            WakeTarget::Foreign(waker) => self.foreign_wakers.push(waker),
        }
    }
}

fn completion(token: Token, Finished { queue, kind, outcome }: Finished) -> Completion {
    Completion { token, queue, kind, outcome }
}

impl Completions for Core {
    fn complete(&mut self, token: Token, outcome: Outcome) {
        // A token that was cancelled or whose future was dropped meanwhile: nobody is left to tell,
        // and dropping the outcome gives its buffers back.
        let _ = self.end(token, outcome);
    }

    fn accepted(&mut self, token: Token, handle: Handle, peer: SocketAddr) -> Result<(), Error> {
        let listener = self.operations.outstanding_queue(token)?;
        let module = self.descriptors.get(listener)?.module;
        match self.descriptors.open(module, handle) {
            Ok(queue) => self.end(token, Outcome::Accepted { queue, peer }),
            Err(error) => {
                self.end(token, Outcome::Failed(error))?;
                Err(error)
            }
        }
    }
}
