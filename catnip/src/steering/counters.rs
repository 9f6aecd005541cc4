//! What a core counts of its share of a device.

use libos::metrics::MetricsSink;

/// What a core counts of its share of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SteeringCounters {
    /// Frames handed to the core that their flow belongs to.
    pub handed_over: u64,
    /// Frames of this core's flows that other cores received.
    pub taken_over: u64,
    /// Copies of frames that every core gets, sent to other cores.
    pub copies_out: u64,
    /// Such copies from other cores.
    pub copies_in: u64,
    /// Frames passed on to a core that may have their connection or socket.
    pub passed_on: u64,
    /// Frames for other cores that were dropped: their ring was full, as they did not poll, or they are gone.
    pub dropped_ring_full: u64,
    /// Frames from other cores that were dropped for lack of memory.
    pub dropped_no_memory: u64,
    /// Other cores' frames that were dropped because the device did not take them in time.
    pub dropped_device_full: u64,
    /// Frames sent through another core's device queue.
    pub sent_through: u64,
    /// Other cores' frames sent through this core's device queue.
    pub sent_for: u64,
}

impl SteeringCounters {
    pub(super) fn write(&self, sink: &mut dyn MetricsSink) {
        let Self {
            handed_over,
            taken_over,
            copies_out,
            copies_in,
            passed_on,
            dropped_ring_full,
            dropped_no_memory,
            dropped_device_full,
            sent_through,
            sent_for,
        } = *self;
        for (name, value) in [
            ("handed_over", handed_over),
            ("taken_over", taken_over),
            ("copies_out", copies_out),
            ("copies_in", copies_in),
            ("passed_on", passed_on),
            ("dropped_ring_full", dropped_ring_full),
            ("dropped_no_memory", dropped_no_memory),
            ("dropped_device_full", dropped_device_full),
            ("sent_through", sent_through),
            ("sent_for", sent_for),
        ] {
            sink.counter(name, value);
        }
    }
}
