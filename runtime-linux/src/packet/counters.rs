//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

/// Plain counters of one queue: they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PacketCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of them, all of which are copied out of the ring.
    pub rx_bytes: u64,
    /// Those of them that were several segments joined.
    pub rx_joined_frames: u64,
    /// Frames dropped because they were longer than the MTU allows, or than a block of the ring.
    pub rx_too_long: u64,
    /// Frames dropped because they were datagrams joined, which nobody asked for.
    pub rx_joined_datagrams: u64,
    /// Times that no memory was free to receive into; the frames stayed in the ring.
    pub rx_no_buffers: u64,
    /// Frames that the kernel dropped because the ring was full.
    pub rx_ring_full: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of them, all of which the kernel copies.
    pub tx_bytes: u64,
    /// Those of them that the device was asked to cut into segments.
    pub tx_segmented_frames: u64,
    /// System calls that sent them.
    pub tx_calls: u64,
    /// Times that the kernel had no room; the frame is tried again.
    pub tx_would_block: u64,
    /// Frames dropped because the kernel refused them.
    pub tx_refused: u64,
    /// Frames dropped because the interface was down.
    pub tx_link_down: u64,
}

impl PacketCounters {
    pub(super) fn write(&self, sink: &mut dyn MetricsSink) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_joined_frames,
            rx_too_long,
            rx_joined_datagrams,
            rx_no_buffers,
            rx_ring_full,
            tx_frames,
            tx_bytes,
            tx_segmented_frames,
            tx_calls,
            tx_would_block,
            tx_refused,
            tx_link_down,
        } = *self;
        for (name, value) in [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_copied_frames", rx_frames),
            ("rx_copied_bytes", rx_bytes),
            ("rx_joined_frames", rx_joined_frames),
            ("rx_too_long", rx_too_long),
            ("rx_joined_datagrams", rx_joined_datagrams),
            ("rx_no_buffers", rx_no_buffers),
            ("rx_ring_full", rx_ring_full),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_copied_frames", tx_frames),
            ("tx_copied_bytes", tx_bytes),
            ("tx_segmented_frames", tx_segmented_frames),
            ("tx_calls", tx_calls),
            ("tx_would_block", tx_would_block),
            ("tx_refused", tx_refused),
            ("tx_link_down", tx_link_down),
        ] {
            sink.counter(name, value);
        }
    }
}
