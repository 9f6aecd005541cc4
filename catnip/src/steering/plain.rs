//! The look at a frame that nearly all need: a segment or datagram in one part, to one host, whose IP header has no options. In
//! such a packet all that the hash is computed from lies in one piece.

use libos::runtime::Medium;

use super::flow::DHCP_CLIENT_PORT;
use super::share::Transport;
use crate::network::Protocol;
use crate::wire::{ethernet, ipv4, ipv6};

/// Both addresses of an IPv4 packet and both ports.
pub(super) const V4_ENDS_BYTES: usize = 12;
/// Both addresses of an IPv6 packet and both ports.
pub(super) const V6_ENDS_BYTES: usize = 36;
const PORTS_BYTES: usize = 4;
/// More parts follow, or this is not the first: the lower bits of the flags, above the offset (RFC 791 section 3.1).
const PART_BITS: u8 = 0x3f;
/// First byte of the lowest address that is a group's, everybody's or reserved (RFC 1112 section 4).
const GROUPS_V4: u8 = 224;
/// First byte of a group's address (RFC 4291 section 2.7).
const GROUPS_V6: u8 = 0xff;

/// What a frame says of its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlainFlow<'a> {
    pub transport: Transport,
    /// At our end.
    pub port: u16,
    pub ends: Ends<'a>,
}

/// Source, destination, source port and destination port, as they are in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends<'a> {
    V4(&'a [u8; V4_ENDS_BYTES]),
    V6(&'a [u8; V6_ENDS_BYTES]),
}

/// The flow of a frame of the usual form. All others are for [`classify`](super::classify), which says the same of these.
#[inline]
pub(super) fn plain_flow(medium: Medium, head: &[u8]) -> Option<PlainFlow<'_>> {
    match medium {
        Medium::Ethernet => {
            let (header, packet) = head.split_first_chunk::<{ ethernet::HEADER_BYTES }>()?;
            let [.., high, low] = *header;
            match u16::from_be_bytes([high, low]) {
                ethernet::TYPE_IPV4 => plain_ipv4(packet),
                ethernet::TYPE_IPV6 => plain_ipv6(packet),
                _ => None,
            }
        }
        Medium::Ip => match head.first()? >> 4 {
            4 => plain_ipv4(head),
            6 => plain_ipv6(head),
            _ => None,
        },
    }
}

#[inline]
fn plain_ipv4(packet: &[u8]) -> Option<PlainFlow<'_>> {
    let headers = packet.first_chunk::<{ ipv4::HEADER_BYTES + PORTS_BYTES }>()?;
    let [0x45, _, _, _, _, _, flags, offset, _, protocol, _, _, _, _, _, _, destination, ..] = *headers
    else {
        return None;
    };
    if (flags & PART_BITS) | offset != 0 || destination >= GROUPS_V4 {
        return None;
    }
    let [.., high, low] = *headers;
    plain(protocol, [high, low], Ends::V4(headers.last_chunk()?))
}

#[inline]
fn plain_ipv6(packet: &[u8]) -> Option<PlainFlow<'_>> {
    let headers = packet.first_chunk::<{ ipv6::HEADER_BYTES + PORTS_BYTES }>()?;
    if headers[0] >> 4 != 6 || headers[24] == GROUPS_V6 {
        return None;
    }
    let [.., high, low] = *headers;
    plain(headers[6], [high, low], Ends::V6(headers.last_chunk()?))
}

#[inline]
fn plain(protocol: u8, port: [u8; 2], ends: Ends<'_>) -> Option<PlainFlow<'_>> {
    let port = u16::from_be_bytes(port);
    let transport = if protocol == Protocol::Tcp.number() {
        Transport::Tcp
    } else if protocol == Protocol::Udp.number() && port != DHCP_CLIENT_PORT {
        Transport::Udp
    } else {
        return None;
    };
    Some(PlainFlow { transport, port, ends })
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::network::testing::{framed, ip_packet};
    use crate::steering::flow::{Class, classify};
    use crate::steering::{HashKey, Toeplitz};

    /// A packet with some of its first bytes changed.
    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let hosts = prop_oneof![
            Just((address("10.0.0.2"), address("10.0.0.1"))),
            Just((address("fd00::2"), address("fd00::1"))),
        ];
        let protocol = prop_oneof![Just(6_u8), Just(17), Just(1), Just(44), Just(58)];
        let changes = proptest::collection::vec((0..48_usize, any::<u8>()), 0..4);
        let payload = proptest::collection::vec(any::<u8>(), 0..40);
        (hosts, protocol, payload, changes).prop_map(|((source, destination), protocol, payload, changes)| {
            let mut packet = ip_packet(source, destination, protocol, &payload);
            for (at, value) in changes {
                if let Some(byte) = packet.get_mut(at) {
                    *byte = value;
                }
            }
            packet
        })
    }

    proptest! {
        #[test]
        fn what_looks_plain_is_the_flow_that_the_careful_look_finds(packet in packets()) {
            let hash = Toeplitz::new(HashKey::MICROSOFT);
            for (medium, head) in [(Medium::Ip, packet.clone()), (Medium::Ethernet, framed(&packet))] {
                let careful = classify(medium, &head);
                match plain_flow(medium, &head) {
                    Some(plain) => {
                        let Class::Flow(flow) = careful else { panic!("{careful:?}") };
                        prop_assert_eq!((plain.transport, plain.port), (flow.transport, flow.local.port()));
                        let (local, remote) = (flow.local, flow.remote);
                        let expected = hash.flow(remote.ip(), remote.port(), local.ip(), local.port());
                        prop_assert_eq!(hash.ends(plain.ends), expected);
                    }
                    // Nearly all flows are plain: without options and extension headers, and to one host.
                    None => prop_assert!(
                        !matches!(careful, Class::Flow(_))
                            || packet[0] != 0x45 && (packet[0] >> 4 != 6 || packet[6] != 6 && packet[6] != 17)
                            || packet[0] == 0x45 && packet[16] >= GROUPS_V4
                            || packet[0] >> 4 == 6 && packet[24] == GROUPS_V6,
                        "{careful:?}"
                    ),
                }
            }
        }
    }
}
