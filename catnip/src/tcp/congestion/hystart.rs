//! HyStart++ (RFC 9406): leaves slow start before it overflows the path's buffer, when round-trip times rise.

/// Round-trip samples of a round before they mean something (§4.3: `N_RTT_SAMPLE`).
const SAMPLES_PER_ROUND: u8 = 8;
/// Bounds of the rise that counts (§4.3: `MIN_RTT_THRESH`, `MAX_RTT_THRESH`), in microseconds.
const MIN_THRESHOLD_US: u32 = 4_000;
const MAX_THRESHOLD_US: u32 = 16_000;
/// The rise that counts, as a part of the round-trip time (§4.3: `MIN_RTT_DIVISOR`).
const THRESHOLD_DIVISOR: u32 = 8;
/// By how much slower conservative slow start grows (§4.3: `CSS_GROWTH_DIVISOR`).
const CONSERVATIVE_DIVISOR: u32 = 4;
/// Rounds of conservative slow start (§4.3: `CSS_ROUNDS`).
const CONSERVATIVE_ROUNDS: u8 = 5;
/// Most segments that one acknowledgment adds, as the sender does not pace (§4.3: `L`).
const GROWTH_LIMIT_SEGMENTS: u32 = 8;

/// No sample yet.
const NONE_US: u32 = u32::MAX;

/// Where slow start stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Standard slow start.
    Standard,
    /// Conservative slow start (§4.2, CSS), with the round-trip time that brought it about and its rounds so far.
    Conservative { baseline_us: u32, rounds: u8 },
}

/// What slow start is to do after an acknowledgment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Add so many bytes.
    Add(u32),
    /// The path is full: go on with congestion avoidance.
    Leave,
}

/// HyStart++'s variables.
#[derive(Debug, Clone)]
pub(super) struct HyStart {
    phase: Phase,
    samples: u8,
    /// Bytes yet to be acknowledged of those in flight when the round began.
    round_bytes: u32,
    last_min_us: u32,
    current_min_us: u32,
}

impl HyStart {
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Standard,
            samples: 0,
            round_bytes: 0,
            last_min_us: NONE_US,
            current_min_us: NONE_US,
        }
    }

    /// `bytes_acked` were acknowledged and `bytes_left` remain in flight, with a round-trip sample if there was one.
    pub(super) fn on_ack(
        &mut self,
        bytes_acked: u32,
        bytes_left: u32,
        rtt_ns: Option<u64>,
        mss_bytes: u32,
    ) -> Growth {
        if let Some(rtt_ns) = rtt_ns {
            let rtt_us = u32::try_from(rtt_ns / 1_000).unwrap_or(NONE_US - 1);
            self.current_min_us = self.current_min_us.min(rtt_us);
            self.samples = self.samples.saturating_add(1);
            self.judge();
        }
        let growth = bytes_acked.min(mss_bytes.saturating_mul(GROWTH_LIMIT_SEGMENTS));
        let growth = match self.phase {
            Phase::Standard => growth,
            Phase::Conservative { .. } => growth / CONSERVATIVE_DIVISOR,
        };
        self.round_bytes = self.round_bytes.saturating_sub(bytes_acked);
        if self.round_bytes == 0 && self.end_round(bytes_left) { Growth::Leave } else { Growth::Add(growth) }
    }

    /// Changes between the two kinds of slow start (§4.2).
    fn judge(&mut self) {
        if self.samples < SAMPLES_PER_ROUND {
            return;
        }
        match self.phase {
            Phase::Standard if self.last_min_us != NONE_US => {
                let threshold = self.last_min_us / THRESHOLD_DIVISOR;
                let threshold = threshold.clamp(MIN_THRESHOLD_US, MAX_THRESHOLD_US);
                if self.current_min_us >= self.last_min_us.saturating_add(threshold) {
                    self.phase = Phase::Conservative { baseline_us: self.current_min_us, rounds: 0 };
                }
            }
            // The rise was noise.
            Phase::Conservative { baseline_us, .. } if self.current_min_us < baseline_us => {
                self.phase = Phase::Standard;
            }
            Phase::Standard | Phase::Conservative { .. } => {}
        }
    }

    /// All that was in flight when the round began is acknowledged. True when slow start is over.
    fn end_round(&mut self, bytes_left: u32) -> bool {
        self.last_min_us = self.current_min_us;
        self.current_min_us = NONE_US;
        self.samples = 0;
        self.round_bytes = bytes_left;
        match &mut self.phase {
            Phase::Standard => false,
            Phase::Conservative { rounds, .. } => {
                *rounds += 1;
                *rounds >= CONSERVATIVE_ROUNDS
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MSS: u32 = 1_000;
    const MS: u64 = 1_000_000;

    /// A round of ten segments, each with this round-trip time. Returns the bytes added, or `None` at the end.
    fn round(hystart: &mut HyStart, rtt_ns: u64) -> Option<u32> {
        let mut added = 0;
        for left in (0..10).rev() {
            // What is sent in answer is in flight when the round's last acknowledgment comes.
            let in_flight = (left + 10 - left) * MSS;
            match hystart.on_ack(MSS, in_flight, Some(rtt_ns), MSS) {
                Growth::Add(bytes) => added += bytes,
                Growth::Leave => return None,
            }
        }
        Some(added)
    }

    /// Past the first acknowledgment, which ends the round of no bytes that a connection begins with.
    fn started(rtt_ns: u64) -> HyStart {
        let mut hystart = HyStart::new();
        assert_eq!(hystart.on_ack(MSS, 10 * MSS, Some(rtt_ns), MSS), Growth::Add(MSS));
        hystart
    }

    #[test]
    fn steady_round_trip_times_are_standard_slow_start() {
        let mut hystart = started(20 * MS);
        for _ in 0..20 {
            assert_eq!(round(&mut hystart, 20 * MS), Some(10 * MSS));
        }
    }

    #[test]
    fn a_rise_slows_growth_to_a_quarter_and_ends_slow_start_after_five_rounds() {
        let mut hystart = started(20 * MS);
        assert_eq!(round(&mut hystart, 20 * MS), Some(10 * MSS));
        // The eighth sample of the round tells; it and what follows count a quarter.
        assert_eq!(round(&mut hystart, 24 * MS), Some(7 * MSS + 3 * MSS / 4));
        for _ in 0..3 {
            assert_eq!(round(&mut hystart, 24 * MS), Some(10 * MSS / 4));
        }
        assert_eq!(round(&mut hystart, 24 * MS), None);
    }

    #[test]
    fn a_rise_that_passes_was_noise() {
        let mut hystart = started(20 * MS);
        round(&mut hystart, 20 * MS);
        round(&mut hystart, 24 * MS);
        assert_eq!(round(&mut hystart, 20 * MS), Some(7 * MSS / 4 + 3 * MSS));
        assert_eq!(round(&mut hystart, 20 * MS), Some(10 * MSS));
    }

    #[test]
    fn the_rise_that_counts_is_an_eighth_within_four_and_sixteen_milliseconds() {
        for (base_ms, rise_ms, counts) in
            [(1, 3, false), (1, 4, true), (80, 9, false), (80, 10, true), (400, 15, false), (400, 16, true)]
        {
            let mut hystart = started(base_ms * MS);
            round(&mut hystart, base_ms * MS);
            let added = round(&mut hystart, (base_ms + rise_ms) * MS).unwrap();
            assert_eq!(added < 10 * MSS, counts, "{base_ms} ms and {rise_ms}");
        }
    }

    #[test]
    fn one_acknowledgment_adds_at_most_eight_segments() {
        let mut hystart = started(20 * MS);
        assert_eq!(hystart.on_ack(40 * MSS, 40 * MSS, None, MSS), Growth::Add(8 * MSS));
    }

    /// RFC 9406 §4.2 with positions in the stream and all samples kept, in microseconds.
    #[derive(Default)]
    struct Model {
        acknowledged: u64,
        window_end: u64,
        /// Of the round before and of this one.
        rounds: [Vec<u64>; 2],
        /// The round-trip time that brought conservative slow start about, and its rounds so far.
        conservative: Option<(u64, u32)>,
    }

    impl Model {
        fn on_ack(&mut self, bytes: u64, sent_up_to: u64, rtt_us: Option<u64>, mss: u64) -> Growth {
            let Self { rounds: [last, current], conservative, .. } = self;
            if let Some(rtt_us) = rtt_us {
                current.push(rtt_us);
                let now = current.iter().min().filter(|_| current.len() >= 8);
                *conservative = match (*conservative, now, last.iter().min()) {
                    (None, Some(now), Some(last)) if *now >= last + (last / 8).clamp(4_000, 16_000) => {
                        Some((*now, 0))
                    }
                    (Some((baseline, _)), Some(now), _) if *now < baseline => None,
                    (unchanged, _, _) => unchanged,
                };
            }
            let growth = bytes.min(8 * mss) / if conservative.is_some() { 4 } else { 1 };
            self.acknowledged += bytes;
            if self.acknowledged >= self.window_end {
                self.window_end = sent_up_to;
                *last = std::mem::take(current);
                if let Some((_, rounds)) = conservative {
                    *rounds += 1;
                    if *rounds >= 5 {
                        return Growth::Leave;
                    }
                }
            }
            Growth::Add(growth as u32)
        }
    }

    proptest! {
        #[test]
        fn every_acknowledgment_does_what_the_model_does(
            mss in 500_u32..9_000,
            base_us in 100_u64..200_000,
            acks in prop::collection::vec((1_u32..4, 0_u32..6, prop::option::of(0_u64..30_000)), 1..400),
        ) {
            let mut hystart = HyStart::new();
            let mut model = Model::default();
            let mut sent = 10 * u64::from(mss);
            for (index, (acked, answered, queued_us)) in acks.into_iter().enumerate() {
                let bytes = u64::from(acked * mss).min(sent - model.acknowledged);
                let left = sent - model.acknowledged - bytes;
                // The queue grows with time, so that rises last in some runs.
                let rtt_us = queued_us.map(|queued_us| base_us + queued_us * (index as u64) / 200);
                let expected = model.on_ack(bytes, sent, rtt_us, u64::from(mss));
                let rtt_ns = rtt_us.map(|rtt_us| rtt_us * 1_000);
                let growth = hystart.on_ack(bytes as u32, left as u32, rtt_ns, mss);
                prop_assert_eq!(growth, expected, "acknowledgment {}", index);
                if growth == Growth::Leave {
                    break;
                }
                sent += u64::from((answered + 1) * mss);
            }
        }
    }
}
