//! Counters and gauges: plain integers that their owner adds to, read through one snapshot.

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
