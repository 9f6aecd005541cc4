//! Swarm testing: what a run sets differently from the defaults, each by its own chance. A new switch is one line.

use std::fmt;
use std::time::Duration;

use catnip::StackConfig;
use catnip::tcp::congestion::Algorithm;
use catnip::tcp::{EcnMode, Keepalive};
use rand::{Rng, RngExt};

/// What one switch changes in the stack's settings.
type Change = fn(&mut StackConfig);

/// Every switch by its name.
const SWITCHES: &[(&str, Change)] = &[
    ("no timestamps", |config| config.tcp.timestamps = false),
    ("no window scaling", |config| config.tcp.window_scaling = false),
    ("no SACK", |config| config.tcp.sack = false),
    ("ECN on", |config| config.tcp.ecn = EcnMode::On),
    ("accurate ECN", |config| config.tcp.ecn = EcnMode::Accurate),
    ("ECN off", |config| config.tcp.ecn = EcnMode::Off),
    ("quick acknowledgements", |config| config.tcp.options.quick_ack = true),
    ("NewReno", |config| config.tcp.options.congestion = Algorithm::NewReno),
    ("DCTCP", |config| config.tcp.options.congestion = Algorithm::Dctcp),
    ("BBR", |config| config.tcp.options.congestion = Algorithm::Bbr),
    ("RTO_min of a millisecond", |config| config.tcp.rto_min = Duration::from_millis(1)),
    ("RTO_min of a second", |config| config.tcp.rto_min = Duration::from_secs(1)),
    ("acknowledgements as late as allowed", |config| config.tcp.delayed_ack = Duration::from_millis(499)),
    ("small segments", |config| config.tcp.options.max_segment_bytes = Some(264)),
    ("odd segments", |config| config.tcp.options.max_segment_bytes = Some(537)),
    ("keepalive", |config| {
        config.tcp.options.keep_alive = true;
        config.tcp.options.keepalive = Keepalive { idle_ms: 700, interval_ms: 3_000, probes: 100 };
    }),
    ("little kept out of order", |config| config.tcp.max_out_of_order_bytes = 20_000),
    ("short TIME-WAIT", |config| config.tcp.time_wait = Duration::from_secs(1)),
    ("few challenges", |config| config.tcp.challenge_acks_per_second = 2),
    ("few resets", |config| config.tcp.resets_per_second = 2),
    ("no SYN cookies", |config| config.tcp.syn_cookies = false),
    ("Fast Open", |config| {
        config.tcp.options.fast_open_queue = 8;
        config.tcp.options.fast_open_connect = true;
    }),
    ("a short transmit queue", |config| config.transmit_queue_frames = 4),
];

/// The switches of one host that are on.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Switches(u64);

impl Switches {
    /// None at all now and then, else few or many.
    pub fn draw(random: &mut impl Rng) -> Self {
        let percent = [0, 5, 10, 30, 50][random.random_range(0..5)];
        let on = |at: usize, random: &mut _| u64::from(RngExt::random_range(random, 0..100) < percent) << at;
        Self((0..SWITCHES.len()).map(|at| on(at, random)).sum())
    }

    fn on(self) -> impl Iterator<Item = &'static (&'static str, Change)> {
        SWITCHES.iter().enumerate().filter(move |(at, _)| self.0 & 1 << at != 0).map(|(_, switch)| switch)
    }

    /// Sets what is on.
    pub fn apply(self, config: &mut StackConfig) {
        self.on().for_each(|(_, change)| change(config));
    }
}

impl fmt::Debug for Switches {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.on().map(|(name, _)| name)).finish()
    }
}
