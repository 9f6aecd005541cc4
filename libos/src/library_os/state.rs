//! What is borrowed while a call is under way: the tables and the modules.

use std::os::fd::RawFd;

use super::lateness::Lateness;
use super::options::Options;
use crate::executor::SharedTasks;
use crate::metrics::MetricsSink;
use crate::queues::{Completions, ModuleIndex, QueueReference};
use crate::time::Timekeeper;
use crate::{Error, Instant, Module, OperationKind, Outcome, QueueDescriptor, Token};

/// A wait whose completion is already there returns without a poll, but so many times in a row at most:
/// a program that never runs dry must not keep packets and timers waiting.
pub(super) const MAX_UNPOLLED_WAITS: u32 = 16;

/// Something whose owner was dropped while the state was borrowed.
#[derive(Debug)]
pub(crate) enum Abandoned {
    /// Nobody will ask for the completion.
    Operation(Token),
    /// Nobody will use the queue.
    Queue(QueueReference),
}

/// The tables and the modules, side by side, so that a module can be called with the tables in hand.
pub(super) struct State {
    pub(super) tables: Completions,
    pub(super) modules: Vec<Box<dyn Module>>,
    pub(super) lateness: Lateness,
    pub(super) polls: u64,
    /// Polls that completed no operation.
    pub(super) idle_polls: u64,
    pub(super) sleeps: u64,
    /// Operations that had completed when the last poll began.
    completed_before: u64,
    /// Waits in a row that were answered without a poll.
    pub(super) unpolled_waits: u32,
    /// True when there may be frames to be sent: after a poll or an operation, until a flush.
    pub(super) unflushed: bool,
}

impl State {
    pub(super) fn new(options: &Options, clock_is_real: bool, tasks: SharedTasks) -> Self {
        // A virtual clock jumps from event to event: no program is at fault for that.
        let late_poll = options.late_poll.filter(|_| clock_is_real);
        Self {
            tables: Completions::new(options.max_descriptors, options.max_operations, tasks),
            modules: Vec::new(),
            lateness: Lateness::new(late_poll),
            polls: 0,
            idle_polls: 0,
            sleeps: 0,
            completed_before: 0,
            unpolled_waits: 0,
            unflushed: false,
        }
    }

    /// Lets every module make progress.
    #[inline(always)]
    pub(super) fn poll(&mut self, time: &Timekeeper) {
        let now = time.last();
        if let Some(gap_ns) = self.lateness.poll_begins(now) {
            self.poll_is_late(now, gap_ns);
        }
        let Self { tables, modules, completed_before, .. } = self;
        *completed_before = tables.operations.completed();
        // There is one module for the most part.
        if let Some(first) = modules.first_mut() {
            first.poll(now, tables);
        }
        if modules.len() > 1 {
            self.poll_others(time.last());
        }
        self.polls += 1;
        self.unpolled_waits = 0;
        // What came may have left something to be sent that did not fit into this poll.
        self.unflushed = true;
    }

    #[inline(never)]
    fn poll_others(&mut self, now: Instant) {
        for module in self.modules.iter_mut().skip(1) {
            module.poll(now, &mut self.tables);
        }
    }

    /// Counts the last poll as idle if it completed nothing.
    pub(super) fn note_idle(&mut self) {
        if self.tables.operations.completed() == self.completed_before {
            self.idle_polls += 1;
        }
    }

    /// Says that the program kept the core for too long, if anybody was waiting for it.
    #[cold]
    #[inline(never)]
    fn poll_is_late(&mut self, now: Instant, gap_ns: u64) {
        if !self.modules.iter().any(|module| module.has_pending_work()) {
            return;
        }
        if let Some(warning) = self.lateness.note_late(now, gap_ns) {
            log::warn!(
                "the program kept the core for {} ms while peers were waiting ({} more times not reported)",
                warning.gap.as_millis(),
                warning.not_warned,
            );
        }
    }

    /// True when a wait may answer without a poll: not so often in a row that packets and timers starve, and
    /// not while what was submitted just before waits to be sent.
    #[inline(always)]
    pub(super) fn may_skip_poll(&self) -> bool {
        self.unpolled_waits < MAX_UNPOLLED_WAITS && !(self.unflushed && self.needs_poll())
    }

    /// True when a module has something that only a poll gets out.
    #[inline]
    pub(super) fn needs_poll(&self) -> bool {
        self.modules.iter().any(|module| module.needs_poll())
    }

    /// When a module next needs a poll though nothing arrives.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.modules.iter().filter_map(|module| module.next_deadline()).min()
    }

    /// Appends every module's wake-up descriptors; false when a module has to be polled.
    pub(super) fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        self.modules.iter().all(|module| module.wake_fds(fds))
    }

    /// The module that serves an open queue, and its handle.
    #[inline]
    pub(super) fn serving(
        &mut self,
        queue: QueueDescriptor,
    ) -> Result<(&mut dyn Module, crate::Handle), Error> {
        let open = self.tables.descriptors.get_mut(queue)?;
        let (module, handle) = (open.module, open.handle);
        // A shutdown or an option may let out what a wait would otherwise leave lying, or change what a pop gets.
        open.is_dry = false;
        self.unflushed = true;
        Ok((self.modules[module.get()].as_mut(), handle))
    }

    /// Opens a descriptor for what the first module that can makes.
    pub(super) fn open(
        &mut self,
        mut make: impl FnMut(&mut dyn Module) -> Result<crate::Handle, Error>,
    ) -> Result<QueueDescriptor, Error> {
        self.tables.descriptors.check_room()?;
        for (index, module) in self.modules.iter_mut().enumerate() {
            match make(module.as_mut()) {
                Err(Error::NotSupported) => {}
                Err(error) => return Err(error),
                Ok(handle) => {
                    let module = ModuleIndex::new(index).ok_or(Error::TooManyDescriptors)?;
                    return self.tables.descriptors.open(module, handle);
                }
            }
        }
        Err(Error::NotSupported)
    }

    /// Closes a queue without a token for it.
    pub(super) fn close_quietly(&mut self, now: Instant, queue: QueueDescriptor) -> Result<(), Error> {
        let (module, handle) = self.tables.tear_down(queue)?;
        self.modules[module.get()].close(now, handle);
        self.unflushed = true;
        Ok(())
    }

    /// Tells the module that an outstanding operation is given up, if it has it: pops that wait are with us, and a close
    /// that waits has no queue any more.
    pub(super) fn cancel(&mut self, token: Token) {
        if let Ok((module, handle)) = self.tables.server_of(token) {
            self.modules[module.get()].cancel(handle, token);
        }
    }

    /// Gives an operation up together with its completion. A connection that it accepted is closed.
    pub(super) fn discard(&mut self, now: Instant, token: Token) -> Result<(), Error> {
        if self.tables.operations.find_outstanding(token).is_ok() {
            self.cancel(token);
            return self.tables.forget(token);
        }
        let slot = self.tables.operations.find_claimed(token)?.ok_or(Error::BadToken)?;
        match self.tables.operations.take(slot).outcome {
            Outcome::Accepted { queue, peer: _ } => self.close_quietly(now, queue),
            Outcome::Connected
            | Outcome::Pushed
            | Outcome::Popped { .. }
            | Outcome::Closed
            | Outcome::Failed(_) => Ok(()),
        }
    }

    /// Gives up what was dropped at a moment when it could not be.
    pub(super) fn give_up(&mut self, now: Instant, abandoned: &Abandoned) {
        // Either may be gone already, for instance with its queue; then there is nothing to do.
        let _ = match abandoned {
            Abandoned::Operation(token) => self.discard(now, *token),
            Abandoned::Queue(reference) => {
                self.tables.resolve(*reference).and_then(|queue| self.close_quietly(now, queue))
            }
        };
    }

    pub(super) fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.counter("polls", self.polls);
        sink.counter("idle_polls", self.idle_polls);
        sink.counter("sleeps", self.sleeps);
        sink.counter("late_polls", self.lateness.late_polls);
        sink.gauge("longest_late_poll_ns", self.lateness.longest_ns);
        sink.gauge("descriptors_open", self.tables.descriptors.open_queues() as u64);
        sink.gauge("operations_outstanding", self.tables.operations.outstanding() as u64);
        sink.gauge("operations_held", self.tables.operations.used() as u64);
        let counts = self.tables.totals();
        let groups =
            [("submitted", counts.submitted), ("completed", counts.completed), ("failed", counts.failed)];
        for (name, values) in groups {
            sink.enter(name);
            for (kind, value) in OperationKind::NAMES.into_iter().zip(values) {
                sink.counter(kind, value);
            }
            sink.leave();
        }
    }
}
