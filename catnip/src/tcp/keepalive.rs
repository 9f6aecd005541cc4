//! Keepalive: asking an idle peer whether it is still there (RFC 9293, section 3.8.4).

use std::time::Duration;

use libos::{Error, Instant};

use super::connection::{Connection, Context, Disposition};
use super::state::State;

/// When an idle peer is probed, of a socket that asks for it (`SO_KEEPALIVE`), and when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalive {
    /// Idle time before the first probe; at least two hours by default (RFC 9293, section 3.8.4).
    pub idle_ms: u32,
    /// Time between probes.
    pub interval_ms: u32,
    /// Unanswered probes before the connection is given up.
    pub probes: u8,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle_ms: 2 * 3_600_000, interval_ms: 75_000, probes: 9 }
    }
}

impl Keepalive {
    /// A time as a socket option names it: not zero, and no longer than 49 days.
    pub(super) fn millis(time: Duration) -> Result<u32, Error> {
        u32::try_from(time.as_millis()).ok().filter(|&millis| millis > 0).ok_or(Error::InvalidArgument)
    }

    /// Idle time before the first probe.
    #[must_use]
    pub const fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms as u64)
    }

    /// Time between probes.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_millis(self.interval_ms as u64)
    }
}

impl Connection {
    /// Off unless the program asked for it (RFC 9293, section 3.8.4).
    pub(super) fn start_keepalive(&mut self, since: Instant) {
        if self.keep_alive {
            self.deadlines.idle = since + self.keepalive.idle();
        }
    }

    /// The program chooses anew whether to probe, and when.
    pub(super) fn choose_keepalive(&mut self, on: bool, times: Keepalive) {
        if (self.keep_alive, self.keepalive) == (on, times) {
            return;
        }
        (self.keep_alive, self.keepalive) = (on, times);
        // Before that it starts with the connection, after it there is no need, and a linger time has the timer.
        if self.state.is_synchronised() && self.state != State::TimeWait && !self.orphan {
            self.keepalives_sent = 0;
            self.start_keepalive(self.last_received);
        }
    }

    pub(super) fn on_keepalive_timeout(&mut self, cx: &mut Context<'_>) -> Disposition {
        if !self.keep_alive {
            return Disposition::Keep;
        }
        let due = self.last_received + self.keepalive.idle();
        if self.keepalives_sent == 0 && due > cx.now {
            self.deadlines.idle = due;
            return Disposition::Keep;
        }
        if self.snd.una != self.snd.max {
            // The retransmission timer already finds out about the peer.
            self.deadlines.idle = cx.now + self.keepalive.idle();
            return Disposition::Keep;
        }
        let silent_ns = cx.now.nanos_since(self.last_received);
        let given_up = match self.user_timeout.limit {
            Some(limit) => self.keepalives_sent > 0 && silent_ns >= libos::time::duration_nanos(limit),
            None => self.keepalives_sent >= self.keepalive.probes,
        };
        if given_up {
            cx.counters.timeouts += 1;
            self.send_reset(cx);
            return self.fail(Some(Error::TimedOut), cx);
        }
        self.deadlines.idle = cx.now + self.keepalive.interval();
        self.keepalives_sent = self.keepalives_sent.saturating_add(1);
        self.send_keepalive(cx);
        Disposition::Keep
    }
}
