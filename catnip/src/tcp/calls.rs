//! What a program asks of TCP: the calls behind the stack's `tcp_*`.

use std::net::SocketAddr;

use libos::{Arena, Error, Instant, PopLimit, ScatterGather, Shutdown};

use super::config::{Reuse, TcpOptions};
use super::connection::{Connection, Disposition};
use super::demux::ConnectionTable;
use super::handshake::Opening;
use super::layer::{TcpLayer, four_tuple};
use super::listener::Listener;
use super::ports::{self, Reservation};
use super::state::{State, Trigger};
use crate::events::{ConnectionId, EventQueue, ListenerId};
use crate::network::Network;
use crate::slab::Slab;

/// A bound local address and port. Given to `listen` or `connect`, or back with `unbind`.
#[derive(Debug, PartialEq, Eq)]
pub struct TcpBinding(Reservation);

impl TcpBinding {
    /// The address and port.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.0.local
    }
}

impl TcpLayer {
    pub(crate) fn bind(&mut self, local: SocketAddr, reuse: Reuse) -> Result<TcpBinding, Error> {
        self.ports.bind(local, reuse, &mut self.random).map(TcpBinding)
    }

    #[allow(clippy::needless_pass_by_value, reason = "a binding given back is gone")]
    pub(crate) fn unbind(&mut self, binding: TcpBinding) {
        self.ports.release(binding.0);
    }

    /// When it fails, the port stays bound.
    pub(crate) fn listen(
        &mut self,
        binding: &TcpBinding,
        backlog: usize,
        options: &TcpOptions,
    ) -> Result<ListenerId, Error> {
        let reservation = binding.0;
        if !self.ports.may_listen(reservation) {
            return Err(Error::AddressInUse);
        }
        let inserted =
            self.listeners.insert_with(|key| Listener::new(key, reservation, backlog, options.clone()));
        let key = inserted.ok_or(Error::TooManyConnections)?;
        self.ports.listen(reservation, key);
        Ok(ListenerId(key))
    }

    pub(crate) fn accept(&mut self, id: ListenerId) -> Option<(ConnectionId, SocketAddr)> {
        let listener = self.listeners.get_mut(id.0)?;
        loop {
            let key = listener.ready.pop_front()?;
            // A connection that was reset while it waited has left only its key.
            if let Some(connection) = self.connections.get_mut(key) {
                connection.listener = None;
                return Some((ConnectionId(key), connection.remote()));
            }
        }
    }

    /// Puts a connection that `accept` gave back in front: nobody could take it after all.
    pub(crate) fn unaccept(&mut self, id: ListenerId, connection: ConnectionId) {
        if let Some(listener) = self.listeners.get_mut(id.0)
            && let Some(accepted) = self.connections.get_mut(connection.0)
        {
            accepted.listener = Some(id.0);
            listener.adopt(connection.0, &self.connections);
            listener.ready.push_front(connection.0);
        }
    }

    /// Closes a listener. Connections that nobody accepted are reset (RFC 9293, section 3.10.4).
    pub(crate) fn close_listener(
        &mut self,
        now: Instant,
        id: ListenerId,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let Some(listener) = self.listeners.remove(id.0) else { return };
        self.ports.release(listener.reservation);
        events.forget(listener.mark);
        for child in listener.into_children() {
            if self.connections.get(child).is_some_and(|child| child.listener == Some(id.0)) {
                self.reset_connection(now, child.index, network, events);
            }
        }
    }

    pub(crate) fn connect(
        &mut self,
        now: Instant,
        binding: &mut Option<TcpBinding>,
        remote: SocketAddr,
        options: &TcpOptions,
        network: &mut Network,
        events: &mut EventQueue,
    ) -> Result<ConnectionId, Error> {
        let bound = binding.as_ref().map(|binding| binding.0);
        let id = self.try_connect(now, bound, remote, options, network, events)?;
        // The connection has it from now on, and gives it back when it is over.
        *binding = None;
        Ok(id)
    }

    fn try_connect(
        &mut self,
        now: Instant,
        bound: Option<Reservation>,
        remote: SocketAddr,
        options: &TcpOptions,
        network: &mut Network,
        events: &mut EventQueue,
    ) -> Result<ConnectionId, Error> {
        // RFC 9293, section 3.9.2.3 (MUST-46): whoever is connected to is one host.
        let is_one = !remote.ip().is_unspecified() && !remote.ip().is_multicast();
        if remote.port() == 0 || !is_one || network.is_broadcast(remote.ip()) {
            return Err(Error::InvalidArgument);
        }
        let wanted = bound.map(|bound| bound.local.ip()).filter(|address| !address.is_unspecified());
        let path = network.path(now, wanted, remote.ip())?;
        let local_address = path.local;
        let local_port = match bound {
            Some(bound) => bound.local.port(),
            None => ports::ephemeral(&mut self.random, |port| {
                let local = SocketAddr::new(local_address, port);
                // A connection from a port to itself would answer its own SYN.
                local != remote
                    && self.ports.is_home(local, remote)
                    && !self.ports.is_bound(local)
                    && !is_taken(&self.table, &self.connections, local, remote)
            })
            .ok_or(Error::AddressNotAvailable)?,
        };
        let local = SocketAddr::new(local_address, local_port);
        if is_taken(&self.table, &self.connections, local, remote) {
            return Err(Error::AddressInUse);
        }
        let iss = self.isn.generate(now, local, remote);
        let timestamp_offset = self.isn.timestamp_offset(local, remote);
        let settings = &self.shared.settings;
        let key = self
            .connections
            .insert_with(|key| {
                let opening = Opening {
                    key,
                    path,
                    local_port,
                    remote_port: remote.port(),
                    iss,
                    timestamp_offset,
                    options,
                    now,
                };
                Connection::connect(opening, bound, settings)
            })
            .ok_or(Error::TooManyConnections)?;
        self.enter(key.index, local, remote);
        self.shared.counters.active_opens += 1;
        if options.fast_open_connect {
            self.plan_fast_open(now, key.index);
        }
        self.start(now, key.index, Trigger::Connect, network, events);
        Ok(ConnectionId(key))
    }

    /// True when a segment between these ends has a connection here, or when it opens one, a listener.
    pub(crate) fn claims(&self, local: SocketAddr, remote: SocketAddr, opens: bool) -> bool {
        is_taken(&self.table, &self.connections, local, remote)
            || (opens && self.ports.listener(local, || 0).is_some())
    }

    /// Takes as much off the front of `data` as the send queue has room for.
    pub(crate) fn send(
        &mut self,
        id: ConnectionId,
        data: &mut ScatterGather,
        arena: &Arena,
    ) -> Result<usize, Error> {
        let connection = self.connections.get_mut(id.0).ok_or(Error::BadDescriptor)?;
        let taken = connection.enqueue(data, arena)?;
        if !connection.queued {
            self.settle_output(id.0.index);
        }
        Ok(taken)
    }

    /// Data that arrived; `Some(empty)` at the end of the stream, `None` when there is nothing yet.
    #[inline(always)]
    pub(crate) fn take(&mut self, id: ConnectionId, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        // Who asks before anything came is told so without another look.
        if self.connections.get(id.0).is_some_and(Connection::is_drained) {
            return Ok(None);
        }
        self.take_some(id, limit)
    }

    #[inline(never)]
    fn take_some(&mut self, id: ConnectionId, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        let connection = self.connections.get_mut(id.0).ok_or(Error::BadDescriptor)?;
        let data = connection.receive(limit);
        if connection.rcv.ack_now {
            self.settle_output(id.0.index);
        }
        data
    }

    pub(crate) fn shutdown(&mut self, id: ConnectionId, how: Shutdown) -> Result<(), Error> {
        let connection = self.connections.get_mut(id.0).ok_or(Error::BadDescriptor)?;
        if !connection.state.is_synchronised() && !connection.is_open_early() {
            return Err(Error::NotConnected);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            connection.stop_receiving();
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            connection.snd.fin = true;
        }
        self.settle_output(id.0.index);
        Ok(())
    }

    /// The program lets go of the connection: what it sent still arrives, then the connection ends.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        id: ConnectionId,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        events.forget(connection.mark);
        connection.orphan = true;
        let index = id.0.index;
        match connection.state {
            State::Closed => self.settle(index, Disposition::Closed, events),
            // What Fast Open took from the program for the SYN is to arrive.
            State::SynSent
                if connection.is_open_early()
                    && connection.snd.queue.len_bytes() > 0
                    && connection.linger.is_none_or(|linger| !linger.is_zero()) =>
            {
                connection.snd.fin = true;
                self.settle(index, Disposition::Keep, events);
            }
            State::SynSent | State::Listen => {
                let disposition = connection.fail(None, &mut self.shared.context(now, network, events));
                self.settle(index, disposition, events);
            }
            State::SynReceived
            | State::Established
            | State::CloseWait
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck => {
                // RFC 1122, section 4.2.2.13: unread data is lost, and the peer must learn of it.
                if connection.linger.is_some_and(|linger| linger.is_zero())
                    || connection.rcv.queue.len_bytes() > 0
                {
                    self.reset_connection(now, index, network, events);
                    return;
                }
                connection.snd.fin = true;
                if connection.state == State::FinWait2 {
                    connection.start_orphan_timeout(&self.shared.context(now, network, events));
                } else if let Some(linger) = connection.linger {
                    connection.deadlines.idle = now + linger;
                }
                self.settle(index, Disposition::Keep, events);
            }
            State::TimeWait => {}
        }
    }

    /// As [`Self::close`]. True when the program's linger time runs and an event with `CLOSED` will tell how it ended,
    /// to be answered with [`Self::end_close`].
    pub(crate) fn close_awaited(
        &mut self,
        now: Instant,
        id: ConnectionId,
        network: &mut Network,
        events: &mut EventQueue,
    ) -> bool {
        let lingers = |connection: &Connection| {
            connection.linger.is_some_and(|linger| !linger.is_zero()) && !connection.snd.fin_acknowledged()
        };
        let waits = self.connections.get(id.0).is_some_and(|connection| {
            connection.state.is_synchronised() && connection.state != State::TimeWait && lingers(connection)
        });
        self.close(now, id, network, events);
        let Some(connection) = self.connections.get_mut(id.0).filter(|_| waits) else { return false };
        connection.close_awaited = true;
        true
    }

    /// How an awaited close ended; nothing tells of the connection any more.
    pub(crate) fn end_close(&mut self, id: ConnectionId) -> Result<(), Error> {
        let Some(connection) = self.connections.get_mut(id.0) else { return Ok(()) };
        connection.close_awaited = false;
        let error = connection.error;
        if connection.state == State::Closed {
            self.connections.remove(id.0);
        }
        error.map_or(Ok(()), Err)
    }

    /// Resets the connection and lets go of it.
    pub(crate) fn abort(
        &mut self,
        now: Instant,
        id: ConnectionId,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let Some(connection) = self.connections.get_mut(id.0) else { return };
        events.forget(connection.mark);
        connection.orphan = true;
        self.reset_connection(now, id.0.index, network, events);
    }

    fn reset_connection(&mut self, now: Instant, index: u32, network: &mut Network, events: &mut EventQueue) {
        let Some(connection) = self.connections.get_index_mut(index) else { return };
        let mut cx = self.shared.context(now, network, events);
        match connection.state {
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait => connection.send_reset(&mut cx),
            // RFC 9293, section 3.10.5: both sides have sent all that they will.
            State::Closing | State::LastAck => {}
            State::Closed | State::Listen | State::SynSent | State::TimeWait => {}
        }
        let disposition = connection.fail(None, &mut cx);
        self.settle(index, disposition, events);
    }
}

/// True when there is a connection between these ends, one in TIME-WAIT included.
fn is_taken(
    table: &ConnectionTable,
    connections: &Slab<Connection>,
    local: SocketAddr,
    remote: SocketAddr,
) -> bool {
    let matches = |index| {
        connections
            .get_index(index)
            .is_some_and(|connection| connection.local() == local && connection.remote() == remote)
    };
    table.get(|| four_tuple(local, remote), matches).is_some()
}

impl Connection {
    fn enqueue(&mut self, data: &mut ScatterGather, arena: &Arena) -> Result<usize, Error> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.state {
            State::SynSent | State::SynReceived | State::Established | State::CloseWait if !self.snd.fin => {}
            // After a shutdown the end of the connection changes nothing.
            State::Closed | State::Listen if !self.snd.fin => return Err(Error::NotConnected),
            State::Closed
            | State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::CloseWait
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => return Err(Error::Closed),
        }
        let mut taken = 0;
        if self.snd.queue.len_bytes() + data.len() > self.snd.limit_bytes {
            self.grow_send_buffer();
        }
        let mut room = self.snd.limit_bytes.saturating_sub(self.snd.queue.len_bytes());
        let sent = self.snd.max.distance_from(self.snd.front) as usize;
        let sent = if self.snd.max.before(self.snd.front) { 0 } else { sent };
        let max_chunks = self.snd.limit_bytes / MIN_CHUNK_BYTES + MIN_CHUNKS;
        while let Some(mut buffer) = data.pop_front() {
            if room == 0 || self.snd.queue.chunks() >= max_chunks {
                data.push_front(buffer);
                break;
            }
            if buffer.len() <= room {
                room -= buffer.len();
                taken += buffer.len();
                self.snd.queue.append(buffer, sent, arena);
                continue;
            }
            let front = buffer.split_to(room);
            room -= front.len();
            taken += front.len();
            self.snd.queue.push(front);
            data.push_front(buffer);
        }
        self.wants_room = !data.is_empty();
        Ok(taken)
    }

    /// `SHUT_RD`: what is queued is thrown away, and so is what still comes.
    fn stop_receiving(&mut self) {
        self.rcv.shut = true;
        let everything = PopLimit { segments: usize::MAX, bytes: usize::MAX };
        while self.rcv.queue.len_bytes() > 0 {
            drop(self.rcv.queue.pop(everything));
        }
        self.consider_window_update();
    }
}

/// What a chunk of the send queue counts for at least, so that a program that pushes single bytes is
/// stopped by the queue's limit before it holds a block of memory for each of a million of them.
const MIN_CHUNK_BYTES: usize = 256;

/// Chunks that the smallest send queue takes.
const MIN_CHUNKS: usize = 16;
