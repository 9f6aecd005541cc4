//! What a queue has counted since it was made.

use libos::metrics::MetricsSink;

/// Plain counters of one queue: they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DpdkCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Those of them that were several segments joined.
    pub rx_joined_frames: u64,
    /// Those of them that were copied into the library OS's memory.
    pub rx_copied_frames: u64,
    /// Bytes of them.
    pub rx_copied_bytes: u64,
    /// Frames dropped because the arena had no memory left.
    pub rx_no_buffers: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Those of them that the device was asked to cut into segments.
    pub tx_segmented_frames: u64,
    /// Those of them of which bytes were copied into the device's memory.
    pub tx_copied_frames: u64,
    /// Bytes copied.
    pub tx_copied_bytes: u64,
    /// Times that the device had no room for a frame; it is tried again.
    pub tx_would_block: u64,
    /// Frames dropped because the device cannot send such.
    pub tx_refused: u64,
}

impl DpdkCounters {
    pub(crate) fn write(&self, sink: &mut dyn MetricsSink) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_joined_frames,
            rx_copied_frames,
            rx_copied_bytes,
            rx_no_buffers,
            tx_frames,
            tx_bytes,
            tx_segmented_frames,
            tx_copied_frames,
            tx_copied_bytes,
            tx_would_block,
            tx_refused,
        } = *self;
        for (name, value) in [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_joined_frames", rx_joined_frames),
            ("rx_copied_frames", rx_copied_frames),
            ("rx_copied_bytes", rx_copied_bytes),
            ("rx_no_buffers", rx_no_buffers),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_segmented_frames", tx_segmented_frames),
            ("tx_copied_frames", tx_copied_frames),
            ("tx_copied_bytes", tx_copied_bytes),
            ("tx_would_block", tx_would_block),
            ("tx_refused", tx_refused),
        ] {
            sink.counter(name, value);
        }
    }
}
