//! The user timeout: how long sent data may stay unacknowledged (RFC 9293, section 3.9.1.6), and telling the peer of it
//! by the option of RFC 5482.

use std::time::Duration;

use libos::Instant;

use super::connection::Connection;
use super::options::UserTimeoutOption;
use super::segment::{Flags, Segment};
use super::sequence::SequenceNumber;

/// A connection's user timeout. Looked at when the retransmission timer fires, so that progress costs nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserTimeout {
    /// The one in force: the program's, else what the peer asked for.
    pub limit: Option<Duration>,
    /// The program's own.
    pub own: Option<Duration>,
    /// Tell the peer of the program's own, and heed the peer's without one (RFC 5482, section 3: ENABLED).
    pub negotiated: bool,
    /// True while the peer was not told of the present one.
    due: bool,
    /// SND.UNA when the timer last fired, and since when it has stood there.
    stalled_at: SequenceNumber,
    stalled_since: Option<Instant>,
}

impl UserTimeout {
    pub(super) const fn new(own: Option<Duration>, negotiated: bool) -> Self {
        Self {
            limit: own,
            own,
            negotiated,
            due: negotiated && own.is_some(),
            stalled_at: SequenceNumber::new(0),
            stalled_since: None,
        }
    }

    /// The program chooses anew. True when the peer is to be told.
    pub(super) fn choose(&mut self, own: Option<Duration>, negotiated: bool) -> bool {
        if self.own == own && self.negotiated == negotiated {
            return false;
        }
        *self = Self {
            stalled_at: self.stalled_at,
            stalled_since: self.stalled_since,
            ..Self::new(own, negotiated)
        };
        self.due
    }

    /// The option that a SYN carries, which may get lost: the first segment after it says the same (RFC 5482,
    /// section 3.2).
    pub(super) fn option_of_syn(&self) -> Option<UserTimeoutOption> {
        self.own.filter(|_| self.negotiated).map(UserTimeoutOption::from_duration)
    }

    /// True while the next segment has an option to carry.
    pub(super) const fn is_to_be_told(&self) -> bool {
        self.due
    }

    /// The option that the next segment carries, once.
    #[inline]
    pub(super) fn take_option(&mut self) -> Option<UserTimeoutOption> {
        if self.due { self.take_due_option() } else { None }
    }

    #[cold]
    fn take_due_option(&mut self) -> Option<UserTimeoutOption> {
        self.due = false;
        self.option_of_syn()
    }

    /// The peer asks for a timeout of its own, which counts within bounds when the program chose none (RFC 5482,
    /// section 3.1).
    pub(super) fn heed(&mut self, asked: Duration, least: Duration, most: Duration) {
        if self.negotiated && self.own.is_none() {
            self.limit = Some(asked.max(least).min(most));
        }
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

impl Connection {
    /// A segment that is no SYN carries the option. It counts only in one that a peer who knows the connection may have
    /// sent: within the window, and with an acknowledgment of what is in flight.
    pub(super) fn note_user_timeout(&mut self, segment: &Segment, least: Duration, most: Duration) {
        if let Some(asked) = segment.options.user_timeout
            && self.state.is_synchronised()
            && segment.flags.contains(Flags::ACK)
            && !segment.flags.intersects(Flags::SYN | Flags::RST)
            && self.is_acceptable(segment.sequence, 0)
            && segment.acknowledgment.at_or_after(self.snd.una)
            && segment.acknowledgment.at_or_before(self.snd.max)
        {
            self.user_timeout.heed(asked.duration(), least, most);
        }
    }
}
