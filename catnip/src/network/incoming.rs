//! What the network layer hands up: a transport's packet, or an ICMP error about one.

use std::net::{IpAddr, SocketAddr};

use libos::{Buffer, BufferList};

use super::Protocol;

/// To whom a packet was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DestinationKind {
    /// To one of this stack's addresses.
    Unicast,
    /// To everybody on the link.
    Broadcast,
    /// To a group.
    Multicast,
}

/// A transport's packet. Its checksum is right, or nobody wants it checked.
#[derive(Debug)]
pub struct Packet {
    /// [`Protocol::Tcp`] or [`Protocol::Udp`].
    pub protocol: Protocol,
    /// The sender: a unicast address.
    pub source: IpAddr,
    /// The receiver: one of this stack's addresses, a broadcast address or a group.
    pub destination: IpAddr,
    /// What kind of address the destination is.
    pub kind: DestinationKind,
    /// From the transport header on, cut to the length that IP (and for UDP its header) states.
    pub head: Buffer,
    /// Further payload of a large received frame, usually empty.
    pub rest: BufferList,
    /// When the device joined several TCP segments: the payload bytes of each; else 0.
    pub segment_bytes: u16,
    /// Traffic class, or type of service: DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes of the network header, extension headers included.
    pub network_header_len: u8,
}

impl Packet {
    /// Bytes of transport header and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.head.len() + self.rest.bytes()
    }

    /// True when there is not one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What an ICMP error says (RFC 792, RFC 4443).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IcmpErrorKind {
    /// Nobody listens on the port.
    PortUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// The host cannot be reached.
    HostUnreachable,
    /// The network cannot be reached.
    NetworkUnreachable,
    /// A filter is in the way.
    AdminProhibited,
    /// The packet does not fit through the next link: "fragmentation needed" of ICMPv4, "packet too
    /// big" of ICMPv6.
    FragmentationNeeded {
        /// Largest IP packet that fits, in bytes: at least 68 for IPv4, 1280 for IPv6.
        mtu: usize,
    },
    /// The hop limit ran out, or reassembly took too long.
    TimeExceeded,
    /// A header field made no sense to somebody.
    ParameterProblem,
}

/// An ICMP error about a packet that this stack sent, or said it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IcmpError {
    /// [`Protocol::Tcp`] or [`Protocol::Udp`].
    pub protocol: Protocol,
    /// The source of the packet that the error is about.
    pub local: SocketAddr,
    /// The destination of the packet that the error is about.
    pub remote: SocketAddr,
    /// TCP: the sequence number of the packet that the error is about.
    pub sequence: u32,
    /// What the error says.
    pub kind: IcmpErrorKind,
}

/// What became of a received frame.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the common one")]
pub enum Ingress {
    /// The network layer dealt with it.
    Consumed,
    /// It carries a transport's packet.
    Packet(Packet),
    /// It is an ICMP error for a transport.
    Error(IcmpError),
}
