//! A clock as a peer with a coarse timer sees it.

use std::time::Duration;

use libos::time::{ManualClock, duration_nanos};
use libos::{Clock, Instant};

/// Shows a virtual clock in whole ticks, as a kernel with a slow timer interrupt would.
#[derive(Debug, Clone)]
pub struct CoarseClock {
    clock: ManualClock,
    tick_nanos: u64,
}

impl CoarseClock {
    /// Shows `clock` in ticks of `tick`; a tick of up to one nanosecond changes nothing.
    #[must_use]
    pub fn new(clock: ManualClock, tick: Duration) -> Self {
        Self { clock, tick_nanos: duration_nanos(tick).max(1) }
    }

    /// The time of the virtual clock at which this one first shows `deadline` or later. Whoever
    /// moves the virtual clock to a deadline that this clock's user named has to move it to here.
    #[must_use]
    pub fn shown_at(&self, deadline: Instant) -> Instant {
        match deadline.as_nanos().checked_next_multiple_of(self.tick_nanos) {
            Some(nanos) => Instant::from_nanos(nanos),
            None => Instant::FAR_FUTURE,
        }
    }
}

impl Clock for CoarseClock {
    fn now(&self) -> Instant {
        let nanos = self.clock.now().as_nanos();
        Instant::from_nanos(nanos - nanos % self.tick_nanos)
    }

    fn is_real(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coarse_clock_shows_whole_ticks_and_names_the_tick_a_deadline_shows_at() {
        let fine = ManualClock::new();
        let coarse = CoarseClock::new(fine.clone(), Duration::from_millis(10));
        fine.set(Instant::from_micros(19_999));
        assert_eq!(coarse.now(), Instant::from_millis(10));
        assert_eq!(coarse.shown_at(Instant::from_micros(10_001)), Instant::from_millis(20));
        assert_eq!(coarse.shown_at(Instant::from_millis(20)), Instant::from_millis(20));
        assert_eq!(coarse.shown_at(Instant::FAR_FUTURE), Instant::FAR_FUTURE);
    }
}
