//! In-memory queues: what is pushed into one is popped out of it, in order.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Poll;

use crate::handle_table::HandleTable;
use crate::metrics::MetricsSink;
use crate::module::{Completions, Departure, Popped};
use crate::time::Timekeeper;
use crate::{
    Config, Error, Handle, Instant, Module, Outcome, PopLimit, QueueDescriptor, ScatterGather, SetupError,
    Token,
};

const DEFAULT_LIMIT: usize = 1024;

#[derive(Debug, Default)]
struct MemoryQueue {
    elements: VecDeque<ScatterGather>,
    /// Pushes that wait for room, oldest first; none while `elements` is below the limit.
    pushes: VecDeque<(Token, ScatterGather)>,
    /// Whose pops wait for an element, once one did.
    popped_as: Option<QueueDescriptor>,
}

/// The module of in-memory queues.
///
/// A push hands over one scatter-gather array, and one pop gets it, whole and not copied, whatever the pop's
/// limits. A queue that holds its limit of elements leaves further pushes outstanding until pops
/// make room. Closing a queue drops what is in it.
#[derive(Debug)]
pub struct MemoryQueues {
    queues: HandleTable<MemoryQueue>,
    limit: usize,
    pushed: u64,
    popped: u64,
}

impl MemoryQueues {
    /// Queues of at most `limit` elements each, and of one at least.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { queues: HandleTable::default(), limit: limit.max(1), pushed: 0, popped: 0 }
    }

    /// Queues with the limit in the table `[memory_queue]`.
    ///
    /// # Errors
    /// [`SetupError::Config`] when the table is wrong.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let mut section = config.section("memory_queue");
        let limit = section.usize("limit", 1..=1 << 24, DEFAULT_LIMIT)?;
        section.finish()?;
        Ok(Self::new(limit))
    }

    /// Elements that each queue holds at most.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl Default for MemoryQueues {
    /// Queues of at most 1024 elements.
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Module for MemoryQueues {
    fn name(&self) -> &str {
        "memory_queue"
    }

    fn queue(&mut self) -> Result<Handle, Error> {
        Ok(self.queues.insert(MemoryQueue::default()))
    }

    fn push(
        &mut self,
        _time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        _departure: Departure,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        let limit = self.limit;
        let queue = self.queues.get_mut(handle)?;
        if to.is_some() {
            return Poll::Ready(Err(Error::NotSupported));
        }
        let data = std::mem::take(data);
        if let Some(pop) = queue.popped_as.and_then(|queue| completions.waiting_pop(queue)) {
            completions.popped(pop, data, None);
            self.popped += 1;
        } else if queue.elements.len() < limit {
            queue.elements.push_back(data);
        } else {
            queue.pushes.push_back((token, data));
            return Poll::Pending;
        }
        self.pushed += 1;
        Poll::Ready(Ok(()))
    }

    fn pop(
        &mut self,
        _now: Instant,
        handle: Handle,
        descriptor: QueueDescriptor,
        _limit: PopLimit,
        completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        let queue = self.queues.get_mut(handle)?;
        let Some(data) = queue.elements.pop_front() else {
            queue.popped_as = Some(descriptor);
            return Poll::Pending;
        };
        if let Some((push, waiting)) = queue.pushes.pop_front() {
            queue.elements.push_back(waiting);
            completions.complete(push, Outcome::Pushed);
            self.pushed += 1;
        }
        self.popped += 1;
        Poll::Ready(Ok(Popped { data, from: None }))
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        if let Ok(queue) = self.queues.get_mut(handle) {
            queue.pushes.retain(|(push, _)| *push != token);
        }
    }

    fn close(&mut self, _now: Instant, handle: Handle) {
        self.queues.remove(handle);
    }

    fn poll(&mut self, _now: Instant, _completions: &mut Completions) {
        // Everything happens when operations are submitted.
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.gauge("queues", self.queues.len() as u64);
        sink.counter("pushed", self.pushed);
        sink.counter("popped", self.popped);
    }
}
