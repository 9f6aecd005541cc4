//! Message queues between library OSes: what one core pushes, another one pops.
//!
//! [`channel`] makes the two ends on any thread; each goes to the thread that uses it, where [`LibOs::attach`](crate::LibOs::attach) makes a
//! queue descriptor of it. Then it is used as any other queue, with tokens or futures. Many cores that send to one have
//! an end each ([`channel_from`]): every one has a lane of its own, so that no two ever write to the same memory.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use libos::{LibOs, Outcome, channel::channel};
//!
//! let (sender, receiver) = channel(64);
//! let worker = std::thread::spawn(move || {
//!     let libos = LibOs::builder().build()?;
//!     let inbox = libos.attach(receiver)?;
//!     let completion = libos.wait(libos.pop(inbox)?, None)?;
//!     Ok::<_, Box<dyn std::error::Error + Send + Sync>>(match completion.outcome {
//!         Outcome::Popped { data, .. } => data.to_vec(),
//!         other => panic!("{other:?}"),
//!     })
//! });
//! let libos = LibOs::builder().build()?;
//! let outbox = libos.attach(sender)?;
//! let message = libos.arena().copy_from(b"hello").ok_or("no memory")?.freeze();
//! libos.wait(libos.push(outbox, message)?, None)?;
//! assert_eq!(worker.join().map_err(|_| "panicked")?.map_err(|error| error.to_string())?, b"hello");
//! # Ok(())
//! # }
//! ```

mod message;
mod queues;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) use message::Message;
pub(crate) use queues::ChannelQueues;

use crate::doorbell::Doorbell;
use crate::ring::{self, Consumer, Producer};

/// Messages of at most so many bytes are copied into the receiving core's memory when they are popped; larger ones
/// stay in the sender's.
pub const COPIED_BYTES: usize = 1024;

/// Who is woken at an end, once it is attached.
#[derive(Debug, Default)]
struct BellPlace {
    bell: OnceLock<Doorbell>,
    /// Orders the bell's making before its use once more: what the cell does for that is in the standard library, where
    /// ThreadSanitizer sees nothing.
    is_attached: AtomicBool,
}

impl BellPlace {
    fn attach(&self, bell: Doorbell) {
        // An end is attached once: it is given away by value.
        let _ = self.bell.set(bell);
        self.is_attached.store(true, Ordering::Release);
    }

    #[inline]
    fn ring(&self) {
        if self.is_attached.load(Ordering::Acquire)
            && let Some(bell) = self.bell.get()
        {
            bell.ring();
        }
    }
}

/// Who is woken at each end.
#[derive(Debug)]
struct Bells {
    receiver: BellPlace,
    senders: Box<[BellPlace]>,
}

/// The end of a channel that messages are pushed into.
#[derive(Debug)]
pub struct Sender {
    lane: Producer<Message>,
    bells: Arc<Bells>,
    index: usize,
}

/// The end of a channel that messages are popped from.
#[derive(Debug)]
pub struct Receiver {
    lanes: Box<[Consumer<Message>]>,
    bells: Arc<Bells>,
    /// The lane that is looked at first: each in turn.
    next: usize,
}

/// Either end, on its way into a library OS.
#[derive(Debug)]
pub enum ChannelEnd {
    /// To be pushed into.
    Sender(Sender),
    /// To be popped from.
    Receiver(Receiver),
}

impl From<Sender> for ChannelEnd {
    fn from(sender: Sender) -> Self {
        Self::Sender(sender)
    }
}

impl From<Receiver> for ChannelEnd {
    fn from(receiver: Receiver) -> Self {
        Self::Receiver(receiver)
    }
}

/// A channel from one library OS to another, of at most `capacity` messages, and of one at least.
#[must_use]
pub fn channel(capacity: usize) -> (Sender, Receiver) {
    let (mut senders, receiver) = lanes(1, capacity);
    (senders.remove(0), receiver)
}

/// A channel from `senders` library OSes to one. Each sender has room for `capacity` messages of its own. Messages of
/// one sender stay in order; no sender can keep the others' from being taken.
#[must_use]
pub fn channel_from(senders: usize, capacity: usize) -> (Vec<Sender>, Receiver) {
    lanes(senders, capacity)
}

fn lanes(senders: usize, capacity: usize) -> (Vec<Sender>, Receiver) {
    let places = (0..senders).map(|_| BellPlace::default()).collect();
    let bells = Arc::new(Bells { receiver: BellPlace::default(), senders: places });
    let (producers, consumers): (Vec<_>, Vec<_>) = (0..senders).map(|_| ring::ring(capacity)).unzip();
    let senders = producers.into_iter().enumerate();
    let senders = senders.map(|(index, lane)| Sender { lane, bells: Arc::clone(&bells), index });
    (senders.collect(), Receiver { lanes: consumers.into(), bells, next: 0 })
}

impl Sender {
    /// Makes `bell` the one to ring when there is room again.
    fn attach(&self, bell: Doorbell) {
        if let Some(own) = self.bells.senders.get(self.index) {
            own.attach(bell);
        }
    }

    /// Hands a message over; gives it back when there is no room.
    fn send(&mut self, message: Message) -> Result<(), Message> {
        self.lane.push(message)?;
        self.bells.receiver.ring();
        Ok(())
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.lane.close();
        self.bells.receiver.ring();
    }
}

impl Receiver {
    /// Makes `bell` the one to ring when there is a message.
    fn attach(&self, bell: Doorbell) {
        self.bells.receiver.attach(bell);
    }

    /// Takes the oldest message of the next sender that has one.
    fn receive(&mut self) -> Option<Message> {
        let lanes = self.lanes.len();
        for index in (self.next..lanes).chain(0..self.next) {
            if let Some(message) = self.lanes[index].pop() {
                self.next = (index + 1) % lanes;
                self.bells.senders[index].ring();
                return Some(message);
            }
        }
        None
    }

    /// True when no message is there, and none will come.
    fn is_at_end(&self) -> bool {
        self.lanes.iter().all(|lane| lane.is_closed() && lane.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.lanes.iter().all(Consumer::is_empty)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.lanes.iter_mut().for_each(Consumer::close);
        self.bells.senders.iter().for_each(BellPlace::ring);
    }
}
