//! RACK: what left before something that arrived, and a reordering window ago, is lost (RFC 8985, section 6).
//!
//! "Before" is told by the order of transmission and not by the clock, so that segments of one tick of a coarse
//! clock are not mistaken for each other; only the waiting is timed.

use libos::Instant;

use super::rtt::RttEstimator;
use super::scoreboard::Judgement;
use super::sequence::SequenceNumber;
use super::transmissions::Transmission;

/// Segments selectively acknowledged after which nothing is waited for while no reordering was seen: DupThresh.
const DUPLICATE_THRESHOLD: u32 = 3;
/// Recoveries after which a widened reordering window is narrow again (RFC 8985, section 6.2, step 4).
const PERSISTENCE: u8 = 16;
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
}

impl Rack {
    pub(super) const fn new() -> Self {
        Self { newest: None, rtt_ns: 0, reordering_seen: false, multiplier: 1, persist: 0, round_end: None }
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

    /// Everything before `una` is acknowledged.
    pub(super) fn on_progress(&mut self, una: SequenceNumber) {
        if self.round_end.is_some_and(|end| una.at_or_after(end)) {
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
