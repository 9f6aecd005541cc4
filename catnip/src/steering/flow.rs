//! What a received frame is, as far as it says which core it belongs to.
//!
//! Only looked at, never trusted: whatever is malformed belongs to anyone, whose stack then counts and drops it.

use std::net::{IpAddr, SocketAddr};

use libos::runtime::Medium;

use super::share::Transport;
use crate::network::Protocol;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::icmp::{self, IcmpHeader};
use crate::wire::ipv4::Ipv4Header;
use crate::wire::ipv6::{self, FragmentHeader, Ipv6Header, next_header};
use crate::wire::vlan;

/// Port that DHCP clients receive on (RFC 2131 section 4.1).
pub(super) const DHCP_CLIENT_PORT: u16 = 68;
/// IGMP (RFC 3376 section 4).
const IGMP: u8 = 2;
/// Most IPv6 extension headers that are looked behind.
const MAX_EXTENSION_HEADERS: usize = 4;
/// The types of ICMPv6 that are about neighbours, routers and groups (RFC 4861, RFC 2710).
const LISTENER_QUERY: u8 = 130;
const ROUTER_ADVERTISEMENT: u8 = 134;
const REDIRECT: u8 = 137;

/// A segment or datagram to one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// TCP or UDP.
    pub transport: Transport,
    /// To whom: our end.
    pub local: SocketAddr,
    /// From whom.
    pub remote: SocketAddr,
    /// A TCP segment that opens a connection; any datagram may be the first.
    pub opens: bool,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Of a flow, to the flow's core.
    Flow(Flow),
    /// An ICMP error about what we sent in this flow, to the flow's core.
    Error(Flow),
    /// What every core has to know: neighbours' answers, routers, queries for groups, a DHCP server's answers.
    Everyone,
    /// A datagram to a group or to everybody on the link, to the cores that have the port.
    Group {
        /// The port.
        port: u16,
    },
    /// A part of an IP packet. All parts between two hosts go to one core, which puts them together.
    Part(IpAddr, IpAddr),
    /// What any core can deal with: whoever received it does.
    Anyone,
}

/// Where a packet was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a frame.
    Frame,
    /// In an ICMP error about it: an error in there concerns nobody.
    Quotation,
}

/// Classifies a frame by its first bytes, which hold all its headers.
#[must_use]
pub fn classify(medium: Medium, head: &[u8]) -> Class {
    match medium {
        Medium::Ip => match head.first().map(|first| first >> 4) {
            Some(4) => ipv4(head, Place::Frame),
            Some(6) => ipv6(head, Place::Frame),
            _ => Class::Anyone,
        },
        Medium::Ethernet => ethernet(head),
    }
}

fn ethernet(head: &[u8]) -> Class {
    let Some((header, payload)) = EthernetHeader::parse(head) else { return Class::Anyone };
    match header.ether_type() {
        vlan::TYPE_VLAN => match (vlan::parse(payload), payload.get(vlan::TAG_BYTES..)) {
            (Some((_, ether_type)), Some(payload)) => network(ether_type, payload),
            (Some(_) | None, _) => Class::Anyone,
        },
        ether_type => network(ether_type, payload),
    }
}

#[inline]
fn network(ether_type: u16, payload: &[u8]) -> Class {
    match ether_type {
        ethernet::TYPE_IPV4 => ipv4(payload, Place::Frame),
        ethernet::TYPE_IPV6 => ipv6(payload, Place::Frame),
        ethernet::TYPE_ARP => arp(payload),
        _ => Class::Anyone,
    }
}

fn arp(payload: &[u8]) -> Class {
    let Some(packet) = ArpPacket::parse(payload) else { return Class::Anyone };
    match packet.operation {
        Operation::Reply => Class::Everyone,
        // An announcement (RFC 5227 section 3): whoever knows the sender learns of its new address.
        Operation::Request if packet.sender_protocol == packet.target_protocol => Class::Everyone,
        // A probe (RFC 5227 section 2.1.1): every core may have to give up an address that it wants too.
        Operation::Request if packet.sender_protocol.is_unspecified() => Class::Everyone,
        Operation::Request => Class::Anyone,
    }
}

fn ipv4(packet: &[u8], place: Place) -> Class {
    let Ok(header) = Ipv4Header::parse_quoted(packet) else { return Class::Anyone };
    let (source, destination) = (header.source(), header.destination());
    // An error quotes the first part, which has the ports.
    if header.is_later_fragment() || (header.is_fragment() && place == Place::Frame) {
        return Class::Part(source.into(), destination.into());
    }
    let Some(payload) = packet.get(header.header_len()..) else { return Class::Anyone };
    match header.protocol() {
        IGMP => Class::Everyone,
        protocol if protocol == Protocol::Icmpv4.number() => match place {
            Place::Frame => icmpv4(payload),
            Place::Quotation => Class::Anyone,
        },
        // A broadcast to one network alone is told by the stack: it has the port, or nobody does.
        protocol => transport(
            protocol,
            source.into(),
            destination.into(),
            destination.is_multicast() || destination.is_broadcast(),
            payload,
        ),
    }
}

fn ipv6(packet: &[u8], place: Place) -> Class {
    let Ok(header) = Ipv6Header::parse_quoted(packet) else { return Class::Anyone };
    let (source, destination) = (IpAddr::V6(header.source()), IpAddr::V6(header.destination()));
    let mut protocol = header.next_header();
    let mut offset = ipv6::HEADER_BYTES;
    for _ in 0..MAX_EXTENSION_HEADERS {
        let Some(rest) = packet.get(offset..) else { return Class::Anyone };
        match protocol {
            next_header::HOP_BY_HOP | next_header::ROUTING | next_header::DESTINATION => {
                let [next, len, ..] = *rest else { return Class::Anyone };
                protocol = next;
                offset += 8 + 8 * usize::from(len);
            }
            next_header::FRAGMENT => match FragmentHeader::parse(rest) {
                Some(fragment)
                    if fragment.is_atomic() || (fragment.offset == 0 && place == Place::Quotation) =>
                {
                    protocol = fragment.next_header;
                    offset += FragmentHeader::BYTES;
                }
                Some(_) => return Class::Part(source, destination),
                None => return Class::Anyone,
            },
            _ => break,
        }
    }
    let Some(payload) = packet.get(offset..) else { return Class::Anyone };
    if protocol == Protocol::Icmpv6.number() {
        return match place {
            Place::Frame => icmpv6(source, payload),
            Place::Quotation => Class::Anyone,
        };
    }
    transport(protocol, source, destination, destination.is_multicast(), payload)
}

fn icmpv4(message: &[u8]) -> Class {
    use icmp::v4;
    let Some((IcmpHeader { kind, .. }, quoted)) = IcmpHeader::parse(message) else { return Class::Anyone };
    match kind {
        v4::DESTINATION_UNREACHABLE | v4::TIME_EXCEEDED | v4::PARAMETER_PROBLEM => {
            error(ipv4(quoted, Place::Quotation))
        }
        _ => Class::Anyone,
    }
}

fn icmpv6(source: IpAddr, message: &[u8]) -> Class {
    use icmp::v6;
    let Some((IcmpHeader { kind, .. }, quoted)) = IcmpHeader::parse(message) else { return Class::Anyone };
    match kind {
        v6::DESTINATION_UNREACHABLE | v6::PACKET_TOO_BIG | v6::TIME_EXCEEDED | v6::PARAMETER_PROBLEM => {
            error(ipv6(quoted, Place::Quotation))
        }
        // Who asks from nowhere wants the address (RFC 4862 section 5.4.3): as a probe of ARP.
        v6::NEIGHBOR_SOLICITATION if source.is_unspecified() => Class::Everyone,
        LISTENER_QUERY | ROUTER_ADVERTISEMENT | v6::NEIGHBOR_ADVERTISEMENT | REDIRECT => Class::Everyone,
        _ => Class::Anyone,
    }
}

/// The class of an error about a packet of this class. We sent it, so its source is our end.
fn error(quoted: Class) -> Class {
    match quoted {
        Class::Flow(Flow { transport, local, remote, .. }) => {
            Class::Error(Flow { transport, local: remote, remote: local, opens: false })
        }
        Class::Error(_) | Class::Everyone | Class::Group { .. } | Class::Part(..) | Class::Anyone => {
            Class::Anyone
        }
    }
}

#[inline]
fn transport(protocol: u8, source: IpAddr, destination: IpAddr, to_group: bool, payload: &[u8]) -> Class {
    let transport = if protocol == Protocol::Tcp.number() {
        Transport::Tcp
    } else if protocol == Protocol::Udp.number() {
        Transport::Udp
    } else {
        return Class::Anyone;
    };
    let Some(&[a, b, c, d]) = payload.first_chunk::<4>() else { return Class::Anyone };
    let (source_port, port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if transport == Transport::Udp {
        if port == DHCP_CLIENT_PORT {
            return Class::Everyone;
        }
        if to_group {
            return Class::Group { port };
        }
    }
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;
    /// Bytes from a TCP header's start to its flags (RFC 9293 section 3.1).
    const FLAGS_OFFSET: usize = 13;
    let opens = match transport {
        Transport::Tcp => payload.get(FLAGS_OFFSET).is_some_and(|flags| flags & (SYN | RST | ACK) == SYN),
        Transport::Udp => true,
    };
    Class::Flow(Flow {
        transport,
        local: SocketAddr::new(destination, port),
        remote: SocketAddr::new(source, source_port),
        opens,
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::network::testing::{
        framed, hardware, icmp_message, ip_packet, udp_datagram, v4, with_header_byte,
    };
    use crate::wire::vlan::VlanId;

    fn of(frame: &[u8]) -> Class {
        classify(Medium::Ethernet, frame)
    }

    fn tcp(flags: u8) -> Vec<u8> {
        let mut header = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags];
        header.resize(20, 0);
        header
    }

    fn flow(transport: Transport, remote: (IpAddr, u16), local: (IpAddr, u16), opens: bool) -> Flow {
        Flow { transport, local: local.into(), remote: remote.into(), opens }
    }

    const V4: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))];
    const V6: [IpAddr; 2] = [
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
    ];

    /// A datagram with its IP header.
    fn datagram(source: IpAddr, destination: IpAddr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
        ip_packet(source, destination, 17, &udp_datagram(source, destination, ports, data))
    }

    /// An ICMP message with its IP header.
    fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
        let protocol = if source.is_ipv4() { 1 } else { 58 };
        ip_packet(source, destination, protocol, &icmp_message(source, destination, kind, code, body))
    }

    #[test]
    fn segments_and_datagrams_are_of_their_flow() {
        for [peer, us] in [V4, V6] {
            for (flags, opens) in [(0x02, true), (0x12, false), (0x10, false), (0x06, false), (0xc2, true)] {
                let packet = ip_packet(peer, us, 6, &tcp(flags));
                let expected = flow(Transport::Tcp, (peer, 40_000), (us, 80), opens);
                assert_eq!(of(&framed(&packet)), Class::Flow(expected), "{flags:x}");
                assert_eq!(classify(Medium::Ip, &packet), Class::Flow(expected));
            }
            let sent = datagram(peer, us, (5000, 53), b"?");
            let expected = flow(Transport::Udp, (peer, 5000), (us, 53), true);
            assert_eq!(of(&framed(&sent)), Class::Flow(expected));
        }
    }

    #[test]
    fn a_tag_in_front_changes_nothing() {
        let mut frame = framed(&datagram(V4[0], V4[1], (5000, 53), b"?"));
        let plain = of(&frame);
        frame.splice(12..12, VlanId::new(7).unwrap().tag());
        assert_eq!(of(&frame), plain);
    }

    #[test]
    fn parts_are_of_their_hosts_and_packets_in_one_part_of_their_flow() {
        let whole = datagram(V4[0], V4[1], (5000, 53), b"?");
        for (byte, value) in [(6, 0x20), (7, 1)] {
            let part = framed(&with_header_byte(whole.clone(), byte, value));
            assert_eq!(of(&part), Class::Part(V4[0], V4[1]));
        }
        let udp = &datagram(V6[0], V6[1], (5000, 53), b"?")[40..];
        for (offset, more, class) in [
            (0, true, Class::Part(V6[0], V6[1])),
            (8, false, Class::Part(V6[0], V6[1])),
            (0, false, Class::Flow(flow(Transport::Udp, (V6[0], 5000), (V6[1], 53), true))),
        ] {
            let header = FragmentHeader { next_header: 17, offset, more, identification: 9 };
            let packet = ip_packet(V6[0], V6[1], 44, &[&header.compose(), udp].concat());
            assert_eq!(of(&framed(&packet)), class);
        }
    }

    #[test]
    fn errors_are_of_the_flow_that_they_are_about() {
        for ([peer, us], kind) in [(V4, 3), (V6, 1)] {
            let sent = datagram(us, peer, (5000, 53), b"?");
            let body = [&[0; 4][..], &sent].concat();
            let error = icmp(peer, us, kind, 3, &body);
            let expected = flow(Transport::Udp, (peer, 53), (us, 5000), false);
            assert_eq!(of(&framed(&error)), Class::Error(expected));
            // An error about an error, and about that one: nobody's.
            let nested = icmp(peer, us, kind, 3, &[&[0; 4][..], &error].concat());
            assert_eq!(of(&framed(&nested)), Class::Anyone);
        }
    }

    #[test]
    fn what_tells_of_neighbours_is_for_everyone_and_questions_are_for_one() {
        let arp = |operation, sender, target| {
            let packet = ArpPacket {
                operation,
                sender_hardware: hardware(2),
                sender_protocol: v4(sender),
                target_hardware: hardware(1),
                target_protocol: v4(target),
            };
            of(&packet.compose_frame(ethernet::BROADCAST))
        };
        assert_eq!(arp(Operation::Reply, 2, 1), Class::Everyone);
        assert_eq!(arp(Operation::Request, 2, 2), Class::Everyone);
        assert_eq!(arp(Operation::Request, 2, 1), Class::Anyone);
        let probe = ArpPacket {
            operation: Operation::Request,
            sender_hardware: hardware(2),
            sender_protocol: Ipv4Addr::UNSPECIFIED,
            target_hardware: [0; 6],
            target_protocol: v4(1),
        };
        assert_eq!(of(&probe.compose_frame(ethernet::BROADCAST)), Class::Everyone);
        let nobody = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        assert_eq!(of(&framed(&icmp(nobody, V6[1], 135, 0, &[0; 24]))), Class::Everyone);
        for (kind, class) in
            [(134, Class::Everyone), (135, Class::Anyone), (136, Class::Everyone), (128, Class::Anyone)]
        {
            let body = [0; 24];
            assert_eq!(of(&framed(&icmp(V6[0], V6[1], kind, 0, &body))), class, "{kind}");
        }
    }

    #[test]
    fn datagrams_to_groups_are_for_those_who_have_the_port() {
        for group in ["224.0.0.251", "255.255.255.255", "ff02::fb"] {
            let group: IpAddr = group.parse().unwrap();
            let peer = if group.is_ipv4() { V4[0] } else { V6[0] };
            let sent = framed(&datagram(peer, group, (5353, 5353), b"?"));
            assert_eq!(of(&sent), Class::Group { port: 5353 });
        }
        let offer = framed(&datagram(V4[0], V4[1], (67, 68), b"offer"));
        assert_eq!(of(&offer), Class::Everyone);
    }

    #[test]
    fn no_cut_of_a_frame_is_too_short_to_be_looked_at() {
        let error = icmp(V6[0], V6[1], 1, 0, &datagram(V6[1], V6[0], (1, 2), b"x"));
        for frame in [framed(&ip_packet(V4[0], V4[1], 6, &tcp(2))), framed(&error)] {
            for len in 0..=frame.len() {
                for medium in [Medium::Ethernet, Medium::Ip] {
                    let _ = classify(medium, &frame[..len]);
                }
            }
        }
    }
}
