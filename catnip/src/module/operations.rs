//! Operations: started at once where the stack can, kept until an event where it can't.

use std::net::SocketAddr;
use std::task::Poll;

use libos::module::{Completions, Departure, Popped, WaitingPop};
use libos::time::Timekeeper;
use libos::{Error, Handle, Instant, Outcome, PopLimit, QueueDescriptor, Runtime, ScatterGather, Token};

use super::StackModule;
use super::datagrams;
use super::sockets::{Socket, Stream, check_family};
use crate::events::{ConnectionId, Event, ListenerId, Readiness};
use crate::slab::Key;
use crate::stack::Stack;

impl<R: Runtime> StackModule<R> {
    #[inline(always)]
    pub(super) fn start_push(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        departure: Departure,
    ) -> Poll<Result<(), Error>> {
        let key = Key::from_bits(handle.0);
        match self.sockets.get_mut(key) {
            Some(Socket::Stream(stream)) => {
                // Round trips are measured from here, and the last poll may be long ago.
                let now = if departure == Departure::Now { time.now() } else { time.last() };
                // A connected stream ignores the address, as POSIX has it.
                push_stream(self.stack.stir(), now, stream, token, data)
            }
            Some(_) if self.device_failed => Poll::Ready(Err(Error::DeviceFailed)),
            Some(Socket::Datagram(datagram)) => {
                let (stack, blocked) = (self.stack.stir(), &mut self.blocked);
                datagrams::push(stack, blocked, time.last(), key, token, datagram, data, to)
            }
            Some(Socket::Listener { .. } | Socket::Fresh(_)) => Poll::Ready(Err(Error::NotConnected)),
            Some(Socket::Closing { .. }) | None => Poll::Ready(Err(Error::BadDescriptor)),
        }
    }

    #[inline(always)]
    pub(super) fn start_pop(
        &mut self,
        handle: Handle,
        queue: QueueDescriptor,
        limit: PopLimit,
    ) -> Poll<Result<Popped, Error>> {
        let key = Key::from_bits(handle.0);
        match self.sockets.get_mut(key) {
            Some(Socket::Stream(stream)) => {
                stream.popped_as = Some(queue);
                pop_stream(self.stack.stir(), stream.id, limit).map_or(Poll::Pending, Poll::Ready)
            }
            Some(_) if self.device_failed => Poll::Ready(Err(Error::DeviceFailed)),
            Some(Socket::Datagram(datagram)) => datagrams::pop(self.stack.stir(), key, queue, datagram),
            Some(Socket::Listener { .. } | Socket::Fresh(_)) => Poll::Ready(Err(Error::NotConnected)),
            Some(Socket::Closing { .. }) | None => Poll::Ready(Err(Error::BadDescriptor)),
        }
    }

    pub(super) fn start_accept(
        &mut self,
        handle: Handle,
        token: Token,
        completions: &mut Completions,
    ) -> Result<(), Error> {
        let key = Key::from_bits(handle.0);
        Err(match self.sockets.get_mut(key) {
            Some(Socket::Stream(_)) => Error::InvalidArgument,
            Some(_) if self.device_failed => Error::DeviceFailed,
            Some(Socket::Datagram(_)) => Error::NotSupported,
            Some(Socket::Listener { id, accepts }) => {
                accepts.push(token, ());
                let id = *id;
                self.serve_accepts(key, id, completions);
                return Ok(());
            }
            Some(Socket::Fresh(_)) => Error::InvalidArgument,
            Some(Socket::Closing { .. }) | None => Error::BadDescriptor,
        })
    }

    pub(super) fn start_connect(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        remote: SocketAddr,
    ) -> Poll<Result<(), Error>> {
        let key = Key::from_bits(handle.0);
        let socket = match self.sockets.get_mut(key) {
            Some(Socket::Stream(_)) => return Poll::Ready(Err(Error::AlreadyConnected)),
            Some(_) if self.device_failed => return Poll::Ready(Err(Error::DeviceFailed)),
            Some(Socket::Datagram(datagram)) => {
                return Poll::Ready(datagrams::connect(self.stack.stir(), now, key, datagram, remote));
            }
            Some(Socket::Listener { .. }) => return Poll::Ready(Err(Error::InvalidArgument)),
            Some(socket @ Socket::Fresh(_)) => socket,
            Some(Socket::Closing { .. }) | None => return Poll::Ready(Err(Error::BadDescriptor)),
        };
        let Socket::Fresh(fresh) = socket else { return Poll::Ready(Err(Error::InvalidArgument)) };
        let connected = check_family(fresh.domain, remote)
            .and_then(|()| self.stack.stir().tcp_connect(now, &mut fresh.binding, remote, &fresh.options));
        match connected {
            Ok(id) => {
                self.stack.stir().tcp_set_user_data(id, key.to_bits());
                *socket = Socket::Stream(Stream { connect: Some(token), ..Stream::new(id) });
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Gives waiting accepts the connections that are ready.
    fn serve_accepts(&mut self, key: Key, id: ListenerId, completions: &mut Completions) {
        loop {
            let Some(Socket::Listener { accepts, .. }) = self.sockets.get_mut(key) else { return };
            let Some(&mut (token, ())) = accepts.front_mut() else { return };
            let Some((connection, peer)) = self.stack.stir().tcp_accept(id) else { return };
            accepts.pop();
            let Some(accepted) = self.sockets.insert(Socket::Stream(Stream::new(connection))) else {
                self.stack.stir().tcp_unaccept(id, connection);
                completions.complete(token, Outcome::Failed(Error::TooManyConnections));
                return;
            };
            self.stack.stir().tcp_set_user_data(connection, accepted.to_bits());
            if completions.accepted(token, Handle(accepted.to_bits()), peer).is_err() {
                // Nobody has it: it goes back to the front of the backlog.
                self.sockets.remove(accepted);
                self.stack.stir().tcp_unaccept(id, connection);
            }
        }
    }

    pub(super) fn on_event(&mut self, event: Event, completions: &mut Completions) {
        let key = Key::from_bits(event.user_data);
        match self.sockets.get_mut(key) {
            Some(Socket::Stream(stream)) => {
                on_stream_event(self.stack.stir(), stream, event.readiness, completions);
            }
            Some(Socket::Datagram(datagram)) => {
                datagrams::serve_pops(self.stack.stir(), datagram, completions);
            }
            Some(&mut Socket::Listener { id, .. }) => self.serve_accepts(key, id, completions),
            Some(&mut Socket::Closing { id, close }) => {
                if event.readiness.contains(Readiness::CLOSED) {
                    self.sockets.remove(key);
                    let ended = self.stack.stir().tcp_end_close(id);
                    completions.complete(close, ended.map_or_else(Outcome::Failed, |()| Outcome::Closed));
                }
            }
            Some(Socket::Fresh(_)) | None => {}
        }
    }
}

#[inline]
fn push_stream(
    stack: &mut Stack,
    now: Instant,
    stream: &mut Stream,
    token: Token,
    data: &mut ScatterGather,
) -> Poll<Result<(), Error>> {
    // One that waits keeps all later ones behind it.
    if stream.pushes.is_empty() {
        match stack.tcp_push(now, stream.id, data) {
            Ok(_) if data.is_empty() => return Poll::Ready(Ok(())),
            Ok(_) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    stream.pushes.push(token, std::mem::take(data));
    Poll::Pending
}

/// Moves waiting pushes into the send queue, as far as it has room.
fn serve_pushes(stack: &mut Stack, stream: &mut Stream, completions: &mut Completions) {
    while let Some((_, data)) = stream.pushes.front_mut() {
        let outcome = match stack.tcp_send(stream.id, data) {
            Ok(_) if data.is_empty() => Outcome::Pushed,
            Ok(_) => return,
            Err(error) => Outcome::Failed(error),
        };
        if let Some((token, _)) = stream.pushes.pop() {
            completions.complete(token, outcome);
        }
    }
}

/// What a pop ends with now; `None` when nothing has arrived.
#[inline]
fn pop_stream(stack: &mut Stack, id: ConnectionId, limit: PopLimit) -> Option<Result<Popped, Error>> {
    match stack.tcp_receive(id, limit) {
        Ok(Some(data)) => Some(Ok(Popped { data, from: None })),
        Ok(None) => None,
        Err(error) => Some(Err(error)),
    }
}

/// Completes waiting pops with what has arrived.
#[inline]
fn serve_pops(stack: &mut Stack, stream: &mut Stream, completions: &mut Completions) {
    let Some(queue) = stream.popped_as else { return };
    while let Some(pop) = completions.waiting_pop(queue) {
        match pop_stream(stack, stream.id, pop.limit) {
            Some(popped) => end_pop(completions, pop, popped),
            None => return,
        }
    }
}

/// Ends a pop that waited.
pub(super) fn end_pop(completions: &mut Completions, pop: WaitingPop, popped: Result<Popped, Error>) {
    match popped {
        Ok(Popped { data, from }) => completions.popped(pop, data, from),
        Err(error) => completions.pop_failed(pop, error),
    }
}

fn on_stream_event(
    stack: &mut Stack,
    stream: &mut Stream,
    readiness: Readiness,
    completions: &mut Completions,
) {
    if let Some(token) = stream.connect {
        if readiness.contains(Readiness::CONNECTED) {
            stream.connect = None;
            completions.complete(token, Outcome::Connected);
        } else if readiness.contains(Readiness::CLOSED) {
            stream.connect = None;
            let error = stack.tcp_error(stream.id).unwrap_or(Error::ConnectionAborted);
            completions.complete(token, Outcome::Failed(error));
        }
    }
    serve_pops(stack, stream, completions);
    if !stream.pushes.is_empty() {
        serve_pushes(stack, stream, completions);
    }
}
