//! Listeners: their backlog of connections that are being opened or wait to be accepted, and what is done with
//! SYNs beyond it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use libos::Instant;

use super::config::TcpOptions;
use super::connection::{Connection, Timestamps};
use super::cookies;
use super::fast_open::EarlyQueue;
use super::handshake::{self, Opening};
use super::layer::TcpLayer;
use super::options::{OptionFields, Timestamp};
use super::ports::Reservation;
use super::segment::{CHECKSUM_OFFSET, Flags, HeaderFields, Segment};
use super::state::Trigger;
use super::window;
use crate::events::{EventMark, EventQueue, ListenerId, Readiness, SocketId};
use crate::network::{HeaderBuffer, Network, Outgoing, Payload, Protocol};
use crate::slab::{Key, Slab};

/// Largest backlog, whatever a program asks for (Linux's `somaxconn`).
pub(super) const MAX_BACKLOG: usize = 4096;

/// A socket in LISTEN.
#[derive(Debug)]
pub(super) struct Listener {
    pub key: Key,
    pub reservation: Reservation,
    pub options: TcpOptions,
    /// Most connections in SYN-RECEIVED and waiting to be accepted, together.
    pub backlog: usize,
    /// Connections in SYN-RECEIVED.
    pub opening: usize,
    /// Established connections that wait to be accepted, oldest first. One that was reset meanwhile
    /// leaves a stale key behind, which [`super::TcpLayer::accept`] passes over.
    pub ready: VecDeque<Key>,
    /// Its connections that nobody accepted, and some that were accepted or are gone: a close must not look for them
    /// among all connections.
    children: Vec<Key>,
    /// Length of `children` at which those that are no more are taken out.
    most_children: usize,
    pub mark: EventMark,
    pub user_data: u64,
    /// Since when the backlog has been full, and when a SYN last found it so.
    full: Option<Full>,
    /// Until when acknowledgments may carry a cookie.
    pub cookies_until: Instant,
    /// Its connections that Fast Open handed over.
    pub early: EarlyQueue,
}

#[derive(Debug, Clone, Copy)]
struct Full {
    since: Instant,
    last_seen: Instant,
}

/// Connections that a listener remembers before it first looks which of them are still its own.
const MIN_CHILDREN: usize = 64;

/// How long handshakes have to fill the backlog before cookies are handed out. A burst of peers in good faith is
/// through in a round trip, and better off waiting for a place: a cookie is no promise of one.
const PATIENCE_NS: u64 = 200_000_000;

/// A backlog that no SYN found full for so long was not full meanwhile.
const FULL_MEMORY_NS: u64 = 500_000_000;

/// What an acknowledgment to a listener turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// It carries no cookie of ours.
    None,
    /// It completes a handshake, and there is no room for the connection: the peer will send it again.
    NoRoom,
    /// It completes the handshake of this new connection, to which it now has to be given.
    Opened(u32),
}

impl Listener {
    pub(super) fn new(key: Key, reservation: Reservation, backlog: usize, options: TcpOptions) -> Self {
        Self {
            key,
            reservation,
            options,
            backlog: backlog.clamp(1, MAX_BACKLOG),
            opening: 0,
            ready: VecDeque::new(),
            children: Vec::new(),
            most_children: MIN_CHILDREN,
            mark: EventMark::default(),
            user_data: 0,
            full: None,
            cookies_until: Instant::ZERO,
            early: EarlyQueue::default(),
        }
    }

    /// Remembers a connection that came from this listener. Amortised O(1), and memory for twice those that wait.
    pub(super) fn adopt(&mut self, connection: Key, connections: &Slab<Connection>) {
        if self.children.len() >= self.most_children {
            let own = Some(self.key);
            self.children.retain(|&child| connections.get(child).is_some_and(|child| child.listener == own));
            self.most_children = (2 * self.children.len()).max(MIN_CHILDREN);
        }
        self.children.push(connection);
    }

    /// The connections that nobody accepted, and others.
    pub(super) fn into_children(self) -> Vec<Key> {
        self.children
    }

    /// True when nothing can be kept about a further SYN.
    pub(super) fn is_full(&self) -> bool {
        self.opening + self.ready.len() >= self.backlog
    }

    /// True when not even a connection that stands can be taken.
    pub(super) fn accept_queue_is_full(&self) -> bool {
        self.ready.len() >= self.backlog
    }

    /// A SYN found the backlog full. True when it has been for so long that this is an attack, or as good as one.
    fn is_flooded(&mut self, now: Instant) -> bool {
        let since = match self.full {
            Some(full) if now.nanos_since(full.last_seen) < FULL_MEMORY_NS => full.since,
            Some(_) | None => now,
        };
        self.full = Some(Full { since, last_seen: now });
        now.nanos_since(since) >= PATIENCE_NS
    }

    /// A connection of this listener is established.
    pub(super) fn on_established(&mut self, connection: Key, events: &mut EventQueue) {
        self.opening = self.opening.saturating_sub(1);
        self.make_ready(connection, events);
    }

    /// A connection waits to be accepted.
    pub(super) fn make_ready(&mut self, connection: Key, events: &mut EventQueue) {
        self.ready.push_back(connection);
        events.push(
            &mut self.mark,
            SocketId::Listener(ListenerId(self.key)),
            self.user_data,
            Readiness::ACCEPTABLE,
        );
    }
}

impl TcpLayer {
    /// A SYN came that nothing can be kept about. While handshakes that do not end fill the backlog, it is answered
    /// with a cookie; else the peer will send it again.
    #[cold]
    pub(super) fn on_syn_beyond_backlog(
        &mut self,
        now: Instant,
        listener: Key,
        local: SocketAddr,
        remote: SocketAddr,
        syn: &Segment,
        network: &mut Network,
    ) {
        let config = &self.shared.settings.config;
        let Some(listener) = self.listeners.get_mut(listener) else { return };
        let useless = self.shared.memory_short || listener.accept_queue_is_full();
        if !config.syn_cookies || useless || !listener.is_flooded(now) {
            self.shared.counters.listen_overflows += 1;
            return;
        }
        let Ok(mut path) = network.path(now, Some(local.ip()), remote.ip()) else { return };
        let mss = syn.options.mss.unwrap_or(handshake::default_mss(remote.is_ipv4()));
        let cookie = self.cookies.bake(now, local, remote, syn.sequence, mss);
        let own_mss = handshake::own_mss(&path, listener.options.max_segment_bytes);
        let (limit_bytes, limit_max_bytes) = handshake::receive_limits(&listener.options);
        let mut options = OptionFields { mss: Some(own_mss), ..OptionFields::default() };
        if let Some(theirs) = syn.options.timestamp
            && config.timestamps
        {
            let clock = Timestamps::clock(now, self.isn.timestamp_offset(local, remote));
            let value = cookies::timestamp_with(clock, &syn.options);
            options.timestamp = Some(Timestamp { value, echo: theirs.value });
            options.sack_permitted = syn.options.sack_permitted && config.sack;
            options.window_scale = syn
                .options
                .window_scale
                .filter(|_| config.window_scaling)
                .map(|_| window::scale_for(limit_max_bytes));
        }
        let fields = HeaderFields {
            source_port: local.port(),
            destination_port: remote.port(),
            sequence: cookie,
            acknowledgment: syn.sequence + 1,
            flags: Flags::SYN | Flags::ACK,
            window: u16::try_from(limit_bytes).unwrap_or(u16::MAX),
            urgent: 0,
            options,
        };
        let mut headers = HeaderBuffer::new();
        fields.emit(headers.transport(fields.header_bytes()));
        let outgoing = Outgoing {
            protocol: Protocol::Tcp,
            headers: &mut headers,
            checksum_offset: CHECKSUM_OFFSET,
            payload: Payload::Empty,
            segment_bytes: None,
            hop_limit: listener.options.hop_limit,
            traffic_class: listener.options.traffic_class,
        };
        if network.send(now, &mut path, outgoing).is_ok() {
            listener.cookies_until = now.plus_nanos(cookies::LIFETIME_NS);
            self.shared.counters.syn_cookies_sent += 1;
            self.shared.counters.out_segments += 1;
        }
    }

    /// Looks for a cookie in an acknowledgment to a listener; with one, makes the connection in SYN-RECEIVED.
    pub(super) fn open_from_cookie(
        &mut self,
        now: Instant,
        listener_key: Key,
        local: SocketAddr,
        remote: SocketAddr,
        segment: &Segment,
        network: &mut Network,
    ) -> Cookie {
        let Some(listener) = self.listeners.get_mut(listener_key) else { return Cookie::None };
        if now >= listener.cookies_until || segment.flags.contains(Flags::SYN) {
            return Cookie::None;
        }
        // The segment that completes the handshake begins right behind the SYN and acknowledges the cookie.
        let peer_isn = segment.sequence + u32::MAX;
        let cookie = segment.acknowledgment + u32::MAX;
        let Some(mss) = self.cookies.check(now, local, remote, peer_isn, cookie) else {
            self.shared.counters.syn_cookies_failed += 1;
            return Cookie::None;
        };
        if listener.accept_queue_is_full() || self.shared.memory_short {
            self.shared.counters.listen_overflows += 1;
            return Cookie::NoRoom;
        }
        let Ok(path) = network.path(now, Some(local.ip()), remote.ip()) else { return Cookie::NoRoom };
        let syn = Segment {
            sequence: peer_isn,
            flags: Flags::SYN,
            options: cookies::options_of(mss, &segment.options),
            ..*segment
        };
        let timestamp_offset = self.isn.timestamp_offset(local, remote);
        let (settings, options) = (&self.shared.settings, &listener.options);
        let key = self.connections.insert_with(|key| {
            let opening = Opening {
                key,
                path,
                local_port: local.port(),
                remote_port: remote.port(),
                iss: cookie,
                timestamp_offset,
                options,
                now,
            };
            Connection::accept(opening, listener_key, &syn, 0, settings)
        });
        let Some(key) = key else {
            self.shared.counters.table_overflows += 1;
            return Cookie::NoRoom;
        };
        listener.opening += 1;
        listener.adopt(key, &self.connections);
        self.shared.counters.passive_opens += 1;
        self.shared.counters.syn_cookies_received += 1;
        self.enter(key.index, local, remote);
        if let Some(connection) = self.connections.get_index_mut(key.index) {
            connection.transition(Trigger::SynForListener, &mut self.shared.transitions);
            connection.was_opened_by_cookie();
        }
        Cookie::Opened(key.index)
    }
}
