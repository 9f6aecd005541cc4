//! What can be set on a socket.

use std::net::IpAddr;

use libos::{Error, FilterMode, GroupMembership, PathMtuDiscovery, SocketOption, SocketOptionName};

use super::UdpLayer;
use super::socket::Socket;
use crate::events::UdpId;
use crate::network::{Network, SendPolicy, SourceFilter};

/// What is set on a socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) hop_limit: u8,
    /// Differentiated services and ECN of what is sent (RFC 1122 section 4.1.4).
    pub(super) traffic_class: u8,
    /// Hop limit of what goes to groups (RFC 1112 section 6.1).
    pub(super) multicast_hops: u8,
    /// What goes to a group that this host is in comes back to it.
    pub(super) multicast_loop: bool,
    /// The source of what goes to groups.
    pub(super) multicast_source: Option<IpAddr>,
    /// Broadcasts may be sent.
    pub(super) broadcast: bool,
    /// The port may be shared with others that allow it too.
    pub(super) shared: bool,
    pub(super) discovery: PathMtuDiscovery,
}

impl Options {
    pub(super) const fn new(hop_limit: u8) -> Self {
        Self {
            hop_limit,
            traffic_class: 0,
            multicast_hops: 1,
            multicast_loop: true,
            multicast_source: None,
            broadcast: false,
            shared: false,
            discovery: PathMtuDiscovery::Wanted,
        }
    }

    /// How datagrams to `remote` leave.
    pub(super) fn policy(&self, remote: IpAddr) -> SendPolicy {
        let (dont_fragment, may_be_cut) = match self.discovery {
            PathMtuDiscovery::Never => (false, true),
            PathMtuDiscovery::Wanted => (true, true),
            PathMtuDiscovery::Always | PathMtuDiscovery::Probe => (true, false),
        };
        let copy_to_ourselves = remote.is_multicast() && self.multicast_loop;
        SendPolicy { dont_fragment, may_be_cut, copy_to_ourselves }
    }

    /// The hop limit of datagrams to `remote`.
    pub(super) fn hop_limit_to(&self, remote: IpAddr) -> u8 {
        if remote.is_multicast() { self.multicast_hops } else { self.hop_limit }
    }
}

impl UdpLayer {
    /// Sets an option of a socket, bound or not.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is no such socket, [`Error::InvalidArgument`] for a hop limit of 0
    /// and for what is no group, or no source, of the socket's family, for a group of RFC 4607 without a source, and
    /// for a source that is to be wanted where all are, or blocked where only some are wanted;
    /// [`Error::AddressInUse`] for a group that the socket is in already, [`Error::AddressNotAvailable`] for one that it
    /// is not in, for a source that is listed already or is not, and for an interface that is none;
    /// [`Error::NoBuffers`] for too many groups or sources; [`Error::NotSupported`] for what datagram sockets do not
    /// have.
    pub fn set_option(
        &mut self,
        network: &mut Network,
        id: UdpId,
        option: SocketOption,
    ) -> Result<(), Error> {
        let socket = self.sockets.change().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        let options = &mut socket.options;
        match option {
            SocketOption::HopLimit(0) | SocketOption::MulticastHops(0) => return Err(Error::InvalidArgument),
            SocketOption::HopLimit(limit) => options.hop_limit = limit,
            SocketOption::TrafficClass(class) => options.traffic_class = class,
            SocketOption::MulticastHops(hops) => options.multicast_hops = hops,
            SocketOption::MulticastLoop(on) => options.multicast_loop = on,
            SocketOption::MulticastInterface(address) => {
                options.multicast_source = interface(network, address)?;
            }
            SocketOption::Broadcast(on) => options.broadcast = on,
            SocketOption::ReuseAddress(on) | SocketOption::ReusePort(on) => options.shared = on,
            SocketOption::PathMtuDiscovery(discovery) => options.discovery = discovery,
            SocketOption::JoinGroup(membership) => return socket.join(network, membership),
            SocketOption::LeaveGroup(membership) => return socket.leave(network, membership),
            SocketOption::JoinSourceGroup(wanted) => return socket.join_source(network, wanted),
            SocketOption::LeaveSourceGroup(unwanted) => return socket.leave_source(network, unwanted),
            SocketOption::BlockSource(unwanted) => return socket.block_source(network, unwanted),
            SocketOption::UnblockSource(wanted) => return socket.unblock_source(network, wanted),
            _ => return Err(Error::NotSupported),
        }
        socket.apply_options(network);
        Ok(())
    }

    /// Says whose datagrams to a group a socket wants, in the place of what it wanted before.
    ///
    /// # Errors
    /// As [`libos::LibOs::set_source_filter`], and [`Error::BadDescriptor`] when there is no such socket.
    pub fn set_source_filter(
        &mut self,
        network: &mut Network,
        id: UdpId,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        let socket = self.sockets.change().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        socket.set_source_filter(network, group, mode, sources)
    }

    /// Whose datagrams to a group a socket wants.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`] when it is not in the group, [`Error::BadDescriptor`] when there is no such socket.
    pub fn source_filter(&self, id: UdpId, group: GroupMembership) -> Result<&SourceFilter, Error> {
        self.sockets.get(id.0).ok_or(Error::BadDescriptor)?.source_filter(group)
    }

    /// Reads an option of a socket.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when there is no such socket, [`Error::NotConnected`] for the path MTU of a
    /// socket without a peer, [`Error::NotSupported`] for what datagram sockets do not have.
    pub fn option(&mut self, id: UdpId, name: SocketOptionName) -> Result<SocketOption, Error> {
        let socket = self.sockets.change().get_mut(id.0).ok_or(Error::BadDescriptor)?;
        let options = &socket.options;
        match name {
            SocketOptionName::HopLimit => Ok(SocketOption::HopLimit(options.hop_limit)),
            SocketOptionName::TrafficClass => Ok(SocketOption::TrafficClass(options.traffic_class)),
            SocketOptionName::MulticastHops => Ok(SocketOption::MulticastHops(options.multicast_hops)),
            SocketOptionName::MulticastLoop => Ok(SocketOption::MulticastLoop(options.multicast_loop)),
            SocketOptionName::MulticastInterface => {
                Ok(SocketOption::MulticastInterface(options.multicast_source))
            }
            SocketOptionName::Broadcast => Ok(SocketOption::Broadcast(options.broadcast)),
            SocketOptionName::ReuseAddress => Ok(SocketOption::ReuseAddress(options.shared)),
            SocketOptionName::ReusePort => Ok(SocketOption::ReusePort(options.shared)),
            SocketOptionName::PathMtuDiscovery => Ok(SocketOption::PathMtuDiscovery(options.discovery)),
            SocketOptionName::PathMtu => {
                let path = socket.way.path().filter(|_| socket.remote.is_some());
                path.map(|path| SocketOption::PathMtu(path.mtu)).ok_or(Error::NotConnected)
            }
            SocketOptionName::PendingError => Ok(SocketOption::PendingError(socket.error.take())),
            _ => Err(Error::NotSupported),
        }
    }
}

impl Socket {
    /// Has the way that datagrams go follow the options.
    pub(super) fn apply_options(&mut self, network: &Network) {
        match (self.way.path_mut(), self.remote) {
            // A source that was chosen for groups may be another now: the way is looked up again.
            (path, None) => *path = None,
            (Some(path), Some(_)) => {
                path.set_policy(self.options.policy(path.remote));
                self.hop_limit = self.options.hop_limit_to(path.remote);
                if !self.options.discovery.follows_the_path() {
                    path.mtu = network.link_mtu(path.remote);
                }
            }
            (None, Some(_)) => {}
        }
    }
}

/// The address that stands for an interface; none for the only one there is.
pub(super) fn interface(network: &Network, address: Option<IpAddr>) -> Result<Option<IpAddr>, Error> {
    match address.filter(|address| !address.is_unspecified()) {
        Some(address) if !network.is_local(address) => Err(Error::AddressNotAvailable),
        address => Ok(address),
    }
}

impl UdpLayer {
    /// Has the only peer's MTU, and that of a socket's last destination, follow what a router said.
    pub(super) fn lower_mtu(&mut self, index: u32, remote: IpAddr, mtu: usize) -> bool {
        let Some(socket) = self.sockets.change().get_index_mut(index) else { return false };
        let follows = socket.options.discovery.follows_the_path();
        let path =
            socket.way.path_mut().as_mut().filter(|path| follows && path.remote == remote && mtu < path.mtu);
        path.map(|path| path.mtu = mtu).is_some()
    }
}
