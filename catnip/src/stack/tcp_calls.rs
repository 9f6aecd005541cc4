//! The stack's TCP: calls with the meaning of POSIX's, none of which ever waits.

use std::net::SocketAddr;

use libos::{Buffer, Error, Instant, PopLimit, ScatterGather, Shutdown, SocketOption, SocketOptionName};

use super::Stack;
use crate::events::{ConnectionId, ListenerId, Readiness};
use crate::tcp::{Connection, Reuse, TcpBinding, TcpCounters, TcpInfo, TcpOptions, Transitions};

impl Stack {
    /// What a new socket's options are.
    #[must_use]
    pub const fn default_tcp_options(&self) -> &TcpOptions {
        self.tcp.default_options()
    }

    /// Reserves a local address and port; port 0 picks a free one.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when an overlapping address has the port, [`Error::AddressNotAvailable`] when
    /// the address is not ours or no port is free.
    pub fn tcp_bind(&mut self, local: SocketAddr) -> Result<TcpBinding, Error> {
        self.tcp_bind_shared(local, Reuse::default())
    }

    /// Reserves a local address and port that others who agree may have as well (`SO_REUSEADDR`,
    /// `SO_REUSEPORT`); port 0 picks one that nobody has.
    ///
    /// # Errors
    /// As [`Self::tcp_bind`].
    pub fn tcp_bind_shared(&mut self, local: SocketAddr, reuse: Reuse) -> Result<TcpBinding, Error> {
        if !local.ip().is_unspecified() && !self.network.is_local(local.ip()) {
            return Err(Error::AddressNotAvailable);
        }
        self.tcp.bind(local, reuse)
    }

    /// Gives a reserved port back.
    pub fn tcp_unbind(&mut self, binding: TcpBinding) {
        self.tcp.unbind(binding);
    }

    /// Accepts connections on the bound address; `backlog` of them wait at most, handshakes included.
    ///
    /// # Errors
    /// [`Error::AddressInUse`] when another listener has the port and does not share it,
    /// [`Error::TooManyConnections`] when there are too many listeners; the port is free again.
    pub fn tcp_listen(
        &mut self,
        binding: TcpBinding,
        backlog: usize,
        options: &TcpOptions,
    ) -> Result<ListenerId, Error> {
        let mut binding = Some(binding);
        let listening = self.tcp_listen_bound(&mut binding, backlog, options);
        if let Some(binding) = binding {
            self.tcp.unbind(binding);
        }
        listening
    }

    /// As [`Self::tcp_listen`], and when it fails the port stays bound.
    ///
    /// # Errors
    /// As [`Self::tcp_listen`]; [`Error::InvalidArgument`] without a port.
    pub fn tcp_listen_bound(
        &mut self,
        binding: &mut Option<TcpBinding>,
        backlog: usize,
        options: &TcpOptions,
    ) -> Result<ListenerId, Error> {
        let bound = binding.as_ref().ok_or(Error::InvalidArgument)?;
        let id = self.tcp.listen(bound, backlog, options)?;
        // The listener has it from now on, and gives it back when it is closed.
        *binding = None;
        Ok(id)
    }

    /// The oldest connection that waits to be accepted, and its peer.
    pub fn tcp_accept(&mut self, id: ListenerId) -> Option<(ConnectionId, SocketAddr)> {
        self.tcp.accept(id)
    }

    /// Puts an accepted connection back in front of the backlog.
    pub fn tcp_unaccept(&mut self, id: ListenerId, connection: ConnectionId) {
        self.tcp.unaccept(id, connection);
    }

    /// Stops listening. Connections that wait to be accepted are reset.
    pub fn tcp_close_listener(&mut self, now: Instant, id: ListenerId) {
        self.tcp.close_listener(now, id, &mut self.network, &mut self.events);
    }

    /// Starts a connection. An event with `CONNECTED` or `CLOSED` tells how it went.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an address nobody can be at, [`Error::NetworkUnreachable`] without a
    /// route, [`Error::AddressNotAvailable`] without a free port, [`Error::AddressInUse`] when there is such
    /// a connection, [`Error::TooManyConnections`] when the table is full. The binding is taken on success alone.
    pub fn tcp_connect(
        &mut self,
        now: Instant,
        binding: &mut Option<TcpBinding>,
        remote: SocketAddr,
        options: &TcpOptions,
    ) -> Result<ConnectionId, Error> {
        self.tcp.connect(now, binding, remote, options, &mut self.network, &mut self.events)
    }

    /// Takes as many bytes off the front of `data` as the send queue has room for and returns how many.
    /// When some are left, an event with `WRITABLE` tells of room.
    ///
    /// # Errors
    /// [`Error::Closed`] after a shutdown, [`Error::NotConnected`], or what ended the connection.
    pub fn tcp_send(&mut self, id: ConnectionId, data: &mut ScatterGather) -> Result<usize, Error> {
        self.tcp.send(id, data, self.network.arena())
    }

    /// As [`Self::tcp_send`]; what nothing stands in the way of is among [`Self::frames`] at once.
    ///
    /// # Errors
    /// As [`Self::tcp_send`].
    #[inline]
    pub fn tcp_push(
        &mut self,
        now: Instant,
        id: ConnectionId,
        data: &mut ScatterGather,
    ) -> Result<usize, Error> {
        let bytes = data.len();
        if self.tcp.send_express(now, id, data, &mut self.network) {
            return Ok(bytes);
        }
        self.tcp.send(id, data, self.network.arena())
    }

    /// The frame of a push for [`Self::tcp_push`] while nothing of its connection is under way: it is to be sent at once,
    /// while nothing else waits to be sent. `None`, and nothing done, for all others.
    #[inline(always)]
    pub(crate) fn tcp_straight(
        &mut self,
        now: Instant,
        id: ConnectionId,
        data: &mut ScatterGather,
    ) -> Option<Buffer> {
        self.tcp.straight(now, &mut self.network, id, data)
    }

    /// Data that arrived, at most `limit`; `Some` of nothing is the end of the stream, `None` means not yet.
    ///
    /// # Errors
    /// What ended the connection, once all that arrived before is taken.
    pub fn tcp_receive(&mut self, id: ConnectionId, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        self.tcp.take(id, limit)
    }

    /// Views of the data that [`Self::tcp_receive`] would return, which stays where it is (`MSG_PEEK`).
    ///
    /// # Errors
    /// As [`Self::tcp_receive`].
    pub fn tcp_peek(&self, id: ConnectionId, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        self.tcp.peek(id, limit)
    }

    /// What a call on the connection would not have to wait for now, as `poll` tells it. Events tell of changes.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is gone.
    pub fn tcp_readiness(&self, id: ConnectionId) -> Result<Readiness, Error> {
        self.connection(id).map(Connection::readiness)
    }

    /// [`Readiness::ACCEPTABLE`] when a connection waits to be accepted.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when the listener is gone.
    pub fn tcp_listener_readiness(&self, id: ListenerId) -> Result<Readiness, Error> {
        self.tcp.listener_readiness(id)
    }

    /// Ends one direction or both.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is no connection.
    pub fn tcp_shutdown(&mut self, id: ConnectionId, how: Shutdown) -> Result<(), Error> {
        self.tcp.shutdown(id, how)
    }

    /// Lets go of the connection. What was sent before still arrives; unread data resets it (RFC 1122,
    /// section 4.2.2.13). The identifier is dead from here on.
    pub fn tcp_close(&mut self, now: Instant, id: ConnectionId) {
        self.tcp.close(now, id, &mut self.network, &mut self.events);
    }

    /// As [`Self::tcp_close`], for who wants to know how it ends. True when the socket lingers: then an event with
    /// `CLOSED` tells that all that was sent is acknowledged, or that the time is over, and [`Self::tcp_end_close`] which of
    /// them. Until then the identifier lives, for that call alone.
    pub fn tcp_close_awaited(&mut self, now: Instant, id: ConnectionId) -> bool {
        self.tcp.close_awaited(now, id, &mut self.network, &mut self.events)
    }

    /// How an awaited close ended. The identifier is dead from here on.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when the time was over first, or what else ended the connection.
    pub fn tcp_end_close(&mut self, id: ConnectionId) -> Result<(), Error> {
        self.tcp.end_close(id)
    }

    /// Resets the connection. The identifier is dead from here on.
    pub fn tcp_abort(&mut self, now: Instant, id: ConnectionId) {
        self.tcp.abort(now, id, &mut self.network, &mut self.events);
    }

    fn connection(&self, id: ConnectionId) -> Result<&Connection, Error> {
        self.tcp.connections().get(id.0).ok_or(Error::BadDescriptor)
    }

    /// Sets one option of a connection.
    ///
    /// # Errors
    /// As [`TcpOptions::set`].
    pub fn tcp_set_option(&mut self, id: ConnectionId, option: SocketOption) -> Result<(), Error> {
        self.tcp.set_option(id, option)
    }

    /// Reads one option of a connection. Reading the pending error clears it.
    ///
    /// # Errors
    /// As [`TcpOptions::get`].
    pub fn tcp_option(&mut self, id: ConnectionId, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.tcp.option(id, name)
    }

    /// Sets one option that connections accepted from now on start with.
    ///
    /// # Errors
    /// As [`TcpOptions::set`].
    pub fn tcp_set_listener_option(&mut self, id: ListenerId, option: SocketOption) -> Result<(), Error> {
        self.tcp.listener_options(id)?.set(option)
    }

    /// Reads one option that accepted connections start with.
    ///
    /// # Errors
    /// As [`TcpOptions::get`].
    pub fn tcp_listener_option(
        &mut self,
        id: ListenerId,
        name: SocketOptionName,
    ) -> Result<SocketOption, Error> {
        self.tcp.listener_options(id)?.get(name)
    }

    /// The connection's local address.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is gone.
    pub fn tcp_local_address(&self, id: ConnectionId) -> Result<SocketAddr, Error> {
        self.connection(id).map(Connection::local)
    }

    /// The connection's peer.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is gone.
    pub fn tcp_remote_address(&self, id: ConnectionId) -> Result<SocketAddr, Error> {
        self.connection(id).map(Connection::remote)
    }

    /// The address a listener is on.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is gone.
    pub fn tcp_listener_address(&self, id: ListenerId) -> Result<SocketAddr, Error> {
        self.tcp.listener_address(id)
    }

    /// What ended the connection, if an error did.
    #[must_use]
    pub fn tcp_error(&self, id: ConnectionId) -> Option<Error> {
        self.connection(id).ok().and_then(Connection::error)
    }

    /// A snapshot of the connection.
    #[must_use]
    pub fn tcp_info(&self, id: ConnectionId) -> Option<TcpInfo> {
        self.connection(id).ok().map(Connection::info)
    }

    /// A snapshot of every connection, those the program let go of included.
    pub fn tcp_infos(&self) -> impl Iterator<Item = TcpInfo> + '_ {
        self.tcp.connections().iter().map(|(_, connection)| connection.info())
    }

    /// Number of connections, those in TIME-WAIT included.
    #[must_use]
    pub fn tcp_connections(&self) -> usize {
        self.tcp.connections().len()
    }

    /// The first rule that some connection's variables break. For tests, after every event.
    #[must_use]
    pub fn tcp_broken_invariant(&self) -> Option<&'static str> {
        self.tcp.connections().iter().find_map(|(_, connection)| connection.broken_invariant())
    }

    /// How often connections went from each state to each other.
    #[must_use]
    pub const fn tcp_transitions(&self) -> &Transitions {
        self.tcp.transitions()
    }

    /// TCP's counters.
    #[must_use]
    pub const fn tcp_counters(&self) -> &TcpCounters {
        self.tcp.counters()
    }

    /// Gives the connection a number that comes with its events.
    pub fn tcp_set_user_data(&mut self, id: ConnectionId, user_data: u64) {
        self.tcp.set_user_data(id, user_data, &mut self.events);
    }

    /// Gives the listener a number that comes with its events.
    pub fn tcp_set_listener_user_data(&mut self, id: ListenerId, user_data: u64) {
        self.tcp.set_listener_user_data(id, user_data, &mut self.events);
    }
}
