//! Time as the library OS sees it: nanoseconds on a clock that only goes forward.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Sub};
use std::rc::Rc;
use std::time::Duration;

use crate::sys;

/// A point in time, in nanoseconds since the clock's own start. Only differences mean anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's start.
    pub const ZERO: Self = Self(0);
    /// Later than anything that happens: the deadline of a timer that is not armed.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The instant `micros` microseconds after the clock's start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros.saturating_mul(1_000))
    }

    /// The instant `millis` milliseconds after the clock's start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant `nanos` nanoseconds later, at most [`Self::FAR_FUTURE`].
    #[must_use]
    pub const fn plus_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// This instant `nanos` nanoseconds later, for who knows that the sum is not beyond what an instant can hold.
    #[inline(always)]
    pub(crate) const fn plus_few_nanos(self, nanos: u64) -> Self {
        Self(self.0.wrapping_add(nanos))
    }

    /// Nanoseconds from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

/// A duration in whole nanoseconds, at most `u64::MAX` of them (584 years).
#[must_use]
pub fn duration_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        self.plus_nanos(duration_nanos(duration))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Where a library OS gets its time from. Read once per poll.
pub trait Clock {
    /// The time now. Never earlier than what an earlier call returned.
    fn now(&self) -> Instant;

    /// True when time passes by itself, so that a thread may sleep until a deadline.
    /// A virtual clock says false: whoever owns it moves it on.
    fn is_real(&self) -> bool {
        true
    }
}

/// A clock together with what was last read from it, for who mostly does with that: reading costs more.
pub struct Timekeeper {
    clock: Box<dyn Clock>,
    is_real: bool,
    last: Cell<Instant>,
}

impl Timekeeper {
    /// Reads the clock for the first time.
    #[must_use]
    pub fn new(clock: Box<dyn Clock>) -> Self {
        Self { last: Cell::new(clock.now()), is_real: clock.is_real(), clock }
    }

    /// The time when the clock was last read.
    #[inline(always)]
    #[must_use]
    pub fn last(&self) -> Instant {
        self.last.get()
    }

    /// The present, which is then the last time as well.
    #[inline(always)]
    pub fn now(&self) -> Instant {
        let now = self.clock.now();
        self.last.set(now);
        now
    }

    /// The present, which is not remembered.
    pub(crate) fn peek(&self) -> Instant {
        self.clock.now()
    }

    /// True when time passes by itself: see [`Clock::is_real`].
    #[inline]
    #[must_use]
    pub fn is_real(&self) -> bool {
        self.is_real
    }
}

impl std::fmt::Debug for Timekeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { clock: _, is_real, last } = self;
        f.debug_struct("Timekeeper").field("is_real", is_real).field("last", last).finish_non_exhaustive()
    }
}

/// The machine's monotonic clock, counted from the moment this was made.
#[derive(Debug, Clone, Copy)]
pub struct MonotonicClock {
    start_nanos: u64,
}

impl MonotonicClock {
    /// A clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self { start_nanos: sys::monotonic_nanos() }
    }
}

impl Default for MonotonicClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MonotonicClock {
    #[inline]
    fn now(&self) -> Instant {
        Instant::from_nanos(sys::monotonic_nanos().saturating_sub(self.start_nanos))
    }
}

/// A clock that its owner moves: every clone shows the same time.
#[derive(Debug, Clone, Default)]
pub struct ManualClock {
    now: Rc<Cell<Instant>>,
}

impl ManualClock {
    /// A clock at [`Instant::ZERO`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock to `now`; an earlier time than the present one is ignored.
    pub fn set(&self, now: Instant) {
        self.now.set(self.now.get().max(now));
    }

    /// Moves the clock on by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.now.set(self.now.get() + duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.now.get()
    }

    fn is_real(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timekeeper_shows_what_was_read_last_until_the_clock_is_read_again() {
        let clock = ManualClock::new();
        let time = Timekeeper::new(Box::new(clock.clone()));
        clock.advance(Duration::from_millis(3));
        assert_eq!(
            (time.last(), time.peek(), time.last()),
            (Instant::ZERO, Instant::from_millis(3), Instant::ZERO)
        );
        assert_eq!((time.now(), time.last()), (Instant::from_millis(3), Instant::from_millis(3)));
    }
}
