//! A connection's timers: retransmission and persist, delayed acknowledgment, and the idle ones
//! (TIME-WAIT, an orphan's FIN-WAIT-2, and keepalive's: [`super::keepalive`]).

use libos::{Error, Instant};

use super::congestion::CongestionControl;
use super::connection::{Connection, Context, Disposition, Settings};
use super::recovery::Alarm;
use super::state::{State, Trigger};
use crate::events::Readiness;

/// The longest time that a cork holds anything back (as Linux's).
const CORK_NS: u64 = 200_000_000;

impl Connection {
    /// Runs what is due at `now`.
    pub(super) fn on_timer(&mut self, cx: &mut Context<'_>) -> Disposition {
        if self.deadlines.delayed_ack <= cx.now {
            self.deadlines.delayed_ack = Instant::FAR_FUTURE;
            self.rcv.ack_now = true;
            // Nothing came for it to ride on. While that is so, waiting costs a peer time that waits for the
            // acknowledgment, and saves nothing.
            self.rcv.one_way = true;
            cx.counters.delayed_acks += 1;
        }
        if self.deadlines.pacing <= cx.now {
            // What it held back goes with the turn of output that follows.
            self.deadlines.pacing = Instant::FAR_FUTURE;
        }
        if self.deadlines.retransmit <= cx.now {
            self.deadlines.retransmit = Instant::FAR_FUTURE;
            match self.recovery.alarm {
                Alarm::TailProbe if self.may_probe_tail() => self.on_probe_timeout(cx),
                Alarm::Reordering if self.snd.una != self.snd.max => self.on_reordering_timeout(cx),
                Alarm::TailProbe | Alarm::Reordering | Alarm::Retransmission => {
                    let disposition = self.on_retransmission_timeout(cx);
                    if disposition != Disposition::Keep {
                        return disposition;
                    }
                }
            }
        }
        if self.deadlines.idle <= cx.now {
            self.deadlines.idle = Instant::FAR_FUTURE;
            return self.on_idle_timeout(cx);
        }
        Disposition::Keep
    }

    /// Arms the retransmission timer if something is in flight (RFC 6298, section 5.1), or the persist timer
    /// if there is something to send and the window keeps it back (RFC 9293, section 3.8.6.1).
    pub(super) fn arm_retransmission(&mut self, cx: &Context<'_>) {
        self.arm_retransmission_at(cx.now, cx.settings);
    }

    /// [`Self::arm_retransmission`] at a time.
    #[inline]
    pub(super) fn arm_retransmission_at(&mut self, now: Instant, settings: &Settings) {
        if self.deadlines.retransmit != Instant::FAR_FUTURE {
            return;
        }
        let in_flight = self.snd.max != self.snd.una;
        if self.cork && !in_flight {
            return self.arm_cork(now);
        }
        let held_back = self.state.sends_data() && (self.snd.unsent() > 0 || self.snd.fin_unsent());
        if in_flight || held_back {
            self.deadlines.retransmit = self.retransmission_deadline(now, settings);
            if self.user_timeout.limit.is_some() {
                self.deadlines.retransmit =
                    self.deadlines.retransmit.min(self.user_timeout.deadline(self.snd.una));
            }
        }
    }

    /// What a cork holds back goes after [`CORK_NS`], however little it is.
    #[cold]
    fn arm_cork(&mut self, now: Instant) {
        if self.state.sends_data() && self.snd.unsent() > 0 {
            let wait_ns = if self.snd.wnd == 0 { self.rtt.rto_ns() } else { CORK_NS };
            self.deadlines.retransmit = now.plus_nanos(wait_ns);
        }
    }

    /// Starts the retransmission timer over while something is in flight, and stops it when nothing is
    /// (RFC 6298, sections 5.2 and 5.3).
    pub(super) fn restart_retransmission(&mut self, cx: &Context<'_>) {
        self.restart_retransmission_at(cx.now, cx.settings);
    }

    /// [`Self::restart_retransmission`] at a time.
    #[inline]
    pub(super) fn restart_retransmission_at(&mut self, now: Instant, settings: &Settings) {
        self.deadlines.retransmit = if self.snd.una == self.snd.max {
            Instant::FAR_FUTURE
        } else {
            self.retransmission_deadline(now, settings)
        };
    }

    /// True when nothing is in flight that the window let out, so that the timer is the persist timer.
    fn is_probing(&self) -> bool {
        self.state.sends_data()
            && self.snd.in_flight() == 0
            && (self.snd.unsent() > 0 || self.snd.fin_unsent())
            && self.snd.wnd == 0
    }

    fn on_retransmission_timeout(&mut self, cx: &mut Context<'_>) -> Disposition {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        if self.state == State::SynSent && self.sends_early() {
            // Nothing was pushed that the SYN could have waited for.
            self.send_deferred_syn(cx);
            return Disposition::Keep;
        }
        if !opening && self.snd.una == self.snd.max && !self.is_probing() {
            // Nothing is lost. A cork held this back, or the window is too small to be worth a segment: after this
            // long it is used all the same (RFC 9293, section 3.8.6.2.1, the override timeout).
            self.send_what_fits(cx);
            self.arm_retransmission(cx);
            return Disposition::Keep;
        }
        let config = &cx.settings.config;
        let limit = match self.state {
            State::SynSent => config.max_syn_retransmissions,
            State::SynReceived => config.max_syn_ack_retransmissions,
            State::Closed
            | State::Listen
            | State::Established
            | State::CloseWait
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => config.max_retransmissions,
        };
        let user_time_is_up = self.user_timeout.is_over(self.snd.una, cx.now, self.rtt.rto_ns());
        let exhausted = self.retransmissions >= limit && (opening || self.user_timeout.limit.is_none());
        if user_time_is_up || exhausted {
            cx.counters.timeouts += 1;
            let error = self.soft_error.unwrap_or(Error::TimedOut);
            return self.fail(Some(error), cx);
        }
        self.retransmissions = self.retransmissions.saturating_add(1);
        self.rtt.back_off();
        if opening {
            cx.counters.retransmission_timeouts += 1;
            cx.counters.retransmitted_segments += 1;
            // RFC 5681, section 3.1: a lost SYN makes the initial window one segment.
            self.congestion.on_timeout(0, true, cx.now);
            let disposition = self.give_up_fast_open(cx);
            self.send_syn(cx);
            self.arm_retransmission(cx);
            return disposition;
        } else if self.is_probing() {
            self.send_window_probe(cx);
        } else if self.snd.una != self.snd.max {
            cx.counters.retransmission_timeouts += 1;
            // RFC 5681, section 3.1, equation 4: half of the flight, at the first timeout of a segment only. While the
            // peer keeps its window closed, what it answers starts the count over, and no further one is about the path.
            let is_first = self.retransmissions == 1 && (self.snd.wnd > 0 || !self.recovery.has_timed_out());
            self.congestion.on_timeout(self.snd.max.distance_from(self.snd.una), is_first, cx.now);
            self.ecn.on_reduction(self.snd.max);
            self.suspect_black_hole(cx);
            self.on_loss_timeout();
            if self.is_probing() {
                // The peer took its window back meanwhile, and only a probe fits into it.
                self.send_window_probe(cx);
            }
        } else {
            // Nothing is in flight and the window is too small to be worth a segment: after this long it
            // is used all the same (RFC 9293, section 3.8.6.2.1, the override timeout).
            self.send_what_fits(cx);
        }
        self.arm_retransmission(cx);
        Disposition::Keep
    }

    /// True when the program let go of the connection with a time in which its data had to get through, and this
    /// timer was for that.
    fn has_lingered(&self) -> bool {
        self.orphan
            && self.linger.is_some()
            && match self.state {
                State::SynReceived
                | State::Established
                | State::CloseWait
                | State::FinWait1
                | State::Closing
                | State::LastAck => true,
                State::Closed | State::Listen | State::SynSent | State::FinWait2 | State::TimeWait => false,
            }
    }

    fn on_idle_timeout(&mut self, cx: &mut Context<'_>) -> Disposition {
        if self.has_lingered() {
            self.send_reset(cx);
            return self.fail(Some(Error::TimedOut), cx);
        }
        match self.state {
            State::TimeWait => {
                self.transition(Trigger::TimeWaitOver, cx.transitions);
                self.release_transfer_state(cx);
                self.raise(Readiness::CLOSED, cx.events);
                Disposition::Closed
            }
            State::FinWait2 if self.orphan => self.fail(Some(Error::TimedOut), cx),
            State::Established | State::CloseWait | State::FinWait1 | State::FinWait2 => {
                self.on_keepalive_timeout(cx)
            }
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Closing
            | State::LastAck => Disposition::Keep,
        }
    }

    /// Starts TIME-WAIT, or starts it over.
    pub(super) fn start_time_wait(&mut self, cx: &mut Context<'_>) {
        let acknowledge = self.rcv.ack_now;
        self.release_transfer_state(cx);
        self.rcv.ack_now = acknowledge;
        self.deadlines.idle = cx.now + cx.settings.config.time_wait;
    }

    /// A connection the program closed does not wait for ever for the peer's FIN.
    pub(super) fn start_orphan_timeout(&mut self, cx: &Context<'_>) {
        self.deadlines.idle = cx.now + cx.settings.config.fin_wait_2;
    }
}
