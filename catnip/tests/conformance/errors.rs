//! What is refused, and what the sender is told of it.

use std::net::{IpAddr, SocketAddr};

use crate::host::{Host, PEER_PORT, PORT};
use crate::wire::{
    FAMILIES, Family, ICMPV4, ICMPV6, Packet, UDP, V4, icmp, ip, reseal_v4, seal, udp, udp_bytes, v6,
};

/// Kinds of extension headers.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Kind, code, the second word, and how much of the packet is quoted.
fn told(packets: &[Packet]) -> Vec<(u8, u8, [u8; 4], usize)> {
    let shown = |packet: &Packet| {
        let body = &packet.body;
        (body[0], body[1], body[4..8].try_into().unwrap(), body.len() - 8)
    };
    packets.iter().map(shown).collect()
}

/// An echo request's message.
fn echo(source: IpAddr, destination: IpAddr, data: &[u8]) -> Vec<u8> {
    let (kind, protocol) = if source.is_ipv4() { (8, ICMPV4) } else { (128, ICMPV6) };
    let mut message = [&[kind, 0, 0, 0, 1, 2, 3, 4], data].concat();
    seal(source, destination, protocol, &mut message, 2);
    message
}

#[test]
fn echoes_come_back_as_they_went_and_only_to_one_host() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let (request, reply) = if family == Family::V4 { (8, 0) } else { (128, 129) };
        for data_bytes in [0, 1, 56, 1_400] {
            let rest: Vec<u8> = (0..4 + data_bytes).map(|at| at as u8).collect();
            let answers = host.ask(&icmp(family.peer(), family.stack(), request, 0, &rest));
            assert_eq!(answers.len(), 1, "{family:?}, {data_bytes} bytes");
            let answer = &answers[0];
            let ends = (answer.source, answer.destination, answer.protocol);
            assert_eq!(ends, (family.stack(), family.peer(), family.icmp()));
            assert_eq!((answer.body[0], answer.body[1], &answer.body[4..]), (reply, 0, &rest[..]));
        }
        let mut wrong = icmp(family.peer(), family.stack(), request, 0, &[1; 20]);
        wrong[family.header_bytes() + 5] ^= 1;
        assert_eq!(host.ask(&wrong).len(), 0, "its checksum is wrong");
        assert_eq!(host.ask(&icmp(family.peer(), family.stack(), request, 0, &[])).len(), 0, "no identifier");
        for kind in [reply, 44, 200, 255] {
            assert_eq!(host.ask(&icmp(family.peer(), family.stack(), kind, 0, &[1; 20])).len(), 0, "{kind}");
        }
        // Nobody can be at these (RFC 1122, section 3.2.1.3; RFC 4291, section 2.7).
        let sources: &[&str] = match family {
            Family::V4 => {
                &["224.0.0.1", "255.255.255.255", "192.0.2.255", "127.0.0.1", "0.0.0.0", "192.0.2.1"]
            }
            Family::V6 => &["ff02::1", "::1", "::", "2001:db8::1", "::ffff:192.0.2.2"],
        };
        for source in sources {
            let packet = icmp(address(source), family.stack(), request, 0, &[1; 20]);
            assert_eq!(host.ask(&packet).len(), 0, "from {source}");
        }
        let destinations: &[&str] = match family {
            Family::V4 => {
                &["224.0.0.1", "255.255.255.255", "192.0.2.255", "127.0.0.1", "0.0.0.0", "192.0.2.3"]
            }
            Family::V6 => &["::1", "::", "2001:db8::3", "ff02::2", "ff05::1"],
        };
        for destination in destinations {
            let packet = icmp(family.peer(), address(destination), request, 0, &[1; 20]);
            assert_eq!(host.ask(&packet).len(), 0, "to {destination}");
        }
    }
}

#[test]
fn an_echo_in_parts_comes_back_in_parts() {
    let data: Vec<u8> = (0..4_000).map(|at| at as u8).collect();
    let mut host = Host::new("");
    let (peer, stack) = (Family::V4.peer(), Family::V4.stack());
    let message = echo(peer, stack, &data);
    let mut header = V4::new(peer, stack, ICMPV4);
    for (index, part) in message.chunks(1_480).enumerate().rev() {
        let more = if index < 2 { 0x2000 } else { 0 };
        header.fragment = (index as u16 * 185) | more;
        host.inject(&header.with(part));
    }
    let answers = host.packets();
    let shown: Vec<_> = answers.iter().map(|part| (part.fragment, part.body.len())).collect();
    assert_eq!(shown, [(0x2000, 1_480), (0x2000 | 185, 1_480), (370, 1_048)]);
    assert!(answers.iter().all(|part| part.id == answers[0].id && part.id != 0));

    let (peer, stack) = (Family::V6.peer(), Family::V6.stack());
    for (index, part) in echo(peer, stack, &data).chunks(1_440).enumerate() {
        host.inject(&part_v6(ICMPV6, index as u16 * 1_440, index < 2, 9, part));
    }
    let shown: Vec<_> = host.packets().iter().map(|part| (part.fragment, part.body.len())).collect();
    assert_eq!(shown, [(1, 1_448), (1_448 | 1, 1_448), (2_896, 1_112)]);
}

#[test]
fn a_closed_port_is_told_with_as_much_of_the_packet_as_there_is_room_for() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let (kind, code, longest) = if family == Family::V4 { (3, 3, 576) } else { (1, 4, 1_280) };
        for data_bytes in [0, 10, 500, 520, 1_400] {
            let packet = udp(family.peer(), family.stack(), (PEER_PORT, PORT), &vec![7; data_bytes]);
            let quoted = packet.len().min(longest - family.header_bytes() - 8);
            let answers = host.ask(&packet);
            assert_eq!(told(&answers), [(kind, code, [0; 4], quoted)], "{family:?}, {data_bytes} bytes");
            assert_eq!(answers[0].body[8..], packet[..quoted]);
            assert_eq!((answers[0].source, answers[0].destination), (family.stack(), family.peer()));
        }
        let no_port = udp(family.peer(), family.stack(), (0, PORT), b"data");
        assert_eq!(host.ask(&no_port).len(), 1, "a source port of 0 is one (RFC 768)");
        let groups: &[&str] = if family == Family::V4 {
            &["224.0.0.1", "192.0.2.255", "255.255.255.255"]
        } else {
            &["ff02::1"]
        };
        for group in groups {
            let to = udp(family.peer(), address(group), (PEER_PORT, PORT), b"data");
            assert_eq!(host.ask(&to).len(), 0, "to {group}");
            let from = udp(address(group), family.stack(), (PEER_PORT, PORT), b"data");
            assert_eq!(host.ask(&from).len(), 0, "from {group}");
        }
    }
}

#[test]
fn a_datagram_is_as_long_as_it_says_and_no_longer_than_its_packet() {
    for family in FAMILIES {
        let (peer, stack) = (family.peer(), family.stack());
        let right = udp_bytes(peer, stack, (PEER_PORT, PORT), b"data");
        let with = |len: u16| {
            let mut bytes = right.clone();
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            seal(peer, stack, UDP, &mut bytes, 6);
            bytes
        };
        let mut without_checksum = right.clone();
        without_checksum[6..8].fill(0);
        let data = Some(b"data".to_vec());
        for (name, bytes, received) in [
            ("right", right.clone(), data.clone()),
            ("more behind it", [&right[..], &[9; 6]].concat(), data.clone()),
            ("shorter than its header", with(7), None),
            ("longer than the packet", with(13), None),
            ("of no length", with(0), None),
            ("cut in its header", right[..7].to_vec(), None),
            ("without a checksum", without_checksum, data.filter(|_| family == Family::V4)),
        ] {
            let mut host = Host::new("");
            let socket = host.stack.udp_bind(SocketAddr::new(stack, PORT)).unwrap();
            host.inject(&ip(peer, stack, UDP, &bytes));
            let peeked = host.stack.udp_peek(socket).unwrap().map(|datagram| datagram.data.to_vec());
            assert_eq!(peeked, received, "{family:?}, {name}");
            let datagram = host.stack.udp_receive(socket).unwrap();
            assert_eq!(datagram.map(|datagram| datagram.data.to_vec()), received, "{family:?}, {name}");
            assert_eq!(host.packets().len(), 0, "{family:?}, {name}");
        }
    }
}

#[test]
fn a_protocol_that_nobody_speaks_is_told_with_where_it_stands() {
    let mut host = Host::new("");
    let (peer, stack) = (Family::V4.peer(), Family::V4.stack());
    let told_about = |host: &mut Host, packet: &[u8]| told(&host.ask(packet));
    let packet = V4::new(peer, stack, 132).with(&[1; 40]);
    assert_eq!(told_about(&mut host, &packet), [(3, 2, [0; 4], 60)]);
    let packet = V4::new(peer, address("224.0.0.1"), 132).with(&[1; 40]);
    assert_eq!(told_about(&mut host, &packet), []);
    let (peer, stack) = (Family::V6.peer(), Family::V6.stack());
    let nothing = [1, 4, 0, 0, 0, 0];
    for (name, first, behind, pointer) in [
        ("in the header", 132, vec![1; 40], Some(6)),
        ("behind options", DESTINATION, [&[132, 0][..], &nothing, &[1; 40]].concat(), Some(40)),
        (
            "hop-by-hop options not first",
            DESTINATION,
            [&[HOP_BY_HOP, 0][..], &nothing, &[59, 0], &nothing].concat(),
            Some(40),
        ),
        ("nothing at all", 59, vec![1; 8], None),
    ] {
        let packet = v6(peer, stack, first, 64, &behind);
        let wanted: Vec<_> = pointer.iter().map(|at| (4, 1, [0, 0, 0, *at], packet.len())).collect();
        assert_eq!(told_about(&mut host, &packet), wanted, "{name}");
        let to_all = v6(peer, address("ff02::1"), first, 64, &behind);
        assert_eq!(told_about(&mut host, &to_all), [], "{name}, to a group");
    }
}

#[test]
fn unknown_options_of_ipv6_are_treated_as_their_first_bits_say() {
    let mut host = Host::new("");
    let (peer, stack) = (Family::V6.peer(), Family::V6.stack());
    for header in [HOP_BY_HOP, DESTINATION] {
        for (option, to_one, to_many) in [
            (0x1e, Some(129), Some(129)),
            (0x5e, None, None),
            (0x9e, Some(4), Some(4)),
            (0xde, Some(4), None),
        ] {
            for (destination, wanted) in [(stack, to_one), (address("ff02::1"), to_many)] {
                let behind =
                    [&[ICMPV6, 0, 1, 0, option, 2, 0, 0][..], &echo(peer, destination, b"")].concat();
                let answers = host.ask(&v6(peer, destination, header, 64, &behind));
                let kinds: Vec<u8> = answers.iter().map(|answer| answer.body[0]).collect();
                assert_eq!(kinds, Vec::from_iter(wanted), "{option:#x} to {destination}");
                if wanted == Some(4) {
                    assert_eq!((answers[0].body[1], &answers[0].body[4..8]), (2, &[0, 0, 0, 44][..]));
                }
            }
        }
    }
    for kind in [0, 2, 3, 4, 200] {
        for (segments_left, wanted) in [(0, (129, 0)), (1, (4, 0))] {
            let route = [&[ICMPV6, 2, kind, segments_left][..], &[0; 20], &echo(peer, stack, b"")].concat();
            let answers = host.ask(&v6(peer, stack, ROUTING, 64, &route));
            assert_eq!((answers[0].body[0], answers[0].body[1]), wanted, "routing of type {kind}");
        }
    }
}

/// A part of an IPv6 packet.
fn part_v6(next: u8, offset: u16, more: bool, id: u32, part: &[u8]) -> Vec<u8> {
    let mut bytes = vec![next, 0];
    bytes.extend((offset | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(part);
    v6(Family::V6.peer(), Family::V6.stack(), FRAGMENT, 64, &bytes)
}

#[test]
fn parts_that_cannot_be_are_told_and_those_that_overlap_are_not() {
    let message = echo(Family::V6.peer(), Family::V6.stack(), &[7; 24]);
    let mut host = Host::new("");
    assert_eq!(host.ask(&part_v6(ICMPV6, 0, false, 1, &message)).len(), 1, "in one piece (RFC 6946)");
    for (name, packet, answer) in [
        ("not a multiple of eight", part_v6(ICMPV6, 0, true, 2, &message[..12]), (4, 0, [0, 0, 0, 4], 60)),
        ("beyond the longest", part_v6(ICMPV6, 65_528, false, 3, &message[..16]), (4, 0, [0, 0, 0, 42], 64)),
        ("without a transport", part_v6(UDP, 0, true, 4, &[]), (4, 3, [0; 4], 48)),
    ] {
        assert_eq!(told(&host.ask(&packet)), [answer], "{name}");
    }
    let parts = |id| {
        [
            part_v6(ICMPV6, 0, true, id, &message[..16]),
            part_v6(ICMPV6, 8, true, id, &message[8..24]),
            part_v6(ICMPV6, 16, false, id, &message[16..]),
        ]
    };
    for packet in parts(5) {
        assert_eq!(host.ask(&packet).len(), 0, "overlapping (RFC 5722)");
    }
    let [first, _, last] = parts(6);
    for (packet, answers) in [(&first, 0), (&first, 0), (&last, 1)] {
        assert_eq!(host.ask(packet).len(), answers, "the same part again is no overlap");
    }
    // A minute later the sender of a first part is told, and nobody else.
    for (packet, wanted) in [(&parts(7)[0], vec![(3, 1, [0; 4], first.len())]), (&parts(8)[2], vec![])] {
        let sent_us = host.now_us;
        host.inject(packet);
        host.pass_ms(70_000);
        let answers = host.packets();
        assert_eq!(told(&answers), wanted);
        assert!(answers.iter().all(|answer| answer.at_us - sent_us == 60_000_000));
    }
}

#[test]
fn headers_of_ipv4_that_cannot_be_are_dropped() {
    let (peer, stack) = (Family::V4.peer(), Family::V4.stack());
    let mut host = Host::new("");
    let right = V4::new(peer, stack, ICMPV4).with(&echo(peer, stack, b"data"));
    assert_eq!(host.ask(&right).len(), 1);
    assert_eq!(host.ask(&[&right[..], &[0; 20]].concat()).len(), 1, "padded");
    for (name, at, value) in [
        ("version", 0, 0x55),
        ("a header of 16 bytes", 0, 0x44),
        ("a header beyond the packet", 0, 0x4f),
        ("shorter than its header", 3, 19),
        ("longer than what came", 3, 200),
    ] {
        let mut packet = right.clone();
        packet[at] = value;
        reseal_v4(&mut packet);
        assert_eq!(host.ask(&packet).len(), 0, "{name}");
    }
    let mut wrong = right.clone();
    wrong[10] ^= 1;
    assert_eq!(host.ask(&wrong).len(), 0, "checksum");
    for len in 0..right.len() {
        assert_eq!(host.ask(&right[..len]).len(), 0, "cut to {len} bytes");
    }
    for options in [[1, 1, 1, 0], [0, 9, 9, 9], [148, 4, 0, 0], [0x9e, 4, 0, 0]] {
        let header = V4 { options: options.to_vec(), ..V4::new(peer, stack, ICMPV4) };
        let answers = host.ask(&header.with(&echo(peer, stack, b"data")));
        assert_eq!((answers.len(), answers[0].body[0]), (1, 0), "{options:?}");
    }
}

#[test]
fn errors_about_nothing_that_was_sent_change_nothing() {
    for family in FAMILIES {
        let mut host = Host::new("");
        let kinds: &[u8] = if family == Family::V4 { &[3, 4, 5, 11, 12] } else { &[1, 2, 3, 4, 77] };
        let quoted = ip(family.stack(), family.peer(), 132, &[1; 20]);
        for kind in kinds {
            for quoted_bytes in [0, 4, 20, 28, 40] {
                let rest = [&[0; 4], &quoted[..quoted_bytes.min(quoted.len())]].concat();
                let answers = host.ask(&icmp(family.peer(), family.stack(), *kind, 0, &rest));
                assert_eq!(answers.len(), 0, "{family:?}, {kind}, {quoted_bytes} bytes");
            }
        }
    }
}
