//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

/// Plain counters of one queue: they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TapCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Those of them that were several segments joined.
    pub rx_joined_frames: u64,
    /// Frames dropped because the kernel's end sent more than the MTU allows.
    pub rx_too_long: u64,
    /// Times that no memory was free to receive into; the frames stayed in the device's queue.
    pub rx_no_buffers: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Those of them that the kernel was asked to cut into segments.
    pub tx_segmented_frames: u64,
    /// Times that the kernel had no room; the frame is tried again.
    pub tx_would_block: u64,
    /// Frames dropped because the kernel refused them.
    pub tx_refused: u64,
    /// Frames dropped because the kernel's end of the link was down.
    pub tx_link_down: u64,
}

impl TapCounters {
    pub(super) fn write(&self, sink: &mut dyn MetricsSink) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_joined_frames,
            rx_too_long,
            rx_no_buffers,
            tx_frames,
            tx_bytes,
            tx_segmented_frames,
            tx_would_block,
            tx_refused,
            tx_link_down,
        } = *self;
        for (name, value) in [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_joined_frames", rx_joined_frames),
            ("rx_too_long", rx_too_long),
            ("rx_no_buffers", rx_no_buffers),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_segmented_frames", tx_segmented_frames),
            ("tx_would_block", tx_would_block),
            ("tx_refused", tx_refused),
            ("tx_link_down", tx_link_down),
            // The kernel copies each frame inside readv and writev; nothing is copied on this side of them.
            ("rx_copied_frames", 0),
            ("rx_copied_bytes", 0),
            ("tx_copied_frames", 0),
            ("tx_copied_bytes", 0),
        ] {
            sink.counter(name, value);
        }
    }
}
