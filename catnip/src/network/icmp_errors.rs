//! ICMP errors that we send: rarely, to one receiver, and never about errors (RFC 1122 section 3.2.2,
//! RFC 4443 section 2.4).

use std::net::IpAddr;

use libos::Instant;

use super::ipv6::MAX_EXTENSION_HEADERS;
use super::receive::IpInfo;
use super::{DestinationKind, HeaderBuffer, Network, Outgoing, Packet, Payload, Protocol};
use crate::stack::MIN_MTU_IPV6;
use crate::wire::icmp::{self, IcmpHeader, v4, v6};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::ipv6::{self, ExtensionHeader, FragmentHeader, next_header};
use crate::wire::router::kind::REDIRECT;

const ICMPV6: u8 = Protocol::Icmpv6.number();

/// Longest IPv4 packet with an error in it (RFC 1812 section 4.3.2.3).
const MAX_ERROR_BYTES_IPV4: usize = 576;

/// What there is to complain about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Complaint {
    /// Nobody listens on the port.
    Port,
    /// Nobody here speaks the protocol, which the packet names at the pointer.
    Protocol { pointer: usize },
    /// Parts of the packet did not come in time.
    ReassemblyTime,
    /// The packet is to go on to other hosts, of which we are none that forwards (IPv4).
    SourceRoute,
    /// The byte at the pointer makes no sense. The code is ICMPv6's; ICMPv4 has one for this.
    ParameterProblem { code: u8, pointer: usize, even_multicast: bool },
}

impl Network {
    /// Tells the sender of a datagram that nobody listens on its port. To be called, if at all, before
    /// anything else is received.
    pub fn send_port_unreachable(&mut self, now: Instant, packet: &Packet) {
        let ip = IpInfo {
            source: packet.source,
            destination: packet.destination,
            kind: packet.kind,
            protocol: packet.protocol.number(),
            traffic_class: packet.traffic_class,
            hop_limit: 0,
            header_len: usize::from(packet.network_header_len),
            fragmented: false,
            protocol_pointer: 0,
        };
        self.complain_about_payload(now, &ip, Complaint::Port, &packet.head);
    }

    /// Tells the sender of a packet that nobody here speaks its protocol.
    #[cold]
    pub(super) fn send_protocol_unreachable(&mut self, now: Instant, ip: &IpInfo, payload: &[u8]) {
        let complaint = Complaint::Protocol { pointer: ip.protocol_pointer };
        self.complain_about_payload(now, ip, complaint, payload);
    }

    fn complain_about_payload(&mut self, now: Instant, ip: &IpInfo, complaint: Complaint, payload: &[u8]) {
        let kept = std::mem::take(&mut self.last_header);
        if kept.bytes().len() == ip.header_len {
            self.complain(now, ip, complaint, &[kept.bytes(), payload]);
        }
    }

    /// Sends an error about a packet with these parts, if the packet is one that errors are sent about.
    #[cold]
    pub(super) fn complain(&mut self, now: Instant, ip: &IpInfo, complaint: Complaint, packet: &[&[u8]]) {
        let even_multicast = matches!(complaint, Complaint::ParameterProblem { even_multicast: true, .. });
        // The sender was checked to be one host when the packet came in, except for this.
        let ineligible = ip.source.is_unspecified() || ip.kind != DestinationKind::Unicast && !even_multicast;
        if ineligible || packet.first().is_some_and(|packet| is_error(packet)) {
            return;
        }
        if !self.icmp_errors.take(now) {
            self.counters.icmp_out_rate_limited += 1;
            return;
        }
        let local = (ip.kind == DestinationKind::Unicast).then_some(ip.destination);
        let Ok(mut path) = self.path(now, local, ip.source) else { return };
        let (protocol, header, max_bytes) = match (ip.source, complaint) {
            (IpAddr::V4(_), Complaint::Port) => (
                Protocol::Icmpv4,
                plain_error(v4::DESTINATION_UNREACHABLE, v4::unreachable::PORT),
                IPV4_QUOTE,
            ),
            (IpAddr::V4(_), Complaint::Protocol { .. }) => {
                let header = plain_error(v4::DESTINATION_UNREACHABLE, v4::unreachable::PROTOCOL);
                (Protocol::Icmpv4, header, IPV4_QUOTE)
            }
            (IpAddr::V4(_), Complaint::ReassemblyTime) => {
                (Protocol::Icmpv4, plain_error(v4::TIME_EXCEEDED, v4::REASSEMBLY), IPV4_QUOTE)
            }
            (IpAddr::V4(_), Complaint::SourceRoute) => {
                let header = plain_error(v4::DESTINATION_UNREACHABLE, v4::unreachable::SOURCE_ROUTE_FAILED);
                (Protocol::Icmpv4, header, IPV4_QUOTE)
            }
            // IPv6 has no such option.
            (IpAddr::V6(_), Complaint::SourceRoute) => return,
            (IpAddr::V6(_), Complaint::ReassemblyTime) => {
                (Protocol::Icmpv6, plain_error(v6::TIME_EXCEEDED, v6::REASSEMBLY), IPV6_QUOTE)
            }
            (IpAddr::V4(_), Complaint::ParameterProblem { pointer, .. }) => {
                // RFC 792: the pointer is one byte, and no header is longer than it reaches.
                let rest = [u8::try_from(pointer).unwrap_or(0), 0, 0, 0];
                let header = IcmpHeader { kind: v4::PARAMETER_PROBLEM, code: 0, rest };
                (Protocol::Icmpv4, header, IPV4_QUOTE)
            }
            (IpAddr::V6(_), Complaint::Port) => (
                Protocol::Icmpv6,
                plain_error(v6::DESTINATION_UNREACHABLE, v6::unreachable::PORT),
                IPV6_QUOTE,
            ),
            (IpAddr::V6(_), Complaint::Protocol { pointer }) => {
                let code = v6::parameter::UNRECOGNIZED_NEXT_HEADER;
                (Protocol::Icmpv6, parameter_problem(code, pointer), IPV6_QUOTE)
            }
            (IpAddr::V6(_), Complaint::ParameterProblem { code, pointer, .. }) => {
                (Protocol::Icmpv6, parameter_problem(code, pointer), IPV6_QUOTE)
            }
        };
        let len: usize = packet.iter().map(|part| part.len()).sum();
        let Some(mut quote) = self.arena.allocate(len.min(max_bytes)) else {
            self.counters.ip_out_discards += 1;
            return;
        };
        for part in packet {
            let room = max_bytes - quote.len();
            quote.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        let mut quote = quote.freeze();
        let mut headers = HeaderBuffer::new();
        headers.transport(icmp::HEADER_BYTES).copy_from_slice(&header.compose());
        let outgoing = Outgoing {
            protocol,
            headers: &mut headers,
            checksum_offset: icmp::CHECKSUM_OFFSET,
            payload: Payload::Whole(&mut quote),
            segment_bytes: None,
            hop_limit: self.hop_limit(path.remote),
            traffic_class: 0,
        };
        if self.send(now, &mut path, outgoing).is_ok() {
            self.counters.icmp_out_messages += 1;
            self.counters.icmp_out_destination_errors += 1;
        }
    }
}

/// Bytes of the packet that an ICMPv4 error quotes.
const IPV4_QUOTE: usize = MAX_ERROR_BYTES_IPV4 - ipv4::HEADER_BYTES - icmp::HEADER_BYTES;
/// Bytes of the packet that an ICMPv6 error quotes (RFC 4443 section 2.4 (c)).
const IPV6_QUOTE: usize = MIN_MTU_IPV6 - ipv6::HEADER_BYTES - icmp::HEADER_BYTES;

fn plain_error(kind: u8, code: u8) -> IcmpHeader {
    IcmpHeader { kind, code, rest: [0; 4] }
}

fn parameter_problem(code: u8, pointer: usize) -> IcmpHeader {
    let pointer = u32::try_from(pointer).unwrap_or(0);
    IcmpHeader { kind: v6::PARAMETER_PROBLEM, code, rest: pointer.to_be_bytes() }
}

/// True when a packet is an error of ICMP itself, or a redirect, as far as can be seen from it: about those nobody is told
/// anything (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
#[cold]
fn is_error(packet: &[u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) => match Ipv4Header::parse_quoted(packet) {
            Ok(header) if header.protocol() == Protocol::Icmpv4.number() => {
                packet.get(header.header_len()).is_some_and(|kind| v4::is_error(*kind))
            }
            Ok(_) | Err(_) => false,
        },
        Some(6) => icmpv6_kind(packet).is_some_and(|kind| kind < v6::FIRST_INFORMATIONAL || kind == REDIRECT),
        Some(_) | None => false,
    }
}

/// The kind of the ICMPv6 message behind the headers of a packet, whatever these say; `None` when there is none in sight.
fn icmpv6_kind(packet: &[u8]) -> Option<u8> {
    let (mut protocol, mut behind) =
        (*packet.get(ipv6::NEXT_HEADER_OFFSET)?, packet.get(ipv6::HEADER_BYTES..)?);
    // A chain that is longer is not looked at for errors either.
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let len = match protocol {
            ICMPV6 => return behind.first().copied(),
            next_header::HOP_BY_HOP | next_header::ROUTING | next_header::DESTINATION => {
                ExtensionHeader::parse(behind)?.len()
            }
            next_header::FRAGMENT if FragmentHeader::parse(behind)?.offset == 0 => FragmentHeader::BYTES,
            _ => return None,
        };
        protocol = *behind.first()?;
        behind = behind.get(len..)?;
    }
    None
}
