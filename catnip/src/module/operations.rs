//! Operations: started at once where the stack can, kept until an event where it can't.

use std::net::SocketAddr;

use libos::module::Completions;
use libos::{Error, Handle, Instant, Operation, Outcome, PopLimit, Runtime, ScatterGather, Token};

use super::StackModule;
use super::fifo::Fifo;
use super::sockets::{Datagram, Socket, Stream, any_address, check_family};
use crate::events::{Event, ListenerId, Readiness, UdpId};
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
                stream.pops.push(token, limit);
                pop_stream(&mut self.stack, stream, completions);
            }
            (Socket::Datagram(_), Operation::Push(data)) => {
                self.push_datagram(now, key, token, data, None, completions);
            }
            (Socket::Datagram(_), Operation::PushTo(data, to)) => {
                self.push_datagram(now, key, token, data, Some(to), completions);
            }
            (Socket::Datagram(_), Operation::Pop(limit)) => {
                self.pop_from_datagram(key, token, limit, completions);
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

    /// The stack's socket of a datagram socket, made now if it has none.
    fn datagram_id(stack: &mut Stack, key: Key, datagram: &mut Datagram) -> Result<UdpId, Error> {
        if let Some(id) = datagram.id {
            return Ok(id);
        }
        let id = stack.udp_bind(any_address(datagram.domain))?;
        stack.udp_set_user_data(id, key.to_bits());
        datagram.id = Some(id);
        Ok(id)
    }

    fn connect_datagram(&mut self, now: Instant, key: Key, remote: SocketAddr) -> Result<(), Error> {
        let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else {
            return Err(Error::BadDescriptor);
        };
        check_family(datagram.domain, remote)?;
        let id = Self::datagram_id(&mut self.stack, key, datagram)?;
        self.stack.udp_connect(now, id, remote)
    }

    fn push_datagram(
        &mut self,
        now: Instant,
        key: Key,
        token: Token,
        mut data: ScatterGather,
        to: Option<SocketAddr>,
        completions: &mut dyn Completions,
    ) {
        let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { return };
        if let Some(to) = to
            && let Err(error) = check_family(datagram.domain, to)
        {
            completions.complete(token, Outcome::Failed(error));
            return;
        }
        let is_blocked = !datagram.pushes.is_empty();
        if is_blocked || self.stack.transmit_queue_is_full() {
            datagram.pushes.push(token, (data, to));
            if !is_blocked {
                self.blocked.push(key);
            }
            return;
        }
        let sent = Self::datagram_id(&mut self.stack, key, datagram)
            .and_then(|id| self.stack.udp_send(now, id, to, &mut data));
        completions.complete(token, sent.map_or_else(Outcome::Failed, |()| Outcome::Pushed));
    }

    /// Sends datagrams that waited for room in the device's queue, as far as there is room now.
    #[cold]
    pub(super) fn retry_blocked(&mut self, now: Instant, completions: &mut dyn Completions) {
        for key in std::mem::take(&mut self.blocked) {
            let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { continue };
            while !self.stack.transmit_queue_is_full() {
                let Some((token, (mut data, to))) = datagram.pushes.pop() else { break };
                let sent = Self::datagram_id(&mut self.stack, key, datagram)
                    .and_then(|id| self.stack.udp_send(now, id, to, &mut data));
                completions.complete(token, sent.map_or_else(Outcome::Failed, |()| Outcome::Pushed));
            }
            if !datagram.pushes.is_empty() {
                self.blocked.push(key);
            }
        }
    }

    fn pop_from_datagram(
        &mut self,
        key: Key,
        token: Token,
        limit: PopLimit,
        completions: &mut dyn Completions,
    ) {
        let Some(Socket::Datagram(datagram)) = self.sockets.get_mut(key) else { return };
        match Self::datagram_id(&mut self.stack, key, datagram) {
            Ok(id) => {
                datagram.pops.push(token, limit);
                pop_datagrams(&mut self.stack, id, &mut datagram.pops, completions);
            }
            Err(error) => completions.complete(token, Outcome::Failed(error)),
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

/// Completes waiting pops with what has arrived.
fn pop_stream(stack: &mut Stack, stream: &mut Stream, completions: &mut dyn Completions) {
    while let Some(&mut (token, limit)) = stream.pops.front_mut() {
        let outcome = match stack.tcp_receive(stream.id, limit) {
            Ok(Some(data)) => Outcome::Popped { data, from: None },
            Ok(None) => return,
            Err(error) => Outcome::Failed(error),
        };
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
        pop_stream(stack, stream, completions);
    }
    if !stream.pushes.is_empty() {
        serve_pushes(stack, stream, completions);
    }
}

fn pop_datagrams(stack: &mut Stack, id: UdpId, pops: &mut Fifo<PopLimit>, completions: &mut dyn Completions) {
    while let Some(&mut (token, _)) = pops.front_mut() {
        let outcome = match stack.udp_receive(id) {
            Ok(Some(datagram)) => Outcome::Popped { data: datagram.data, from: Some(datagram.from) },
            Ok(None) => return,
            Err(error) => Outcome::Failed(error),
        };
        pops.pop();
        completions.complete(token, outcome);
    }
}
