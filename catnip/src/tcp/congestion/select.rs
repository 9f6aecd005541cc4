//! Which algorithm a connection has: by name, by value, and as the object that does the work.

use libos::{CongestionName, Instant};

use super::{
    AckEvent, Bbr, CongestionControl, Cubic, Dctcp, EcnUse, LossEvent, NewReno, RateSample, SendEvent,
};

/// Calls the same method of whichever algorithm there is.
macro_rules! dispatch {
    ($congestion:expr, $algorithm:ident => $call:expr) => {
        match &$congestion.kind {
            Kind::Cubic($algorithm) => $call,
            Kind::NewReno($algorithm) => $call,
            Kind::Dctcp($algorithm) => $call,
            Kind::Bbr($algorithm) => $call,
            Kind::Custom($algorithm, _) => $call,
        }
    };
}

/// Tells whichever algorithm there is something, and asks what that makes of the window.
macro_rules! tell {
    ($congestion:expr, $algorithm:ident => $call:expr) => {
        let (cwnd_bytes, heeds) = match &mut $congestion.kind {
            Kind::Cubic($algorithm) => tell!($algorithm, $call),
            Kind::NewReno($algorithm) => tell!($algorithm, $call),
            Kind::Dctcp($algorithm) => tell!($algorithm, $call),
            Kind::Bbr($algorithm) => tell!($algorithm, $call),
            Kind::Custom($algorithm, _) => tell!($algorithm, $call),
        };
        $congestion.cwnd_bytes = cwnd_bytes;
        $congestion.unheeded_below_bytes = if heeds { 0 } else { cwnd_bytes };
    };
    ($algorithm:ident, $call:expr) => {{
        $call;
        ($algorithm.cwnd_bytes(), $algorithm.heeds_app_limited())
    }};
}

/// One connection's congestion control, and what it said last: the window is asked for with each segment, and changes
/// only when the algorithm is told something.
#[derive(Debug)]
pub struct Congestion {
    kind: Kind,
    cwnd_bytes: u32,
    /// What the window is while acknowledgments that did not need all of it change nothing; else 0.
    unheeded_below_bytes: u32,
}

#[derive(Debug)]
enum Kind {
    Cubic(Cubic),
    NewReno(NewReno),
    Dctcp(Dctcp),
    /// BBR, whose model of the path would make every connection larger.
    Bbr(Box<Bbr>),
    /// Any other algorithm, and what made it.
    Custom(Box<dyn CongestionControl>, CustomAlgorithm),
}

impl Congestion {
    fn new(kind: Kind) -> Self {
        let mut congestion = Self { kind, cwnd_bytes: 0, unheeded_below_bytes: 0 };
        congestion.cwnd_bytes = dispatch!(&congestion, algorithm => algorithm.cwnd_bytes());
        congestion
    }

    /// What made it.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match &self.kind {
            Kind::Cubic(_) => Algorithm::Cubic,
            Kind::NewReno(_) => Algorithm::NewReno,
            Kind::Dctcp(_) => Algorithm::Dctcp,
            Kind::Bbr(_) => Algorithm::Bbr,
            Kind::Custom(_, custom) => Algorithm::Custom(*custom),
        }
    }

    /// True when the acknowledgment of new data that found no more than `bytes` wanted of the window, itself and a further segment
    /// included, changes nothing: then [`CongestionControl::on_ack`] need not hear of it.
    #[inline(always)]
    #[must_use]
    pub const fn passes_over(&self, bytes: u32) -> bool {
        bytes <= self.unheeded_below_bytes
    }
}

impl Default for Congestion {
    fn default() -> Self {
        Algorithm::default().start()
    }
}

impl CongestionControl for Congestion {
    fn name(&self) -> &'static str {
        dispatch!(self, algorithm => algorithm.name())
    }

    fn on_established(&mut self, mss_bytes: u32, now: Instant) {
        tell!(self, algorithm => algorithm.on_established(mss_bytes, now));
    }

    fn on_first_rtt(&mut self, rtt_ns: u64) {
        tell!(self, algorithm => algorithm.on_first_rtt(rtt_ns));
    }

    fn on_mss_change(&mut self, mss_bytes: u32) {
        tell!(self, algorithm => algorithm.on_mss_change(mss_bytes));
    }

    #[inline]
    fn on_ack(&mut self, event: &AckEvent) {
        tell!(self, algorithm => algorithm.on_ack(event));
    }

    fn on_loss(&mut self, event: &LossEvent) {
        tell!(self, algorithm => algorithm.on_loss(event));
    }

    fn on_recovery_exit(&mut self, bytes_in_flight: u32, now: Instant) {
        tell!(self, algorithm => algorithm.on_recovery_exit(bytes_in_flight, now));
    }

    fn on_timeout(&mut self, bytes_in_flight: u32, first: bool, now: Instant) {
        tell!(self, algorithm => algorithm.on_timeout(bytes_in_flight, first, now));
    }

    fn on_timeout_repaired(&mut self, now: Instant) {
        tell!(self, algorithm => algorithm.on_timeout_repaired(now));
    }

    fn on_spurious(&mut self, now: Instant) {
        tell!(self, algorithm => algorithm.on_spurious(now));
    }

    fn on_idle(&mut self, now: Instant) {
        tell!(self, algorithm => algorithm.on_idle(now));
    }

    #[inline(always)]
    fn cwnd_bytes(&self) -> u32 {
        self.cwnd_bytes
    }

    fn ssthresh_bytes(&self) -> u32 {
        dispatch!(self, algorithm => algorithm.ssthresh_bytes())
    }

    #[inline]
    fn pacing_rate(&self) -> Option<u64> {
        dispatch!(self, algorithm => algorithm.pacing_rate())
    }

    fn burst_bytes(&self) -> u32 {
        dispatch!(self, algorithm => algorithm.burst_bytes())
    }

    fn samples_delivery(&self) -> bool {
        dispatch!(self, algorithm => algorithm.samples_delivery())
    }

    fn on_delivery(&mut self, sample: &RateSample) {
        tell!(self, algorithm => algorithm.on_delivery(sample));
    }

    fn on_sent(&mut self, event: &SendEvent) {
        tell!(self, algorithm => algorithm.on_sent(event));
    }

    fn heeds_app_limited(&self) -> bool {
        self.unheeded_below_bytes == 0
    }

    fn owns_recovery(&self) -> bool {
        dispatch!(self, algorithm => algorithm.owns_recovery())
    }

    fn ecn_use(&self) -> EcnUse {
        dispatch!(self, algorithm => algorithm.ecn_use())
    }
}

/// An algorithm that is none of the built-in ones.
#[derive(Debug, Clone, Copy)]
pub struct CustomAlgorithm {
    /// The name under which `TCP_CONGESTION` shows it. Two algorithms of one name count as the same.
    pub name: &'static str,
    /// Makes the state of a new connection.
    pub start: fn() -> Box<dyn CongestionControl>,
}

impl PartialEq for CustomAlgorithm {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for CustomAlgorithm {}

/// Makes the congestion control of new connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// CUBIC with HyStart++ (RFC 9438, RFC 9406).
    #[default]
    Cubic,
    /// NewReno (RFC 5681, RFC 6582).
    NewReno,
    /// DCTCP (RFC 8257), for networks whose switches mark.
    Dctcp,
    /// BBR version 3 (draft-ietf-ccwg-bbr).
    Bbr,
    /// Whatever somebody else made.
    Custom(CustomAlgorithm),
}

impl Algorithm {
    /// Names of the built-in algorithms, as `TCP_CONGESTION` and the configuration know them.
    pub const NAMES: [&'static str; 4] = ["cubic", "reno", "dctcp", "bbr"];

    /// The built-in algorithm of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "cubic" => Some(Self::Cubic),
            "reno" => Some(Self::NewReno),
            "dctcp" => Some(Self::Dctcp),
            "bbr" => Some(Self::Bbr),
            _ => None,
        }
    }

    /// The algorithm's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::NewReno => "reno",
            Self::Dctcp => "dctcp",
            Self::Bbr => "bbr",
            Self::Custom(custom) => custom.name,
        }
    }

    /// The name as a socket option's value, cut to what that holds.
    #[must_use]
    pub fn option_name(&self) -> CongestionName {
        CongestionName::truncated(self.name())
    }

    /// The state of a new connection.
    #[must_use]
    pub fn start(self) -> Congestion {
        Congestion::new(match self {
            Self::Cubic => Kind::Cubic(Cubic::new()),
            Self::NewReno => Kind::NewReno(NewReno::new()),
            Self::Dctcp => Kind::Dctcp(Dctcp::new()),
            Self::Bbr => Kind::Bbr(Box::default()),
            Self::Custom(custom) => Kind::Custom((custom.start)(), custom),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{acked, lost};
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

    const STOP_AND_WAIT: Algorithm = Algorithm::Custom(CustomAlgorithm {
        name: "stop-and-wait",
        start: || Box::new(StopAndWait { mss_bytes: 0 }),
    });

    #[test]
    fn an_algorithm_of_ones_own_takes_the_place_of_the_built_in_one() {
        let mut congestion = STOP_AND_WAIT.start();
        congestion.on_established(1_000, Instant::ZERO);
        congestion.on_ack(&acked(1_000, 1_000, Instant::ZERO));
        assert_eq!((congestion.name(), congestion.cwnd_bytes()), ("stop-and-wait", 1_000));
        assert_eq!((congestion.ssthresh_bytes(), congestion.pacing_rate()), (u32::MAX, Some(1)));
    }

    #[test]
    fn only_an_algorithm_that_says_so_may_be_passed_over() {
        // What it makes of an acknowledgment of a window that was not used, before it was told of anything and after.
        for (algorithm, before, after) in [
            (Algorithm::Cubic, false, true),
            (Algorithm::NewReno, false, true),
            (Algorithm::Dctcp, false, false),
            (Algorithm::Bbr, false, false),
            (STOP_AND_WAIT, false, false),
        ] {
            let mut congestion = algorithm.start();
            assert_eq!(congestion.passes_over(1), before, "{}", algorithm.name());
            congestion.on_established(1_000, Instant::ZERO);
            assert_eq!(congestion.passes_over(1), after, "{}", algorithm.name());
            assert!(!congestion.passes_over(congestion.cwnd_bytes() + 1), "{}", algorithm.name());
        }
        // An epoch of CUBIC's stands still while the window is not used.
        let mut cubic = Algorithm::Cubic.start();
        cubic.on_established(1_000, Instant::ZERO);
        cubic.on_loss(&lost(10_000, Instant::ZERO));
        assert!(cubic.passes_over(1));
        cubic.on_ack(&acked(1_000, 10_000, Instant::ZERO));
        assert!(!cubic.passes_over(1));
    }

    #[test]
    fn each_name_makes_the_algorithm_that_bears_it() {
        for name in Algorithm::NAMES {
            let algorithm = Algorithm::from_name(name).unwrap();
            assert_eq!((algorithm.name(), algorithm.start().name()), (name, name));
            assert_eq!(algorithm.option_name().as_str(), name);
        }
        assert_eq!(Algorithm::from_name("vegas"), None);
        assert_eq!(STOP_AND_WAIT.name(), STOP_AND_WAIT.start().name());
    }

    #[test]
    fn cubic_is_the_default() {
        assert_eq!((Congestion::default().name(), Algorithm::default().name()), ("cubic", "cubic"));
    }
}
