//! What a queue has counted since it was made.

libos::counters! {
    /// Plain counters of one queue: they only rise.
    pub struct DpdkCounters {
        /// Frames received.
        rx_frames,
        /// Bytes of them.
        rx_bytes,
        /// Those of them that were several segments joined.
        rx_joined_frames,
        /// Those of them that were copied into the library OS's memory.
        rx_copied_frames,
        /// Bytes of them.
        rx_copied_bytes,
        /// Frames dropped because the arena had no memory left.
        rx_no_buffers,
        /// Frames sent.
        tx_frames,
        /// Bytes of them.
        tx_bytes,
        /// Those of them that the device was asked to cut into segments.
        tx_segmented_frames,
        /// Those of them of which bytes were copied into the device's memory.
        tx_copied_frames,
        /// Bytes copied.
        tx_copied_bytes,
        /// Times that the device had no room for a frame; it is tried again.
        tx_would_block,
        /// Frames dropped because the device cannot send such.
        tx_refused,
    }
}
