//! Notices when the program keeps the core for so long that peers wait.

use std::time::Duration;

use crate::Instant;
use crate::time::duration_nanos;

/// At most one warning in this time.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);

/// 146 years: so far from the end of what an instant can hold that no sum of a poll's time and a limit is beyond it.
const NO_LIMIT_NS: u64 = u64::MAX / 4;

/// Measures the time between polls. It reads no clock: each poll's time is there anyway.
#[derive(Debug)]
pub(super) struct Lateness {
    /// The longest time between polls that is in order, in nanoseconds.
    limit_ns: u64,
    /// A poll after this is late; [`Instant::FAR_FUTURE`] when there was none that counts before it.
    late_after: Instant,
    last_warning: Option<Instant>,
    not_warned: u64,
    pub(super) late_polls: u64,
    pub(super) longest_ns: u64,
}

/// What is to be said about a late poll.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// How long the program kept the core.
    pub(super) gap: Duration,
    /// Late polls since the last warning about which nothing was said.
    pub(super) not_warned: u64,
}

impl Lateness {
    /// With no limit nothing is ever late.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self {
            limit_ns: limit.map_or(NO_LIMIT_NS, duration_nanos).min(NO_LIMIT_NS),
            late_after: Instant::FAR_FUTURE,
            last_warning: None,
            not_warned: 0,
            late_polls: 0,
            longest_ns: 0,
        }
    }

    /// The library OS itself slept: the time until the next poll is not the program's.
    pub(super) fn slept(&mut self) {
        self.late_after = Instant::FAR_FUTURE;
    }

    /// A poll begins at `now`. When it is late, how long after the last one, in nanoseconds: if anybody was
    /// waiting for it, [`Self::note_late`] follows.
    #[inline(always)]
    pub(super) fn poll_begins(&mut self, now: Instant) -> Option<u64> {
        let late_after = std::mem::replace(&mut self.late_after, now.plus_few_nanos(self.limit_ns));
        (now > late_after).then(|| now.nanos_since(late_after) + self.limit_ns)
    }

    /// Counts a late poll. Returns what is to be said about it, if anything.
    pub(super) fn note_late(&mut self, now: Instant, gap_ns: u64) -> Option<Warning> {
        self.late_polls += 1;
        self.longest_ns = self.longest_ns.max(gap_ns);
        if self.last_warning.is_some_and(|last| now - last < WARNING_INTERVAL) {
            self.not_warned += 1;
            return None;
        }
        self.last_warning = Some(now);
        Some(Warning { gap: Duration::from_nanos(gap_ns), not_warned: std::mem::take(&mut self.not_warned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// A poll at `now`, for which somebody `waits` or not.
    fn poll(lateness: &mut Lateness, now: Instant, waits: bool) -> Option<Warning> {
        let gap_ns = lateness.poll_begins(now).filter(|_| waits)?;
        lateness.note_late(now, gap_ns)
    }

    fn late(gap_ms: u64, not_warned: u64) -> Option<Warning> {
        Some(Warning { gap: Duration::from_millis(gap_ms), not_warned })
    }

    #[test]
    fn only_gaps_above_the_limit_with_work_pending_are_late() {
        let mut lateness = Lateness::new(Some(Duration::from_millis(100)));
        assert_eq!(poll(&mut lateness, at(500), true), None, "the first poll is never late");
        assert_eq!(poll(&mut lateness, at(600), true), None, "the limit itself is in order");
        assert_eq!(poll(&mut lateness, at(900), false), None, "nobody waited");
        assert_eq!(poll(&mut lateness, at(1_050), true), late(150, 0));
        assert_eq!((lateness.late_polls, lateness.longest_ns), (1, 150_000_000));
    }

    #[test]
    fn warnings_come_once_a_second_and_say_how_many_were_left_out() {
        let mut lateness = Lateness::new(Some(Duration::from_millis(100)));
        let warnings: Vec<_> =
            [0, 200, 400, 600, 1_300].map(|ms| poll(&mut lateness, at(ms), true)).into_iter().collect();
        assert_eq!(warnings, [None, late(200, 0), None, None, late(700, 2)]);
        assert_eq!(lateness.late_polls, 4);
    }

    #[test]
    fn time_asleep_is_not_the_programs() {
        let mut lateness = Lateness::new(Some(Duration::from_millis(100)));
        poll(&mut lateness, at(0), true);
        lateness.slept();
        assert_eq!(poll(&mut lateness, at(5_000), true), None);
        assert_eq!(poll(&mut lateness, at(5_200), true), late(200, 0));
    }

    #[test]
    fn without_a_limit_nothing_is_late() {
        let mut lateness = Lateness::new(None);
        poll(&mut lateness, at(0), true);
        assert_eq!(poll(&mut lateness, at(1_000_000), true), None);
    }
}
