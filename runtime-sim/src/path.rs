//! The way to a port: latency, bandwidth, a bounded queue, and seeded faults.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use libos::Instant;
use libos::runtime::Medium;
use libos::time::duration_nanos;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::Loss;
use crate::mark::mark;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER_BYTES: usize = 14;
pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// A probability in parts per million; more than a million counts as certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ppm(pub u32);

impl Ppm {
    /// Never.
    pub const ZERO: Self = Self(0);

    /// `percent` in a hundred.
    #[must_use]
    pub const fn percent(percent: u32) -> Self {
        Self(percent.saturating_mul(10_000))
    }

    fn happens(self, rng: &mut StdRng) -> bool {
        self.0 > 0 && rng.random_range(0..1_000_000) < self.0
    }
}

/// What goes wrong on a path. The default is nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    /// How often a frame is lost.
    pub loss: Ppm,
    /// For how long everything else is lost as well each time a frame is.
    pub loss_burst: Duration,
    /// How often a frame arrives twice.
    pub duplication: Ppm,
    /// How often a frame is held back so that later ones overtake it.
    pub reordering: Ppm,
    /// Longest time for which a reordered frame, or the second of a duplicated one, is held back.
    pub reordering_delay: Duration,
    /// How often one bit of a frame is flipped. Only what a checksum above the link protects is
    /// damaged; a frame damaged elsewhere is lost, as the link's check sequence would have it.
    pub corruption: Ppm,
    /// How often a frame, and all that come behind it, wait for `spike_delay`.
    pub spike: Ppm,
    /// How long a delay spike is.
    pub spike_delay: Duration,
    /// When the path is cut: what is sent in one of these windows is lost.
    pub partitions: Vec<Range<Instant>>,
}

/// What a path is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathConfig {
    /// Time from the last bit sent to the frame's arrival.
    pub latency: Duration,
    /// Bits a second, `None` for no limit.
    pub bandwidth_bits_per_s: Option<u64>,
    /// Most bytes in the queue in front of a path of limited bandwidth; what exceeds it is dropped.
    pub queue_bytes: usize,
    /// Most frames in that queue.
    pub queue_frames: usize,
    /// Bytes in that queue beyond which packets that ask for congestion marks get one (RFC 3168).
    pub mark_above_bytes: usize,
    /// What goes wrong.
    pub faults: Faults,
}

impl Default for PathConfig {
    /// 10 us, no limit, nothing goes wrong.
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(10),
            bandwidth_bits_per_s: None,
            queue_bytes: usize::MAX,
            queue_frames: usize::MAX,
            mark_above_bytes: usize::MAX,
            faults: Faults::default(),
        }
    }
}

/// What the queue in front of a path of limited bandwidth has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueCounters {
    /// Frames that went through it.
    pub frames: u64,
    /// How long they waited for others, in nanoseconds, all together.
    pub waited_ns: u64,
    /// Frames for which it had no room.
    pub dropped_frames: u64,
    /// Frames that were marked.
    pub marked_frames: u64,
}

impl QueueCounters {
    /// What was counted since it stood at `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            waited_ns: self.waited_ns - earlier.waited_ns,
            dropped_frames: self.dropped_frames - earlier.dropped_frames,
            marked_frames: self.marked_frames - earlier.marked_frames,
        }
    }
}

/// What a path's script does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Leave it to the path's configuration.
    Pass,
    /// Lose it.
    Drop,
    /// Deliver it twice.
    Duplicate,
    /// Hold it back for so long; others may overtake it.
    Delay(Duration),
    /// Flip this bit, counted from the frame's first.
    Corrupt(usize),
}

/// Decides frame by frame instead of by chance.
pub(crate) type Script = Box<dyn FnMut(Instant, &[u8]) -> Verdict>;

/// When a frame arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) time: Instant,
    /// When a second copy does.
    pub(crate) again: Option<Instant>,
    pub(crate) damaged: bool,
}

/// A frame at the entry of a path.
pub(crate) struct Entering<'a> {
    pub(crate) time: Instant,
    pub(crate) medium: Medium,
    pub(crate) bytes: &'a mut [u8],
    /// True when a checksum above the link covers the frame, so that damage is found.
    pub(crate) protected: bool,
}

pub(crate) struct Path {
    pub(crate) config: PathConfig,
    pub(crate) script: Option<Script>,
    rng: StdRng,
    /// When each frame in the queue has left it, and its bytes.
    queue: VecDeque<(Instant, usize)>,
    queued_bytes: usize,
    pub(crate) queue_counters: QueueCounters,
    last_arrival: Instant,
    burst_until: Instant,
}

impl Path {
    pub(crate) fn new(config: PathConfig, seed: u64) -> Self {
        Self {
            config,
            script: None,
            rng: StdRng::seed_from_u64(seed),
            queue: VecDeque::new(),
            queued_bytes: 0,
            queue_counters: QueueCounters::default(),
            last_arrival: Instant::ZERO,
            burst_until: Instant::ZERO,
        }
    }

    /// Decides what becomes of a frame that enters the path, and damages it if that is its fate.
    pub(crate) fn enter(&mut self, mut frame: Entering<'_>) -> Result<Arrival, Loss> {
        let verdict = match &mut self.script {
            Some(script) => script(frame.time, frame.bytes),
            None => Verdict::Pass,
        };
        if verdict == Verdict::Drop {
            return Err(Loss::Script);
        }
        self.lose(frame.time)?;
        let sent = self.serialise(frame.time, frame.bytes.len())?;
        if self.queued_bytes > self.config.mark_above_bytes && mark(frame.medium, frame.bytes) {
            self.queue_counters.marked_frames += 1;
        }
        let damaged = self.damage(verdict, &mut frame)?;

        let faults = &self.config.faults;
        let mut time = sent + self.config.latency;
        if faults.spike.happens(&mut self.rng) {
            time += faults.spike_delay;
        }
        time = time.max(self.last_arrival);
        let held_back = match verdict {
            Verdict::Delay(delay) => Some(duration_nanos(delay)),
            Verdict::Pass | Verdict::Drop | Verdict::Duplicate | Verdict::Corrupt(_) => {
                faults.reordering.happens(&mut self.rng).then(|| self.draw_delay_nanos())
            }
        };
        match held_back {
            Some(nanos) => time = time.plus_nanos(nanos),
            None => self.last_arrival = time,
        }
        let twice = verdict == Verdict::Duplicate || self.config.faults.duplication.happens(&mut self.rng);
        let again = twice.then(|| time.plus_nanos(self.draw_delay_nanos()));
        Ok(Arrival { time, again, damaged })
    }

    /// Ends all faults.
    pub(crate) fn heal(&mut self) {
        self.config.faults = Faults::default();
        self.script = None;
        self.burst_until = Instant::ZERO;
    }

    fn lose(&mut self, now: Instant) -> Result<(), Loss> {
        let faults = &self.config.faults;
        if faults.partitions.iter().any(|window| window.contains(&now)) {
            return Err(Loss::Partition);
        }
        if now < self.burst_until || faults.loss.happens(&mut self.rng) {
            if now >= self.burst_until {
                self.burst_until = now + faults.loss_burst;
            }
            return Err(Loss::Random);
        }
        Ok(())
    }

    /// Queues the frame; returns when its last bit has left the queue.
    fn serialise(&mut self, now: Instant, bytes: usize) -> Result<Instant, Loss> {
        let Some(bits_per_s) = self.config.bandwidth_bits_per_s else { return Ok(now) };
        while let Some(&(left, bytes)) = self.queue.front()
            && left <= now
        {
            self.queued_bytes -= bytes;
            self.queue.pop_front();
        }
        if self.queue.len() >= self.config.queue_frames
            || self.queued_bytes.saturating_add(bytes) > self.config.queue_bytes
        {
            self.queue_counters.dropped_frames += 1;
            return Err(Loss::QueueFull);
        }
        let start = self.queue.back().map_or(now, |&(left, _)| left);
        self.queue_counters.frames += 1;
        self.queue_counters.waited_ns += start.nanos_since(now);
        let sent = start.plus_nanos(serialisation_nanos(bytes, bits_per_s));
        self.queue.push_back((sent, bytes));
        self.queued_bytes += bytes;
        Ok(sent)
    }

    fn damage(&mut self, verdict: Verdict, frame: &mut Entering<'_>) -> Result<bool, Loss> {
        let bit = match verdict {
            Verdict::Corrupt(bit) => bit,
            Verdict::Pass | Verdict::Drop | Verdict::Duplicate | Verdict::Delay(_) => {
                if !self.config.faults.corruption.happens(&mut self.rng) {
                    return Ok(false);
                }
                let start = protected_from(frame).ok_or(Loss::FrameCheck)?;
                self.rng.random_range(start * 8..frame.bytes.len() * 8)
            }
        };
        if let Some(byte) = frame.bytes.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        Ok(true)
    }

    fn draw_delay_nanos(&mut self) -> u64 {
        let most = duration_nanos(self.config.faults.reordering_delay);
        self.rng.random_range(0..=most)
    }
}

/// The first byte that a checksum above the link protects, if there is one.
fn protected_from(frame: &Entering<'_>) -> Option<usize> {
    let start = match frame.medium {
        Medium::Ip => 0,
        Medium::Ethernet => {
            let ethertype = frame.bytes.get(12..ETHERNET_HEADER_BYTES)?;
            (ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6).then_some(ETHERNET_HEADER_BYTES)?
        }
    };
    (frame.protected && start < frame.bytes.len()).then_some(start)
}

/// Time that `bytes` take at `bits_per_s`, rounded up; for ever when that is zero.
pub(crate) fn serialisation_nanos(bytes: usize, bits_per_s: u64) -> u64 {
    let bit_nanos = bytes as u128 * 8 * 1_000_000_000;
    match bits_per_s {
        0 => u64::MAX,
        bits_per_s => u64::try_from(bit_nanos.div_ceil(u128::from(bits_per_s))).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 4_000;

    fn frame() -> Vec<u8> {
        let mut bytes = vec![0; 100];
        bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        bytes
    }

    /// Sends frames a microsecond apart and returns what became of each.
    fn run(config: &PathConfig, seed: u64, frames: usize) -> Vec<Result<Arrival, Loss>> {
        let mut path = Path::new(config.clone(), seed);
        let enter = |path: &mut Path, index: usize| {
            let time = Instant::from_micros(index as u64);
            path.enter(Entering { time, medium: Medium::Ethernet, bytes: &mut frame(), protected: true })
        };
        (0..frames).map(|index| enter(&mut path, index)).collect()
    }

    fn with(faults: Faults) -> PathConfig {
        PathConfig { faults, ..PathConfig::default() }
    }

    #[test]
    fn each_fault_happens_about_as_often_as_configured_and_only_that_one() {
        let ppm = Ppm::percent(10);
        let delay = Duration::from_micros(50);
        let cases = [
            ("none", Faults::default()),
            ("loss", Faults { loss: ppm, ..Faults::default() }),
            ("duplication", Faults { duplication: ppm, ..Faults::default() }),
            ("reordering", Faults { reordering: ppm, reordering_delay: delay, ..Faults::default() }),
            ("corruption", Faults { corruption: ppm, ..Faults::default() }),
        ];
        for (name, faults) in cases {
            let fates = run(&with(faults), 7, FRAMES);
            let arrivals: Vec<_> = fates.iter().flatten().copied().collect();
            let overtaken = arrivals.windows(2).filter(|pair| pair[1].time < pair[0].time).count();
            let counts = [
                ("loss", fates.len() - arrivals.len()),
                ("duplication", arrivals.iter().filter(|arrival| arrival.again.is_some()).count()),
                ("reordering", overtaken),
                ("corruption", arrivals.iter().filter(|arrival| arrival.damaged).count()),
            ];
            for (fault, count) in counts {
                let expected = if fault == name { 300..500 } else { 0..1 };
                assert!(expected.contains(&count), "{name}: {fault} happened {count} times");
            }
        }
    }

    #[test]
    fn what_happens_is_a_function_of_the_seed() {
        let everything = Faults {
            loss: Ppm::percent(5),
            loss_burst: Duration::from_micros(2),
            duplication: Ppm::percent(5),
            reordering: Ppm::percent(5),
            reordering_delay: Duration::from_millis(1),
            corruption: Ppm::percent(5),
            spike: Ppm::percent(1),
            spike_delay: Duration::from_millis(5),
            partitions: Vec::new(),
        };
        let first = run(&with(everything.clone()), 1, FRAMES);
        assert_eq!(first, run(&with(everything.clone()), 1, FRAMES));
        assert_ne!(first, run(&with(everything), 2, FRAMES));
    }

    #[test]
    fn bandwidth_spaces_frames_and_a_full_queue_drops_the_tail() {
        let config = PathConfig {
            latency: Duration::ZERO,
            bandwidth_bits_per_s: Some(8_000_000),
            queue_bytes: 350,
            ..PathConfig::default()
        };
        let fates = run(&config, 0, 6);
        let arrives =
            |micros| Ok(Arrival { time: Instant::from_micros(micros), again: None, damaged: false });
        assert_eq!(fates[..3], [arrives(100), arrives(200), arrives(300)]);
        assert_eq!(fates[3..], [Err(Loss::QueueFull); 3]);
    }

    #[test]
    fn a_partition_cuts_what_is_sent_in_its_window() {
        let window = Instant::from_micros(2)..Instant::from_micros(4);
        let fates = run(&with(Faults { partitions: vec![window], ..Faults::default() }), 0, 5);
        let lost: Vec<_> = fates.iter().map(Result::is_err).collect();
        assert_eq!(lost, [false, false, true, true, false]);
    }

    #[test]
    fn a_burst_loses_everything_for_its_time_and_no_longer() {
        let faults =
            Faults { loss: Ppm::percent(1), loss_burst: Duration::from_micros(10), ..Faults::default() };
        let fates = run(&with(faults), 5, FRAMES);
        let lost: Vec<bool> = fates.iter().map(Result::is_err).collect();
        let runs: Vec<usize> = lost.split(|lost| !lost).map(<[bool]>::len).filter(|&len| len > 0).collect();
        assert!(runs.len() > 10 && runs.iter().all(|len| len % 10 == 0), "{runs:?}");
        let mut path = Path::new(with(Faults { loss: Ppm::percent(100), ..Faults::default() }), 0);
        path.config.faults.loss_burst = Duration::from_secs(1);
        let enter = |path: &mut Path| {
            let bytes = &mut frame();
            path.enter(Entering { time: Instant::ZERO, medium: Medium::Ethernet, bytes, protected: true })
        };
        assert_eq!(enter(&mut path), Err(Loss::Random));
        path.heal();
        assert!(enter(&mut path).is_ok());
    }

    #[test]
    fn a_delay_spike_holds_up_everything_behind_it_in_order() {
        let faults =
            Faults { spike: Ppm::percent(1), spike_delay: Duration::from_millis(1), ..Faults::default() };
        let fates = run(&with(faults), 3, FRAMES);
        let times: Vec<_> = fates.iter().flatten().map(|arrival| arrival.time).collect();
        assert!(times.is_sorted());
        assert!(times.windows(2).filter(|pair| pair[0] == pair[1]).count() > 100);
    }

    #[test]
    fn a_damaged_frame_that_no_checksum_protects_is_lost() {
        let config = with(Faults { corruption: Ppm::percent(100), ..Faults::default() });
        let mut path = Path::new(config, 0);
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        for (bytes, protected) in [(&mut arp, true), (&mut frame(), false)] {
            let entering = Entering { time: Instant::ZERO, medium: Medium::Ethernet, bytes, protected };
            assert_eq!(path.enter(entering), Err(Loss::FrameCheck));
        }
    }
}
