//! RACK: what left before something that arrived, and a reordering window ago, is lost (RFC 8985, section 6).
//!
//! "Before" is told by the clock and, among the segments of one tick of it, by the order of transmission, so that those
//! of a coarse clock are not mistaken for each other. What arrived last may be long past: while nothing is amiss nobody
//! looks here, and by the next loss order and sequence numbers may have wrapped.

use libos::Instant;

use super::rtt::RttEstimator;
use super::scoreboard::Judgement;
use super::sequence::SequenceNumber;
use super::transmissions::Transmission;

/// Segments selectively acknowledged after which nothing is waited for while no reordering was seen: DupThresh.
const DUPLICATE_THRESHOLD: u32 = 3;
/// Recoveries after which a widened reordering window is narrow again (RFC 8985, section 6.2, step 4).
const PERSISTENCE: u8 = 16;
/// How long a smallest round-trip time counts, and half as long again at most (RFC 8985, section 6.2, step 1 leaves the
/// length open; Linux has five minutes, too).
const MIN_RTT_SPAN_NS: u64 = 300_000_000_000;
/// Largest multiple of the smallest window; it ends at a round-trip time long before.
const MAX_MULTIPLIER: u32 = 64;

/// What decides how long to wait for what may only be late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    /// A loss is being repaired.
    pub recovering: bool,
    /// Segments selectively acknowledged.
    pub sacked_segments: u32,
    /// Granularity of the clock.
    pub granularity_ns: u64,
}

/// RACK's variables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rack {
    /// RACK.segment: of all that arrived, what left last.
    newest: Option<Transmission>,
    /// RACK.rtt.
    rtt_ns: u64,
    /// RACK.reordering_seen.
    reordering_seen: bool,
    /// RACK.reo_wnd_mult.
    multiplier: u32,
    /// RACK.reo_wnd_persist.
    persist: u8,
    /// RACK.dsack_round.
    round_end: Option<SequenceNumber>,
    /// When the present span of RACK.min_RTT began.
    span_since: Option<Instant>,
}

impl Rack {
    pub(super) const fn new() -> Self {
        Self {
            newest: None,
            rtt_ns: 0,
            reordering_seen: false,
            multiplier: 1,
            persist: 0,
            round_end: None,
            span_since: None,
        }
    }

    /// Lets RACK.min_RTT follow a path that has become longer (RFC 8985, section 6.2, step 1). Looked at when there are
    /// losses to judge, which is when it counts.
    pub(super) fn age_min_rtt(&mut self, rtt: &mut RttEstimator, now: Instant) {
        if now.nanos_since(*self.span_since.get_or_insert(now)) > MIN_RTT_SPAN_NS {
            self.span_since = Some(now);
            rtt.begin_span();
        }
    }

    /// `newest` arrived (RFC 8985, section 6.2, step 2).
    pub(super) fn on_arrival(&mut self, newest: &Transmission, now: Instant) {
        if self.newest.is_none_or(|known| newest.sent_after(&known)) {
            self.newest = Some(*newest);
            self.rtt_ns = now.nanos_since(newest.sent_at);
        }
    }

    /// Something arrived after what was sent behind it (step 3).
    pub(super) const fn has_seen_reordering(&self) -> bool {
        self.reordering_seen
    }

    pub(super) const fn on_reordering(&mut self) {
        self.reordering_seen = true;
    }

    /// The peer got something twice that we sent twice: patience would have spared it. Widens the window once a
    /// round trip (step 4). What was overtaken so far that it was sent again is reordering too.
    pub(super) fn on_needless_retransmission(&mut self, max: SequenceNumber) {
        self.reordering_seen = true;
        if self.round_end.is_none() {
            self.round_end = Some(max);
            self.multiplier = (self.multiplier + 1).min(MAX_MULTIPLIER);
            self.persist = PERSISTENCE;
        }
    }

    /// Everything before `una` is acknowledged, and nothing from `max` on was sent. An end that is not between the two
    /// was passed, perhaps by gigabytes in which nothing was lost.
    pub(super) fn on_progress(&mut self, una: SequenceNumber, max: SequenceNumber) {
        if self.round_end.is_some_and(|end| end == una || !end.is_within(una, max)) {
            self.round_end = None;
        }
    }

    /// A loss was repaired.
    pub(super) const fn on_recovered(&mut self) {
        self.persist = self.persist.saturating_sub(1);
        if self.persist == 0 {
            self.multiplier = 1;
        }
    }

    /// The reordering window (step 4).
    pub(super) fn window_ns(&self, waiting: Waiting, rtt: &RttEstimator) -> u64 {
        if !self.reordering_seen && (waiting.recovering || waiting.sacked_segments >= DUPLICATE_THRESHOLD) {
            return 0;
        }
        let quarter_ns = rtt.min_rtt_ns().unwrap_or(0) / 4;
        let window_ns = quarter_ns.saturating_mul(u64::from(self.multiplier));
        // A tick more: what the clock shows as past may be that much less.
        window_ns.min(rtt.srtt_ns().unwrap_or(window_ns)).saturating_add(waiting.granularity_ns)
    }

    /// Whether a transmission in flight is lost (step 5).
    pub(super) fn judge(&self, record: &Transmission, window_ns: u64, now: Instant) -> Judgement {
        if self.newest.is_none_or(|newest| !newest.sent_after(record)) {
            return Judgement::Newer;
        }
        let overdue_at = record.sent_at.plus_nanos(self.rtt_ns.saturating_add(window_ns));
        if overdue_at <= now { Judgement::Lost } else { Judgement::Wait(overdue_at.nanos_since(now)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::rtt::RtoConfig;
    use crate::tcp::transmissions::Transmissions;

    const MS: u64 = 1_000_000;
    const MSS: u16 = 1_000;

    fn at(raw: u32) -> SequenceNumber {
        SequenceNumber::new(raw)
    }

    /// A segment sent at `sent_ms`, as the transmission of that number.
    fn segment(order: u32, sent_ms: u64) -> Transmission {
        let mut sent = Transmissions::new(Instant::ZERO);
        sent.on_sent(at(order), at(order) + MSS.into(), MSS, Instant::from_millis(sent_ms));
        Transmission { order, ..*sent.get(0).unwrap() }
    }

    #[test]
    fn what_arrived_any_number_of_transmissions_ago_says_nothing_of_what_left_since() {
        for since in [1_u32, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 31) + 1, 3 << 30, u32::MAX] {
            let mut rack = Rack::new();
            rack.on_arrival(&segment(7, 1), Instant::from_millis(11));
            let later = |ahead: u32, sent_ms| segment(7_u32.wrapping_add(since).wrapping_add(ahead), sent_ms);
            // Nothing that left since has arrived: it may be anywhere.
            let (now, lost) = (Instant::from_millis(2_000), later(0, 1_000));
            assert_eq!(rack.judge(&lost, 0, now), Judgement::Newer, "{since}");
            // What left behind it arrives, which counts as the newest, with its round-trip time.
            rack.on_arrival(&later(1, 1_001), Instant::from_millis(1_021));
            assert_eq!(rack.judge(&lost, 0, now), Judgement::Lost, "{since}");
            let early = rack.judge(&lost, 0, Instant::from_millis(1_015));
            assert_eq!(early, Judgement::Wait(5 * MS), "{since}");
        }
    }

    #[test]
    fn within_a_tick_the_count_of_transmissions_tells_what_left_first() {
        let mut rack = Rack::new();
        rack.on_arrival(&segment(u32::MAX, 4), Instant::from_millis(8));
        let judge = |order| rack.judge(&segment(order, 4), 0, Instant::from_millis(20));
        assert_eq!([u32::MAX - 1, u32::MAX, 0, 1].map(judge), {
            let newer = Judgement::Newer;
            [Judgement::Lost, newer, newer, newer]
        });
    }

    #[test]
    fn the_window_follows_a_path_that_has_become_longer() {
        let mut rtt = RttEstimator::new(&RtoConfig::default());
        let waiting = Waiting { recovering: false, sacked_segments: 1, granularity_ns: 0 };
        let mut rack = Rack::new();
        let mut windows_ms = Vec::new();
        for minute in 0..20 {
            rtt.sample(if minute < 4 { 40 } else { 400 } * MS, 0);
            rack.age_min_rtt(&mut rtt, Instant::from_millis(minute * 60_000));
            windows_ms.push(rack.window_ns(waiting, &rtt) / MS);
        }
        // Not before five minutes, and before ten and some are over.
        assert_eq!((windows_ms[9], windows_ms[15]), (10, 100), "{windows_ms:?}");
        assert!(windows_ms.is_sorted());
    }

    #[test]
    fn the_window_widens_once_in_a_round_trip_however_long_ago_the_last_was() {
        let mut rtt = RttEstimator::new(&RtoConfig::default());
        rtt.sample(40 * MS, 0);
        let waiting = Waiting { recovering: true, sacked_segments: 9, granularity_ns: 0 };
        for since in [10_000_u32, 1 << 30, 1 << 31, 3 << 30] {
            let mut rack = Rack::new();
            rack.on_needless_retransmission(at(10_000));
            rack.on_progress(at(9_000), at(20_000));
            rack.on_needless_retransmission(at(20_000));
            assert_eq!(rack.window_ns(waiting, &rtt), 20 * MS, "the same round trip");
            // So much went through without a loss, and without a look at this.
            let una = at(10_000) + since;
            rack.on_progress(una, una + 10_000);
            rack.on_needless_retransmission(una + 10_000);
            assert_eq!(rack.window_ns(waiting, &rtt), 30 * MS, "{since}");
        }
    }
}
