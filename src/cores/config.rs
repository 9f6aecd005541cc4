//! The configuration's table `[cores]`.

use catnip::steering::{HashKey, MAX_CORES};
use libos::{Config, SetupError, affinity};

/// Most frames in a ring between two cores.
const MAX_RING_FRAMES: usize = 1 << 16;
/// The largest number of a processor that Linux knows.
const MAX_CPU: usize = 1023;

/// What `[cores]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoresConfig {
    /// How many cores.
    pub count: usize,
    /// Bind each core's thread to a processor.
    pub pin: bool,
    /// The processors by number, one for each core in turn: those that were named, else all that are allowed.
    pub cpus: Vec<usize>,
    /// The first of those that were named.
    first_named_cpu: Option<usize>,
    /// Frames in a ring from one core to another.
    pub ring_frames: usize,
    /// The key of the hash that spreads flows.
    pub hash_key: HashKey,
}

impl CoresConfig {
    pub const TABLE: &str = "cores";

    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let mut section = config.section(Self::TABLE);
        let count = section.usize("count", 0..=MAX_CORES, 1)?;
        let pin = section.bool("pin", true)?;
        let mut cpus = section.integers("cpus", 0..=MAX_CPU)?;
        let hash_key = section.parsed("hash_key", HashKey::RULE)?.unwrap_or(HashKey::SYMMETRIC);
        let ring_frames = section.usize("ring_frames", 1..=MAX_RING_FRAMES, 256)?;
        let first_named_cpu = cpus.first().copied();
        if cpus.is_empty() {
            cpus = affinity::allowed_cpus();
        }
        let count = if count == 0 { cpus.len().clamp(1, MAX_CORES) } else { count };
        section.finish()?;
        Ok(Self { count, pin, cpus, first_named_cpu, ring_frames, hash_key })
    }

    /// The processor of a core; more cores than processors share them.
    pub fn cpu_of(&self, core: usize) -> Option<usize> {
        if !self.pin {
            return None;
        }
        self.cpus.get(core.checked_rem(self.cpus.len())?).copied()
    }

    /// The processor of a thread that opens one library OS for itself. It stays where the system puts it unless the
    /// processor was named: other threads of the program may be about to begin on it.
    pub fn cpu_of_lone_thread(&self) -> Option<usize> {
        self.first_named_cpu.filter(|_| self.pin)
    }
}
