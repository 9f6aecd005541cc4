//! What a socket is made from and what can be set on it. The values mean what POSIX says they mean.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::StreamInfo;

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// IPv4 (`AF_INET`).
    Ipv4,
    /// IPv6 (`AF_INET6`).
    Ipv6,
}

impl Domain {
    /// The family that an address is of.
    #[must_use]
    pub const fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// Communication style of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SocketKind {
    /// A reliable byte stream (`SOCK_STREAM`).
    Stream,
    /// Datagrams (`SOCK_DGRAM`).
    Datagram,
}

/// Which directions `shutdown` ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shutdown {
    /// No more receiving (`SHUT_RD`).
    Read,
    /// No more sending; the peer sees the end of the stream (`SHUT_WR`).
    Write,
    /// Both (`SHUT_RDWR`).
    Both,
}

/// The name of a congestion-control algorithm, such as `cubic`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CongestionName([u8; CongestionName::MAX_BYTES + 1]);

impl CongestionName {
    /// Longest name, in bytes: with the NUL behind it, Linux's `TCP_CA_NAME_MAX`.
    pub const MAX_BYTES: usize = 15;

    /// The name, `None` when it is too long or has a NUL in it.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        (name.len() <= Self::MAX_BYTES && !name.contains('\0')).then(|| Self::truncated(name))
    }

    /// As much of the name as fits.
    #[must_use]
    pub fn truncated(name: &str) -> Self {
        let fits = name.char_indices().map(|(at, char)| at + char.len_utf8());
        let end = fits.take_while(|&end| end <= Self::MAX_BYTES).last().unwrap_or(0);
        let mut bytes = [0; Self::MAX_BYTES + 1];
        for (place, byte) in bytes.iter_mut().zip(name.bytes().take(end)) {
            *place = byte;
        }
        Self(bytes)
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        self.0.get(..end).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The name with zeros behind it, as C has it.
    #[must_use]
    pub const fn as_c_bytes(&self) -> &[u8; Self::MAX_BYTES + 1] {
        &self.0
    }
}

impl fmt::Debug for CongestionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A socket option with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Send small segments at once (`TCP_NODELAY`).
    NoDelay(bool),
    /// Probe an idle peer (`SO_KEEPALIVE`).
    KeepAlive(bool),
    /// For how long a peer is idle before it is probed, of sockets that probe (`TCP_KEEPIDLE`).
    KeepAliveIdle(Duration),
    /// Time between probes of an idle peer (`TCP_KEEPINTVL`).
    KeepAliveInterval(Duration),
    /// Probes without an answer after which the connection is given up (`TCP_KEEPCNT`).
    KeepAliveProbes(u8),
    /// What `close` does with unsent data (`SO_LINGER`): `None` sends it in the background for as long as it takes.
    /// `Some` sends it for so long and then resets the connection, and the close completes with the one or the other;
    /// `Some(0)` resets at once.
    Linger(Option<Duration>),
    /// Bytes of the send queue (`SO_SNDBUF`).
    SendBuffer(usize),
    /// Bytes of the receive queue (`SO_RCVBUF`).
    ReceiveBuffer(usize),
    /// Largest segment, in bytes of payload (`TCP_MAXSEG`).
    MaxSegmentSize(usize),
    /// The congestion-control algorithm, by its name (`TCP_CONGESTION`).
    Congestion(CongestionName),
    /// Allow binding an address that others have bound who set it too, and do not listen (`SO_REUSEADDR`).
    ReuseAddress(bool),
    /// Let several listeners that all set it share a port (`SO_REUSEPORT`).
    ReusePort(bool),
    /// Send full segments only, until it is taken back or a fifth of a second has passed (`TCP_CORK`).
    Cork(bool),
    /// Acknowledge everything at once (`TCP_QUICKACK`; unlike Linux's it stays until it is taken back).
    QuickAck(bool),
    /// How long sent data may stay unacknowledged before the connection is given up (`TCP_USER_TIMEOUT`,
    /// RFC 5482); `None` leaves it to the number of retransmissions.
    UserTimeout(Option<Duration>),
    /// Tell the peer of the user timeout, and without one heed the peer's (RFC 5482's option).
    UserTimeoutOption(bool),
    /// Connections of a listener that are handed over, with the data of their SYN, before their handshake is over
    /// (`TCP_FASTOPEN`, RFC 7413); 0 turns that off.
    FastOpenQueue(usize),
    /// Put what is pushed first on the SYN to a server that was connected to before; connecting completes at once then,
    /// and what is wrong is told later (`TCP_FASTOPEN_CONNECT`, RFC 7413). Such data may arrive twice.
    FastOpenConnect(bool),
    /// Hop limit of what is sent (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    HopLimit(u8),
    /// What routers are told of the traffic's kind (`IP_TOS`, `IPV6_TCLASS`): differentiated services in the upper six bits
    /// (RFC 2474). The lower two, which tell of congestion, are a datagram socket's to set and not a stream's.
    TrafficClass(u8),
    /// A snapshot of the connection (`TCP_INFO`). Read only.
    StreamInfo(StreamInfo),
    /// Allow sending broadcasts (`SO_BROADCAST`).
    Broadcast(bool),
    /// Receive what is sent to a group (`IP_ADD_MEMBERSHIP`, `IPV6_JOIN_GROUP`). Write only.
    JoinGroup(GroupMembership),
    /// Receive it no longer (`IP_DROP_MEMBERSHIP`, `IPV6_LEAVE_GROUP`). Write only.
    LeaveGroup(GroupMembership),
    /// Receive what one source sends to a group, besides other sources named so (`IP_ADD_SOURCE_MEMBERSHIP`,
    /// `MCAST_JOIN_SOURCE_GROUP`, RFC 4607). Write only.
    JoinSourceGroup(SourceMembership),
    /// Receive it no longer; with the last source the group is left (`IP_DROP_SOURCE_MEMBERSHIP`,
    /// `MCAST_LEAVE_SOURCE_GROUP`). Write only.
    LeaveSourceGroup(SourceMembership),
    /// Of a group that was joined as a whole, do not receive what this source sends (`IP_BLOCK_SOURCE`,
    /// `MCAST_BLOCK_SOURCE`). Write only.
    BlockSource(SourceMembership),
    /// Receive it again (`IP_UNBLOCK_SOURCE`, `MCAST_UNBLOCK_SOURCE`). Write only.
    UnblockSource(SourceMembership),
    /// Hop limit of what is sent to groups (`IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`).
    MulticastHops(u8),
    /// What is sent to a group that this host is in comes back to it (`IP_MULTICAST_LOOP`, `IPV6_MULTICAST_LOOP`).
    MulticastLoop(bool),
    /// The interface that what is sent to groups leaves by, named by an address of it (`IP_MULTICAST_IF`,
    /// `IPV6_MULTICAST_IF`); `None` for any.
    MulticastInterface(Option<IpAddr>),
    /// What is done about datagrams larger than their path (`IP_MTU_DISCOVER`, `IPV6_MTU_DISCOVER`).
    PathMtuDiscovery(PathMtuDiscovery),
    /// Largest packet that reaches the peer in one piece, in bytes, as far as is known (`IP_MTU`, `IPV6_MTU`).
    /// Read only.
    PathMtu(usize),
    /// The pending error, cleared by reading it (`SO_ERROR`). Read only.
    PendingError(Option<crate::Error>),
}

/// A group, and the interface on which it is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GroupMembership {
    /// The group's address.
    pub group: IpAddr,
    /// An address of the interface; `None` or an unspecified one for any.
    pub interface: Option<IpAddr>,
}

impl GroupMembership {
    /// A group on whatever interface there is.
    #[must_use]
    pub const fn on_any_interface(group: IpAddr) -> Self {
        Self { group, interface: None }
    }
}

/// A source of a group's datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceMembership {
    /// The group, and the interface.
    pub group: GroupMembership,
    /// The address that the source sends from.
    pub source: IpAddr,
}

/// What a list of sources of a group's datagrams means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FilterMode {
    /// Only the sources listed are wanted (`MCAST_INCLUDE`).
    Include,
    /// All but the sources listed are wanted (`MCAST_EXCLUDE`).
    Exclude,
}

/// What is done about datagrams that are larger than their path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathMtuDiscovery {
    /// They are cut, here or by routers: no packet forbids it (`IP_PMTUDISC_DONT`).
    Never,
    /// Routers are asked to tell what fits, and what does not is cut here (`IP_PMTUDISC_WANT`).
    Wanted,
    /// What does not fit is refused (`IP_PMTUDISC_DO`).
    Always,
    /// What does not fit through our own link is refused, and routers are not listened to (`IP_PMTUDISC_PROBE`).
    Probe,
}

impl PathMtuDiscovery {
    /// True when what routers say counts.
    #[must_use]
    pub const fn follows_the_path(self) -> bool {
        match self {
            Self::Wanted | Self::Always => true,
            Self::Never | Self::Probe => false,
        }
    }
}

/// Names of the options in [`SocketOption`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketOptionName {
    /// [`SocketOption::NoDelay`].
    NoDelay,
    /// [`SocketOption::KeepAlive`].
    KeepAlive,
    /// [`SocketOption::KeepAliveIdle`].
    KeepAliveIdle,
    /// [`SocketOption::KeepAliveInterval`].
    KeepAliveInterval,
    /// [`SocketOption::KeepAliveProbes`].
    KeepAliveProbes,
    /// [`SocketOption::Linger`].
    Linger,
    /// [`SocketOption::SendBuffer`].
    SendBuffer,
    /// [`SocketOption::ReceiveBuffer`].
    ReceiveBuffer,
    /// [`SocketOption::MaxSegmentSize`].
    MaxSegmentSize,
    /// [`SocketOption::Congestion`].
    Congestion,
    /// [`SocketOption::ReuseAddress`].
    ReuseAddress,
    /// [`SocketOption::ReusePort`].
    ReusePort,
    /// [`SocketOption::Cork`].
    Cork,
    /// [`SocketOption::QuickAck`].
    QuickAck,
    /// [`SocketOption::UserTimeout`].
    UserTimeout,
    /// [`SocketOption::UserTimeoutOption`].
    UserTimeoutOption,
    /// [`SocketOption::FastOpenQueue`].
    FastOpenQueue,
    /// [`SocketOption::FastOpenConnect`].
    FastOpenConnect,
    /// [`SocketOption::HopLimit`].
    HopLimit,
    /// [`SocketOption::TrafficClass`].
    TrafficClass,
    /// [`SocketOption::StreamInfo`].
    StreamInfo,
    /// [`SocketOption::Broadcast`].
    Broadcast,
    /// [`SocketOption::JoinGroup`].
    JoinGroup,
    /// [`SocketOption::LeaveGroup`].
    LeaveGroup,
    /// [`SocketOption::JoinSourceGroup`].
    JoinSourceGroup,
    /// [`SocketOption::LeaveSourceGroup`].
    LeaveSourceGroup,
    /// [`SocketOption::BlockSource`].
    BlockSource,
    /// [`SocketOption::UnblockSource`].
    UnblockSource,
    /// [`SocketOption::MulticastHops`].
    MulticastHops,
    /// [`SocketOption::MulticastLoop`].
    MulticastLoop,
    /// [`SocketOption::MulticastInterface`].
    MulticastInterface,
    /// [`SocketOption::PathMtuDiscovery`].
    PathMtuDiscovery,
    /// [`SocketOption::PathMtu`].
    PathMtu,
    /// [`SocketOption::PendingError`].
    PendingError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_congestion_name_is_kept_whole_or_refused() {
        for name in ["", "cubic", "fifteen-letters"] {
            assert_eq!(CongestionName::new(name).map(|name| name.as_str().to_owned()), Some(name.to_owned()));
        }
        for name in ["sixteen-letters-", "nul\0inside"] {
            assert_eq!(CongestionName::new(name), None, "{name:?}");
        }
        assert_eq!(CongestionName::truncated("fourteen bytesäöü").as_str(), "fourteen bytes");
        assert_eq!(CongestionName::truncated("reno").as_c_bytes(), b"reno\0\0\0\0\0\0\0\0\0\0\0\0");
    }
}
