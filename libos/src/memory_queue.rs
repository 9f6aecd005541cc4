//! In-memory queues: what is pushed into one is popped out of it, in order.

use std::collections::VecDeque;

use crate::metrics::MetricsSink;
use crate::module::Completions;
use crate::{
    Config, Error, Handle, Instant, Module, Operation, Outcome, PopLimit, ScatterGather, SetupError, Token,
};

const DEFAULT_LIMIT: usize = 1024;

#[derive(Debug, Default)]
struct MemoryQueue {
    elements: VecDeque<ScatterGather>,
    /// Pushes that wait for room, oldest first; none while `elements` is below the limit.
    pushes: VecDeque<(Token, ScatterGather)>,
    /// Pops that wait for an element, oldest first; none while there is an element.
    pops: VecDeque<Token>,
}

/// The module of in-memory queues.
///
/// A push hands over one scatter-gather array, and one pop gets it, whole and not copied, whatever the pop's
/// limits. A queue that holds its limit of elements leaves further pushes outstanding until pops
/// make room. Closing a queue drops what is in it.
#[derive(Debug)]
pub struct MemoryQueues {
    queues: Vec<Option<MemoryQueue>>,
    free: Vec<usize>,
    limit: usize,
    pushed: u64,
    popped: u64,
}

impl MemoryQueues {
    /// Queues of at most `limit` elements each, and of one at least.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { queues: Vec::new(), free: Vec::new(), limit: limit.max(1), pushed: 0, popped: 0 }
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

    fn queue_mut(&mut self, handle: Handle) -> Option<&mut MemoryQueue> {
        self.queues.get_mut(usize::try_from(handle.0).ok()?)?.as_mut()
    }

    fn push(&mut self, handle: Handle, token: Token, data: ScatterGather, completions: &mut dyn Completions) {
        let limit = self.limit;
        let Some(queue) = self.queue_mut(handle) else {
            return completions.complete(token, Outcome::Failed(Error::BadDescriptor));
        };
        if let Some(pop) = queue.pops.pop_front() {
            completions.complete(token, Outcome::Pushed);
            completions.complete(pop, Outcome::Popped { data, from: None });
            self.popped += 1;
        } else if queue.elements.len() < limit {
            queue.elements.push_back(data);
            completions.complete(token, Outcome::Pushed);
        } else {
            queue.pushes.push_back((token, data));
            return;
        }
        self.pushed += 1;
    }

    fn pop(&mut self, handle: Handle, token: Token, completions: &mut dyn Completions) {
        let Some(queue) = self.queue_mut(handle) else {
            return completions.complete(token, Outcome::Failed(Error::BadDescriptor));
        };
        let Some(data) = queue.elements.pop_front() else { return queue.pops.push_back(token) };
        completions.complete(token, Outcome::Popped { data, from: None });
        let waiting = queue.pushes.pop_front();
        self.popped += 1;
        if let Some((push, data)) = waiting
            && let Some(queue) = self.queue_mut(handle)
        {
            queue.elements.push_back(data);
            completions.complete(push, Outcome::Pushed);
            self.pushed += 1;
        }
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
        let index = self.free.pop().unwrap_or_else(|| {
            self.queues.push(None);
            self.queues.len() - 1
        });
        self.queues[index] = Some(MemoryQueue::default());
        Ok(Handle(index as u64))
    }

    fn submit(
        &mut self,
        _now: Instant,
        handle: Handle,
        token: Token,
        operation: Operation,
        completions: &mut dyn Completions,
    ) {
        match operation {
            Operation::Push(data) => self.push(handle, token, data, completions),
            Operation::Pop(PopLimit { segments: _, bytes: _ }) => self.pop(handle, token, completions),
            Operation::Accept | Operation::Connect(_) | Operation::PushTo(..) => {
                completions.complete(token, Outcome::Failed(Error::NotSupported));
            }
        }
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        if let Some(queue) = self.queue_mut(handle) {
            queue.pushes.retain(|(push, _)| *push != token);
            queue.pops.retain(|pop| *pop != token);
        }
    }

    fn close(&mut self, _now: Instant, handle: Handle) {
        let Ok(index) = usize::try_from(handle.0) else { return };
        if self.queues.get_mut(index).and_then(Option::take).is_some() {
            self.free.push(index);
        }
    }

    fn poll(&mut self, _now: Instant, _completions: &mut dyn Completions) {
        // Everything happens when operations are submitted.
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.gauge("queues", (self.queues.len() - self.free.len()) as u64);
        sink.counter("pushed", self.pushed);
        sink.counter("popped", self.popped);
    }
}
