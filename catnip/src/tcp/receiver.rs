//! The receiving half: what is done with data and with the peer's FIN, and when it is acknowledged.

use libos::{Buffer, BufferList, Error, Instant, PopLimit, ScatterGather};

use super::connection::{Connection, Context};
use super::reassembly::{Insertion, Reassembly};
use super::sequence::SequenceNumber;
use super::state::{State, Trigger};
use super::window;
use crate::events::{EventQueue, Readiness};
use crate::network::Packet;
use crate::waiting::Waiting;

/// Unread bytes that a connection may have while memory is short: what arrives in one burst, so that who reads as
/// it comes loses nothing. A loss there is repaired late, as nothing behind it is taken that could tell of it.
const UNREAD_BYTES_WHEN_SHORT: usize = 32 << 10;

/// The payload of a received frame.
#[derive(Debug)]
pub(super) struct Data {
    pub head: Buffer,
    pub rest: BufferList,
    /// Bytes of all of it.
    pub len: u32,
    /// Bytes of one segment when the device joined several; else 0.
    pub segment_bytes: u16,
    /// The traffic class of the packet it came in.
    pub traffic_class: u8,
}

impl Data {
    /// What follows the header of a packet.
    #[inline]
    pub(super) fn behind_header(packet: Packet, header_bytes: usize) -> Self {
        let mut head = packet.head;
        head.advance(header_bytes);
        // A frame is at most 64 KiB and a bit.
        #[allow(clippy::cast_possible_truncation)]
        let mut len = head.len() as u32;
        for buffer in &packet.rest {
            len = len.saturating_add(u32::try_from(buffer.len()).unwrap_or(u32::MAX));
        }
        Self {
            head,
            rest: packet.rest,
            len,
            segment_bytes: packet.segment_bytes,
            traffic_class: packet.traffic_class,
        }
    }
}

impl Connection {
    /// Exactly the next data, all of it inside the window, with nothing waiting behind it.
    #[inline]
    pub(super) fn on_in_order_data(&mut self, data: Data, cx: &mut Context<'_>) {
        let len = data.len;
        if !self.takes_memory(cx) {
            return;
        }
        self.count_toward_acknowledgment(data.len, data.segment_bytes, cx.now, cx.settings.delayed_ack_ns);
        self.deliver(data.head, cx);
        for buffer in data.rest {
            self.deliver(buffer, cx);
        }
        self.rcv.nxt += len;
        if self.rcv.nxt.at_or_after(self.rcv.tuning.look_at) {
            self.tune_receive_buffer(cx.now, cx.memory_short);
        }
        self.rcv.arrived = true;
    }

    /// Gives data that has just arrived in order to who is `waiting` for it, or tells of it by an event.
    #[inline(always)]
    pub(super) fn announce_data(&mut self, waiting: &mut impl Waiting, events: &mut EventQueue) {
        self.rcv.arrived = false;
        if self.rcv.queue.len_bytes() > 0
            && let Some((ticket, limit)) = waiting.next_for_data(self.user_data)
        {
            waiting.data(ticket, self.take_queued(limit));
            if self.rcv.queue.len_bytes() == 0 {
                return;
            }
        }
        self.raise(Readiness::READABLE, events);
    }

    #[inline(always)]
    pub(super) fn take_queued(&mut self, limit: PopLimit) -> ScatterGather {
        let data = self.rcv.queue.pop(limit);
        self.consider_window_update();
        data
    }

    /// False when memory is short and the program has not read much of what it already has: then the peer has to
    /// send again, and those who read are served.
    #[inline]
    fn takes_memory(&mut self, cx: &mut Context<'_>) -> bool {
        !cx.memory_short || self.takes_short_memory(cx)
    }

    #[cold]
    #[inline(never)]
    fn takes_short_memory(&mut self, cx: &mut Context<'_>) -> bool {
        if self.shrink_receive_buffer(cx.now, UNREAD_BYTES_WHEN_SHORT as u32) {
            cx.counters.memory_clamps += 1;
        }
        if self.rcv.queue.len_bytes() >= UNREAD_BYTES_WHEN_SHORT {
            cx.counters.memory_drops += 1;
            self.rcv.ack_now = true;
            return false;
        }
        true
    }

    pub(super) fn deliver(&mut self, buffer: Buffer, cx: &Context<'_>) {
        if !self.rcv.shut {
            self.rcv.queue.push(buffer, cx.network.arena());
        }
    }

    /// `len` bytes come behind RCV.NXT (RFC 9293, section 3.8.6.3): at least every second full-sized segment is
    /// acknowledged at once, others within the delay.
    #[inline]
    pub(super) fn count_toward_acknowledgment(
        &mut self,
        len: u32,
        segment_bytes: u16,
        now: Instant,
        delay_ns: u64,
    ) {
        let segment = if segment_bytes == 0 { u16::try_from(len).unwrap_or(u16::MAX) } else { segment_bytes };
        self.rcv.last_data = now;
        self.rcv.segment_bytes = self.rcv.segment_bytes.max(segment);
        let unacknowledged_bytes = self.rcv.unacknowledged_bytes().saturating_add(len);
        let prompt = self.rcv.quick_ack || self.rcv.one_way;
        if prompt || unacknowledged_bytes >= 2 * u32::from(self.rcv.segment_bytes) {
            self.rcv.ack_now = true;
        } else if self.deadlines.delayed_ack == Instant::FAR_FUTURE {
            self.deadlines.delayed_ack = now.plus_nanos(delay_ns);
        }
    }

    /// Acceptable text and FIN in any state: trimmed to the window, put in order, acknowledged at once
    /// where something was out of order (RFC 5681, section 4.2).
    pub(super) fn on_text(&mut self, sequence: SequenceNumber, data: Data, fin: bool, cx: &mut Context<'_>) {
        if !self.state.receives_data() {
            // The peer's FIN was taken; this is it or its data again.
            self.rcv.ack_now = true;
            self.note_selectively(sequence, data.len);
            if self.state == State::TimeWait && fin {
                self.start_time_wait(cx);
            }
            return;
        }
        let end = sequence + data.len;
        if fin && end.at_or_before(self.rcv.edge) && self.rcv.fin_at.is_none() {
            self.rcv.fin_at = Some(end);
        }
        // In order or ahead of a gap, a FIN is acknowledged at once.
        self.rcv.ack_now |= fin;
        if data.len > 0 && self.takes_memory(cx) {
            self.place(sequence, data, cx);
        }
        if self.rcv.fin_at == Some(self.rcv.nxt) {
            self.on_fin(cx);
        }
    }

    fn place(&mut self, sequence: SequenceNumber, data: Data, cx: &mut Context<'_>) {
        let held_before = self.out_of_order_held_bytes();
        let before = self.rcv.nxt;
        let had_gap = self.rcv.reassembly.is_some();
        if sequence == before && !had_gap {
            self.count_toward_acknowledgment(
                data.len,
                data.segment_bytes,
                cx.now,
                cx.settings.delayed_ack_ns,
            );
        } else {
            // Out of order, a duplicate, or filling a gap.
            self.rcv.last_data = cx.now;
            self.rcv.ack_now = true;
            self.note_selectively(sequence, data.len);
            if sequence.after(before) {
                cx.counters.out_of_order += 1;
                self.rcv.ahead_of_gap = self.rcv.ahead_of_gap.saturating_add(1);
            }
        }
        // Nothing after the peer's FIN is data.
        let limit = self.rcv.fin_at.map_or(self.rcv.edge, |fin_at| self.rcv.edge.min(fin_at));
        let mut at = sequence;
        for buffer in std::iter::once(data.head).chain(data.rest) {
            // A buffer is a piece of a frame of at most 64 KiB.
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            self.place_buffer(at, buffer, limit, cx);
            // At once: the next buffer then fills the gap as well, which no limit refuses.
            self.drain_reassembly(cx);
            at += len;
        }
        *cx.out_of_order_bytes =
            (*cx.out_of_order_bytes + self.out_of_order_held_bytes()).saturating_sub(held_before);
        if self.rcv.nxt != before {
            // The gap was reordering within one burst, or there is another one now.
            self.rcv.ahead_of_gap = 0;
            self.raise(Readiness::READABLE, cx.events);
        }
    }

    fn place_buffer(
        &mut self,
        mut at: SequenceNumber,
        mut buffer: Buffer,
        limit: SequenceNumber,
        cx: &mut Context<'_>,
    ) {
        if at.before(self.rcv.nxt) {
            let known = self.rcv.nxt.distance_from(at);
            buffer.advance(known as usize);
            at = self.rcv.nxt;
        }
        if at.at_or_after(limit) {
            return;
        }
        buffer.truncate(limit.distance_from(at) as usize);
        if buffer.is_empty() {
            return;
        }
        if at == self.rcv.nxt && self.rcv.reassembly.is_none() {
            self.rcv.nxt += u32::try_from(buffer.len()).unwrap_or(0);
            self.deliver(buffer, cx);
        } else if cx.memory_short && at != self.rcv.nxt {
            cx.counters.memory_drops += 1;
        } else if *cx.out_of_order_bytes >= cx.settings.config.max_out_of_order_bytes && at != self.rcv.nxt {
            // What fills the gap is never refused: it makes room.
            cx.counters.out_of_order_drops += 1;
        } else {
            let limit_bytes = self.rcv.limit_bytes as usize;
            let reassembly =
                self.rcv.reassembly.get_or_insert_with(|| Box::new(Reassembly::new(limit_bytes)));
            if reassembly.insert(at, buffer, self.rcv.nxt) == Insertion::Refused {
                cx.counters.out_of_order_drops += 1;
            }
        }
    }

    fn out_of_order_held_bytes(&self) -> usize {
        self.rcv.reassembly.as_ref().map_or(0, |reassembly| reassembly.held_bytes())
    }

    /// Throws away what waits behind a gap.
    pub(super) fn drop_out_of_order(&mut self, cx: &mut Context<'_>) {
        if let Some(reassembly) = self.rcv.reassembly.take() {
            *cx.out_of_order_bytes = cx.out_of_order_bytes.saturating_sub(reassembly.held_bytes());
        }
    }

    fn drain_reassembly(&mut self, cx: &mut Context<'_>) {
        let Some(mut reassembly) = self.rcv.reassembly.take() else { return };
        while let Some(mut buffer) = reassembly.take_ready(self.rcv.nxt) {
            if let Some(fin_at) = self.rcv.fin_at {
                // What came before the FIN and lies behind it is no data either.
                buffer.truncate(fin_at.distance_from(self.rcv.nxt) as usize);
                if buffer.is_empty() {
                    break;
                }
            }
            self.rcv.nxt += u32::try_from(buffer.len()).unwrap_or(0);
            self.deliver(buffer, cx);
        }
        if !reassembly.is_empty() {
            self.rcv.reassembly = Some(reassembly);
        }
    }

    /// The peer's FIN is next in sequence (RFC 9293, section 3.10.7.4, eighth).
    fn on_fin(&mut self, cx: &mut Context<'_>) {
        self.rcv.nxt += 1;
        if self.rcv.edge.before(self.rcv.nxt) {
            self.rcv.edge = self.rcv.nxt;
        }
        self.rcv.fin = true;
        self.rcv.fin_at = None;
        self.drop_out_of_order(cx);
        self.rcv.ack_now = true;
        self.transition(Trigger::Fin, cx.transitions);
        if self.state == State::TimeWait {
            self.start_time_wait(cx);
        }
        self.raise(Readiness::READABLE, cx.events);
    }

    /// True on a connection that stands while nothing is there to be received.
    #[inline(always)]
    pub(super) fn is_drained(&self) -> bool {
        self.state == State::Established
            && self.rcv.queue.len_bytes() == 0
            && !self.rcv.shut
            && self.error.is_none()
    }

    /// What the program receives: data, `Some(empty)` at the end of the stream, `None` for now.
    pub(super) fn receive(&mut self, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        if self.rcv.queue.len_bytes() > 0 {
            return Ok(Some(self.take_queued(limit)));
        }
        self.receive_nothing()
    }

    /// What [`Self::receive`] would return, which stays where it is.
    pub(super) fn peek(&self, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        if self.rcv.queue.len_bytes() > 0 {
            return Ok(Some(self.rcv.queue.peek(limit)));
        }
        self.receive_nothing()
    }

    /// What the program receives when no data is there.
    fn receive_nothing(&self) -> Result<Option<ScatterGather>, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.rcv.fin || self.rcv.shut {
            return Ok(Some(ScatterGather::new()));
        }
        match self.state {
            State::Closed => Err(Error::NotConnected),
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => Ok(None),
        }
    }

    /// Tells the peer of the room that reading made, before it runs dry and only when it is worth a segment
    /// (RFC 9293, section 3.8.6.2.2).
    #[inline]
    pub(super) fn consider_window_update(&mut self) {
        let (window, free) = (self.rcv.window(), self.rcv.free_space());
        // Nobody gains by much less than what they may send already.
        if free / 2 >= window && self.state.receives_data() {
            let segment_bytes = u32::from(self.rcv.segment_bytes.max(self.snd.mss));
            self.rcv.ack_now |= window::update_is_due(window, free, self.rcv.limit_bytes, segment_bytes);
        }
    }
}
