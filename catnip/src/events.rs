//! Events: which socket may now do what. At most one is queued for a socket at any time.

use std::collections::VecDeque;
use std::ops::{BitOr, BitOrAssign};

use crate::slab::Key;

/// A UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UdpId(pub Key);

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListenerId(pub Key);

/// A TCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub Key);

/// Any socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketId {
    /// A UDP socket.
    Udp(UdpId),
    /// A listening TCP socket.
    Listener(ListenerId),
    /// A TCP connection.
    Connection(ConnectionId),
}

/// A set of things that a socket may now be ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Readiness(u8);

impl Readiness {
    /// Nothing.
    pub const EMPTY: Self = Self(0);
    /// There is data, an end of stream or an error to receive.
    pub const READABLE: Self = Self(1);
    /// There is room to send again.
    pub const WRITABLE: Self = Self(1 << 1);
    /// A connection waits to be accepted.
    pub const ACCEPTABLE: Self = Self(1 << 2);
    /// The connection is established.
    pub const CONNECTED: Self = Self(1 << 3);
    /// The connection has ended, or could not be made; its error says why.
    pub const CLOSED: Self = Self(1 << 4);

    /// True when everything in `other` is in this set.
    #[must_use]
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when nothing is in this set.
    #[must_use]
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Readiness {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// What became possible on a socket since its last event was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The socket.
    pub socket: SocketId,
    /// The number that the socket's owner gave it.
    pub user_data: u64,
    /// What it may be ready for.
    pub readiness: Readiness,
}

/// Where a socket's latest event is in the queue. Each socket keeps one and hands it to [`EventQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventMark(u64);

/// Events not yet taken, oldest first. Never longer than the number of sockets that live or were
/// closed since the queue was last taken empty.
#[derive(Debug)]
pub struct EventQueue {
    queue: VecDeque<Event>,
    /// The mark of the queue's front. Starts at 1, so that the default mark names no event.
    front: u64,
}

impl Default for EventQueue {
    fn default() -> Self {
        Self { queue: VecDeque::new(), front: 1 }
    }
}

impl EventQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn queued(&mut self, mark: EventMark) -> Option<&mut Event> {
        let offset = mark.0.checked_sub(self.front)?;
        self.queue.get_mut(usize::try_from(offset).ok()?)
    }

    /// Queues an event, or adds `readiness` to the one that is queued already. `mark` is the socket's own.
    #[inline]
    pub fn push(&mut self, mark: &mut EventMark, socket: SocketId, user_data: u64, readiness: Readiness) {
        if let Some(event) = self.queued(*mark) {
            event.readiness |= readiness;
            return;
        }
        *mark = EventMark(self.front + self.queue.len() as u64);
        self.queue.push_back(Event { socket, user_data, readiness });
    }

    /// Gives the socket's queued event, if there is one, the socket's new number.
    pub fn set_user_data(&mut self, mark: EventMark, user_data: u64) {
        if let Some(event) = self.queued(mark) {
            event.user_data = user_data;
        }
    }

    /// Takes back the socket's queued event, because the socket is gone.
    pub fn forget(&mut self, mark: EventMark) {
        if let Some(event) = self.queued(mark) {
            event.readiness = Readiness::EMPTY;
        }
        self.drop_forgotten();
    }

    /// Takes the oldest event.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        self.front += 1;
        self.drop_forgotten();
        Some(event)
    }

    /// Makes sure that the front is no forgotten event.
    #[inline]
    fn drop_forgotten(&mut self) {
        while self.queue.front().is_some_and(|event| event.readiness.is_empty()) {
            self.queue.pop_front();
            self.front += 1;
        }
    }

    /// True when there is no event.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(index: u32) -> SocketId {
        SocketId::Udp(UdpId(Key { index, generation: 1 }))
    }

    #[test]
    fn a_sockets_readiness_is_merged_into_its_queued_event() {
        let mut queue = EventQueue::new();
        let (mut first, mut second) = (EventMark::default(), EventMark::default());
        queue.push(&mut first, socket(1), 10, Readiness::READABLE);
        queue.push(&mut second, socket(2), 20, Readiness::CLOSED);
        queue.push(&mut first, socket(1), 10, Readiness::WRITABLE);
        let event = queue.pop().unwrap();
        assert_eq!((event.socket, event.user_data), (socket(1), 10));
        assert_eq!(event.readiness, Readiness::READABLE | Readiness::WRITABLE);
        assert_eq!(queue.pop().unwrap().socket, socket(2));
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn a_socket_gets_a_new_event_after_its_last_was_taken() {
        let mut queue = EventQueue::new();
        let (mut first, mut second) = (EventMark::default(), EventMark::default());
        for round in 0..3 {
            queue.push(&mut first, socket(1), round, Readiness::READABLE);
            queue.push(&mut second, socket(2), round, Readiness::READABLE);
            assert_eq!(queue.pop().unwrap().user_data, round);
            queue.push(&mut first, socket(1), round, Readiness::WRITABLE);
            assert_eq!(queue.pop().unwrap().socket, socket(2));
            assert_eq!(queue.pop().unwrap().readiness, Readiness::WRITABLE);
            assert!(queue.is_empty());
        }
    }

    #[test]
    fn a_forgotten_event_never_comes_out_and_others_keep_their_place() {
        let mut queue = EventQueue::new();
        let mut marks = [EventMark::default(); 3];
        for (mark, index) in marks.iter_mut().zip(0..) {
            queue.push(mark, socket(index), 0, Readiness::READABLE);
        }
        queue.forget(marks[1]);
        queue.set_user_data(marks[2], 9);
        queue.forget(marks[0]);
        assert_eq!(queue.queue.len(), 1);
        assert_eq!(queue.pop().unwrap().user_data, 9);
        assert_eq!(queue.pop(), None);
        queue.forget(marks[2]);
        assert!(queue.is_empty());
    }
}
