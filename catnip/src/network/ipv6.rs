//! Received IPv6 packets and their extension headers (RFC 8200).

use libos::Instant;
use libos::runtime::RxFrame;

use super::fragment::FragmentPlace;
use super::icmp_errors::Complaint;
use super::receive::{IpInfo, Origin, cut, frame_len};
use super::{DestinationKind, Ingress, Network, Protocol};
use crate::wire::icmp::{self, v6::parameter};
use crate::wire::ipv6::{
    self, BadOption, ExtensionHeader, FragmentHeader, Ipv6Header, OptionAction, check_options, next_header,
};
use crate::wire::udp;

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const ICMPV6: u8 = Protocol::Icmpv6.number();
/// Shortest TCP header (RFC 9293 section 3.1).
const MIN_TCP_HEADER_BYTES: usize = 20;

/// Most extension headers in one packet, and most bytes of them; packets with more are dropped.
pub(super) const MAX_EXTENSION_HEADERS: usize = 8;
const MAX_EXTENSION_BYTES: usize = 128;

/// What is behind the extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Upper {
    pub(super) protocol: u8,
    /// Bytes of all headers, the fixed one included.
    pub(super) offset: usize,
    /// Bytes from the packet's start to the field that names the protocol.
    pub(super) protocol_pointer: usize,
    /// There was a fragment header, though of a packet in one piece.
    pub(super) fragmented: bool,
}

/// Why a packet is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// It is a part of a larger one.
    Fragment(FragmentPlace),
    /// It has no payload, is malformed, or has more headers than anybody needs.
    Drop,
    /// The sender is to be told: code and pointer of a parameter problem.
    Problem { code: u8, pointer: usize, even_multicast: bool },
}

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wholeness {
    /// As it was received.
    AsSent,
    /// In parts, of which it was put together.
    Reassembled,
}

/// Walks the extension headers of `packet`, which begins with its fixed header. Bounded.
pub(super) fn walk(packet: &[u8], first: u8) -> Result<Upper, Obstacle> {
    walk_from(packet, first, ipv6::HEADER_BYTES, ipv6::NEXT_HEADER_OFFSET)
}

/// True when the first part of a packet has all its headers: the chain that `next_header` begins behind the
/// fragment header at `offset`, and what the transport cannot do without (RFC 7112).
pub(super) fn has_whole_chain(packet: &[u8], offset: usize, next_header: u8) -> bool {
    match walk_from(packet, next_header, offset + FragmentHeader::BYTES, offset) {
        Ok(upper) => {
            let needed = match upper.protocol {
                TCP => MIN_TCP_HEADER_BYTES,
                UDP => udp::HEADER_BYTES,
                ICMPV6 => icmp::HEADER_BYTES,
                // What nobody here speaks is refused as a whole.
                _ => 0,
            };
            packet.len() >= upper.offset + needed
        }
        // The chain ends there, or is told of once the packet is whole.
        Err(Obstacle::Fragment(_) | Obstacle::Problem { .. }) => true,
        Err(Obstacle::Drop) => false,
    }
}

/// As [`walk`], from the header at `offset`, which the byte at `pointer` names.
fn walk_from(packet: &[u8], first: u8, start: usize, named_at: usize) -> Result<Upper, Obstacle> {
    let (mut protocol, mut offset, mut pointer) = (first, start, named_at);
    let mut fragmented = false;
    for index in 0..=MAX_EXTENSION_HEADERS {
        let behind = packet.get(offset..).unwrap_or_default();
        let len = match protocol {
            // RFC 8200 section 4.1: hop-by-hop options stand first or are not recognized.
            next_header::HOP_BY_HOP if index > 0 || start > ipv6::HEADER_BYTES => {
                let code = parameter::UNRECOGNIZED_NEXT_HEADER;
                return Err(Obstacle::Problem { code, pointer, even_multicast: false });
            }
            next_header::HOP_BY_HOP | next_header::DESTINATION => {
                let header = ExtensionHeader::parse(behind).ok_or(Obstacle::Drop)?;
                check_options(header.body).map_err(|bad| option_obstacle(bad, offset + 2))?;
                protocol = header.next_header;
                header.len()
            }
            next_header::ROUTING => {
                let header = ExtensionHeader::parse(behind).ok_or(Obstacle::Drop)?;
                // RFC 8200 section 4.4, RFC 5095: no routing type is known, so none may have work left.
                if header.body.get(1).is_none_or(|segments_left| *segments_left != 0) {
                    let code = parameter::ERRONEOUS_FIELD;
                    return Err(Obstacle::Problem { code, pointer: offset + 2, even_multicast: false });
                }
                protocol = header.next_header;
                header.len()
            }
            next_header::FRAGMENT => {
                let header = FragmentHeader::parse(behind).ok_or(Obstacle::Drop)?;
                // RFC 6946: packets in one piece are no matter of reassembly.
                if !header.is_atomic() {
                    return Err(Obstacle::Fragment(FragmentPlace { header, offset, named_at: pointer }));
                }
                fragmented = true;
                protocol = header.next_header;
                FragmentHeader::BYTES
            }
            next_header::NONE => return Err(Obstacle::Drop),
            _ => return Ok(Upper { protocol, offset, protocol_pointer: pointer, fragmented }),
        };
        pointer = offset;
        offset += len;
        if offset > ipv6::HEADER_BYTES + MAX_EXTENSION_BYTES {
            return Err(Obstacle::Drop);
        }
    }
    Err(Obstacle::Drop)
}

fn option_obstacle(bad: BadOption, options_offset: usize) -> Obstacle {
    let problem = |even_multicast| Obstacle::Problem {
        code: parameter::UNRECOGNIZED_OPTION,
        pointer: options_offset + bad.offset,
        even_multicast,
    };
    match bad.action {
        OptionAction::Skip | OptionAction::Discard => Obstacle::Drop,
        OptionAction::DiscardReport => problem(true),
        OptionAction::DiscardReportUnicast => problem(false),
    }
}

impl Network {
    /// Takes an IPv6 packet at the start of `frame`, which may be padded.
    pub(super) fn receive_ipv6(&mut self, now: Instant, frame: RxFrame, origin: Origin) -> Ingress {
        self.counters.ip_in_receives += 1;
        self.take_ipv6(now, frame, origin, Wholeness::AsSent)
    }

    /// Takes a packet that was put together.
    pub(super) fn take_reassembled_ipv6(&mut self, now: Instant, frame: RxFrame, origin: Origin) -> Ingress {
        self.take_ipv6(now, frame, origin, Wholeness::Reassembled)
    }

    fn take_ipv6(
        &mut self,
        now: Instant,
        mut frame: RxFrame,
        origin: Origin,
        wholeness: Wholeness,
    ) -> Ingress {
        let Ok(header) = Ipv6Header::parse(&frame.head, frame_len(&frame)) else {
            self.counters.ip_in_header_errors += 1;
            return Ingress::Consumed;
        };
        let (source, destination) = (header.source(), header.destination());
        let kind = match origin {
            Origin::Ourselves => {
                self.interface.is_local(destination.into()).then_some(DestinationKind::Unicast)
            }
            Origin::Host => self.interface.destination_kind_v6(destination),
            // As in IPv4, so that nobody is told anything about such a packet (RFC 4443 section 2.4 (e.4)); but a
            // solicitation to one's own address may come in a frame for a group.
            Origin::Group => self.interface.destination_kind_v6(destination).filter(|kind| {
                *kind != DestinationKind::Unicast || header.next_header() == Protocol::Icmpv6.number()
            }),
        };
        let Some(kind) = kind.or_else(|| self.group_kind(destination.into())) else {
            self.counters.ip_in_address_errors += 1;
            return Ingress::Consumed;
        };
        // RFC 4291 section 2.5.2: the unspecified address sends nothing but what duplicate address
        // detection needs.
        let unspecified = source.is_unspecified() && header.next_header() != Protocol::Icmpv6.number();
        if origin != Origin::Ourselves && (self.interface.is_impossible_source_v6(source) || unspecified) {
            self.counters.ip_in_address_errors += 1;
            return Ingress::Consumed;
        }
        let mut ip = IpInfo {
            source: source.into(),
            destination: destination.into(),
            kind,
            protocol: header.next_header(),
            traffic_class: header.traffic_class(),
            hop_limit: header.hop_limit(),
            header_len: ipv6::HEADER_BYTES,
            fragmented: wholeness == Wholeness::Reassembled,
            protocol_pointer: ipv6::NEXT_HEADER_OFFSET,
        };
        let packet_len = ipv6::HEADER_BYTES + header.payload_len();
        if ip.protocol != Protocol::Tcp.number() && ip.protocol != Protocol::Udp.number() {
            match walk(frame.head.get(..packet_len).unwrap_or(&frame.head), ip.protocol) {
                Ok(upper) => {
                    ip.protocol = upper.protocol;
                    ip.header_len = upper.offset;
                    ip.fragmented |= upper.fragmented;
                    ip.protocol_pointer = upper.protocol_pointer;
                }
                Err(Obstacle::Fragment(place)) if wholeness == Wholeness::AsSent => {
                    return self.receive_part_v6(now, &ip, frame, packet_len, place, origin);
                }
                Err(obstacle) => {
                    self.refuse_ipv6(now, &ip, &frame, packet_len, obstacle);
                    return Ingress::Consumed;
                }
            }
        }
        if ip.protocol != Protocol::Tcp.number() {
            self.last_header.keep(&frame.head, ip.header_len);
        }
        cut(&mut frame, ip.header_len, packet_len);
        self.deliver(now, &ip, frame)
    }

    #[cold]
    fn refuse_ipv6(
        &mut self,
        now: Instant,
        ip: &IpInfo,
        frame: &RxFrame,
        packet_len: usize,
        obstacle: Obstacle,
    ) {
        match obstacle {
            // A part within parts is nobody's honest packet.
            Obstacle::Fragment(_) | Obstacle::Drop => self.counters.ip_in_header_errors += 1,
            Obstacle::Problem { code, pointer, even_multicast } => {
                self.counters.ip_in_header_errors += 1;
                let packet = frame.head.get(..packet_len).unwrap_or(&frame.head);
                self.complain(
                    now,
                    ip,
                    Complaint::ParameterProblem { code, pointer, even_multicast },
                    &[packet],
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fixed header's worth of zeros and the extension headers.
    fn packet(extensions: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; ipv6::HEADER_BYTES];
        packet.extend(extensions);
        packet
    }

    #[test]
    fn extension_headers_are_walked_to_the_payload() {
        for (name, first, extensions, protocol, offset, pointer) in [
            ("none", 17, &[][..], 17, 40, 6),
            ("hop-by-hop", 0, &[6, 0, 1, 4, 0, 0, 0, 0][..], 6, 48, 40),
            ("two", 0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0][..], 17, 56, 48),
            ("finished routing", 43, &[58, 0, 0, 0, 0, 0, 0, 0][..], 58, 48, 40),
            ("atomic fragment", 44, &[17, 0, 0, 0, 0, 0, 0, 9][..], 17, 48, 40),
        ] {
            let upper = walk(&packet(extensions), first).unwrap();
            assert_eq!(
                (upper.protocol, upper.offset, upper.protocol_pointer),
                (protocol, offset, pointer),
                "{name}"
            );
        }
    }

    #[test]
    fn obstacles_are_told_apart() {
        let problem = |code, pointer, even_multicast| Obstacle::Problem { code, pointer, even_multicast };
        for (name, first, extensions, obstacle) in [
            ("no next header", 59, &[][..], Obstacle::Drop),
            ("cut extension header", 0, &[6, 0, 1, 4][..], Obstacle::Drop),
            (
                "fragment",
                44,
                &[17, 0, 0, 1, 0, 0, 0, 9][..],
                Obstacle::Fragment(FragmentPlace {
                    header: FragmentHeader { next_header: 17, offset: 0, more: true, identification: 9 },
                    offset: 40,
                    named_at: 6,
                }),
            ),
            ("cut fragment header", 44, &[17, 0, 0, 0, 0, 0, 0][..], Obstacle::Drop),
            ("unfinished routing", 43, &[58, 0, 0, 1, 0, 0, 0, 0][..], problem(0, 42, false)),
            (
                "hop-by-hop not first",
                60,
                &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0][..],
                problem(1, 40, false),
            ),
            ("option to report", 60, &[6, 0, 0x80, 4, 0, 0, 0, 0][..], problem(2, 42, true)),
            ("option to report for unicast", 60, &[6, 0, 0, 0xc0, 3, 0, 0, 0][..], problem(2, 43, false)),
            ("option to discard", 60, &[6, 0, 0x40, 4, 0, 0, 0, 0][..], Obstacle::Drop),
        ] {
            assert_eq!(walk(&packet(extensions), first), Err(obstacle), "{name}");
        }
    }

    #[test]
    fn the_walk_is_bounded_in_headers_and_bytes() {
        let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(100);
        assert_eq!(walk(&packet(&many), 60), Err(Obstacle::Drop));
        let mut long = vec![6, 16];
        long.extend([0; 134]);
        assert_eq!(walk(&packet(&long), 60), Err(Obstacle::Drop));
    }
}
