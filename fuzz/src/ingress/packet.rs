//! Packets written and read by hand, apart from the stack's own code for that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::action::Family;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV4: u8 = 1;
pub const ICMPV6: u8 = 58;

pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Family {
    /// The stack's address.
    pub fn local(self) -> IpAddr {
        self.host(1)
    }

    /// The peer's address.
    pub fn remote(self) -> IpAddr {
        self.host(2)
    }

    /// An address of the link.
    pub fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub fn icmp(self) -> u8 {
        match self {
            Self::V4 => ICMPV4,
            Self::V6 => ICMPV6,
        }
    }
}

/// Most bytes of an IP packet's headers as they are written here.
const MAX_HEADER_BYTES: usize = 48;

/// The ones' complement sum of the parts, each padded to an even length. By large words: the fuzzer watches every
/// comparison, and one for each pair of bytes was most of a run.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for word in words.iter().chain([&last]) {
            let word = u64::from_be_bytes(*word);
            total += (word >> 32) + (word & 0xffff_ffff);
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// The sum over pseudo-header and payload: 0xffff when the checksum in it is right.
fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let mut rest = [0; 8];
    rest[..4].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    rest[7] = protocol;
    match (source, destination) {
        _ if protocol == ICMPV4 => sum(&[payload]),
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            sum(&[&source.octets(), &destination.octets(), &rest, payload])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            sum(&[&source.octets(), &destination.octets(), &rest, payload])
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("a packet of two families"),
    }
}

/// Writes the checksum into a transport's packet, where the protocol has one and it fits.
pub fn complete(source: IpAddr, destination: IpAddr, protocol: u8, payload: &mut [u8]) {
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        ICMPV4 | ICMPV6 => 2,
        _ => return,
    };
    if payload.len() < at + 2 {
        return;
    }
    payload[at..at + 2].fill(0);
    let right = !transport_sum(source, destination, protocol, payload);
    let right = if right == 0 && protocol == UDP { 0xffff } else { right };
    payload[at..at + 2].copy_from_slice(&right.to_be_bytes());
}

/// What the IP header is to say beside the addresses.
#[derive(Debug, Clone, Copy)]
pub struct Ip {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub hop_limit: u8,
    pub traffic_class: u8,
    /// Offset in bytes, whether more follow, identification.
    pub fragment: Option<(u16, bool, u8)>,
}

impl Ip {
    /// The packet with `payload`.
    pub fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::with_capacity(MAX_HEADER_BYTES + payload.len());
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let (offset, more, identification) = self.fragment.unwrap_or((0, false, 1));
                let flags = (offset / 8) | (u16::from(more) << 13);
                packet.extend([0x45, self.traffic_class]);
                packet.extend((20 + payload.len() as u16).to_be_bytes());
                packet.extend(u16::from(identification).to_be_bytes());
                packet.extend(flags.to_be_bytes());
                packet.extend([self.hop_limit, self.protocol, 0, 0]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                let right = !sum(&[&packet]);
                packet[10..12].copy_from_slice(&right.to_be_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let extra = if self.fragment.is_some() { 8 } else { 0 };
                let next = if self.fragment.is_some() { 44 } else { self.protocol };
                packet.extend([0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0, 0]);
                packet.extend((payload.len() as u16 + extra).to_be_bytes());
                packet.extend([next, self.hop_limit]);
                packet.extend(source.octets());
                packet.extend(destination.octets());
                if let Some((offset, more, identification)) = self.fragment {
                    packet.extend([self.protocol, 0]);
                    packet.extend((offset & 0xfff8 | u16::from(more)).to_be_bytes());
                    packet.extend(u32::from(identification).to_be_bytes());
                }
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                panic!("a packet of two families")
            }
        }
        packet.extend(payload);
        packet
    }
}

/// A packet that the stack sent.
#[derive(Debug)]
pub struct Sent<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub payload: &'a [u8],
}

/// Reads a packet that the stack sent, and checks that every byte of its headers is as it must be. Fragments come
/// out as `None`: their transport's checksum is about the whole.
pub fn check_sent(packet: &[u8], mtu: usize) -> Option<Sent<'_>> {
    assert!(packet.len() <= mtu, "a packet of {} bytes was sent on a link of {mtu}", packet.len());
    let version = packet[0] >> 4;
    let (source, destination, protocol, payload): (IpAddr, IpAddr, u8, &[u8]) = match version {
        4 => {
            let header_len = usize::from(packet[0] & 15) * 4;
            assert!(header_len >= 20);
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            assert_eq!(sum(&[&packet[..header_len]]), 0xffff, "the checksum of a sent IPv4 header");
            assert!(packet[8] > 0);
            if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
                return None;
            }
            let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes");
            (address(12).into(), address(16).into(), packet[9], &packet[header_len..])
        }
        6 => {
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len());
            assert!(packet[7] > 0);
            if packet[6] == 44 {
                return None;
            }
            // Membership reports carry a hop-by-hop header with a router alert.
            let (protocol, start) =
                if packet[6] == 0 { (packet[40], 48 + usize::from(packet[41]) * 8) } else { (packet[6], 40) };
            let address = |at: usize| <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes");
            (address(8).into(), address(24).into(), protocol, &packet[start..])
        }
        _ => panic!("a packet of IP version {version} was sent"),
    };
    let unchecked = protocol == UDP && version == 4 && payload[6..8] == [0, 0];
    if matches!(protocol, TCP | UDP | ICMPV4 | ICMPV6) && !unchecked {
        assert_eq!(
            transport_sum(source, destination, protocol, payload),
            0xffff,
            "the checksum of a sent packet of protocol {protocol}"
        );
    }
    Some(Sent { source, destination, protocol, payload })
}
