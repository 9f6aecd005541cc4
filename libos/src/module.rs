//! What a module is: the part behind a queue descriptor that does the work.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::task::Poll;

pub use crate::queues::{Completions, WaitingPop};

use crate::channel::ChannelEnd;
use crate::metrics::MetricsSink;
use crate::time::Timekeeper;
use crate::{
    Domain, Error, FilterMode, GroupMembership, Instant, PopLimit, QueueDescriptor, ScatterGather, Shutdown,
    SocketKind, SocketOption, SocketOptionName, Token,
};

/// A module's own name for one of its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// What a pop brought.
#[derive(Debug)]
pub struct Popped {
    /// The data. Empty data on a stream is the end of the stream.
    pub data: ScatterGather,
    /// Who sent the datagram; `None` on streams.
    pub from: Option<SocketAddr>,
}

/// When what a push left to be sent goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// In the same call: the push is the first one since a poll, and a lone message does not wait for the next.
    Now,
    /// With the next poll, so that a burst leaves as one.
    WithPoll,
}

/// A part of the library OS that serves queues: a protocol stack, in-memory queues, storage.
///
/// The library OS owns descriptors and tokens; the module owns what is behind its handles. An
/// operation is handed over with [`Module::accept`], [`Module::connect`], [`Module::push`] or [`Module::pop`] and ended once: by the
/// answer, or through [`Completions`], in the call itself or in a later [`Module::poll`]. Operations of one direction on one handle
/// complete in the order in which they were submitted. Pops that wait are the library OS's to keep: a module that has
/// something for a queue looks who waits with [`Completions::waiting_pop`].
pub trait Module {
    /// The module's name, for messages and metrics.
    fn name(&self) -> &str;

    /// Why the module's device failed, in words. None while it works, or when there is none.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Makes an in-memory queue.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the module has none.
    fn queue(&mut self) -> Result<Handle, Error> {
        Err(Error::NotSupported)
    }

    /// Takes an end of a channel to another library OS out of `end` and makes a queue of it.
    ///
    /// # Errors
    /// [`Error::NotSupported`], and the end left where it was, when the module has no such queues.
    fn attach(&mut self, end: &mut Option<ChannelEnd>) -> Result<Handle, Error> {
        let _ = end;
        Err(Error::NotSupported)
    }

    /// Makes a socket.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the module serves no such sockets: the next module is asked.
    fn socket(&mut self, domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        let _ = (domain, kind);
        Err(Error::NotSupported)
    }

    /// Gives the socket a local address; port 0 picks a free one.
    ///
    /// # Errors
    /// As `bind` of POSIX.
    fn bind(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        let _ = (handle, local);
        Err(Error::NotSupported)
    }

    /// Makes the socket accept connections, `backlog` of them unaccepted at most.
    ///
    /// # Errors
    /// As `listen` of POSIX.
    fn listen(&mut self, handle: Handle, backlog: usize) -> Result<(), Error> {
        let _ = (handle, backlog);
        Err(Error::NotSupported)
    }

    /// Ends one or both directions.
    ///
    /// # Errors
    /// As `shutdown` of POSIX.
    fn shutdown(&mut self, handle: Handle, how: Shutdown) -> Result<(), Error> {
        let _ = (handle, how);
        Err(Error::NotSupported)
    }

    /// Sets an option.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an option this queue does not have, [`Error::InvalidArgument`]
    /// for a value outside what it takes.
    fn set_option(&mut self, handle: Handle, option: SocketOption) -> Result<(), Error> {
        let _ = (handle, option);
        Err(Error::NotSupported)
    }

    /// Reads an option. Reading [`SocketOptionName::PendingError`] clears it.
    ///
    /// # Errors
    /// [`Error::NotSupported`] for an option this queue does not have.
    fn option(&mut self, handle: Handle, name: SocketOptionName) -> Result<SocketOption, Error> {
        let _ = (handle, name);
        Err(Error::NotSupported)
    }

    /// Says whose datagrams to a group are wanted, in the place of what was said before.
    ///
    /// # Errors
    /// As [`LibOs::set_source_filter`](crate::LibOs::set_source_filter).
    fn set_source_filter(
        &mut self,
        handle: Handle,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        let _ = (handle, group, mode, sources);
        Err(Error::NotSupported)
    }

    /// Whose datagrams to a group are wanted.
    ///
    /// # Errors
    /// As [`LibOs::source_filter`](crate::LibOs::source_filter).
    fn source_filter(
        &mut self,
        handle: Handle,
        group: GroupMembership,
    ) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        let _ = (handle, group);
        Err(Error::NotSupported)
    }

    /// The local address.
    ///
    /// # Errors
    /// [`Error::NotSupported`] when the queue has none.
    fn local_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        let _ = handle;
        Err(Error::NotSupported)
    }

    /// The peer's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is no peer, [`Error::NotSupported`] when there never is one.
    fn peer_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        let _ = handle;
        Err(Error::NotSupported)
    }

    /// Takes the next incoming connection of a listening socket. The end is posted with [`Completions::accepted`], in
    /// this call or later. `now` is the time of the last poll or later.
    ///
    /// # Errors
    /// What the accept fails with at once; [`Error::NotSupported`] for what does not listen.
    fn accept(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        completions: &mut Completions,
    ) -> Result<(), Error> {
        let _ = (now, handle, token, completions);
        Err(Error::NotSupported)
    }

    /// Connects a socket. On [`Poll::Pending`] the end is posted, in this call or later. `now` is the present.
    ///
    /// # Errors
    /// What the connect fails with at once; [`Error::NotSupported`] for what has no peers.
    fn connect(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        peer: SocketAddr,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        let _ = (now, handle, token, peer, completions);
        Poll::Ready(Err(Error::NotSupported))
    }

    /// Sends `data` at once, with `to` to that address, if that is all there is to do: nothing else waits at the module, no
    /// timer, and the push ends well. True then, and `data` is taken; false, and nothing done, for all else, which is for
    /// [`Self::push`]. For messages that go where the last ones went, and with few arguments, so that little has to be
    /// carried on the way.
    fn push_straight(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
    ) -> bool {
        let _ = (time, handle, data, to);
        false
    }

    /// Sends `data`, with `to` to that address. Most pushes end at once: then the answer is the end, and nothing is posted.
    /// On [`Poll::Pending`] the end is posted in a later call, and what is left to do with `data` was taken out of it.
    ///
    /// With [`Departure::Now`] what there is to be sent is sent in this call. The last time that was read is the last poll's
    /// or later: whoever measures from what leaves now, a round trip for instance, reads the present.
    ///
    /// # Errors
    /// What the push fails with; [`Error::NotSupported`] for queues into which nothing goes.
    #[allow(clippy::too_many_arguments, reason = "the one call that is made for each message")]
    fn push(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        departure: Departure,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        let _ = (time, handle, token, data, to, departure, completions);
        Poll::Ready(Err(Error::NotSupported))
    }

    /// Answers a pop with what there is, and with [`Poll::Pending`] when there is nothing: then the pop waits, and the
    /// module is to remember that the handle's pops are `queue`'s. Once it has something, be it data, an end or an error, it
    /// gives it to [`Completions::waiting_pop`] of that queue; it is not asked again before that found nobody, or
    /// another call on the queue was made.
    ///
    /// # Errors
    /// What the pop fails with; [`Error::NotSupported`] for queues from which nothing comes.
    fn pop(
        &mut self,
        now: Instant,
        handle: Handle,
        queue: QueueDescriptor,
        limit: PopLimit,
        completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        let _ = (now, handle, queue, limit, completions);
        Poll::Ready(Err(Error::NotSupported))
    }

    /// Gives an outstanding operation other than a pop up: nothing is to be posted for `token` any more.
    fn cancel(&mut self, handle: Handle, token: Token);

    /// Closes the queue. Its outstanding tokens were completed as cancelled; the module forgets them.
    /// What was taken before is still sent and acknowledged in the background.
    fn close(&mut self, now: Instant, handle: Handle);

    /// As [`Self::close`], for a program to which the close's end is told by `token`. Most closes end at once. One of a
    /// queue that lingers ([`SocketOption::Linger`]) ends when what was sent is acknowledged, or when the time is over:
    /// then the answer is [`Poll::Pending`], and the end is posted later, [`Outcome::Closed`] or a failure.
    ///
    /// [`Outcome::Closed`]: crate::Outcome::Closed
    fn close_for(&mut self, now: Instant, handle: Handle, token: Token) -> Poll<Result<(), Error>> {
        let _ = token;
        self.close(now, handle);
        Poll::Ready(Ok(()))
    }

    /// Makes progress: receives, runs timers, sends, completes operations. Bounded work.
    fn poll(&mut self, now: Instant, completions: &mut Completions);

    /// True when there is something that only a poll gets out, such as frames to be sent.
    fn needs_poll(&self) -> bool {
        false
    }

    /// When the module next needs a poll though nothing arrives.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Appends the descriptors that become readable when there is work; returns false when the
    /// module can be woken by nothing but polling.
    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        let _ = fds;
        true
    }

    /// True while peers wait for this module: open connections with data in flight or queued.
    /// Not polling it now costs them time.
    fn has_pending_work(&self) -> bool {
        false
    }

    /// True while something that was closed is not over yet: peers have not been told, or have not answered. May look at
    /// everything.
    fn is_winding_up(&self) -> bool {
        false
    }

    /// Ends at once whatever there still is. Peers are told, with the next poll, as far as they can be.
    fn abort_all(&mut self, now: Instant) {
        let _ = now;
    }

    /// Writes the module's counters.
    fn metrics(&self, sink: &mut dyn MetricsSink);
}
