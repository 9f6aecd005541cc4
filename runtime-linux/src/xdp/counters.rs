//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

/// Plain counters of one queue: they only rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct XdpCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Those of them that came in several buffers.
    pub rx_multi_buffer_frames: u64,
    /// Times that no memory was free to receive into.
    pub rx_no_buffers: u64,
    /// Pieces of frames that the kernel put where it was not asked to; never yet.
    pub rx_unknown_buffers: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Those of them that the runtime itself copied, because they lay outside the registered memory, in more pieces
    /// than the device takes, or in several where the kernel copies all the same.
    pub tx_gathered_frames: u64,
    /// Bytes of those.
    pub tx_gathered_bytes: u64,
    /// System calls that had the kernel look at the transmit ring.
    pub tx_kicks: u64,
    /// Times that the transmit ring had no room; the frame is tried again.
    pub tx_ring_full: u64,
    /// Frames dropped because they were longer than the device takes.
    pub tx_refused: u64,
}

impl XdpCounters {
    /// Writes the counters; with `zero_copy`, what the kernel copies does not count as copied.
    pub(super) fn write(&self, zero_copy: bool, sink: &mut dyn MetricsSink) {
        let Self {
            rx_frames,
            rx_bytes,
            rx_multi_buffer_frames,
            rx_no_buffers,
            rx_unknown_buffers,
            tx_frames,
            tx_bytes,
            tx_gathered_frames,
            tx_gathered_bytes,
            tx_kicks,
            tx_ring_full,
            tx_refused,
        } = *self;
        let copied = |all, copied| if zero_copy { copied } else { all };
        for (name, value) in [
            ("rx_frames", rx_frames),
            ("rx_bytes", rx_bytes),
            ("rx_copied_frames", copied(rx_frames, 0)),
            ("rx_copied_bytes", copied(rx_bytes, 0)),
            ("rx_multi_buffer_frames", rx_multi_buffer_frames),
            ("rx_no_buffers", rx_no_buffers),
            ("rx_unknown_buffers", rx_unknown_buffers),
            ("tx_frames", tx_frames),
            ("tx_bytes", tx_bytes),
            ("tx_copied_frames", copied(tx_frames, tx_gathered_frames)),
            ("tx_copied_bytes", copied(tx_bytes, tx_gathered_bytes)),
            ("tx_gathered_frames", tx_gathered_frames),
            ("tx_gathered_bytes", tx_gathered_bytes),
            ("tx_kicks", tx_kicks),
            ("tx_ring_full", tx_ring_full),
            ("tx_refused", tx_refused),
        ] {
            sink.counter(name, value);
        }
    }
}
