//! Listeners: their backlog of connections that are being opened or wait to be accepted.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::config::TcpOptions;
use crate::events::{EventMark, EventQueue, ListenerId, Readiness, SocketId};
use crate::slab::Key;

/// Largest backlog, whatever a program asks for (Linux's `somaxconn`).
pub(super) const MAX_BACKLOG: usize = 4096;

/// A socket in LISTEN.
#[derive(Debug)]
pub(super) struct Listener {
    pub key: Key,
    pub local: SocketAddr,
    pub options: TcpOptions,
    /// Most connections in SYN-RECEIVED and waiting to be accepted, together.
    pub backlog: usize,
    /// Connections in SYN-RECEIVED.
    pub opening: usize,
    /// Established connections that wait to be accepted, oldest first. One that was reset meanwhile
    /// leaves a stale key behind, which [`super::TcpLayer::accept`] passes over.
    pub ready: VecDeque<Key>,
    pub mark: EventMark,
    pub user_data: u64,
}

impl Listener {
    pub(super) fn new(key: Key, local: SocketAddr, backlog: usize, options: TcpOptions) -> Self {
        Self {
            key,
            local,
            options,
            backlog: backlog.clamp(1, MAX_BACKLOG),
            opening: 0,
            ready: VecDeque::new(),
            mark: EventMark::default(),
            user_data: 0,
        }
    }

    /// True when a further SYN has to be dropped: the peer will send it again.
    pub(super) fn is_full(&self) -> bool {
        self.opening + self.ready.len() >= self.backlog
    }

    /// A connection of this listener is established.
    pub(super) fn on_established(&mut self, connection: Key, events: &mut EventQueue) {
        self.opening = self.opening.saturating_sub(1);
        self.ready.push_back(connection);
        events.push(
            &mut self.mark,
            SocketId::Listener(ListenerId(self.key)),
            self.user_data,
            Readiness::ACCEPTABLE,
        );
    }
}
