//! What a queue has counted since it was opened.

libos::counters! {
    /// Plain counters of one queue pair: they only rise.
    pub struct VhostCounters {
        /// Frames received.
        rx_frames,
        /// Bytes of them.
        rx_bytes,
        /// Those of them that were several segments joined.
        rx_joined_frames,
        /// Those of them that were copied: all at the back end, none at the front end.
        rx_copied_frames,
        /// Bytes of these.
        rx_copied_bytes,
        /// Frames dropped because they lay outside the shared memory, were too short or too long, or their header said
        /// something that was not agreed on.
        rx_malformed,
        /// Times that no memory was free to receive into; the frames wait in the ring.
        rx_no_buffers,
        /// Frames sent.
        tx_frames,
        /// Bytes of them.
        tx_bytes,
        /// Those of them that the other end takes for several segments.
        tx_segmented_frames,
        /// Those of them that were copied: all at the back end; at the front end those with bytes outside its memory.
        tx_copied_frames,
        /// Bytes of these that were copied.
        tx_copied_bytes,
        /// Times that the ring had no room; the frame is tried again.
        tx_would_block,
        /// Frames dropped: more segments than the ring takes, no memory for a copy, or, at the back end, a front end whose
        /// buffers lie outside the shared memory.
        tx_refused,
        /// Times that the other end was told of what was done because it asked for that.
        notifications,
    }
}
