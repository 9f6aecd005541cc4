//! Frames that are dropped, each for its reason, and what nearly is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::Instant;
use libos::runtime::{RxChecksum, RxFrame};

use crate::network::testing::*;
use crate::network::{DestinationKind, Ingress, Network, NetworkCounters, Packet, Protocol};
use crate::wire::ethernet;

const NOW: Instant = Instant::from_millis(1);

/// A datagram from host 2 to host 1 in a frame.
fn good(number: IpAddr, own: IpAddr) -> Vec<u8> {
    ip_packet(number, own, 17, &udp_datagram(number, own, (1000, 2000), b"data"))
}

fn good_v4() -> Vec<u8> {
    good(v4(2).into(), v4(1).into())
}

fn good_v6() -> Vec<u8> {
    good(v6(2).into(), v6(1).into())
}

fn packet(ingress: Ingress) -> Packet {
    match ingress {
        Ingress::Packet(packet) => packet,
        other => panic!("{other:?}"),
    }
}

/// Hands the frame in and checks that it was consumed without an answer.
fn is_dropped(network: &mut Network, frame: &[u8]) -> bool {
    matches!(receive(network, NOW, frame), Ingress::Consumed) && network.frames().is_empty()
}

#[test]
fn a_datagram_comes_up_with_what_its_headers_say() {
    for (frame, source, destination, header_len) in [
        (framed(&good_v4()), IpAddr::V4(v4(2)), IpAddr::V4(v4(1)), 20),
        (framed(&good_v6()), v6(2).into(), v6(1).into(), 40),
    ] {
        let mut network = network(&config(1));
        let packet = packet(receive(&mut network, NOW, &frame));
        assert_eq!((packet.source, packet.destination), (source, destination));
        assert_eq!((packet.protocol, packet.kind), (Protocol::Udp, DestinationKind::Unicast));
        assert_eq!(packet.network_header_len, header_len);
        assert_eq!(&packet.head[8..], b"data");
        assert_eq!(network.counters().ip_in_delivers, 1);
    }
}

#[test]
fn padding_behind_the_packet_is_cut_off() {
    for mut frame in [framed(&good_v4()), framed(&good_v6())] {
        frame.extend([0xee; 20]);
        let packet = packet(receive(&mut network(&config(1)), NOW, &frame));
        assert_eq!(packet.len(), 12);
    }
}

#[test]
fn every_malformed_frame_is_counted_where_it_belongs() {
    type Counter = fn(&NetworkCounters) -> u64;
    let host = |last| IpAddr::V4(v4(last));
    let from = |source: Ipv4Addr| good(source.into(), host(1));
    let to = |destination: Ipv4Addr| good(host(2), destination.into());
    let udp = |change: fn(&mut Vec<u8>)| {
        let mut datagram = udp_datagram(host(2), host(1), (1000, 2000), b"data");
        change(&mut datagram);
        framed(&ip_packet(host(2), host(1), 17, &datagram))
    };
    let udp_v6 = |change: fn(&mut Vec<u8>)| {
        let (source, destination) = (v6(2).into(), v6(1).into());
        let mut datagram = udp_datagram(source, destination, (1000, 2000), b"data");
        change(&mut datagram);
        framed(&ip_packet(source, destination, 17, &datagram))
    };
    let v6_from = |source: Ipv6Addr| framed(&good(source.into(), v6(1).into()));
    let with_type = |high, low| {
        let mut frame = framed(&good_v4());
        frame[12..14].copy_from_slice(&[high, low]);
        frame
    };
    let mut cut_arp = ethernet::compose(hardware(1), hardware(2), ethernet::TYPE_ARP).to_vec();
    cut_arp.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    let header_errors: Counter = |counters| counters.ip_in_header_errors;
    let address_errors: Counter = |counters| counters.ip_in_address_errors;
    let fragments: Counter = |counters| counters.ip_reasm_fails;
    let udp_errors: Counter = |counters| counters.udp_in_malformed;
    let sums: Counter = |counters| counters.udp_in_checksum_errors;
    let cases: Vec<(&str, Vec<u8>, Counter)> = vec![
        ("empty frame", vec![], |counters| counters.link_in_malformed),
        ("short Ethernet header", vec![2, 0, 0, 0, 0, 1, 9], |counters| counters.link_in_malformed),
        ("another MAC", framed_to(hardware(9), &good_v4()), |counters| counters.link_in_other_host),
        ("VLAN tag", with_type(0x81, 0), |counters| counters.link_in_other_vlans),
        ("802.3 length", with_type(0, 60), |counters| counters.link_in_unknown_types),
        ("cut ARP", cut_arp, |counters| counters.arp_in_malformed),
        ("cut IPv4 header", framed(&good_v4()[..19]), header_errors),
        ("IPv4 version", framed(&with_header_byte(good_v4(), 0, 0x65)), header_errors),
        ("IPv4 header length", framed(&with_header_byte(good_v4(), 0, 0x44)), header_errors),
        ("IPv4 total length short", framed(&with_header_byte(good_v4(), 3, 19)), header_errors),
        ("IPv4 total length long", framed(&with_header_byte(good_v4(), 3, 33)), header_errors),
        (
            "IPv4 checksum",
            {
                let mut packet = good_v4();
                packet[10] ^= 1;
                framed(&packet)
            },
            header_errors,
        ),
        ("fragment of an odd length", framed(&with_header_byte(good_v4(), 6, 0x20)), fragments),
        (
            "fragment beyond the largest packet",
            framed(&with_header_byte(with_header_byte(good_v4(), 6, 0x1f), 7, 0xff)),
            fragments,
        ),
        ("not our address", framed(&to(v4(9))), address_errors),
        ("loopback destination", framed(&to(Ipv4Addr::LOCALHOST)), address_errors),
        (
            "group we are not in",
            framed_to([1, 0, 0x5e, 0, 0, 9], &to(Ipv4Addr::new(224, 0, 0, 9))),
            address_errors,
        ),
        ("broadcast frame for one host", framed_to(ethernet::BROADCAST, &good_v4()), address_errors),
        ("loopback source", framed(&from(Ipv4Addr::LOCALHOST)), address_errors),
        ("broadcast source", framed(&from(Ipv4Addr::BROADCAST)), address_errors),
        ("subnet broadcast source", framed(&from(v4(255))), address_errors),
        ("multicast source", framed(&from(Ipv4Addr::new(224, 0, 0, 1))), address_errors),
        ("unspecified source", framed(&from(Ipv4Addr::UNSPECIFIED)), address_errors),
        ("our own source", framed(&from(v4(1))), address_errors),
        ("UDP shorter than its header", udp(|datagram| datagram.truncate(7)), udp_errors),
        ("UDP length short", udp(|datagram| datagram[5] = 7), udp_errors),
        ("UDP length long", udp(|datagram| datagram[5] = 13), udp_errors),
        ("UDP checksum", udp(|datagram| datagram[11] ^= 1), sums),
        ("UDP checksum over IPv6", udp_v6(|datagram| datagram[11] ^= 1), sums),
        ("UDP without checksum over IPv6", udp_v6(|datagram| datagram[6..8].fill(0)), sums),
        ("TCP checksum", framed(&ip_packet(host(2), host(1), 6, &[0; 20])), |counters| {
            counters.tcp_in_checksum_errors
        }),
        ("ICMP checksum", framed(&ip_packet(host(2), host(1), 1, &[8, 0, 0, 0, 0, 0, 0, 0])), |counters| {
            counters.icmp_in_errors
        }),
        ("cut ICMP", framed(&ip_packet(host(2), host(1), 1, &[8, 0, 0xf7])), |counters| {
            counters.icmp_in_errors
        }),
        ("cut IPv6 header", framed(&good_v6()[..39]), header_errors),
        ("IPv6 payload length", framed(&good_v6()[..50]), header_errors),
        ("IPv6 multicast source", v6_from(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), address_errors),
        ("IPv6 loopback source", v6_from(Ipv6Addr::LOCALHOST), address_errors),
        ("IPv6 source that is IPv4's", v6_from(v4(2).to_ipv6_mapped()), address_errors),
        ("IPv6 unspecified source", v6_from(Ipv6Addr::UNSPECIFIED), address_errors),
        ("IPv6 our own source", v6_from(v6(1)), address_errors),
        ("IPv6 not our address", framed(&good(v6(2).into(), v6(9).into())), address_errors),
        ("IPv6 without payload", framed(&ip_packet(v6(2).into(), v6(1).into(), 59, &[])), header_errors),
    ];
    for (name, frame, counter) in cases {
        let mut network = network(&config(1));
        assert!(is_dropped(&mut network, &frame), "{name}");
        assert_eq!(counter(&network.counters()), 1, "{name}: {:?}", network.counters());
        assert_eq!(network.arena().stats().live_buffers, 0, "{name}");
    }
}

#[test]
fn what_only_looks_odd_is_delivered() {
    let (two, one) = (IpAddr::V4(v4(2)), IpAddr::V4(v4(1)));
    let mut unsummed = udp_datagram(two, one, (1, 2), b"data");
    unsummed[6..8].fill(0);
    let mut shorter = udp_datagram(two, one, (1, 2), b"data");
    shorter.extend([9, 9]);
    let mut options = vec![0x46, 0, 0, 36, 0, 7, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1, 1, 1, 1, 0];
    let sum = crate::wire::checksum::of(&options);
    options[10..12].copy_from_slice(&sum.to_be_bytes());
    options.extend(udp_datagram(two, one, (1, 2), b"data"));
    let extension =
        [&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp_datagram(v6(2).into(), v6(1).into(), (1, 2), b"data")].concat();
    for (name, packet_bytes) in [
        ("no checksum over IPv4", ip_packet(two, one, 17, &unsummed)),
        ("UDP shorter than the IP payload", ip_packet(two, one, 17, &shorter)),
        ("time to live 0", with_header_byte(good_v4(), 8, 0)),
        ("IPv4 options", options),
        ("IPv6 hop-by-hop options", ip_packet(v6(2).into(), v6(1).into(), 0, &extension)),
        ("IPv6 atomic fragment", {
            let fragment = [&[17, 0, 0, 0, 0, 0, 0, 1][..], &extension[8..]].concat();
            ip_packet(v6(2).into(), v6(1).into(), 44, &fragment)
        }),
    ] {
        let packet = packet(receive(&mut network(&config(1)), NOW, &framed(&packet_bytes)));
        assert_eq!(&packet.head[8..], b"data", "{name}");
    }
}

#[test]
fn broadcasts_and_groups_come_up_as_such() {
    for (destination, frame_to, kind) in [
        (IpAddr::V4(v4(255)), ethernet::BROADCAST, DestinationKind::Broadcast),
        (Ipv4Addr::BROADCAST.into(), ethernet::BROADCAST, DestinationKind::Broadcast),
        (Ipv4Addr::new(224, 0, 0, 1).into(), [1, 0, 0x5e, 0, 0, 1], DestinationKind::Multicast),
    ] {
        let frame = framed_to(frame_to, &good(v4(2).into(), destination));
        assert_eq!(packet(receive(&mut network(&config(1)), NOW, &frame)).kind, kind, "{destination}");
    }
}

#[test]
fn checksums_are_not_checked_when_the_device_did_or_the_configuration_says_so() {
    let mut broken = good_v4();
    broken[27] ^= 1;
    let frame = framed(&broken);
    let mut checking = network(&config(1));
    let verified = RxFrame { checksum: RxChecksum::Verified, ..RxFrame::from(buffer(&checking, &frame)) };
    assert!(matches!(checking.receive(NOW, verified), Ingress::Packet(_)));
    let mut trusting = network(&crate::stack::StackConfig { verify_checksums: false, ..config(1) });
    assert!(matches!(receive(&mut trusting, NOW, &frame), Ingress::Packet(_)));
}

#[test]
fn a_frame_in_several_buffers_is_one_packet() {
    let (two, one) = (IpAddr::V4(v4(2)), IpAddr::V4(v4(1)));
    let data: Vec<u8> = (0..200_u8).collect();
    let mut frame = framed(&ip_packet(two, one, 17, &udp_datagram(two, one, (1, 2), &data)));
    frame.extend([0xee; 30]);
    let mut network = network(&config(1));
    let (head, rest) = frame.split_at(61);
    let received = RxFrame {
        rest: rest.chunks(51).map(|chunk| buffer(&network, chunk)).collect(),
        ..RxFrame::from(buffer(&network, head))
    };
    let packet = packet(network.receive(NOW, received));
    let mut bytes = packet.head[8..].to_vec();
    packet.rest.iter().for_each(|piece| bytes.extend_from_slice(piece));
    assert_eq!(bytes, data);
}

#[test]
fn without_an_ipv4_address_no_packet_to_the_unspecified_one_is_ours() {
    let mut config = config(1);
    config.device.medium = libos::runtime::Medium::Ip;
    config.addresses.retain(|prefix| prefix.address.is_ipv6());
    let mut network = network(&config);
    assert!(is_dropped(&mut network, &good(v4(2).into(), Ipv4Addr::UNSPECIFIED.into())));
    assert!(matches!(receive(&mut network, NOW, &good_v6()), Ingress::Packet(_)));
}
