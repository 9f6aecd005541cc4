//! Packets quoted in ICMP errors: keeping the header of one received, and reading one that we sent.

use std::net::{IpAddr, SocketAddr};

use super::fragment::FragmentPlace;
use super::ipv6::{Obstacle, walk};
use super::{IcmpError, IcmpErrorKind, Protocol};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::ipv6::{FragmentHeader, Ipv6Header};

/// Longest header that is kept; errors about packets with longer ones are not sent.
const MAX_KEPT_BYTES: usize = 192;

/// The IP header of the packet that was handed up last. Its buffer begins behind the header by then,
/// and an error about the packet must quote it.
#[derive(Debug)]
pub(super) struct LastHeader {
    bytes: [u8; MAX_KEPT_BYTES],
    len: usize,
}

impl Default for LastHeader {
    fn default() -> Self {
        Self { bytes: [0; MAX_KEPT_BYTES], len: 0 }
    }
}

impl LastHeader {
    /// Keeps the first `len` bytes of a packet.
    #[inline]
    pub(super) fn keep(&mut self, packet: &[u8], len: usize) {
        self.len = 0;
        if len == ipv4::HEADER_BYTES {
            // The usual case, in two moves.
            if let Some(header) = packet.first_chunk::<{ ipv4::HEADER_BYTES }>() {
                self.bytes[..ipv4::HEADER_BYTES].copy_from_slice(header);
                self.len = len;
            }
        } else if let (Some(to), Some(from)) = (self.bytes.get_mut(..len), packet.get(..len)) {
            to.copy_from_slice(from);
            self.len = len;
        }
    }

    /// The header; empty when it was too long to be kept.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A packet of a transport as far as an ICMP error quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quoted {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    sequence: u32,
    /// Bytes of the whole packet as its header says.
    pub(super) packet_len: usize,
}

impl Quoted {
    /// The packet that begins with an IPv4 header. `None` when it is no transport's, or when too
    /// little of it is there.
    pub(super) fn parse_v4(packet: &[u8]) -> Option<Self> {
        let header = Ipv4Header::parse_quoted(packet).ok()?;
        if header.is_later_fragment() {
            return None;
        }
        let transport = packet.get(header.header_len()..)?;
        let (source, destination) = (header.source().into(), header.destination().into());
        Self::parse_transport(header.protocol(), source, destination, transport, header.total_len())
    }

    /// As [`Self::parse_v4`], for IPv6.
    pub(super) fn parse_v6(packet: &[u8]) -> Option<Self> {
        let header = Ipv6Header::parse_quoted(packet).ok()?;
        let (protocol, offset) = match walk(packet, header.next_header()) {
            Ok(upper) => (upper.protocol, upper.offset),
            // What we cut has no further headers behind that of its parts.
            Err(Obstacle::Fragment(FragmentPlace { header, offset, .. })) if header.offset == 0 => {
                (header.next_header, offset + FragmentHeader::BYTES)
            }
            Err(Obstacle::Fragment(_) | Obstacle::Drop | Obstacle::Problem { .. }) => return None,
        };
        let transport = packet.get(offset..)?;
        let (source, destination) = (header.source().into(), header.destination().into());
        let packet_len = crate::wire::ipv6::HEADER_BYTES + header.payload_len();
        Self::parse_transport(protocol, source, destination, transport, packet_len)
    }

    fn parse_transport(
        protocol: u8,
        source: IpAddr,
        destination: IpAddr,
        transport: &[u8],
        packet_len: usize,
    ) -> Option<Self> {
        // RFC 792: at least the first eight bytes are there.
        let [a, b, c, d, sequence @ ..] = *transport.first_chunk::<8>()?;
        let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|known| known.number() == protocol)?;
        Some(Self {
            protocol,
            local: SocketAddr::new(source, u16::from_be_bytes([a, b])),
            remote: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
            sequence: u32::from_be_bytes(sequence),
            packet_len,
        })
    }

    /// Who is said to have sent it.
    pub(super) fn source(&self) -> IpAddr {
        self.local.ip()
    }

    /// Whom it was sent to.
    pub(super) fn destination(&self) -> IpAddr {
        self.remote.ip()
    }

    /// The error about it.
    pub(super) fn error(&self, kind: IcmpErrorKind) -> IcmpError {
        let sequence = match self.protocol {
            Protocol::Tcp => self.sequence,
            Protocol::Udp | Protocol::Icmpv4 | Protocol::Icmpv6 => 0,
        };
        IcmpError { protocol: self.protocol, local: self.local, remote: self.remote, sequence, kind }
    }
}
