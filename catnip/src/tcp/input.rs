//! Segments of a connection whose peer is known: acceptability, resets, acknowledgments
//! (RFC 9293, section 3.10.7.4), in the order the RFC gives.

use libos::{Error, Instant};

use super::congestion::{AckEvent, CongestionControl};
use super::connection::{Connection, Context, Disposition, Settings};
use super::options::Timestamp;
use super::receiver::Data;
use super::segment::{Flags, Segment};
use super::sequence::SequenceNumber;
use super::state::{State, Trigger};
use super::transmissions::Delivered;
use crate::events::Readiness;

/// Whether the rest of a segment is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Process,
    Drop,
}

/// Flags that take a segment off the straight path.
const RARE_FLAGS: Flags = Flags::SYN.union(Flags::FIN).union(Flags::RST).union(Flags::URG);

/// Least time between two acknowledgments that only say where the connection stands: half of the shortest
/// time after which a peer sends a SYN again.
const CHALLENGE_INTERVAL_NS: u64 = 500_000_000;

impl Connection {
    /// A segment came for this connection.
    pub(super) fn on_segment(&mut self, segment: &Segment, data: Data, cx: &mut Context<'_>) -> Disposition {
        if self.is_straight(segment, &data, cx.now) {
            self.note_life(cx.now);
            if self.ecn.is_agreed() {
                self.note_marks(segment, &data, cx);
            }
            if self.on_acknowledgment(segment, data.len, cx) == Verdict::Process {
                self.note_timestamp(segment, cx.now);
                if data.len > 0 {
                    self.on_in_order_data(data, cx);
                }
            }
            return Disposition::Keep;
        }
        self.on_rare_segment(segment, data, cx)
    }

    /// The peer is there: only who knows the connection can have sent what came.
    #[inline]
    const fn note_life(&mut self, now: Instant) {
        self.last_received = now;
        self.keepalives_sent = 0;
    }

    /// True for the segment that was expected: the next data or an acknowledgment, nothing else, with somebody
    /// there to read it.
    #[inline]
    fn is_straight(&self, segment: &Segment, data: &Data, now: Instant) -> bool {
        self.state == State::Established
            && !self.orphan
            && segment.flags.contains(Flags::ACK)
            && !segment.flags.intersects(RARE_FLAGS)
            && segment.sequence == self.rcv.nxt
            && data.len <= self.rcv.window()
            && (data.len == 0 || (self.rcv.reassembly.is_none() && self.rcv.fin_at.is_none()))
            && match (self.timestamps, segment.options.timestamp) {
                (Some(ours), Some(theirs)) => !ours.is_old(theirs.value, now),
                (Some(_), None) => false,
                (None, _) => true,
            }
    }

    #[inline(never)]
    fn on_rare_segment(&mut self, segment: &Segment, data: Data, cx: &mut Context<'_>) -> Disposition {
        if self.state == State::SynSent {
            let disposition = self.on_segment_in_syn_sent(segment, data.traffic_class, cx);
            let fin = segment.flags.contains(Flags::FIN);
            if self.state == State::Established && (data.len > 0 || fin) {
                // RFC 9293, section 3.10.7.3, fourth: what comes with the SYN-ACK goes the way of any text. It is
                // behind the SYN, which has a number of its own.
                self.on_text(segment.sequence + 1, data, fin, cx);
            }
            return disposition;
        }
        if self.state == State::TimeWait && self.may_reopen(segment) {
            return Disposition::Reopen;
        }
        let has_text = data.len > 0 || segment.flags.contains(Flags::FIN);
        if self.is_rejected_by_paws(segment, cx.now) {
            cx.counters.paws_rejected += 1;
            self.answer_unacceptable(has_text, cx);
            return Disposition::Keep;
        }
        if self.state == State::SynReceived {
            if self.is_simultaneous_syn_ack(segment) {
                self.establish(segment, cx);
                self.rcv.ack_now = true;
                return Disposition::Established;
            }
            if self.is_peers_syn_again(segment) {
                // Our SYN-ACK was lost, or the network made a copy. Which of the answers is acknowledged
                // will not be known (Karn's algorithm: RFC 6298, section 3).
                self.send_syn(cx);
                return Disposition::Keep;
            }
        }
        // First: the sequence number (RFC 9293, section 3.10.7.4, table 6). A reset's text is no text: it
        // counts at its number even when the window is closed.
        let reset = segment.flags.contains(Flags::RST);
        let needs_no_room = reset || self.is_bare_fin_at_closed_window(segment, data.len);
        let sequence_len = if needs_no_room { 0 } else { segment.sequence_len(data.len) };
        if !self.is_acceptable(segment.sequence, sequence_len) {
            if !reset {
                self.note_selectively(segment.sequence, data.len);
            }
            return self.on_unacceptable(segment, sequence_len, has_text, cx);
        }
        self.note_life(cx.now);
        // Second: RST. Only an exact match resets (RFC 5961, section 3).
        if reset {
            return self.on_reset(segment, cx);
        }
        // Fourth: SYN in a synchronised state (RFC 5961, section 4).
        if segment.flags.contains(Flags::SYN) {
            return self.on_unexpected_syn(cx);
        }
        // Fifth: ACK.
        if !segment.flags.contains(Flags::ACK) {
            return Disposition::Keep;
        }
        let mut disposition = Disposition::Keep;
        if self.state == State::SynReceived {
            if !self.completes_handshake(segment) {
                super::reset::answer(self, segment, cx);
                return Disposition::Keep;
            }
            self.snd.wnd = u32::from(segment.window) << self.snd.scale;
            self.snd.max_wnd = self.snd.max_wnd.max(self.snd.wnd);
            self.ecn.on_handshake_over(segment, data.len);
            self.establish(segment, cx);
            disposition = Disposition::Established;
        }
        if self.on_acknowledgment(segment, data.len, cx) == Verdict::Drop {
            return disposition;
        }
        self.note_timestamp(segment, cx.now);
        if self.snd.fin_acknowledged() && self.on_fin_acknowledged(cx) == Disposition::Closed {
            return Disposition::Closed;
        }
        // Seventh: the text. Eighth: FIN.
        let fin = segment.flags.contains(Flags::FIN);
        if data.len > 0 || fin {
            let is_new = (segment.sequence + data.len).after(self.rcv.nxt);
            if self.orphan && is_new && self.state.receives_data() {
                // Nobody is left to read it, and the peer must learn that it is lost (RFC 1122, section 4.2.2.13).
                self.send_reset(cx);
                return self.fail(None, cx);
            }
            if self.ecn.is_agreed() {
                self.note_marks(segment, &data, cx);
            }
            self.on_text(segment.sequence, data, fin, cx);
        }
        disposition
    }

    /// The four-case test (RFC 9293, section 3.4), on the window as the peer was told of it.
    pub(super) fn is_acceptable(&self, sequence: SequenceNumber, len: u32) -> bool {
        let window = self.rcv.window();
        match (len, window) {
            (0, 0) => sequence == self.rcv.nxt,
            (0, _) => sequence.in_window(self.rcv.nxt, window),
            (_, 0) => false,
            (_, _) => {
                sequence.in_window(self.rcv.nxt, window)
                    || (sequence + (len - 1)).in_window(self.rcv.nxt, window)
                    || (sequence.before(self.rcv.nxt) && (sequence + len).after(self.rcv.nxt))
            }
        }
    }

    /// A FIN alone that is next while the window is closed: it needs no room. There are peers that send it again for each
    /// acknowledgment that does not take it, so that it is taken, as Linux does (deviation from RFC 9293, section 3.4).
    fn is_bare_fin_at_closed_window(&self, segment: &Segment, data_len: u32) -> bool {
        let fin = segment.flags.contains(Flags::FIN) && !segment.flags.contains(Flags::SYN);
        fin && data_len == 0 && self.rcv.window() == 0 && segment.sequence == self.rcv.nxt
    }

    fn on_unacceptable(
        &mut self,
        segment: &Segment,
        sequence_len: u32,
        has_text: bool,
        cx: &mut Context<'_>,
    ) -> Disposition {
        cx.counters.out_of_window += 1;
        if segment.flags.contains(Flags::RST) {
            return Disposition::Keep;
        }
        if segment.flags.contains(Flags::SYN) {
            // RFC 5961, section 4: irrespective of the sequence number.
            return self.on_unexpected_syn(cx);
        }
        let is_last = segment.sequence + sequence_len == self.rcv.nxt;
        if self.state == State::TimeWait && segment.flags.contains(Flags::FIN) && is_last {
            // RFC 9293, section 3.10.7.4, eighth: the FIN again, which is acknowledged, and the wait starts over.
            self.start_time_wait(cx);
        }
        // An acknowledgment in it still counts beside a probe, as RFC 9293, section 3.10.7.4 asks for a zero
        // window: a peer that probes is at RCV.NXT or a byte beyond, and a byte before while it does not know
        // that its probe was taken, which rounding the window down for its scale makes possible. Two sides
        // that probe each other and refused such acknowledgments would never learn of either.
        let sequence = segment.sequence;
        let at_probe =
            sequence == self.rcv.nxt || sequence == self.rcv.nxt + 1 || sequence + 1 == self.rcv.nxt;
        // And at the very edge of the window, where a peer stands that has filled it: as long as the first of
        // what it sent is missing, nothing else that it acknowledges with would be heard.
        let at_edge = sequence_len == 0 && sequence == self.rcv.edge;
        if (at_probe || at_edge) && segment.flags.contains(Flags::ACK) && self.state.is_synchronised() {
            if self.on_acknowledgment(segment, 0, cx) == Verdict::Process {
                self.note_life(cx.now);
            }
            if self.snd.fin_acknowledged() && self.on_fin_acknowledged(cx) == Disposition::Closed {
                return Disposition::Closed;
            }
        }
        self.answer_unacceptable(has_text, cx);
        Disposition::Keep
    }

    /// RFC 9293, section 3.10.7.4: an unacceptable segment is acknowledged. Two ends that disagree would
    /// answer each other's empty answers for ever, so that those are not answered each time.
    fn answer_unacceptable(&mut self, has_text: bool, cx: &mut Context<'_>) {
        if has_text {
            self.rcv.ack_now = true;
        } else {
            self.acknowledge_rarely(cx);
        }
    }

    fn acknowledge_rarely(&mut self, cx: &mut Context<'_>) {
        if cx.now >= self.next_challenge && cx.throttle.allows_challenge(cx.now) {
            self.next_challenge = cx.now.plus_nanos(CHALLENGE_INTERVAL_NS);
            self.rcv.ack_now = true;
        } else {
            cx.counters.skipped_challenges += 1;
        }
    }

    fn is_rejected_by_paws(&self, segment: &Segment, now: Instant) -> bool {
        match (self.timestamps, segment.options.timestamp) {
            // A RST is exempt (RFC 7323, section 5.2).
            (Some(ours), Some(theirs)) => {
                !segment.flags.contains(Flags::RST) && ours.is_old(theirs.value, now)
            }
            // A segment without the agreed option: tolerated, as RFC 7323, section 3.2 permits.
            (Some(_), None) | (None, _) => false,
        }
    }

    /// RFC 7323, section 4.3: only a segment that covers the last acknowledgment sent moves TS.Recent. Its own
    /// acknowledgment has to be acceptable: else who guesses a sequence number could have all that comes later
    /// rejected as old.
    #[inline]
    fn note_timestamp(&mut self, segment: &Segment, now: Instant) {
        if let (Some(ours), Some(theirs)) = (&mut self.timestamps, segment.options.timestamp)
            && segment.sequence.at_or_before(self.rcv.last_ack_sent)
        {
            ours.recent = theirs.value;
            ours.recent_at = now;
        }
    }

    fn on_reset(&mut self, segment: &Segment, cx: &mut Context<'_>) -> Disposition {
        if segment.sequence != self.rcv.nxt {
            self.challenge(cx);
            return Disposition::Keep;
        }
        match self.state {
            // A passive open returns to LISTEN: the listener never left, so the connection just goes.
            State::SynReceived if self.is_open_early() => self.fail(Some(Error::ConnectionReset), cx),
            State::SynReceived => self.fail(Some(Error::ConnectionRefused), cx),
            State::Established | State::FinWait1 | State::FinWait2 | State::CloseWait => {
                self.fail(Some(Error::ConnectionReset), cx)
            }
            State::Closing | State::LastAck => self.fail(None, cx),
            // RFC 1337: a reset must not end TIME-WAIT early.
            State::TimeWait | State::Closed | State::Listen | State::SynSent => Disposition::Keep,
        }
    }

    fn on_unexpected_syn(&mut self, cx: &mut Context<'_>) -> Disposition {
        match self.state {
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {
                self.challenge(cx);
                Disposition::Keep
            }
            State::Closed | State::Listen | State::SynSent => Disposition::Keep,
        }
    }

    /// Sends a challenge acknowledgment (RFC 5961): a peer that really lost its state answers with a RST
    /// that matches. The limit of RFC 5961, section 7 is each connection's own, so that what one peer uses up
    /// tells another nothing; the one of all connections is drawn at random (see [`super::throttle`]).
    pub(super) fn challenge(&mut self, cx: &mut Context<'_>) {
        cx.counters.challenge_acks += 1;
        self.acknowledge_rarely(cx);
    }

    fn is_peers_syn_again(&self, segment: &Segment) -> bool {
        segment.flags.contains(Flags::SYN)
            && !segment.flags.intersects(Flags::ACK.union(Flags::RST))
            && segment.sequence == self.rcv.irs
    }

    /// In a simultaneous open each side answers the other's SYN with a SYN-ACK, which completes the handshake
    /// (RFC 9293, section 3.5, figure 7).
    fn is_simultaneous_syn_ack(&self, segment: &Segment) -> bool {
        segment.flags.contains(Flags::SYN | Flags::ACK)
            && !segment.flags.contains(Flags::RST)
            && segment.sequence == self.rcv.irs
            && self.completes_handshake(segment)
    }

    /// Our SYN is acknowledged in SYN-RECEIVED.
    fn establish(&mut self, segment: &Segment, cx: &mut Context<'_>) {
        self.snd.una = self.snd.iss + 1;
        self.snd.wl1 = segment.sequence;
        self.snd.wl2 = segment.acknowledgment;
        self.transition(Trigger::SynAcknowledged, cx.transitions);
        self.on_established(cx);
    }

    fn completes_handshake(&self, segment: &Segment) -> bool {
        segment.acknowledgment.after(self.snd.iss) && segment.acknowledgment.at_or_before(self.snd.max)
    }

    /// RFC 9293, section 3.10.7.4 (MAY-2) and RFC 1122, section 4.2.2.13: a SYN beyond the old connection's
    /// sequence numbers, or with a newer timestamp, starts a new one (RFC 6191).
    fn may_reopen(&self, segment: &Segment) -> bool {
        let strange = Flags::ACK | Flags::RST | Flags::FIN;
        if !segment.flags.contains(Flags::SYN) || segment.flags.intersects(strange) {
            return false;
        }
        match (self.timestamps, segment.options.timestamp) {
            (Some(ours), Some(theirs)) if theirs.value != ours.recent => {
                (theirs.value.wrapping_sub(ours.recent)).cast_signed() > 0
            }
            (Some(_) | None, Some(_) | None) => segment.sequence.after(self.rcv.nxt),
        }
    }

    /// The acknowledgment and the window (RFC 9293, section 3.10.7.4, fifth).
    #[inline]
    fn on_acknowledgment(&mut self, segment: &Segment, data_len: u32, cx: &mut Context<'_>) -> Verdict {
        let acknowledgment = segment.acknowledgment;
        if acknowledgment.after(self.snd.una) {
            if acknowledgment.after(self.snd.max) {
                // Of something never sent (RFC 5961, section 5).
                self.challenge(cx);
                return Verdict::Drop;
            }
            self.on_progress(acknowledgment, segment, cx);
            self.update_window(segment);
        } else if acknowledgment == self.snd.una {
            let window = u32::from(segment.window) << self.snd.scale;
            let duplicate = data_len == 0
                && window == self.snd.wnd
                && self.snd.una != self.snd.nxt
                && !segment.flags.intersects(RARE_FLAGS);
            self.update_window(segment);
            if self.is_ecn_echo(segment, false) {
                self.on_ecn_echo(self.snd.una, cx);
            }
            if self.sack_permitted && (segment.options.sack.is_some() || duplicate) {
                self.on_telling_acknowledgment(Delivered::default(), 0, segment, cx);
            } else if duplicate {
                self.on_duplicate(cx);
            }
            if (self.snd.una == self.snd.nxt || self.snd.wnd == 0) && !self.orphan {
                // The answer to a zero-window probe: the peer is there, so probing goes on for ever
                // (RFC 9293, section 3.8.6.1). Not so when nobody waits for the data to get through: a peer
                // must not be able to hold memory for ever (RFC 6429, section 4).
                self.retransmissions = 0;
            }
        } else if self.snd.una.distance_from(acknowledgment) > self.snd.max_wnd {
            // Older than anything in the network can be (RFC 5961, section 5).
            self.challenge(cx);
            return Verdict::Drop;
        }
        Verdict::Process
    }

    /// RFC 9293, section 3.10.7.4: an older segment must not bring back an older window. A segment that
    /// acknowledges something new is not older, whatever its sequence number: a retransmission carries
    /// the window of its own day, and the old window from a new SND.UNA on would reach beyond it.
    #[inline]
    fn update_window(&mut self, segment: &Segment) {
        if self.tells_window(segment.sequence, segment.acknowledgment) {
            if self.snd.wnd == 0 && segment.window != 0 {
                // Probing is over, and how long it took says nothing about the path.
                self.rtt.reset_backoff();
                self.retransmissions = 0;
                self.on_window_reopened();
            }
            self.set_window(segment.window, segment.sequence, segment.acknowledgment);
        }
    }

    /// True when a segment is not older than the one that told the window.
    #[inline]
    pub(super) fn tells_window(&self, sequence: SequenceNumber, acknowledgment: SequenceNumber) -> bool {
        self.snd.wl2.before(acknowledgment)
            || self.snd.wl1.before(sequence)
            || (self.snd.wl1 == sequence && self.snd.wl2 == acknowledgment)
    }

    #[inline]
    pub(super) fn set_window(
        &mut self,
        window: u16,
        sequence: SequenceNumber,
        acknowledgment: SequenceNumber,
    ) {
        self.snd.wnd = u32::from(window) << self.snd.scale;
        self.snd.max_wnd = self.snd.max_wnd.max(self.snd.wnd);
        self.snd.wl1 = sequence;
        self.snd.wl2 = acknowledgment;
    }

    /// New data is acknowledged.
    fn on_progress(&mut self, acknowledgment: SequenceNumber, segment: &Segment, cx: &mut Context<'_>) {
        let una_before = self.snd.una;
        let acked_bytes = acknowledgment.distance_from(una_before);
        let in_flight_before = self.snd.in_flight();
        self.snd.una = acknowledgment;
        if self.snd.nxt.before(acknowledgment) {
            // A timeout had sent SND.NXT back, and the copies sent before it arrived after all.
            self.snd.nxt = acknowledgment;
        }
        if acknowledgment.after(self.snd.front) {
            // The FIN takes a sequence number and no byte of the queue.
            let bytes = acknowledgment.min(self.snd.end()).distance_from(self.snd.front);
            self.snd.queue.acknowledge(bytes as usize);
            self.snd.front += bytes;
        }
        let delivered = self.sent.on_acknowledged(acknowledgment, cx.now);
        let rtt_ns = self.measure_rtt(delivered.timed_from(), segment.options.timestamp, cx.now, cx.settings);
        // The backoff stays until something was measured (RFC 6298, section 3: Karn's algorithm).
        self.retransmissions = 0;
        self.soft_error = None;
        cx.network.confirm(cx.now, &mut self.path);
        let mss = self.snd.mss;
        let ecn_echo = self.is_ecn_echo(segment, true);
        let usable_before = self.snd.wnd.min(self.congestion.cwnd_bytes());
        self.congestion.on_ack(&AckEvent {
            now: cx.now,
            bytes_acked: acked_bytes,
            bytes_in_flight: in_flight_before,
            rtt_ns,
            app_limited: in_flight_before + u32::from(mss) <= usable_before,
            in_recovery: self.recovery.is_active(),
            ecn_echo,
        });
        if ecn_echo {
            self.on_ecn_echo(una_before, cx);
        }
        if self.recovery.is_quiet() && segment.options.sack.is_none() {
            self.restart_retransmission(cx);
            self.note_delivery(&delivered, cx);
        } else {
            self.recovery.unmeasured &= rtt_ns.is_none();
            self.on_telling_acknowledgment(delivered, acked_bytes, segment, cx);
        }
        if self.wants_room && self.snd.queue.len_bytes() < self.snd.limit_bytes {
            self.wants_room = false;
            self.raise(Readiness::WRITABLE, cx.events);
        }
    }

    /// A round-trip time, if this acknowledgment gives one (RFC 6298, section 3: Karn's algorithm).
    #[inline]
    pub(super) fn measure_rtt(
        &mut self,
        timed_from: Option<Instant>,
        stamp: Option<Timestamp>,
        now: Instant,
        settings: &Settings,
    ) -> Option<u64> {
        let sample = match timed_from {
            Some(sent_at) => Some(now.nanos_since(sent_at)),
            // Something was sent twice: the echoed timestamp tells which copy arrived (RFC 7323, section 4.1).
            None => match (self.timestamps, stamp) {
                (Some(ours), Some(theirs)) if theirs.echo != 0 => {
                    let millis = ours.value(now).wrapping_sub(theirs.echo);
                    // Half a tick stands for less than one; a nonsensical echo gives none.
                    (millis < 1 << 20).then_some((u64::from(millis) * 1_000_000).max(500_000))
                }
                (Some(_) | None, Some(_) | None) => None,
            },
        };
        if let Some(rtt_ns) = sample {
            self.rtt.sample(rtt_ns, settings.clock_granularity_ns);
        }
        sample
    }

    /// All that was sent is acknowledged, our FIN included: a close that waits is over.
    fn tell_of_close(&mut self, cx: &mut Context<'_>) {
        if self.close_awaited {
            self.raise(Readiness::CLOSED, cx.events);
        }
    }

    /// Our FIN is acknowledged (RFC 9293, section 3.10.7.4, fifth, from FIN-WAIT-1 on).
    fn on_fin_acknowledged(&mut self, cx: &mut Context<'_>) -> Disposition {
        match self.state {
            State::FinWait1 => {
                self.transition(Trigger::FinAcknowledged, cx.transitions);
                if self.orphan {
                    self.start_orphan_timeout(cx);
                    self.tell_of_close(cx);
                }
                Disposition::Keep
            }
            State::Closing => {
                self.transition(Trigger::FinAcknowledged, cx.transitions);
                self.start_time_wait(cx);
                self.tell_of_close(cx);
                Disposition::Keep
            }
            State::LastAck => {
                self.transition(Trigger::FinAcknowledged, cx.transitions);
                self.release_transfer_state(cx);
                self.raise(Readiness::CLOSED, cx.events);
                Disposition::Closed
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait2
            | State::CloseWait
            | State::TimeWait => Disposition::Keep,
        }
    }
}
