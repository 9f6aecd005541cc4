//! Congestion control: how much may be in flight.
//!
//! An algorithm is told what happened and asked for a window; noticing losses and sending again is not
//! its business. The built-in ones are an enum, so that calls are direct and an idle connection carries
//! no allocation; any other implements [`CongestionControl`] and is boxed.

mod newreno;

use std::fmt;

use libos::Instant;

pub use newreno::NewReno;

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
}

/// How a loss was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossKind {
    /// By acknowledgments for what was sent later (RFC 5681 §3.2).
    FastRetransmit,
}

/// A loss was noticed and recovery begins: once for all segments lost from one window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossEvent {
    /// The time now.
    pub now: Instant,
    /// Bytes sent and not acknowledged: FlightSize.
    pub bytes_in_flight: u32,
    /// How it was noticed.
    pub kind: LossKind,
}

/// A congestion-control algorithm, for one connection.
///
/// Called for every acknowledgment: implementations must not allocate, lock or log.
pub trait CongestionControl: fmt::Debug {
    /// The algorithm's name, as in `TCP_CONGESTION`.
    fn name(&self) -> &'static str;

    /// The handshake is over; a segment carries up to `mss_bytes` of data.
    fn on_established(&mut self, mss_bytes: u32, now: Instant);

    /// The path carries other segments than was thought.
    fn on_mss_change(&mut self, mss_bytes: u32);

    /// New data was acknowledged.
    fn on_ack(&mut self, event: &AckEvent);

    /// A loss was noticed and recovery begins.
    fn on_loss(&mut self, event: &LossEvent);

    /// All that was in flight when recovery began was acknowledged; `bytes_in_flight` were sent since.
    fn on_recovery_exit(&mut self, bytes_in_flight: u32, now: Instant);

    /// The retransmission timer went off with `bytes_in_flight` unacknowledged. `first` is false when
    /// the same segment had timed out before. Called before [`Self::on_established`] for a lost SYN.
    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, now: Instant);

    /// Something is about to be sent after nothing was for longer than the retransmission timeout.
    fn on_idle(&mut self, now: Instant);

    /// The congestion window: most bytes in flight.
    fn cwnd_bytes(&self) -> u32;

    /// The slow start threshold, `u32::MAX` as long as no loss was seen.
    fn ssthresh_bytes(&self) -> u32;

    /// The rate to send at, in bytes per second; `None` sends as the window allows.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}

/// One connection's congestion control.
#[derive(Debug)]
pub enum Congestion {
    /// NewReno.
    NewReno(NewReno),
    /// Any other algorithm.
    Custom(Box<dyn CongestionControl>),
}

impl Default for Congestion {
    fn default() -> Self {
        Self::NewReno(NewReno::new())
    }
}

/// Calls the same method of whichever algorithm there is.
macro_rules! dispatch {
    ($congestion:expr, $algorithm:ident => $call:expr) => {
        match $congestion {
            Congestion::NewReno($algorithm) => $call,
            Congestion::Custom($algorithm) => $call,
        }
    };
}

impl CongestionControl for Congestion {
    fn name(&self) -> &'static str {
        dispatch!(self, algorithm => algorithm.name())
    }

    fn on_established(&mut self, mss_bytes: u32, now: Instant) {
        dispatch!(self, algorithm => algorithm.on_established(mss_bytes, now));
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        dispatch!(self, algorithm => algorithm.on_mss_change(mss_bytes));
    }

    #[inline]
    fn on_ack(&mut self, event: &AckEvent) {
        dispatch!(self, algorithm => algorithm.on_ack(event));
    }

    fn on_loss(&mut self, event: &LossEvent) {
        dispatch!(self, algorithm => algorithm.on_loss(event));
    }

    fn on_recovery_exit(&mut self, bytes_in_flight: u32, now: Instant) {
        dispatch!(self, algorithm => algorithm.on_recovery_exit(bytes_in_flight, now));
    }

    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, now: Instant) {
        dispatch!(self, algorithm => algorithm.on_timeout(bytes_in_flight, first, now));
    }

    fn on_idle(&mut self, now: Instant) {
        dispatch!(self, algorithm => algorithm.on_idle(now));
    }

    #[inline]
    fn cwnd_bytes(&self) -> u32 {
        dispatch!(self, algorithm => algorithm.cwnd_bytes())
    }

    fn ssthresh_bytes(&self) -> u32 {
        dispatch!(self, algorithm => algorithm.ssthresh_bytes())
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        dispatch!(self, algorithm => algorithm.pacing_rate())
    }
}

/// Makes the congestion control of new connections.
#[derive(Debug, Clone, Copy, Default)]
pub enum Algorithm {
    /// NewReno (RFC 5681, RFC 6582).
    #[default]
    NewReno,
    /// Whatever the function makes.
    Custom(fn() -> Box<dyn CongestionControl>),
}

impl Algorithm {
    /// The state of a new connection.
    #[must_use]
    pub fn start(self) -> Congestion {
        match self {
            Self::NewReno => Congestion::default(),
            Self::Custom(make) => Congestion::Custom(make()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows one segment at a time.
    #[derive(Debug)]
    struct StopAndWait {
        mss_bytes: u32,
    }

    impl CongestionControl for StopAndWait {
        fn name(&self) -> &'static str {
            "stop-and-wait"
        }
        fn on_established(&mut self, mss_bytes: u32, _now: Instant) {
            self.mss_bytes = mss_bytes;
        }
        fn on_mss_change(&mut self, mss_bytes: u32) {
            self.mss_bytes = mss_bytes;
        }
        fn on_ack(&mut self, _event: &AckEvent) {}
        fn on_loss(&mut self, _event: &LossEvent) {}
        fn on_recovery_exit(&mut self, _bytes_in_flight: u32, _now: Instant) {}
        fn on_timeout(&mut self, _bytes_in_flight: u32, _first: bool, _now: Instant) {}
        fn on_idle(&mut self, _now: Instant) {}
        fn cwnd_bytes(&self) -> u32 {
            self.mss_bytes
        }
        fn ssthresh_bytes(&self) -> u32 {
            u32::MAX
        }
        fn pacing_rate(&self) -> Option<u64> {
            Some(1)
        }
    }

    #[test]
    fn an_algorithm_of_ones_own_takes_the_place_of_the_built_in_one() {
        let mut congestion = Algorithm::Custom(|| Box::new(StopAndWait { mss_bytes: 0 })).start();
        congestion.on_established(1_000, Instant::ZERO);
        congestion.on_ack(&AckEvent {
            now: Instant::ZERO,
            bytes_acked: 1_000,
            bytes_in_flight: 1_000,
            rtt_ns: None,
            app_limited: false,
            in_recovery: false,
        });
        assert_eq!((congestion.name(), congestion.cwnd_bytes()), ("stop-and-wait", 1_000));
        assert_eq!((congestion.ssthresh_bytes(), congestion.pacing_rate()), (u32::MAX, Some(1)));
    }

    #[test]
    fn newreno_is_the_default() {
        let congestion = Algorithm::default().start();
        assert_eq!((congestion.name(), congestion.pacing_rate()), ("newreno", None));
    }
}
