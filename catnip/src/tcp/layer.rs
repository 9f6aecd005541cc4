//! All of TCP of one stack: its connections and listeners, and how segments, timers and turns of output
//! find them.

use std::net::SocketAddr;

use libos::{Error, Instant};

use super::config::TcpConfig;
use super::connection::{Connection, Context, Disposition, Settings};
use super::connections::Connections;
use super::cookies::CookieJar;
use super::counters::TcpCounters;
use super::demux::{ConnectionTable, FourTuple};
use super::fast_open::{CookieCache, CookieKeys, Syn};
use super::handshake::Opening;
use super::isn::IsnGenerator;
use super::listener::{Cookie, Listener};
use super::ports::Ports;
use super::receiver::Data;
use super::reset;
use super::segment::{Flags, Segment};
use super::sender::{MAX_QUEUED_FRAMES, Output};
use super::sequence::SequenceNumber;
use super::state::{State, Transitions, Trigger};
use super::throttle::Throttle;
use crate::events::EventQueue;
use crate::network::{DestinationKind, IcmpError, IcmpErrorKind, Network, Packet, PieceList};
use crate::random::Random;
use crate::slab::{Key, Slab};
use crate::steering::CoreShare;
use crate::timer::TimerWheel;
use crate::waiting::{Nobody, Waiting};

/// What all connections share while they work.
#[derive(Debug)]
pub(super) struct Shared {
    pub settings: Settings,
    pub counters: TcpCounters,
    pub transitions: Transitions,
    pub memory_short: bool,
    pub throttle: Throttle,
    /// Bytes of memory that data ahead of gaps holds, of all connections together.
    pub out_of_order_bytes: usize,
    pieces: PieceList,
}

impl Shared {
    pub(super) fn context<'a>(
        &'a mut self,
        now: Instant,
        network: &'a mut Network,
        events: &'a mut EventQueue,
    ) -> Context<'a> {
        Context {
            now,
            network,
            settings: &self.settings,
            counters: &mut self.counters,
            transitions: &mut self.transitions,
            events,
            throttle: &mut self.throttle,
            out_of_order_bytes: &mut self.out_of_order_bytes,
            memory_short: self.memory_short,
            pieces: &mut self.pieces,
        }
    }
}

/// Puts a connection that was worked on where the next turn of output finds it, if it has something to send,
/// and its entry in the wheel at its earliest deadline, if that moved forward.
#[inline(never)]
pub(super) fn schedule(
    connection: &mut Connection,
    index: u32,
    outgoing: &mut Vec<u32>,
    timers: &mut TimerWheel,
) {
    if !connection.queued && connection.has_output() {
        connection.queued = true;
        outgoing.push(index);
    }
    let due = connection.deadlines.earliest();
    if due < connection.deadlines.armed {
        connection.deadlines.armed = due;
        timers.arm(index, due);
    }
}

/// The key under which the demultiplexer has the connection between two ends.
pub(super) fn four_tuple(local: SocketAddr, remote: SocketAddr) -> FourTuple {
    FourTuple::new(local.ip(), local.port(), remote.ip(), remote.port())
}

/// The TCP of one stack.
#[derive(Debug)]
pub(crate) struct TcpLayer {
    pub(super) connections: Connections,
    pub(super) listeners: Slab<Listener>,
    pub(super) ports: Ports,
    pub(super) shared: Shared,
    pub(super) random: Random,
    pub(super) isn: IsnGenerator,
    pub(super) cookies: CookieJar,
    pub(super) table: ConnectionTable,
    pub(super) fast_open_keys: CookieKeys,
    pub(super) fast_open_cache: CookieCache,
    pub(super) timers: TimerWheel,
    /// Connections with something to send, each once.
    pub(super) outgoing: Vec<u32>,
    /// The list taken before it while it is worked on, kept for its memory.
    outgoing_spare: Vec<u32>,
}

impl TcpLayer {
    pub(crate) fn new(
        config: TcpConfig,
        share: Option<CoreShare>,
        random: &mut Random,
        now: Instant,
    ) -> Self {
        let mut secret = [0; 16];
        random.fill(&mut secret);
        let mut cookie_secret = [0; 16];
        random.fill(&mut cookie_secret);
        let mut random = random.fork();
        let throttle =
            Throttle::new(config.challenge_acks_per_second, config.resets_per_second, random.fork());
        // A generator of their own, so that what they draw changes no other number.
        let mut fast_open_random = random.fork();
        let mut cache_secret = [0; 16];
        fast_open_random.fill(&mut cache_secret);
        let fast_open_keys = match config.fast_open_keys[..] {
            [] => {
                let lifetime_ns = libos::time::duration_nanos(config.fast_open_key_lifetime);
                CookieKeys::drawn(fast_open_random, lifetime_ns, now)
            }
            [current, ref previous @ ..] => CookieKeys::configured(current, previous.first().copied()),
        };
        Self {
            fast_open_keys,
            fast_open_cache: CookieCache::new(config.fast_open_cache_entries, cache_secret),
            connections: Connections::with_capacity_limit(config.max_connections),
            listeners: Slab::with_capacity_limit(config.max_listeners),
            ports: Ports::new(share),
            isn: IsnGenerator::new(secret),
            cookies: CookieJar::new(cookie_secret),
            table: ConnectionTable::new(std::array::from_fn(|_| random.next_u64())),
            timers: TimerWheel::new(now),
            outgoing: Vec::new(),
            outgoing_spare: Vec::new(),
            random,
            shared: Shared {
                settings: Settings::new(config),
                counters: TcpCounters::default(),
                transitions: Transitions::default(),
                memory_short: false,
                throttle,
                out_of_order_bytes: 0,
                pieces: PieceList::new(),
            },
        }
    }

    pub(crate) fn set_memory_short(&mut self, short: bool) {
        self.shared.memory_short = short;
    }

    pub(crate) const fn counters(&self) -> &TcpCounters {
        &self.shared.counters
    }

    pub(crate) const fn transitions(&self) -> &Transitions {
        &self.shared.transitions
    }

    pub(crate) fn connections(&self) -> &Slab<Connection> {
        &self.connections
    }

    /// A segment came.
    #[inline(never)]
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        packet: Packet,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        self.shared.counters.in_segments += 1;
        let Ok(segment) = Segment::parse(&packet.head) else {
            self.shared.counters.in_errors += 1;
            return;
        };
        self.shared.counters.malformed_options += u64::from(segment.options.malformed);
        let (local, remote) = (packet.destination, packet.source);
        let (local_port, remote_port) = (segment.destination_port, segment.source_port);
        let tuple = FourTuple::new(local, local_port, remote, remote_port);
        let found = self.table.get(
            || tuple,
            |index| {
                self.connections
                    .get_index(index)
                    .is_some_and(|connection| connection.is_between(local, local_port, remote, remote_port))
            },
        );
        let Some(index) = found else {
            self.on_unclaimed(now, &segment, packet, network, events);
            return;
        };
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        if segment.options.rare {
            connection.note_rare_options(&segment, &packet.head, &self.shared.settings.config);
        }
        let data = Data::behind_header(packet, segment.header_bytes);
        let mut cx = self.shared.context(now, network, events);
        let disposition = connection.on_segment(&segment, data, &mut cx);
        if connection.rcv.arrived {
            connection.announce_data(waiting, events);
        }
        match disposition {
            Disposition::Keep => schedule(connection, index, &mut self.outgoing, &mut self.timers),
            Disposition::Reopen => self.reopen(now, index, &segment, network, events),
            Disposition::Established | Disposition::Closed => self.settle(index, disposition, events),
            Disposition::FastOpenLearned => {
                self.remember_fast_open(now, index);
                self.settle(index, Disposition::Keep, events);
            }
        }
    }

    /// A segment for which there is no connection (RFC 9293, sections 3.10.7.1 and 3.10.7.2).
    #[inline(never)]
    fn on_unclaimed(
        &mut self,
        now: Instant,
        segment: &Segment,
        packet: Packet,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        // RFC 9293, section 3.9.2.3: TCP is between two hosts only.
        if packet.kind != DestinationKind::Unicast {
            return;
        }
        let local = SocketAddr::new(packet.destination, segment.destination_port);
        let remote = SocketAddr::new(packet.source, segment.source_port);
        let data_len = u32::try_from(packet.len().saturating_sub(segment.header_bytes)).unwrap_or(u32::MAX);
        let Some(listener) = self.listener_for(local, remote) else {
            self.refuse(now, segment, data_len, &packet, network);
            return;
        };
        if segment.flags.contains(Flags::RST) {
            return;
        }
        if segment.flags.contains(Flags::ACK) {
            match self.open_from_cookie(now, listener, local, remote, segment, network) {
                Cookie::None => self.refuse(now, segment, data_len, &packet, network),
                Cookie::NoRoom => {}
                Cookie::Opened(index) => {
                    let data = Data::behind_header(packet, segment.header_bytes);
                    let Some(connection) = self.connections.get_index_mut(index) else { return };
                    let mut cx = self.shared.context(now, network, events);
                    let disposition = connection.on_segment(segment, data, &mut cx);
                    if connection.rcv.arrived {
                        connection.announce_data(&mut Nobody, events);
                    }
                    self.settle(index, disposition, events);
                }
            }
            return;
        }
        // A SYN from ourselves to ourselves would be answered for ever (the "land" attack).
        if segment.flags.contains(Flags::SYN) && !segment.flags.contains(Flags::FIN) && local != remote {
            let syn = Syn { listener, local, remote, segment, packet: Some(packet), used_up_to: None };
            self.on_syn(now, syn, network, events);
        }
    }

    fn listener_for(&self, local: SocketAddr, remote: SocketAddr) -> Option<Key> {
        self.ports.listener(local, || self.isn.listener_choice(local, remote))
    }

    fn refuse(
        &mut self,
        now: Instant,
        segment: &Segment,
        data_len: u32,
        packet: &Packet,
        network: &mut Network,
    ) {
        let Shared { throttle, counters, .. } = &mut self.shared;
        reset::refuse(segment, data_len, packet, now, network, throttle, counters);
    }

    /// A SYN came to a listener.
    fn on_syn(&mut self, now: Instant, syn: Syn<'_>, network: &mut Network, events: &mut EventQueue) {
        let Syn { listener: listener_key, local, remote, segment, used_up_to, .. } = syn;
        let traffic_class = syn.packet.as_ref().map_or(0, |packet| packet.traffic_class);
        let Some(listener) = self.listeners.get_mut(listener_key) else { return };
        if listener.is_full() || self.shared.memory_short {
            self.on_syn_beyond_backlog(now, listener_key, local, remote, segment, network);
            return;
        }
        let Ok(path) = network.path(now, Some(local.ip()), remote.ip()) else { return };
        let iss = self.isn.generate(now, local, remote);
        // RFC 9293, section 3.10.7.4 (MAY-2): beyond the old connection's numbers. A fast one outran the clock
        // that new ones are drawn from.
        let iss = used_up_to.map_or(iss, |used_up_to| iss.max(used_up_to + 1));
        let timestamp_offset = self.isn.timestamp_offset(local, remote);
        let settings = &self.shared.settings;
        let options = &listener.options;
        let key = self.connections.insert_with(|key| {
            let opening = Opening {
                key,
                path,
                local_port: local.port(),
                remote_port: remote.port(),
                iss,
                timestamp_offset,
                options,
                now,
            };
            Connection::accept(opening, listener_key, segment, traffic_class, settings)
        });
        let Some(key) = key else {
            self.shared.counters.table_overflows += 1;
            return;
        };
        let early = segment.options.fast_open.is_some() && self.open_early(now, key, syn, network, events);
        if let Some(listener) = self.listeners.get_mut(listener_key) {
            listener.opening += usize::from(!early);
            listener.adopt(key, &self.connections);
        }
        self.enter(key.index, local, remote);
        self.shared.counters.passive_opens += 1;
        self.start(now, key.index, Trigger::SynForListener, network, events);
        if let Some(listener) = self.listeners.get_mut(listener_key).filter(|_| early) {
            listener.make_ready(key, events);
        }
    }

    /// Makes the connection findable. The demultiplexer gets new keys when somebody seems to know them.
    pub(super) fn enter(&mut self, index: u32, local: SocketAddr, remote: SocketAddr) {
        self.table.insert(&four_tuple(local, remote), index);
        if self.table.wants_new_keys() {
            let keys = std::array::from_fn(|_| self.random.next_u64());
            let connections = &self.connections;
            self.table.rekey(keys, |index| match connections.get_index(index) {
                Some(connection) => four_tuple(connection.local(), connection.remote()),
                None => four_tuple(local, remote),
            });
        }
    }

    /// Sends a new connection's first segment.
    pub(super) fn start(
        &mut self,
        now: Instant,
        index: u32,
        trigger: Trigger,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        if let Some(connection) = self.connections.get_index_mut(index) {
            connection.open(trigger, &mut self.shared.context(now, network, events));
            self.settle(index, Disposition::Keep, events);
        }
    }

    /// A SYN came that may take the place of a connection in TIME-WAIT.
    fn reopen(
        &mut self,
        now: Instant,
        index: u32,
        segment: &Segment,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        let (local, remote) = (connection.local(), connection.remote());
        let mut cx = self.shared.context(now, network, events);
        let isn = &self.isn;
        let Some(listener) = self.ports.listener(local, || isn.listener_choice(local, remote)) else {
            connection.challenge(&mut cx);
            self.settle(index, Disposition::Keep, events);
            return;
        };
        if self.listeners.get(listener).is_none_or(Listener::is_full) {
            cx.counters.listen_overflows += 1;
            return;
        }
        let used_up_to = connection.snd.max;
        connection.transition(Trigger::TimeWaitOver, cx.transitions);
        let disposition = connection.fail(None, &mut cx);
        self.settle(index, disposition, events);
        let used_up_to = Some(used_up_to);
        self.on_syn(now, Syn { listener, local, remote, segment, packet: None, used_up_to }, network, events);
    }

    /// After a connection was worked on: puts it where its output and its timers are found, tells its
    /// listener, and frees its slot when it is over.
    pub(super) fn settle(&mut self, index: u32, disposition: Disposition, events: &mut EventQueue) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        if disposition == Disposition::Closed {
            self.bury(index, events);
            return;
        }
        schedule(connection, index, &mut self.outgoing, &mut self.timers);
        if disposition == Disposition::Established
            && connection.fast_open.is_some()
            && let Some(listener) = connection.end_early()
        {
            // Its listener has it already, or had it.
            if let Some(listener) = self.listeners.get_mut(listener) {
                listener.early.on_established();
            }
        } else if disposition == Disposition::Established
            && let Some(listener) = connection.listener
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            connection.opening = false;
            listener.on_established(connection.key, events);
        }
    }

    /// Puts the connection where the next turn of output finds it, if it has something to send.
    #[inline]
    pub(super) fn settle_output(&mut self, index: u32) {
        if let Some(connection) = self.connections.get_index_mut(index) {
            schedule(connection, index, &mut self.outgoing, &mut self.timers);
        }
    }

    /// A connection is over: nothing finds it any more. The slot stays while the program holds it.
    #[inline(never)]
    fn bury(&mut self, index: u32, events: &mut EventQueue) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        self.table.remove(&four_tuple(connection.local(), connection.remote()), index);
        self.timers.cancel(index);
        connection.deadlines.armed = Instant::FAR_FUTURE;
        connection.deadlines.idle = Instant::FAR_FUTURE;
        if let Some(bound) = connection.bound.take() {
            self.ports.release(*bound);
        }
        let key = connection.key;
        if connection.fast_open.is_some()
            && let Some(listener) = connection.end_early()
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.early.on_failure(connection);
        }
        if let Some(listener) = connection.listener
            && connection.opening
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.opening = listener.opening.saturating_sub(1);
        }
        if (connection.orphan && !connection.close_awaited) || connection.listener.is_some() {
            events.forget(connection.mark);
            self.connections.remove(key);
        }
    }

    /// Runs all timers that are due.
    #[inline]
    pub(crate) fn run_timers(&mut self, now: Instant, network: &mut Network, events: &mut EventQueue) {
        if self.timers.is_due(now) {
            self.serve_timers(now, network, events);
        } else {
            self.timers.follow(now);
        }
    }

    #[inline(never)]
    fn serve_timers(&mut self, now: Instant, network: &mut Network, events: &mut EventQueue) {
        while let Some(index) = self.timers.next_expired(now) {
            let Some(connection) = self.connections.get_index_mut(index) else { continue };
            connection.deadlines.armed = Instant::FAR_FUTURE;
            let disposition = connection.on_timer(&mut self.shared.context(now, network, events));
            if disposition == Disposition::FastOpenLearned {
                self.remember_fast_open(now, index);
            }
            self.settle(index, disposition, events);
        }
    }

    /// Sends what connections have to send, a bounded turn each, while the device has room.
    #[inline]
    pub(crate) fn output(&mut self, now: Instant, network: &mut Network, events: &mut EventQueue) {
        if !self.outgoing.is_empty() {
            self.output_turn(now, network, events);
        }
    }

    #[inline(never)]
    fn output_turn(&mut self, now: Instant, network: &mut Network, events: &mut EventQueue) {
        let mut turn = std::mem::replace(&mut self.outgoing, std::mem::take(&mut self.outgoing_spare));
        for (done, &index) in turn.iter().enumerate() {
            if network.frames().len() >= MAX_QUEUED_FRAMES || network.transmit_queue_is_full() {
                // Those who had no turn go before those who want a second one.
                let second_turns = self.outgoing.len();
                self.outgoing.extend_from_slice(&turn[done..]);
                self.outgoing.rotate_left(second_turns);
                break;
            }
            let Some(connection) = self.connections.get_index_mut(index) else { continue };
            connection.queued = false;
            let outcome = connection.output(&mut self.shared.context(now, network, events));
            if outcome == Output::More {
                connection.queued = true;
                self.outgoing.push(index);
            }
            let due = connection.deadlines.earliest();
            if due < connection.deadlines.armed {
                connection.deadlines.armed = due;
                self.timers.arm(index, due);
            }
        }
        turn.clear();
        self.outgoing_spare = turn;
    }

    /// True when a turn of output has something to do.
    pub(crate) fn has_output(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// When the next timer is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// The network reported an error about a segment of ours (RFC 1122, section 4.2.3.9; RFC 5927).
    pub(crate) fn on_icmp_error(
        &mut self,
        now: Instant,
        error: &IcmpError,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let tuple = four_tuple(error.local, error.remote);
        let found = self.table.get(
            || tuple,
            |index| {
                self.connections.get_index(index).is_some_and(|connection| {
                    connection.local() == error.local && connection.remote() == error.remote
                })
            },
        );
        let Some(index) = found else { return };
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        let mut cx = self.shared.context(now, network, events);
        let disposition = connection.on_icmp_error(error.sequence, error.kind, &mut cx);
        self.settle(index, disposition, events);
    }
}

impl Connection {
    /// An ICMP error quotes a segment of ours. One outside what is in flight is forged or stale (RFC 5927, section 4).
    fn on_icmp_error(&mut self, sequence: u32, kind: IcmpErrorKind, cx: &mut Context<'_>) -> Disposition {
        let sequence = SequenceNumber::new(sequence);
        if sequence.before(self.snd.una) || sequence.at_or_after(self.snd.max) {
            return Disposition::Keep;
        }
        let error = match kind {
            IcmpErrorKind::FragmentationNeeded { mtu } => {
                self.on_smaller_path(mtu, cx);
                return Disposition::Keep;
            }
            IcmpErrorKind::PortUnreachable | IcmpErrorKind::ProtocolUnreachable => Error::ConnectionRefused,
            IcmpErrorKind::HostUnreachable | IcmpErrorKind::AdminProhibited => Error::HostUnreachable,
            IcmpErrorKind::NetworkUnreachable => Error::NetworkUnreachable,
            IcmpErrorKind::TimeExceeded | IcmpErrorKind::ParameterProblem => {
                // RFC 1122, section 4.2.3.9: as an unreachable host. It ends no open, as the path may yet change.
                self.soft_error = Some(Error::HostUnreachable);
                return Disposition::Keep;
            }
        };
        match self.state {
            // Before the connection stands, an unreachable peer is an answer (RFC 5461, section 4.1).
            State::SynSent => self.fail(Some(error), cx),
            State::Closed
            | State::Listen
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                self.soft_error = Some(error);
                Disposition::Keep
            }
        }
    }

    /// The path carries less than was thought (RFC 1191, RFC 8201): what was too large goes again, smaller.
    fn on_smaller_path(&mut self, mtu: usize, cx: &Context<'_>) {
        let floor = if self.path.remote.is_ipv4() { 576 } else { 1280 };
        let mtu = mtu.max(floor);
        if mtu < self.path.mtu {
            if cx.settings.config.path_mtu_search {
                self.search_path_later(self.path.mtu, cx.now);
            }
            self.path.mtu = mtu;
            self.change_mss();
            if self.state.is_synchronised() {
                self.resend_what_is_too_large();
            }
        }
    }
}
