//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

libos::counters! {
    /// Plain counters of one queue: they only rise.
    pub struct XdpCounters {
        /// Frames received.
        rx_frames,
        /// Bytes of them.
        rx_bytes,
        /// Those of them that came in several buffers.
        rx_multi_buffer_frames,
        /// Times that no memory was free to receive into.
        rx_no_buffers,
        /// Pieces of frames that the kernel put where it was not asked to; never yet.
        rx_unknown_buffers,
        /// Frames sent.
        tx_frames,
        /// Bytes of them.
        tx_bytes,
        /// Those of them that the runtime itself copied, because they lay outside the registered memory, in more pieces
        /// than the device takes, or in several where the kernel copies all the same.
        tx_gathered_frames,
        /// Bytes of those.
        tx_gathered_bytes,
        /// System calls that had the kernel look at the transmit ring.
        tx_kicks,
        /// Times that the transmit ring had no room; the frame is tried again.
        tx_ring_full,
        /// Frames dropped because they were longer than the device takes.
        tx_refused,
    }
}

impl XdpCounters {
    /// Writes the counters; with `zero_copy`, what the kernel copies does not count as copied.
    pub(super) fn write_all(&self, zero_copy: bool, sink: &mut dyn MetricsSink) {
        self.write(sink);
        let copied = |all, copied| if zero_copy { copied } else { all };
        sink.counter("rx_copied_frames", copied(self.rx_frames, 0));
        sink.counter("rx_copied_bytes", copied(self.rx_bytes, 0));
        sink.counter("tx_copied_frames", copied(self.tx_frames, self.tx_gathered_frames));
        sink.counter("tx_copied_bytes", copied(self.tx_bytes, self.tx_gathered_bytes));
    }
}
