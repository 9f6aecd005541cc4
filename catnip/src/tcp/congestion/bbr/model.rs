//! BBR's model of the path: bandwidth, round-trip time, aggregation of acknowledgments, and the bounds that losses
//! put on what may be in flight (draft-ietf-ccwg-bbr §5.5).

use libos::Instant;

use super::phases::{AckPhase, Phase};
use super::{Bbr, NS_PER_S, Percent, RateSample, scaled};

/// BBR.LossThresh: the share of a flight that may be lost before it was too much (§2.6).
const LOSS_THRESHOLD: Percent = 2;
/// BBR.Beta: what is left of a bound after a loss (§2.6).
const BETA: Percent = 70;
/// BBR.Headroom: the part of the bound that is left to others (§2.6).
const HEADROOM: Percent = 15;
/// Half of BBR.ExtraAckedFilterLen, in rounds (§2.10).
const EXTRA_ACKED_HALF_ROUNDS: u32 = 5;

/// The largest of two spans of time, of which the older one goes when a new one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct TwoSpanMax {
    previous: u64,
    current: u64,
}

impl TwoSpanMax {
    pub(super) fn max(&self) -> u64 {
        self.previous.max(self.current)
    }

    pub(super) fn update(&mut self, value: u64) {
        self.current = self.current.max(value);
    }

    /// A new span begins. One without a sample says nothing, so that the older one stays.
    pub(super) fn advance(&mut self) {
        if self.current != 0 {
            *self = Self { previous: self.current, current: 0 };
        }
    }
}

/// What is known of the path.
#[derive(Debug, Clone)]
pub(super) struct Model {
    /// BBR.MaxBwFilter, over the last two cycles of ProbeBW.
    max_bw: TwoSpanMax,
    /// BBR.bw_shortterm and BBR.inflight_shortterm: bounds by recent losses, at most when there are none.
    bw_shortterm: u64,
    pub(super) inflight_shortterm: u32,
    /// BBR.inflight_longterm: the most in flight that had no excessive losses.
    pub(super) inflight_longterm: u32,
    /// BBR.bw_latest and BBR.inflight_latest: the best of the present round.
    bw_latest: u64,
    inflight_latest: u32,
    /// BBR.next_round_delivered, BBR.round_start.
    next_round_delivered: u64,
    pub(super) round_start: bool,
    rounds: u32,
    /// C.delivered.
    delivered_bytes: u64,
    /// BBR.loss_round_delivered, BBR.loss_round_start, BBR.loss_in_round.
    loss_round_delivered: u64,
    loss_round_start: bool,
    loss_in_round: bool,
    /// BBR.min_rtt and when it was seen; the same for ProbeRTT's shorter window.
    min_rtt_ns: Option<u64>,
    min_rtt_stamp: Instant,
    probe_rtt_min_ns: Option<u64>,
    pub(super) probe_rtt_min_stamp: Instant,
    pub(super) probe_rtt_expired: bool,
    /// BBR.extra_acked_interval_start, BBR.extra_acked_delivered, BBR.ExtraACKedFilter.
    aggregation_start: Instant,
    aggregation_bytes: u64,
    extra_acked: TwoSpanMax,
    extra_acked_round: u32,
}

/// BBR.MinRTTFilterLen (§2.13).
const MIN_RTT_LIFETIME_NS: u64 = 10 * NS_PER_S;
/// BBR.ProbeRTTInterval (§2.13).
const PROBE_RTT_INTERVAL_NS: u64 = 5 * NS_PER_S;

impl Model {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            max_bw: TwoSpanMax::default(),
            bw_shortterm: u64::MAX,
            inflight_shortterm: u32::MAX,
            inflight_longterm: u32::MAX,
            bw_latest: 0,
            inflight_latest: 0,
            next_round_delivered: 0,
            round_start: false,
            rounds: 0,
            delivered_bytes: 0,
            loss_round_delivered: 0,
            loss_round_start: false,
            loss_in_round: false,
            min_rtt_ns: None,
            min_rtt_stamp: now,
            probe_rtt_min_ns: None,
            probe_rtt_min_stamp: now,
            probe_rtt_expired: false,
            aggregation_start: now,
            aggregation_bytes: 0,
            extra_acked: TwoSpanMax::default(),
            extra_acked_round: 0,
        }
    }

    pub(super) const fn min_rtt_ns(&self) -> Option<u64> {
        self.min_rtt_ns
    }

    /// OnInit (§5.2.1): what was measured before the first delivery.
    pub(super) fn begin_with_rtt(&mut self, rtt_ns: u64) {
        self.min_rtt_ns = Some(rtt_ns.max(1));
    }

    /// C.delivered as of the last sample.
    pub(super) const fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// BBR.round_count; wraps.
    pub(super) const fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn max_bw(&self) -> u64 {
        self.max_bw.max()
    }

    /// BBR.bw: what the path carries, by the bound of recent losses (§5.5.9).
    pub(super) fn bw(&self) -> u64 {
        self.max_bw.max().min(self.bw_shortterm)
    }

    pub(super) fn extra_acked_bytes(&self) -> u32 {
        u32::try_from(self.extra_acked.max()).unwrap_or(u32::MAX)
    }

    pub(super) const fn inflight_latest(&self) -> u32 {
        self.inflight_latest
    }

    /// C.delivered at which the present round ends.
    pub(super) const fn round_end(&self) -> u64 {
        self.next_round_delivered
    }

    pub(super) fn advance_max_bw(&mut self) {
        self.max_bw.advance();
    }

    /// BBRStartRound (§5.5.1).
    pub(super) fn start_round(&mut self, delivered_total_bytes: u64) {
        self.next_round_delivered = delivered_total_bytes;
    }

    /// HandleSpuriousLossDetection (§5.5.11.2): the bounds are no lower than these.
    pub(super) fn raise_bounds_to(
        &mut self,
        bw_shortterm: u64,
        inflight_shortterm: u32,
        inflight_longterm: u32,
    ) {
        self.bw_shortterm = self.bw_shortterm.max(bw_shortterm);
        self.inflight_shortterm = self.inflight_shortterm.max(inflight_shortterm);
        self.inflight_longterm = self.inflight_longterm.max(inflight_longterm);
        self.loss_in_round = false;
    }

    pub(super) const fn bw_shortterm(&self) -> u64 {
        self.bw_shortterm
    }

    pub(super) fn reset_shortterm_bounds(&mut self) {
        self.bw_shortterm = u64::MAX;
        self.inflight_shortterm = u32::MAX;
    }

    /// BBRResetCongestionSignals (§5.5.10).
    pub(super) fn reset_congestion_signals(&mut self) {
        self.loss_in_round = false;
        self.bw_latest = 0;
        self.inflight_latest = 0;
    }

    pub(super) fn restart_aggregation(&mut self, now: Instant) {
        self.aggregation_start = now;
        self.aggregation_bytes = 0;
    }

    /// BBRUpdateLatestDeliverySignals and BBRUpdateRound (§5.5.1, §5.5.10.3). True when a round trip has passed.
    pub(super) fn on_sample(&mut self, sample: &RateSample) -> bool {
        self.delivered_bytes = sample.delivered_total_bytes;
        self.bw_latest = self.bw_latest.max(sample.bytes_per_s());
        let delivered = u32::try_from(sample.delivered_bytes()).unwrap_or(u32::MAX);
        self.inflight_latest = self.inflight_latest.max(delivered);
        self.loss_round_start = sample.prior_delivered_bytes >= self.loss_round_delivered;
        if self.loss_round_start {
            self.loss_round_delivered = sample.delivered_total_bytes;
        }
        self.round_start = sample.prior_delivered_bytes >= self.next_round_delivered;
        if self.round_start {
            self.start_round(sample.delivered_total_bytes);
            self.rounds = self.rounds.wrapping_add(1);
        }
        self.round_start
    }

    /// BBRUpdateMaxBw (§5.5.5): a sample that the program limited counts only if it is more all the same.
    pub(super) fn update_max_bw(&mut self, sample: &RateSample) {
        let bw = sample.bytes_per_s();
        if bw > 0 && (bw >= self.max_bw.max() || !sample.app_limited) {
            self.max_bw.update(bw);
        }
    }

    /// BBRAdvanceLatestDeliverySignals (§5.5.10.3).
    pub(super) fn end_sample(&mut self, sample: &RateSample) {
        if self.loss_round_start {
            self.bw_latest = sample.bytes_per_s();
            self.inflight_latest = u32::try_from(sample.delivered_bytes()).unwrap_or(u32::MAX);
        }
    }

    /// BBRAdaptLowerBoundsFromCongestion (§5.5.10.3). `probing` is true while losses are what is looked for.
    pub(super) fn adapt_shortterm_bounds(&mut self, probing: bool, cwnd_bytes: u32) {
        if !self.loss_round_start {
            return;
        }
        if self.loss_in_round && !probing {
            let (bw, inflight) = match self.bw_shortterm {
                u64::MAX => (self.max_bw.max(), cwnd_bytes),
                bw => (bw, self.inflight_shortterm),
            };
            self.bw_shortterm = self.bw_latest.max(scaled(bw, BETA));
            let reduced = u32::try_from(scaled(u64::from(inflight), BETA)).unwrap_or(u32::MAX);
            self.inflight_shortterm = self.inflight_latest.max(reduced);
        }
        self.loss_in_round = false;
    }

    /// BBRNoteLoss (§5.5.10.2).
    pub(super) fn note_loss(&mut self, delivered_total_bytes: u64) {
        if !self.loss_in_round {
            self.loss_round_delivered = delivered_total_bytes;
        }
        self.loss_in_round = true;
    }

    /// BBRUpdateACKAggregation (§5.5.8): how much more is acknowledged at a time than the bandwidth explains.
    pub(super) fn update_aggregation(&mut self, sample: &RateSample, filled: bool, cwnd_bytes: u32) {
        let elapsed_ns = u128::from(sample.now.nanos_since(self.aggregation_start));
        let expected = u128::from(self.bw()) * elapsed_ns / u128::from(NS_PER_S);
        let mut expected = u64::try_from(expected).unwrap_or(u64::MAX);
        if self.aggregation_bytes <= expected {
            self.restart_aggregation(sample.now);
            expected = 0;
        }
        self.aggregation_bytes += u64::from(sample.newly_delivered_bytes);
        // In Startup a round is enough to remember, for the bandwidth is not known.
        let span = if filled { EXTRA_ACKED_HALF_ROUNDS } else { 1 };
        if self.round_start && self.rounds.wrapping_sub(self.extra_acked_round) >= span {
            self.extra_acked_round = self.rounds;
            self.extra_acked = TwoSpanMax { previous: self.extra_acked.current, current: 0 };
        }
        self.extra_acked.update((self.aggregation_bytes - expected).min(u64::from(cwnd_bytes)));
    }

    /// BBRUpdateMinRTT (§5.5.7).
    pub(super) fn update_min_rtt(&mut self, sample: &RateSample) {
        self.probe_rtt_expired = sample.now.nanos_since(self.probe_rtt_min_stamp) > PROBE_RTT_INTERVAL_NS;
        if let Some(rtt_ns) = sample.rtt_ns
            && (self.probe_rtt_expired || self.probe_rtt_min_ns.is_none_or(|least| rtt_ns < least))
        {
            self.probe_rtt_min_ns = Some(rtt_ns);
            self.probe_rtt_min_stamp = sample.now;
        }
        let expired = sample.now.nanos_since(self.min_rtt_stamp) > MIN_RTT_LIFETIME_NS;
        if let Some(rtt_ns) = self.probe_rtt_min_ns
            && (expired || self.min_rtt_ns.is_none_or(|least| rtt_ns < least))
        {
            // Nothing is quicker than the clock tells, but a product with zero would be no window at all.
            self.min_rtt_ns = Some(rtt_ns.max(1));
            self.min_rtt_stamp = self.probe_rtt_min_stamp;
        }
    }
}

/// IsInflightTooHigh (§5.5.10.2).
const fn is_too_much(lost_bytes: u32, sent_in_flight_bytes: u32) -> bool {
    lost_bytes as u64 * 100 > sent_in_flight_bytes as u64 * LOSS_THRESHOLD
}

impl Bbr {
    /// BBRInflightWithHeadroom (§5.5.10.2).
    pub(super) fn inflight_with_headroom(&self) -> u32 {
        let bound = self.model.inflight_longterm;
        if bound == u32::MAX {
            return bound;
        }
        let headroom = u32::try_from(scaled(u64::from(bound), HEADROOM)).unwrap_or(u32::MAX);
        bound.saturating_sub(headroom.max(self.mss_bytes)).max(self.min_pipe_bytes())
    }

    /// BBRTargetInflight (§5.5.10.2).
    pub(super) fn target_inflight_bytes(&self) -> u32 {
        self.bdp_bytes(self.model.bw(), 100).min(self.cwnd_bytes)
    }

    /// BBRHandleInflightTooHigh (§5.5.10.2).
    fn handle_too_much(&mut self, sample: &RateSample) {
        self.prev_probe_too_high = true;
        // Once for each time that bandwidth is probed.
        self.bw_probe_samples = false;
        if !sample.app_limited {
            let target = scaled(u64::from(self.target_inflight_bytes()), BETA);
            let target = u32::try_from(target).unwrap_or(u32::MAX);
            self.model.inflight_longterm = sample.sent_in_flight_bytes.max(target);
        }
        if self.phase == Phase::ProbeBwUp {
            self.undo.left(Phase::ProbeBwUp);
            self.start_probe_bw_down(sample.delivered_total_bytes, sample.now);
        }
    }

    /// AdaptLongTermModel (§5.3.3.9). True when it decided on the next state.
    pub(super) fn adapt_longterm_model(&mut self, sample: &RateSample, marked: bool) -> bool {
        if self.model.round_start {
            match self.ack_phase {
                AckPhase::ProbeStarting => self.ack_phase = AckPhase::ProbeFeedback,
                AckPhase::ProbeStopping => {
                    // The samples of the last probe have all come.
                    self.bw_probe_samples = false;
                    self.ack_phase = AckPhase::Init;
                    if self.phase.is_probe_bw() && !sample.app_limited {
                        self.model.advance_max_bw();
                    }
                    // §5.3.3.6: where the last probe lost too much, this one did not. The next goes on from there.
                    if self.phase.is_probe_bw() && self.prev_probe_precautionary && !self.prev_probe_too_high
                    {
                        self.start_probe_bw_refill(sample.delivered_total_bytes);
                        return true;
                    }
                }
                AckPhase::Init | AckPhase::Refilling | AckPhase::ProbeFeedback => {}
            }
        }
        if marked || is_too_much(sample.lost_bytes, sample.sent_in_flight_bytes) {
            if self.bw_probe_samples {
                self.handle_too_much(sample);
            }
        } else if self.model.inflight_longterm != u32::MAX {
            self.model.inflight_longterm = self.model.inflight_longterm.max(sample.sent_in_flight_bytes);
            if self.phase == Phase::ProbeBwUp {
                self.raise_longterm_bound(sample);
            }
        }
        false
    }

    /// BBRProbeInflightLongtermUpward (§5.3.3.6).
    fn raise_longterm_bound(&mut self, sample: &RateSample) {
        if !self.cwnd_limited || self.cwnd_bytes < self.model.inflight_longterm {
            return;
        }
        self.bw_probe_up_bytes += u64::from(sample.newly_delivered_bytes);
        if self.bw_probe_up_bytes >= self.probe_up_bytes {
            let segments = self.bw_probe_up_bytes / self.probe_up_bytes;
            self.bw_probe_up_bytes -= segments * self.probe_up_bytes;
            let growth = segments.saturating_mul(u64::from(self.mss_bytes));
            let growth = u32::try_from(growth).unwrap_or(u32::MAX);
            self.model.inflight_longterm = self.model.inflight_longterm.saturating_add(growth);
        }
        if self.model.round_start {
            self.raise_longterm_slope();
        }
    }

    /// RaiseInflightLongtermSlope (§5.3.3.9): twice as many segments in each round as in the one before, but no more than
    /// were acknowledged.
    pub(super) fn raise_longterm_slope(&mut self) {
        let growth_segments = 1 << self.bw_probe_up_rounds;
        self.bw_probe_up_rounds = (self.bw_probe_up_rounds + 1).min(30);
        self.probe_up_bytes = (u64::from(self.cwnd_bytes) / growth_segments).max(self.mss_bytes.into());
    }
}
