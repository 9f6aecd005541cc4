//! What a stream's connection looks like from outside: the numbers behind Linux's `TCP_INFO`, in bytes.

use crate::Instant;

/// A snapshot of a connection. What is not known is 0, or `None` where 0 means something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamInfo {
    /// The state, numbered as in `<netinet/tcp.h>`: 1 is established, 7 closed.
    pub state: u8,
    /// True while a loss is being repaired.
    pub in_recovery: bool,
    /// Timeouts of the oldest data so far, or unanswered probes.
    pub timeouts: u8,
    /// Timestamps were agreed on.
    pub timestamps: bool,
    /// Selective acknowledgments were agreed on.
    pub selective_acknowledgments: bool,
    /// Marks of congestion were agreed on.
    pub ecn: bool,
    /// The shifts of the windows that the peer offers and that we offer; `None` when windows are not scaled.
    pub window_scales: Option<(u8, u8)>,
    /// The retransmission timeout, in microseconds.
    pub rto_us: u32,
    /// The smoothed round-trip time and its variation, in microseconds.
    pub rtt_us: u32,
    /// See [`Self::rtt_us`].
    pub rtt_variation_us: u32,
    /// The least round-trip time measured, in microseconds.
    pub least_rtt_us: u32,
    /// When data was last sent; [`Instant::ZERO`] when none was.
    pub last_data_sent: Instant,
    /// When data last arrived; [`Instant::ZERO`] when none did.
    pub last_data_received: Instant,
    /// When an acknowledgment last arrived.
    pub last_acknowledgment_received: Instant,
    /// Payload of a full segment sent.
    pub send_segment_bytes: u32,
    /// Payload of the largest segment received.
    pub receive_segment_bytes: u32,
    /// The path's largest packet.
    pub path_mtu_bytes: u32,
    /// The congestion window.
    pub cwnd_bytes: u32,
    /// The slow-start threshold; `u32::MAX` before the first loss.
    pub ssthresh_bytes: u32,
    /// Bytes sent and not acknowledged.
    pub in_flight_bytes: u32,
    /// Bytes queued and not sent (`SIOCOUTQNSD`).
    pub unsent_bytes: u32,
    /// Bytes queued in all: not sent, or not acknowledged (`SIOCOUTQ`).
    pub send_queue_bytes: u32,
    /// Bytes the program has not received yet (`SIOCINQ`).
    pub receive_queue_bytes: u32,
    /// Bytes that wait behind a gap.
    pub out_of_order_bytes: u32,
    /// The window that the peer offers.
    pub send_window_bytes: u32,
    /// The window that we offer.
    pub receive_window_bytes: u32,
    /// The receive buffer's present limit.
    pub receive_buffer_bytes: u32,
    /// Segments in flight that were selectively acknowledged.
    pub sacked_segments: u32,
    /// Segments given up for lost that were not sent again yet.
    pub lost_segments: u32,
    /// Segments in flight that were sent again.
    pub resent_in_flight_segments: u32,
    /// Segments that may overtake each other before a loss is assumed.
    pub reordering_segments: u32,
    /// Segments were seen to overtake each other.
    pub reordering_seen: bool,
    /// Segments sent again.
    pub retransmitted_segments: u32,
    /// Bytes sent again.
    pub retransmitted_bytes: u64,
    /// Bytes that the peer has acknowledged.
    pub acknowledged_bytes: u64,
    /// Bytes received in order.
    pub received_bytes: u64,
    /// Bytes a second at which segments are spaced; `None` when they are not.
    pub pacing_bytes_per_s: Option<u64>,
    /// Bytes a second that were delivered lately.
    pub delivery_bytes_per_s: u64,
}
