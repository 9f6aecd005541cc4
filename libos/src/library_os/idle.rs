//! What a wait does when a poll brought nothing: poll on, sleep, or let a simulator move time.

use std::os::fd::RawFd;

use super::LibOs;
use super::options::IdlePolicy;
use super::poll::earlier;
use crate::{Error, Instant, sys};

/// Polls at one instant of a clock that stands still before a module that always asks for one more is
/// no longer believed.
const STANDSTILL_POLLS: u32 = 1024;

/// How long a wait has been idle.
#[derive(Debug, Default)]
pub(crate) struct Idling {
    /// The wait drives tasks too, which other threads may wake.
    runs_tasks: bool,
    /// The first poll since the last progress, and what the progress was then.
    since: Option<(Instant, u64)>,
    /// The last poll, and how many there were at its time without progress.
    standstill: Option<(Instant, u32)>,
}

impl Idling {
    /// For a wait that drives tasks.
    pub(crate) fn with_tasks() -> Self {
        Self { runs_tasks: true, ..Self::default() }
    }

    /// For how long there was no progress, in nanoseconds.
    fn idle_ns(&mut self, now: Instant, progress: u64) -> u64 {
        match self.since {
            Some((since, then)) if then == progress => now.nanos_since(since),
            _ => {
                self.since = Some((now, progress));
                0
            }
        }
    }
}

/// Lists that sleeping needs, kept for their memory.
#[derive(Debug, Default)]
pub(super) struct Sleeper {
    fds: Vec<RawFd>,
    polled: Vec<libc::pollfd>,
}

impl LibOs {
    /// Called when a poll at `now` did not bring what the wait is for. `progress` changes whenever
    /// something completed. Returns true when foreign code ran.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when nothing can ever end the wait.
    pub(crate) fn idle(
        &self,
        idling: &mut Idling,
        now: Instant,
        progress: u64,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        if !self.inner.time.is_real() {
            return self.idle_in_virtual_time(idling, now, deadline);
        }
        match self.inner.options.idle {
            IdlePolicy::SleepAfter(spin_ns) if idling.idle_ns(now, progress) >= spin_ns => {
                self.sleep_idle(idling, now, deadline)?;
            }
            IdlePolicy::SleepAfter(_) | IdlePolicy::Spin => std::hint::spin_loop(),
        }
        Ok(false)
    }

    fn idle_in_virtual_time(
        &self,
        idling: &mut Idling,
        now: Instant,
        deadline: Option<Instant>,
    ) -> Result<bool, Error> {
        let polls = match idling.standstill {
            Some((last, polls)) if last == now => polls + 1,
            _ => 0,
        };
        idling.standstill = Some((now, polls));
        let next = earlier(self.next_deadline(), deadline);
        let work_left = self.state()?.needs_poll() || next.is_some_and(|next| next <= now);
        if work_left && polls < STANDSTILL_POLLS {
            return Ok(false);
        }
        // Out of its place while it runs, so that it may call the library OS.
        let Some(mut hook) = self.inner.on_idle.take() else { return Err(Error::TimedOut) };
        let moved = hook(next);
        self.inner.on_idle.replace(Some(hook));
        if moved { Ok(true) } else { Err(Error::TimedOut) }
    }

    /// Sleeps until a device, another thread or a deadline needs the library OS. The poll just before this
    /// left nothing to do, and descriptors stay readable until the next one, so no wake-up is lost.
    fn sleep_idle(&self, idling: &mut Idling, now: Instant, deadline: Option<Instant>) -> Result<(), Error> {
        let executor = &self.inner.executor;
        let mut sleeper = self.inner.sleeper.try_borrow_mut().map_err(|_| Error::Busy)?;
        let Sleeper { fds, polled } = &mut *sleeper;
        fds.clear();
        let until = {
            let state = self.state()?;
            if state.needs_poll() || !state.wake_fds(fds) {
                std::hint::spin_loop();
                return Ok(());
            }
            earlier(earlier(state.next_deadline(), executor.next_timer()), deadline)
        };
        if until.is_some_and(|until| until <= now) {
            return Ok(());
        }
        polled.clear();
        polled.extend(fds.iter().map(|fd| sys::readable(*fd)));
        let timeout = until.map(|until| until - now);
        if idling.runs_tasks {
            let Some(mail) = executor.prepare_sleep() else { return Ok(()) };
            polled.push(sys::readable(mail));
            sys::wait_readable(polled, timeout);
            executor.end_sleep();
        } else {
            sys::wait_readable(polled, timeout);
        }
        // Whatever woke us, more is likely to follow soon.
        idling.since = None;
        let mut state = self.state()?;
        state.sleeps += 1;
        state.lateness.slept();
        Ok(())
    }
}
