//! A device with several queues that knows nothing of flows, over one simulated port.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use catnip_os::libos::metrics::MetricsSink;
use catnip_os::libos::runtime::RxBatch;
use catnip_os::libos::{Capabilities, Error, FrameBatch, Instant, Runtime, RxFrame};
use catnip_os::runtime_sim::SimRuntime;

/// Which queue the device puts a frame into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spreading {
    /// Each frame into the next queue: the segments of every flow come to all cores.
    InTurn,
    /// All frames into the last queue.
    ToTheLast,
}

struct Split {
    port: SimRuntime,
    queues: Vec<VecDeque<RxFrame>>,
    spreading: Spreading,
    next: usize,
}

impl Split {
    fn receive(&mut self, now: Instant) -> Result<(), Error> {
        let mut batch = RxBatch::new();
        self.port.receive(now, &mut batch)?;
        for frame in batch {
            let queues = self.queues.len();
            let queue = match self.spreading {
                Spreading::InTurn => self.next % queues,
                Spreading::ToTheLast => queues - 1,
            };
            self.next += 1;
            self.queues[queue].push_back(frame);
        }
        Ok(())
    }
}

/// One of the queues.
pub struct Queue {
    split: Rc<RefCell<Split>>,
    index: usize,
}

impl Queue {
    /// The queues of a device behind `port`.
    pub fn split(port: SimRuntime, queues: usize, spreading: Spreading) -> Vec<Self> {
        let empty = (0..queues).map(|_| VecDeque::new()).collect();
        let split = Rc::new(RefCell::new(Split { port, queues: empty, spreading, next: 0 }));
        (0..queues).map(|index| Self { split: Rc::clone(&split), index }).collect()
    }
}

impl Runtime for Queue {
    fn name(&self) -> &str {
        "queue"
    }

    fn capabilities(&self) -> Capabilities {
        self.split.borrow().port.capabilities()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let mut split = self.split.borrow_mut();
        split.receive(now)?;
        let queue = &mut split.queues[self.index];
        while !batch.is_full()
            && let Some(frame) = queue.pop_front()
        {
            batch.push(frame);
        }
        Ok(())
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.split.borrow_mut().port.transmit(now, batch)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let split = self.split.borrow();
        if !split.queues[self.index].is_empty() { Some(Instant::ZERO) } else { split.port.next_deadline() }
    }

    fn metrics(&self, _sink: &mut dyn MetricsSink) {}
}
