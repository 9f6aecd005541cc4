//! The tables `[libos]` and `[memory]` of the configuration.

use std::time::Duration;

use crate::memory::ArenaConfig;
use crate::queues::MAX_OPERATIONS;
use crate::time::duration_nanos;
use crate::{Config, SetupError};

/// What a wait does while there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdlePolicy {
    /// Polls on and on.
    Spin,
    /// Polls for so many nanoseconds, then sleeps until a device or a deadline wakes it.
    SleepAfter(u64),
}

/// The table `[libos]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) idle: IdlePolicy,
    pub(super) max_descriptors: usize,
    pub(super) max_operations: usize,
    /// `None` when late polls are not counted.
    pub(super) late_poll: Option<Duration>,
}

impl Options {
    pub(super) fn from_config(config: &Config) -> Result<Self, SetupError> {
        let mut section = config.section("libos");
        let spin = section.duration_us("idle_spin_us", 0..=1_000_000, 50)?;
        let idle = match section.choice("idle", &["spin", "adaptive", "sleep"], "adaptive")? {
            "spin" => IdlePolicy::Spin,
            "sleep" => IdlePolicy::SleepAfter(0),
            _ => IdlePolicy::SleepAfter(duration_nanos(spin)),
        };
        let max_descriptors = section.usize("max_descriptors", 1..=1 << 24, 1 << 18)?;
        let max_operations = section.usize("max_operations", 1..=MAX_OPERATIONS, 1 << 20)?;
        let late_poll = section.duration_ms("late_poll_ms", 0..=3_600_000, 100)?;
        section.finish()?;
        let late_poll = (!late_poll.is_zero()).then_some(late_poll);
        Ok(Self { idle, max_descriptors, max_operations, late_poll })
    }
}

impl ArenaConfig {
    /// Reads the table `[memory]`.
    ///
    /// # Errors
    /// [`SetupError::Config`] for the first value that is wrong and for a key that is not known.
    pub fn from_config(config: &Config) -> Result<Self, SetupError> {
        let default = Self::default();
        let mut section = config.section("memory");
        let region_mib = section.usize("region_mib", 1..=1 << 20, default.region_bytes >> 20)?;
        let hugepages = section.bool("hugepages", default.hugepages)?;
        section.finish()?;
        Ok(Self { region_bytes: region_mib << 20, hugepages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryQueues;

    const EXAMPLE: &str = include_str!("../../../docs/catnip.toml");

    #[test]
    fn the_documented_file_says_the_defaults() {
        let example = Config::from_toml_str("catnip.toml", EXAMPLE).unwrap();
        let default = Config::new();
        assert_eq!(Options::from_config(&example), Options::from_config(&default));
        assert_eq!(ArenaConfig::from_config(&example), ArenaConfig::from_config(&default));
        assert_eq!(
            MemoryQueues::from_config(&example).map(|queues| queues.limit()),
            MemoryQueues::from_config(&default).map(|queues| queues.limit()),
        );
    }

    #[test]
    fn the_documented_file_names_every_key() {
        let lines: Vec<&str> = EXAMPLE.lines().filter_map(|line| line.split(" = ").next()).collect();
        // An unknown key's error lists all that are known.
        let unknown = Config::new().set("libos.x", 1).set("memory.x", 1).set("memory_queue.x", 1);
        let errors = [
            Options::from_config(&unknown).unwrap_err(),
            ArenaConfig::from_config(&unknown).unwrap_err(),
            MemoryQueues::from_config(&unknown).unwrap_err(),
        ];
        for error in errors {
            let SetupError::Config { allowed, .. } = error else { panic!("{error}") };
            for key in allowed.strip_prefix("the keys ").unwrap().split(", ") {
                assert!(lines.contains(&key), "{key} is not in docs/catnip.toml");
            }
        }
    }

    #[test]
    fn idle_policies_are_read() {
        let cases = [
            ("spin", IdlePolicy::Spin),
            ("adaptive", IdlePolicy::SleepAfter(7_000)),
            ("sleep", IdlePolicy::SleepAfter(0)),
        ];
        for (idle, policy) in cases {
            let config = Config::new().set("libos.idle", idle).set("libos.idle_spin_us", 7);
            assert_eq!(Options::from_config(&config).unwrap().idle, policy);
        }
    }
}
