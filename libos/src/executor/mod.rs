//! The executor: spawned futures, timers and wake-ups of one library OS, on the thread that drives it.
//!
//! A task that waits for an operation or a timer is known there by its number, so that a completion
//! makes it runnable without a reference count, a lock or an atomic. Wakers are for everything else: on
//! the thread that drives the executor they go straight to the run queue, from other threads through
//! an inbox that wakes the executor when it sleeps.

mod join;
mod operation;
mod remote;
mod run;
mod tasks;
mod time;
mod timers;

use std::cell::Cell;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, RawWakerVTable, Waker};

pub use join::JoinHandle;
pub use operation::OperationFuture;
pub(crate) use operation::unfit;
pub(crate) use tasks::{SharedTasks, TaskId};
pub use time::Sleep;

use crate::{Instant, SetupError};
use remote::Remote;
use timers::Timers;

/// Operations that a task may take in one turn before the others get theirs. Without it, a task
/// whose operations are always complete would never let go.
const OPERATIONS_PER_TURN: u32 = 128;

/// Who is told that an operation or a timer is done.
#[derive(Debug, Default)]
pub(crate) enum WakeTarget {
    /// Nobody.
    #[default]
    Nobody,
    /// A task of this library OS's own executor: no reference count, no lock.
    Task(TaskId),
    /// Whatever a waker that is not ours stands for.
    Foreign(Waker),
}

/// The task that is being polled, and how to recognise its waker.
#[derive(Debug, Clone, Copy)]
struct Current {
    task: TaskId,
    data: *const (),
    vtable: &'static RawWakerVTable,
}

/// The executor's state. Nothing of it is borrowed while futures or wakers run.
#[derive(Debug)]
pub(crate) struct Executor {
    tasks: SharedTasks,
    timers: Timers,
    remote: Arc<Remote>,
    current: Cell<Option<Current>>,
    /// What is left of [`OPERATIONS_PER_TURN`].
    budget: Cell<u32>,
}

impl Executor {
    pub(crate) fn new() -> Result<Self, SetupError> {
        Ok(Self {
            tasks: SharedTasks::default(),
            timers: Timers::default(),
            remote: Remote::new()?,
            current: Cell::new(None),
            budget: Cell::new(OPERATIONS_PER_TURN),
        })
    }

    pub(crate) fn tasks(&self) -> SharedTasks {
        self.tasks.clone()
    }

    pub(crate) fn live_tasks(&self) -> usize {
        self.tasks.live()
    }

    /// True when a task can go on.
    pub(crate) fn has_runnable(&self) -> bool {
        self.tasks.runnable() > 0 || self.remote.has_mail()
    }

    /// When the next timer runs out.
    #[inline]
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// True when timers have run out, and between [`Self::be_due`] with true and with false.
    #[inline(always)]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.timers.is_due(now)
    }

    /// Makes polls look as if timers had run out, because of something else that is to be done.
    pub(crate) fn be_due(&self, anyway: bool) {
        self.timers.be_due(anyway);
    }

    /// Hands out whom to wake for the timers that have run out.
    #[inline]
    pub(crate) fn expire_timers(&self, now: Instant, wake: impl FnMut(WakeTarget)) {
        self.timers.expire(now, wake);
    }

    /// The descriptor that becomes readable when another thread wakes a task, `None` when one has done so
    /// already. Ended by [`Self::end_sleep`].
    pub(crate) fn prepare_sleep(&self) -> Option<RawFd> {
        self.remote.prepare_sleep()
    }

    pub(crate) fn end_sleep(&self) {
        self.remote.end_sleep();
    }

    /// Whom to wake for whoever polls with this context.
    #[inline]
    fn target(&self, context: &Context<'_>) -> WakeTarget {
        let waker = context.waker();
        match self.current.get() {
            Some(current)
                if ptr::eq(current.data, waker.data()) && ptr::eq(current.vtable, waker.vtable()) =>
            {
                WakeTarget::Task(current.task)
            }
            _ => WakeTarget::Foreign(waker.clone()),
        }
    }

    /// True when the running task may take one more operation in this turn.
    #[inline]
    pub(crate) fn spend(&self) -> bool {
        if self.current.get().is_none() {
            // Somebody else's executor: fairness is its business.
            return true;
        }
        let left = self.budget.get();
        self.budget.set(left.saturating_sub(1));
        left > 0
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

#[cfg(test)]
mod tests;
