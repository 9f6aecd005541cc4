//! BBR version 3 (draft-ietf-ccwg-bbr-06): keeps in flight what the path holds, by a model of its bandwidth and its
//! shortest round-trip time, and paces.
//!
//! This file has the variables and what follows from them, the window and the rate; `model` has the path's model
//! and its bounds, `phases` the states, `undo` what is remembered of them while a loss may turn out to be none. Names are
//! the draft's. Three things differ from it: randomness comes from a generator seeded by the time and the connection's
//! progress; losses are judged with the delivery that revealed them, not segment by segment, so that the losses of a round
//! of Startup are counted by such deliveries; and what an undo goes back to is remembered when recovery begins, not again
//! in each round of it that loses more.
//!
//! The draft takes marks for signs of congestion beside losses and leaves open how they count. Here a report of marks,
//! of which there is at most one for a window of data (RFC 3168), counts as a round with too many losses does: the
//! bounds of the short term shrink by Beta, a probe for bandwidth ends, and the second one ends Startup.

mod model;
mod phases;
#[cfg(test)]
mod tests;
mod undo;

use libos::Instant;

use super::{
    AckEvent, CongestionControl, DEFAULT_MSS_BYTES, EcnUse, LossEvent, LossKind, MAX_CWND_BYTES, RateSample,
    SendEvent, initial_window,
};
use model::Model;
use phases::{AckPhase, Phase};
use undo::Undo;

/// A factor in hundredths.
type Percent = u64;

/// BBR.PacingMarginPercent: by how much the rate stays below the bandwidth (§2.4).
const PACING_MARGIN: Percent = 1;
/// BBR.MinPipeCwnd, in segments (§2.7).
const MIN_PIPE_SEGMENTS: u32 = 4;
/// Bounds of what is sent at a time, without and with offload (§5.6.3).
const MAX_QUANTUM_BYTES: u64 = 64 << 10;
/// The time whose worth is sent at a time, as a part of a second (§5.6.3: 1 ms).
const QUANTA_PER_S: u64 = 1_000;
/// The round-trip time before there is a measurement (§5.6.2).
const NOMINAL_RTT_NS: u64 = 1_000_000;

/// Nanoseconds in a second.
const NS_PER_S: u64 = 1_000_000_000;

/// BBR's variables.
#[derive(Debug, Clone)]
pub struct Bbr {
    mss_bytes: u32,
    cwnd_bytes: u32,
    /// BBR.prior_cwnd: the window to go back to after a loss or ProbeRTT.
    prior_cwnd_bytes: u32,
    pacing_bytes_per_s: u64,
    phase: Phase,
    pacing_gain: Percent,
    cwnd_gain: Percent,
    model: Model,
    /// BBR.full_bw_reached: Startup has found what the path carries.
    full_bw_reached: bool,
    /// BBR.full_bw_now, BBR.full_bw, BBR.full_bw_count: whether, and against what, the bandwidth has ceased to grow.
    full_bw_now: bool,
    full_bw_count: u8,
    full_bw: u64,
    /// Losses reported in this round of Startup.
    startup_losses: u8,
    /// Reports of congestion marks in all of Startup.
    startup_marks: u8,
    /// The acknowledgment being worked on reports marks.
    marked: bool,
    /// BBR.idle_restart.
    idle_restart: bool,
    in_recovery: bool,
    /// The window was used up when the last acknowledgment came: is_cwnd_limited.
    cwnd_limited: bool,
    /// BBR.ack_phase and BBR.bw_probe_samples: what the acknowledgments that come now were sent under.
    ack_phase: AckPhase,
    bw_probe_samples: bool,
    /// BBR.cycle_stamp and BBR.bw_probe_wait.
    cycle_stamp: Instant,
    bw_probe_wait_ns: u64,
    rounds_since_bw_probe: u32,
    /// BBR.prev_probe_too_high and BBR.prev_probe_precautionary: the last probe for bandwidth lost too much; the present
    /// one ended where that was, to see whether it still does.
    prev_probe_too_high: bool,
    prev_probe_precautionary: bool,
    /// BBR.bw_probe_up_rounds, BBR.bw_probe_up_acked and BBR.probe_up_acked_per_inc, the latter two in bytes.
    bw_probe_up_rounds: u32,
    bw_probe_up_bytes: u64,
    probe_up_bytes: u64,
    /// BBR.probe_rtt_done_stamp, and whether a round has passed since it was set.
    probe_rtt_done_stamp: Option<Instant>,
    probe_rtt_round_done: bool,
    /// C.delivered from which on, and up to which, segments were sent in ProbeRTT.
    probe_rtt_sent: Option<(u64, u64)>,
    undo: Undo,
    seed: u64,
}

impl Bbr {
    /// The state of a connection whose handshake is not over.
    #[must_use]
    pub fn new() -> Self {
        let mut bbr = Self {
            mss_bytes: DEFAULT_MSS_BYTES,
            cwnd_bytes: initial_window(DEFAULT_MSS_BYTES),
            prior_cwnd_bytes: 0,
            pacing_bytes_per_s: 0,
            phase: Phase::Startup,
            pacing_gain: 0,
            cwnd_gain: 0,
            model: Model::new(Instant::ZERO),
            full_bw_reached: false,
            full_bw_now: false,
            full_bw_count: 0,
            full_bw: 0,
            startup_losses: 0,
            startup_marks: 0,
            marked: false,
            idle_restart: false,
            in_recovery: false,
            cwnd_limited: false,
            ack_phase: AckPhase::Init,
            bw_probe_samples: false,
            cycle_stamp: Instant::ZERO,
            bw_probe_wait_ns: 0,
            rounds_since_bw_probe: 0,
            prev_probe_too_high: false,
            prev_probe_precautionary: false,
            bw_probe_up_rounds: 0,
            bw_probe_up_bytes: 0,
            probe_up_bytes: u64::MAX,
            probe_rtt_done_stamp: None,
            probe_rtt_round_done: false,
            probe_rtt_sent: None,
            undo: Undo::default(),
            seed: 0,
        };
        bbr.enter_startup();
        bbr
    }

    fn min_pipe_bytes(&self) -> u32 {
        self.mss_bytes.saturating_mul(MIN_PIPE_SEGMENTS)
    }

    /// A pseudo-random number below `limit` (xorshift64). It only keeps flows from probing in step.
    fn random_below(&mut self, limit: u64) -> u64 {
        let mut x = self.seed | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed = x;
        (x >> 16) % limit
    }

    /// InitPacingRate (§5.6.2): the initial window in a millisecond, until a round trip was measured.
    fn init_pacing_rate(&mut self) {
        let rtt_ns = self.model.min_rtt_ns().unwrap_or(NOMINAL_RTT_NS).max(1);
        let nominal = u64::from(self.cwnd_bytes).saturating_mul(NS_PER_S) / rtt_ns;
        self.pacing_bytes_per_s = scaled(nominal, phases::STARTUP_PACING_GAIN);
    }

    /// BBRSetPacingRateWithGain (§5.6.2).
    fn set_pacing_rate(&mut self, gain: Percent) {
        let rate = scaled(scaled(self.model.bw(), gain), 100 - PACING_MARGIN);
        if rate > 0 && (self.full_bw_reached || rate > self.pacing_bytes_per_s) {
            self.pacing_bytes_per_s = rate;
        }
    }

    /// BBR.send_quantum (§5.6.3).
    fn quantum_bytes(&self) -> u32 {
        let floor = u64::from(self.mss_bytes) * 2;
        let quantum = (self.pacing_bytes_per_s / QUANTA_PER_S).min(MAX_QUANTUM_BYTES).max(floor);
        u32::try_from(quantum).unwrap_or(u32::MAX)
    }

    /// BBRBDPMultiple (§5.6.4.2): so much of what the path holds; the initial window while that is not known.
    fn bdp_bytes(&self, bw: u64, gain: Percent) -> u32 {
        match self.model.min_rtt_ns() {
            None => initial_window(self.mss_bytes),
            Some(rtt_ns) => {
                let bdp = u128::from(bw) * u128::from(rtt_ns) / u128::from(NS_PER_S);
                let bdp = bdp * u128::from(gain) / 100;
                u32::try_from(bdp).unwrap_or(MAX_CWND_BYTES).min(MAX_CWND_BYTES)
            }
        }
    }

    /// BBRInflight (§5.6.4.2): the same with room for the sender's and the receiver's batches.
    fn inflight_bytes(&self, bw: u64, gain: Percent) -> u32 {
        self.with_quantization(self.bdp_bytes(bw, gain))
    }

    /// UpdateMaxInflight (§5.6.4.2): BBR.max_inflight.
    fn max_inflight_bytes(&self) -> u32 {
        let bdp = self.bdp_bytes(self.model.bw(), self.cwnd_gain);
        self.with_quantization(bdp.saturating_add(self.model.extra_acked_bytes()))
    }

    /// BBRQuantizationBudget (§5.6.4.2).
    fn with_quantization(&self, inflight_bytes: u32) -> u32 {
        let offload_budget = self.quantum_bytes().saturating_mul(3);
        let inflight = inflight_bytes.max(offload_budget).max(self.min_pipe_bytes());
        if self.phase == Phase::ProbeBwUp { inflight.saturating_add(self.mss_bytes * 2) } else { inflight }
    }

    /// BBRSetCwnd (§5.6.4.6).
    fn set_cwnd(&mut self, sample: &RateSample) {
        let max_inflight = self.max_inflight_bytes();
        let grown = self.cwnd_bytes.saturating_add(sample.newly_delivered_bytes);
        if self.full_bw_reached {
            self.cwnd_bytes = grown.min(max_inflight);
        } else if self.cwnd_bytes < max_inflight
            || sample.delivered_total_bytes < u64::from(initial_window(self.mss_bytes))
        {
            self.cwnd_bytes = grown;
        }
        self.cwnd_bytes = self.cwnd_bytes.max(self.min_pipe_bytes());
        if self.phase == Phase::ProbeRtt {
            self.cwnd_bytes = self.cwnd_bytes.min(self.probe_rtt_cwnd_bytes());
        }
        self.bound_cwnd_for_model();
        self.cwnd_bytes = self.cwnd_bytes.min(MAX_CWND_BYTES);
    }

    /// BBRBoundCwndForModel (§5.6.4.7).
    fn bound_cwnd_for_model(&mut self) {
        let cap = match self.phase {
            Phase::ProbeBwDown | Phase::ProbeBwRefill | Phase::ProbeBwUp => self.model.inflight_longterm,
            Phase::ProbeRtt | Phase::ProbeBwCruise => self.inflight_with_headroom(),
            Phase::Startup | Phase::Drain { .. } => u32::MAX,
        };
        let cap = cap.min(self.model.inflight_shortterm).max(self.min_pipe_bytes());
        self.cwnd_bytes = self.cwnd_bytes.min(cap);
    }

    /// BBRSaveCwnd (§5.6.4.4).
    fn save_cwnd(&mut self) {
        self.prior_cwnd_bytes = if !self.in_recovery && self.phase != Phase::ProbeRtt {
            self.cwnd_bytes
        } else {
            self.prior_cwnd_bytes.max(self.cwnd_bytes)
        };
    }

    fn restore_cwnd(&mut self) {
        self.cwnd_bytes = self.cwnd_bytes.max(self.prior_cwnd_bytes);
    }
}

impl Default for Bbr {
    fn default() -> Self {
        Self::new()
    }
}

/// `value` times a factor in hundredths.
const fn scaled(value: u64, factor: Percent) -> u64 {
    value.saturating_mul(factor) / 100
}

impl CongestionControl for Bbr {
    fn name(&self) -> &'static str {
        "bbr"
    }

    fn on_established(&mut self, mss_bytes: u32, now: Instant) {
        *self = Self { mss_bytes: mss_bytes.max(1), ..Self::new() };
        self.cwnd_bytes = initial_window(self.mss_bytes);
        self.model = Model::new(now);
        self.seed = now.as_nanos();
        self.init_pacing_rate();
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        self.mss_bytes = mss_bytes.max(1);
        self.cwnd_bytes = self.cwnd_bytes.max(self.mss_bytes);
    }

    fn on_ack(&mut self, event: &AckEvent) {
        self.in_recovery = event.in_recovery;
    }

    fn on_first_rtt(&mut self, rtt_ns: u64) {
        self.model.begin_with_rtt(rtt_ns);
        self.init_pacing_rate();
    }

    fn on_delivery(&mut self, sample: &RateSample) {
        let sample = &self.limited_by_probe_rtt(sample);
        self.seed = self.seed.wrapping_add(sample.delivered_total_bytes);
        let had_rtt = self.model.min_rtt_ns().is_some();
        // What was in flight before this acknowledgment, against what might have been.
        let before = sample.in_flight_bytes.saturating_add(sample.newly_delivered_bytes);
        self.cwnd_limited = before.saturating_add(self.mss_bytes) > self.cwnd_bytes;
        self.update_model_and_state(sample);
        if !had_rtt && !self.full_bw_reached {
            self.init_pacing_rate();
        }
        self.set_pacing_rate(self.pacing_gain);
        self.set_cwnd(sample);
    }

    fn on_sent(&mut self, event: &SendEvent) {
        // BBRHandleRestartFromIdle (§5.4.1).
        if event.in_flight_bytes == 0 && event.app_limited {
            self.idle_restart = true;
            self.model.restart_aggregation(event.now);
            if self.phase.is_probe_bw() {
                self.set_pacing_rate(100);
            } else if self.phase == Phase::ProbeRtt {
                self.check_probe_rtt_done(event.now);
            }
        }
    }

    fn on_loss(&mut self, event: &LossEvent) {
        match event.kind {
            LossKind::FastRetransmit => {
                // The model bounds the window (§5.6.4.4); what it was is remembered for when recovery is over.
                self.remember_for_undo();
                self.in_recovery = true;
            }
            // The delivery that comes with it takes it into the model.
            LossKind::CongestionMark => self.marked = true,
        }
    }

    fn on_recovery_exit(&mut self, _bytes_in_flight: u32, _now: Instant) {
        self.in_recovery = false;
        self.restore_cwnd();
    }

    fn on_timeout(&mut self, _bytes_in_flight: u32, first: bool, _now: Instant) {
        // OnEnterRTO (§5.6.4.4): everything in flight counts as lost.
        if first {
            self.remember_for_undo();
        }
        self.cwnd_bytes = self.mss_bytes;
    }

    fn on_timeout_repaired(&mut self, _now: Instant) {
        // §5.6.4.4: as after any recovery.
        self.restore_cwnd();
    }

    fn on_spurious(&mut self, _now: Instant) {
        self.take_back_loss();
    }

    fn on_idle(&mut self, _now: Instant) {
        // Pacing sends no burst (§5.4.1): the window stays.
    }

    #[inline]
    fn cwnd_bytes(&self) -> u32 {
        self.cwnd_bytes
    }

    fn ssthresh_bytes(&self) -> u32 {
        // There is none: only a connection that is past Startup shows its window in the place.
        if self.full_bw_reached { self.cwnd_bytes } else { u32::MAX }
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        Some(self.pacing_bytes_per_s)
    }

    fn burst_bytes(&self) -> u32 {
        self.quantum_bytes()
    }

    fn samples_delivery(&self) -> bool {
        true
    }

    fn owns_recovery(&self) -> bool {
        true
    }

    fn ecn_use(&self) -> EcnUse {
        EcnUse::Classic
    }
}
