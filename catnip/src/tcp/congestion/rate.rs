//! Delivery-rate samples: what an acknowledgment tells of the path's bandwidth
//! (draft-ietf-ccwg-bbr, section 4.1; draft-cheng-iccrg-delivery-rate-estimation).

use libos::Instant;

/// What one acknowledgment that delivered something tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSample {
    /// The time now.
    pub now: Instant,
    /// C.delivered: bytes delivered in all, this acknowledgment's included.
    pub delivered_total_bytes: u64,
    /// RS.prior_delivered: bytes that had been delivered when the newest of the segments delivered was sent.
    pub prior_delivered_bytes: u64,
    /// RS.interval: the time over which the difference of the two was delivered, the longer of the times that
    /// sending and acknowledging took; 0 when it is shorter than any round trip was, and so cannot be.
    pub interval_ns: u64,
    /// RS.newly_acked: bytes that this acknowledgment was the first to report.
    pub newly_delivered_bytes: u32,
    /// RS.newly_lost: bytes given up for lost since the sample before.
    pub newly_lost_bytes: u32,
    /// C.inflight: bytes in the network, now that it was taken into account.
    pub in_flight_bytes: u32,
    /// RS.tx_in_flight: bytes in the network when the newest of the segments delivered had been sent.
    pub sent_in_flight_bytes: u32,
    /// RS.lost: bytes given up for lost since that segment was sent.
    pub lost_bytes: u32,
    /// The round-trip time, if the acknowledgment measured one.
    pub rtt_ns: Option<u64>,
    /// RS.is_app_limited: the program had given too little to fill the path.
    pub app_limited: bool,
}

impl RateSample {
    /// RS.delivered: bytes delivered over the interval.
    #[must_use]
    pub const fn delivered_bytes(&self) -> u64 {
        self.delivered_total_bytes.saturating_sub(self.prior_delivered_bytes)
    }

    /// RS.delivery_rate, in bytes a second; 0 when the sample has no interval.
    #[must_use]
    pub const fn bytes_per_s(&self) -> u64 {
        if self.interval_ns == 0 {
            return 0;
        }
        self.delivered_bytes().saturating_mul(1_000_000_000) / self.interval_ns
    }
}

/// Data is about to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendEvent {
    /// The time now.
    pub now: Instant,
    /// Bytes in the network before it is.
    pub in_flight_bytes: u32,
    /// The program has given too little to fill the path until now.
    pub app_limited: bool,
}
