//! What a core counts of its share of a device.

libos::counters! {
    /// What a core counts of its share of a device.
    pub struct SteeringCounters {
        /// Frames handed to the core that their flow belongs to.
        handed_over,
        /// Frames of this core's flows that other cores received.
        taken_over,
        /// Copies of frames that every core gets, sent to other cores.
        copies_out,
        /// Such copies from other cores.
        copies_in,
        /// Frames passed on to a core that may have their connection or socket.
        passed_on,
        /// Frames for other cores that were dropped: their ring was full, as they did not poll, or they are gone.
        dropped_ring_full,
        /// Frames from other cores that were dropped for lack of memory.
        dropped_no_memory,
        /// Other cores' frames that were dropped because the device did not take them in time.
        dropped_device_full,
        /// Frames sent through another core's device queue.
        sent_through,
        /// Other cores' frames sent through this core's device queue.
        sent_for,
    }
}
