//! What a socket is made from and what can be set on it. The values mean what POSIX says they mean.

use std::time::Duration;

/// Address family of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Domain {
    /// IPv4 (`AF_INET`).
    Ipv4,
    /// IPv6 (`AF_INET6`).
    Ipv6,
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

/// A socket option with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SocketOption {
    /// Send small segments at once (`TCP_NODELAY`).
    NoDelay(bool),
    /// Probe an idle peer (`SO_KEEPALIVE`).
    KeepAlive(bool),
    /// What `close` does with unsent data (`SO_LINGER`): `Some(0)` resets the connection.
    Linger(Option<Duration>),
    /// Bytes of the send queue (`SO_SNDBUF`).
    SendBuffer(usize),
    /// Bytes of the receive queue (`SO_RCVBUF`).
    ReceiveBuffer(usize),
    /// Largest segment, in bytes of payload (`TCP_MAXSEG`).
    MaxSegmentSize(usize),
    /// Allow binding an address in TIME-WAIT (`SO_REUSEADDR`).
    ReuseAddress(bool),
    /// Hop limit of what is sent (`IP_TTL`, `IPV6_UNICAST_HOPS`).
    HopLimit(u8),
    /// The pending error, cleared by reading it (`SO_ERROR`). Read only.
    PendingError(Option<crate::Error>),
}

/// Names of the options in [`SocketOption`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SocketOptionName {
    /// [`SocketOption::NoDelay`].
    NoDelay,
    /// [`SocketOption::KeepAlive`].
    KeepAlive,
    /// [`SocketOption::Linger`].
    Linger,
    /// [`SocketOption::SendBuffer`].
    SendBuffer,
    /// [`SocketOption::ReceiveBuffer`].
    ReceiveBuffer,
    /// [`SocketOption::MaxSegmentSize`].
    MaxSegmentSize,
    /// [`SocketOption::ReuseAddress`].
    ReuseAddress,
    /// [`SocketOption::HopLimit`].
    HopLimit,
    /// [`SocketOption::PendingError`].
    PendingError,
}
