//! All queues of a device behind one runtime, for a library OS that serves them alone.

use std::os::fd::RawFd;

use libos::metrics::MetricsSink;
use libos::runtime::{MemoryAccess, RxBatch};
use libos::{Capabilities, Error, FrameBatch, Instant, Runtime};

/// Receives from all queues in turn and sends through the first.
pub struct Gathered<R> {
    first: R,
    others: Vec<R>,
    /// The queue that is received from first: each in turn.
    next: usize,
}

impl<R: Runtime> Gathered<R> {
    /// The queues of one device, in order.
    pub fn new(first: R, others: Vec<R>) -> Self {
        Self { first, others, next: 0 }
    }

    fn queues(&self) -> impl Iterator<Item = &R> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl<R: Runtime> Runtime for Gathered<R> {
    fn name(&self) -> &str {
        self.first.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.first.capabilities()
    }

    fn memory_access(&self) -> MemoryAccess {
        self.first.memory_access()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let count = 1 + self.others.len();
        for step in 0..count {
            if batch.is_full() {
                break;
            }
            match ((self.next + step) % count).checked_sub(1) {
                None => self.first.receive(now, batch)?,
                Some(index) => self.others[index].receive(now, batch)?,
            }
        }
        self.next = (self.next + 1) % count;
        Ok(())
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.first.transmit(now, batch)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.queues().filter_map(Runtime::next_deadline).min()
    }

    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        self.queues().all(|queue| queue.wake_fds(fds))
    }

    fn failure(&self) -> Option<String> {
        self.queues().find_map(Runtime::failure)
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.first.metrics(sink);
        for (index, queue) in self.others.iter().enumerate() {
            sink.enter(&format!("queue{}", index + 1));
            queue.metrics(sink);
            sink.leave();
        }
    }
}
