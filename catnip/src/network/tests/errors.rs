//! Echo, and ICMP errors both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::Instant;

use crate::network::testing::*;
use crate::network::{IcmpErrorKind, Ingress, Network, Protocol};
use crate::stack::StackConfig;
use crate::wire::checksum::Checksum;
use crate::wire::ethernet;

const NOW: Instant = Instant::from_millis(1);

fn pair(v6_family: bool) -> (IpAddr, IpAddr) {
    if v6_family { (v6(2).into(), v6(1).into()) } else { (v4(2).into(), v4(1).into()) }
}

/// A network that knows host 2.
fn acquainted(config: &StackConfig) -> Network {
    let mut network = network(config);
    introduce(&mut network, NOW);
    network
}

/// The ICMP messages that were sent: kind, code, and what is behind the first eight bytes.
fn sent_icmp(network: &mut Network) -> Vec<(u8, u8, Vec<u8>)> {
    take_frames(network)
        .iter()
        .filter_map(|frame| {
            let packet = frame.bytes.get(14..)?;
            let (protocol, header_len) = if packet[0] >> 4 == 4 { (packet[9], 20) } else { (packet[6], 40) };
            let message = packet.get(header_len..)?;
            matches!((protocol, message[0]), (1, _) | (58, 0..=4 | 128 | 129))
                .then(|| (message[0], message[1], message[8..].to_vec()))
        })
        .collect()
}

#[test]
fn echo_requests_come_back_with_their_data() {
    for (v6_family, protocol, request, reply) in [(false, 1, 8, 0), (true, 58, 128, 129)] {
        let (two, one) = pair(v6_family);
        for len in [0, 1, 56, 1400] {
            let data: Vec<u8> = (0..=255_u8).cycle().take(len).collect();
            let body = [&[0x12, 0x34, 0, 1][..], &data].concat();
            let message = icmp_message(two, one, request, 0, &body);
            let mut network = acquainted(&config(1));
            receive(&mut network, NOW, &framed(&ip_packet(two, one, protocol, &message)));
            let frames = take_frames(&mut network);
            assert_eq!(frames.len(), 1);
            let mut expected = icmp_message(one, two, reply, 0, &body);
            let header_len = if v6_family { 54 } else { 34 };
            // The two forms of zero are one sum; all else is the same byte for byte.
            if expected[2..4] == [0xff, 0xff] {
                expected[2..4].copy_from_slice(&frames[0].bytes[header_len + 2..header_len + 4]);
            }
            assert_eq!(frames[0].bytes[header_len..], expected, "{len} bytes");
            assert_eq!(network.arena().stats().live_buffers, 0);
        }
    }
}

#[test]
fn echo_requests_to_everybody_are_ignored_in_ipv4_and_answered_by_one_address_in_ipv6() {
    let mut network = acquainted(&config(1));
    let message = icmp_message(v4(2).into(), v4(255).into(), 8, 0, &[0; 4]);
    let packet = ip_packet(v4(2).into(), v4(255).into(), 1, &message);
    receive(&mut network, NOW, &framed_to(ethernet::BROADCAST, &packet));
    assert_eq!(sent_icmp(&mut network), []);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let message = icmp_message(v6(2).into(), all.into(), 128, 0, &[0; 4]);
    let packet = ip_packet(v6(2).into(), all.into(), 58, &message);
    receive(&mut network, NOW, &framed_to([0x33, 0x33, 0, 0, 0, 1], &packet));
    assert_eq!(sent_icmp(&mut network), [(129, 0, vec![])]);
}

#[test]
fn a_closed_port_is_told_with_the_whole_header_and_as_much_as_is_allowed() {
    for (v6_family, kind, code, longest) in [(false, 3, 3, 576 - 28), (true, 1, 4, 1280 - 48)] {
        let (two, one) = pair(v6_family);
        for data_len in [0, 10, 1400] {
            let datagram = udp_datagram(two, one, (1000, 2000), &vec![7; data_len]);
            let packet_bytes = ip_packet(two, one, 17, &datagram);
            let mut network = acquainted(&config(1));
            let Ingress::Packet(packet) = receive(&mut network, NOW, &framed(&packet_bytes)) else {
                panic!()
            };
            network.send_port_unreachable(NOW, &packet);
            let quote = packet_bytes[..packet_bytes.len().min(longest)].to_vec();
            assert_eq!(sent_icmp(&mut network), [(kind, code, quote)]);
        }
    }
}

#[test]
fn an_unknown_protocol_is_told() {
    let (two, one) = pair(false);
    let packet = ip_packet(two, one, 99, b"whatever");
    let mut network = acquainted(&config(1));
    receive(&mut network, NOW, &framed(&packet));
    assert_eq!(sent_icmp(&mut network), [(3, 2, packet)]);
    let (two, one) = pair(true);
    let packet = ip_packet(two, one, 99, b"whatever");
    receive(&mut network, NOW, &framed(&packet));
    let frames = take_frames(&mut network);
    assert_eq!(frames[0].bytes[54..56], [4, 1]);
    assert_eq!(frames[0].bytes[58..62], [0, 0, 0, 6], "the pointer");
}

#[test]
fn an_ipv6_option_that_asks_for_it_is_told() {
    let (two, one) = pair(true);
    let packet = ip_packet(two, one, 60, &[17, 0, 0x80, 4, 0, 0, 0, 0]);
    let mut network = acquainted(&config(1));
    receive(&mut network, NOW, &framed(&packet));
    let frames = take_frames(&mut network);
    assert_eq!(frames[0].bytes[54..56], [4, 2]);
    assert_eq!(frames[0].bytes[58..62], [0, 0, 0, 42], "the pointer");
    assert_eq!(frames[0].bytes[62..], packet);
}

/// An IPv4 packet with these options, of a multiple of four bytes, its checksum right.
fn with_options(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = ip_packet(source, destination, protocol, &[options, payload].concat());
    packet[0] = 0x45 + u8::try_from(options.len() / 4).unwrap();
    packet[10..12].fill(0);
    let mut sum = Checksum::new();
    sum.add_bytes(&packet[..20 + options.len()]);
    packet[10..12].copy_from_slice(&sum.finish().to_be_bytes());
    packet
}

#[test]
fn a_malformed_ipv4_option_is_told_with_its_place() {
    let (two, one) = pair(false);
    for (name, options, pointer) in [
        ("length 0", [1, 7, 0, 0, 0, 0, 0, 0], Some(22)),
        ("length 1", [1, 1, 1, 1, 1, 1, 7, 1], Some(27)),
        ("beyond the header", [7, 9, 4, 0, 0, 0, 0, 0], Some(21)),
        ("no length", [1, 1, 1, 1, 1, 1, 1, 7], Some(27)),
        ("a record of the route", [7, 7, 4, 0, 0, 0, 0, 0], None),
        ("nothing behind the end", [0, 7, 0, 0, 0, 0, 0, 0], None),
        ("one that nobody knows", [30, 8, 1, 2, 3, 4, 5, 6], None),
    ] {
        let mut network = acquainted(&config(1));
        let datagram = udp_datagram(two, one, (1000, 2000), b"data");
        let packet = with_options(two, one, 17, &options, &datagram);
        let ingress = receive(&mut network, NOW, &framed(&packet));
        assert_eq!(matches!(ingress, Ingress::Packet(_)), pointer.is_none(), "{name}");
        let frames = take_frames(&mut network);
        let told: Vec<_> = frames.iter().map(|frame| frame.bytes[34..42].to_vec()).collect();
        match pointer {
            None => assert_eq!(told.len(), 0, "{name}"),
            Some(pointer) => {
                assert_eq!(told.len(), 1, "{name}");
                assert_eq!((told[0][0], told[0][1], told[0][4]), (12, 0, pointer), "{name}");
                assert_eq!(frames[0].bytes[42..], packet, "{name}");
            }
        }
    }
}

#[test]
fn errors_are_not_sent_about_broadcasts_groups_or_errors() {
    let two = IpAddr::V4(v4(2));
    let to_all = IpAddr::V4(v4(255));
    let error = icmp_message(two, v4(1).into(), 3, 3, &[0; 36]);
    for (name, frame) in [
        ("protocol to everybody", framed_to(ethernet::BROADCAST, &ip_packet(two, to_all, 99, b""))),
        ("an error about nothing", framed(&ip_packet(two, v4(1).into(), 1, &error))),
        ("an unknown ICMP kind", {
            let message = icmp_message(two, v4(1).into(), 77, 0, &[0; 4]);
            framed(&ip_packet(two, v4(1).into(), 1, &message))
        }),
    ] {
        let mut network = acquainted(&config(1));
        receive(&mut network, NOW, &frame);
        assert_eq!(sent_icmp(&mut network), [], "{name}");
    }
    let mut network = acquainted(&config(1));
    let broadcast = ip_packet(two, to_all, 17, &udp_datagram(two, to_all, (1, 2), b""));
    let Ingress::Packet(packet) = receive(&mut network, NOW, &framed_to(ethernet::BROADCAST, &broadcast))
    else {
        panic!()
    };
    network.send_port_unreachable(NOW, &packet);
    assert_eq!(sent_icmp(&mut network), []);
}

#[test]
fn errors_are_limited_in_rate() {
    let (two, one) = pair(false);
    let config = StackConfig { icmp_errors_per_second: 10, icmp_errors_burst: 5, ..config(1) };
    let mut network = acquainted(&config);
    let frame = framed(&ip_packet(two, one, 99, b""));
    for _ in 0..100 {
        receive(&mut network, NOW, &frame);
    }
    assert_eq!(sent_icmp(&mut network).len(), 5);
    assert_eq!(network.counters().icmp_out_rate_limited, 95);
    receive(&mut network, Instant::from_millis(200), &frame);
    assert_eq!(sent_icmp(&mut network).len(), 1);
}

#[test]
fn errors_about_our_packets_come_up_with_their_ends() {
    for (v6_family, kind, code, rest, expected) in [
        (false, 3, 3, [0; 4], IcmpErrorKind::PortUnreachable),
        (false, 3, 4, [0, 0, 4, 0], IcmpErrorKind::FragmentationNeeded { mtu: 1024 }),
        (false, 11, 0, [0; 4], IcmpErrorKind::TimeExceeded),
        (true, 1, 4, [0; 4], IcmpErrorKind::PortUnreachable),
        (true, 2, 0, [0, 0, 5, 20], IcmpErrorKind::FragmentationNeeded { mtu: 1300 }),
        (true, 1, 0, [0; 4], IcmpErrorKind::NetworkUnreachable),
    ] {
        let (two, one) = pair(v6_family);
        for (protocol, number, sequence) in [(Protocol::Udp, 17, 0), (Protocol::Tcp, 6, 0x0506_0708)] {
            let quoted = ip_packet(one, two, number, &[0, 80, 0, 90, 5, 6, 7, 8]);
            let body = [&rest[..], &quoted].concat();
            let message = icmp_message(two, one, kind, code, &body);
            let icmp = if v6_family { 58 } else { 1 };
            let frame = framed(&ip_packet(two, one, icmp, &message));
            let Ingress::Error(error) = receive(&mut network(&config(1)), NOW, &frame) else { panic!() };
            assert_eq!((error.protocol, error.kind, error.sequence), (protocol, expected, sequence));
            assert_eq!((error.local, error.remote), ((one, 80).into(), (two, 90).into()));
        }
    }
}

#[test]
fn errors_about_what_we_cannot_have_sent_are_ignored() {
    let (two, one) = pair(false);
    let stranger = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 5));
    let good = ip_packet(one, two, 17, &[0; 8]);
    for (name, quoted) in [
        ("from another host", ip_packet(stranger, two, 17, &[0; 8])),
        ("of no transport", ip_packet(one, two, 1, &[0; 8])),
        ("a later fragment", with_header_byte(good.clone(), 7, 1)),
        ("cut within the ports", good[..27].to_vec()),
        ("cut within the header", good[..19].to_vec()),
        ("nothing", vec![]),
    ] {
        let body = [&[0; 4][..], &quoted].concat();
        let frame = framed(&ip_packet(two, one, 1, &icmp_message(two, one, 3, 3, &body)));
        let mut network = network(&config(1));
        assert!(matches!(receive(&mut network, NOW, &frame), Ingress::Consumed), "{name}");
        assert!(network.frames().is_empty(), "{name}");
    }
}

/// What is answered to a packet: kinds and codes.
fn told_about(packet: &[u8]) -> Vec<(u8, u8)> {
    let mut network = acquainted(&config(1));
    receive(&mut network, NOW, &framed(packet));
    sent_icmp(&mut network).into_iter().map(|(kind, code, _)| (kind, code)).collect()
}

#[test]
fn a_packet_that_is_to_go_on_to_other_hosts_is_told_to_end_here() {
    let (two, one) = pair(false);
    let echo = icmp_message(two, one, 8, 0, &[0; 4]);
    for (name, options, answer) in [
        ("a loose route with a host left", &[131, 7, 4, 192, 0, 2, 9, 0][..], (3, 5)),
        ("a strict one", &[137, 7, 4, 192, 0, 2, 9, 0], (3, 5)),
        ("behind others", &[1, 1, 7, 3, 4, 137, 7, 4, 192, 0, 2, 9], (3, 5)),
        ("a loose route that ends here", &[131, 7, 8, 192, 0, 2, 9, 0], (0, 0)),
        ("a route without a pointer", &[1, 1, 131, 2], (0, 0)),
        ("behind the end of the options", &[0, 131, 3, 1], (0, 0)),
    ] {
        assert_eq!(told_about(&with_options(two, one, 1, options, &echo)), [answer], "{name}");
    }
}

#[test]
fn errors_that_are_malformed_are_not_answered_with_errors() {
    let (two, one) = pair(false);
    let quoted = ip_packet(one, two, 17, &[0; 8]);
    for (kind, is_answered) in [(3, false), (4, false), (5, false), (11, false), (12, false), (13, true)] {
        let message = icmp_message(two, one, kind, 0, &[&[0; 4][..], &quoted].concat());
        for (options, complaint) in [(&[7, 9, 4, 0][..], (12, 0)), (&[131, 3, 3, 0], (3, 5))] {
            let told = told_about(&with_options(two, one, 1, options, &message));
            assert_eq!(told, if is_answered { vec![complaint] } else { vec![] }, "{kind} with {options:?}");
        }
    }
    let (two, one) = pair(true);
    let to_report = [58, 0, 0x9e, 4, 0, 0, 0, 0];
    let behind_another = [&[60, 0, 1, 4, 0, 0, 0, 0][..], &to_report].concat();
    let part_too_long = [58, 0, 0xff, 0xf8, 0, 0, 0, 1];
    let first_part_of_odd_length = [58, 0, 0, 1, 0, 0, 0, 1];
    for (kind, is_answered) in
        [(1, false), (2, false), (3, false), (4, false), (100, false), (137, false), (128, true)]
    {
        let message = icmp_message(two, one, kind, 0, &[0; 41]);
        for (first, headers) in [(60, &to_report[..]), (60, &behind_another), (44, &first_part_of_odd_length)]
        {
            let packet = ip_packet(two, one, first, &[headers, &message].concat());
            assert_eq!(told_about(&packet).len(), usize::from(is_answered), "{kind} behind {headers:?}");
        }
        // What a later part is of cannot be seen.
        let packet = ip_packet(two, one, 44, &[&part_too_long[..], &message].concat());
        assert_eq!(told_about(&packet), [(4, 0)], "{kind}");
    }
}

#[test]
fn nobody_is_told_of_a_packet_to_one_host_in_a_frame_for_many() {
    for v6_family in [false, true] {
        let (two, one) = pair(v6_family);
        let group = if v6_family { [0x33, 0x33, 0, 0, 0, 1] } else { ethernet::BROADCAST };
        let unknown = ip_packet(two, one, 99, b"whatever");
        let datagram = ip_packet(two, one, 17, &udp_datagram(two, one, (1000, 2000), b"data"));
        for packet in [unknown, datagram] {
            let mut network = acquainted(&config(1));
            assert!(matches!(receive(&mut network, NOW, &framed_to(group, &packet)), Ingress::Consumed));
            assert_eq!(sent_icmp(&mut network), []);
        }
    }
}
