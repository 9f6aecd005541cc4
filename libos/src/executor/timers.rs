//! Timers of futures: a heap in which every entry knows its place, so that arming and disarming are
//! O(log timers), and nothing is allocated once the heap has grown.

use std::cell::{Cell, RefCell};

use super::WakeTarget;
use crate::Instant;

const NOT_ARMED: u32 = u32::MAX;

/// An armed timer; once it has run out, it stands for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimerId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Place in the heap.
    place: u32,
    deadline: Instant,
    /// Among equal deadlines the timer armed first runs out first.
    sequence: u64,
    wake: WakeTarget,
}

#[derive(Debug, Default)]
struct Heap {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots, the earliest at the root.
    order: Vec<u32>,
    armed: u64,
}

impl Heap {
    fn next(&self) -> Option<Instant> {
        self.order.first().map(|index| self.slots[*index as usize].deadline)
    }

    fn key(&self, place: usize) -> (Instant, u64) {
        let slot = &self.slots[self.order[place] as usize];
        (slot.deadline, slot.sequence)
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.order.swap(one, other);
        for place in [one, other] {
            let index = self.order[place];
            self.slots[index as usize].place = place as u32;
        }
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.key(parent) <= self.key(place) {
                break;
            }
            self.swap(parent, place);
            place = parent;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = [2 * place + 1, 2 * place + 2];
            let earliest = children.into_iter().filter(|child| *child < self.order.len());
            let Some(child) = earliest.min_by_key(|child| self.key(*child)) else { return };
            if self.key(place) <= self.key(child) {
                return;
            }
            self.swap(place, child);
            place = child;
        }
    }

    fn arm(&mut self, deadline: Instant, wake: WakeTarget) -> TimerId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                place: NOT_ARMED,
                deadline,
                sequence: 0,
                wake: WakeTarget::Nobody,
            });
            self.slots.len() as u32 - 1
        });
        self.armed += 1;
        let place = self.order.len();
        let slot = &mut self.slots[index as usize];
        slot.place = place as u32;
        slot.deadline = deadline;
        slot.sequence = self.armed;
        slot.wake = wake;
        let generation = slot.generation;
        self.order.push(index);
        self.rise(place);
        TimerId { index, generation }
    }

    fn armed(&mut self, timer: TimerId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(timer.index as usize)?;
        (slot.generation == timer.generation && slot.place != NOT_ARMED).then_some(slot)
    }

    fn remove(&mut self, index: u32) -> WakeTarget {
        let slot = &mut self.slots[index as usize];
        let place = slot.place as usize;
        slot.place = NOT_ARMED;
        slot.generation = slot.generation.wrapping_add(1);
        let wake = std::mem::take(&mut slot.wake);
        self.free.push(index);
        self.order.swap_remove(place);
        if let Some(moved) = self.order.get(place) {
            self.slots[*moved as usize].place = place as u32;
            self.rise(place);
            self.sink(place);
        }
        wake
    }
}

/// The timers of one executor. Wake targets leave through return values, so that no foreign
/// code runs while the heap is borrowed.
#[derive(Debug)]
pub(super) struct Timers {
    heap: RefCell<Heap>,
    /// The earliest deadline, for the look that every poll takes; the clock's start with [`Self::be_due`].
    due: Cell<Instant>,
    is_due_anyway: Cell<bool>,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            heap: RefCell::default(),
            due: Cell::new(Instant::FAR_FUTURE),
            is_due_anyway: Cell::new(false),
        }
    }
}

impl Timers {
    /// The heap, about to be changed; its earliest deadline is kept afterwards.
    fn change<R>(&self, change: impl FnOnce(&mut Heap) -> R) -> R {
        let mut heap = self.heap.borrow_mut();
        let result = change(&mut heap);
        self.note_due(&heap);
        result
    }

    fn note_due(&self, heap: &Heap) {
        let due = if self.is_due_anyway.get() { Some(Instant::ZERO) } else { heap.next() };
        self.due.set(due.unwrap_or(Instant::FAR_FUTURE));
    }

    pub(super) fn arm(&self, deadline: Instant, wake: WakeTarget) -> TimerId {
        self.change(|heap| heap.arm(deadline, wake))
    }

    /// Replaces whom to wake. Gives the new target back when the timer has run out.
    pub(super) fn set_wake(&self, timer: TimerId, wake: WakeTarget) -> Result<WakeTarget, WakeTarget> {
        match self.heap.borrow_mut().armed(timer) {
            Some(slot) => Ok(std::mem::replace(&mut slot.wake, wake)),
            None => Err(wake),
        }
    }

    /// Disarms a timer that may have run out.
    pub(super) fn disarm(&self, timer: TimerId) -> WakeTarget {
        self.change(|heap| match heap.armed(timer) {
            Some(_) => heap.remove(timer.index),
            None => WakeTarget::Nobody,
        })
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.borrow().next()
    }

    /// True when a deadline is over, or between [`Self::be_due`] with true and with false.
    #[inline(always)]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.get() <= now
    }

    pub(super) fn be_due(&self, anyway: bool) {
        self.is_due_anyway.set(anyway);
        self.note_due(&self.heap.borrow());
    }

    /// Ends the timers whose deadline is not after `now`, in the order of their deadlines.
    #[inline]
    pub(super) fn expire(&self, now: Instant, mut wake: impl FnMut(WakeTarget)) {
        while let Some(target) = self.change(|heap| match heap.next() {
            Some(next) if next <= now => heap.order.first().copied().map(|index| heap.remove(index)),
            _ => None,
        }) {
            wake(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(timers: &Timers, now: u64) -> usize {
        let mut count = 0;
        timers.expire(Instant::from_nanos(now), |_| count += 1);
        count
    }

    #[test]
    fn timers_run_out_in_order_whatever_the_order_of_arming_and_disarming() {
        let timers = Timers::default();
        // A permutation of 0..97, because 13 generates the multiplicative group.
        let deadlines: Vec<u64> = (0..97).map(|step| step * 13 % 97).collect();
        let armed: Vec<(u64, TimerId)> = deadlines
            .iter()
            .map(|nanos| (*nanos, timers.arm(Instant::from_nanos(*nanos), WakeTarget::Nobody)))
            .collect();
        for (_, timer) in armed.iter().filter(|(nanos, _)| nanos % 3 == 0) {
            timers.disarm(*timer);
        }
        for now in 0..97 {
            let expected = if now % 3 == 0 { 0 } else { 1 };
            assert_eq!(expired(&timers, now), expected, "at {now}");
            let next = (now + 1..97).find(|nanos| nanos % 3 != 0).map(Instant::from_nanos);
            assert_eq!(timers.next(), next);
        }
    }

    #[test]
    fn a_timer_that_ran_out_is_not_confused_with_its_successor() {
        let timers = Timers::default();
        let first = timers.arm(Instant::from_nanos(1), WakeTarget::Nobody);
        assert_eq!(expired(&timers, 1), 1);
        let second = timers.arm(Instant::from_nanos(2), WakeTarget::Nobody);
        assert!(timers.set_wake(first, WakeTarget::Nobody).is_err());
        timers.disarm(first);
        assert_eq!(timers.next(), Some(Instant::from_nanos(2)));
        timers.disarm(second);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn what_is_due_anyway_stays_so_while_timers_come_and_go() {
        let timers = Timers::default();
        assert!(!timers.is_due(Instant::from_nanos(1)));
        timers.be_due(true);
        let timer = timers.arm(Instant::from_nanos(7), WakeTarget::Nobody);
        assert!(timers.is_due(Instant::from_nanos(1)));
        timers.be_due(false);
        let due = [6, 7].map(|nanos| timers.is_due(Instant::from_nanos(nanos)));
        assert_eq!(due, [false, true]);
        timers.disarm(timer);
        assert!(!timers.is_due(Instant::from_nanos(7)));
    }
}
