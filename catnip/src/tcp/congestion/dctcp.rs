//! DCTCP (RFC 8257): reduces the window by as much as was marked, so that queues stay short without loss of
//! throughput. For networks whose switches mark at a low threshold, such as a datacenter's.

use libos::Instant;

use super::{AckEvent, CongestionControl, EcnUse, LossEvent, LossKind, NewReno};

/// Fixed point of alpha: 2^20 is all.
const ONE: u32 = 1 << 20;
/// g = 1/16: the weight of a new observation (RFC 8257 §4.2).
const GAIN_SHIFT: u32 = 4;

/// DCTCP's variables. Growth, losses and timeouts are NewReno's (RFC 8257 §3.4, §3.5).
#[derive(Debug, Clone)]
pub struct Dctcp {
    reno: NewReno,
    /// DCTCP.Alpha: the smoothed share of marked bytes, in 2^-20.
    alpha: u32,
    /// Bytes acknowledged in this observation window, and those of them reported as marked.
    acked_bytes: u64,
    marked_bytes: u64,
    /// Bytes yet to be acknowledged of those in flight when the observation window began.
    window_bytes: u32,
}

impl Dctcp {
    /// The state of a connection whose handshake is not over.
    #[must_use]
    pub const fn new() -> Self {
        // RFC 8257 §4.2: a path is taken to be congested until it shows otherwise.
        Self { reno: NewReno::new(), alpha: ONE, acked_bytes: 0, marked_bytes: 0, window_bytes: 0 }
    }

    /// RFC 8257 §3.3, steps 1 to 4.
    fn observe(&mut self, event: &AckEvent) {
        self.acked_bytes += u64::from(event.bytes_acked);
        if event.ecn_echo {
            self.marked_bytes += u64::from(event.bytes_acked);
        }
        self.window_bytes = self.window_bytes.saturating_sub(event.bytes_acked);
        if self.window_bytes > 0 {
            return;
        }
        let marked = self.marked_bytes * u64::from(ONE) / self.acked_bytes.max(1);
        let marked = u32::try_from(marked).unwrap_or(ONE).min(ONE);
        // What is left of the old share is rounded up to zero marks: it ends at none.
        self.alpha = self.alpha - self.alpha.div_ceil(1 << GAIN_SHIFT) + (marked >> GAIN_SHIFT);
        self.acked_bytes = 0;
        self.marked_bytes = 0;
        self.window_bytes = event.bytes_in_flight.saturating_sub(event.bytes_acked);
    }
}

impl Default for Dctcp {
    fn default() -> Self {
        Self::new()
    }
}

impl CongestionControl for Dctcp {
    fn name(&self) -> &'static str {
        "dctcp"
    }

    fn on_established(&mut self, mss_bytes: u32, now: Instant) {
        self.reno.on_established(mss_bytes, now);
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        self.reno.on_mss_change(mss_bytes);
    }

    #[inline]
    fn on_ack(&mut self, event: &AckEvent) {
        self.observe(event);
        self.reno.on_ack(event);
    }

    fn on_loss(&mut self, event: &LossEvent) {
        match event.kind {
            LossKind::FastRetransmit => self.reno.on_loss(event),
            LossKind::CongestionMark => {
                // RFC 8257 §3.3, step 5: cwnd = cwnd * (1 - DCTCP.Alpha / 2).
                let cwnd_bytes = self.reno.cwnd_bytes();
                let cut = (u64::from(cwnd_bytes) * u64::from(self.alpha)) >> 21;
                self.reno.reduce_to(cwnd_bytes.saturating_sub(u32::try_from(cut).unwrap_or(u32::MAX)));
            }
        }
    }

    fn on_recovery_exit(&mut self, bytes_in_flight: u32, now: Instant) {
        self.reno.on_recovery_exit(bytes_in_flight, now);
    }

    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, now: Instant) {
        self.reno.on_timeout(bytes_in_flight, first, now);
    }

    fn on_spurious(&mut self, now: Instant) {
        self.reno.on_spurious(now);
    }

    fn on_idle(&mut self, now: Instant) {
        self.reno.on_idle(now);
    }

    #[inline]
    fn cwnd_bytes(&self) -> u32 {
        self.reno.cwnd_bytes()
    }

    fn ssthresh_bytes(&self) -> u32 {
        self.reno.ssthresh_bytes()
    }

    fn ecn_use(&self) -> EcnUse {
        EcnUse::Precise
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{acked, lost};
    use super::*;

    const MSS: u32 = 1_000;
    const NOW: Instant = Instant::ZERO;

    fn established() -> Dctcp {
        let mut dctcp = Dctcp::new();
        dctcp.on_established(MSS, NOW);
        dctcp
    }

    /// A window of a hundred segments, of which the first so many are reported as marked.
    fn window(dctcp: &mut Dctcp, marked: u32) {
        for segment in 0..100 {
            // What is sent in answer keeps the flight at a hundred.
            dctcp.observe(&AckEvent { ecn_echo: segment < marked, ..acked(MSS, 101 * MSS, NOW) });
        }
    }

    fn mark(dctcp: &mut Dctcp) {
        dctcp.on_loss(&LossEvent { kind: LossKind::CongestionMark, ..lost(100 * MSS, NOW) });
    }

    #[test]
    fn alpha_approaches_the_share_of_marked_bytes() {
        for marked in [0, 10, 50, 100] {
            let mut dctcp = established();
            (0..150).for_each(|_| window(&mut dctcp, marked));
            let expected = f64::from(marked) / 100.0;
            let alpha = f64::from(dctcp.alpha) / f64::from(ONE);
            assert!((alpha - expected).abs() < 0.01, "{alpha} for {expected}");
        }
    }

    #[test]
    fn an_observation_weighs_a_sixteenth() {
        let mut dctcp = established();
        // The first acknowledgment ends the window of no bytes that a connection begins with.
        dctcp.observe(&acked(MSS, 101 * MSS, NOW));
        let before = f64::from(dctcp.alpha) / f64::from(ONE);
        assert!((before - 15.0 / 16.0).abs() < 1e-5, "{before}");
        window(&mut dctcp, 50);
        let after = f64::from(dctcp.alpha) / f64::from(ONE);
        assert!((after - (before * 15.0 / 16.0 + 0.5 / 16.0)).abs() < 1e-5, "{after}");
    }

    #[test]
    fn a_report_cuts_the_window_by_half_of_alpha() {
        for (marked, expected) in [(0, 10 * MSS), (20, 9 * MSS), (100, 5 * MSS)] {
            let mut dctcp = established();
            (0..200).for_each(|_| window(&mut dctcp, marked));
            mark(&mut dctcp);
            let apart = dctcp.cwnd_bytes().abs_diff(expected);
            assert!(apart <= MSS / 20, "{} for {expected}", dctcp.cwnd_bytes());
            assert_eq!(dctcp.cwnd_bytes(), dctcp.ssthresh_bytes());
        }
    }

    #[test]
    fn the_first_report_halves_and_a_loss_always_does() {
        let mut dctcp = established();
        mark(&mut dctcp);
        assert_eq!(dctcp.cwnd_bytes(), 5 * MSS);
        let mut dctcp = established();
        (0..200).for_each(|_| window(&mut dctcp, 0));
        dctcp.on_loss(&lost(10 * MSS, NOW));
        assert_eq!(dctcp.cwnd_bytes(), 5 * MSS);
    }

    #[test]
    fn two_segments_always_remain() {
        let mut dctcp = established();
        (0..20).for_each(|_| mark(&mut dctcp));
        assert_eq!(dctcp.cwnd_bytes(), 2 * MSS);
    }
}
