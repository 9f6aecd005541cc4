//! Operations: started at once where the stack can, kept until an event where it can't.

use std::net::SocketAddr;

use libos::module::Completions;
use libos::{Error, Handle, Instant, Operation, Outcome, PopLimit, Runtime, ScatterGather, Token};

use super::StackModule;
use super::datagrams::{self, Call};
use super::sockets::{Socket, Stream, check_family};
use crate::events::{ConnectionId, Event, ListenerId, Readiness};
use crate::slab::Key;
use crate::stack::Stack;

impl<R: Runtime> StackModule<R> {
    pub(super) fn start(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        operation: Operation,
        completions: &mut dyn Completions,
    ) {
        let key = Key::from_bits(handle.0);
        let failure = match self.sockets.get_mut(key) {
            Some(Socket::Fresh(_) | Socket::Listener { .. } | Socket::Datagram(_)) if self.device_failed => {
                Error::DeviceFailed
            }
            Some(Socket::Datagram(datagram)) => {
                let (stack, blocked) = (&mut self.stack, &mut self.blocked);
                return Call { stack, blocked, now, key, token, completions }.start(datagram, operation);
            }
            Some(Socket::Stream(stream)) => match operation {
                // A connected stream ignores the address, as POSIX has it.
                Operation::Push(data) | Operation::PushTo(data, _) => {
                    return push_stream(&mut self.stack, stream, token, data, completions);
                }
                Operation::Pop(limit) => {
                    // Whoever waits already has taken all there is.
                    let popped =
                        stream.pops.is_empty().then(|| pop_stream(&mut self.stack, stream.id, limit));
                    match popped.flatten() {
                        Some(outcome) => completions.complete(token, outcome),
                        None => stream.pops.push(token, limit),
                    }
                    return;
                }
                Operation::Connect(_) => Error::AlreadyConnected,
                Operation::Accept => Error::InvalidArgument,
            },
            Some(Socket::Listener { id, accepts }) => match operation {
                Operation::Accept => {
                    accepts.push(token, ());
                    let id = *id;
                    return self.serve_accepts(key, id, completions);
                }
                Operation::Connect(_) => Error::InvalidArgument,
                Operation::Push(_) | Operation::PushTo(..) | Operation::Pop(_) => Error::NotConnected,
            },
            Some(Socket::Fresh(_)) => match operation {
                Operation::Connect(remote) => {
                    return self.connect_stream(now, key, token, remote, completions);
                }
                Operation::Accept => Error::InvalidArgument,
                Operation::Push(_) | Operation::PushTo(..) | Operation::Pop(_) => Error::NotConnected,
            },
            None => Error::BadDescriptor,
        };
        completions.complete(token, Outcome::Failed(failure));
    }

    fn connect_stream(
        &mut self,
        now: Instant,
        key: Key,
        token: Token,
        remote: SocketAddr,
        completions: &mut dyn Completions,
    ) {
        let Some(socket) = self.sockets.get_mut(key) else { return };
        let Socket::Fresh(fresh) = socket else { return };
        let result = check_family(fresh.domain, remote)
            .and_then(|()| self.stack.tcp_connect(now, fresh.binding.take(), remote, &fresh.options));
        match result {
            Ok(id) => {
                self.stack.tcp_set_user_data(id, key.to_bits());
                *socket = Socket::Stream(Stream { connect: Some(token), ..Stream::new(id) });
            }
            Err(error) => completions.complete(token, Outcome::Failed(error)),
        }
    }

    /// Gives waiting accepts the connections that are ready.
    fn serve_accepts(&mut self, key: Key, id: ListenerId, completions: &mut dyn Completions) {
        loop {
            let Some(Socket::Listener { accepts, .. }) = self.sockets.get_mut(key) else { return };
            let Some(&mut (token, ())) = accepts.front_mut() else { return };
            let Some((connection, peer)) = self.stack.tcp_accept(id) else { return };
            accepts.pop();
            let Some(accepted) = self.sockets.insert(Socket::Stream(Stream::new(connection))) else {
                self.stack.tcp_unaccept(id, connection);
                completions.complete(token, Outcome::Failed(Error::TooManyConnections));
                return;
            };
            self.stack.tcp_set_user_data(connection, accepted.to_bits());
            if completions.accepted(token, Handle(accepted.to_bits()), peer).is_err() {
                // Nobody has it: it goes back to the front of the backlog.
                self.sockets.remove(accepted);
                self.stack.tcp_unaccept(id, connection);
            }
        }
    }

    pub(super) fn on_event(&mut self, event: Event, completions: &mut dyn Completions) {
        let key = Key::from_bits(event.user_data);
        match self.sockets.get_mut(key) {
            Some(Socket::Stream(stream)) => {
                on_stream_event(&mut self.stack, stream, event.readiness, completions);
            }
            Some(Socket::Datagram(datagram)) => {
                datagrams::serve_pops(&mut self.stack, datagram, completions);
            }
            Some(&mut Socket::Listener { id, .. }) => self.serve_accepts(key, id, completions),
            Some(Socket::Fresh(_)) | None => {}
        }
    }
}

fn push_stream(
    stack: &mut Stack,
    stream: &mut Stream,
    token: Token,
    mut data: ScatterGather,
    completions: &mut dyn Completions,
) {
    // One that waits keeps all later ones behind it.
    if stream.pushes.is_empty() {
        match stack.tcp_send(stream.id, &mut data) {
            Ok(_) if data.is_empty() => {
                completions.complete(token, Outcome::Pushed);
                return;
            }
            Ok(_) => {}
            Err(error) => {
                completions.complete(token, Outcome::Failed(error));
                return;
            }
        }
    }
    stream.pushes.push(token, data);
}

/// Moves waiting pushes into the send queue, as far as it has room.
fn serve_pushes(stack: &mut Stack, stream: &mut Stream, completions: &mut dyn Completions) {
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
fn pop_stream(stack: &mut Stack, id: ConnectionId, limit: PopLimit) -> Option<Outcome> {
    match stack.tcp_receive(id, limit) {
        Ok(Some(data)) => Some(Outcome::Popped { data, from: None }),
        Ok(None) => None,
        Err(error) => Some(Outcome::Failed(error)),
    }
}

/// Completes waiting pops with what has arrived.
#[inline]
fn serve_pops(stack: &mut Stack, stream: &mut Stream, completions: &mut dyn Completions) {
    while let Some(&mut (token, limit)) = stream.pops.front_mut() {
        let Some(outcome) = pop_stream(stack, stream.id, limit) else { return };
        stream.pops.pop();
        completions.complete(token, outcome);
    }
}

fn on_stream_event(
    stack: &mut Stack,
    stream: &mut Stream,
    readiness: Readiness,
    completions: &mut dyn Completions,
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
    if !stream.pops.is_empty() {
        serve_pops(stack, stream, completions);
    }
    if !stream.pushes.is_empty() {
        serve_pushes(stack, stream, completions);
    }
}
