//! What is going to happen, in the order in which it will.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use libos::Instant;

struct Entry<T> {
    time: Instant,
    sequence: u64,
    event: T,
}

impl<T> Ord for Entry<T> {
    /// Reversed, because the heap's top is its greatest entry and the earliest is wanted there.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.sequence).cmp(&(self.time, self.sequence))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

/// Events ordered by time, and those of one time by when they were scheduled.
pub(crate) struct EventQueue<T> {
    heap: BinaryHeap<Entry<T>>,
    next_sequence: u64,
}

impl<T> EventQueue<T> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), next_sequence: 0 }
    }

    pub(crate) fn schedule(&mut self, time: Instant, event: T) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.heap.push(Entry { time, sequence, event });
    }

    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.time)
    }

    /// The first event, if its time has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, T)> {
        if self.next_time()? > now {
            return None;
        }
        self.heap.pop().map(|entry| (entry.time, entry.event))
    }

    /// All events, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.heap.iter().map(|entry| &entry.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_and_then_of_scheduling() {
        let mut queue = EventQueue::new();
        for (millis, name) in [(2, "c"), (1, "a"), (2, "d"), (1, "b"), (3, "e")] {
            queue.schedule(Instant::from_millis(millis), name);
        }
        let mut order = String::new();
        while let Some((_, name)) = queue.take_due(Instant::from_millis(2)) {
            order.push_str(name);
        }
        assert_eq!(order, "abcd");
        assert_eq!(queue.next_time(), Some(Instant::from_millis(3)));
        assert_eq!(queue.iter().collect::<Vec<_>>(), [&"e"]);
    }
}
