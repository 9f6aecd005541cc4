//! Opening: making connections, SYN-SENT and SYN-RECEIVED, and what the two sides agree on.

use libos::{Error, Instant};

use super::buffers::ReceiveTuning;
use super::config::TcpOptions;
use super::congestion::CongestionControl;
use super::connection::{
    Connection, Context, Deadlines, Disposition, MIN_SEGMENT_BYTES, Receiver, Sender, Settings, Timestamps,
};
use super::connections::Course;
use super::ecn::{Ecn, EcnMode};
use super::express::PlainEnds;
use super::options::{MAX_WINDOW_SCALE, OptionFields, Timestamp};
use super::pacing::Pacing;
use super::ports::Reservation;
use super::receive_queue::ReceiveQueue;
use super::recovery::Recovery;
use super::rtt::{RtoConfig, RttEstimator};
use super::segment::{Flags, HeaderFields, Segment};
use super::selective::SelectiveReport;
use super::send_queue::SendQueue;
use super::sequence::SequenceNumber;
use super::state::{State, Trigger};
use super::transmissions::Transmissions;
use super::user_timeout::UserTimeout;
use super::window;
use crate::events::{EventMark, Readiness};
use crate::network::Path;
use crate::slab::Key;

/// What a connection is made from.
pub(super) struct Opening<'a> {
    pub key: Key,
    pub path: Path,
    pub local_port: u16,
    pub remote_port: u16,
    pub iss: SequenceNumber,
    pub timestamp_offset: u32,
    pub options: &'a TcpOptions,
    pub now: Instant,
}

/// The MSS that a peer without the option is taken to have (RFC 9293, section 3.7.1).
pub(super) const fn default_mss(ipv4: bool) -> u16 {
    if ipv4 { 536 } else { 1220 }
}

/// The MSS option we send: what the path carries, or less if the program wishes.
pub(super) fn own_mss(path: &Path, wish: Option<u16>) -> u16 {
    let headers_bytes = if path.remote.is_ipv4() { 40 } else { 60 };
    let path_mss = u16::try_from(path.mtu.saturating_sub(headers_bytes)).unwrap_or(u16::MAX);
    path_mss.min(wish.unwrap_or(u16::MAX))
}

/// The largest window that a socket with these options offers at first, and the largest it ever may.
pub(super) fn receive_limits(options: &TcpOptions) -> (u32, u32) {
    let limit = |bytes| u32::try_from(bytes).unwrap_or(u32::MAX).clamp(1, 1 << 30);
    let first = limit(options.receive_buffer_bytes);
    (first, limit(options.receive_buffer_max_bytes).max(first))
}

impl Connection {
    fn new(state: State, opening: Opening<'_>, settings: &Settings) -> Self {
        let Opening { key, path, local_port, remote_port, iss, timestamp_offset, options, now } = opening;
        let config = &settings.config;
        let (limit_bytes, limit_max_bytes) = receive_limits(options);
        let zero = SequenceNumber::new(0);
        let peer_mss = default_mss(path.remote.is_ipv4());
        let congestion = options.congestion.start();
        let rtt = RttEstimator::new(&RtoConfig {
            initial_ns: libos::time::duration_nanos(config.rto_initial),
            min_ns: libos::time::duration_nanos(config.rto_min),
            max_ns: libos::time::duration_nanos(config.rto_max),
        });
        Self {
            key,
            state,
            orphan: false,
            close_awaited: false,
            queued: false,
            wants_room: false,
            sack_permitted: false,
            opening: false,
            no_delay: options.no_delay,
            keep_alive: options.keep_alive,
            keepalive: options.keepalive,
            cork: options.cork,
            linger: options.linger,
            user_timeout: UserTimeout::new(options.user_timeout, options.user_timeout_option),
            hop_limit: options.hop_limit,
            traffic_class: options.traffic_class,
            retransmissions: 0,
            keepalives_sent: 0,
            error: None,
            error_told: false,
            soft_error: None,
            mark: EventMark::default(),
            user_data: 0,
            listener: None,
            bound: None,
            local_port,
            remote_port,
            ends: PlainEnds::of(&path, local_port, remote_port),
            course: Course::default(),
            path,
            path_search: None,
            fast_open: None,
            max_segment_bytes: options.max_segment_bytes,
            peer_mss,
            snd: Sender {
                iss,
                una: iss,
                nxt: iss,
                max: iss,
                front: iss + 1,
                wnd: 0,
                max_wnd: 0,
                wl1: zero,
                wl2: zero,
                scale: 0,
                mss: peer_mss,
                fin: false,
                queue: SendQueue::new(),
                limit_bytes: options.send_buffer_bytes.clamp(1, 1 << 30),
                limit_max_bytes: options.send_buffer_max_bytes.min(1 << 30),
            },
            rcv: Receiver {
                irs: zero,
                nxt: zero,
                edge: zero,
                last_ack_sent: zero,
                scale: if config.window_scaling { window::scale_for(limit_max_bytes) } else { 0 },
                fin: false,
                fin_at: None,
                arrived: false,
                ack_now: false,
                shut: false,
                quick_ack: options.quick_ack,
                one_way: false,
                last_data: Instant::ZERO,
                segment_bytes: 0,
                ahead_of_gap: 0,
                report: SelectiveReport::default(),
                queue: ReceiveQueue::new(limit_bytes as usize),
                reassembly: None,
                limit_bytes,
                tuning: ReceiveTuning::new(limit_max_bytes),
            },
            timestamps: config.timestamps.then_some(Timestamps {
                offset: timestamp_offset,
                recent: 0,
                recent_at: now,
            }),
            sent: Transmissions::new(now),
            rtt,
            recovery: Recovery::new(iss),
            pacing: Pacing::of(&congestion),
            congestion,
            ecn: Ecn::new(iss),
            deadlines: Deadlines::none(),
            next_challenge: Instant::ZERO,
            last_received: now,
            last_sent: now,
        }
    }

    /// An active open (RFC 9293, section 3.10.1). The SYN goes out with the next turn of output.
    pub(super) fn connect(opening: Opening<'_>, bound: Option<Reservation>, settings: &Settings) -> Self {
        Self { bound: bound.map(Box::new), ..Self::new(State::Closed, opening, settings) }
    }

    /// A passive open: `syn` came to a listener (RFC 9293, section 3.10.7.2).
    pub(super) fn accept(
        opening: Opening<'_>,
        listener: Key,
        syn: &Segment,
        traffic_class: u8,
        settings: &Settings,
    ) -> Self {
        let mut connection = Self::new(State::Listen, opening, settings);
        connection.listener = Some(listener);
        connection.opening = true;
        connection.take_peer_syn(syn, settings);
        connection.ecn.on_peer_syn(syn.flags, traffic_class, settings.config.ecn);
        connection
    }

    /// Sends the first SYN or SYN-ACK, from which on the connection is in SYN-SENT or SYN-RECEIVED.
    pub(super) fn open(&mut self, trigger: Trigger, cx: &mut Context<'_>) {
        self.transition(trigger, cx.transitions);
        self.snd.nxt = self.snd.iss + 1;
        self.snd.max = self.snd.nxt;
        if self.fast_open.is_some() && self.defer_syn(cx) {
            return;
        }
        self.send_syn(cx);
        self.arm_retransmission(cx);
    }

    /// Takes what a SYN says: the initial sequence number and the options (RFC 7323, RFC 2018).
    fn take_peer_syn(&mut self, syn: &Segment, settings: &Settings) {
        self.rcv.irs = syn.sequence;
        self.rcv.nxt = syn.sequence + 1;
        self.rcv.edge = self.rcv.nxt;
        self.rcv.last_ack_sent = self.rcv.nxt;
        let options = &syn.options;
        if let Some(mss) = options.mss {
            self.peer_mss = mss.max(MIN_SEGMENT_BYTES);
        }
        self.sack_permitted = options.sack_permitted && settings.config.sack;
        match (options.window_scale, settings.config.window_scaling) {
            (Some(scale), true) => self.snd.scale = scale.min(MAX_WINDOW_SCALE),
            // Both sides scale or none does (RFC 7323, section 2.2).
            (_, _) => {
                self.snd.scale = 0;
                self.rcv.scale = 0;
            }
        }
        self.timestamps = match (self.timestamps, options.timestamp) {
            (Some(ours), Some(theirs)) => Some(Timestamps { recent: theirs.value, ..ours }),
            (Some(_), None) | (None, _) => None,
        };
        if let Some(asked) = options.user_timeout {
            let config = &settings.config;
            self.user_timeout.heed(asked.duration(), config.user_timeout_least, config.user_timeout_most);
        }
        // The window of a segment with SYN is never scaled (RFC 7323, section 2.2).
        self.snd.wnd = u32::from(syn.window);
        self.snd.max_wnd = self.snd.wnd;
        self.snd.wl1 = syn.sequence;
        self.snd.mss = self.effective_mss();
    }

    /// The SYN-ACK was sent when there was no connection yet, with a cookie for its number. It cannot be timed.
    pub(super) fn was_opened_by_cookie(&mut self) {
        self.snd.nxt = self.snd.iss + 1;
        self.snd.max = self.snd.nxt;
        self.rcv.edge = self.rcv.nxt + self.rcv.free_space().min(u32::from(u16::MAX));
    }

    /// Sends the SYN (SYN-SENT) or the SYN-ACK (SYN-RECEIVED), first or again.
    pub(super) fn send_syn(&mut self, cx: &mut Context<'_>) {
        let answers = self.state == State::SynReceived;
        // Before the peer's SYN came, the options are an offer; after it, they are what was agreed.
        let offers_scaling = if answers {
            self.snd.scale != 0 || self.rcv.scale != 0
        } else {
            cx.settings.config.window_scaling
        };
        let timestamp = self.timestamps.map(|stamps| Timestamp {
            value: stamps.value(cx.now),
            echo: if answers { stamps.recent } else { 0 },
        });
        let cookie = self.fast_open_option();
        let options = OptionFields {
            mss: Some(own_mss(&self.path, self.max_segment_bytes)),
            // Beside a cookie there may be no room. It comes again with the first segment after the handshake.
            user_timeout: if cookie.is_some() { None } else { self.user_timeout.option_of_syn() },
            fast_open: cookie.as_ref(),
            window_scale: offers_scaling.then_some(self.rcv.scale),
            timestamp,
            sack_permitted: if answers { self.sack_permitted } else { cx.settings.config.sack },
            ..OptionFields::default()
        };
        let window = self.rcv.free_space().min(u32::from(u16::MAX));
        // The edge counts from the peer's first byte; before its SYN came there is none to count from. Data that left
        // before the handshake was over has offered more.
        if answers && (self.rcv.nxt + window).after(self.rcv.edge) {
            self.rcv.edge = self.rcv.nxt + window;
        }
        let fields = HeaderFields {
            source_port: self.local_port,
            destination_port: self.remote_port,
            sequence: self.snd.iss,
            acknowledgment: if answers { self.rcv.nxt } else { SequenceNumber::new(0) },
            flags: if answers {
                Flags::SYN | Flags::ACK | self.ecn.on_syn_ack()
            } else {
                let mode = cx.settings.config.ecn;
                let asks = self.asks_for_ecn(mode);
                // One that waits for a neighbour's address has not been lost for asking.
                let waits = self.retransmissions > 0 && cx.network.awaits_neighbor(&self.path);
                let times_before = if waits { 0 } else { self.retransmissions };
                Flags::SYN | self.ecn.on_syn(asks, mode == EcnMode::Accurate, times_before)
            },
            window: u16::try_from(window).unwrap_or(u16::MAX),
            urgent: 0,
            options,
        };
        let mut end = self.snd.iss + 1;
        if cookie.is_some() && self.send_syn_with_data(&fields, cx) {
            end = self.snd.nxt;
        } else {
            let sent = self.send_empty(&fields, cx);
            if answers && sent {
                self.note_syn_ack_sent();
            }
        }
        self.sent.on_sent(self.snd.iss, end, self.snd.mss, cx.now);
    }

    /// A segment for SYN-SENT (RFC 9293, section 3.10.7.3).
    pub(super) fn on_segment_in_syn_sent(
        &mut self,
        segment: &Segment,
        traffic_class: u8,
        cx: &mut Context<'_>,
    ) -> Disposition {
        let acknowledges = segment.flags.contains(Flags::ACK);
        if acknowledges
            && (segment.acknowledgment.at_or_before(self.snd.iss)
                || segment.acknowledgment.after(self.snd.max))
        {
            // First: an acknowledgment of something never sent is answered with a reset.
            if !segment.flags.contains(Flags::RST) {
                super::reset::answer(self, segment, cx);
            }
            return Disposition::Keep;
        }
        if segment.flags.contains(Flags::RST) {
            // Second: a reset counts only if it acknowledges our SYN.
            if acknowledges {
                return self.fail(Some(Error::ConnectionRefused), cx);
            }
            return Disposition::Keep;
        }
        if !segment.flags.contains(Flags::SYN) {
            return Disposition::Keep;
        }
        // Fourth.
        self.take_peer_syn(segment, cx.settings);
        if acknowledges {
            self.take_syn_ack(segment.acknowledgment);
            self.snd.wl2 = segment.acknowledgment;
            self.rcv.edge = self.rcv.nxt + self.rcv.free_space().min(u32::from(u16::MAX));
            self.ecn.on_peer_syn_ack(segment.flags, traffic_class);
            self.transition(Trigger::SynAck, cx.transitions);
            self.rcv.ack_now = true;
            self.on_established(cx);
            if self.ecn.owes_answer() {
                // Without data, which may wait to ride on it.
                self.send_acknowledgment(cx);
                self.ecn.answered();
            }
            return self.settle_fast_open(cx);
        } else {
            // Simultaneous open (RFC 9293, section 3.5, figure 7).
            self.ecn.on_peer_syn(segment.flags, traffic_class, self.ecn.asked());
            self.transition(Trigger::Syn, cx.transitions);
            self.send_syn(cx);
            self.arm_retransmission(cx);
        }
        Disposition::Keep
    }

    /// Our SYN is acknowledged, and the peer's was received.
    pub(super) fn on_established(&mut self, cx: &mut Context<'_>) {
        match self.sent.on_acknowledged(self.snd.una, cx.now).timed_from() {
            Some(sent_at) => {
                self.rtt.sample(cx.now.nanos_since(sent_at), cx.settings.clock_granularity_ns);
            }
            None if self.retransmissions > 0 => self.rtt.on_lost_syn(),
            // Sent again because the peer asked for it, so that its acknowledgment times nothing.
            None => {}
        }
        if self.snd.una == self.snd.max {
            // Data of our SYN that the peer did not take has no record: it is sent as if for the first time.
            self.sent.clear();
        }
        self.limit_receive_buffer(self.rcv.limit_bytes);
        self.begin_receive_tuning(cx.now);
        self.snd.mss = self.effective_mss();
        // Data that left before the handshake was over began with it.
        if !self.is_early() || self.retransmissions > 0 {
            self.congestion.on_established(u32::from(self.snd.mss), cx.now);
            if let Some(rtt_ns) = self.rtt.srtt_ns() {
                self.congestion.on_first_rtt(rtt_ns);
            }
        }
        self.retransmissions = 0;
        self.restart_retransmission(cx);
        self.start_keepalive(cx.now);
        self.raise(Readiness::CONNECTED | Readiness::WRITABLE, cx.events);
    }
}
