//! The shortest way: one message is said, then it is answered, and nothing else is under way. What most connections do where
//! latency counts, and where each is a single segment: then one is in flight at most, and no account has to be kept
//! of which.
//!
//! While a connection is [`Course::READY`], nothing is in flight or pending; what is pushed makes it [`Course::WAITS`]
//! until it is acknowledged. In between, the segment is in no list: it is from SND.UNA to SND.NXT, and left at `last_sent`.
//! Whoever else gets hold of the connection finds it in the lists as ever, by [`Connection::settle_lone`]. All that is looked at but
//! rarely changes is looked at when the connection becomes ready; what changes without anybody getting hold of the connection is
//! compared with each segment.

use libos::{Buffer, Instant, RxFrame};

use super::congestion::{AckEvent, CongestionControl};
use super::connection::{Connection, Settings};
use super::connections::Course;
use super::ecn;
use super::emit::{STAMP_LEAD, STAMPED_BYTES};
use super::express::{CONTROL, CONTROL_MASK, PlainEnds};
use super::layer::{TcpLayer, schedule};
use super::recovery::Alarm;
use super::sequence::SequenceNumber;
use crate::events::EventQueue;
use crate::network::{Network, PacketKind, Plain, PlainProtocol, Refusal};
use crate::waiting::Waiting;

/// A header with timestamps and nothing else, as it stands in the segment.
type Header = [[u8; 4]; STAMPED_BYTES / 4];

#[inline(always)]
fn sequence(word: [u8; 4]) -> SequenceNumber {
    SequenceNumber::new(u32::from_be_bytes(word))
}

/// What the segment says that comes next, beside what was known before.
#[derive(Debug, Clone, Copy)]
struct Next {
    window: u16,
    /// The peer's time stamp.
    stamp: u32,
    /// Bytes of payload.
    len: u32,
}

/// What is left to do after a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// There is something to send, or a deadline that is earlier than all.
    Scheduling,
}

impl TcpLayer {
    /// Takes a segment that is all that its connection waits for.
    ///
    /// # Errors
    /// The frame, and nothing done, for all else.
    #[inline(always)]
    pub(super) fn receive_lone(
        &mut self,
        now: Instant,
        plain: Plain,
        frame: RxFrame,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) -> Result<(), RxFrame> {
        let segment = frame.head.get(plain.start..plain.end).unwrap_or_default();
        let Some(bytes) = segment.first_chunk::<STAMPED_BYTES>() else { return Err(frame) };
        let (words, _) = bytes.as_chunks::<4>();
        let Some(header) = words.first_chunk() else { return Err(frame) };
        // A frame is at most 64 KiB and a bit.
        let len = (segment.len() - STAMPED_BYTES) as u32;
        let index = self.table.last();
        let Some(connection) = self.connections.straight_index_mut(index) else { return Err(frame) };
        let ends = PlainEnds { remote: plain.source, local: plain.destination, ports: plain.ports };
        if connection.ends != ends
            || self.shared.memory_short
            || frame.segment_bytes != 0
            || plain.traffic_class & ecn::FIELD != 0
        {
            return Err(frame);
        }
        let Some(next) = connection.next(header, len) else { return Err(frame) };
        self.shared.counters.in_segments += 1;
        // A plain frame has no further buffers to drop.
        std::mem::forget(frame.rest);
        let mut data = frame.head;
        data.truncate(plain.end);
        data.advance(plain.start + STAMPED_BYTES);
        let left = connection.on_next(next, data, now, &self.shared.settings, network, events, waiting);
        if left == Left::Scheduling {
            schedule(connection, index, &mut self.outgoing, &mut self.timers);
        }
        Ok(())
    }
}

impl Connection {
    /// True when nothing is in flight or pending: of a connection whose segments can be taken and sent straight away.
    pub(super) fn is_at_rest(&self) -> bool {
        self.snd.una == self.snd.nxt
            && self.snd.wnd > 0
            // What comes next is not older than what told the window.
            && self.snd.wl1.at_or_before(self.rcv.nxt)
            && !self.wants_room
            && self.snd.limit_bytes >= usize::from(self.snd.mss)
            && !self.sent.is_app_limited()
            && self.retransmissions == 0
            && self.keepalives_sent == 0
            && self.soft_error.is_none()
            && self.user_timeout.limit.is_none()
            && self.path.is_confirmed()
            && !self.rcv.shut
            && !self.rcv.ack_now
            && !self.rcv.quick_ack
            && !self.rcv.one_way
            && self.rcv.is_plain(self.snd.mss)
    }

    /// What the deadline of a lone segment will stand for: two may wait for a delayed acknowledgment, less than two are
    /// not probed for before the timeout (see [`Self::probe_timeout_ns`]).
    pub(super) fn choose_alarm(&mut self) {
        self.recovery.alarm = if self.sack_permitted { Alarm::TailProbe } else { Alarm::Retransmission };
    }

    /// Puts the one segment in flight into the lists where any other is.
    #[inline(never)]
    pub(super) fn settle_lone(&mut self) {
        self.snd.queue.settle_lone();
        self.sent.on_sent(self.snd.una, self.snd.nxt, self.snd.mss, self.last_sent);
    }

    /// Something joins or only partly ends what the one segment in flight began.
    #[cold]
    pub(super) fn share_flight(&mut self) {
        self.settle_lone();
        self.course = Course::BUSY;
    }

    /// What a segment says that comes next: an answer to all that is in flight, data in order, or both.
    #[inline(always)]
    fn next(&self, header: &Header, len: u32) -> Option<Next> {
        let [_, at, acknowledgment, control, _, lead, stamp, _] = *header;
        let control = u32::from_be_bytes(control);
        let window = control as u16;
        let stamp = u32::from_be_bytes(stamp);
        let is_next = (self.course == Course::WAITS || (self.course == Course::READY && len > 0))
            && control & CONTROL_MASK == CONTROL
            && lead == STAMP_LEAD
            && sequence(at) == self.rcv.nxt
            && sequence(acknowledgment) == self.snd.nxt
            && (self.rcv.nxt + len).at_or_before(self.rcv.edge)
            && window != 0
            // An older stamp may be right all the same, after a long time.
            && self.timestamps.is_some_and(|ours| stamp.wrapping_sub(ours.recent).cast_signed() >= 0);
        is_next.then_some(Next { window, stamp, len })
    }

    /// Takes the segment that comes next: `data` is its payload.
    #[allow(clippy::too_many_arguments, reason = "what a context holds, of which this needs little")]
    #[inline(always)]
    fn on_next(
        &mut self,
        next: Next,
        data: Buffer,
        now: Instant,
        settings: &Settings,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) -> Left {
        let Next { window, stamp, len } = next;
        self.last_received = now;
        self.note_stamp(stamp, now);
        if self.course.waits() {
            self.course = Course::READY;
            self.on_lone_acknowledgment(now, settings);
        }
        self.set_window(window, self.rcv.nxt, self.snd.nxt);
        if len == 0 {
            return Left::Nothing;
        }
        self.on_next_data(len, data, now, settings, network, events, waiting)
    }

    /// Takes the peer's time stamp, of a segment that begins at RCV.NXT (RFC 7323, section 4.3). One that says the same
    /// as the last is none the newer.
    #[inline(always)]
    fn note_stamp(&mut self, value: u32, now: Instant) {
        if let Some(ours) = &mut self.timestamps
            && value != ours.recent
            && self.rcv.last_ack_sent == self.rcv.nxt
        {
            ours.recent = value;
            ours.recent_at = now;
        }
    }

    /// The one segment in flight is acknowledged.
    #[inline(always)]
    fn on_lone_acknowledgment(&mut self, now: Instant, settings: &Settings) {
        let in_flight = self.snd.in_flight();
        self.snd.una = self.snd.nxt;
        self.snd.front = self.snd.nxt;
        self.snd.queue.acknowledge_lone();
        self.sent.count_lone(in_flight);
        self.deadlines.retransmit = Instant::FAR_FUTURE;
        let rtt_ns = now.nanos_since(self.last_sent);
        self.rtt.sample(rtt_ns, settings.clock_granularity_ns);
        let wanted = in_flight + u32::from(self.snd.mss);
        if wanted > self.snd.wnd || !self.congestion.passes_over(wanted) {
            self.tell_congestion(in_flight, rtt_ns, now);
        }
    }

    #[inline(never)]
    fn tell_congestion(&mut self, in_flight: u32, rtt_ns: u64, now: Instant) {
        let usable = self.snd.wnd.min(self.congestion.cwnd_bytes());
        self.congestion.on_ack(&AckEvent {
            now,
            bytes_acked: in_flight,
            bytes_in_flight: in_flight,
            rtt_ns: Some(rtt_ns),
            app_limited: in_flight + u32::from(self.snd.mss) <= usable,
            in_recovery: false,
            ecn_echo: false,
        });
    }

    #[allow(clippy::too_many_arguments, reason = "as its caller")]
    #[inline(always)]
    fn on_next_data(
        &mut self,
        len: u32,
        data: Buffer,
        now: Instant,
        settings: &Settings,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) -> Left {
        let mut left = Left::Nothing;
        self.rcv.last_data = now;
        if len > u32::from(self.rcv.segment_bytes) {
            self.rcv.segment_bytes = u16::try_from(len).unwrap_or(u16::MAX);
        }
        self.rcv.nxt += len;
        if self.rcv.unacknowledged_bytes() >= 2 * u32::from(self.rcv.segment_bytes) {
            self.rcv.ack_now = true;
        } else if self.deadlines.delayed_ack == Instant::FAR_FUTURE {
            let due = now.plus_nanos(settings.delayed_ack_ns);
            self.deadlines.delayed_ack = due;
            if due < self.deadlines.armed {
                left = Left::Scheduling;
            }
        }
        if self.rcv.nxt.at_or_after(self.rcv.tuning.look_at) {
            self.tune_receive_buffer(now, false);
        }
        if self.rcv.queue.len_bytes() != 0 {
            self.keep_data(data, network, events, waiting);
        } else if let Err(mut refused) = waiting.offer_data(self.user_data, data.into()) {
            if let Some(data) = refused.take_single() {
                self.keep_data(data, network, events, waiting);
            }
        } else if self.rcv.edge.distance_from(self.rcv.nxt) <= self.rcv.limit_bytes / 2 {
            self.consider_window_update();
        }
        if self.rcv.ack_now {
            self.course = Course::BUSY;
            left = Left::Scheduling;
        }
        left
    }

    /// Nobody waits for so much as arrived, or there is more.
    #[inline(never)]
    fn keep_data(
        &mut self,
        data: Buffer,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        self.rcv.queue.push(data.by_fields(), network.arena());
        self.announce_data(waiting, events);
    }

    /// Sends the one buffer of a push, of `len` bytes, if nothing is in its way: of a connection that is
    /// [`Course::READY`]. False, and nothing done, for all else. [`Self::keep_lone`] follows.
    #[inline(always)]
    pub(super) fn send_lone(
        &mut self,
        payload: &mut Buffer,
        len: usize,
        now: Instant,
        network: &mut Network,
    ) -> bool {
        if len.wrapping_sub(1) >= usize::from(self.snd.mss) {
            return false;
        }
        self.restart_after_idle(now);
        // Not more than a segment's.
        let bytes = len as u32;
        if bytes > self.snd.wnd || bytes > self.congestion.cwnd_bytes() {
            return false;
        }
        let window = self.rcv.advertise_plain(self.snd.mss);
        let Some(header) = self.next_header(window, now) else { return false };
        let kind = PacketKind::new(PlainProtocol::Tcp, self.hop_limit, self.traffic_class);
        match network.send_express_kept(now, &self.path, kind, header, payload) {
            Ok(()) => {}
            Err(Refusal::Shared) if self.emit_shared(payload, now, network) => {}
            Err(Refusal::Shared | Refusal::Unusual) => return false,
        }
        self.course = Course::WAITS;
        self.snd.nxt += bytes;
        self.snd.max = self.snd.nxt;
        self.last_sent = now;
        self.acknowledgment_sent();
        self.deadlines.retransmit = now.plus_nanos(self.rtt.rto_ns());
        true
    }

    /// Keeps what [`Self::send_lone`] sent until it is acknowledged.
    #[inline(always)]
    pub(super) fn keep_lone(&mut self, payload: Buffer) {
        self.snd.queue.push_lone(payload);
    }
}
