//! Counters and gauges: plain integers that their owner adds to, read through one snapshot.

use std::collections::HashMap;
use std::fmt;

/// Takes the counters of whoever is asked for them.
pub trait MetricsSink {
    /// A number that only rises.
    fn counter(&mut self, name: &str, value: u64);
    /// A number that rises and falls.
    fn gauge(&mut self, name: &str, value: u64);
    /// Puts what follows under `name`, until [`Self::leave`].
    fn enter(&mut self, name: &str);
    /// Ends the innermost group.
    fn leave(&mut self);
}

/// Declares a struct of plain counters that only rise, each written to a [`MetricsSink`] under its field's name.
///
/// ```
/// libos::counters! {
///     /// What a queue has counted.
///     pub struct QueueCounters {
///         /// Frames received.
///         rx_frames,
///     }
/// }
///
/// assert_eq!(QueueCounters::default().rx_frames, 0);
/// ```
#[macro_export]
macro_rules! counters {
    ($(#[$about:meta])* $visible:vis struct $name:ident { $($(#[$counted:meta])* $counter:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        $visible struct $name {
            $($(#[$counted])* pub $counter: u64,)*
        }

        impl $name {
            /// Writes each counter under its name.
            $visible fn write(&self, sink: &mut dyn $crate::metrics::MetricsSink) {
                $(sink.counter(stringify!($counter), self.$counter);)*
            }
        }
    };
}

/// A metric's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A number that only rises.
    Counter(u64),
    /// A number that rises and falls.
    Gauge(u64),
}

impl Metric {
    /// The number.
    #[must_use]
    pub const fn value(self) -> u64 {
        match self {
            Self::Counter(value) | Self::Gauge(value) => value,
        }
    }
}

/// All metrics at one moment, in the order in which their owners wrote them. Names are dotted
/// paths, such as `libos.polls`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    metrics: Vec<(String, Metric)>,
}

impl Snapshot {
    /// The metric with this name. O(metrics).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Metric> {
        self.iter().find(|(other, _)| *other == name).map(|(_, metric)| metric)
    }

    /// The number of the metric with this name, 0 when there is none.
    #[must_use]
    pub fn value(&self, name: &str) -> u64 {
        self.get(name).map_or(0, Metric::value)
    }

    /// Names and metrics in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Metric)> {
        self.metrics.iter().map(|(name, metric)| (name.as_str(), *metric))
    }

    /// What happened since `earlier`: counters less what they were, gauges as they are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before: HashMap<&str, Metric> = earlier.iter().collect();
        let metrics = self.iter().map(|(name, metric)| {
            let metric = match (metric, before.get(name)) {
                (Metric::Counter(now), Some(Metric::Counter(then))) => {
                    Metric::Counter(now.saturating_sub(*then))
                }
                (metric, _) => metric,
            };
            (name.to_owned(), metric)
        });
        Self { metrics: metrics.collect() }
    }
}

impl fmt::Display for Snapshot {
    /// One line a metric: the name, a space, the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|(name, metric)| writeln!(f, "{name} {}", metric.value()))
    }
}

/// Writes a [`Snapshot`].
#[derive(Debug, Default)]
pub struct SnapshotWriter {
    snapshot: Snapshot,
    /// The path of the open groups, each followed by a dot.
    prefix: String,
    /// Bytes of the path in front of each open group.
    groups: Vec<usize>,
}

impl SnapshotWriter {
    /// An empty snapshot to be written.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Snapshot {
        self.snapshot
    }

    fn write(&mut self, name: &str, metric: Metric) {
        self.snapshot.metrics.push((format!("{}{name}", self.prefix), metric));
    }
}

impl MetricsSink for SnapshotWriter {
    fn counter(&mut self, name: &str, value: u64) {
        self.write(name, Metric::Counter(value));
    }

    fn gauge(&mut self, name: &str, value: u64) {
        self.write(name, Metric::Gauge(value));
    }

    fn enter(&mut self, name: &str) {
        self.groups.push(self.prefix.len());
        self.prefix.push_str(name);
        self.prefix.push('.');
    }

    fn leave(&mut self) {
        self.prefix.truncate(self.groups.pop().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(polls: u64, open: u64) -> Snapshot {
        let mut writer = SnapshotWriter::new();
        writer.enter("libos");
        writer.counter("polls", polls);
        writer.enter("queues");
        writer.gauge("open", open);
        writer.leave();
        writer.counter("sleeps", 1);
        writer.leave();
        writer.gauge("top", 7);
        writer.finish()
    }

    #[test]
    fn names_carry_the_groups_they_were_written_in() {
        let text = snapshot(3, 4).to_string();
        assert_eq!(text, "libos.polls 3\nlibos.queues.open 4\nlibos.sleeps 1\ntop 7\n");
    }

    #[test]
    fn a_difference_subtracts_counters_and_keeps_gauges() {
        let difference = snapshot(10, 2).since(&snapshot(4, 9));
        assert_eq!(difference.get("libos.polls"), Some(Metric::Counter(6)));
        assert_eq!(difference.get("libos.queues.open"), Some(Metric::Gauge(2)));
        assert_eq!(difference.get("no.such"), None);
        assert_eq!(difference.value("no.such"), 0);
    }
}
