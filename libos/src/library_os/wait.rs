//! Waiting for completions.

use std::cell::RefMut;
use std::time::Duration;

use super::state::State;
use super::{Idling, LibOs};
use crate::queues::{Completions, Taken};
use crate::{Completion, Error, Instant, OperationKind, Outcome, Token};

/// Whether a completion is ready to be taken. Fails when none can ever be.
#[inline(always)]
fn any_ready(tables: &Completions) -> Result<Option<()>, Error> {
    match (tables.operations.has_ready(), tables.operations.unclaimed()) {
        (true, _) => Ok(Some(())),
        (false, 0) => Err(Error::WouldBlock),
        (false, _) => Ok(None),
    }
}

/// Waits. Each polls until it has what it waits for or `timeout` is over; `None` waits as long as it takes, and
/// `Some(Duration::ZERO)` polls once. After [`Error::TimedOut`] the tokens are as outstanding
/// as before. The timeout counts from the wait's first poll and is looked at once a poll.
///
/// With a clock that does not run by itself, a wait that can make no progress ends with
/// [`Error::TimedOut`] as well; see [`LibOsBuilder::on_idle`](super::LibOsBuilder::on_idle).
///
/// All of them fail with [`Error::Busy`] from inside a module's callback.
impl LibOs {
    /// Waits for one token.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::BadToken`] for a token that was never given out, whose completion
    /// was taken, or for which a future waits.
    #[inline(always)]
    pub fn wait(&self, token: Token, timeout: Option<Duration>) -> Result<Completion, Error> {
        if let Ok(mut state) = self.state_as_is()
            && let Some(queue) = state.tables.operations.take_lone_push(token)
        {
            return Ok(Completion { token, queue, kind: OperationKind::Push, outcome: Outcome::Pushed });
        }
        let taken = match self.poll_for(token) {
            Some(taken) => taken,
            None => self.keep_waiting(token, timeout)?,
        };
        self.completion(taken)
    }

    /// The completion of an operation that was taken: expanded where it is waited for, so that it moves once.
    #[inline(always)]
    fn completion(&self, taken: Taken) -> Result<Completion, Error> {
        self.state_as_is()?.tables.operations.completion(taken).ok_or(Error::BadToken)
    }

    /// Takes the token's operation, after a poll or if none is due. `None` when there was a poll that did not bring it alone.
    #[inline(never)]
    fn poll_for(&self, token: Token) -> Option<Taken> {
        // What is rare begins anew with a state of its own, so that nothing is kept for it here.
        let mut state = self.state().ok()?;
        if state.tables.operations.has_ready() {
            drop(state);
            return self.look_for(token);
        }
        self.poll_modules(&mut state);
        if state.tables.foreign_wakers.is_empty()
            && let Some(taken) = state.tables.operations.take_only_ready(token)
        {
            return Some(taken);
        }
        drop(state);
        self.miss();
        None
    }

    /// The rest of a poll that did not bring what it was made for.
    #[inline(never)]
    fn miss(&self) {
        if let Ok(mut state) = self.state() {
            state.note_idle();
            self.release(state);
        }
    }

    /// [`Self::poll_for`], beside other completions.
    #[cold]
    #[inline(never)]
    fn look_for(&self, token: Token) -> Option<Taken> {
        let mut state = self.state().ok()?;
        if state.may_skip_poll()
            && let Ok(Some((slot, _))) = state.tables.operations.find_completed(token)
        {
            state.unpolled_waits += 1;
            return state.tables.operations.take_completed(slot);
        }
        let (_, mut state) = self.poll_with(state).ok()?;
        let (slot, _) = state.tables.operations.find_completed(token).ok()??;
        state.tables.operations.take_completed(slot)
    }

    /// Waits for one token after a poll that did not bring it alone.
    #[inline(never)]
    fn keep_waiting(&self, token: Token, timeout: Option<Duration>) -> Result<Taken, Error> {
        let find = |tables: &Completions| Ok(tables.operations.find_completed(token)?.map(|(slot, _)| slot));
        let mut state = self.state()?;
        let slot = match find(&state.tables)? {
            Some(slot) => slot,
            None => {
                let polled = (self.now(), state.tables.operations.completed());
                drop(state);
                let slot;
                (state, slot) = self.keep_polling(timeout, polled, find)?;
                slot
            }
        };
        state.tables.operations.take_completed(slot).ok_or(Error::BadToken)
    }

    /// Waits for any of the tokens: the one that completed first, and its place among them.
    ///
    /// O(tokens) for each poll that completed something; [`Self::wait_next`] is O(1).
    ///
    /// # Errors
    /// As [`Self::wait`]; [`Error::InvalidArgument`] for no tokens at all.
    pub fn wait_any(
        &self,
        tokens: &[Token],
        timeout: Option<Duration>,
    ) -> Result<(usize, Completion), Error> {
        if tokens.is_empty() {
            return Err(Error::InvalidArgument);
        }
        // The earliest, not the first in the list: else a busy queue at the front starves the rest.
        let earliest = |tables: &Completions| {
            let mut earliest = None;
            for (place, token) in tokens.iter().enumerate() {
                if let Some((slot, completed_at)) = tables.operations.find_completed(*token)?
                    && earliest.is_none_or(|(earliest, _, _)| completed_at < earliest)
                {
                    earliest = Some((completed_at, place, slot));
                }
            }
            Ok(earliest)
        };
        self.wait_until(timeout, earliest, |tables, (_, place, slot)| (place, tables.operations.take(slot)))
    }

    /// Waits for all of the tokens; completions are in the tokens' order. When it fails, none is taken.
    ///
    /// # Errors
    /// As [`Self::wait`]; [`Error::InvalidArgument`] for a token that is there twice.
    pub fn wait_all(&self, tokens: &[Token], timeout: Option<Duration>) -> Result<Vec<Completion>, Error> {
        let mut sorted: Vec<u64> = tokens.iter().map(|token| token.raw()).collect();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::InvalidArgument);
        }
        let all = |tables: &Completions| {
            let mut all = true;
            for token in tokens {
                all &= tables.operations.find_completed(*token)?.is_some();
            }
            Ok(all.then_some(()))
        };
        self.wait_until(timeout, all, |tables, ()| {
            let slots = tokens.iter().filter_map(|token| tables.operations.find_claimed(*token).ok()?);
            let slots: Vec<_> = slots.collect();
            slots.into_iter().map(|slot| tables.operations.take(slot)).collect()
        })
    }

    /// Waits for the next completions of any tokens for which no future waits, in the order in which they
    /// completed. Appends one at least and `max` at most, and returns how many. O(appended), however
    /// many operations are outstanding.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::WouldBlock`] when no operation is outstanding;
    /// [`Error::InvalidArgument`] when `max` is 0.
    pub fn wait_next(
        &self,
        completions: &mut Vec<Completion>,
        max: usize,
        timeout: Option<Duration>,
    ) -> Result<usize, Error> {
        if max == 0 {
            return Err(Error::InvalidArgument);
        }
        self.wait_until(timeout, any_ready, |tables, ()| {
            let mut appended = 0;
            while appended < max && tables.operations.take_first_ready_to(completions) {
                appended += 1;
            }
            appended
        })
    }

    /// Waits for the next completion of any token for which no future waits: as [`Self::wait_next`], for one.
    ///
    /// # Errors
    /// [`Error::TimedOut`]; [`Error::WouldBlock`] when no operation is outstanding.
    #[inline(always)]
    pub fn next_completion(&self, timeout: Option<Duration>) -> Result<Completion, Error> {
        if let Ok(mut state) = self.state_as_is()
            && let Some((token, queue)) = state.tables.operations.take_any_lone_push()
        {
            return Ok(Completion { token, queue, kind: OperationKind::Push, outcome: Outcome::Pushed });
        }
        let taken = match self.poll_for_any() {
            Some(taken) => taken,
            None => self.keep_waiting_for_any(timeout)?,
        };
        self.completion(taken)
    }

    /// Takes the operation whose completion is the next, after a poll or if none is due. `None` when there was a poll that
    /// brought none.
    #[inline(never)]
    fn poll_for_any(&self) -> Option<Taken> {
        let mut state = self.state().ok()?;
        if state.tables.operations.has_ready() {
            drop(state);
            return self.take_next();
        }
        self.poll_modules(&mut state);
        if state.tables.foreign_wakers.is_empty()
            && let Some(taken) = state.tables.operations.take_first_ready()
        {
            return Some(taken);
        }
        drop(state);
        self.miss();
        None
    }

    /// [`Self::poll_for_any`], with a completion that is there already.
    #[inline(never)]
    fn take_next(&self) -> Option<Taken> {
        let mut state = self.state().ok()?;
        if state.may_skip_poll() {
            state.unpolled_waits += 1;
        } else {
            (_, state) = self.poll_with(state).ok()?;
        }
        state.tables.operations.take_first_ready()
    }

    /// Waits for the next completion after a poll that brought none.
    #[inline(never)]
    fn keep_waiting_for_any(&self, timeout: Option<Duration>) -> Result<Taken, Error> {
        let mut state = self.state()?;
        if any_ready(&state.tables)?.is_none() {
            let polled = (self.now(), state.tables.operations.completed());
            drop(state);
            (state, ()) = self.keep_polling(timeout, polled, any_ready)?;
        }
        state.tables.operations.take_first_ready().ok_or(Error::TimedOut)
    }

    /// Polls until `ready` finds something, and takes it. `ready` is asked again whenever an operation
    /// completed; what it finds is small, so that completions are moved once.
    #[inline(always)]
    fn wait_until<R, T>(
        &self,
        timeout: Option<Duration>,
        ready: impl Fn(&Completions) -> Result<Option<R>, Error>,
        take: impl FnOnce(&mut Completions, R) -> T,
    ) -> Result<T, Error> {
        let mut state = self.state()?;
        let mut found = None;
        if state.may_skip_poll() {
            found = ready(&state.tables)?;
            state.unpolled_waits += 1;
        }
        let found = match found {
            Some(found) => found,
            None => {
                drop(state);
                let found;
                (state, found) = self.poll_until(timeout, ready)?;
                found
            }
        };
        Ok(take(&mut state.tables, found))
    }

    #[inline(always)]
    fn poll_until<R>(
        &self,
        timeout: Option<Duration>,
        ready: impl Fn(&Completions) -> Result<Option<R>, Error>,
    ) -> Result<(RefMut<'_, State>, R), Error> {
        // The first poll mostly brings it; what else it takes to wait is set up after it.
        let (now, state) = self.poll_now()?;
        let completed = state.tables.operations.completed();
        if let Some(found) = ready(&state.tables)? {
            return Ok((state, found));
        }
        drop(state);
        self.keep_polling(timeout, (now, completed), ready)
    }

    /// Goes on polling after a poll at a time after which so many operations had completed.
    #[cold]
    #[inline(never)]
    fn keep_polling<R>(
        &self,
        timeout: Option<Duration>,
        (mut now, mut completed): (Instant, u64),
        ready: impl Fn(&Completions) -> Result<Option<R>, Error>,
    ) -> Result<(RefMut<'_, State>, R), Error> {
        let deadline = timeout.map(|timeout| now + timeout);
        let mut idling = Idling::default();
        let mut checked_at = Some(completed);
        loop {
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(Error::TimedOut);
            }
            if self.idle(&mut idling, now, completed, deadline)? {
                // Foreign code ran and may have taken completions away.
                checked_at = None;
            }
            let state;
            (now, state) = self.poll_now()?;
            completed = state.tables.operations.completed();
            if checked_at != Some(completed)
                && let Some(found) = ready(&state.tables)?
            {
                return Ok((state, found));
            }
            checked_at = Some(completed);
        }
    }
}
