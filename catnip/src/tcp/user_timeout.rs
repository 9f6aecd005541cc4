//! The user timeout: how long sent data may stay unacknowledged (RFC 9293, section 3.9.1.6; RFC 5482, whose option
//! we neither send nor heed).

use std::time::Duration;

use libos::Instant;

use super::sequence::SequenceNumber;

/// A connection's user timeout. Looked at when the retransmission timer fires, so that progress costs nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserTimeout {
    pub limit: Option<Duration>,
    /// SND.UNA when the timer last fired, and since when it has stood there.
    stalled_at: SequenceNumber,
    stalled_since: Option<Instant>,
}

impl UserTimeout {
    pub(super) const fn new(limit: Option<Duration>) -> Self {
        Self { limit, stalled_at: SequenceNumber::new(0), stalled_since: None }
    }

    /// The retransmission timer fired, which had been running for `rto_ns`. True when the time is up.
    pub(super) fn is_over(&mut self, una: SequenceNumber, now: Instant, rto_ns: u64) -> bool {
        if self.stalled_since.is_none() || self.stalled_at != una {
            self.stalled_at = una;
            self.stalled_since = Some(Instant::from_nanos(now.as_nanos().saturating_sub(rto_ns)));
        }
        now >= self.deadline(una)
    }

    /// When the time is up, if things stay as they are.
    pub(super) fn deadline(&self, una: SequenceNumber) -> Instant {
        match (self.limit, self.stalled_since) {
            (Some(limit), Some(since)) if self.stalled_at == una => since + limit,
            (Some(_) | None, Some(_) | None) => Instant::FAR_FUTURE,
        }
    }
}
