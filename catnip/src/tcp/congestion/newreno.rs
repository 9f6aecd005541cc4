//! NewReno: slow start and congestion avoidance (RFC 5681) with the recovery of RFC 6582, an initial
//! window of ten segments (RFC 6928) and bytes rather than acknowledgments counted (RFC 3465).
//!
//! The inflation of the window during recovery belongs to whoever counts duplicates, not to this.

use libos::Instant;

use super::{
    AckEvent, CongestionControl, DEFAULT_MSS_BYTES, LossEvent, LossKind, MAX_CWND_BYTES, initial_window,
    window_after_recovery,
};

/// Most segments that one acknowledgment adds in slow start (RFC 3465 §2.2: L = 2).
const SLOW_START_LIMIT_SEGMENTS: u32 = 2;

/// NewReno's variables.
#[derive(Debug, Clone)]
pub struct NewReno {
    cwnd_bytes: u32,
    ssthresh_bytes: u32,
    mss_bytes: u32,
    /// Bytes acknowledged since the window last grew in congestion avoidance.
    acked_bytes: u32,
    /// Slow start follows a timeout: then L = 1 (RFC 3465 §2.3).
    after_timeout: bool,
    /// Window and threshold before the last reduction, should it turn out to have been for nothing.
    undo: Option<(u32, u32)>,
}

impl NewReno {
    /// The state of a connection whose handshake is not over.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cwnd_bytes: initial_window(DEFAULT_MSS_BYTES),
            ssthresh_bytes: u32::MAX,
            mss_bytes: DEFAULT_MSS_BYTES,
            acked_bytes: 0,
            after_timeout: false,
            undo: None,
        }
    }

    /// RFC 5681 §3.1, equation 4: half of what is in flight, at least two segments.
    fn halved(&self, bytes_in_flight: u32) -> u32 {
        (bytes_in_flight / 2).max(self.mss_bytes.saturating_mul(2)).min(MAX_CWND_BYTES)
    }

    /// Goes on from a smaller window, but no fewer than two segments, for a mark that the peer reported.
    pub(super) fn reduce_to(&mut self, bytes: u32) {
        self.ssthresh_bytes = bytes.max(self.mss_bytes.saturating_mul(2)).min(MAX_CWND_BYTES);
        self.cwnd_bytes = self.ssthresh_bytes;
        self.acked_bytes = 0;
        self.undo = None;
    }

    fn grow(&mut self, bytes: u32) {
        self.cwnd_bytes = self.cwnd_bytes.saturating_add(bytes).min(MAX_CWND_BYTES);
    }
}

impl Default for NewReno {
    fn default() -> Self {
        Self::new()
    }
}

impl CongestionControl for NewReno {
    fn name(&self) -> &'static str {
        "reno"
    }

    fn on_established(&mut self, mss_bytes: u32, _now: Instant) {
        self.mss_bytes = mss_bytes.max(1);
        // After a lost SYN the connection starts with one segment (RFC 5681 §3.1), but the loss of a SYN
        // says nothing about a threshold.
        self.ssthresh_bytes = u32::MAX;
        self.cwnd_bytes = if self.after_timeout { self.mss_bytes } else { initial_window(self.mss_bytes) };
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        self.mss_bytes = mss_bytes.max(1);
        self.cwnd_bytes = self.cwnd_bytes.max(self.mss_bytes);
    }

    #[inline]
    fn on_ack(&mut self, event: &AckEvent) {
        // A window that was not used says nothing about the path (RFC 7661 §4.1, RFC 9293 §3.8.2); in
        // recovery it stays where the loss put it (RFC 6582 §3.2, step 3).
        // It does not grow either while the peer reports marks (RFC 3168 §6.1.2).
        if event.app_limited || event.in_recovery || event.ecn_echo {
            return;
        }
        if self.cwnd_bytes < self.ssthresh_bytes {
            let limit_segments = if self.after_timeout { 1 } else { SLOW_START_LIMIT_SEGMENTS };
            self.grow(event.bytes_acked.min(self.mss_bytes.saturating_mul(limit_segments)));
            return;
        }
        // Congestion avoidance: a segment for every window acknowledged (RFC 5681 §3.1, RFC 3465 §2.1).
        self.after_timeout = false;
        self.acked_bytes = self.acked_bytes.saturating_add(event.bytes_acked);
        if self.acked_bytes >= self.cwnd_bytes {
            self.acked_bytes -= self.cwnd_bytes;
            self.grow(self.mss_bytes);
        }
    }

    #[inline]
    fn heeds_app_limited(&self) -> bool {
        false
    }

    fn on_loss(&mut self, event: &LossEvent) {
        // Marks report congestion that was there, so that a reduction for them is never taken back.
        self.undo = match event.kind {
            LossKind::FastRetransmit => Some((self.cwnd_bytes, self.ssthresh_bytes)),
            LossKind::CongestionMark => None,
        };
        // RFC 6582 §3.2, step 2, less the three segments of inflation.
        self.ssthresh_bytes = self.halved(event.bytes_in_flight);
        self.cwnd_bytes = self.ssthresh_bytes;
        self.acked_bytes = 0;
    }

    fn on_recovery_exit(&mut self, bytes_in_flight: u32, _now: Instant) {
        self.cwnd_bytes = window_after_recovery(self.ssthresh_bytes, bytes_in_flight, self.mss_bytes);
        self.acked_bytes = 0;
    }

    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, _now: Instant) {
        // RFC 5681 §3.1: the threshold stays when the same segment times out again, and the window is
        // the loss window of one segment.
        if first {
            self.undo = Some((self.cwnd_bytes, self.ssthresh_bytes));
            self.ssthresh_bytes = self.halved(bytes_in_flight);
        }
        self.cwnd_bytes = self.mss_bytes;
        self.acked_bytes = 0;
        self.after_timeout = true;
    }

    fn on_spurious(&mut self, _now: Instant) {
        if let Some((cwnd_bytes, ssthresh_bytes)) = self.undo.take() {
            self.cwnd_bytes = self.cwnd_bytes.max(cwnd_bytes);
            self.ssthresh_bytes = ssthresh_bytes;
            self.after_timeout = false;
        }
    }

    fn on_idle(&mut self, _now: Instant) {
        // RFC 5681 §4.1: the restart window, min(IW, cwnd).
        self.cwnd_bytes = self.cwnd_bytes.min(initial_window(self.mss_bytes));
        self.acked_bytes = 0;
    }

    #[inline]
    fn cwnd_bytes(&self) -> u32 {
        self.cwnd_bytes
    }

    fn ssthresh_bytes(&self) -> u32 {
        self.ssthresh_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{acked, lost};
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1_000;
    const NOW: Instant = Instant::ZERO;

    fn established(mss_bytes: u32) -> NewReno {
        let mut reno = NewReno::new();
        reno.on_established(mss_bytes, NOW);
        reno
    }

    fn ack(reno: &mut NewReno, bytes_acked: u32) {
        let event = acked(bytes_acked, reno.cwnd_bytes(), NOW);
        reno.on_ack(&event);
    }

    fn loss(bytes_in_flight: u32) -> LossEvent {
        lost(bytes_in_flight, NOW)
    }

    #[test]
    fn the_initial_window_is_that_of_rfc_6928() {
        for (mss_bytes, cwnd_bytes) in [(536, 5_360), (1_460, 14_600), (2_000, 14_600), (8_960, 17_920)] {
            let reno = established(mss_bytes);
            assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (cwnd_bytes, u32::MAX), "{mss_bytes}");
        }
    }

    #[test]
    fn slow_start_adds_what_was_acknowledged_up_to_two_segments() {
        for (acked, growth) in [(1, 1), (MSS, MSS), (2 * MSS, 2 * MSS), (40 * MSS, 2 * MSS)] {
            let mut reno = established(MSS);
            ack(&mut reno, acked);
            assert_eq!(reno.cwnd_bytes(), 10 * MSS + growth, "{acked}");
        }
    }

    #[test]
    fn congestion_avoidance_adds_one_segment_a_window() {
        let mut reno = established(MSS);
        reno.on_loss(&loss(20 * MSS));
        for _ in 0..9 {
            ack(&mut reno, MSS);
            assert_eq!(reno.cwnd_bytes(), 10 * MSS);
        }
        ack(&mut reno, MSS);
        assert_eq!(reno.cwnd_bytes(), 11 * MSS);
        // Eleven more, of which the first counts on from nothing left over.
        (0..10).for_each(|_| ack(&mut reno, MSS));
        assert_eq!(reno.cwnd_bytes(), 11 * MSS);
        ack(&mut reno, MSS);
        assert_eq!(reno.cwnd_bytes(), 12 * MSS);
    }

    #[test]
    fn a_loss_halves_the_flight_but_leaves_two_segments() {
        for (in_flight, expected) in [(20 * MSS, 10 * MSS), (5 * MSS, 2 * MSS + 500), (MSS, 2 * MSS)] {
            let mut reno = established(MSS);
            reno.on_loss(&loss(in_flight));
            assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (expected, expected), "{in_flight}");
        }
    }

    #[test]
    fn leaving_recovery_does_not_burst() {
        for (lost_of, in_flight, cwnd) in [
            (40 * MSS, 30 * MSS, 20 * MSS),
            (40 * MSS, 14 * MSS, 15 * MSS),
            (40 * MSS, 4 * MSS, 5 * MSS),
            (40 * MSS, 1, 2 * MSS),
            // Nothing is left: as much as after an idle time, and no more than the threshold.
            (40 * MSS, 0, 10 * MSS),
            (12 * MSS, 0, 6 * MSS),
        ] {
            let mut reno = established(MSS);
            reno.on_loss(&loss(lost_of));
            reno.on_recovery_exit(in_flight, NOW);
            assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (cwnd, lost_of / 2), "{in_flight}");
        }
    }

    #[test]
    fn a_timeout_starts_again_with_one_segment_and_halves_once() {
        let mut reno = established(MSS);
        reno.on_timeout(20 * MSS, true, NOW);
        assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (MSS, 10 * MSS));
        reno.on_timeout(MSS, false, NOW);
        assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (MSS, 10 * MSS));
        // Slow start after a timeout: one segment an acknowledgment, up to the threshold.
        ack(&mut reno, 5 * MSS);
        assert_eq!(reno.cwnd_bytes(), 2 * MSS);
        (0..8).for_each(|_| ack(&mut reno, MSS));
        assert_eq!(reno.cwnd_bytes(), 10 * MSS);
        ack(&mut reno, MSS);
        assert_eq!(reno.cwnd_bytes(), 10 * MSS);
    }

    #[test]
    fn a_reduction_for_nothing_is_taken_back_once() {
        let reductions: [fn(&mut NewReno); 2] =
            [|reno| reno.on_loss(&loss(10 * MSS)), |reno| reno.on_timeout(10 * MSS, true, NOW)];
        for reduce in reductions {
            let mut reno = established(MSS);
            reduce(&mut reno);
            reno.on_spurious(NOW);
            assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (10 * MSS, u32::MAX));
            reno.on_loss(&LossEvent { kind: LossKind::CongestionMark, ..loss(10 * MSS) });
            reno.on_spurious(NOW);
            assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (5 * MSS, 5 * MSS));
        }
    }

    #[test]
    fn a_window_that_is_not_used_or_in_recovery_does_not_grow() {
        for (app_limited, in_recovery) in [(true, false), (false, true)] {
            let mut reno = established(MSS);
            reno.on_ack(&AckEvent { app_limited, in_recovery, ..acked(MSS, MSS, NOW) });
            assert_eq!(reno.cwnd_bytes(), 10 * MSS);
        }
    }

    #[test]
    fn after_idling_the_window_is_at_most_the_initial_one() {
        let mut reno = established(MSS);
        (0..20).for_each(|_| ack(&mut reno, MSS));
        reno.on_idle(NOW);
        assert_eq!(reno.cwnd_bytes(), 10 * MSS);
        reno.on_timeout(MSS, true, NOW);
        reno.on_idle(NOW);
        assert_eq!(reno.cwnd_bytes(), MSS);
    }

    #[test]
    fn a_lost_syn_leaves_one_segment_to_start_with() {
        let mut reno = NewReno::new();
        reno.on_timeout(1, true, NOW);
        reno.on_established(MSS, NOW);
        assert_eq!((reno.cwnd_bytes(), reno.ssthresh_bytes()), (MSS, u32::MAX));
    }

    proptest! {
        #[test]
        fn the_window_never_falls_below_a_segment_nor_leaves_its_bound(
            mss in 1_u32..10_000,
            events in prop::collection::vec((0..6, any::<u32>()), 0..200),
        ) {
            let mut reno = established(mss);
            for (event, bytes) in events {
                match event {
                    0 | 1 => ack(&mut reno, bytes),
                    2 => reno.on_loss(&loss(bytes)),
                    3 => reno.on_recovery_exit(bytes, NOW),
                    4 => reno.on_timeout(bytes, bytes % 2 == 0, NOW),
                    _ => reno.on_idle(NOW),
                }
                prop_assert!((mss..=1 << 30).contains(&reno.cwnd_bytes()), "{:?}", reno);
                prop_assert!(reno.ssthresh_bytes() >= 2 * mss);
            }
        }
    }
}
