//! The round-trip time and the retransmission timeout (RFC 6298).

/// The timeout after a lost SYN, before data was measured (RFC 6298 §5.7): 3 s.
const AFTER_LOST_SYN_NS: u64 = 3_000_000_000;

/// Doublings after which the timeout is no longer doubled; it is at its upper bound long before.
const MAX_BACKOFF: u8 = 32;

/// Bounds of the retransmission timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtoConfig {
    /// The timeout before the first measurement (RFC 6298 §2.1: 1 s).
    pub initial_ns: u64,
    /// Lower bound (RFC 6298 §2.4 asks for 1 s; stacks use less, as it is harmless with fine clocks).
    pub min_ns: u64,
    /// Upper bound (RFC 6298 §2.5: at least 60 s).
    pub max_ns: u64,
}

impl Default for RtoConfig {
    fn default() -> Self {
        Self { initial_ns: 1_000_000_000, min_ns: 200_000_000, max_ns: 120_000_000_000 }
    }
}

/// Longest round trip that counts as itself, two years: what is made of it then fits into its numbers.
const LONGEST_RTT_NS: u64 = 1 << 56;

/// What is known of one connection's round-trip time.
///
/// Karn's rule (RFC 6298 §3: no sample from a segment that was sent twice, unless timestamps tell the
/// two apart) is the caller's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RttEstimator {
    /// SRTT in eighths and RTTVAR in quarters of a nanosecond, so that each weighs its sample by a shift and loses
    /// nothing (Jacobson, "Congestion avoidance and control", 1988, appendix A). Zero before the first sample.
    srtt_eighths: u64,
    rttvar_quarters: u64,
    /// The smallest of this span of time; largest when there is none.
    min_rtt_ns: u64,
    /// While eight times SRTT + 4 * RTTVAR is below this, the timeout is at its lower bound, as it was. Zero while it is
    /// anywhere else, and before the first sample.
    settled_below: u64,
    /// The timeout as it is.
    rto_ns: u64,
    /// The smallest of the span of time before the one that `min_rtt_ns` is of; largest when there is none.
    former_min_rtt_ns: u64,
    /// The timeout before backing off, within the bounds.
    base_ns: u64,
    min_rto_ns: u64,
    max_rto_ns: u64,
    backoff: u8,
    is_sampled: bool,
}

impl RttEstimator {
    /// An estimator without samples. An upper bound below the lower one counts as equal to it.
    #[must_use]
    pub fn new(config: &RtoConfig) -> Self {
        let max_rto_ns = config.max_ns.max(config.min_ns);
        let base_ns = config.initial_ns.clamp(config.min_ns, max_rto_ns);
        Self {
            srtt_eighths: 0,
            rttvar_quarters: 0,
            min_rtt_ns: u64::MAX,
            settled_below: 0,
            rto_ns: base_ns,
            former_min_rtt_ns: u64::MAX,
            base_ns,
            min_rto_ns: config.min_ns,
            max_rto_ns,
            backoff: 0,
            is_sampled: false,
        }
    }

    /// Takes a measurement, and with it ends backing off (RFC 6298 §5, closing note).
    #[inline(always)]
    pub fn sample(&mut self, rtt_ns: u64, clock_granularity_ns: u64) {
        if rtt_ns < self.settled_below {
            let (srtt_eighths, rttvar_quarters) = self.smoothed(rtt_ns);
            if srtt_eighths + 8 * rttvar_quarters < self.settled_below {
                self.srtt_eighths = srtt_eighths;
                self.rttvar_quarters = rttvar_quarters;
                if rtt_ns < self.min_rtt_ns {
                    self.min_rtt_ns = rtt_ns;
                }
                return;
            }
        }
        self.sample_any(rtt_ns, clock_granularity_ns);
    }

    /// RFC 6298 §2.3: alpha is 1/8, beta is 1/4; RTTVAR is made with the old SRTT.
    #[inline(always)]
    const fn smoothed(&self, rtt_ns: u64) -> (u64, u64) {
        let error_ns = rtt_ns.wrapping_sub(self.srtt_eighths >> 3).cast_signed();
        let srtt_eighths = self.srtt_eighths.wrapping_add_signed(error_ns);
        let rttvar_quarters = self.rttvar_quarters - (self.rttvar_quarters >> 2) + error_ns.unsigned_abs();
        (srtt_eighths, rttvar_quarters)
    }

    /// [`Self::sample`] of any, which may move the timeout.
    #[inline(never)]
    fn sample_any(&mut self, rtt_ns: u64, clock_granularity_ns: u64) {
        let rtt_ns = rtt_ns.min(LONGEST_RTT_NS);
        (self.srtt_eighths, self.rttvar_quarters) = if self.is_sampled {
            self.smoothed(rtt_ns)
        } else {
            // RFC 6298 §2.2: SRTT is the first measurement, RTTVAR half of it.
            (8 * rtt_ns, 2 * rtt_ns)
        };
        self.is_sampled = true;
        self.min_rtt_ns = self.min_rtt_ns.min(rtt_ns);
        // RFC 6298 §2.2 to §2.5: RTO = SRTT + max(G, K * RTTVAR) with K = 4, within the bounds.
        let margin_ns = self.rttvar_quarters.max(clock_granularity_ns);
        let rto_ns = (self.srtt_eighths >> 3).saturating_add(margin_ns);
        self.base_ns = rto_ns.clamp(self.min_rto_ns, self.max_rto_ns);
        self.set_backoff(0);
        if self.base_ns == self.min_rto_ns {
            let settled_below_ns = self.min_rto_ns.saturating_sub(clock_granularity_ns);
            self.settled_below = 8 * settled_below_ns.min(LONGEST_RTT_NS);
        }
    }

    /// Doubles the timeout so often.
    fn set_backoff(&mut self, backoff: u8) {
        self.backoff = backoff;
        self.rto_ns = match backoff {
            0 => self.base_ns,
            _ => self.base_ns.saturating_mul(1 << backoff).min(self.max_rto_ns),
        };
        self.settled_below = 0;
    }

    /// The retransmission timeout.
    #[inline(always)]
    #[must_use]
    pub const fn rto_ns(&self) -> u64 {
        self.rto_ns
    }

    /// The retransmission timer went off: the timeout doubles, up to its bound (RFC 6298 §5.5).
    pub fn back_off(&mut self) {
        self.set_backoff((self.backoff + 1).min(MAX_BACKOFF));
    }

    /// The timeout is again what the measurements say.
    pub fn reset_backoff(&mut self) {
        self.set_backoff(0);
    }

    /// The handshake is over and its SYN had to be sent again: without a measurement the timeout is 3 s
    /// when data transmission begins (RFC 6298 §5.7).
    pub fn on_lost_syn(&mut self) {
        if !self.is_sampled {
            self.base_ns = AFTER_LOST_SYN_NS.clamp(self.base_ns, self.max_rto_ns);
        }
        self.set_backoff(0);
    }

    /// SRTT: the smoothed round-trip time.
    #[must_use]
    pub fn srtt_ns(&self) -> Option<u64> {
        self.is_sampled.then_some(self.srtt_eighths >> 3)
    }

    /// RTTVAR: its variation.
    #[must_use]
    pub fn rttvar_ns(&self) -> Option<u64> {
        self.is_sampled.then_some(self.rttvar_quarters >> 2)
    }

    /// The smallest round-trip time measured of late: in this span of time and the one before.
    #[must_use]
    pub fn min_rtt_ns(&self) -> Option<u64> {
        self.is_sampled.then(|| self.min_rtt_ns.min(self.former_min_rtt_ns))
    }

    /// A new span of time begins: what was measured in the one before the last counts no longer, as the path may have
    /// become longer since (RFC 8985 §6.2, step 1). A span without a measurement does not end.
    pub fn begin_span(&mut self) {
        if self.min_rtt_ns != u64::MAX {
            self.former_min_rtt_ns = self.min_rtt_ns;
            self.min_rtt_ns = u64::MAX;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;
    const BOUNDS: RtoConfig = RtoConfig { initial_ns: 1_000 * MS, min_ns: MS, max_ns: 60_000 * MS };

    #[test]
    fn without_a_sample_the_timeout_is_the_initial_one() {
        let estimator = RttEstimator::new(&BOUNDS);
        assert_eq!(estimator.rto_ns(), 1_000 * MS);
        assert_eq!((estimator.srtt_ns(), estimator.rttvar_ns(), estimator.min_rtt_ns()), (None, None, None));
    }

    #[test]
    fn samples_are_smoothed_as_the_rfc_says() {
        let mut estimator = RttEstimator::new(&BOUNDS);
        // (sample, SRTT, RTTVAR, RTO) in units of 1 ms / 64, which keeps the divisions exact.
        let unit = MS / 64;
        for (sample, srtt, rttvar, rto) in [
            (6_400, 6_400, 3_200, 6_400 + 4 * 3_200),
            (6_400, 6_400, 2_400, 6_400 + 4 * 2_400),
            (12_800, 7_200, 3_400, 7_200 + 4 * 3_400),
            (3_200, 6_700, 3_550, 6_700 + 4 * 3_550),
        ] {
            estimator.sample(sample * unit, 0);
            assert_eq!(estimator.srtt_ns(), Some(srtt * unit));
            assert_eq!(estimator.rttvar_ns(), Some(rttvar * unit));
            assert_eq!(estimator.rto_ns(), rto * unit);
        }
        assert_eq!(estimator.min_rtt_ns(), Some(3_200 * unit));
    }

    #[test]
    fn the_timeout_stays_within_its_bounds_and_above_the_clock_granularity() {
        for (sample_ns, granularity_ns, rto_ns) in [
            (0, 0, MS),
            (10, 0, MS),
            (10, 5 * MS, 5 * MS + 10),
            (50_000 * MS, 0, 60_000 * MS),
            (u64::MAX, u64::MAX, 60_000 * MS),
        ] {
            let mut estimator = RttEstimator::new(&BOUNDS);
            estimator.sample(sample_ns, granularity_ns);
            assert_eq!(estimator.rto_ns(), rto_ns, "sample {sample_ns}, granularity {granularity_ns}");
        }
    }

    #[test]
    fn each_timeout_doubles_it_until_the_bound_and_a_sample_ends_that() {
        let mut estimator = RttEstimator::new(&BOUNDS);
        for expected_ms in [2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
            estimator.back_off();
            assert_eq!(estimator.rto_ns(), expected_ms * MS);
        }
        (0..300).for_each(|_| estimator.back_off());
        assert_eq!(estimator.rto_ns(), 60_000 * MS);
        estimator.reset_backoff();
        assert_eq!(estimator.rto_ns(), 1_000 * MS);
        estimator.back_off();
        estimator.sample(100 * MS, 0);
        assert_eq!(estimator.rto_ns(), 300 * MS);
    }

    #[test]
    fn a_lost_syn_leaves_three_seconds_unless_something_was_measured() {
        let mut estimator = RttEstimator::new(&BOUNDS);
        estimator.back_off();
        estimator.on_lost_syn();
        assert_eq!(estimator.rto_ns(), 3_000 * MS);
        estimator.sample(100 * MS, 0);
        estimator.on_lost_syn();
        assert_eq!(estimator.rto_ns(), 300 * MS);
    }

    #[test]
    fn the_smallest_is_forgotten_after_two_spans_of_time() {
        let mut estimator = RttEstimator::new(&BOUNDS);
        estimator.begin_span();
        for (sample, least) in [(10, 10), (40, 10)] {
            estimator.sample(sample * MS, 0);
            assert_eq!(estimator.min_rtt_ns(), Some(least * MS));
        }
        // The path becomes longer.
        estimator.begin_span();
        estimator.begin_span();
        assert_eq!(estimator.min_rtt_ns(), Some(10 * MS));
        estimator.sample(80 * MS, 0);
        assert_eq!(estimator.min_rtt_ns(), Some(10 * MS));
        estimator.begin_span();
        assert_eq!(estimator.min_rtt_ns(), Some(80 * MS));
        estimator.sample(70 * MS, 0);
        assert_eq!(estimator.min_rtt_ns(), Some(70 * MS));
    }

    #[test]
    fn contradicting_bounds_do_no_harm() {
        let mut estimator = RttEstimator::new(&RtoConfig { initial_ns: 5, min_ns: 20, max_ns: 10 });
        assert_eq!(estimator.rto_ns(), 20);
        estimator.sample(1_000, 0);
        estimator.on_lost_syn();
        assert_eq!(estimator.rto_ns(), 20);
    }

    #[test]
    fn a_timeout_at_its_lower_bound_leaves_it_when_the_path_becomes_slow_and_comes_back() {
        let mut estimator = RttEstimator::new(&RtoConfig { min_ns: 200 * MS, ..BOUNDS });
        (0..100).for_each(|_| estimator.sample(20 * MS, MS));
        assert_eq!((estimator.rto_ns(), estimator.min_rtt_ns()), (200 * MS, Some(20 * MS)));
        (0..100).for_each(|_| estimator.sample(300 * MS, MS));
        assert!((300 * MS..305 * MS).contains(&estimator.rto_ns()), "{}", estimator.rto_ns());
        (0..100).for_each(|_| estimator.sample(20 * MS, MS));
        estimator.back_off();
        assert_eq!(estimator.rto_ns(), 400 * MS);
        estimator.sample(20 * MS, MS);
        assert_eq!(estimator.rto_ns(), 200 * MS);
    }

    proptest! {
        #[test]
        fn a_steady_round_trip_time_is_approached(rtt_ns in 1_000_u64..MS * 1_000, first_ns in 1_000_u64..MS * 1_000) {
            let mut estimator = RttEstimator::new(&BOUNDS);
            estimator.sample(first_ns, 0);
            (0..200).for_each(|_| estimator.sample(rtt_ns, 0));
            let srtt_ns = estimator.srtt_ns().unwrap();
            prop_assert!(srtt_ns.abs_diff(rtt_ns) <= 16, "{srtt_ns} for {rtt_ns}");
            prop_assert_eq!(estimator.min_rtt_ns(), Some(rtt_ns.min(first_ns)));
        }

        #[test]
        fn the_timeout_never_leaves_its_bounds(samples in prop::collection::vec(any::<u64>(), 1..50)) {
            let mut estimator = RttEstimator::new(&BOUNDS);
            for sample_ns in samples {
                estimator.sample(sample_ns, 1);
                prop_assert!((BOUNDS.min_ns..=BOUNDS.max_ns).contains(&estimator.rto_ns()));
            }
        }
    }
}
