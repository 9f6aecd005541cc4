//! The task table: a slab of futures and the queue of those that can go on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Waker;

/// A task: its place in the table, and a generation so that waking a finished task hits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    index: u32,
    generation: u32,
}

/// A future whose result goes elsewhere.
pub(crate) type BoxedTask = Pin<Box<dyn Future<Output = ()>>>;

struct Slot {
    generation: u32,
    live: bool,
    /// In the run queue.
    scheduled: bool,
    /// Its turn came while somebody had the future out; looked at when that somebody is done.
    missed: bool,
    future: Option<BoxedTask>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    runnable: VecDeque<TaskId>,
    live: usize,
}

impl Table {
    fn slot(&mut self, task: TaskId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(task.index as usize)?;
        (slot.live && slot.generation == task.generation).then_some(slot)
    }
}

/// The task table, shared by the executor, the wakers of its own thread and the operation table.
/// No future is polled or dropped and no foreign waker is called while it is borrowed.
#[derive(Clone, Default)]
pub(crate) struct SharedTasks(Rc<RefCell<Table>>);

impl fmt::Debug for SharedTasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedTasks").field("live", &self.live()).finish_non_exhaustive()
    }
}

/// A task whose turn it is.
pub(crate) struct Turn {
    pub(crate) task: TaskId,
    pub(crate) future: BoxedTask,
    pub(crate) waker: Waker,
}

impl SharedTasks {
    /// Takes a slot. Without a future it stands for one that its owner polls itself.
    pub(crate) fn add(&self, future: Option<BoxedTask>, waker: impl FnOnce(TaskId) -> Waker) -> TaskId {
        let mut table = self.0.borrow_mut();
        let index = table.free.pop().unwrap_or_else(|| {
            table.slots.push(Slot {
                generation: 0,
                live: false,
                scheduled: false,
                missed: false,
                future: None,
                waker: None,
            });
            table.slots.len() as u32 - 1
        });
        let slot = &mut table.slots[index as usize];
        let task = TaskId { index, generation: slot.generation };
        slot.live = true;
        slot.future = future;
        slot.waker = Some(waker(task));
        table.live += 1;
        task
    }

    /// Puts the task into the run queue, unless it is there already or has ended.
    #[inline]
    pub(crate) fn schedule(&self, task: TaskId) {
        let mut table = self.0.borrow_mut();
        if let Some(slot) = table.slot(task)
            && !slot.scheduled
        {
            slot.scheduled = true;
            table.runnable.push_back(task);
        }
    }

    /// Number of tasks in the run queue.
    pub(crate) fn runnable(&self) -> usize {
        self.0.borrow().runnable.len()
    }

    /// Number of tasks that did not end yet.
    pub(crate) fn live(&self) -> usize {
        self.0.borrow().live
    }

    /// Takes the next task that can go on off the run queue, with its future.
    pub(crate) fn next_turn(&self) -> Option<Turn> {
        let mut table = self.0.borrow_mut();
        while let Some(task) = table.runnable.pop_front() {
            let Some(slot) = table.slot(task) else { continue };
            slot.scheduled = false;
            match (slot.future.take(), slot.waker.take()) {
                (Some(future), Some(waker)) => return Some(Turn { task, future, waker }),
                (future, waker) => {
                    (slot.future, slot.waker) = (future, waker);
                    slot.missed = true;
                }
            }
        }
        None
    }

    /// Puts a future back that is not done yet. Gives it back when the task was aborted meanwhile.
    pub(crate) fn put_back(&self, turn: Turn) -> Option<Turn> {
        let mut table = self.0.borrow_mut();
        let Some(slot) = table.slot(turn.task) else { return Some(turn) };
        let Turn { task, future, waker } = turn;
        slot.future = Some(future);
        slot.waker = Some(waker);
        if std::mem::take(&mut slot.missed) && !slot.scheduled {
            slot.scheduled = true;
            table.runnable.push_back(task);
        }
        None
    }

    /// True when the turn of a task that its owner polls itself has come; asking clears it.
    pub(crate) fn take_missed(&self, task: TaskId) -> bool {
        let mut table = self.0.borrow_mut();
        table.slot(task).is_some_and(|slot| std::mem::take(&mut slot.missed))
    }

    /// Ends the task. The future, if it is here, is the caller's to drop.
    pub(crate) fn remove(&self, task: TaskId) -> Option<BoxedTask> {
        let mut table = self.0.borrow_mut();
        let slot = table.slot(task)?;
        let future = slot.future.take();
        slot.waker = None;
        slot.live = false;
        slot.scheduled = false;
        slot.missed = false;
        slot.generation = slot.generation.wrapping_add(1);
        table.live -= 1;
        table.free.push(task.index);
        future
    }

    /// Ends all tasks but those whose future is out, because it is running.
    pub(crate) fn abort_all(&self) {
        let mut index = 0;
        loop {
            let task = {
                let table = self.0.borrow();
                let Some(slot) = table.slots.get(index) else { return };
                let here = slot.live && slot.future.is_some();
                here.then_some(TaskId { index: index as u32, generation: slot.generation })
            };
            // Dropped with nothing borrowed: destructors may do what they like.
            drop(task.and_then(|task| self.remove(task)));
            index += 1;
        }
    }
}
