//! A bounded ring from one thread to another: one writes, one reads, nobody waits.
//!
//! Neither side uses a lock or an atomic read-modify-write: each has a counter of its own that the other only reads,
//! and keeps a copy of the other's, which it refreshes when the ring looks full or empty.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A value with its cache lines for itself: two, as processors fetch them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Alone<T>(T);

#[derive(Debug)]
struct Shared<T> {
    /// A power of two of them.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    /// Elements written so far; only the producer writes it.
    written: Alone<AtomicUsize>,
    /// Elements read so far; only the consumer writes it.
    read: Alone<AtomicUsize>,
    producer_gone: AtomicBool,
    consumer_gone: AtomicBool,
}

// SAFETY: a slot is touched by the producer alone while it is outside `read..written`, and by the consumer alone
// while it is inside; the counters are published with release and read with acquire.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: the elements are `Send`, and the rest is plain memory.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, count: usize) -> *mut MaybeUninit<T> {
        self.slots[count & (self.slots.len() - 1)].get()
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (mut at, end) = (*self.read.0.get_mut(), *self.written.0.get_mut());
        while at != end {
            // SAFETY: both halves are gone, and what lies in `read..written` was written and never taken out.
            unsafe { (*self.slot(at)).assume_init_drop() };
            at = at.wrapping_add(1);
        }
    }
}

/// The writing half of a ring.
#[derive(Debug)]
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    capacity: usize,
    written: usize,
    /// What was last seen of the consumer's counter.
    read: usize,
}

/// The reading half of a ring.
#[derive(Debug)]
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    read: usize,
    /// What was last seen of the producer's counter.
    written: usize,
}

/// A ring of at most `capacity` elements, and of one at least.
#[must_use]
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let capacity = capacity.max(1);
    let slots = capacity.next_power_of_two();
    let shared = Arc::new(Shared {
        slots: (0..slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        written: Alone::default(),
        read: Alone::default(),
        producer_gone: AtomicBool::new(false),
        consumer_gone: AtomicBool::new(false),
    });
    let producer = Producer { shared: Arc::clone(&shared), capacity, written: 0, read: 0 };
    (producer, Consumer { shared, read: 0, written: 0 })
}

impl<T> Producer<T> {
    /// Appends an element; gives it back when the ring is full.
    ///
    /// # Errors
    /// The element.
    #[inline]
    pub fn push(&mut self, element: T) -> Result<(), T> {
        if self.written.wrapping_sub(self.read) >= self.capacity {
            // Acquire: the consumer is done with the slots that it has counted.
            self.read = self.shared.read.0.load(Ordering::Acquire);
            if self.written.wrapping_sub(self.read) >= self.capacity {
                return Err(element);
            }
        }
        // SAFETY: the slot is outside `read..written`, so it is this half's alone.
        unsafe { (*self.shared.slot(self.written)).write(element) };
        self.written = self.written.wrapping_add(1);
        // Release: whoever sees the count sees the element.
        self.shared.written.0.store(self.written, Ordering::Release);
        Ok(())
    }

    /// True when an element would be given back.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.written.wrapping_sub(self.shared.read.0.load(Ordering::Acquire)) >= self.capacity
    }

    /// True when nobody will ever read what is written.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.shared.consumer_gone.load(Ordering::Acquire)
    }

    /// Says that nothing more will be written, as dropping the half does.
    pub fn close(&mut self) {
        self.shared.producer_gone.store(true, Ordering::Release);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest element.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.read == self.written {
            // Acquire: the elements that the producer has counted are there.
            self.written = self.shared.written.0.load(Ordering::Acquire);
            if self.read == self.written {
                return None;
            }
        }
        // SAFETY: the slot is inside `read..written`, so it is this half's alone, and was written.
        let element = unsafe { (*self.shared.slot(self.read)).assume_init_read() };
        self.read = self.read.wrapping_add(1);
        // Release: the element is out of its slot before the producer may use it again.
        self.shared.read.0.store(self.read, Ordering::Release);
        Some(element)
    }

    /// True when there is nothing to be taken. May miss what is written at this moment.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.read == self.written && self.read == self.shared.written.0.load(Ordering::Acquire)
    }

    /// True when nothing will ever be written again. What was written before may still be there: to be asked
    /// before [`Self::is_empty`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.producer_gone.load(Ordering::Acquire)
    }

    /// Says that nothing more will be read, as dropping the half does.
    pub fn close(&mut self) {
        self.shared.consumer_gone.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.close();
        // What is written after this goes with the producer.
        while let Some(element) = self.pop() {
            drop(element);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_ring_holds_its_capacity_and_keeps_the_order() {
        for capacity in [1, 3, 4] {
            let (mut producer, mut consumer) = ring(capacity);
            for round in 0..10 {
                for element in 0..capacity {
                    producer.push((round, element)).unwrap();
                }
                assert_eq!(producer.push((round, capacity)), Err((round, capacity)));
                assert!(producer.is_full() && !consumer.is_empty());
                for element in 0..capacity {
                    assert_eq!(consumer.pop(), Some((round, element)));
                }
                assert_eq!(consumer.pop(), None);
                assert!(!producer.is_full() && consumer.is_empty());
            }
        }
    }

    #[test]
    fn each_half_learns_that_the_other_is_gone() {
        let (mut producer, mut consumer) = ring(2);
        producer.push(1).unwrap();
        assert!(!consumer.is_closed());
        drop(producer);
        assert!(consumer.is_closed());
        assert_eq!((consumer.pop(), consumer.pop()), (Some(1), None));
        let (producer, consumer) = ring::<u8>(2);
        assert!(!producer.is_abandoned());
        drop(consumer);
        assert!(producer.is_abandoned());
    }

    #[test]
    fn what_nobody_took_is_dropped_with_the_ring() {
        let element = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        (0..4).for_each(|_| producer.push(Arc::clone(&element)).unwrap());
        drop(consumer.pop());
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&element), 1);
    }

    #[test]
    fn everything_crosses_between_threads_once_and_in_order() {
        const ELEMENTS: usize = 20_000;
        let (mut producer, mut consumer) = ring(7);
        let writer = thread::spawn(move || {
            for element in 0..ELEMENTS {
                let mut element = Box::new(element);
                while let Err(back) = producer.push(element) {
                    element = back;
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < ELEMENTS {
            match consumer.pop() {
                Some(element) => {
                    assert_eq!(*element, next);
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
        writer.join().unwrap();
        assert!(consumer.is_closed() && consumer.is_empty());
    }
}
