//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

/// Plain counters of one queue pair: they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VhostCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Those of them that were several segments joined.
    pub rx_joined_frames: u64,
    /// Those of them that were copied: all at the back end, none at the front end.
    pub rx_copied_frames: u64,
    /// Bytes of these.
    pub rx_copied_bytes: u64,
    /// Frames dropped because they lay outside the shared memory, were too short or too long, or their header said
    /// something that was not agreed on.
    pub rx_malformed: u64,
    /// Times that no memory was free to receive into; the frames wait in the ring.
    pub rx_no_buffers: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Those of them that the other end takes for several segments.
    pub tx_segmented_frames: u64,
    /// Those of them that were copied: all at the back end; at the front end those with bytes outside its memory.
    pub tx_copied_frames: u64,
    /// Bytes of these that were copied.
    pub tx_copied_bytes: u64,
    /// Times that the ring had no room; the frame is tried again.
    pub tx_would_block: u64,
    /// Frames dropped: more segments than the ring takes, no memory for a copy, or, at the back end, a front end whose
    /// buffers lie outside the shared memory.
    pub tx_refused: u64,
    /// Times that the other end was told of what was done because it asked for that.
    pub notifications: u64,
}

impl VhostCounters {
    pub(crate) fn write(&self, sink: &mut dyn MetricsSink) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_joined_frames,
            rx_copied_frames,
            rx_copied_bytes,
            rx_malformed,
            rx_no_buffers,
            tx_frames,
            tx_bytes,
            tx_segmented_frames,
            tx_copied_frames,
            tx_copied_bytes,
            tx_would_block,
            tx_refused,
            notifications,
        } = *self;
        for (name, value) in [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_joined_frames", rx_joined_frames),
            ("rx_copied_frames", rx_copied_frames),
            ("rx_copied_bytes", rx_copied_bytes),
            ("rx_malformed", rx_malformed),
            ("rx_no_buffers", rx_no_buffers),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_segmented_frames", tx_segmented_frames),
            ("tx_copied_frames", tx_copied_frames),
            ("tx_copied_bytes", tx_copied_bytes),
            ("tx_would_block", tx_would_block),
            ("tx_refused", tx_refused),
            ("notifications", notifications),
        ] {
            sink.counter(name, value);
        }
    }
}
