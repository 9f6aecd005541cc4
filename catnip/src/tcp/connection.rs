//! One connection: its variables, in the terms of RFC 9293, section 3.3.1, and what all parts of TCP ask of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libos::{Error, Instant};

use super::buffers::ReceiveTuning;
use super::config::{Reuse, TcpConfig, TcpOptions};
use super::congestion::{Congestion, CongestionControl};
use super::connections::Course;
use super::counters::TcpCounters;
use super::ecn::Ecn;
use super::express::PlainEnds;
use super::fast_open::FastOpen;
use super::keepalive::Keepalive;
use super::options::Timestamp;
use super::pacing::Pacing;
use super::path_search::PathSearch;
use super::ports::Reservation;
use super::reassembly::Reassembly;
use super::receive_queue::ReceiveQueue;
use super::recovery::Recovery;
use super::rtt::RttEstimator;
use super::segment::Segment;
use super::selective::SelectiveReport;
use super::send_queue::SendQueue;
use super::sequence::SequenceNumber;
use super::state::{State, Transitions, Trigger};
use super::throttle::Throttle;
use super::transmissions::Transmissions;
use super::user_timeout::UserTimeout;
use super::window;
use crate::events::{ConnectionId, EventMark, EventQueue, Readiness, SocketId};
use crate::network::{Network, Path, PieceList};
use crate::slab::Key;

/// What a connection needs of the layer around it while it works.
pub(super) struct Context<'a> {
    pub now: Instant,
    pub network: &'a mut Network,
    pub settings: &'a Settings,
    pub counters: &'a mut TcpCounters,
    pub transitions: &'a mut Transitions,
    pub events: &'a mut EventQueue,
    pub throttle: &'a mut Throttle,
    /// Bytes of memory that data ahead of gaps holds, of all connections together.
    pub out_of_order_bytes: &'a mut usize,
    /// True when little memory for buffers is left: see [`Connection::on_in_order_data`].
    pub memory_short: bool,
    /// Scratch for the payload of the segment being sent.
    pub pieces: &'a mut PieceList,
}

/// [`TcpConfig`] in the units the packet path uses.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub config: TcpConfig,
    pub delayed_ack_ns: u64,
    pub clock_granularity_ns: u64,
}

impl Settings {
    pub(super) fn new(config: TcpConfig) -> Self {
        Self {
            delayed_ack_ns: libos::time::duration_nanos(config.delayed_ack),
            clock_granularity_ns: libos::time::duration_nanos(config.clock_granularity),
            config,
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Sender {
    /// ISS.
    pub iss: SequenceNumber,
    /// SND.UNA: the oldest sequence number that is not acknowledged.
    pub una: SequenceNumber,
    /// SND.NXT: what is sent next. Goes back to `una` after a timeout.
    pub nxt: SequenceNumber,
    /// The sequence number after the highest one ever sent.
    pub max: SequenceNumber,
    /// The sequence number of the first byte in `queue`.
    pub front: SequenceNumber,
    /// SND.WND, in bytes.
    pub wnd: u32,
    /// The largest window the peer ever offered, in bytes.
    pub max_wnd: u32,
    /// SND.WL1.
    pub wl1: SequenceNumber,
    /// SND.WL2.
    pub wl2: SequenceNumber,
    /// Shift of the windows the peer offers.
    pub scale: u8,
    /// Payload bytes of a full segment, options taken off.
    pub mss: u16,
    /// True once the program closed this direction: a FIN follows the last byte of `queue`.
    pub fin: bool,
    /// Sent and unacknowledged bytes, then unsent ones.
    pub queue: SendQueue,
    /// Bytes `queue` may hold, and what that may grow to.
    pub limit_bytes: usize,
    pub limit_max_bytes: usize,
}

impl Sender {
    /// The sequence number after the last byte queued: the FIN's, when there is one.
    pub(super) fn end(&self) -> SequenceNumber {
        self.front + u32::try_from(self.queue.len_bytes()).unwrap_or(u32::MAX)
    }

    /// Bytes of sequence space sent and not acknowledged.
    pub(super) fn in_flight(&self) -> u32 {
        self.nxt.distance_from(self.una)
    }

    /// Bytes queued that were not sent since `nxt` last went back.
    pub(super) fn unsent(&self) -> u32 {
        let end = self.end();
        if self.nxt.before(end) { end.distance_from(self.nxt) } else { 0 }
    }

    /// True when a FIN is queued and `nxt` has not passed it.
    pub(super) fn fin_unsent(&self) -> bool {
        self.fin && self.nxt.at_or_before(self.end())
    }

    /// True when the peer has acknowledged our FIN.
    pub(super) fn fin_acknowledged(&self) -> bool {
        self.fin && self.una.after(self.end())
    }
}

/// The receiving half.
#[derive(Debug)]
pub(super) struct Receiver {
    /// IRS.
    pub irs: SequenceNumber,
    /// RCV.NXT: the next sequence number expected.
    pub nxt: SequenceNumber,
    /// The right edge of the window: RCV.NXT + RCV.WND as last told to the peer. Never moves left.
    pub edge: SequenceNumber,
    /// The acknowledgment number last sent (RFC 7323, section 4.3: Last.ACK.sent).
    pub last_ack_sent: SequenceNumber,
    /// Shift of the windows we offer.
    pub scale: u8,
    /// True once the peer's FIN was taken in sequence.
    pub fin: bool,
    /// Where the peer's FIN is, when it arrived ahead of a gap.
    pub fin_at: Option<SequenceNumber>,
    /// True while nobody was told of data that has just come in order.
    pub arrived: bool,
    /// True when an acknowledgment must go out at once.
    pub ack_now: bool,
    /// True when the program wants no more data (`SHUT_RD`): it is acknowledged and thrown away.
    pub shut: bool,
    /// Acknowledge everything at once (`TCP_QUICKACK`).
    pub quick_ack: bool,
    /// True while data comes and none goes: the last acknowledgment that was delayed had to go alone.
    pub one_way: bool,
    /// When data last arrived; [`Instant::ZERO`] before any did.
    pub last_data: Instant,
    /// The largest segment seen: what "every second full-sized segment" is measured by.
    pub segment_bytes: u16,
    /// Segments that arrived ahead of the present gap since the last turn of output. Each has an acknowledgment
    /// of its own, for the peer counts them (RFC 5681, section 4.2).
    pub ahead_of_gap: u16,
    /// What the next acknowledgment reports of what came twice.
    pub report: SelectiveReport,
    /// In-order data for the program.
    pub queue: ReceiveQueue,
    /// Data that arrived ahead of a gap.
    pub reassembly: Option<Box<Reassembly>>,
    /// The largest window offered, in bytes.
    pub limit_bytes: u32,
    pub tuning: ReceiveTuning,
}

impl Receiver {
    /// Bytes the program's queue has room for.
    pub(super) fn free_space(&self) -> u32 {
        let used = u32::try_from(self.queue.len_bytes()).unwrap_or(u32::MAX);
        self.limit_bytes.saturating_sub(used)
    }

    /// The window field: the space left, unless that would move the right edge by a trifle
    /// (RFC 9293, section 3.8.6.2.2). Moves the edge.
    #[inline]
    pub(super) fn advertise(&mut self, mss: u16) -> u16 {
        let free = self.free_space();
        let offered =
            window::advertise(self.nxt, self.edge, free, self.limit_bytes, u32::from(mss), self.scale);
        self.edge = offered.edge;
        offered.field
    }

    /// As [`Self::advertise`], while the buffer [`Self::is_plain`].
    #[inline(always)]
    pub(super) fn advertise_plain(&mut self, mss: u16) -> u16 {
        if self.queue.len_bytes() == 0
            && let Some(offered) =
                window::advertise_empty(self.nxt, self.edge, self.limit_bytes, u32::from(mss), self.scale)
        {
            self.edge = offered.edge;
            return offered.field;
        }
        self.advertise_any(mss)
    }

    #[inline(never)]
    fn advertise_any(&mut self, mss: u16) -> u16 {
        self.advertise(mss)
    }

    /// True for a buffer that is neither tiny nor larger than the header expresses, however it grows by itself.
    pub(super) fn is_plain(&self, mss: u16) -> bool {
        let largest_bytes = self.limit_bytes.max(self.tuning.max_bytes);
        self.limit_bytes / window::LEAST_PLAIN_SEGMENTS >= u32::from(mss)
            && largest_bytes <= window::MAX_PLAIN_BYTES
            && largest_bytes >> self.scale <= window::MAX_FIELD
    }

    /// Bytes received in order since the last acknowledgment sent.
    #[inline(always)]
    pub(super) const fn unacknowledged_bytes(&self) -> u32 {
        self.nxt.distance_from(self.last_ack_sent)
    }

    /// RCV.WND: bytes the peer may send from `nxt` on, as last told to it.
    pub(super) fn window(&self) -> u32 {
        if self.edge.after(self.nxt) { self.edge.distance_from(self.nxt) } else { 0 }
    }
}

/// Timestamps (RFC 7323) as agreed at the handshake.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamps {
    /// Added to our clock, so that it tells nothing about the machine.
    pub offset: u32,
    /// TS.Recent.
    pub recent: u32,
    /// When `recent` was set.
    pub recent_at: Instant,
}

/// How many milliseconds a timestamp stays comparable: 24 days (RFC 7323, section 5.5).
const TIMESTAMP_LIFETIME_NS: u64 = 24 * 24 * 3600 * 1_000_000_000;

impl Timestamps {
    /// Our clock's value: milliseconds.
    pub(super) fn value(&self, now: Instant) -> u32 {
        Self::clock(now, self.offset)
    }

    /// The clock of a connection with this offset.
    pub(super) fn clock(now: Instant, offset: u32) -> u32 {
        // The clock wraps after 49 days, which RFC 7323 provides for.
        #[allow(clippy::cast_possible_truncation)]
        let millis = (now.as_nanos() / 1_000_000) as u32;
        millis.wrapping_add(offset)
    }

    /// The option a segment sent now carries, if timestamps were agreed on.
    #[inline]
    pub(super) fn stamp(stamps: Option<&Self>, now: Instant) -> Option<Timestamp> {
        stamps.map(|stamps| Timestamp { value: stamps.value(now), echo: stamps.recent })
    }

    /// True when `value` is older than what was seen before (RFC 7323, section 5.3: PAWS).
    pub(super) fn is_old(&self, value: u32, now: Instant) -> bool {
        (value.wrapping_sub(self.recent)).cast_signed() < 0
            && now.nanos_since(self.recent_at) < TIMESTAMP_LIFETIME_NS
    }
}

/// Deadlines; [`Instant::FAR_FUTURE`] is not armed.
#[derive(Debug)]
pub(super) struct Deadlines {
    /// Retransmission, or the zero-window probe when nothing is in flight.
    pub retransmit: Instant,
    /// The delayed acknowledgment.
    pub delayed_ack: Instant,
    /// End of TIME-WAIT or of an orphan's FIN-WAIT-2, or the next keepalive probe.
    pub idle: Instant,
    /// The next burst of a connection that paces.
    pub pacing: Instant,
    /// Where the wheel's entry stands.
    pub armed: Instant,
}

impl Deadlines {
    pub(super) const fn none() -> Self {
        Self {
            retransmit: Instant::FAR_FUTURE,
            delayed_ack: Instant::FAR_FUTURE,
            idle: Instant::FAR_FUTURE,
            pacing: Instant::FAR_FUTURE,
            armed: Instant::FAR_FUTURE,
        }
    }

    pub(super) fn earliest(&self) -> Instant {
        self.retransmit.min(self.delayed_ack).min(self.idle).min(self.pacing)
    }
}

/// What becomes of a connection after it was worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// It goes on.
    Keep,
    /// It went from SYN-RECEIVED to ESTABLISHED: its listener has it to give away.
    Established,
    /// It is over; its slot is free unless the program still holds it.
    Closed,
    /// It is in TIME-WAIT and this SYN may take its place.
    Reopen,
    /// It goes on, and what its Fast Open taught about the server is to be kept.
    FastOpenLearned,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) key: Key,
    pub(super) state: State,
    /// True once the program let go of it, or never had it: the slot is freed when it is over.
    pub(super) orphan: bool,
    /// True when it let go and waits to be told how that ends (`SO_LINGER`): the slot stays until then.
    pub(super) close_awaited: bool,
    /// True while it stands in the layer's list of connections with something to send.
    pub(super) queued: bool,
    /// True when the program was told that the send queue is full and waits for room.
    pub(super) wants_room: bool,
    /// True when the peer's SYN offered SACK (RFC 2018).
    pub(super) sack_permitted: bool,
    /// True from a passive open's SYN until the connection stands: it counts in its listener's backlog.
    pub(super) opening: bool,
    pub(super) no_delay: bool,
    pub(super) keep_alive: bool,
    pub(super) keepalive: Keepalive,
    /// Send full segments only (`TCP_CORK`).
    pub(super) cork: bool,
    /// For how long closing goes on sending (`SO_LINGER`).
    pub(super) linger: Option<Duration>,
    pub(super) user_timeout: UserTimeout,
    /// Of all that is sent; what ECN says comes in addition. Beside the hop limit, so that both are read at once.
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    /// Retransmissions since the peer last acknowledged something new, or probes unanswered.
    pub(super) retransmissions: u8,
    pub(super) keepalives_sent: u8,
    /// Why it is over.
    pub(super) error: Option<Error>,
    /// True once the program has read the error by `SO_ERROR`.
    pub(super) error_told: bool,
    /// An error the network reported that may pass (RFC 1122, section 4.2.3.9), kept for `SO_ERROR`.
    pub(super) soft_error: Option<Error>,
    /// Where its event stands in the event queue.
    pub(super) mark: EventMark,
    pub(super) user_data: u64,
    /// The listener it came from, until it is accepted.
    pub(super) listener: Option<Key>,
    /// The local address and port the program had bound, to be released with the connection.
    pub(super) bound: Option<Box<Reservation>>,
    pub(super) local_port: u16,
    pub(super) remote_port: u16,
    /// Its ends as they stand in the peer's packets.
    pub(super) ends: PlainEnds,
    /// What the straight way knows of it.
    pub(super) course: Course,
    pub(super) path: Path,
    /// The search for the path's MTU, once it was reduced.
    pub(super) path_search: Option<Box<PathSearch>>,
    /// Until it stands, and only if Fast Open is used.
    pub(super) fast_open: Option<Box<FastOpen>>,
    /// The largest segment the program allows, as in `TCP_MAXSEG`.
    pub(super) max_segment_bytes: Option<u16>,
    /// The peer's MSS option, or the default in its absence.
    pub(super) peer_mss: u16,
    pub(super) snd: Sender,
    pub(super) rcv: Receiver,
    pub(super) timestamps: Option<Timestamps>,
    pub(super) sent: Transmissions,
    pub(super) rtt: RttEstimator,
    pub(super) recovery: Recovery,
    pub(super) congestion: Congestion,
    pub(super) ecn: Ecn,
    /// Of an algorithm that paces or samples deliveries.
    pub(super) pacing: Option<Box<Pacing>>,
    pub(super) deadlines: Deadlines,
    /// From when on an unacceptable segment without text is answered again.
    pub(super) next_challenge: Instant,
    /// When the last segment arrived, for keepalive; when the last data left, for the idle restart.
    pub(super) last_received: Instant,
    pub(super) last_sent: Instant,
}

impl Connection {
    /// Takes the arrow of `trigger`, if there is one. The only place where `state` changes.
    pub(super) fn transition(&mut self, trigger: Trigger, transitions: &mut Transitions) {
        if let Some(next) = self.state.after(trigger) {
            transitions.record(self.state, next);
            self.state = next;
        } else {
            debug_assert!(false, "no arrow from {} for {trigger:?}", self.state);
        }
    }

    /// Tells the program, through the event queue. Nobody is told of a connection nobody holds.
    pub(super) fn raise(&mut self, readiness: Readiness, events: &mut EventQueue) {
        if (self.orphan && !self.close_awaited) || self.listener.is_some() {
            return;
        }
        events.push(&mut self.mark, SocketId::Connection(ConnectionId(self.key)), self.user_data, readiness);
    }

    /// Ends the connection with an error for the program. What was received in order stays readable.
    pub(super) fn fail(&mut self, error: Option<Error>, cx: &mut Context<'_>) -> Disposition {
        if self.state != State::Closed {
            match self.state {
                State::SynSent | State::SynReceived => cx.counters.attempt_fails += 1,
                State::Established | State::CloseWait => cx.counters.established_resets += 1,
                State::Closed
                | State::Listen
                | State::FinWait1
                | State::FinWait2
                | State::Closing
                | State::LastAck
                | State::TimeWait => {}
            }
            self.transition(Trigger::Abort, cx.transitions);
        }
        self.error = self.error.or(error);
        self.release_transfer_state(cx);
        self.raise(Readiness::READABLE | Readiness::WRITABLE | Readiness::CLOSED, cx.events);
        Disposition::Closed
    }

    /// Lets go of everything that only an ongoing transfer needs.
    pub(super) fn release_transfer_state(&mut self, cx: &mut Context<'_>) {
        self.snd.queue = SendQueue::new();
        self.drop_out_of_order(cx);
        self.rcv.ack_now = false;
        self.sent.clear();
        self.recovery.release();
        let armed = self.deadlines.armed;
        self.deadlines = Deadlines { armed, ..Deadlines::none() };
    }

    /// A segment has an option that is looked at beside the straight path.
    #[cold]
    pub(super) fn note_rare_options(&mut self, segment: &Segment, bytes: &[u8], config: &TcpConfig) {
        self.note_sack_blocks(segment, bytes);
        self.note_fast_open_cookie(segment, bytes);
        self.note_user_timeout(segment, config.user_timeout_least, config.user_timeout_most);
    }

    /// True when a turn of output may find something to send.
    #[inline]
    pub(super) fn has_output(&self) -> bool {
        self.rcv.ack_now
            || ((self.snd.unsent() > 0 || self.snd.fin_unsent())
                && (self.state.sends_data() || self.sends_early()))
            || self.sent.lost_bytes() > 0
    }

    /// Our address and port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.path.local, self.local_port)
    }

    /// The peer's address and port.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        SocketAddr::new(self.path.remote, self.remote_port)
    }

    /// True when the connection is the one between these ends.
    #[inline]
    pub(super) fn is_between(
        &self,
        local: IpAddr,
        local_port: u16,
        remote: IpAddr,
        remote_port: u16,
    ) -> bool {
        self.remote_port == remote_port
            && self.local_port == local_port
            && self.path.remote == remote
            && self.path.local == local
    }

    /// The socket options as they stand.
    pub(super) fn options(&self) -> TcpOptions {
        TcpOptions {
            no_delay: self.no_delay,
            keep_alive: self.keep_alive,
            keepalive: self.keepalive,
            linger: self.linger,
            cork: self.cork,
            quick_ack: self.rcv.quick_ack,
            user_timeout: self.user_timeout.own,
            user_timeout_option: self.user_timeout.negotiated,
            // Said when the socket was bound.
            reuse: Reuse::default(),
            send_buffer_bytes: self.snd.limit_bytes,
            send_buffer_max_bytes: self.snd.limit_max_bytes,
            receive_buffer_bytes: self.rcv.limit_bytes as usize,
            receive_buffer_max_bytes: self.rcv.tuning.max_bytes as usize,
            max_segment_bytes: self.max_segment_bytes,
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class,
            congestion: self.algorithm(),
            // Of listeners, and of sockets that are not connected yet.
            fast_open_queue: 0,
            fast_open_connect: false,
        }
    }

    /// Payload bytes of a full segment for what is known of the path, the peer and the program's wish
    /// (RFC 9293, section 3.7.1: Eff.snd.MSS), with the options every segment carries taken off (RFC 6691).
    pub(super) fn effective_mss(&self) -> u16 {
        let headers = if self.path.remote.is_ipv4() { 40 } else { 60 };
        let path_mss = u16::try_from(self.path.mtu.saturating_sub(headers)).unwrap_or(u16::MAX);
        let wish = self.max_segment_bytes.unwrap_or(u16::MAX);
        let options = if self.timestamps.is_some() { 12 } else { 0 };
        // A peer that names a tiny MSS makes us send tiny segments, but never useless ones.
        let asked = self.peer_mss.min(wish).saturating_sub(options).max(MIN_SEGMENT_BYTES);
        asked.min(path_mss.saturating_sub(options)).max(1)
    }

    /// Something that [`Self::effective_mss`] depends on has changed.
    pub(super) fn change_mss(&mut self) {
        self.snd.mss = self.effective_mss();
        self.congestion.on_mss_change(u32::from(self.snd.mss));
    }
}

/// Smallest payload of a full segment, whatever the peer's MSS option says: Linux's floor of 48 bytes
/// less nothing for options keeps one round trip from costing a thousand packets.
pub const MIN_SEGMENT_BYTES: u16 = 36;
