//! What a queue has counted since it was opened.

use libos::metrics::MetricsSink;

libos::counters! {
    /// Plain counters of one queue: they only rise.
    pub struct PacketCounters {
        /// Frames received.
        rx_frames,
        /// Bytes of them, all of which are copied out of the ring.
        rx_bytes,
        /// Those of them that were several segments joined.
        rx_joined_frames,
        /// Frames dropped because they were longer than the MTU allows, or than a block of the ring.
        rx_too_long,
        /// Frames dropped because they were datagrams joined, which nobody asked for.
        rx_joined_datagrams,
        /// Times that no memory was free to receive into; the frames stayed in the ring.
        rx_no_buffers,
        /// Frames that the kernel dropped because the ring was full.
        rx_ring_full,
        /// Frames sent.
        tx_frames,
        /// Bytes of them, all of which the kernel copies.
        tx_bytes,
        /// Those of them that the device was asked to cut into segments.
        tx_segmented_frames,
        /// System calls that sent them.
        tx_calls,
        /// Times that the kernel had no room; the frame is tried again.
        tx_would_block,
        /// Frames dropped because the kernel refused them.
        tx_refused,
        /// Frames dropped because the interface was down.
        tx_link_down,
    }
}

impl PacketCounters {
    /// Writes the counters, and that all is copied.
    pub(super) fn write_all(&self, sink: &mut dyn MetricsSink) {
        self.write(sink);
        sink.counter("rx_copied_frames", self.rx_frames);
        sink.counter("rx_copied_bytes", self.rx_bytes);
        sink.counter("tx_copied_frames", self.tx_frames);
        sink.counter("tx_copied_bytes", self.tx_bytes);
    }
}
