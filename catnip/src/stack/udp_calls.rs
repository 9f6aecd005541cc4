//! The stack's UDP: calls with the meaning of POSIX's, none of which ever waits.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libos::{
    Buffer, Domain, Error, FilterMode, GroupMembership, Instant, ScatterGather, SocketOption,
    SocketOptionName,
};

use super::Stack;
use crate::events::UdpId;
use crate::network::SourceFilter;
use crate::udp::{Datagram, UdpCounters};

impl Stack {
    /// Makes a socket on a local address and port; port 0 picks a free one.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when the address is not ours or no port is free, [`Error::AddressInUse`]
    /// when an overlapping address has the port, [`Error::TooManyConnections`] when the table is full.
    pub fn udp_bind(&mut self, local: SocketAddr) -> Result<UdpId, Error> {
        self.udp.bind(&self.network, local)
    }

    /// Makes a socket without address, for options to be set before it is bound.
    ///
    /// # Errors
    /// [`Error::TooManyConnections`] when the table is full.
    pub fn udp_open(&mut self, domain: Domain) -> Result<UdpId, Error> {
        self.udp.open(domain)
    }

    /// Gives a socket that was opened its local address and port; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`Self::udp_bind`], and [`Error::InvalidArgument`] for a socket that is bound already.
    pub fn udp_bind_opened(&mut self, id: UdpId, local: SocketAddr) -> Result<(), Error> {
        self.udp.bind_opened(&self.network, id, local)
    }

    /// With several cores: the local address to bind to before connecting to `remote`, so that what it answers comes
    /// to this core. `None` with one core, and when no port does it.
    #[must_use]
    pub fn udp_home_towards(&mut self, now: Instant, remote: SocketAddr) -> Option<SocketAddr> {
        let port = self.udp.port_towards(now, &mut self.network, remote)?;
        let any: IpAddr = match remote {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Some(SocketAddr::new(any, port))
    }

    /// Makes `remote` the only peer: where pushes go, and the only one whose datagrams are received.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for port 0, [`Error::NetworkUnreachable`] without a route.
    pub fn udp_connect(&mut self, now: Instant, id: UdpId, remote: SocketAddr) -> Result<(), Error> {
        self.udp.connect(now, &mut self.network, id, remote)
    }

    /// Sends one datagram to `to`, or to the peer of a connected socket. `data` is taken.
    ///
    /// # Errors
    /// [`Error::NotConnected`] without an address, [`Error::MessageTooLong`] when it does not fit into a
    /// packet of the path, [`Error::NoBuffers`] when memory or the device's queue is full; `data` is then as it was, [`Error::NetworkUnreachable`], or what ICMP said of an
    /// earlier datagram to the peer.
    #[inline(always)]
    pub fn udp_send(
        &mut self,
        now: Instant,
        id: UdpId,
        to: Option<&SocketAddr>,
        data: &mut ScatterGather,
    ) -> Result<(), Error> {
        self.udp.send(now, &mut self.network, id, to, data)
    }

    /// The frame of a datagram for [`Self::udp_send`] that goes where the socket's last one went: it is to be sent at once,
    /// while nothing else waits to be sent. `None`, and nothing done, for all others.
    #[inline(always)]
    pub(crate) fn udp_straight(
        &mut self,
        now: Instant,
        id: UdpId,
        to: Option<&SocketAddr>,
        data: &mut ScatterGather,
    ) -> Option<Buffer> {
        self.udp.straight(now, &mut self.network, id, to, data)
    }

    /// The oldest datagram that waits, `None` when none does.
    ///
    /// # Errors
    /// What ICMP said of an earlier datagram to the peer of a connected socket; once.
    #[inline]
    pub fn udp_receive(&mut self, id: UdpId) -> Result<Option<Datagram>, Error> {
        self.udp.receive(id)
    }

    /// The datagram that [`Self::udp_receive`] would return, which stays where it is (`MSG_PEEK`, and `SIOCINQ` by its
    /// length).
    ///
    /// # Errors
    /// As [`Self::udp_receive`].
    pub fn udp_peek(&mut self, id: UdpId) -> Result<Option<&Datagram>, Error> {
        self.udp.peek(id)
    }

    /// True when [`Self::udp_receive`] has something: a datagram or an error.
    #[must_use]
    #[inline]
    pub fn udp_is_readable(&self, id: UdpId) -> bool {
        self.udp.is_readable(id)
    }

    /// Closes the socket. Datagrams that wait in it are lost.
    pub fn udp_close(&mut self, id: UdpId) {
        self.udp.close(&mut self.network, &mut self.events, id);
    }

    /// The socket's local address.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is gone.
    pub fn udp_local_address(&self, id: UdpId) -> Result<SocketAddr, Error> {
        self.udp.local_address(id)
    }

    /// The peer of a connected socket.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when there is none, [`Error::BadDescriptor`] when the socket is gone.
    pub fn udp_remote_address(&self, id: UdpId) -> Result<SocketAddr, Error> {
        self.udp.remote_address(id)
    }

    /// Sets an option of a socket, bound or not.
    ///
    /// # Errors
    /// As [`crate::udp::UdpLayer::set_option`].
    pub fn udp_set_option(&mut self, id: UdpId, option: SocketOption) -> Result<(), Error> {
        self.udp.set_option(&mut self.network, id, option)
    }

    /// Says whose datagrams to a group a socket wants, in the place of what it wanted before.
    ///
    /// # Errors
    /// As [`crate::udp::UdpLayer::set_source_filter`].
    pub fn udp_set_source_filter(
        &mut self,
        id: UdpId,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        self.udp.set_source_filter(&mut self.network, id, group, mode, sources)
    }

    /// Whose datagrams to a group a socket wants.
    ///
    /// # Errors
    /// As [`crate::udp::UdpLayer::source_filter`].
    pub fn udp_source_filter(&self, id: UdpId, group: GroupMembership) -> Result<&SourceFilter, Error> {
        self.udp.source_filter(id, group)
    }

    /// Reads an option of a socket. That of the pending error clears it.
    ///
    /// # Errors
    /// As [`crate::udp::UdpLayer::option`].
    pub fn udp_option(&mut self, id: UdpId, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.udp.option(id, name)
    }

    /// Gives the socket a number that comes with its events.
    pub fn udp_set_user_data(&mut self, id: UdpId, user_data: u64) {
        self.udp.set_user_data(&mut self.events, id, user_data);
    }

    /// UDP's counters.
    #[must_use]
    pub fn udp_counters(&self) -> &UdpCounters {
        self.udp.counters()
    }
}
