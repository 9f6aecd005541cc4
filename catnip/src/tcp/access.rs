//! Looking at TCP from outside: numbers, options, counters.

use std::net::SocketAddr;

use libos::metrics::MetricsSink;
use libos::{Error, Instant, PopLimit, ScatterGather, SocketOption, SocketOptionName};

use super::config::TcpOptions;
use super::connection::Connection;
use super::layer::TcpLayer;
use super::state::State;
use crate::events::{ConnectionId, EventQueue, ListenerId, Readiness};
use crate::network::Network;
use crate::slab::Key;

impl TcpLayer {
    pub(crate) const fn default_options(&self) -> &TcpOptions {
        &self.shared.settings.config.options
    }

    pub(crate) fn set_option(&mut self, id: ConnectionId, option: SocketOption) -> Result<(), Error> {
        let connection = self.connections.get_mut(id.0).ok_or(Error::BadDescriptor)?;
        connection.set_option(option)?;
        // Keepalive may have begun, and with no delay from now on, what Nagle kept back may go.
        self.settle_output(id.0.index);
        Ok(())
    }

    pub(crate) fn option(&mut self, id: ConnectionId, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.connections.get_mut(id.0).ok_or(Error::BadDescriptor)?.option(name)
    }

    pub(crate) fn listener_options(&mut self, id: ListenerId) -> Result<&mut TcpOptions, Error> {
        Ok(&mut self.listeners.get_mut(id.0).ok_or(Error::BadDescriptor)?.options)
    }

    pub(crate) fn listener_address(&self, id: ListenerId) -> Result<SocketAddr, Error> {
        Ok(self.listeners.get(id.0).ok_or(Error::BadDescriptor)?.reservation.local)
    }

    pub(crate) fn listener_readiness(&self, id: ListenerId) -> Result<Readiness, Error> {
        let listener = self.listeners.get(id.0).ok_or(Error::BadDescriptor)?;
        // A connection that was reset while it waited has left only its key.
        let waits = listener.ready.iter().any(|&key| self.connections.get(key).is_some());
        Ok(if waits { Readiness::ACCEPTABLE } else { Readiness::EMPTY })
    }

    pub(crate) fn peek(&self, id: ConnectionId, limit: PopLimit) -> Result<Option<ScatterGather>, Error> {
        self.connections.get(id.0).ok_or(Error::BadDescriptor)?.peek(limit)
    }

    pub(crate) fn set_user_data(&mut self, id: ConnectionId, user_data: u64, events: &mut EventQueue) {
        if let Some(connection) = self.connections.get_mut(id.0) {
            connection.user_data = user_data;
            events.set_user_data(connection.mark, user_data);
        }
    }

    pub(crate) fn set_listener_user_data(&mut self, id: ListenerId, user_data: u64, events: &mut EventQueue) {
        if let Some(listener) = self.listeners.get_mut(id.0) {
            listener.user_data = user_data;
            events.set_user_data(listener.mark, user_data);
        }
    }

    /// True while some connection has data in flight, queued or unread.
    pub(crate) fn has_pending_work(&self) -> bool {
        self.connections.iter().any(|(_, connection)| connection.has_pending_work())
    }

    /// True while some connection is neither over nor in TIME-WAIT.
    pub(crate) fn has_open_connections(&self) -> bool {
        let over = |state: State| matches!(state, State::Closed | State::TimeWait);
        self.connections.iter().any(|(_, connection)| !over(connection.state))
    }

    /// Resets all connections.
    pub(crate) fn abort_all(&mut self, now: Instant, network: &mut Network, events: &mut EventQueue) {
        let all: Vec<Key> = self.connections.iter().map(|(key, _)| key).collect();
        for key in all {
            self.abort(now, ConnectionId(key), network, events);
        }
    }

    pub(crate) fn fail_all(
        &mut self,
        now: Instant,
        error: Error,
        network: &mut Network,
        events: &mut EventQueue,
    ) {
        let all: Vec<u32> = self.connections.iter().map(|(key, _)| key.index).collect();
        for index in all {
            if let Some(connection) = self.connections.get_index_mut(index) {
                let disposition =
                    connection.fail(Some(error), &mut self.shared.context(now, network, events));
                self.settle(index, disposition, events);
            }
        }
    }

    pub(crate) fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.shared.counters.write(sink);
        let infos = || self.connections.iter().map(|(_, connection)| connection);
        let stands =
            |connection: &&Connection| matches!(connection.state, State::Established | State::CloseWait);
        sink.enter("mib");
        self.shared.counters.write_mib(infos().filter(stands).count() as u64, sink);
        sink.leave();
        let sum = |bytes: fn(&Connection) -> usize| infos().map(|each| bytes(each) as u64).sum();
        sink.gauge("send_queue_bytes", sum(|connection| connection.snd.queue.len_bytes()));
        sink.gauge("receive_queue_bytes", sum(|connection| connection.rcv.queue.len_bytes()));
        sink.gauge("out_of_order_memory_bytes", self.shared.out_of_order_bytes as u64);
        sink.gauge("connections", self.connections.len() as u64);
        sink.gauge("listeners", self.listeners.len() as u64);
        sink.enter("connection");
        for connection in infos().take(self.shared.settings.config.metrics_connections) {
            connection.info().write(sink);
        }
        sink.leave();
        sink.enter("transitions");
        for (from, to, count) in self.shared.transitions.iter() {
            sink.enter(from.name());
            sink.counter(to.name(), count);
            sink.leave();
        }
        sink.leave();
    }
}

impl Connection {
    /// What ended the connection, if an error did.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// What a call would not have to wait for, as `poll` tells it.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let closed = self.state == State::Closed;
        let mut ready = Readiness::EMPTY;
        if closed || self.rcv.queue.len_bytes() > 0 || self.rcv.fin || self.rcv.shut {
            ready |= Readiness::READABLE;
        }
        let stands = self.state.is_synchronised() || self.is_open_early();
        if stands {
            ready |= Readiness::CONNECTED;
        }
        // What cannot succeed any more fails at once.
        if closed || (stands && (self.snd.fin || self.snd.queue.len_bytes() < self.snd.limit_bytes)) {
            ready |= Readiness::WRITABLE;
        }
        if closed {
            ready |= Readiness::CLOSED;
        }
        ready
    }

    fn has_pending_work(&self) -> bool {
        let open = !matches!(self.state, State::Closed | State::TimeWait);
        open && (self.snd.una != self.snd.max
            || self.has_output()
            || self.rcv.queue.len_bytes() > 0
            || self.deadlines.delayed_ack != Instant::FAR_FUTURE)
    }
}
