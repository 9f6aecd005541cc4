//! The result of a spawned task, for whoever waits for it.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::tasks::{SharedTasks, TaskId};
use crate::Error;

#[derive(Debug)]
enum Progress<T> {
    Running(Option<Waker>),
    Done(Result<T, Error>),
    Taken,
}

#[derive(Debug)]
struct Shared<T>(RefCell<Progress<T>>);

impl<T> Shared<T> {
    fn finish(&self, result: Result<T, Error>) {
        let running = matches!(&*self.0.borrow(), Progress::Running(_));
        if running && let Progress::Running(Some(waker)) = self.0.replace(Progress::Done(result)) {
            waker.wake();
        }
    }
}

/// Awaits a spawned task: its result, or [`Error::Cancelled`] when it was aborted or panicked.
/// Dropping the handle leaves the task running.
#[derive(Debug)]
pub struct JoinHandle<T> {
    shared: Rc<Shared<T>>,
    tasks: SharedTasks,
    task: TaskId,
}

impl<T> JoinHandle<T> {
    /// Ends the task: its future is dropped, unless it is running at this moment; then it is
    /// dropped when it next waits.
    pub fn abort(&self) {
        drop(self.tasks.remove(self.task));
    }

    /// True when the task has ended, in whichever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        !matches!(&*self.shared.0.borrow(), Progress::Running(_))
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The clone is made and the old waker dropped while nothing is borrowed.
        let waker = context.waker().clone();
        let before = self.shared.0.replace(Progress::Taken);
        match before {
            Progress::Running(previous) => {
                self.shared.0.replace(Progress::Running(Some(waker)));
                drop(previous);
                Poll::Pending
            }
            Progress::Done(result) => Poll::Ready(result),
            Progress::Taken => Poll::Pending,
        }
    }
}

/// The task's end of a [`JoinHandle`]: says that the task is gone if it goes without a result.
struct Finisher<T>(Rc<Shared<T>>);

impl<T> Drop for Finisher<T> {
    fn drop(&mut self) {
        self.0.finish(Err(Error::Cancelled));
    }
}

/// Splits a future into a task without a result and the future of its result.
pub(super) fn joinable<F>(
    future: F,
    tasks: SharedTasks,
    add: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>) -> TaskId,
) -> JoinHandle<F::Output>
where
    F: Future + 'static,
{
    let shared = Rc::new(Shared(RefCell::new(Progress::Running(None))));
    let finisher = Finisher(Rc::clone(&shared));
    let task = add(Box::pin(async move {
        let finisher = finisher;
        let result = future.await;
        finisher.0.finish(Ok(result));
    }));
    JoinHandle { shared, tasks, task }
}
