//! The straight way of a segment on a connection where nothing but data and its acknowledgments is under way: a
//! handful of comparisons, then only what changes (header prediction: Jacobson, "4BSD Header Prediction", 1990).
//!
//! Both directions find out first and change nothing until they know; whatever is unusual takes the general way,
//! which does the same and all else.

use std::net::{IpAddr, Ipv4Addr};

use libos::runtime::TxOffload;
use libos::{Buffer, Instant, RxFrame, ScatterGather};

use super::congestion::{AckEvent, CongestionControl};
use super::connection::{Connection, Deadlines, Settings, Timestamps};
use super::connections::Course;
use super::demux::FourTuple;
use super::ecn;
use super::emit::{STAMP_LEAD, STAMPED_BYTES, stamped_header};
use super::layer::{TcpLayer, schedule};
use super::options::Timestamp;
use super::segment::Flags;
use super::sequence::SequenceNumber;
use super::state::State;
use crate::events::{ConnectionId, EventQueue, Readiness};
use crate::network::{Network, PacketKind, Path, Plain, PlainProtocol, Refusal, TransportHeader};
use crate::waiting::Waiting;

/// Buffers of a send queue beyond which its limit is looked at more closely.
const FEW_CHUNKS: usize = 16;

/// Header length and flags, as they stand in the fourth word of a header with timestamps and nothing else: an
/// acknowledgment, pushed or not.
pub(super) const CONTROL: u32 = (STAMPED_BYTES as u32 / 4) << 28 | (Flags::ACK.bits() as u32) << 16;
pub(super) const CONTROL_MASK: u32 = 0xffff_0000 & !((Flags::PSH.bits() as u32) << 16);

/// A received header with timestamps and nothing else, and the payload's length.
#[derive(Debug, Clone, Copy)]
struct Expected {
    sequence: SequenceNumber,
    acknowledgment: SequenceNumber,
    window: u16,
    stamp: Timestamp,
    len: u32,
}

/// Both ends of a connection over IPv4 as they stand in the headers of the peer's packets. Over IPv6 they are those of no
/// packet: nobody is at 0.0.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainEnds {
    pub(super) remote: Ipv4Addr,
    pub(super) local: Ipv4Addr,
    /// The peer's port in the upper half, ours in the lower.
    pub(super) ports: u32,
}

impl PlainEnds {
    pub(super) fn of(path: &Path, local_port: u16, remote_port: u16) -> Self {
        let (remote, local) = match (path.remote, path.local) {
            (IpAddr::V4(remote), IpAddr::V4(local)) => (remote, local),
            (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => {
                (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED)
            }
        };
        Self { remote, local, ports: u32::from(remote_port) << 16 | u32::from(local_port) }
    }

    pub(super) const fn tuple(self) -> FourTuple {
        FourTuple::V4 {
            local: self.local.to_bits(),
            remote: self.remote.to_bits(),
            ports: self.ports.rotate_left(16),
        }
    }
}

impl Expected {
    #[inline(always)]
    fn parse(segment: &[u8]) -> Option<Self> {
        let (words, _) = segment.first_chunk::<STAMPED_BYTES>()?.as_chunks::<4>();
        let word = |index: usize| u32::from_be_bytes(words[index]);
        let control = word(3);
        if control & CONTROL_MASK != CONTROL || word(5) != u32::from_be_bytes(STAMP_LEAD) {
            return None;
        }
        Some(Self {
            sequence: SequenceNumber::new(word(1)),
            acknowledgment: SequenceNumber::new(word(2)),
            window: control as u16,
            stamp: Timestamp { value: word(6), echo: word(7) },
            // A frame is at most 64 KiB and a bit.
            len: (segment.len() - STAMPED_BYTES) as u32,
        })
    }
}

impl TcpLayer {
    /// Takes a segment of the usual kind of packet.
    #[inline(always)]
    pub(crate) fn receive_plain(
        &mut self,
        now: Instant,
        plain: Plain,
        frame: RxFrame,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        let segment = frame.head.get(plain.start..plain.end).unwrap_or_default();
        let ends = PlainEnds { remote: plain.source, local: plain.destination, ports: plain.ports };
        let found = self.table.get(
            || ends.tuple(),
            |index| self.connections.get_index(index).is_some_and(|connection| connection.ends == ends),
        );
        if let Some(index) = found
            && let Some(connection) = self.connections.straight_index_mut(index)
            && !self.shared.memory_short
            && frame.segment_bytes == 0
            && plain.traffic_class & ecn::FIELD == 0
        {
            if let Some(next) = connection.next(segment) {
                self.shared.counters.in_segments += 1;
                return self.take_next(now, index, next, plain, frame, network, events, waiting);
            }
            if let Some(expected) = Expected::parse(segment)
                && connection.expects(&expected, now)
            {
                self.shared.counters.in_segments += 1;
                // A plain frame has no further buffers to drop.
                std::mem::forget(frame.rest);
                let mut data = frame.head;
                data.truncate(plain.end);
                data.advance(plain.start + STAMPED_BYTES);
                connection.on_expected(&expected, data, now, &self.shared.settings, network, events, waiting);
                self.schedule_straight(index);
                return;
            }
        }
        self.receive(now, plain.packet(frame), network, events, waiting);
    }

    /// [`schedule`] after a straight segment, which moves two of the deadlines.
    #[inline(always)]
    fn schedule_straight(&mut self, index: u32) {
        let Some(connection) = self.connections.straight_index_mut(index) else { return };
        let Deadlines { retransmit, delayed_ack, armed, .. } = connection.deadlines;
        // What sends straight away has nothing else that waits.
        let is_silent = connection.course.sends() && !connection.rcv.ack_now;
        if !is_silent || retransmit.min(delayed_ack) < armed {
            schedule(connection, index, &mut self.outgoing, &mut self.timers);
        }
    }

    /// Sends the one buffer of `data` at once, if nothing is in its way, and leaves `data` empty. False, and
    /// nothing done, for all else.
    #[inline(always)]
    pub(crate) fn send_express(
        &mut self,
        now: Instant,
        id: ConnectionId,
        data: &mut ScatterGather,
        network: &mut Network,
    ) -> bool {
        let Some(connection) = self.connections.straight_mut(id.0) else { return false };
        // What is pushed beside others waits, so that small messages share segments.
        if !network.frames().is_empty() {
            return false;
        }
        if connection.course.is_ready()
            && let Some(frame) = self.straight(now, network, id, data)
        {
            network.frames().push_frame(frame, TxOffload::default());
            return true;
        }
        self.send_behind(now, id, data, network)
    }

    /// [`Self::send_express`] where something is in flight or nothing is known.
    #[inline(never)]
    fn send_behind(
        &mut self,
        now: Instant,
        id: ConnectionId,
        data: &mut ScatterGather,
        network: &mut Network,
    ) -> bool {
        let Some(connection) = self.connections.straight_mut(id.0) else { return false };
        let Some(buffer) = data.single_mut() else { return false };
        let len = buffer.len();
        if !connection.may_send_express(len, now) {
            return false;
        }
        if !connection.emit_express(buffer, now, network) {
            return false;
        }
        self.shared.counters.out_segments += 1;
        // Not more than a segment's.
        connection.sent_express(data, len as u32, now, &self.shared.settings);
        let due = connection.deadlines.retransmit;
        if due < connection.deadlines.armed {
            connection.deadlines.armed = due;
            self.timers.arm(id.0.index, due);
        }
        true
    }
}

impl Connection {
    /// Finds out what stands in the way of the segments that usually come next.
    #[inline(never)]
    pub(super) fn survey(&mut self) -> Course {
        // Nothing but data and acknowledgments goes to and fro, and all that was sent is in flight.
        let is_calm = self.state == State::Established
            && self.snd.nxt == self.snd.max
            && self.snd.front == self.snd.una
            && !self.snd.fin
            && self.recovery.is_quiet()
            && !self.ecn.is_agreed()
            && self.pacing.is_none()
            && self.timestamps.is_some()
            && self.rcv.reassembly.is_none();
        let receives = is_calm && !self.orphan && self.rcv.fin_at.is_none();
        let sends = is_calm
            && self.snd.nxt == self.snd.end()
            && self.path_search.is_none()
            && !self.has_report()
            && self.rcv.ahead_of_gap == 0
            && !self.user_timeout.is_to_be_told()
            && !self.cork;
        self.course = if receives && sends && self.is_at_rest() {
            self.choose_alarm();
            Course::READY
        } else {
            Course::new(receives, sends)
        };
        self.course
    }

    /// True for the segment that comes next: data in order, an acknowledgment of what is in flight, or both.
    #[inline(always)]
    fn expects(&mut self, segment: &Expected, now: Instant) -> bool {
        if self.course.waits() {
            self.share_flight();
        }
        let acknowledged = segment.acknowledgment.distance_from(self.snd.una);
        (self.course.receives() || self.survey().receives())
            && segment.sequence == self.rcv.nxt
            && segment.len <= self.rcv.window()
            && acknowledged <= self.snd.max.distance_from(self.snd.una)
            // Of neither, it may count as a duplicate, or answer a probe.
            && (acknowledged > 0 || segment.len > 0)
            && self.snd.wnd > 0
            && self.timestamps.is_some_and(|ours| !ours.is_old(segment.stamp.value, now))
    }

    /// Takes the segment that was expected: `data` is its payload.
    #[allow(clippy::too_many_arguments, reason = "what a context holds, of which this needs little")]
    #[inline(never)]
    fn on_expected(
        &mut self,
        segment: &Expected,
        data: Buffer,
        now: Instant,
        settings: &Settings,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        self.last_received = now;
        self.keepalives_sent = 0;
        if segment.sequence.at_or_before(self.rcv.last_ack_sent)
            && let Some(ours) = &mut self.timestamps
        {
            ours.recent = segment.stamp.value;
            ours.recent_at = now;
        }
        let acknowledged = segment.acknowledgment.distance_from(self.snd.una);
        if acknowledged > 0 {
            self.on_expected_acknowledgment(segment, acknowledged, now, settings, network, events);
            if self.snd.una == self.snd.nxt {
                self.survey();
            }
        }
        if self.tells_window(segment.sequence, segment.acknowledgment) {
            self.set_window(segment.window, segment.sequence, segment.acknowledgment);
        }
        if segment.len > 0 {
            self.on_expected_data(segment.len, data, now, settings, network, events, waiting);
        }
    }

    #[allow(clippy::too_many_arguments, reason = "as its caller")]
    #[inline(always)]
    fn on_expected_data(
        &mut self,
        len: u32,
        data: Buffer,
        now: Instant,
        settings: &Settings,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        self.count_toward_acknowledgment(len, 0, now, settings.delayed_ack_ns);
        self.rcv.nxt += len;
        if self.rcv.nxt.at_or_after(self.rcv.tuning.look_at) {
            self.tune_receive_buffer(now, false);
        }
        if self.rcv.shut {
            return;
        }
        let data = if self.rcv.queue.len_bytes() == 0 {
            match waiting.offer_data(self.user_data, data.into()) {
                Ok(()) => return self.consider_window_update(),
                Err(mut refused) => refused.take_single(),
            }
        } else {
            Some(data)
        };
        if let Some(data) = data {
            self.rcv.queue.push(data.by_fields(), network.arena());
        }
        self.announce_data(waiting, events);
    }

    /// Some of what is in flight is acknowledged, and nothing is amiss.
    #[inline(always)]
    fn on_expected_acknowledgment(
        &mut self,
        segment: &Expected,
        acknowledged: u32,
        now: Instant,
        settings: &Settings,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let in_flight_before = self.snd.in_flight();
        self.snd.una = segment.acknowledgment;
        self.snd.front = segment.acknowledgment;
        self.snd.queue.acknowledge(acknowledged as usize);
        let timed_from = self.sent.on_plain_acknowledged(segment.acknowledgment, now);
        let rtt_ns = self.measure_rtt(timed_from, Some(segment.stamp), now, settings);
        self.retransmissions = 0;
        self.soft_error = None;
        network.confirm(now, &mut self.path);
        let usable_before = self.snd.wnd.min(self.congestion.cwnd_bytes());
        let wanted = in_flight_before + u32::from(self.snd.mss);
        let app_limited = wanted <= usable_before;
        if !(app_limited && self.congestion.passes_over(wanted)) {
            self.congestion.on_ack(&AckEvent {
                now,
                bytes_acked: acknowledged,
                bytes_in_flight: in_flight_before,
                rtt_ns,
                app_limited,
                in_recovery: false,
                ecn_echo: false,
            });
        }
        self.restart_retransmission_at(now, settings);
        if self.wants_room && self.snd.queue.len_bytes() < self.snd.limit_bytes {
            self.wants_room = false;
            self.raise(Readiness::WRITABLE, events);
        }
    }

    /// True when `len` bytes may go at once, behind nothing else and in one segment.
    #[inline(always)]
    fn may_send_express(&mut self, len: usize, now: Instant) -> bool {
        if self.course.waits() {
            self.share_flight();
        }
        let in_flight = self.snd.in_flight();
        let ready = (self.course.sends() || self.survey().sends())
            && (1..=usize::from(self.snd.mss)).contains(&len)
            && (self.no_delay || in_flight == 0)
            && self.snd.queue.len_bytes() + len <= self.snd.limit_bytes
            && self.snd.queue.chunks() < FEW_CHUNKS;
        if !ready {
            return false;
        }
        if in_flight == 0 {
            self.restart_after_idle(now);
        }
        // Not more than a segment's.
        in_flight + len as u32 <= self.snd.wnd.min(self.congestion.cwnd_bytes())
    }

    /// The header of the segment that comes next; `None` without timestamps.
    #[inline(always)]
    pub(super) fn next_header(
        &self,
        window: u16,
        now: Instant,
    ) -> Option<TransportHeader<{ STAMPED_BYTES / 4 }>> {
        let stamp = Timestamps::stamp(self.timestamps.as_ref(), now)?;
        let ports = self.ends.ports.rotate_left(16);
        let flags = Flags::ACK | Flags::PSH;
        Some(stamped_header(ports, self.snd.nxt, self.rcv.nxt, flags, window, stamp))
    }

    #[inline(never)]
    fn emit_express(&mut self, payload: &mut Buffer, now: Instant, network: &mut Network) -> bool {
        let window = self.rcv.advertise(self.snd.mss);
        let Some(header) = self.next_header(window, now) else { return false };
        let kind = PacketKind::new(PlainProtocol::Tcp, self.hop_limit, self.traffic_class);
        match network.send_express_kept(now, &self.path, kind, header, payload) {
            Ok(()) => true,
            Err(Refusal::Shared) => self.emit_shared(payload, now, network),
            Err(Refusal::Unusual) => false,
        }
    }

    /// [`Self::emit_express`] of a payload that others hold as well.
    #[inline(never)]
    fn emit_shared(&mut self, payload: &Buffer, now: Instant, network: &mut Network) -> bool {
        let window = self.rcv.advertise(self.snd.mss);
        let Some(header) = self.next_header(window, now) else { return false };
        let kind = PacketKind::new(PlainProtocol::Tcp, self.hop_limit, self.traffic_class);
        network.send_express_shared(now, &self.path, kind, header, payload.clone()).is_ok()
    }

    /// What [`Self::emit_express`] sent is in flight.
    #[inline(never)]
    fn sent_express(&mut self, data: &mut ScatterGather, len: u32, now: Instant, settings: &Settings) {
        if let Some(buffer) = data.take_single() {
            self.snd.queue.push(buffer);
        }
        let sequence = self.snd.nxt;
        if self.snd.una == sequence {
            self.deadlines.retransmit = Instant::FAR_FUTURE;
        }
        self.snd.nxt = sequence + len;
        self.snd.max = self.snd.nxt;
        if self.course.is_ready() {
            self.course = Course::BUSY;
        }
        self.sent.on_sent(sequence, self.snd.nxt, self.snd.mss, now);
        self.last_sent = now;
        self.rcv.one_way = false;
        self.rcv.ack_now = false;
        self.acknowledgment_sent();
        if self.deadlines.retransmit == Instant::FAR_FUTURE {
            self.deadlines.retransmit = self.flight_deadline(now, settings);
            if self.user_timeout.limit.is_some() {
                self.deadlines.retransmit =
                    self.deadlines.retransmit.min(self.user_timeout.deadline(self.snd.una));
            }
        }
    }
}
