//! The tail loss probe: when the end of a flight goes unacknowledged, one segment more asks for the acknowledgment
//! that tells what was lost, long before the retransmission timeout would (RFC 8985, section 7).

use libos::Instant;

use super::congestion::{CongestionControl, LossEvent, LossKind};
use super::connection::{Connection, Context, Settings};
use super::recovery::Alarm;
use super::scoreboard::Reported;
use super::segment::Segment;
use super::sequence::SequenceNumber;

/// A probe whose acknowledgment is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct TailProbe {
    /// TLP.end_seq.
    pub end: SequenceNumber,
    /// TLP.is_retrans: it was old data.
    pub is_retransmission: bool,
    /// Bytes in flight when it left: what was lost, if it was, was lost of these.
    pub flight_bytes: u32,
}

impl Connection {
    /// True when the deadline for what is in flight may be a probe's (RFC 8985, section 7.2): no other one is under way,
    /// and there was a measurement since the last, without which a path that became slower would be probed too early
    /// for ever (section 7.3).
    #[inline]
    pub(super) fn may_probe_tail(&self) -> bool {
        self.sack_permitted
            && self.recovery.is_quiet()
            && self.state.sends_data()
            && self.snd.nxt != self.snd.una
            && self.snd.nxt == self.snd.max
    }

    /// PTO: how long to wait for an acknowledgment before probing (RFC 8985, section 7.2).
    #[inline]
    pub(super) fn probe_timeout_ns(&self, granularity_ns: u64) -> u64 {
        let rto_ns = self.rtt.rto_ns();
        match self.rtt.srtt_ns() {
            // Less than two segments may wait for the peer's delayed acknowledgment, which is about as long as the
            // retransmission timeout leaves.
            Some(srtt_ns) if self.snd.in_flight() >= 2 * u32::from(self.snd.mss) => {
                srtt_ns.saturating_add(granularity_ns).saturating_mul(2).min(rto_ns)
            }
            Some(_) | None => rto_ns,
        }
    }

    /// The probe timeout went off (RFC 8985, section 7.3).
    pub(super) fn on_probe_timeout(&mut self, cx: &mut Context<'_>) {
        cx.counters.tail_loss_probes += 1;
        // The user timeout counts from here on at the latest; when it is over, the deadline below is due at once.
        let waited_ns = self.probe_timeout_ns(cx.settings.clock_granularity_ns);
        let _ = self.user_timeout.is_over(self.snd.una, cx.now, waited_ns);
        let max = self.snd.max;
        let flight_bytes = self.snd.in_flight();
        self.send_new_segment(cx);
        let is_retransmission = self.snd.max == max;
        if is_retransmission {
            self.retransmit_tail(cx);
        }
        self.recovery.probe = Some(TailProbe { end: self.snd.max, is_retransmission, flight_bytes });
        self.recovery.unmeasured = true;
        self.settle_recovery();
        self.recovery.alarm = Alarm::Retransmission;
        self.deadlines.retransmit =
            cx.now.plus_nanos(self.rtt.rto_ns()).min(self.user_timeout.deadline(self.snd.una));
    }

    /// Sends the last segment of all again.
    fn retransmit_tail(&mut self, cx: &mut Context<'_>) {
        let Some(last) = self.sent.len().checked_sub(1).and_then(|index| self.sent.get(index)).copied()
        else {
            return;
        };
        let segment_bytes = u32::from(last.segment_bytes.min(self.snd.mss)).max(1);
        let whole = last.len().saturating_sub(1) / segment_bytes * segment_bytes;
        let start = last.start + whole;
        let mut repair = self.take_repair();
        let _ = self.retransmit(start, last.end.distance_from(start), &mut repair, cx);
        self.put_repair(repair);
    }

    /// What an acknowledgment says of the probe (RFC 8985, section 7.4.2).
    pub(super) fn check_probe(
        &mut self,
        reported: &Reported,
        advanced: bool,
        segment: &Segment,
        cx: &mut Context<'_>,
    ) {
        let Some(probe) = self.recovery.probe.filter(|probe| self.snd.una.at_or_after(probe.end)) else {
            return;
        };
        let came_twice = reported.duplicate.is_some_and(|(_, end)| end == probe.end)
            || (!advanced && segment.options.sack.is_none());
        if !probe.is_retransmission || came_twice {
            self.recovery.probe = None;
        } else if self.snd.una.after(probe.end) {
            // The probe filled the only hole there was: a loss all the same.
            self.recovery.probe = None;
            let event = LossEvent {
                now: cx.now,
                bytes_in_flight: probe.flight_bytes,
                kind: LossKind::FastRetransmit,
            };
            self.congestion.on_loss(&event);
            self.congestion.on_recovery_exit(self.pipe_bytes(), cx.now);
        }
    }

    /// The deadline for what is in flight, or held back by the window: see [`Alarm`].
    #[inline]
    pub(super) fn retransmission_deadline(&mut self, now: Instant, settings: &Settings) -> Instant {
        if self.may_probe_tail() {
            return self.flight_deadline(now, settings);
        }
        self.recovery.alarm = Alarm::Retransmission;
        now.plus_nanos(self.rtt.rto_ns())
    }

    /// As [`Self::retransmission_deadline`], for what is in flight on a connection without losses.
    #[inline]
    pub(super) fn flight_deadline(&mut self, now: Instant, settings: &Settings) -> Instant {
        if self.sack_permitted {
            self.recovery.alarm = Alarm::TailProbe;
            now.plus_nanos(self.probe_timeout_ns(settings.clock_granularity_ns))
        } else {
            self.recovery.alarm = Alarm::Retransmission;
            now.plus_nanos(self.rtt.rto_ns())
        }
    }
}
