//! One turn of the library OS.

use std::cell::RefMut;

use super::{LibOs, State};
use crate::{Error, Instant};

impl LibOs {
    /// Reads the clock once and lets every module make progress: frames are received, timers run,
    /// frames are sent. Never blocks, and does a bounded amount of work. Spawned tasks that can go on
    /// are made ready but not run; see [`Self::turn`].
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn poll(&self) -> Result<(), Error> {
        self.poll_now().map(drop)
    }

    /// [`Self::poll`], and the time it took place at.
    pub(crate) fn poll_at(&self) -> Result<Instant, Error> {
        self.poll_now().map(|(now, _)| now)
    }

    /// [`Self::poll`], and the time it took place at, with the state still borrowed for a look at what it brought.
    #[inline(always)]
    pub(super) fn poll_now(&self) -> Result<(Instant, RefMut<'_, State>), Error> {
        self.poll_with(self.state()?)
    }

    /// [`Self::poll_now`], with the state borrowed already.
    #[inline(always)]
    pub(super) fn poll_with<'a>(
        &'a self,
        mut state: RefMut<'a, State>,
    ) -> Result<(Instant, RefMut<'a, State>), Error> {
        self.poll_modules(&mut state);
        state.note_idle();
        if !state.tables.foreign_wakers.is_empty() {
            self.call_wakers(state);
            state = self.state()?;
        }
        Ok((self.now(), state))
    }

    /// A poll that leaves two things to be done after it: to call the wakers, and, unless it is known that something completed,
    /// [`State::note_idle`].
    #[inline(always)]
    pub(super) fn poll_modules(&self, state: &mut State) {
        let now = self.inner.time.now();
        self.inner.pushed.set(false);
        if self.inner.executor.is_due(now) {
            self.poll_with_timers(now, state);
        } else {
            state.poll(&self.inner.time);
        }
        // Buffers that other threads let go of.
        self.inner.arena.reclaim();
    }

    /// A poll in which timers run out, or what was abandoned is given up.
    #[cold]
    #[inline(never)]
    fn poll_with_timers(&self, now: Instant, state: &mut State) {
        self.inner.executor.be_due(false);
        let abandoned = self.inner.abandoned.take();
        abandoned.iter().for_each(|abandoned| state.give_up(now, abandoned));
        state.poll(&self.inner.time);
        self.inner.executor.expire_timers(now, |wake| state.tables.wake(wake));
    }

    /// When a module or a timer next has something to do though nothing arrives.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let modules = self.state().ok().and_then(|state| state.next_deadline());
        earlier(modules, self.inner.executor.next_timer())
    }

    /// True when a module has something that only a poll gets out, or a task can go on.
    #[must_use]
    pub fn needs_poll(&self) -> bool {
        self.inner.executor.has_runnable() || self.state().is_ok_and(|state| state.needs_poll())
    }
}

/// The earlier of two instants that may not be there.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
