//! What modules post completions to: both tables, and whom to wake.

use std::net::SocketAddr;
use std::task::{Poll, Waker};

use super::descriptors::{DescriptorTable, Queue};
use super::operations::{OperationTable, SlotIndex};
use super::{ModuleIndex, QueueReference};
use crate::executor::{SharedTasks, WakeTarget};
use crate::{Error, Handle, OperationKind, Outcome, PopLimit, QueueDescriptor, ScatterGather, Token};

/// Operations by kind since the start. In [`Completions::counts`] those that are counted nowhere else: not the pops, which
/// are what is left of the totals, and of the pushes not [`OperationTable::lone_pushes`].
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct OperationCounts {
    pub(crate) submitted: [u64; OperationKind::COUNT],
    pub(crate) completed: [u64; OperationKind::COUNT],
    pub(crate) failed: [u64; OperationKind::COUNT],
}

/// An operation on its way to the module.
pub(crate) struct Submission {
    pub(crate) slot: SlotIndex,
    pub(crate) token: Token,
    pub(crate) module: ModuleIndex,
    pub(crate) handle: Handle,
}

/// A pop that waits, and how much it takes. It goes on waiting until [`Completions::popped`] or
/// [`Completions::pop_failed`].
#[derive(Debug)]
pub struct WaitingPop {
    token: Token,
    /// How much it takes.
    pub limit: PopLimit,
}

/// Where a module posts what became of its operations: the tables of descriptors and of operations. A type and no
/// trait, so that what is posted with each packet is expanded where it is posted.
#[derive(Debug)]
pub struct Completions {
    pub(crate) descriptors: DescriptorTable,
    pub(crate) operations: OperationTable,
    pub(crate) counts: OperationCounts,
    /// Wakers of other executors: called when nothing is borrowed any more.
    pub(crate) foreign_wakers: Vec<Waker>,
    tasks: SharedTasks,
}

impl Completions {
    pub(crate) fn new(max_descriptors: usize, max_operations: usize, tasks: SharedTasks) -> Self {
        Self {
            descriptors: DescriptorTable::new(max_descriptors),
            operations: OperationTable::new(max_operations),
            counts: OperationCounts::default(),
            foreign_wakers: Vec::new(),
            tasks,
        }
    }

    /// Operations by kind since the start.
    pub(crate) fn totals(&self) -> OperationCounts {
        const PUSH: usize = OperationKind::Push.index();
        const POP: usize = OperationKind::Pop.index();
        let mut totals = self.counts;
        let (submitted, completed) = self.operations.totals();
        for (counts, total) in [(&mut totals.submitted, submitted), (&mut totals.completed, completed)] {
            counts[POP] = 0;
            counts[POP] = total - counts.iter().sum::<u64>();
            counts[PUSH] += self.operations.lone_pushes();
        }
        totals
    }

    /// A push on its way to the module that serves the queue: its handle, and the token, which is the push's once the module
    /// has answered, by [`Self::end_push`].
    #[inline(always)]
    pub(crate) fn begin_push(
        &mut self,
        queue: QueueDescriptor,
    ) -> Result<(ModuleIndex, Handle, Token), Error> {
        let &Queue { module, handle, .. } = self.descriptors.get(queue)?;
        Ok((module, handle, self.operations.next_token()?))
    }

    /// A push to which its module has given this answer, and for which there is to be a slot.
    #[inline(always)]
    pub(crate) fn end_push(
        &mut self,
        queue: QueueDescriptor,
        awaited: bool,
        ended: Poll<Result<(), Error>>,
    ) -> Result<(), Error> {
        // In front of what becomes ready now.
        self.operations.unfold();
        let Poll::Ready(ended) = ended else { return self.settle_push(queue, awaited) };
        const PUSH: usize = OperationKind::Push.index();
        let Self { operations, counts, .. } = self;
        counts.submitted[PUSH] += 1;
        counts.completed[PUSH] += 1;
        let outcome = match ended {
            Ok(()) => Outcome::Pushed,
            Err(error) => {
                counts.failed[PUSH] += 1;
                Outcome::Failed(error)
            }
        };
        operations.submit_completed(queue, OperationKind::Push, awaited, outcome);
        Ok(())
    }

    /// A push that waits at its module.
    #[inline(never)]
    fn settle_push(&mut self, queue: QueueDescriptor, awaited: bool) -> Result<(), Error> {
        let Submission { slot, .. } = self.submit(queue, OperationKind::Push, awaited)?;
        self.settle(queue, slot);
        Ok(())
    }

    /// Gives the operation a token and says who serves it. With `awaited` the completion is a
    /// future's. Once the module has had the operation, [`Self::settle`] follows.
    #[inline(always)]
    pub(crate) fn submit(
        &mut self,
        queue: QueueDescriptor,
        kind: OperationKind,
        awaited: bool,
    ) -> Result<Submission, Error> {
        let &Queue { module, handle, .. } = self.descriptors.get(queue)?;
        let (slot, token) = self.operations.submit(queue, kind, awaited)?;
        self.counts.submitted[kind.index()] += 1;
        Ok(Submission { slot, token, module, handle })
    }

    /// Puts an operation that its module did not complete at once onto its queue's list.
    #[inline(always)]
    pub(crate) fn settle(&mut self, queue: QueueDescriptor, slot: SlotIndex) {
        if self.operations.is_unsettled(slot)
            && let Ok(open) = self.descriptors.get_mut(queue)
        {
            self.operations.settle(slot, &mut open.outstanding);
        }
    }

    /// Completes every outstanding operation of the queue as cancelled, frees the descriptor, and makes the token
    /// of the close, which [`Self::finish`] or its module ends.
    pub(crate) fn close(&mut self, queue: QueueDescriptor) -> Result<Submission, Error> {
        self.descriptors.get(queue)?;
        // First, so that a close for which there is no token leaves the queue as it was.
        self.operations.check_room()?;
        let (module, handle) = self.tear_down(queue)?;
        self.counts.submitted[OperationKind::Close.index()] += 1;
        let (slot, token) = self.operations.submit(queue, OperationKind::Close, false)?;
        Ok(Submission { slot, token, module, handle })
    }

    /// As [`Self::close`], without a token for it.
    pub(crate) fn tear_down(&mut self, queue: QueueDescriptor) -> Result<(ModuleIndex, Handle), Error> {
        let Queue { module, handle, mut outstanding, mut pops, is_dry: _ } = self.descriptors.close(queue)?;
        loop {
            let operations = &self.operations;
            let (slot, list) = match (operations.first(&outstanding), operations.first(&pops)) {
                (Some(one), Some(pop)) if operations.submitted_at(pop) < operations.submitted_at(one) => {
                    (pop, &mut pops)
                }
                (Some(one), _) => (one, &mut outstanding),
                (None, Some(pop)) => (pop, &mut pops),
                (None, None) => return Ok((module, handle)),
            };
            self.operations.unsettle(slot, list);
            self.finish(slot, Outcome::Failed(Error::Cancelled));
        }
    }

    /// Takes a pop without its module, which has nothing: the usual case where somebody waits for what comes next. For
    /// all else `None`, and nothing done.
    #[inline(always)]
    pub(crate) fn submit_dry_pop(
        &mut self,
        queue: QueueDescriptor,
        limit: PopLimit,
        awaited: bool,
    ) -> Option<Token> {
        let open = self.descriptors.get_mut(queue).ok()?;
        if !open.is_dry || !open.pops.is_empty() {
            return None;
        }
        self.operations.submit_lone_pop(queue, limit, awaited, &mut open.pops)
    }

    /// True when the module need not be asked for a pop: it has nothing, or others wait for it already.
    pub(crate) fn is_dry(&self, queue: QueueDescriptor) -> bool {
        self.descriptors.get(queue).is_ok_and(|open| open.is_dry || !open.pops.is_empty())
    }

    /// Lets a pop wait, for which the module has nothing.
    pub(crate) fn settle_pop(&mut self, queue: QueueDescriptor, slot: SlotIndex, limit: PopLimit) {
        if let Ok(open) = self.descriptors.get_mut(queue) {
            open.is_dry = true;
            self.operations.set_limit(slot, limit);
            self.operations.settle(slot, &mut open.pops);
        }
    }

    /// Ends an outstanding operation.
    #[inline(always)]
    pub(crate) fn end(&mut self, token: Token, outcome: Outcome) -> Result<(), Error> {
        let (slot, queue) = self.operations.find_outstanding(token)?;
        self.unsettle(slot, queue);
        self.finish(slot, outcome);
        Ok(())
    }

    /// Takes an outstanding operation off its queue's list, if it has got there.
    #[inline(always)]
    fn unsettle(&mut self, slot: SlotIndex, queue: QueueDescriptor) {
        if !self.operations.is_unsettled(slot)
            && let Ok(open) = self.descriptors.get_mut(queue)
        {
            let list = match self.operations.kind_of(slot) {
                OperationKind::Pop => &mut open.pops,
                OperationKind::Accept
                | OperationKind::Connect
                | OperationKind::Push
                | OperationKind::Close => &mut open.outstanding,
            };
            self.operations.unsettle(slot, list);
        }
    }

    /// Ends an operation that is on no queue's list.
    #[inline(always)]
    pub(crate) fn finish(&mut self, slot: SlotIndex, outcome: Outcome) {
        if let Outcome::Failed(_) = outcome {
            self.counts.failed[self.operations.kind_of(slot).index()] += 1;
        }
        self.succeed(slot, outcome);
    }

    /// As [`Self::finish`], for an outcome that is no failure.
    #[inline(always)]
    pub(crate) fn succeed(&mut self, slot: SlotIndex, outcome: Outcome) {
        let (kind, watched) = self.operations.complete(slot, outcome);
        self.counts.completed[kind.index()] += 1;
        if watched {
            self.wake_watcher(slot);
        }
    }

    #[inline(never)]
    fn wake_watcher(&mut self, slot: SlotIndex) {
        let wake = self.operations.take_wake(slot);
        self.wake(wake);
    }

    /// Frees an outstanding operation's slot; its completion will be ignored.
    pub(crate) fn forget(&mut self, token: Token) -> Result<(), Error> {
        let (slot, queue) = self.operations.find_outstanding(token)?;
        self.unsettle(slot, queue);
        self.operations.forget(slot);
        Ok(())
    }

    /// Who has an outstanding operation.
    pub(crate) fn server_of(&self, token: Token) -> Result<(ModuleIndex, Handle), Error> {
        let (slot, queue) = self.operations.find_outstanding(token)?;
        if self.operations.kind_of(slot) == OperationKind::Pop {
            return Err(Error::BadToken);
        }
        let queue = self.descriptors.get(queue)?;
        Ok((queue.module, queue.handle))
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

/// What modules call.
impl Completions {
    /// Ends the operation. A token that was cancelled meanwhile is ignored.
    #[inline(never)]
    pub fn complete(&mut self, token: Token, outcome: Outcome) {
        // A token that was cancelled or whose future was dropped meanwhile: nobody is left to tell,
        // and dropping the outcome gives its buffers back.
        let _ = self.end(token, outcome);
    }

    /// The pop that has waited longest on a queue for which the module has something now: data, the end or an error. When
    /// none does, the module is asked at the next one.
    #[inline(always)]
    pub fn waiting_pop(&mut self, queue: QueueDescriptor) -> Option<WaitingPop> {
        let open = self.descriptors.get_mut(queue).ok()?;
        match self.operations.first_pop(&open.pops) {
            Some((token, limit)) => Some(WaitingPop { token, limit }),
            None => {
                open.is_dry = false;
                None
            }
        }
    }

    /// True when one pop waits on a queue, nobody watches it, and no completion is ready: [`Self::give`] gives it a datagram
    /// then. Says no more than that; whoever hears no asks `give` all the same.
    #[inline(always)]
    #[must_use]
    pub fn waits_alone(&self, queue: QueueDescriptor) -> bool {
        self.descriptors.get(queue).is_ok_and(|Queue { pops, .. }| self.operations.has_lone_pop(pops))
    }

    /// Gives what has arrived for a queue to the pop that has waited longest on it: a datagram with its sender to any, a
    /// stream's data to one that takes it whole. As [`Self::waiting_pop`] and [`Self::popped`], for each packet; the sender is
    /// made in the place where it stays.
    ///
    /// # Errors
    /// The data, when no such pop waits.
    #[inline(always)]
    pub fn give(
        &mut self,
        queue: QueueDescriptor,
        data: ScatterGather,
        from: impl Fn() -> Option<SocketAddr>,
    ) -> Result<(), ScatterGather> {
        let Self { descriptors, operations, .. } = self;
        if let Ok(Queue { pops, .. }) = descriptors.get_mut(queue)
            && let Some(lone) = operations.lone_pop(pops)
            && (from().is_some() || data.len() <= lone.limit().bytes)
        {
            lone.complete(pops, Outcome::Popped { data, from: from() });
            return Ok(());
        }
        self.give_to_first(queue, data, from())
    }

    #[inline(never)]
    fn give_to_first(
        &mut self,
        queue: QueueDescriptor,
        data: ScatterGather,
        from: Option<SocketAddr>,
    ) -> Result<(), ScatterGather> {
        match self.waiting_pop(queue) {
            Some(pop) if from.is_some() || data.len() <= pop.limit.bytes => {
                self.popped(pop, data, from);
                Ok(())
            }
            _ => Err(data),
        }
    }

    /// Ends a pop that waits with data, and who sent it if it is a datagram.
    pub fn popped(
        &mut self,
        WaitingPop { token, .. }: WaitingPop,
        data: ScatterGather,
        from: Option<SocketAddr>,
    ) {
        self.complete(token, Outcome::Popped { data, from });
    }

    /// Ends a pop that waits with an error.
    pub fn pop_failed(&mut self, WaitingPop { token, .. }: WaitingPop, error: Error) {
        self.complete(token, Outcome::Failed(error));
    }

    /// Ends an accept with the module's handle of the new connection, which gets a descriptor.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full: the accept has failed with that error,
    /// and the module still owns the handle. [`Error::BadToken`] when nobody waits for the accept
    /// any more: the module still owns the handle, and may keep the connection in its backlog.
    pub fn accepted(&mut self, token: Token, handle: Handle, peer: SocketAddr) -> Result<(), Error> {
        let (_, listener) = self.operations.find_outstanding(token)?;
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
