//! The shortest way: one message is said, then it is answered, and nothing else is under way. What most connections do where
//! latency counts, and where each is a single segment: then one is in flight at most, and no account has to be kept
//! of which.
//!
//! While a connection is [`Course::READY`], nothing is in flight or pending; what is pushed makes it [`Course::WAITS`]
//! until it is acknowledged. In between, the segment is in no list: it is from SND.UNA to SND.NXT, and left at `last_sent`.
//! Whoever else gets hold of the connection finds it in the lists as ever, by [`Connection::settle_lone`]. All that is looked at but
//! rarely changes is looked at when the connection becomes ready; what changes without anybody getting hold of the connection is
//! compared with each segment.

use libos::{Buffer, Instant, QueueDescriptor, RxFrame, ScatterGather};

use super::congestion::{AckEvent, CongestionControl};
use super::connection::{Connection, Settings};
use super::connections::Course;
use super::emit::{STAMP_LEAD, STAMPED_BYTES};
use super::express::{CONTROL, CONTROL_MASK};
use super::layer::{TcpLayer, schedule};
use super::recovery::Alarm;
use super::sequence::SequenceNumber;
use crate::events::{ConnectionId, EventQueue};
use crate::network::{LaneEnd, Network, PacketKind, Plain, PlainProtocol};
use crate::slab::Key;
use crate::waiting::Waiting;
use crate::wire::{ethernet, ipv4};

/// Bytes from a frame's first to its TCP header's, in a lane.
const TRANSPORT: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;
/// Bytes from a frame's first to its payload's.
const HEADERS_BYTES: usize = TRANSPORT + STAMPED_BYTES;

#[inline(always)]
fn sequence(word: [u8; 4]) -> SequenceNumber {
    SequenceNumber::new(u32::from_be_bytes(word))
}

/// What the segment says that comes next, beside what was known before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    window: u16,
    /// The peer's time stamp.
    stamp: u32,
    /// Bytes of payload.
    len: u32,
}

/// What is left to do after a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Nothing,
    /// To tell of events.
    Events,
    /// There is something to send, or a deadline that is earlier than all.
    Scheduling,
}

impl TcpLayer {
    /// Takes a segment of a lane: `frame` up to `end`, if it is all that its connection waits for. False when that left
    /// something to be done.
    ///
    /// # Errors
    /// The frame, and nothing done, for all else.
    #[allow(clippy::too_many_arguments, reason = "what a context holds, of which this needs little")]
    #[inline(always)]
    pub(crate) fn on_lane(
        &mut self,
        now: Instant,
        key: Key,
        queue: QueueDescriptor,
        frame: RxFrame,
        end: usize,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) -> Result<bool, RxFrame> {
        let Some(connection) = self.connections.straight_mut(key) else { return Err(frame) };
        let Some(segment) = frame.head.get(TRANSPORT..end) else { return Err(frame) };
        let Some(next) = connection.next(segment) else { return Err(frame) };
        if self.shared.memory_short {
            return Err(frame);
        }
        self.shared.counters.in_segments += 1;
        // A frame of a lane has no further buffers to drop.
        std::mem::forget(frame.rest);
        let mut data = frame.head;
        data.truncate(end);
        data.advance(HEADERS_BYTES);
        let who = Some(queue);
        match connection.on_next(next, data, who, now, &self.shared.settings, network, events, waiting) {
            Left::Nothing => Ok(true),
            Left::Events => Ok(false),
            Left::Scheduling => {
                schedule(connection, key.index, &mut self.outgoing, &mut self.timers);
                Ok(false)
            }
        }
    }

    /// As [`Self::on_lane`], for a packet whose flow has no lane: its next one will have. What the segment says was found
    /// out of the connection at `index`.
    #[allow(clippy::too_many_arguments, reason = "what a context holds, of which this needs little")]
    #[inline(never)]
    pub(super) fn take_next(
        &mut self,
        now: Instant,
        index: u32,
        next: Next,
        plain: Plain,
        frame: RxFrame,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        let Some(connection) = self.connections.straight_index_mut(index) else { return };
        let flow = network.note_flow(&frame, &plain);
        // A plain frame has no further buffers to drop.
        std::mem::forget(frame.rest);
        let mut data = frame.head;
        data.truncate(plain.end);
        data.advance(plain.start + STAMPED_BYTES);
        let left = connection.on_next(next, data, None, now, &self.shared.settings, network, events, waiting);
        if left == Left::Scheduling {
            schedule(connection, index, &mut self.outgoing, &mut self.timers);
        }
        if let Some(flow) = &flow
            && let Some(queue) = waiting.queue_of_data(connection.user_data)
        {
            network.open_lane(flow, LaneEnd::Tcp { key: connection.key, queue });
        }
    }

    /// The frame of one buffer that is pushed, if the connection has nothing in flight or pending: it is to be sent at once,
    /// while nothing else waits to be sent. `None`, and nothing done, for all else.
    #[inline(always)]
    pub(crate) fn straight(
        &mut self,
        now: Instant,
        network: &mut Network,
        id: ConnectionId,
        data: &mut ScatterGather,
    ) -> Option<Buffer> {
        let connection = self.connections.straight_mut(id.0)?;
        let due = now.plus_nanos(connection.rtt.rto_ns());
        if connection.course != Course::READY || due < connection.deadlines.armed {
            return None;
        }
        let mut payload = data.single_with_room::<HEADERS_BYTES>()?;
        let len = payload.len();
        let window = connection.offers_lone(len, now)?;
        let header = connection.next_header(window, now)?;
        let kind = PacketKind::new(PlainProtocol::Tcp, connection.hop_limit, connection.traffic_class);
        let (out, bytes) = payload.parts();
        if !network.write_express(now, &connection.path, kind, header, out, bytes) {
            return None;
        }
        self.shared.counters.out_segments += 1;
        // Not more than a segment's.
        connection.sent_lone(len as u32, due, now);
        let frame = payload.take();
        let mut kept = frame.clone();
        kept.advance(HEADERS_BYTES);
        connection.snd.queue.push_lone(kept);
        Some(frame)
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

    /// What a segment says that comes next: an answer to all that is in flight, data in order, or both. `None` for all else.
    #[inline(always)]
    pub(super) fn next(&self, segment: &[u8]) -> Option<Next> {
        let (words, _) = segment.first_chunk::<STAMPED_BYTES>()?.as_chunks::<4>();
        let word = |index: usize| words[index];
        let control = u32::from_be_bytes(word(3));
        let window = control as u16;
        let stamp = u32::from_be_bytes(word(6));
        // A frame is at most 64 KiB and a bit.
        let len = (segment.len() - STAMPED_BYTES) as u32;
        let is_next = (self.course == Course::WAITS || (self.course == Course::READY && len > 0))
            && control & CONTROL_MASK == CONTROL
            && word(5) == STAMP_LEAD
            && sequence(word(1)) == self.rcv.nxt
            && sequence(word(2)) == self.snd.nxt
            && (self.rcv.nxt + len).at_or_before(self.rcv.edge)
            && window != 0
            // An older stamp may be right all the same, after a long time.
            && self.timestamps.is_some_and(|ours| stamp.wrapping_sub(ours.recent).cast_signed() >= 0);
        is_next.then_some(Next { window, stamp, len })
    }

    /// Takes the segment that comes next: `data` is its payload, for who waits on `queue`, if that is known.
    #[allow(clippy::too_many_arguments, reason = "what a context holds, of which this needs little")]
    #[inline(always)]
    fn on_next(
        &mut self,
        next: Next,
        data: Buffer,
        queue: Option<QueueDescriptor>,
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
        self.on_next_data(len, data, queue, now, settings, network, events, waiting)
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
        queue: Option<QueueDescriptor>,
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
        let refused = if self.rcv.queue.len_bytes() == 0 {
            let given = match queue {
                Some(queue) => waiting.give_data(queue, data.into()),
                None => waiting.offer_data(self.user_data, data.into()),
            };
            given.err().and_then(|mut refused| refused.take_single())
        } else {
            Some(data)
        };
        if let Some(data) = refused {
            self.keep_data(data, network, events, waiting);
            left = left.max(Left::Events);
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

    /// The window to offer with a segment of `len` bytes, if nothing is in the way of it: of a connection that is
    /// [`Course::READY`].
    #[inline(always)]
    fn offers_lone(&mut self, len: usize, now: Instant) -> Option<u16> {
        if len.wrapping_sub(1) >= usize::from(self.snd.mss) {
            return None;
        }
        self.restart_after_idle(now);
        // Not more than a segment's.
        let bytes = len as u32;
        if bytes > self.snd.wnd || bytes > self.congestion.cwnd_bytes() {
            return None;
        }
        Some(self.rcv.advertise_plain(self.snd.mss))
    }

    /// One segment is in flight, to be acknowledged by when it is `due`.
    #[inline(always)]
    fn sent_lone(&mut self, len: u32, due: Instant, now: Instant) {
        self.course = Course::WAITS;
        self.snd.nxt += len;
        self.snd.max = self.snd.nxt;
        self.last_sent = now;
        self.acknowledgment_sent();
        self.deadlines.retransmit = due;
    }
}
