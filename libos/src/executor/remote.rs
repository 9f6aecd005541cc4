//! Wakers, and how a wake-up gets from another thread to the executor.

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

use super::tasks::{SharedTasks, TaskId};
use crate::SetupError;
use crate::sys::EventFd;

/// What an executor shares with its wakers on other threads.
#[derive(Debug)]
pub(super) struct Remote {
    /// Wakers that were called and not looked at yet; each at most once.
    inbox: Mutex<Vec<Arc<TaskWaker>>>,
    /// The inbox is not empty: asked without a lock in every turn.
    mail: AtomicBool,
    /// The executor sleeps, or is about to.
    sleeping: AtomicBool,
    event: EventFd,
}

impl Remote {
    pub(super) fn new() -> Result<Arc<Self>, SetupError> {
        let event = EventFd::new().map_err(|error| SetupError::Device {
            device: "executor".to_owned(),
            call: "eventfd",
            reason: error.to_string(),
        })?;
        Ok(Arc::new(Self {
            inbox: Mutex::default(),
            mail: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            event,
        }))
    }

    /// A waker for the task.
    pub(super) fn waker(self: &Arc<Self>, task: TaskId) -> Waker {
        Waker::from(Arc::new(TaskWaker { remote: Arc::clone(self), task, posted: AtomicBool::new(false) }))
    }

    fn inbox(&self) -> MutexGuard<'_, Vec<Arc<TaskWaker>>> {
        // Nothing panics while it is locked, and a list is in order in any case.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_mail(&self) -> bool {
        self.mail.load(Ordering::Acquire)
    }

    /// Moves the tasks in the inbox to the run queue.
    pub(super) fn deliver(&self, tasks: &SharedTasks) {
        if !self.has_mail() {
            return;
        }
        let wakers = {
            let mut inbox = self.inbox();
            self.mail.store(false, Ordering::Release);
            std::mem::take(&mut *inbox)
        };
        for waker in wakers {
            // A read-modify-write, so that what a thread did before a call that found the flag
            // still set is seen by the task too.
            waker.posted.swap(false, Ordering::AcqRel);
            tasks.schedule(waker.task);
        }
    }

    fn post(&self, waker: &Arc<TaskWaker>) {
        if waker.posted.swap(true, Ordering::AcqRel) {
            return;
        }
        {
            let mut inbox = self.inbox();
            inbox.push(Arc::clone(waker));
            self.mail.store(true, Ordering::Release);
        }
        // The inbox's lock orders this after the executor's `prepare_sleep`, or that one sees the mail.
        if self.sleeping.swap(false, Ordering::AcqRel) {
            self.event.signal();
        }
    }

    /// Announces that the executor will sleep on the returned descriptor; `None` when there is mail.
    pub(super) fn prepare_sleep(&self) -> Option<RawFd> {
        self.sleeping.store(true, Ordering::Release);
        if self.inbox().is_empty() {
            return Some(self.event.raw());
        }
        self.sleeping.store(false, Ordering::Release);
        None
    }

    pub(super) fn end_sleep(&self) {
        // Whoever reset the flag has written to the event, or is about to; a late signal only
        // makes the next sleep short.
        if !self.sleeping.swap(false, Ordering::AcqRel) {
            self.event.clear();
        }
    }
}

#[derive(Debug)]
pub(super) struct TaskWaker {
    remote: Arc<Remote>,
    task: TaskId,
    /// It is in the inbox: however often it is called, the inbox does not grow.
    posted: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !schedule_here(&self.remote, self.task) {
            self.remote.post(self);
        }
    }
}

thread_local! {
    /// The executors that this thread is driving, the innermost last.
    static DRIVEN: RefCell<Vec<(Arc<Remote>, SharedTasks)>> = const { RefCell::new(Vec::new()) };
}

/// Schedules the task directly, if this thread is driving its executor.
fn schedule_here(remote: &Arc<Remote>, task: TaskId) -> bool {
    let scheduled = DRIVEN.try_with(|driven| {
        let driven = driven.borrow();
        let found = driven.iter().rev().find(|(driven, _)| Arc::ptr_eq(driven, remote));
        found.map(|(_, tasks)| tasks.schedule(task))
    });
    matches!(scheduled, Ok(Some(())))
}

/// Until it is dropped, this thread drives the executor.
#[derive(Debug)]
pub(super) struct Driving;

impl Driving {
    pub(super) fn new(remote: &Arc<Remote>, tasks: &SharedTasks) -> Self {
        DRIVEN.with_borrow_mut(|driven| driven.push((Arc::clone(remote), tasks.clone())));
        Self
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        let ended = DRIVEN.with_borrow_mut(Vec::pop);
        drop(ended);
    }
}
