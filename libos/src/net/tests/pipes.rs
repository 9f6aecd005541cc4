//! A module whose sockets reach each other inside the process: the least that shows typed sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Poll;

use crate::metrics::MetricsSink;
use crate::module::{Completions, Departure, Popped};
use crate::time::Timekeeper;
use crate::{
    Buffer, Domain, Error, Handle, Instant, Module, Outcome, PopLimit, QueueDescriptor, ScatterGather,
    Shutdown, SocketKind, Token,
};

#[derive(Default)]
struct Socket {
    local: Option<SocketAddr>,
    peer_address: Option<SocketAddr>,
    peer: Option<usize>,
    listening: bool,
    datagram: bool,
    backlog: VecDeque<usize>,
    accepts: VecDeque<Token>,
    connects: VecDeque<(Token, SocketAddr)>,
    popped_as: Option<QueueDescriptor>,
    pushes: VecDeque<(Token, ScatterGather, Option<SocketAddr>)>,
    received: VecDeque<(ScatterGather, Option<SocketAddr>)>,
    /// The program sends nothing more.
    write_ended: bool,
    /// The end of the stream comes after what was received.
    read_ended: bool,
    closed: bool,
}

impl Socket {
    /// What a pop gets now.
    fn next(&mut self) -> Option<Popped> {
        match self.received.pop_front() {
            Some((data, from)) => Some(Popped { data, from }),
            None => self.read_ended.then(|| Popped { data: ScatterGather::new(), from: None }),
        }
    }
}

/// Streams of a limited size, and datagrams without loss.
pub(super) struct Pipes {
    sockets: Vec<Socket>,
    limit: usize,
    dirty: bool,
}

impl Pipes {
    pub(super) fn new(limit: usize) -> Self {
        Self { sockets: Vec::new(), limit, dirty: false }
    }

    fn at(&mut self, handle: Handle) -> &mut Socket {
        &mut self.sockets[handle.0 as usize]
    }

    fn bound_to(&self, address: SocketAddr, datagram: bool) -> Option<usize> {
        self.sockets.iter().position(|socket| {
            let fits = socket.datagram == datagram && (datagram || socket.listening);
            fits && !socket.closed && socket.local == Some(address)
        })
    }

    fn serve_connects(&mut self, from: usize, completions: &mut Completions) {
        for (token, to) in std::mem::take(&mut self.sockets[from].connects) {
            self.sockets[from].peer_address = Some(to);
            let outcome = if self.sockets[from].datagram {
                Outcome::Connected
            } else if let Some(listener) = self.bound_to(to, false) {
                let accepted = self.sockets.len();
                self.sockets.push(Socket {
                    local: Some(to),
                    peer_address: self.sockets[from].local,
                    peer: Some(from),
                    ..Socket::default()
                });
                self.sockets[from].peer = Some(accepted);
                self.sockets[listener].backlog.push_back(accepted);
                Outcome::Connected
            } else {
                Outcome::Failed(Error::ConnectionRefused)
            };
            completions.complete(token, outcome);
        }
    }

    fn serve_accepts(&mut self, listener: usize, completions: &mut Completions) {
        while let (Some(token), Some(accepted)) =
            (self.sockets[listener].accepts.front(), self.sockets[listener].backlog.front())
        {
            let peer = self.sockets[*accepted].peer_address.unwrap();
            if completions.accepted(*token, Handle(*accepted as u64), peer).is_ok() {
                self.sockets[listener].backlog.pop_front();
            }
            self.sockets[listener].accepts.pop_front();
        }
    }

    /// Moves what fits from one stream to its peer.
    fn send(&mut self, from: usize, completions: &mut Completions) {
        while let Some((token, mut data, to)) = self.sockets[from].pushes.pop_front() {
            if self.sockets[from].datagram {
                let sender = self.sockets[from].local;
                let to = to.or(self.sockets[from].peer_address);
                if let Some(to) = to.and_then(|to| self.bound_to(to, true)) {
                    self.sockets[to].received.push_back((data, sender));
                }
                completions.complete(token, Outcome::Pushed);
                continue;
            }
            let Some(peer) = self.sockets[from].peer.filter(|peer| !self.sockets[*peer].closed) else {
                completions.complete(token, Outcome::Failed(Error::ConnectionReset));
                continue;
            };
            let held: usize = self.sockets[peer].received.iter().map(|(data, _)| data.len()).sum();
            let mut room = self.limit - held;
            while room > 0
                && let Some(mut buffer) = data.pop_front()
            {
                let part: Buffer = buffer.split_to(room);
                room -= part.len();
                self.sockets[peer].received.push_back((part.into(), None));
                if !buffer.is_empty() {
                    data = std::iter::once(buffer).chain(data).collect();
                }
            }
            if data.is_empty() {
                completions.complete(token, Outcome::Pushed);
            } else {
                self.sockets[from].pushes.push_front((token, data, to));
                return;
            }
        }
        if self.sockets[from].write_ended
            && let Some(peer) = self.sockets[from].peer
        {
            self.sockets[peer].read_ended = true;
        }
    }

    fn receive(&mut self, to: usize, completions: &mut Completions) {
        let socket = &mut self.sockets[to];
        while let Some(pop) = socket.popped_as.and_then(|queue| completions.waiting_pop(queue)) {
            let Some(Popped { data, from }) = socket.next() else { return };
            completions.popped(pop, data, from);
        }
    }
}

impl Module for Pipes {
    fn name(&self) -> &str {
        "pipes"
    }

    fn socket(&mut self, _domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        let port = 50_000 + self.sockets.len() as u16;
        let local = Some(super::address(port));
        let datagram = kind == SocketKind::Datagram;
        self.sockets.push(Socket { local, datagram, ..Socket::default() });
        Ok(Handle(self.sockets.len() as u64 - 1))
    }

    fn bind(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        let datagram = self.at(handle).datagram;
        if self.bound_to(local, datagram).is_some() {
            return Err(Error::AddressInUse);
        }
        self.at(handle).local = Some(local);
        Ok(())
    }

    fn listen(&mut self, handle: Handle, _backlog: usize) -> Result<(), Error> {
        self.at(handle).listening = true;
        Ok(())
    }

    fn shutdown(&mut self, handle: Handle, _how: Shutdown) -> Result<(), Error> {
        self.at(handle).write_ended = true;
        self.dirty = true;
        Ok(())
    }

    fn local_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.sockets[handle.0 as usize].local.ok_or(Error::InvalidArgument)
    }

    fn peer_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.sockets[handle.0 as usize].peer_address.ok_or(Error::NotConnected)
    }

    fn accept(
        &mut self,
        _now: Instant,
        handle: Handle,
        token: Token,
        _completions: &mut Completions,
    ) -> Result<(), Error> {
        self.dirty = true;
        self.at(handle).accepts.push_back(token);
        Ok(())
    }

    fn connect(
        &mut self,
        _now: Instant,
        handle: Handle,
        token: Token,
        peer: SocketAddr,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.dirty = true;
        self.at(handle).connects.push_back((token, peer));
        Poll::Pending
    }

    fn push(
        &mut self,
        _time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        _departure: Departure,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.dirty = true;
        self.at(handle).pushes.push_back((token, std::mem::take(data), to.copied()));
        Poll::Pending
    }

    fn pop(
        &mut self,
        _now: Instant,
        handle: Handle,
        queue: QueueDescriptor,
        _limit: PopLimit,
        _completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        self.at(handle).popped_as = Some(queue);
        match self.at(handle).next() {
            Some(popped) => {
                // There is room for what the peer could not send.
                self.dirty = true;
                Poll::Ready(Ok(popped))
            }
            None => Poll::Pending,
        }
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        let socket = self.at(handle);
        socket.accepts.retain(|other| *other != token);
        socket.pushes.retain(|(other, _, _)| *other != token);
        socket.connects.retain(|(other, _)| *other != token);
    }

    fn close(&mut self, _now: Instant, handle: Handle) {
        self.dirty = true;
        let peer = self.at(handle).peer;
        *self.at(handle) = Socket { closed: true, ..Socket::default() };
        if let Some(peer) = peer {
            self.sockets[peer].read_ended = true;
        }
    }

    fn poll(&mut self, _now: Instant, completions: &mut Completions) {
        self.dirty = false;
        for index in 0..self.sockets.len() {
            self.serve_connects(index, completions);
        }
        for index in 0..self.sockets.len() {
            self.serve_accepts(index, completions);
            self.send(index, completions);
        }
        for index in 0..self.sockets.len() {
            let before = self.sockets[index].received.len();
            self.receive(index, completions);
            // There is room for what the peer could not send.
            self.dirty |= self.sockets[index].received.len() != before;
        }
    }

    fn needs_poll(&self) -> bool {
        self.dirty
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.gauge("sockets", self.sockets.len() as u64);
    }
}
