//! BBR's states (draft-ietf-ccwg-bbr §5.3): Startup, Drain, the cycle of ProbeBW, and ProbeRTT.

use libos::Instant;

use super::{Bbr, NS_PER_S, Percent, RateSample};

/// BBR.StartupPacingGain: 4 ln 2 (§2.4).
pub(super) const STARTUP_PACING_GAIN: Percent = 277;
/// BBR.DrainPacingGain (§2.4).
const DRAIN_PACING_GAIN: Percent = 50;
/// BBR.StartupCwndGain and BBR.DefaultCwndGain (§2.5).
const CWND_GAIN: Percent = 200;
/// The gains of ProbeBW's phases (§5.3.3).
const DOWN_PACING_GAIN: Percent = 90;
const UP_PACING_GAIN: Percent = 125;
const UP_CWND_GAIN: Percent = 225;
/// BBR.ProbeRTTCwndGain (§2.5).
const PROBE_RTT_CWND_GAIN: Percent = 50;
/// BBR.ProbeRTTDuration (§2.13).
const PROBE_RTT_DURATION_NS: u64 = 200_000_000;
/// Growth of the bandwidth, in a round, below which it has ceased to grow, and for how many rounds (§5.3.1.2).
const FULL_BW_GROWTH: Percent = 125;
const FULL_BW_ROUNDS: u8 = 3;
/// BBR.StartupFullLossCnt: losses in a round of Startup that end it, if so many bytes were lost too (§5.3.1.3).
const STARTUP_FULL_LOSSES: u8 = 6;
const STARTUP_LOSS_THRESHOLD: Percent = 2;
/// Windows of Startup with marks that end it.
const STARTUP_FULL_MARKS: u8 = 2;
/// Rounds after which Drain is over though the queue is not (§5.3.2).
const MAX_DRAIN_ROUNDS: u32 = 3;
/// Rounds after which bandwidth is probed at the latest, so that flows of Reno have their share (§5.3.3.5).
const MAX_ROUNDS_BETWEEN_PROBES: u32 = 63;

/// BBR.state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Startup,
    /// Since that round.
    Drain {
        start_round: u32,
    },
    ProbeBwDown,
    ProbeBwCruise,
    ProbeBwRefill,
    ProbeBwUp,
    ProbeRtt,
}

impl Phase {
    pub(super) const fn is_probe_bw(self) -> bool {
        match self {
            Self::ProbeBwDown | Self::ProbeBwCruise | Self::ProbeBwRefill | Self::ProbeBwUp => true,
            Self::Startup | Self::Drain { .. } | Self::ProbeRtt => false,
        }
    }

    /// BBRIsProbingBW (§5.5.10.3).
    const fn looks_for_bandwidth(self) -> bool {
        match self {
            Self::Startup | Self::ProbeBwRefill | Self::ProbeBwUp => true,
            Self::Drain { .. } | Self::ProbeBwDown | Self::ProbeBwCruise | Self::ProbeRtt => false,
        }
    }
}

/// BBR.ack_phase: in which part of a probe what is acknowledged now was sent (§5.3.3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckPhase {
    Init,
    Refilling,
    ProbeStarting,
    ProbeFeedback,
    ProbeStopping,
}

impl Bbr {
    /// BBRUpdateModelAndState (§5.2.3).
    pub(super) fn update_model_and_state(&mut self, sample: &RateSample) {
        if sample.newly_lost_bytes > 0 {
            self.model.note_loss(sample.delivered_total_bytes);
            self.startup_losses = self.startup_losses.saturating_add(1);
        }
        let marked = std::mem::take(&mut self.marked);
        if marked {
            self.model.note_loss(sample.delivered_total_bytes);
            self.startup_marks = self.startup_marks.saturating_add(1);
        }
        if self.model.on_sample(sample) {
            self.rounds_since_bw_probe = self.rounds_since_bw_probe.saturating_add(1);
        }
        self.model.update_max_bw(sample);
        self.model.adapt_shortterm_bounds(self.phase.looks_for_bandwidth(), self.cwnd_bytes);
        self.model.update_aggregation(sample, self.full_bw_reached, self.cwnd_bytes);
        self.check_full_bw(sample);
        self.check_startup_done(sample);
        self.check_drain_done(sample);
        self.update_probe_bw_cycle(sample, marked);
        self.model.update_min_rtt(sample);
        self.check_probe_rtt(sample);
        self.model.end_sample(sample);
    }

    fn set_phase(&mut self, phase: Phase, pacing_gain: Percent, cwnd_gain: Percent) {
        self.phase = phase;
        self.pacing_gain = pacing_gain;
        self.cwnd_gain = cwnd_gain;
    }

    pub(super) fn enter_startup(&mut self) {
        self.set_phase(Phase::Startup, STARTUP_PACING_GAIN, CWND_GAIN);
    }

    /// A sample of what was sent in ProbeRTT tells what this allowed, not what the path carries: it counts as one that the
    /// program limited (§5.3.4.3, MarkConnectionAppLimited).
    pub(super) fn limited_by_probe_rtt(&mut self, sample: &RateSample) -> RateSample {
        let Some((from, until)) = self.probe_rtt_sent else { return *sample };
        if sample.prior_delivered_bytes > until && self.phase != Phase::ProbeRtt {
            self.probe_rtt_sent = None;
        }
        let was_then = (from..=until).contains(&sample.prior_delivered_bytes);
        RateSample { app_limited: sample.app_limited || was_then, ..*sample }
    }

    pub(super) fn reset_full_bw(&mut self, full_bw: u64) {
        self.full_bw = full_bw;
        self.full_bw_count = 0;
        self.full_bw_now = false;
    }

    /// CheckFullBWReached (§5.3.1.2).
    fn check_full_bw(&mut self, sample: &RateSample) {
        if self.full_bw_now || !self.model.round_start || sample.app_limited {
            return;
        }
        let bw = sample.bytes_per_s();
        if bw.saturating_mul(100) >= self.full_bw.saturating_mul(FULL_BW_GROWTH) {
            self.reset_full_bw(bw);
        } else {
            self.full_bw_count += 1;
            if self.full_bw_count >= FULL_BW_ROUNDS {
                self.full_bw_now = true;
                self.full_bw_reached = true;
            }
        }
    }

    /// BBRCheckStartupDone (§5.3.1.1) and BBRCheckStartupHighLoss (§5.3.1.3).
    fn check_startup_done(&mut self, sample: &RateSample) {
        if self.phase != Phase::Startup {
            return;
        }
        if self.model.round_start {
            let threshold = u64::from(sample.sent_in_flight_bytes) * STARTUP_LOSS_THRESHOLD;
            let lost_too_much = self.in_recovery
                && self.startup_losses >= STARTUP_FULL_LOSSES
                && u64::from(sample.lost_bytes) * 100 > threshold;
            if lost_too_much || self.startup_marks >= STARTUP_FULL_MARKS {
                self.undo.left(Phase::Startup);
                self.full_bw_reached = true;
                let bdp = self.bdp_bytes(self.model.max_bw(), 100);
                self.model.inflight_longterm = bdp.max(self.model.inflight_latest());
            }
            self.startup_losses = 0;
        }
        if self.full_bw_reached {
            let start_round = self.model.rounds();
            self.set_phase(Phase::Drain { start_round }, DRAIN_PACING_GAIN, CWND_GAIN);
        }
    }

    /// CheckDrainDone (§5.3.2): the queue is gone, or others keep it full and the bandwidth was taken for larger than it is.
    fn check_drain_done(&mut self, sample: &RateSample) {
        let Phase::Drain { start_round } = self.phase else { return };
        let drained = sample.in_flight_bytes <= self.inflight_bytes(self.model.bw(), 100);
        if drained || self.model.rounds().wrapping_sub(start_round) > MAX_DRAIN_ROUNDS {
            self.start_probe_bw_down(sample.delivered_total_bytes, sample.now);
        }
    }

    /// BBRStartProbeBW_DOWN (§5.3.3.1).
    pub(super) fn start_probe_bw_down(&mut self, delivered_total_bytes: u64, now: Instant) {
        self.model.reset_congestion_signals();
        self.probe_up_bytes = u64::MAX;
        // BBRPickProbeWait (§5.3.3.5): 2 to 3 s, and a round more or not.
        self.rounds_since_bw_probe = u32::try_from(self.random_below(2)).unwrap_or(0);
        self.bw_probe_wait_ns = 2 * NS_PER_S + self.random_below(NS_PER_S);
        self.cycle_stamp = now;
        self.ack_phase = AckPhase::ProbeStopping;
        self.model.start_round(delivered_total_bytes);
        self.set_phase(Phase::ProbeBwDown, DOWN_PACING_GAIN, CWND_GAIN);
    }

    fn start_probe_bw_cruise(&mut self) {
        self.set_phase(Phase::ProbeBwCruise, 100, CWND_GAIN);
    }

    pub(super) fn start_probe_bw_refill(&mut self, delivered_total_bytes: u64) {
        self.model.reset_shortterm_bounds();
        self.bw_probe_up_rounds = 0;
        self.bw_probe_up_bytes = 0;
        self.prev_probe_precautionary = false;
        self.ack_phase = AckPhase::Refilling;
        self.model.start_round(delivered_total_bytes);
        self.set_phase(Phase::ProbeBwRefill, 100, CWND_GAIN);
    }

    fn start_probe_bw_up(&mut self, sample: &RateSample) {
        self.bw_probe_samples = true;
        self.ack_phase = AckPhase::ProbeStarting;
        self.model.start_round(sample.delivered_total_bytes);
        self.reset_full_bw(sample.bytes_per_s());
        self.cycle_stamp = sample.now;
        self.set_phase(Phase::ProbeBwUp, UP_PACING_GAIN, UP_CWND_GAIN);
        self.raise_longterm_slope();
    }

    /// BBRUpdateProbeBWCyclePhase (§5.3.3.6).
    fn update_probe_bw_cycle(&mut self, sample: &RateSample, marked: bool) {
        if !self.full_bw_reached {
            return;
        }
        if self.adapt_longterm_model(sample, marked) {
            return;
        }
        match self.phase {
            Phase::Startup | Phase::Drain { .. } | Phase::ProbeRtt => {}
            Phase::ProbeBwDown => {
                if self.is_time_to_probe_bw(sample) {
                    self.start_probe_bw_refill(sample.delivered_total_bytes);
                } else if self.is_time_to_cruise(sample) {
                    self.start_probe_bw_cruise();
                }
            }
            Phase::ProbeBwCruise => {
                if self.is_time_to_probe_bw(sample) {
                    self.start_probe_bw_refill(sample.delivered_total_bytes);
                }
            }
            Phase::ProbeBwRefill => {
                // After one round the pipe is full of what the model allows.
                if self.model.round_start {
                    self.start_probe_bw_up(sample);
                }
            }
            Phase::ProbeBwUp => {
                if self.is_time_to_go_down(sample) {
                    // It has not lost too much, yet.
                    self.prev_probe_too_high = false;
                    self.start_probe_bw_down(sample.delivered_total_bytes, sample.now);
                }
            }
        }
    }

    /// BBRIsTimeToProbeBW (§5.3.3.5): after a while, or after as many rounds as Reno would take to grow back.
    fn is_time_to_probe_bw(&self, sample: &RateSample) -> bool {
        let reno_rounds = (self.target_inflight_bytes() / self.mss_bytes).min(MAX_ROUNDS_BETWEEN_PROBES);
        sample.now.nanos_since(self.cycle_stamp) > self.bw_probe_wait_ns
            || self.rounds_since_bw_probe >= reno_rounds.max(1)
    }

    /// BBRIsTimeToCruise (§5.3.3.6): the queue is gone, and others have room.
    fn is_time_to_cruise(&self, sample: &RateSample) -> bool {
        sample.in_flight_bytes <= self.inflight_with_headroom()
            && sample.in_flight_bytes <= self.inflight_bytes(self.model.max_bw(), 100)
    }

    /// IsTimeToGoDown (§5.3.3.9).
    fn is_time_to_go_down(&mut self, sample: &RateSample) -> bool {
        if self.prev_probe_too_high && sample.in_flight_bytes >= self.model.inflight_longterm {
            // §5.3.3.6: so much in flight was too much the last time. Whether it still is takes a round trip to learn,
            // for which it need not be held there.
            self.prev_probe_precautionary = true;
            return true;
        }
        if self.cwnd_limited && self.cwnd_bytes >= self.model.inflight_longterm {
            // The bound is the limit, and not the path.
            self.reset_full_bw(sample.bytes_per_s());
            return false;
        }
        self.full_bw_now
    }

    pub(super) fn probe_rtt_cwnd_bytes(&self) -> u32 {
        self.bdp_bytes(self.model.bw(), PROBE_RTT_CWND_GAIN).max(self.min_pipe_bytes())
    }

    /// BBRCheckProbeRTT (§5.3.4.3).
    fn check_probe_rtt(&mut self, sample: &RateSample) {
        if self.phase != Phase::ProbeRtt && self.model.probe_rtt_expired && !self.idle_restart {
            self.save_cwnd();
            self.set_phase(Phase::ProbeRtt, 100, PROBE_RTT_CWND_GAIN);
            self.probe_rtt_done_stamp = None;
            self.ack_phase = AckPhase::ProbeStopping;
            self.model.start_round(sample.delivered_total_bytes);
        }
        if self.phase == Phase::ProbeRtt {
            self.handle_probe_rtt(sample);
        }
        if sample.delivered_bytes() > 0 {
            self.idle_restart = false;
        }
    }

    /// BBRHandleProbeRTT (§5.3.4.3).
    fn handle_probe_rtt(&mut self, sample: &RateSample) {
        let until = sample.delivered_total_bytes.saturating_add(sample.in_flight_bytes.into());
        let from = self.probe_rtt_sent.map_or(sample.delivered_total_bytes, |(from, _)| from);
        self.probe_rtt_sent = Some((from, until));
        if self.probe_rtt_done_stamp.is_some() {
            self.probe_rtt_round_done |= self.model.round_start;
            if self.probe_rtt_round_done {
                self.check_probe_rtt_done(sample.now);
            }
        } else if sample.in_flight_bytes <= self.probe_rtt_cwnd_bytes() {
            self.probe_rtt_done_stamp = Some(sample.now.plus_nanos(PROBE_RTT_DURATION_NS));
            self.probe_rtt_round_done = false;
            self.model.start_round(sample.delivered_total_bytes);
        }
    }

    /// BBRCheckProbeRTTDone and BBRExitProbeRTT (§5.3.4.3, §5.3.4.4).
    pub(super) fn check_probe_rtt_done(&mut self, now: Instant) {
        if self.probe_rtt_done_stamp.is_none_or(|stamp| now <= stamp) {
            return;
        }
        self.probe_rtt_done_stamp = None;
        self.model.probe_rtt_min_stamp = now;
        self.restore_cwnd();
        self.model.reset_shortterm_bounds();
        if self.full_bw_reached {
            let delivered = self.model.round_end();
            self.start_probe_bw_down(delivered, now);
            self.start_probe_bw_cruise();
        } else {
            self.enter_startup();
        }
    }
}
