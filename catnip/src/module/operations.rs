//! Operations: started at once where the stack can, kept until an event where it can't.

use std::net::SocketAddr;

use libos::module::Completions;
use libos::{Error, Handle, Instant, Operation, Outcome, PopLimit, Runtime, ScatterGather, Token};

use super::StackModule;
use super::fifo::Fifo;
use super::sockets::{Datagram, Socket, Stream, any_address, check_family};
use crate::events::{ConnectionId, Event, ListenerId, Readiness, UdpId};
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
        let Some(socket) = self.sockets.get_mut(key) else {
            completions.complete(token, Outcome::Failed(Error::BadDescriptor));
            return;
        };
        if self.device_failed && !matches!(socket, Socket::Stream(_)) {
            completions.complete(token, Outcome::Failed(Error::DeviceFailed));
            return;
        }
        match (socket, operation) {
            (Socket::Stream(stream), Operation::Push(data)) => {
                push_stream(&mut self.stack, stream, token, data, completions);
            }
            (Socket::Stream(stream), Operation::Pop(limit)) => {
                // Whoever waits already has taken all there is.
                let popped = stream.pops.is_empty().then(|| pop_stream(&mut self.stack, stream.id, limit));
                match popped.flatten() {
                    Some(outcome) => completions.complete(token, outcome),
                    None => stream.pops.push(token, limit),
                }
            }
            (Socket::Datagram(datagram), Operation::PushTo(mut data, to)) => {
                if self.stack.transmit_queue_is_full() || !datagram.pushes.is_empty() {
                    block_push(&mut self.blocked, (key, datagram), token, (data, Some(to)));
                } else {
                    let outcome = send_datagram(&mut self.stack, now, (key, datagram), &mut data, Some(to));
                    completions.complete(token, outcome);
                }
            }
            (Socket::Datagram(datagram), Operation::Push(mut data)) => {
                if self.stack.transmit_queue_is_full() || !datagram.pushes.is_empty() {
                    block_push(&mut self.blocked, (key, datagram), token, (data, None));
                } else {
                    let outcome = send_datagram(&mut self.stack, now, (key, datagram), &mut data, None);
                    completions.complete(token, outcome);
                }
            }
            (Socket::Datagram(datagram), Operation::Pop(limit)) => {
                match datagram_id(&mut self.stack, key, datagram) {
                    Ok(id) => {
                        // Whoever waits already has taken all there is.
                        let outcome = datagram.pops.is_empty().then(|| pop_datagram(&mut self.stack, id));
                        match outcome.flatten() {
                            Some(outcome) => completions.complete(token, outcome),
                            None => datagram.pops.push(token, limit),
                        }
                    }
                    Err(error) => completions.complete(token, Outcome::Failed(error)),
                }
            }
            (Socket::Listener { id, accepts }, Operation::Accept) => {
                accepts.push(token, ());
                let id = *id;
                self.serve_accepts(key, id, completions);
            }
            (Socket::Fresh(_), Operation::Connect(remote)) => {
                self.connect_stream(now, key, token, remote, completions);
            }
            (Socket::Datagram(_), Operation::Connect(remote)) => {
                let outcome = match self.connect_datagram(now, key, remote) {
                    Ok(()) => Outcome::Connected,
                    Err(error) => Outcome::Failed(error),
                };
                completions.complete(token, outcome);
            }
            (Socket::Stream(_), Operation::Connect(_)) => {
                completions.complete(token, Outcome::Failed(Error::AlreadyConnected));
            }
            // A connected stream ignores the address, as POSIX has it.
            (Socket::Stream(stream), Operation::PushTo(data, _)) => {
                push_stream(&mut self.stack, stream, token, data, completions);
            }
            (Socket::Fresh(_), Operation::Push(_) | Operation::PushTo(..) | Operation::Pop(_))
            | (Socket::Listener { .. }, Operation::Push(_) | Operation::PushTo(..) | Operation::Pop(_)) => {
                completions.complete(token, Outcome::Failed(Error::NotConnected));
            }
            (Socket::Fresh(_) | Socket::Stream(_), Operation::Accept)
            | (Socket::Listener { .. }, Operation::Connect(_)) => {
                completions.complete(token, Outcome::Failed(Error::InvalidArgument));
            }
            (Socket::Datagram(_), Operation::Accept) => {
                completions.complete(token, Outcome::Failed(Error::NotSupported));
            }
        }
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
                if let Some(id) = datagram.id {
                    pop_datagrams(&mut self.stack, id, &mut datagram.pops, completions);
                }
            }
            Some(&mut Socket::Listener { id, .. }) => self.serve_accepts(key, id, completions),
            Some(Socket::Fresh(_)) | None => {}
        }
    }

    fn connect_datagram(&mut self, now: Instant, key: Key, remote: SocketAddr) -> Result<(), Error> {
        let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else {
            return Err(Error::BadDescriptor);
        };
        check_family(datagram.domain, remote)?;
        let id = datagram_id(&mut self.stack, key, datagram)?;
        self.stack.udp_connect(now, id, remote)
    }

    /// Sends datagrams that waited for room in the device's queue, as far as there is room now.
    #[cold]
    pub(super) fn retry_blocked(&mut self, now: Instant, completions: &mut dyn Completions) {
        for key in std::mem::take(&mut self.blocked) {
            let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { continue };
            while !self.stack.transmit_queue_is_full() {
                let Some((token, (mut data, to))) = datagram.pushes.pop() else { break };
                let outcome = send_datagram(&mut self.stack, now, (key, datagram), &mut data, to);
                completions.complete(token, outcome);
            }
            if !datagram.pushes.is_empty() {
                self.blocked.push(key);
            }
        }
    }
}

/// The stack's socket of a datagram socket, made now if it has none.
#[inline]
fn datagram_id(stack: &mut Stack, key: Key, datagram: &mut Datagram) -> Result<UdpId, Error> {
    match datagram.id {
        Some(id) => Ok(id),
        None => make_datagram_id(stack, key, datagram),
    }
}

#[cold]
fn make_datagram_id(stack: &mut Stack, key: Key, datagram: &mut Datagram) -> Result<UdpId, Error> {
    let id = stack.udp_bind(any_address(datagram.domain))?;
    stack.udp_set_user_data(id, key.to_bits());
    datagram.id = Some(id);
    Ok(id)
}

/// Hands one datagram to the stack.
#[inline]
fn send_datagram(
    stack: &mut Stack,
    now: Instant,
    (key, datagram): (Key, &mut Datagram),
    data: &mut ScatterGather,
    to: Option<SocketAddr>,
) -> Outcome {
    if let Some(to) = to
        && let Err(error) = check_family(datagram.domain, to)
    {
        return Outcome::Failed(error);
    }
    let sent = datagram_id(stack, key, datagram).and_then(|id| stack.udp_send(now, id, to, data));
    match sent {
        Ok(()) => Outcome::Pushed,
        Err(error) => Outcome::Failed(error),
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

/// Keeps a datagram until the device's queue has room.
#[cold]
fn block_push(
    blocked: &mut Vec<Key>,
    (key, datagram): (Key, &mut Datagram),
    token: Token,
    push: (ScatterGather, Option<SocketAddr>),
) {
    if datagram.pushes.is_empty() {
        blocked.push(key);
    }
    datagram.pushes.push(token, push);
}

/// What a pop ends with now; `None` when nothing has arrived.
#[inline]
fn pop_datagram(stack: &mut Stack, id: UdpId) -> Option<Outcome> {
    match stack.udp_receive(id) {
        Ok(Some(crate::udp::Datagram { data, from })) => Some(Outcome::Popped { data, from: Some(from) }),
        Ok(None) => None,
        Err(error) => Some(Outcome::Failed(error)),
    }
}

/// Completes waiting pops with what has arrived.
#[inline]
fn pop_datagrams(stack: &mut Stack, id: UdpId, pops: &mut Fifo<PopLimit>, completions: &mut dyn Completions) {
    while let Some(&mut (token, _)) = pops.front_mut() {
        let Some(outcome) = pop_datagram(stack, id) else { return };
        pops.pop();
        completions.complete(token, outcome);
    }
}
