//! Properties of the checksum and of all parsers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::arp::ArpPacket;
use super::checksum::{self, Checksum};
use super::ethernet::EthernetHeader;
use super::icmp::IcmpHeader;
use super::ipv4::Ipv4Header;
use super::ipv6::{ExtensionHeader, FragmentHeader, Ipv6Header, check_options};
use super::ndp::NeighborMessage;
use super::udp::UdpHeader;

/// The checksum as RFC 1071 section 4.1 states it, sixteen bits at a time.
fn reference(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap()
}

/// Zero has two forms in ones' complement; which one comes out is of no importance for the check.
fn same_sum(a: u16, b: u16) -> bool {
    a == b || (matches!(a, 0 | 0xffff) && matches!(b, 0 | 0xffff))
}

#[test]
fn the_example_of_rfc_1071_section_3_comes_out() {
    let mut sum = Checksum::new();
    sum.add_bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    assert_eq!(sum.partial(), 0xddf2);
    assert_eq!(sum.finish(), !0xddf2);
}

#[test]
fn nothing_and_zeros_have_a_checksum_of_all_ones() {
    assert_eq!(checksum::of(&[]), 0xffff);
    assert_eq!(checksum::of(&[0; 64]), 0xffff);
}

proptest! {
    #[test]
    fn the_checksum_is_the_same_as_sixteen_bits_at_a_time(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(same_sum(checksum::of(&bytes), reference(&bytes)));
    }

    #[test]
    fn the_checksum_does_not_depend_on_where_the_bytes_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(0_usize..300, 0..6),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let (mut sum, mut start) = (Checksum::new(), 0);
        for cut in cuts {
            sum.add_bytes(&bytes[start..cut]);
            start = cut;
        }
        prop_assert!(same_sum(sum.finish(), reference(&bytes)));
    }

    #[test]
    fn bytes_with_their_checksum_in_them_are_right(
        mut bytes in prop::collection::vec(any::<u8>(), 2..300),
        at in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let at = at.index(bytes.len() / 2) * 2;
        bytes[at..at + 2].fill(0);
        let sum = checksum::of(&bytes);
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut whole = Checksum::new();
        whole.add_bytes(&bytes);
        prop_assert!(whole.is_right());
        let flip = flip.index(bytes.len());
        bytes[flip] ^= 0x10;
        let mut broken = Checksum::new();
        broken.add_bytes(&bytes);
        prop_assert!(!broken.is_right());
    }

    #[test]
    fn pseudo_headers_are_summed_as_their_bytes(
        v4 in any::<([u8; 4], [u8; 4])>(),
        v6 in any::<([u8; 16], [u8; 16])>(),
        protocol in any::<u8>(),
        length in any::<u16>(),
    ) {
        let mut bytes = [v4.0, v4.1].concat();
        bytes.extend([0, protocol]);
        bytes.extend(length.to_be_bytes());
        let sum = Checksum::pseudo_header(
            IpAddr::V4(Ipv4Addr::from(v4.0)), IpAddr::V4(Ipv4Addr::from(v4.1)), protocol, length.into());
        prop_assert!(same_sum(sum.finish(), reference(&bytes)));

        let mut bytes = [v6.0, v6.1].concat();
        bytes.extend(u32::from(length).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
        let sum = Checksum::pseudo_header(
            IpAddr::V6(Ipv6Addr::from(v6.0)), IpAddr::V6(Ipv6Addr::from(v6.1)), protocol, length.into());
        prop_assert!(same_sum(sum.finish(), reference(&bytes)));
    }

    #[test]
    fn no_parser_panics_whatever_the_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        first in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0, 135, 136]),
        claimed in any::<u16>(),
    ) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let claimed = usize::from(claimed);
        let _ = EthernetHeader::parse(&bytes).map(|(header, _)| (header.destination(), header.source(), header.ether_type()));
        let _ = ArpPacket::parse(&bytes);
        let _ = Ipv4Header::parse(&bytes, claimed).map(|header| (header.source(), header.header_len()));
        let _ = Ipv4Header::parse_quoted(&bytes).map(|header| (header.destination(), header.is_fragment()));
        let _ = Ipv6Header::parse(&bytes, claimed).map(|header| (header.source(), header.destination()));
        let _ = ExtensionHeader::parse(&bytes).map(|header| check_options(header.body));
        let _ = FragmentHeader::parse(&bytes);
        let _ = check_options(&bytes);
        let _ = IcmpHeader::parse(&bytes);
        let _ = NeighborMessage::parse(&bytes);
        let _ = UdpHeader::parse(&bytes, claimed).map(UdpHeader::checksum);
    }
}
