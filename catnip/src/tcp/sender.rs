//! The sending half: what may be sent now, and composing it.

use libos::{Error, Instant};

use super::congestion::CongestionControl;
use super::connection::{Connection, Context, MIN_SEGMENT_BYTES, Timestamps};
use super::emit::{Envelope, emit};
use super::options::OptionFields;
use super::path_search::AfterSearch;
use super::retransmission::Resent;
use super::segment::{Flags, HeaderFields};
use super::selective::Block;
use super::sequence::SequenceNumber;
use super::state::{State, Trigger};
use super::window;
use crate::network::Payload;

/// Frames one connection may queue in one turn before the others have theirs.
pub(super) const FRAMES_PER_TURN: usize = 64;

/// Frames waiting for the device from which on nobody composes further ones.
pub(super) const MAX_QUEUED_FRAMES: usize = 512;

/// What a turn of [`Connection::output`] left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// All that may be sent now was sent.
    Done,
    /// The turn is over or the device is full; there is more.
    More,
}

/// What goes out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    len: u32,
    fin: bool,
}

impl Connection {
    /// Sends what the windows, Nagle's algorithm and the queue allow, and an acknowledgment if one is due.
    pub(super) fn output(&mut self, cx: &mut Context<'_>) -> Output {
        let mut outcome = Output::Done;
        if self.rcv.ahead_of_gap > 0 {
            self.send_duplicate_acknowledgments(cx);
        }
        let mut resent = Resent::All;
        if self.sent.lost_bytes() > 0 {
            resent = self.send_lost(cx);
            outcome = resent.into();
        }
        if self.state.sends_data() {
            if resent == Resent::All {
                let after = match &self.path_search {
                    None => AfterSearch::SendOn,
                    Some(_) => self.search_path(cx),
                };
                if after == AfterSearch::SendOn {
                    outcome = self.send_new(cx);
                }
            }
            self.arm_retransmission(cx);
            if self.pacing.is_some() {
                self.note_app_limit();
            }
        } else if self.fast_open.is_some() {
            outcome = self.output_early(cx);
        }
        if self.rcv.ack_now {
            if cx.network.transmit_queue_is_full() {
                return Output::More;
            }
            self.send_acknowledgment(cx);
        }
        outcome
    }

    /// Sends what was not sent since SND.NXT last went back.
    #[inline]
    fn send_new(&mut self, cx: &mut Context<'_>) -> Output {
        for turn in 0.. {
            let Some(mut next) = self.next_segment(cx) else { break };
            if turn == FRAMES_PER_TURN || cx.network.frames().len() >= MAX_QUEUED_FRAMES {
                return Output::More;
            }
            if self.pacing.is_some() && next.len > 0 {
                let allowed = self.regulate(next.len, cx);
                if allowed == 0 {
                    break;
                }
                next = Next { len: allowed, fin: next.fin && allowed == next.len };
            }
            match self.send_next(next, cx) {
                Ok(()) if self.snd.nxt.after(self.snd.end()) => break,
                Ok(()) => {}
                Err(Error::WouldBlock) => return Output::More,
                // Without memory or a way to the peer, the retransmission timer tries again.
                Err(_) => break,
            }
        }
        Output::Done
    }

    /// Sends what may go before the handshake is over (RFC 7413).
    #[cold]
    fn output_early(&mut self, cx: &mut Context<'_>) -> Output {
        if !self.sends_early() {
            return Output::Done;
        }
        if self.state == State::SynReceived {
            // The peer takes nothing before the SYN-ACK, which found no room when it was to leave.
            if self.owes_syn_ack() {
                if cx.network.transmit_queue_is_full() {
                    return Output::More;
                }
                self.send_syn(cx);
            }
            return if self.owes_syn_ack() { Output::Done } else { self.send_new(cx) };
        }
        self.send_deferred_syn(cx);
        Output::Done
    }

    /// Acknowledges each segment that arrived ahead of a gap, however many came in one burst: three make the peer
    /// send again without a timeout (RFC 5681, section 3.2). Without data, for with it they do not count.
    #[cold]
    fn send_duplicate_acknowledgments(&mut self, cx: &mut Context<'_>) {
        for _ in 0..std::mem::take(&mut self.rcv.ahead_of_gap) {
            if cx.network.frames().len() >= MAX_QUEUED_FRAMES {
                break;
            }
            self.send_acknowledgment(cx);
        }
    }

    /// Decides on the next segment, `None` when nothing may go now.
    #[inline]
    fn next_segment(&self, cx: &Context<'_>) -> Option<Next> {
        let unsent = self.snd.unsent();
        // A FIN goes from no earlier state than ESTABLISHED (RFC 9293, section 3.10.4).
        let fin_unsent = self.snd.fin_unsent() && self.state.is_synchronised();
        if unsent == 0 && !fin_unsent {
            return None;
        }
        let in_flight = self.snd.in_flight();
        let usable = self.snd.wnd.min(self.flight_limit_bytes()).saturating_sub(in_flight);
        let mss = u32::from(self.snd.mss);
        let mut len = unsent.min(usable).min(self.largest_segment(cx));
        if len < unsent && len > mss {
            len -= len % mss;
        }
        // What was sent before goes again at once; Nagle's algorithm and silly windows are about new data.
        let resent = self.snd.nxt.before(self.snd.max);
        if len == unsent {
            // The FIN takes a place in the window as a byte does (RFC 9293, section 3.4).
            if fin_unsent && usable > len {
                return Some(Next { len, fin: true });
            }
            if len == 0 {
                return None;
            }
            let ragged = len % mss;
            let waits = (!self.no_delay && self.has_data_in_flight(in_flight)) || self.cork;
            if ragged != 0 && waits && !resent && !self.snd.fin {
                // Nagle's algorithm (RFC 9293, section 3.7.4): the ragged end waits for an acknowledgment. Under a
                // cork it waits for more, or for the timer that ends every wait.
                len -= ragged;
                return (len > 0).then_some(Next { len, fin: false });
            }
            return Some(Next { len, fin: false });
        }
        // Not all of it fits: sender's silly window avoidance (RFC 9293, section 3.8.6.2.1). What was sent before waits
        // for nothing but the acknowledgment of what is in flight.
        let worth_it =
            (resent && in_flight == 0) || len >= mss || window::is_large_part(len, self.snd.max_wnd);
        (len > 0 && worth_it).then_some(Next { len, fin: false })
    }

    /// True when something of `in_flight` is data or a FIN: a SYN-ACK holds nothing up.
    #[inline]
    fn has_data_in_flight(&self, in_flight: u32) -> bool {
        in_flight > 0 && (in_flight > 1 || self.state.is_synchronised())
    }

    /// Sends as much as the window takes, however little that is.
    pub(super) fn send_what_fits(&mut self, cx: &mut Context<'_>) {
        let usable = self.snd.wnd.saturating_sub(self.snd.in_flight());
        let len = self.snd.unsent().min(usable).min(u32::from(self.snd.mss));
        if len > 0 {
            // Failure is a loss like any other: the timer tries again.
            let _ = self.send_next(Next { len, fin: false }, cx);
        }
    }

    /// Sends one segment of new data, or the FIN, whatever the congestion window says, if the peer's has room.
    pub(super) fn send_new_segment(&mut self, cx: &mut Context<'_>) {
        let usable = self.snd.wnd.saturating_sub(self.snd.in_flight());
        let unsent = self.snd.unsent();
        let len = unsent.min(usable).min(u32::from(self.snd.mss));
        let fin = len == unsent && self.snd.fin_unsent() && usable > len;
        if len > 0 || fin {
            // Failure is a loss like any other: the timer tries again.
            let _ = self.send_next(Next { len, fin }, cx);
        }
    }

    /// Payload bytes of the largest frame: one segment, or what the device cuts by itself.
    #[inline]
    fn largest_segment(&self, cx: &Context<'_>) -> u32 {
        let mss = u32::from(self.snd.mss);
        let offload = u32::try_from(cx.network.tcp_segmentation_bytes()).unwrap_or(u32::MAX);
        if offload > mss { offload - offload % mss } else { mss }
    }

    /// Sends the next `len` bytes of new data as one segment.
    pub(super) fn send_segment_of(&mut self, len: u32, cx: &mut Context<'_>) -> Result<(), Error> {
        self.send_next(Next { len, fin: false }, cx)
    }

    /// Sends the next new segment and moves SND.NXT.
    fn send_next(&mut self, next: Next, cx: &mut Context<'_>) -> Result<(), Error> {
        let sequence = self.snd.nxt;
        if self.snd.una == self.snd.nxt {
            // Nothing else is in flight: what the timer was armed for, a probe or an override, is over
            // (RFC 6298, section 5.1).
            self.deadlines.retransmit = Instant::FAR_FUTURE;
            if sequence == self.snd.max {
                self.restart_after_idle(cx.now);
            }
        }
        let sent = self.send_data(sequence, next.len, next.fin, cx)?;
        // Fewer bytes than asked for went when they lay in too many buffers; the FIN then waits too.
        let fin = next.fin && sent == next.len;
        self.snd.nxt = sequence + sent + u32::from(fin);
        self.sent.on_sent(sequence, self.snd.nxt, self.snd.mss, cx.now);
        if !self.recovery.is_quiet() {
            self.recovery.on_sent(sent);
        }
        if self.snd.nxt.after(self.snd.max) {
            self.snd.max = self.snd.nxt;
        } else {
            cx.counters.retransmitted_segments += 1;
        }
        if fin {
            match self.state {
                State::Established | State::CloseWait => self.transition(Trigger::FinSent, cx.transitions),
                State::Closed
                | State::Listen
                | State::SynSent
                | State::SynReceived
                | State::FinWait1
                | State::FinWait2
                | State::Closing
                | State::LastAck
                | State::TimeWait => {}
            }
        }
        Ok(())
    }

    /// RFC 5681, section 4.1: after an idle time longer than the timeout the old window says nothing.
    #[inline(always)]
    pub(super) fn restart_after_idle(&mut self, now: Instant) {
        if now.nanos_since(self.last_sent) > self.rtt.rto_ns() {
            self.restart(now);
        }
    }

    #[cold]
    fn restart(&mut self, now: Instant) {
        if self.snd.max != self.snd.iss + 1 {
            self.congestion.on_idle(now);
        }
    }

    /// Sends one byte beyond a closed window (RFC 9293, section 3.8.6.1), or asks again for the
    /// acknowledgment of the last one.
    pub(super) fn send_window_probe(&mut self, cx: &mut Context<'_>) {
        cx.counters.zero_window_probes += 1;
        let fin = self.snd.unsent() == 0 && self.snd.fin_unsent();
        let len = u32::from(!fin);
        if self.send_data(self.snd.nxt, len, fin, cx).is_ok() {
            // The byte, or the FIN, may be taken: then its acknowledgment must be acceptable. SND.NXT stays:
            // what the window did not let out is not in flight.
            self.snd.max = self.snd.max.max(self.snd.nxt + 1);
            if self.sent.span().is_some_and(|(_, end)| end.after(self.snd.nxt)) {
                // It had left before, within the window of that time: which of the two is acknowledged will not be
                // known (Karn's algorithm: RFC 6298, section 3).
                self.sent.on_sent(self.snd.nxt, self.snd.nxt + 1, self.snd.mss, cx.now);
            }
            if fin && matches!(self.state, State::Established | State::CloseWait) {
                self.transition(Trigger::FinSent, cx.transitions);
            }
        }
    }

    /// Sends `len` bytes from `sequence` on, returns how many fitted into one frame.
    #[inline]
    pub(super) fn send_data(
        &mut self,
        sequence: SequenceNumber,
        len: u32,
        fin: bool,
        cx: &mut Context<'_>,
    ) -> Result<u32, Error> {
        if self.has_report() {
            return self.send_data_with_report(sequence, len, fin, cx);
        }
        self.send_data_beside(sequence, len, fin, &[], cx)
    }

    /// As [`Self::send_data`], with what waits behind a gap or came twice: every acknowledgment says so (RFC 2018,
    /// section 4), if there is room.
    #[cold]
    fn send_data_with_report(
        &mut self,
        sequence: SequenceNumber,
        len: u32,
        fin: bool,
        cx: &mut Context<'_>,
    ) -> Result<u32, Error> {
        // The options count against the segment's size (RFC 6691). New data makes room for them; what is sent again
        // keeps its borders, and the report takes an acknowledgment of its own.
        let room = u32::from(self.snd.mss).saturating_sub(self.report_bytes());
        let is_new = sequence == self.snd.max;
        if len > room && (!is_new || room < u32::from(MIN_SEGMENT_BYTES)) {
            return self.send_data_beside(sequence, len, fin, &[], cx);
        }
        let was_due = self.rcv.report.due;
        let blocks = self.take_sack_blocks();
        let sent = self.send_data_beside(sequence, len.min(room), fin && len <= room, &blocks, cx);
        if sent.is_err() {
            self.rcv.report.due = was_due;
        }
        sent
    }

    #[inline(always)]
    fn send_data_beside(
        &mut self,
        sequence: SequenceNumber,
        len: u32,
        fin: bool,
        sack: &[Block],
        cx: &mut Context<'_>,
    ) -> Result<u32, Error> {
        let offset = sequence.distance_from(self.snd.front) as usize;
        let end = self.snd.queue.len_bytes();
        let marking = self.mark_data(sequence, len);
        let (payload, sent) = match len {
            0 => (Payload::Empty, 0),
            _ => self.snd.queue.payload(offset, len.min(marking.most_bytes) as usize, cx.pieces),
        };
        // Never more than asked for, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        let sent_bytes = sent as u32;
        let mut flags = Flags::ACK | marking.flags;
        if fin && sent_bytes == len {
            flags |= Flags::FIN;
        }
        if sent > 0 && offset + sent == end {
            // RFC 9293, section 3.9.1.2: the end of what the program gave is pushed.
            flags |= Flags::PSH;
        }
        self.rcv.one_way &= sent == 0;
        let mss = self.snd.mss;
        let fields = HeaderFields {
            source_port: self.local_port,
            destination_port: self.remote_port,
            sequence,
            acknowledgment: self.rcv.nxt,
            flags,
            window: self.rcv.advertise(mss),
            urgent: 0,
            options: OptionFields {
                timestamp: Timestamps::stamp(self.timestamps.as_ref(), cx.now),
                sack,
                ..OptionFields::default()
            },
        };
        let envelope = Envelope {
            hop_limit: self.hop_limit,
            traffic_class: self.traffic_class | marking.traffic_class,
            segment_bytes: (sent_bytes > u32::from(mss)).then_some(mss),
        };
        if let Err(error) = emit(cx.now, cx.network, &mut self.path, &fields, payload, envelope) {
            self.ecn.on_unsent(marking);
            // If the connection ends before it can try again, nobody else would let go of the data.
            cx.pieces.clear();
            return Err(error);
        }
        cx.counters.out_segments += 1;
        self.last_sent = cx.now;
        // What waits behind a gap, or came twice, and found no room takes an acknowledgment of its own to say; so does
        // a user timeout.
        self.rcv.ack_now = self.rcv.report.due || self.user_timeout.is_to_be_told();
        self.acknowledgment_sent();
        Ok(sent_bytes)
    }

    /// Sends an acknowledgment without data.
    pub(super) fn send_acknowledgment(&mut self, cx: &mut Context<'_>) {
        self.send_control(self.bare_sequence(), Flags::ACK | self.ecn.acknowledgment_flags(), cx);
        cx.counters.pure_acks += 1;
    }

    /// The sequence number of a segment without text: what comes next for the peer, if it has seen all that was sent.
    /// After a timeout SND.NXT has gone back, and does not tell.
    #[inline]
    fn bare_sequence(&self) -> SequenceNumber {
        let max = self.snd.max;
        if max.at_or_before(self.snd.una + self.snd.wnd) {
            max
        } else {
            self.bare_sequence_beyond_the_window()
        }
    }

    /// More was sent than the window takes: a probe of it, or the peer took it back. There the peer takes nothing
    /// (RFC 9293, section 3.4): an acknowledgment behind what it refused would be lost on it, and with that its own
    /// data.
    #[cold]
    fn bare_sequence_beyond_the_window(&self) -> SequenceNumber {
        let edge = self.snd.una + self.snd.wnd;
        let is_probe = self.snd.wnd == 0 && self.snd.max == edge + 1;
        // Less than a unit of its scale is what the peer could not tell of, and may have taken.
        if !is_probe && self.snd.max.distance_from(edge) < 1 << self.snd.scale { self.snd.max } else { edge }
    }

    /// Asks a peer that has been silent whether it is still there: a segment it has seen before
    /// (RFC 9293, section 3.8.4).
    pub(super) fn send_keepalive(&mut self, cx: &mut Context<'_>) {
        cx.counters.keepalive_probes += 1;
        let before_una = SequenceNumber::new(self.snd.una.raw().wrapping_sub(1));
        self.send_control(before_una, Flags::ACK | self.ecn.acknowledgment_flags(), cx);
    }

    /// Sends a reset that the peer accepts: at what it expects next if it has seen all, in its window and answered if
    /// it has not, and with an acknowledgment.
    pub(super) fn send_reset(&mut self, cx: &mut Context<'_>) {
        cx.counters.out_resets += 1;
        self.send_control(self.bare_sequence(), Flags::RST | Flags::ACK, cx);
    }

    fn send_control(&mut self, sequence: SequenceNumber, flags: Flags, cx: &mut Context<'_>) {
        let sack = self.take_sack_blocks();
        let fields = HeaderFields {
            source_port: self.local_port,
            destination_port: self.remote_port,
            sequence,
            acknowledgment: self.rcv.nxt,
            flags,
            window: self.rcv.advertise(self.snd.mss),
            urgent: 0,
            options: OptionFields {
                timestamp: Timestamps::stamp(self.timestamps.as_ref(), cx.now),
                user_timeout: self.user_timeout.take_option(),
                sack: &sack,
                ..OptionFields::default()
            },
        };
        self.send_empty(&fields, cx);
    }

    /// Sends a segment without payload. False when it did not get out, and is lost like any other.
    pub(super) fn send_empty(&mut self, fields: &HeaderFields<'_>, cx: &mut Context<'_>) -> bool {
        let (hop_limit, traffic_class) = (self.hop_limit, self.traffic_class);
        let envelope = Envelope { hop_limit, traffic_class, segment_bytes: None };
        let sent = emit(cx.now, cx.network, &mut self.path, fields, Payload::Empty, envelope).is_ok();
        cx.counters.out_segments += u64::from(sent);
        self.rcv.ack_now = false;
        self.acknowledgment_sent();
        sent
    }

    /// Every segment carries the latest acknowledgment and window.
    #[inline(always)]
    pub(super) fn acknowledgment_sent(&mut self) {
        self.rcv.last_ack_sent = self.rcv.nxt;
        self.deadlines.delayed_ack = Instant::FAR_FUTURE;
    }
}
