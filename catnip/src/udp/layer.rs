//! The layer: binding, connecting, sending, receiving.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libos::metrics::MetricsSink;
use libos::{Buffer, Domain, Error, Instant, ScatterGather};

use super::ports::PortTable;
use super::send::{find_path, plain, send_from};
use super::socket::{Datagram, Socket};
use super::sockets::Sockets;
use super::{UdpConfig, UdpCounters};
use crate::events::{EventQueue, UdpId};
use crate::network::{HeaderBuffer, Network};
use crate::random::Random;
use crate::steering::{CoreShare, Transport};
use crate::tcp::demux::{ConnectionTable, FourTuple};
use crate::wire::udp;

/// Largest payload that the length field expresses (RFC 768).
pub(super) const MAX_PAYLOAD_BYTES: usize = 65535 - udp::HEADER_BYTES;

/// Most sockets that share an address and port: each datagram to a group there goes to all of them.
pub(super) const MAX_SHARING_SOCKETS: usize = 64;

/// All UDP sockets of a stack.
#[derive(Debug)]
pub struct UdpLayer {
    pub(super) config: UdpConfig,
    pub(super) sockets: Sockets,
    pub(super) ports: PortTable,
    /// Connected sockets by both ends, so that any number of them may share a port.
    connected: ConnectionTable,
    /// Where headers are composed; kept so that it need not be cleared for each datagram.
    headers: HeaderBuffer,
    random: Random,
    pub(super) counters: UdpCounters,
    /// When several cores share the device: who of them has which port.
    share: Option<CoreShare>,
}

impl UdpLayer {
    /// A layer without sockets.
    #[must_use]
    pub fn new(config: &UdpConfig, share: Option<CoreShare>, random: &mut Random) -> Self {
        let mut random = random.fork();
        Self {
            config: config.clone(),
            sockets: Sockets::with_capacity_limit(config.max_sockets),
            ports: PortTable::new(),
            connected: ConnectionTable::new(std::array::from_fn(|_| random.next_u64())),
            headers: HeaderBuffer::new(),
            random,
            counters: UdpCounters::default(),
            share,
        }
    }

    /// Makes a socket without address, which can have options set and groups joined, and be bound.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`] when the table of sockets is full.
    pub fn open(&mut self, domain: Domain) -> Result<UdpId, Error> {
        let address = match domain {
            Domain::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Domain::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = Socket::new(SocketAddr::new(address, 0), self.config.hop_limit);
        self.sockets.change().insert(socket).map(UdpId).ok_or(Error::TooManyConnections)
    }

    /// Makes a socket on a local address; as [`Self::open`] and [`Self::bind_opened`].
    ///
    /// # Errors
    /// As both.
    pub fn bind(&mut self, network: &Network, local: SocketAddr) -> Result<UdpId, Error> {
        let domain = if local.ip().to_canonical().is_ipv4() { Domain::Ipv4 } else { Domain::Ipv6 };
        let id = self.open(domain)?;
        let bound = self.bind_opened(network, id, local);
        if bound.is_err() {
            self.sockets.change().remove(id.0);
        }
        bound.map(|()| id)
    }

    /// Gives a socket its local address; an unspecified address stands for all of its family, port 0
    /// for a random free one (RFC 6056 section 3.3.1). A group's address stands for what is sent to the group,
    /// once it was joined.
    ///
    /// A port may be bound again once the socket on it is connected: what comes from its peer is
    /// still its own, so one port can serve any number of connected sockets. It may also be bound by several
    /// sockets that all allow it with an option: they all get what is sent to groups and to everybody, and the
    /// one bound last gets the rest.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when the address is not ours or no port is free,
    /// [`Error::AddressInUse`] when another socket takes datagrams to the address and port,
    /// [`Error::InvalidArgument`] for a socket that is bound, and an address of the other family.
    pub fn bind_opened(&mut self, network: &Network, id: UdpId, local: SocketAddr) -> Result<(), Error> {
        let socket = self.sockets.get(id.0).ok_or(Error::BadDescriptor)?;
        let address = local.ip().to_canonical();
        if socket.local.port() != 0 || socket.local.is_ipv4() != address.is_ipv4() {
            return Err(Error::InvalidArgument);
        }
        let is_ours = address.is_unspecified() || address.is_multicast() || network.is_local(address);
        if !is_ours {
            return Err(Error::AddressNotAvailable);
        }
        let shared = socket.options.shared;
        let port = match local.port() {
            0 => self.ephemeral_port(address).ok_or(Error::AddressNotAvailable)?,
            port if network.is_reserved_udp_port(port) || self.is_taken(address, port, shared) => {
                return Err(Error::AddressInUse);
            }
            port => port,
        };
        if let Some(socket) = self.sockets.change().get_mut(id.0) {
            socket.local = SocketAddr::new(address, port);
        }
        self.link(id.0.index, port);
        if let Some(share) = &self.share {
            share.take_port(Transport::Udp, port);
        }
        Ok(())
    }

    fn ephemeral_port(&mut self, address: IpAddr) -> Option<u16> {
        self.free_port(address, |_| true)
    }

    /// A random port that nobody has, on no core, and that is `fit`.
    fn free_port(&mut self, address: IpAddr, fit: impl Fn(u16) -> bool) -> Option<u16> {
        let (low, high) = (self.config.ephemeral_low, self.config.ephemeral_high);
        let start = u16::try_from(self.random.range(low.into(), high.into())).ok()?;
        (start..=high).chain(low..start).find(|&port| {
            self.ports.connected(port) == 0
                && !self.is_taken(address, port, false)
                && fit(port)
                && self.share.as_ref().is_none_or(|share| share.take_unused_port(Transport::Udp, port))
        })
    }

    /// With several cores: a free port for a socket that is to be connected to `remote`, to which what the peer answers
    /// comes to this core. `None` with one core, and when there is none.
    pub fn port_towards(&mut self, now: Instant, network: &mut Network, remote: SocketAddr) -> Option<u16> {
        let share = self.share.clone()?;
        let local = network.path(now, None, remote.ip()).ok()?.local;
        self.free_port(local, |port| share.is_home(SocketAddr::new(local, port), remote))
    }

    /// True when a socket that takes datagrams from anybody overlaps with the address and port, unless they
    /// share it. The list has at most one socket for each address of ours, and those that share.
    fn is_taken(&self, address: IpAddr, port: u16, shared: bool) -> bool {
        let (mut next, mut sharing) = (self.ports.first(port), 0);
        while let Some(socket) = next.and_then(|index| self.sockets.get_index(index)) {
            if !socket.shares(address, shared) {
                return true;
            }
            sharing += usize::from(socket.options.shared);
            next = socket.next;
        }
        sharing >= MAX_SHARING_SOCKETS
    }

    /// Puts a socket into its port's list.
    fn link(&mut self, index: u32, port: u16) {
        let next = self.ports.first(port);
        if let Some(socket) = self.sockets.change().get_index_mut(index) {
            socket.next = next;
            self.ports.set_first(port, Some(index));
        }
    }

    /// Takes a socket out of its port's list.
    fn unlink(&mut self, index: u32, port: u16) {
        let behind = self.sockets.change().get_index_mut(index).and_then(|socket| socket.next.take());
        if self.ports.first(port) == Some(index) {
            self.ports.set_first(port, behind);
            return;
        }
        let mut at = self.ports.first(port);
        while let Some(socket) = at.and_then(|index| self.sockets.change().get_index_mut(index)) {
            if socket.next == Some(index) {
                socket.next = behind;
                return;
            }
            at = socket.next;
        }
    }

    /// Gives the socket a peer: it sends there, and receives from there alone. A peer it had before
    /// is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a peer without address or port or of the other family,
    /// [`Error::AddressInUse`] when another socket is connected in the same way, and as
    /// [`Network::path`].
    pub fn connect(
        &mut self,
        now: Instant,
        network: &mut Network,
        id: UdpId,
        remote: SocketAddr,
    ) -> Result<(), Error> {
        let socket = self.sockets.get(id.0).ok_or(Error::BadDescriptor)?;
        let port = socket.local.port();
        if remote.port() == 0 {
            return Err(Error::InvalidArgument);
        }
        let path = find_path(now, network, &socket.options, socket.local, remote.ip())?;
        let remote = SocketAddr::new(path.remote, remote.port());
        let tuple = FourTuple::new(path.local, port, remote.ip(), remote.port());
        let old = socket.tuple;
        if old != Some(tuple) && self.find_connected(&tuple).is_some() {
            return Err(Error::AddressInUse);
        }
        match old {
            Some(old) => {
                self.connected.remove(&old, id.0.index);
            }
            None => {
                self.unlink(id.0.index, port);
                self.ports.add_connected(port);
            }
        }
        if let Some(socket) = self.sockets.change().get_mut(id.0) {
            socket.local.set_ip(path.local);
            socket.remote = Some(remote);
            socket.tuple = Some(tuple);
            socket.hop_limit = socket.options.hop_limit_to(path.remote);
            *socket.way.path_mut() = Some(path);
            socket.error = None;
        }
        self.connected.insert(&tuple, id.0.index);
        if self.connected.wants_new_keys() {
            let keys = std::array::from_fn(|_| self.random.next_u64());
            let sockets = &self.sockets;
            self.connected.rekey(keys, |index| {
                sockets.get_index(index).and_then(|socket| socket.tuple).unwrap_or(tuple)
            });
        }
        Ok(())
    }

    #[inline]
    pub(super) fn find_connected(&self, tuple: &FourTuple) -> Option<u32> {
        self.connected.get(
            || *tuple,
            |index| self.sockets.get_index(index).is_some_and(|socket| socket.tuple.as_ref() == Some(tuple)),
        )
    }

    /// Sends a datagram: to `to`, or to the peer. When it was sent, `data` is left empty; else as it was.
    ///
    /// # Errors
    /// What ICMP said about an earlier datagram of a connected socket; [`Error::NotConnected`] without
    /// `to` and peer, [`Error::InvalidArgument`] for port 0, [`Error::MessageTooLong`] for more than
    /// fits into one packet, and as [`Network::path`] and [`Network::send`].
    #[inline(always)]
    pub fn send(
        &mut self,
        now: Instant,
        network: &mut Network,
        id: UdpId,
        to: Option<&SocketAddr>,
        data: &mut ScatterGather,
    ) -> Result<(), Error> {
        let socket = self.sockets.in_use().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        let sent = send_from(now, network, socket, &mut self.headers, to, data);
        match sent {
            Ok(()) => self.counters.out_datagrams += 1,
            // It will be tried again.
            Err(Error::WouldBlock) => {}
            Err(_) => self.counters.out_errors += 1,
        }
        sent
    }

    /// The frame of a datagram that goes where the socket's last one went, and for which nothing is left to be done. `None`,
    /// and nothing done, for all others: they are for [`Self::send`]. The socket has to be there.
    #[inline(always)]
    pub(crate) fn straight(
        &mut self,
        now: Instant,
        network: &mut Network,
        id: UdpId,
        to: Option<&SocketAddr>,
        data: &mut ScatterGather,
    ) -> Option<Buffer> {
        let frame = plain(now, network, self.sockets.get_index(id.0.index)?, to, data)?;
        self.counters.out_datagrams += 1;
        Some(frame)
    }

    /// Takes the oldest datagram out of the receive queue.
    ///
    /// # Errors
    /// What ICMP said about a datagram that a connected socket sent, once;
    /// [`Error::BadDescriptor`] when there is no such socket.
    #[inline]
    pub fn receive(&mut self, id: UdpId) -> Result<Option<Datagram>, Error> {
        let socket = self.sockets.in_use().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        match socket.error.take() {
            Some(error) => Err(error),
            None => Ok(socket.queue.pop()),
        }
    }

    /// The datagram that [`Self::receive`] would return next, which stays where it is.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn peek(&mut self, id: UdpId) -> Result<Option<&Datagram>, Error> {
        let socket = self.sockets.in_use().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        match socket.error.take() {
            Some(error) => Err(error),
            None => Ok(socket.queue.front()),
        }
    }

    /// Ends the socket; what it had not received is dropped. A socket that is not there is no error.
    pub fn close(&mut self, network: &mut Network, events: &mut EventQueue, id: UdpId) {
        let Some(socket) = self.sockets.change().get_mut(id.0) else { return };
        socket.leave_all(network);
        let (port, tuple) = (socket.local.port(), socket.tuple);
        events.forget(socket.mark);
        match tuple {
            Some(tuple) => {
                self.connected.remove(&tuple, id.0.index);
                self.ports.remove_connected(port);
            }
            None if port != 0 => self.unlink(id.0.index, port),
            None => {}
        }
        self.sockets.change().remove(id.0);
        if let Some(share) = &self.share
            && self.ports.first(port).is_none()
            && self.ports.connected(port) == 0
        {
            share.leave_port(Transport::Udp, port);
        }
    }

    /// True when a datagram between these ends has a socket here.
    pub(crate) fn claims(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.find(local.ip(), local.port(), remote.ip(), remote.port()).is_some()
    }

    /// The local address and port; the address is unspecified for all of the family.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is no such socket.
    pub fn local_address(&self, id: UdpId) -> Result<SocketAddr, Error> {
        self.sockets.get(id.0).map(|socket| socket.local).ok_or(Error::BadDescriptor)
    }

    /// The peer's address and port.
    ///
    /// # Errors
    /// [`Error::NotConnected`] without a peer, [`Error::BadDescriptor`] when there is no such socket.
    pub fn remote_address(&self, id: UdpId) -> Result<SocketAddr, Error> {
        self.sockets.get(id.0).ok_or(Error::BadDescriptor)?.remote.ok_or(Error::NotConnected)
    }

    /// True when [`Self::receive`] has something: a datagram or an error.
    #[must_use]
    #[inline]
    pub fn is_readable(&self, id: UdpId) -> bool {
        self.sockets.get(id.0).is_some_and(|socket| !socket.queue.is_empty() || socket.error.is_some())
    }

    /// Sets the number that the socket's events carry, those already queued included.
    pub fn set_user_data(&mut self, events: &mut EventQueue, id: UdpId, user_data: u64) {
        if let Some(socket) = self.sockets.change().get_mut(id.0) {
            socket.user_data = user_data;
            events.set_user_data(socket.mark, user_data);
        }
    }

    /// Number of sockets.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// True when there is no socket.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// What the layer has seen.
    #[must_use]
    pub fn counters(&self) -> &UdpCounters {
        &self.counters
    }

    /// Writes all counters.
    pub fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.enter("udp");
        self.counters.write(sink);
        sink.gauge("sockets", self.sockets.len() as u64);
        sink.leave();
    }
}
