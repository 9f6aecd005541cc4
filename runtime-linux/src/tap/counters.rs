//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

libos::counters! {
    /// Plain counters of one queue: they only rise.
    pub struct TapCounters {
        /// Frames received.
        rx_frames,
        /// Bytes of them.
        rx_bytes,
        /// Those of them that were several segments joined.
        rx_joined_frames,
        /// Frames dropped because the kernel's end sent more than the MTU allows.
        rx_too_long,
        /// Times that no memory was free to receive into; the frames stayed in the device's queue.
        rx_no_buffers,
        /// Frames sent.
        tx_frames,
        /// Bytes of them.
        tx_bytes,
        /// Those of them that the kernel was asked to cut into segments.
        tx_segmented_frames,
        /// Times that the kernel had no room; the frame is tried again.
        tx_would_block,
        /// Frames dropped because the kernel refused them.
        tx_refused,
        /// Frames dropped because the kernel's end of the link was down.
        tx_link_down,
    }
}

impl TapCounters {
    /// Writes the counters, and that the kernel copies everything, inside `readv` and `writev`.
    pub(super) fn write_all(&self, sink: &mut dyn MetricsSink) {
        self.write(sink);
        sink.counter("rx_copied_frames", self.rx_frames);
        sink.counter("rx_copied_bytes", self.rx_bytes);
        sink.counter("tx_copied_frames", self.tx_frames);
        sink.counter("tx_copied_bytes", self.tx_bytes);
    }
}
