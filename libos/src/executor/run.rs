//! Driving tasks.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use super::join::joinable;
use super::remote::Driving;
use super::tasks::{TaskId, Turn};
use super::{Current, Executor, JoinHandle, OPERATIONS_PER_TURN};
use crate::library_os::Idling;
use crate::{Error, LibOs};

impl LibOs {
    /// Adds a task, which runs inside [`Self::block_on`] and [`Self::turn`]. Its first turn is the
    /// next.
    ///
    /// A task that panics takes the caller of `block_on` or `turn` with it; should that one catch the panic, the
    /// task is gone, and its handle says [`Error::Cancelled`].
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let executor = self.executor();
        joinable(future, executor.tasks.clone(), |future| {
            let task = executor.tasks.add(Some(future), |task| executor.remote.waker(task));
            executor.tasks.schedule(task);
            task
        })
    }

    /// Runs `future` and the spawned tasks until `future` is done. Between turns the library OS is polled;
    /// when nothing can go on, the idle policy decides how to wait.
    ///
    /// May be called from a task: the other tasks go on meanwhile.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a module's callback. [`Error::TimedOut`] when the clock does not run by
    /// itself and nothing can ever make `future` go on, see
    /// [`LibOsBuilder::on_idle`](crate::LibOsBuilder::on_idle).
    pub fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        let executor = self.executor();
        let _driving = Driving::new(&executor.remote, &executor.tasks);
        let main = Main::new(executor);
        let mut future = pin!(future);
        let mut idling = Idling::with_tasks();
        let mut woken = true;
        loop {
            if woken && let Poll::Ready(output) = executor.poll_task(main.task, &main.waker, future.as_mut())
            {
                return Ok(output);
            }
            let now = self.poll_at()?;
            executor.run_ready();
            woken = executor.tasks.take_missed(main.task);
            if !woken && !executor.has_runnable() {
                self.idle(&mut idling, now, self.completed()?, None)?;
            }
        }
    }

    /// One poll, and then one turn for each task that can go on; returns how many there were. For programs
    /// with a loop of their own.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn turn(&self) -> Result<usize, Error> {
        let executor = self.executor();
        let _driving = Driving::new(&executor.remote, &executor.tasks);
        self.poll()?;
        Ok(executor.run_ready())
    }

    /// Drops all tasks except the one that calls.
    pub fn abort_tasks(&self) {
        self.executor().tasks.abort_all();
    }
}

impl Executor {
    /// Gives each task that can go on now one turn. Those that become runnable meanwhile come after
    /// the next poll, so that tasks cannot keep packets waiting.
    fn run_ready(&self) -> usize {
        self.remote.deliver(&self.tasks);
        let mut turns = 0;
        for _ in 0..self.tasks.runnable() {
            let Some(turn) = self.tasks.next_turn() else { break };
            turns += 1;
            self.run(turn);
        }
        turns
    }

    fn run(&self, turn: Turn) {
        let mut running = Running { executor: self, task: turn.task, turn: Some(turn) };
        let Some(turn) = running.turn.as_mut() else { return };
        let poll = self.poll_task(turn.task, &turn.waker, turn.future.as_mut());
        if poll.is_pending()
            && let Some(turn) = running.turn.take()
        {
            // Comes back when the task was aborted while it ran; dropped then.
            drop(self.tasks.put_back(turn));
        }
    }

    fn poll_task<F>(&self, task: TaskId, waker: &Waker, future: Pin<&mut F>) -> Poll<F::Output>
    where
        F: Future + ?Sized,
    {
        let current = Current { task, data: waker.data(), vtable: waker.vtable() };
        let _outer = Outer { executor: self, current: self.current.replace(Some(current)) };
        self.budget.set(OPERATIONS_PER_TURN);
        future.poll(&mut Context::from_waker(waker))
    }
}

/// A task that has its turn. If it is dropped with the turn, the task is done or has panicked, and ends.
struct Running<'a> {
    executor: &'a Executor,
    task: TaskId,
    turn: Option<Turn>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            drop(self.executor.tasks.remove(self.task));
            drop(turn);
        }
    }
}

/// Puts the task back that was being polled before.
struct Outer<'a> {
    executor: &'a Executor,
    current: Option<Current>,
}

impl Drop for Outer<'_> {
    fn drop(&mut self) {
        self.executor.current.set(self.current);
    }
}

/// The place of a future that `block_on` polls itself.
struct Main<'a> {
    executor: &'a Executor,
    task: TaskId,
    waker: Waker,
}

impl<'a> Main<'a> {
    fn new(executor: &'a Executor) -> Self {
        let mut made = None;
        let task = executor.tasks.add(None, |task| {
            let waker = executor.remote.waker(task);
            made = Some(waker.clone());
            waker
        });
        let waker = made.unwrap_or_else(|| Waker::noop().clone());
        Self { executor, task, waker }
    }
}

impl Drop for Main<'_> {
    fn drop(&mut self) {
        drop(self.executor.tasks.remove(self.task));
    }
}
