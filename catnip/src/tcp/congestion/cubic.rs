//! CUBIC (RFC 9438), with HyStart++ (RFC 9406) for the first slow start.

use libos::Instant;

use super::cubic_curve as curve;
use super::hystart::{Growth, HyStart};
use super::{
    AckEvent, CongestionControl, DEFAULT_MSS_BYTES, LossEvent, LossKind, MAX_CWND_BYTES, initial_window,
    window_after_recovery,
};

/// beta_cubic = 0.7 (RFC 9438 §4.6).
const BETA: (u32, u32) = (7, 10);
/// What fast convergence leaves of W_max: (1 + beta_cubic) / 2 (RFC 9438 §4.7).
const FAST_CONVERGENCE: (u32, u32) = (17, 20);
/// alpha_cubic = 3 * (1 - beta) / (1 + beta) (RFC 9438 §4.3).
const ALPHA: (u32, u32) = (9, 17);
/// Slow start after a timeout: segments that one acknowledgment adds at most (RFC 3465 §2.3).
const AFTER_TIMEOUT_LIMIT_SEGMENTS: u32 = 1;

/// A time of growth between two reductions: the curve that the window follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Epoch {
    start: Instant,
    /// When the window is at `origin_bytes` again, counted from `start`.
    k_ticks: u64,
    origin_bytes: u32,
    /// W_est: what Reno would have (RFC 9438 §4.3).
    estimate_bytes: u32,
}

/// What a reduction for nothing is taken back to (RFC 9438 §4.9).
#[derive(Debug, Clone, Copy)]
struct Undo {
    cwnd_bytes: u32,
    ssthresh_bytes: u32,
    max_bytes: u32,
    prior_bytes: u32,
    epoch: Option<Epoch>,
}

/// CUBIC's variables.
#[derive(Debug, Clone)]
pub struct Cubic {
    cwnd_bytes: u32,
    ssthresh_bytes: u32,
    mss_bytes: u32,
    /// W_max: the window before the last reduction, or less by fast convergence.
    max_bytes: u32,
    /// cwnd_prior: the window before the last reduction.
    prior_bytes: u32,
    /// Smoothed, in nanoseconds; 0 before the first sample.
    rtt_ns: u64,
    /// The last acknowledgment that the window grew by, or could not grow by for want of use.
    last_ack: Instant,
    epoch: Option<Epoch>,
    /// What the divisions of the curve and of W_est left over, in their divisors' units.
    credit: u64,
    estimate_credit: u64,
    after_timeout: bool,
    hystart: HyStart,
    undo: Option<Undo>,
}

impl Cubic {
    /// The state of a connection whose handshake is not over.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cwnd_bytes: initial_window(DEFAULT_MSS_BYTES),
            ssthresh_bytes: u32::MAX,
            mss_bytes: DEFAULT_MSS_BYTES,
            max_bytes: 0,
            prior_bytes: 0,
            rtt_ns: 0,
            last_ack: Instant::ZERO,
            epoch: None,
            credit: 0,
            estimate_credit: 0,
            after_timeout: false,
            hystart: HyStart::new(),
            undo: None,
        }
    }

    fn slow_start(&mut self, event: &AckEvent) {
        let growth = if self.ssthresh_bytes == u32::MAX {
            // RFC 9406 §4.3: for the initial slow start only, where nothing is known of the path.
            let left = event.bytes_in_flight.saturating_sub(event.bytes_acked);
            match self.hystart.on_ack(event.bytes_acked, left, event.rtt_ns, self.mss_bytes) {
                Growth::Add(bytes) => bytes,
                Growth::Leave => {
                    self.ssthresh_bytes = self.cwnd_bytes;
                    return;
                }
            }
        } else if self.after_timeout {
            event.bytes_acked.min(self.mss_bytes.saturating_mul(AFTER_TIMEOUT_LIMIT_SEGMENTS))
        } else {
            event.bytes_acked.min(self.mss_bytes.saturating_mul(2))
        };
        self.cwnd_bytes = self.cwnd_bytes.saturating_add(growth).min(MAX_CWND_BYTES);
    }

    /// Congestion avoidance begins, after a reduction or out of slow start (RFC 9438 §4.2, figure 2).
    fn start_epoch(&mut self, now: Instant) -> Epoch {
        // RFC 9438 §4.8 and §4.10: after a timeout, and out of the first slow start, the curve starts at
        // its plateau. So it does when the window is beyond the old plateau already.
        let plateau = std::mem::take(&mut self.after_timeout) || self.cwnd_bytes >= self.max_bytes;
        let (origin_bytes, k_ticks) = if plateau {
            (self.cwnd_bytes, 0)
        } else {
            (self.max_bytes, curve::k_ticks(self.max_bytes - self.cwnd_bytes, self.mss_bytes))
        };
        self.credit = 0;
        self.estimate_credit = 0;
        Epoch { start: now, k_ticks, origin_bytes, estimate_bytes: self.cwnd_bytes }
    }

    /// Congestion avoidance (RFC 9438 §4.2 to §4.5).
    fn avoid_congestion(&mut self, event: &AckEvent) {
        let mut epoch = match self.epoch {
            Some(epoch) => epoch,
            None => self.start_epoch(event.now),
        };
        self.last_ack = event.now;
        self.raise_estimate(&mut epoch, event.bytes_acked);
        let elapsed_ns = event.now.nanos_since(epoch.start);
        let at = |nanos| {
            curve::window_bytes(epoch.origin_bytes, epoch.k_ticks, curve::ticks(nanos), self.mss_bytes)
        };
        if at(elapsed_ns) < epoch.estimate_bytes {
            // RFC 9438 §4.3: the Reno-friendly region.
            self.cwnd_bytes = self.cwnd_bytes.max(epoch.estimate_bytes);
        } else {
            // RFC 9438 §4.2 and §4.4: a round trip ahead on the curve, neither back nor by more than half.
            let most = self.cwnd_bytes.saturating_add(self.cwnd_bytes / 2);
            let target = at(elapsed_ns.saturating_add(self.rtt_ns)).clamp(self.cwnd_bytes, most);
            let gap = u64::from(target - self.cwnd_bytes);
            let cwnd = u64::from(self.cwnd_bytes.max(1));
            self.credit = self.credit.saturating_add(gap * u64::from(event.bytes_acked));
            let growth = self.credit / cwnd;
            self.credit %= cwnd;
            // Never beyond the target, however much was acknowledged at once.
            self.cwnd_bytes += u32::try_from(growth.min(gap)).unwrap_or(0);
        }
        self.cwnd_bytes = self.cwnd_bytes.min(MAX_CWND_BYTES);
        self.epoch = Some(epoch);
    }

    /// RFC 9438 §4.3, figure 4: W_est grows by alpha segments a window, and by one from the window on
    /// that there was before the reduction.
    fn raise_estimate(&mut self, epoch: &mut Epoch, bytes_acked: u32) {
        let (alpha, unit) = if epoch.estimate_bytes >= self.prior_bytes { (ALPHA.1, ALPHA.1) } else { ALPHA };
        let step = u64::from(bytes_acked) * u64::from(self.mss_bytes);
        self.estimate_credit = self.estimate_credit.saturating_add(step.saturating_mul(u64::from(alpha)));
        let divisor = u64::from(unit) * u64::from(self.cwnd_bytes.max(1));
        let growth = self.estimate_credit / divisor;
        self.estimate_credit %= divisor;
        let growth = u32::try_from(growth).unwrap_or(u32::MAX);
        epoch.estimate_bytes = epoch.estimate_bytes.saturating_add(growth).min(MAX_CWND_BYTES);
    }

    /// The time for which the window was not used does not count (RFC 9438 §5.8).
    #[cold]
    fn pause(&mut self, now: Instant) {
        if let Some(epoch) = &mut self.epoch {
            epoch.start = epoch.start.plus_nanos(now.nanos_since(self.last_ack));
            self.last_ack = now;
        }
    }

    fn remember(&self) -> Undo {
        Undo {
            cwnd_bytes: self.cwnd_bytes,
            ssthresh_bytes: self.ssthresh_bytes,
            max_bytes: self.max_bytes,
            prior_bytes: self.prior_bytes,
            epoch: self.epoch,
        }
    }

    /// RFC 9438 §4.6 and §4.7: the threshold after congestion, and the plateau to come back to.
    fn reduce(&mut self, bytes_in_flight: u32) {
        let scaled = |bytes: u32, (part, whole): (u32, u32)| {
            u32::try_from(u64::from(bytes) * u64::from(part) / u64::from(whole)).unwrap_or(u32::MAX)
        };
        // A plateau lower than the last one makes room for a flow that is new on the path.
        let converging = self.cwnd_bytes < self.max_bytes;
        self.max_bytes = if converging { scaled(self.cwnd_bytes, FAST_CONVERGENCE) } else { self.cwnd_bytes };
        self.prior_bytes = self.cwnd_bytes;
        let used = bytes_in_flight.min(self.cwnd_bytes);
        let floor = self.mss_bytes.saturating_mul(2);
        self.ssthresh_bytes = scaled(used, BETA).max(floor).min(MAX_CWND_BYTES);
        self.epoch = None;
    }
}

impl Default for Cubic {
    fn default() -> Self {
        Self::new()
    }
}

impl CongestionControl for Cubic {
    fn name(&self) -> &'static str {
        "cubic"
    }

    fn on_established(&mut self, mss_bytes: u32, _now: Instant) {
        self.mss_bytes = mss_bytes.max(1);
        // After a lost SYN the connection starts with one segment (RFC 5681 §3.1), but the loss of a SYN
        // says nothing about a threshold or a plateau.
        self.ssthresh_bytes = u32::MAX;
        self.max_bytes = 0;
        self.prior_bytes = 0;
        self.undo = None;
        self.cwnd_bytes = if self.after_timeout { self.mss_bytes } else { initial_window(self.mss_bytes) };
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        self.mss_bytes = mss_bytes.max(1);
        self.cwnd_bytes = self.cwnd_bytes.max(self.mss_bytes);
        // The curve is in segments, and those are others now.
        self.epoch = None;
    }

    #[inline]
    fn on_ack(&mut self, event: &AckEvent) {
        // A window that was not used says nothing about the path (RFC 7661 §4.1); in recovery it stays
        // where the loss put it, and while the peer reports marks where they did (RFC 3168 §6.1.2).
        if event.app_limited || event.in_recovery || event.ecn_echo {
            if self.epoch.is_some() {
                self.pause(event.now);
            }
            return;
        }
        if let Some(rtt_ns) = event.rtt_ns {
            // As RFC 6298 smooths it.
            self.rtt_ns = if self.rtt_ns == 0 { rtt_ns } else { self.rtt_ns - self.rtt_ns / 8 + rtt_ns / 8 };
        }
        if self.cwnd_bytes < self.ssthresh_bytes {
            self.slow_start(event);
        } else {
            self.avoid_congestion(event);
        }
    }

    #[inline]
    fn heeds_app_limited(&self) -> bool {
        self.epoch.is_some()
    }

    fn on_loss(&mut self, event: &LossEvent) {
        // Marks report congestion that was there, so that a reduction for them is never taken back.
        self.undo = match event.kind {
            LossKind::FastRetransmit => Some(self.remember()),
            LossKind::CongestionMark => None,
        };
        self.reduce(event.bytes_in_flight);
        self.cwnd_bytes = self.ssthresh_bytes;
    }

    fn on_recovery_exit(&mut self, bytes_in_flight: u32, _now: Instant) {
        self.cwnd_bytes = window_after_recovery(self.ssthresh_bytes, bytes_in_flight, self.mss_bytes);
    }

    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, _now: Instant) {
        // RFC 9438 §4.8; as RFC 5681 §3.1 has it, once for a segment however often it times out.
        if first {
            self.undo = Some(self.remember());
            self.reduce(bytes_in_flight);
        }
        self.cwnd_bytes = self.mss_bytes;
        self.epoch = None;
        self.after_timeout = true;
    }

    fn on_spurious(&mut self, _now: Instant) {
        // RFC 9438 §4.9.
        if let Some(undo) = self.undo.take() {
            self.cwnd_bytes = self.cwnd_bytes.max(undo.cwnd_bytes);
            self.ssthresh_bytes = undo.ssthresh_bytes;
            self.max_bytes = undo.max_bytes;
            self.prior_bytes = undo.prior_bytes;
            self.epoch = undo.epoch;
            self.after_timeout = false;
        }
    }

    fn on_idle(&mut self, _now: Instant) {
        // RFC 5681 §4.1: the restart window, min(IW, cwnd). RFC 9438 §4.2: a new epoch.
        self.cwnd_bytes = self.cwnd_bytes.min(initial_window(self.mss_bytes));
        self.epoch = None;
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
#[path = "cubic_tests.rs"]
mod tests;
