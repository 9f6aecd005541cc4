//! Congestion control: how much may be in flight, and how fast it is sent.
//!
//! An algorithm is told what happened and asked for a window, and for a rate if it paces; noticing losses
//! and sending again is not its business. The built-in ones are an enum, so that calls are direct and an
//! idle connection carries no allocation; any other implements [`CongestionControl`] and is boxed.

mod bbr;
mod cubic;
mod cubic_curve;
mod dctcp;
mod hystart;
mod newreno;
mod rate;
mod select;

use std::fmt;

use libos::Instant;

pub use bbr::Bbr;
pub use cubic::Cubic;
pub use dctcp::Dctcp;
pub use newreno::NewReno;
pub use rate::{RateSample, SendEvent};
pub use select::{Algorithm, Congestion, CustomAlgorithm};

/// Largest window: as large as a peer's can be (RFC 7323 §2.3).
const MAX_CWND_BYTES: u32 = 1 << 30;

/// Segment size before the handshake tells (RFC 9293 §3.7.1).
const DEFAULT_MSS_BYTES: u32 = 536;

/// RFC 6928 §2: min(10 * MSS, max(2 * MSS, 14600)).
const fn initial_window(mss_bytes: u32) -> u32 {
    let two = mss_bytes.saturating_mul(2);
    let ten = mss_bytes.saturating_mul(10);
    let floor = if two > 14_600 { two } else { 14_600 };
    if ten < floor { ten } else { floor }
}

/// The window after recovery: no burst into a path that ran low (RFC 6582 §3.2, step 3, full acknowledgment, option 1).
/// Whose answer was short, and repaired at its end, has nothing in flight: that is a restart, and its next answer begins
/// with as much as after an idle time (RFC 5681 §4.1) and not with two segments.
fn window_after_recovery(ssthresh_bytes: u32, bytes_in_flight: u32, mss_bytes: u32) -> u32 {
    let refilled = match bytes_in_flight {
        0 => initial_window(mss_bytes),
        _ => bytes_in_flight.max(mss_bytes).saturating_add(mss_bytes),
    };
    ssthresh_bytes.min(refilled).min(MAX_CWND_BYTES)
}

/// New data was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckEvent {
    /// The time now.
    pub now: Instant,
    /// Bytes that this acknowledgment was the first to cover.
    pub bytes_acked: u32,
    /// Bytes sent and not acknowledged before it arrived.
    pub bytes_in_flight: u32,
    /// The round-trip time it gave a measurement of.
    pub rtt_ns: Option<u64>,
    /// The window was not the limit: the program had nothing more to send, or the peer no room.
    pub app_limited: bool,
    /// It arrived during loss recovery, the one that ends recovery included.
    pub in_recovery: bool,
    /// It carried ECE: the peer reports congestion marks (RFC 3168 §6.1.3, RFC 8257 §3.2).
    pub ecn_echo: bool,
}

/// How congestion was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// By acknowledgments for what was sent later (RFC 5681 §3.2, RFC 8985).
    FastRetransmit,
    /// By the peer's report of a congestion mark; nothing is lost (RFC 3168 §6.1.2).
    CongestionMark,
}

/// Congestion was noticed: reported once for all that was lost or marked in one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossEvent {
    /// The time now.
    pub now: Instant,
    /// Bytes sent and not acknowledged: FlightSize.
    pub bytes_in_flight: u32,
    /// How it was noticed.
    pub kind: LossKind,
}

/// What an algorithm makes of explicit congestion notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EcnUse {
    /// Nothing: its segments do not ask for marks.
    Ignored,
    /// One reduction a window, however many segments were marked (RFC 3168).
    Classic,
    /// The share of marked bytes counts, so that receivers report each change (RFC 8257 §3.2).
    Precise,
}

/// A congestion-control algorithm, for one connection.
///
/// Called for every acknowledgment: implementations must not allocate, lock or log.
pub trait CongestionControl: fmt::Debug {
    /// The algorithm's name, as in `TCP_CONGESTION`.
    fn name(&self) -> &'static str;

    /// The handshake is over; a segment carries up to `mss_bytes` of data.
    fn on_established(&mut self, mss_bytes: u32, now: Instant);

    /// The handshake measured a round-trip time. Called after [`Self::on_established`], if at all.
    fn on_first_rtt(&mut self, _rtt_ns: u64) {}

    /// The path carries other segments than was thought.
    fn on_mss_change(&mut self, mss_bytes: u32);

    /// New data was acknowledged.
    fn on_ack(&mut self, event: &AckEvent);

    /// True while an acknowledgment that says nothing but that the window was not the limit
    /// ([`AckEvent::app_limited`]) may change something. Else [`Self::on_ack`] may not hear of it.
    fn heeds_app_limited(&self) -> bool {
        true
    }

    /// Congestion was noticed. A loss begins recovery; a mark does not.
    fn on_loss(&mut self, event: &LossEvent);

    /// All that was in flight when recovery began was acknowledged; `bytes_in_flight` were sent since.
    fn on_recovery_exit(&mut self, bytes_in_flight: u32, now: Instant);

    /// The retransmission timer went off with `bytes_in_flight` unacknowledged. `first` is false when
    /// the same segment had timed out before. Called before [`Self::on_established`] for a lost SYN.
    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, now: Instant);

    /// All that a timeout gave up was acknowledged.
    fn on_timeout_repaired(&mut self, _now: Instant) {}

    /// The last loss or timeout turned out to be none: nothing had been lost (RFC 5682, RFC 3522). What was
    /// reduced for it may be restored.
    fn on_spurious(&mut self, _now: Instant) {}

    /// Something is about to be sent after nothing was for longer than the retransmission timeout.
    fn on_idle(&mut self, now: Instant);

    /// The congestion window: most bytes in flight. Asked for after each call that tells of something.
    fn cwnd_bytes(&self) -> u32;

    /// The slow start threshold, `u32::MAX` as long as no loss was seen.
    fn ssthresh_bytes(&self) -> u32;

    /// The rate to send at, in bytes per second; `None` sends as the window allows.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// Most bytes sent at a time, when there is a pacing rate.
    fn burst_bytes(&self) -> u32 {
        u32::MAX
    }

    /// True for an algorithm that is to be told of [`Self::on_delivery`] and [`Self::on_sent`].
    fn samples_delivery(&self) -> bool {
        false
    }

    /// Something was delivered, by a cumulative or a selective acknowledgment.
    fn on_delivery(&mut self, _sample: &RateSample) {}

    /// Data is about to be sent.
    fn on_sent(&mut self, _event: &SendEvent) {}

    /// True for an algorithm whose window is right in recovery too, so that nothing else reduces what is sent
    /// (RFC 9937 otherwise does).
    fn owns_recovery(&self) -> bool {
        false
    }

    /// What it makes of explicit congestion notification.
    fn ecn_use(&self) -> EcnUse {
        EcnUse::Classic
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! Events for the tests of the algorithms.

    use super::{AckEvent, LossEvent, LossKind};
    use libos::Instant;

    /// The acknowledgment of `bytes_acked` of a full window of `bytes_in_flight` at `now`.
    pub(crate) fn acked(bytes_acked: u32, bytes_in_flight: u32, now: Instant) -> AckEvent {
        AckEvent {
            now,
            bytes_acked,
            bytes_in_flight,
            rtt_ns: None,
            app_limited: false,
            in_recovery: false,
            ecn_echo: false,
        }
    }

    /// A loss noticed with `bytes_in_flight` at `now`.
    pub(crate) fn lost(bytes_in_flight: u32, now: Instant) -> LossEvent {
        LossEvent { now, bytes_in_flight, kind: LossKind::FastRetransmit }
    }
}
