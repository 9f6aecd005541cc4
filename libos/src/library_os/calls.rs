//! Calls on queues: those that answer at once, and those that give out a token.

use std::net::{IpAddr, SocketAddr};
use std::task::Poll;

use super::LibOs;
use crate::channel::{ChannelEnd, ChannelQueues};
use crate::module::{Departure, Popped};
use crate::queues::{Queue, Submission};
use crate::{
    Completion, Domain, Error, FilterMode, GroupMembership, Operation, OperationKind, Outcome, PopLimit,
    QueueDescriptor, ScatterGather, Shutdown, SocketKind, SocketOption, SocketOptionName, Token,
};

/// Calls that answer at once. All of them fail with [`Error::BadDescriptor`] when the descriptor is not
/// open and with [`Error::Busy`] from inside a module's callback.
impl LibOs {
    /// Makes a socket.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when no installed module serves such sockets,
    /// [`Error::TooManyDescriptors`] when the table is full.
    pub fn socket(&self, domain: Domain, kind: SocketKind) -> Result<QueueDescriptor, Error> {
        self.state()?.open(|module| module.socket(domain, kind))
    }

    /// Makes an in-memory queue.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when no installed module has such queues (see
    /// [`MemoryQueues`](crate::MemoryQueues)), [`Error::TooManyDescriptors`] when the table is full.
    pub fn queue(&self) -> Result<QueueDescriptor, Error> {
        self.state()?.open(|module| module.queue())
    }

    /// Makes a queue of an end of a [`channel`](crate::channel) to another library OS. Into a sender's is pushed: each
    /// push is one message, which is not copied and completes when the channel has taken it; a full channel leaves it
    /// outstanding, and one whose receiver is gone fails it with [`Error::ConnectionReset`]. From a
    /// receiver's is popped: one message a pop, whole whatever the pop's limits, and empty data once all senders are gone
    /// and everything was popped.
    ///
    /// # Errors
    /// [`Error::TooManyDescriptors`] when the table is full, [`Error::NoBuffers`] when the system has no event
    /// descriptor left; the end is then dropped.
    pub fn attach(&self, end: impl Into<ChannelEnd>) -> Result<QueueDescriptor, Error> {
        let mut end = Some(end.into());
        let mut state = self.state()?;
        match state.open(|module| module.attach(&mut end)) {
            // Only who uses channels has the module for them in every poll.
            Err(Error::NotSupported) if end.is_some() => {
                let channels =
                    ChannelQueues::new(self.device_arena().clone()).map_err(|_| Error::NoBuffers)?;
                state.modules.push(Box::new(channels));
                state.open(|module| module.attach(&mut end))
            }
            opened => opened,
        }
    }

    /// Gives the socket a local address; port 0 picks a free one.
    ///
    /// # Errors
    /// [`Error::AddressInUse`], [`Error::AddressNotAvailable`], [`Error::InvalidArgument`] for an
    /// address of the other family or a socket that has one.
    pub fn bind(&self, queue: QueueDescriptor, local: SocketAddr) -> Result<(), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.bind(handle, local)
    }

    /// Makes the socket accept connections, `backlog` of them unaccepted at most.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for what is not a stream, [`Error::AlreadyConnected`].
    pub fn listen(&self, queue: QueueDescriptor, backlog: usize) -> Result<(), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.listen(handle, backlog)
    }

    /// Ends one or both directions of a connection. What was pushed before is still sent.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, queue: QueueDescriptor, how: Shutdown) -> Result<(), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.shutdown(handle, how)
    }

    /// Sets an option.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an option this queue does not have, [`Error::InvalidArgument`]
    /// for a value outside what it takes.
    pub fn set_option(&self, queue: QueueDescriptor, option: SocketOption) -> Result<(), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.set_option(handle, option)
    }

    /// Reads an option. Reading [`SocketOptionName::PendingError`] clears it.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an option this queue does not have.
    pub fn option(&self, queue: QueueDescriptor, name: SocketOptionName) -> Result<SocketOption, Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.option(handle, name)
    }

    /// Says whose datagrams to a group are wanted, in the place of what was said before, if anything: the socket joins the
    /// group for it. To include nobody is to leave it (RFC 3376, section 3.1; `MCAST_MSFILTER`, RFC 3678).
    ///
    /// # Errors
    /// [`Error::NotSupported`] for queues that join no groups, [`Error::InvalidArgument`] for what is no group, or no
    /// source, of the socket's family, and for a group of RFC 4607 without named sources, [`Error::NoBuffers`] for too many
    /// groups or sources, [`Error::AddressNotAvailable`] for an interface that is none.
    pub fn set_source_filter(
        &self,
        queue: QueueDescriptor,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.set_source_filter(handle, group, mode, sources)
    }

    /// Whose datagrams to a group are wanted: what was said with [`Self::set_source_filter`] and the options for single
    /// sources, in the order of the sources' addresses.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for queues that join no groups, [`Error::AddressNotAvailable`] when the socket is not in the
    /// group.
    pub fn source_filter(
        &self,
        queue: QueueDescriptor,
        group: GroupMembership,
    ) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.source_filter(handle, group)
    }

    /// The local address.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the queue has none.
    pub fn local_address(&self, queue: QueueDescriptor) -> Result<SocketAddr, Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.local_address(handle)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is no peer, [`Error::NotSupported`] when there never is one.
    pub fn peer_address(&self, queue: QueueDescriptor) -> Result<SocketAddr, Error> {
        let mut state = self.state()?;
        let (module, handle) = state.serving(queue)?;
        module.peer_address(handle)
    }
}

/// Whom an operation's completion is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Whoever waits for the token.
    Program,
    /// A future, which alone may take it.
    Future,
}

impl Claim {
    #[inline(always)]
    fn is_future(self) -> bool {
        self == Self::Future
    }
}

/// A token, or an error and 0: a pair that is returned in registers, as a `Result` of the two is not.
struct Submitted(u64, Error);

impl From<Result<Token, Error>> for Submitted {
    #[inline(always)]
    fn from(result: Result<Token, Error>) -> Self {
        match result {
            Ok(token) => Self(token.raw(), Error::Busy),
            Err(error) => Self(0, error),
        }
    }
}

impl From<Submitted> for Result<Token, Error> {
    #[inline(always)]
    fn from(Submitted(token, error): Submitted) -> Self {
        if token == 0 { Err(error) } else { Ok(Token::from_raw(token)) }
    }
}

/// Operations. Each call returns a token at once; what became of the operation is in the token's one
/// completion. All of them fail with [`Error::BadDescriptor`] when the descriptor is not open, with
/// [`Error::TooManyOperations`] when too many completions are outstanding or not taken, and
/// with [`Error::Busy`] from inside a module's callback.
impl LibOs {
    /// Starts an operation.
    ///
    /// # Errors
    /// As above, and [`Error::InvalidArgument`] for a pop of no segments or no bytes.
    pub fn submit(&self, queue: QueueDescriptor, operation: Operation) -> Result<Token, Error> {
        self.submit_for(queue, operation, Claim::Program)
    }

    /// [`Self::submit`], for a program or for a future.
    pub(crate) fn submit_for(
        &self,
        queue: QueueDescriptor,
        operation: Operation,
        claim: Claim,
    ) -> Result<Token, Error> {
        match operation {
            Operation::Push(mut data) => self.push_for(queue, &mut data, None, claim),
            Operation::PushTo(mut data, to) => self.push_for(queue, &mut data, Some(&to), claim),
            Operation::Pop(limit) => self.pop_for(queue, limit, claim),
            Operation::Accept => self.accept_for(queue, claim),
            Operation::Connect(peer) => self.connect_for(queue, peer, claim),
        }
    }

    fn accept_for(&self, queue: QueueDescriptor, claim: Claim) -> Result<Token, Error> {
        let mut state = self.state()?;
        let super::State { tables, modules, .. } = &mut *state;
        let Submission { slot, token, module, handle } =
            tables.submit(queue, OperationKind::Accept, claim.is_future())?;
        if let Err(error) = modules[module.get()].accept(self.now(), handle, token, tables) {
            tables.complete(token, Outcome::Failed(error));
        }
        tables.settle(queue, slot);
        state.unflushed = true;
        self.release(state);
        Ok(token)
    }

    fn connect_for(&self, queue: QueueDescriptor, peer: SocketAddr, claim: Claim) -> Result<Token, Error> {
        let mut state = self.state()?;
        let super::State { tables, modules, .. } = &mut *state;
        let Submission { slot, token, module, handle } =
            tables.submit(queue, OperationKind::Connect, claim.is_future())?;
        // The handshake is timed from here.
        let now = self.inner.time.now();
        let ended = modules[module.get()].connect(now, handle, token, peer, tables);
        if let Poll::Ready(ended) = ended {
            tables.complete(token, ended.map_or_else(Outcome::Failed, |()| Outcome::Connected));
        }
        tables.settle(queue, slot);
        state.unflushed = true;
        self.release(state);
        Ok(token)
    }

    #[inline(always)]
    fn push_now(
        &self,
        queue: QueueDescriptor,
        mut data: ScatterGather,
        to: Option<&SocketAddr>,
    ) -> Result<Token, Error> {
        if !self.inner.pushed.get() {
            let raw = self.push_straight(queue, &mut data, to);
            if raw != 0 {
                // It was taken: there is nothing to drop.
                std::mem::forget(data);
                return Ok(Token::from_raw(raw));
            }
        }
        self.push_any(queue, &mut data, to).into()
    }

    /// A push that is the first since the last poll, and all there is to do for its module. Its token, or 0 when it is
    /// for [`Self::push_any`].
    #[inline(never)]
    fn push_straight(
        &self,
        queue: QueueDescriptor,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
    ) -> u64 {
        if let Ok(mut state) = self.state_as_is()
            && let super::State { tables, modules, .. } = &mut *state
            && let Ok(&Queue { module, handle, .. }) = tables.descriptors.get(queue)
            && tables.operations.prepare_lone_push(queue)
            && modules[module.get()].push_straight(&self.inner.time, handle, data, to)
        {
            self.inner.pushed.set(true);
            return tables.operations.put_lone_push().raw();
        }
        0
    }

    #[inline(never)]
    fn push_any(
        &self,
        queue: QueueDescriptor,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
    ) -> Submitted {
        self.push_for(queue, data, to, Claim::Program).into()
    }

    #[inline(always)]
    fn push_for(
        &self,
        queue: QueueDescriptor,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        claim: Claim,
    ) -> Result<Token, Error> {
        let mut state = self.state_as_is()?;
        let super::State { tables, modules, unflushed, .. } = &mut *state;
        let (module, handle, mut token) = tables.begin_push(queue)?;
        let module = &mut *modules[module.get()];
        let is_first = !self.inner.pushed.replace(true);
        let departure = if is_first { Departure::Now } else { Departure::WithPoll };
        match module.push(&self.inner.time, handle, token, data, to, departure, tables) {
            // A wait for it need not ask whether a poll is due: what was to be sent was sent.
            Poll::Ready(Ok(()))
                if is_first
                    && !claim.is_future()
                    && let Some(lone) = tables.operations.keep_lone_push(queue) =>
            {
                token = lone;
            }
            ended => tables.end_push(queue, claim.is_future(), ended)?,
        }
        *unflushed = !is_first;
        self.release(state);
        Ok(token)
    }

    /// A pop of a program with the default limit: as [`Self::push_now`].
    #[inline(never)]
    fn pop_now(&self, queue: QueueDescriptor) -> Submitted {
        self.pop_for(queue, PopLimit::default(), Claim::Program).into()
    }

    #[inline(always)]
    fn pop_for(&self, queue: QueueDescriptor, limit: PopLimit, claim: Claim) -> Result<Token, Error> {
        if limit.segments == 0 || limit.bytes == 0 {
            return Err(Error::InvalidArgument);
        }
        // Nothing in here calls anything, so that nothing has to be saved for it.
        if let Ok(mut state) = self.state_as_is()
            && let Some(token) = state.tables.submit_dry_pop(queue, limit, claim.is_future())
        {
            return Ok(token);
        }
        self.pop_asking(queue, limit, claim).into()
    }

    /// A pop on a queue that may have something.
    #[inline(never)]
    fn pop_asking(&self, queue: QueueDescriptor, limit: PopLimit, claim: Claim) -> Submitted {
        self.ask_for_pop(queue, limit, claim).into()
    }

    #[inline(always)]
    fn ask_for_pop(&self, queue: QueueDescriptor, limit: PopLimit, claim: Claim) -> Result<Token, Error> {
        let mut state = self.state()?;
        let super::State { tables, modules, unflushed, .. } = &mut *state;
        let Submission { slot, token, module, handle } =
            tables.submit(queue, OperationKind::Pop, claim.is_future())?;
        let popped = if tables.is_dry(queue) {
            Poll::Pending
        } else {
            modules[module.get()].pop(self.now(), handle, queue, limit, tables)
        };
        match popped {
            Poll::Pending => tables.settle_pop(queue, slot, limit),
            Poll::Ready(Ok(Popped { data, from })) => {
                tables.succeed(slot, Outcome::Popped { data, from });
                // A stream's window may have to be told.
                *unflushed = true;
            }
            Poll::Ready(Err(error)) => tables.finish(slot, Outcome::Failed(error)),
        }
        self.release(state);
        Ok(token)
    }

    /// Takes the next incoming connection. Completes as [`Outcome::Accepted`].
    ///
    /// # Errors
    /// See [`Self::submit`].
    pub fn accept(&self, queue: QueueDescriptor) -> Result<Token, Error> {
        self.accept_for(queue, Claim::Program)
    }

    /// Connects to a peer. Completes as [`Outcome::Connected`].
    ///
    /// # Errors
    /// See [`Self::submit`].
    pub fn connect(&self, queue: QueueDescriptor, peer: SocketAddr) -> Result<Token, Error> {
        self.connect_for(queue, peer, Claim::Program)
    }

    /// Sends to the connected peer, or appends to the in-memory queue. Nothing is copied. Completes as
    /// [`Outcome::Pushed`] when the module has taken all of the data, which
    /// for a full send queue is later; the program's own buffers may be dropped at once.
    ///
    /// # Errors
    /// See [`Self::submit`].
    #[inline]
    pub fn push(&self, queue: QueueDescriptor, data: impl Into<ScatterGather>) -> Result<Token, Error> {
        self.push_now(queue, data.into(), None)
    }

    /// Sends a datagram to `peer`. Completes as [`Self::push`].
    ///
    /// # Errors
    /// See [`Self::submit`].
    #[inline]
    pub fn pushto(
        &self,
        queue: QueueDescriptor,
        data: impl Into<ScatterGather>,
        peer: SocketAddr,
    ) -> Result<Token, Error> {
        self.push_now(queue, data.into(), Some(&peer))
    }

    /// Receives up to the default limit. Completes as [`Outcome::Popped`]; empty
    /// data on a stream is its end.
    ///
    /// # Errors
    /// See [`Self::submit`].
    #[inline]
    pub fn pop(&self, queue: QueueDescriptor) -> Result<Token, Error> {
        self.pop_now(queue).into()
    }

    /// As [`Self::pop`], up to `limit`.
    ///
    /// # Errors
    /// See [`Self::submit`].
    pub fn pop_with(&self, queue: QueueDescriptor, limit: PopLimit) -> Result<Token, Error> {
        self.pop_for(queue, limit, Claim::Program)
    }

    /// Closes the queue and frees the descriptor at once. Outstanding operations complete as failed with
    /// [`Error::Cancelled`], in the order of their submission, and then the close completes as
    /// [`Outcome::Closed`]: at once, and what was pushed before is still sent; but of a socket that lingers
    /// ([`SocketOption::Linger`]) only when that is acknowledged, and as failed when the time is over first or the
    /// peer resets. Giving such a close up ends the waiting, not the closing.
    ///
    /// # Errors
    /// See [`Self::submit`].
    pub fn close(&self, queue: QueueDescriptor) -> Result<Token, Error> {
        let now = self.now();
        let mut state = self.state()?;
        let Submission { slot, token, module, handle } = state.tables.close(queue)?;
        if let Poll::Ready(closed) = state.modules[module.get()].close_for(now, handle, token) {
            let outcome = closed.map_or_else(Outcome::Failed, |()| Outcome::Closed);
            state.tables.finish(slot, outcome);
        }
        state.unflushed = true;
        self.release(state);
        Ok(token)
    }

    /// Takes the completion if it is there; `None` while the operation is outstanding. Never polls.
    ///
    /// # Errors
    /// [`Error::BadToken`] for a token that was never given out, whose completion was taken, or for
    /// which a future waits.
    #[inline]
    pub fn try_take(&self, token: Token) -> Result<Option<Completion>, Error> {
        let operations = &mut self.state()?.tables.operations;
        Ok(operations.find_completed(token)?.map(|(slot, _)| operations.take(slot)))
    }

    /// Gives an outstanding operation up: it completes as failed with [`Error::Cancelled`], and the
    /// completion is to be taken as any other. One that has completed already stays as it is. Data
    /// of a cancelled push may or may not have been sent in part; a cancelled pop loses no data.
    ///
    /// # Errors
    /// [`Error::BadToken`] as [`Self::try_take`].
    pub fn cancel(&self, token: Token) -> Result<(), Error> {
        let mut state = self.state()?;
        match state.tables.operations.find_completed(token)? {
            Some(_) => Ok(()),
            None => {
                state.cancel(token);
                state.tables.end(token, Outcome::Failed(Error::Cancelled))?;
                self.release(state);
                Ok(())
            }
        }
    }

    /// Gives an operation up together with its completion, which nobody needs to take then. Data
    /// that a completed pop brought is dropped; a connection that a completed accept brought is closed.
    ///
    /// # Errors
    /// [`Error::BadToken`] as [`Self::try_take`].
    pub fn discard(&self, token: Token) -> Result<(), Error> {
        let now = self.now();
        let mut state = self.state()?;
        state.tables.operations.find_completed(token)?;
        let result = state.discard(now, token);
        self.release(state);
        result
    }

    /// True when a completion can be taken without a poll.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.state().is_ok_and(|state| state.tables.operations.has_ready())
    }
}
