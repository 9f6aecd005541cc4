//! ARP and neighbour discovery as the link sees them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::memory::ArenaConfig;
use libos::{Arena, Error, Instant};

use crate::network::testing::*;
use crate::network::{ConflictDetection, IcmpErrorKind, Ingress, Network, Payload, Protocol};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::ndp::{AdvertisementFlags, NeighborMessage};

const NOW: Instant = Instant::from_millis(1);

fn arp(operation: Operation, sender: Ipv4Addr, target: Ipv4Addr) -> ArpPacket {
    let target_hardware = match operation {
        Operation::Request => [0; 6],
        Operation::Reply => hardware(1),
    };
    ArpPacket {
        operation,
        sender_hardware: hardware(2),
        sender_protocol: sender,
        target_hardware,
        target_protocol: target,
    }
}

fn sent_arp(network: &mut Network) -> Vec<(ethernet::Address, ArpPacket)> {
    let frames = take_frames(network);
    frames
        .iter()
        .filter_map(|frame| {
            let (header, body) = EthernetHeader::parse(&frame.bytes)?;
            (header.ether_type() == ethernet::TYPE_ARP)
                .then_some((header.destination(), ArpPacket::parse(body)?))
        })
        .collect()
}

fn receive_arp(network: &mut Network, packet: ArpPacket) {
    receive(network, NOW, &packet.compose_frame(ethernet::BROADCAST));
}

/// What the network has for an address: nothing when packets to it wait.
fn sends_at_once(network: &mut Network, remote: IpAddr) -> bool {
    let mut path = network.path(NOW, None, remote).unwrap();
    network.frames().clear();
    send_udp(network, NOW, &mut path, Payload::Empty).unwrap();
    take_frames(network).iter().any(|frame| frame.bytes[..6] == hardware(2))
}

#[test]
fn addresses_are_announced_at_the_start() {
    let arena = Arena::new(&ArenaConfig::default()).unwrap();
    let mut network = Network::new(&config(1), arena, &mut Random::new(1), Instant::ZERO).unwrap();
    let (to, packet) = sent_arp(&mut network)[0];
    assert_eq!(to, ethernet::BROADCAST);
    assert_eq!((packet.sender_protocol, packet.target_protocol), (v4(1), v4(1)));
}

#[test]
fn requests_for_our_addresses_are_answered_and_others_are_not() {
    for (name, sender, target, answered) in [
        ("for us", v4(2), v4(1), true),
        ("for another", v4(2), v4(3), false),
        ("a probe for us", Ipv4Addr::UNSPECIFIED, v4(1), true),
        ("from off the link", Ipv4Addr::new(10, 0, 0, 1), v4(1), false),
        ("from a group", Ipv4Addr::new(224, 0, 0, 1), v4(1), false),
    ] {
        let mut network = network(&config(1));
        receive_arp(&mut network, arp(Operation::Request, sender, target));
        let answers = sent_arp(&mut network);
        assert_eq!(answers.len(), usize::from(answered), "{name}");
        for (to, answer) in answers {
            assert_eq!(to, hardware(2), "{name}");
            assert_eq!(answer.operation, Operation::Reply, "{name}");
            assert_eq!((answer.sender_hardware, answer.sender_protocol), (hardware(1), v4(1)), "{name}");
            assert_eq!((answer.target_hardware, answer.target_protocol), (hardware(2), sender), "{name}");
        }
    }
}

#[test]
fn only_who_asks_for_us_becomes_a_neighbour() {
    for (name, packet, remembered) in [
        ("a request for us", arp(Operation::Request, v4(2), v4(1)), true),
        ("a request for another", arp(Operation::Request, v4(2), v4(3)), false),
        ("an announcement", arp(Operation::Request, v4(2), v4(2)), false),
        ("an unasked reply", arp(Operation::Reply, v4(2), v4(1)), false),
    ] {
        let mut network = network(&config(1));
        receive_arp(&mut network, packet);
        assert_eq!(sends_at_once(&mut network, v4(2).into()), remembered, "{name}");
    }
}

#[test]
fn a_known_neighbour_that_announces_a_new_address_is_believed() {
    let mut network = network(&config(1));
    introduce(&mut network, NOW);
    let moved = ArpPacket { sender_hardware: hardware(7), ..arp(Operation::Request, v4(2), v4(2)) };
    receive_arp(&mut network, moved);
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    assert_eq!(take_frames(&mut network)[0].bytes[..6], hardware(7));
}

#[test]
fn a_path_notices_that_its_neighbour_moved() {
    let mut network = network(&config(1));
    introduce(&mut network, NOW);
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    receive_arp(
        &mut network,
        ArpPacket { sender_hardware: hardware(7), ..arp(Operation::Request, v4(2), v4(1)) },
    );
    network.frames().clear();
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    assert_eq!(take_frames(&mut network)[0].bytes[..6], hardware(7));
}

#[test]
fn somebody_elses_claim_to_our_address_is_counted_and_not_believed() {
    let mut network = network(&config(1));
    receive_arp(&mut network, arp(Operation::Request, v4(1), v4(1)));
    let own = ArpPacket { sender_hardware: hardware(1), ..arp(Operation::Request, v4(1), v4(1)) };
    receive_arp(&mut network, own);
    assert_eq!(network.counters().address_conflicts, 1);
    let defence = arp(Operation::Request, v4(1), v4(1));
    let defence = ArpPacket { sender_hardware: hardware(1), ..defence };
    assert_eq!(sent_arp(&mut network), [(ethernet::BROADCAST, defence)]);
}

#[test]
fn packets_wait_for_the_answer_and_leave_in_order() {
    let mut network = network(&config(1));
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    for mark in 1..=3 {
        let mut data = buffer(&network, &[mark]);
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data)).unwrap();
    }
    let requests = sent_arp(&mut network);
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].1,
        ArpPacket { sender_hardware: hardware(1), ..arp(Operation::Request, v4(1), v4(2)) }
    );
    receive_arp(&mut network, arp(Operation::Reply, v4(2), v4(1)));
    let marks: Vec<u8> = take_frames(&mut network)
        .iter()
        .inspect(|frame| assert_eq!(frame.bytes[..6], hardware(2)))
        .map(|frame| frame.bytes[42])
        .collect();
    assert_eq!(marks, [1, 2, 3]);
    assert_eq!(network.arena().stats().live_buffers, 0);
}

#[test]
fn a_silent_neighbour_is_reported_and_holds_up_nobody_else() {
    let mut network = network(&config(1));
    introduce(&mut network, NOW);
    let mut silent = network.path(NOW, None, v4(9).into()).unwrap();
    for _ in 0..100 {
        send_udp(&mut network, NOW, &mut silent, Payload::Empty).unwrap();
    }
    assert!(sends_at_once(&mut network, v4(2).into()));
    assert_eq!(network.neighbor_counters().pending_overflows, 84);
    // The other neighbour's probe delay is served on the way.
    let mut errors = Vec::new();
    while let Some(now) = network.next_deadline().filter(|now| *now <= Instant::from_millis(7500)) {
        network.poll(now);
        errors.extend(std::iter::from_fn(|| network.next_error()));
    }
    assert_eq!(errors.len(), 16);
    let error = errors[0];
    assert_eq!((error.protocol, error.kind), (Protocol::Udp, IcmpErrorKind::HostUnreachable));
    assert_eq!((error.local, error.remote), ((v4(1), 1000).into(), (v4(9), 2000).into()));
    let now = Instant::from_millis(7501);
    assert_eq!(send_udp(&mut network, now, &mut silent, Payload::Empty), Err(Error::HostUnreachable));
}

#[test]
fn only_what_arrives_while_an_address_is_in_doubt_is_taken_note_of() {
    let config = StackConfig::new(device(1)).with_address(format!("{}/24", v4(1)).parse().unwrap());
    let config = StackConfig { conflict_detection: ConflictDetection::Off, ..config };
    let mut network = network(&config);
    introduce(&mut network, NOW);
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    let at = Instant::from_millis;
    // Learned from a request, the address is old: five seconds of doubt begin with the first packet.
    for (at_ms, confirmed, probes) in [(1, false, 0), (5_001, true, 1), (9_000, true, 0)] {
        send_udp(&mut network, at(at_ms), &mut path, Payload::Empty).unwrap();
        network.poll(at(at_ms));
        let frames = take_frames(&mut network);
        assert_eq!(frames.len(), 1 + probes, "{at_ms}");
        if confirmed {
            network.confirm(at(at_ms), &mut path);
        }
    }
    network.poll(at(20_000));
    assert!(network.frames().is_empty());
}

#[test]
fn a_flood_of_questions_is_answered_up_to_a_limit() {
    let mut network = network(&config(1));
    let ask = neighbor_frame(
        v6(2),
        solicited_node(),
        255,
        NeighborMessage::Solicitation { target: v6(1), source: Some(hardware(2)), nonce: None },
    );
    let mut answers = 0;
    for turn in 0..1000 {
        if turn % 2 == 0 {
            receive_arp(&mut network, arp(Operation::Request, v4(2), v4(1)));
        } else {
            receive(&mut network, NOW, &ask);
        }
        answers += take_frames(&mut network).len();
    }
    assert_eq!(answers, 200);
    assert_eq!(network.counters().neighbor_answers_limited, 1000 - answers as u64);
}

#[test]
fn off_link_destinations_are_asked_for_at_the_gateway() {
    let mut network = network(&config(1).with_gateway(v4(254).into()));
    let mut path = network.path(NOW, None, Ipv4Addr::new(203, 0, 113, 9).into()).unwrap();
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    assert_eq!(sent_arp(&mut network)[0].1.target_protocol, v4(254));
}

#[test]
fn destinations_without_a_route_are_refused() {
    let mut network = network(&config(1));
    for (local, remote, error) in [
        (None, "203.0.113.9", Error::NetworkUnreachable),
        (None, "2001:db8:9::1", Error::NetworkUnreachable),
        (None, "0.0.0.0", Error::InvalidArgument),
        (Some("192.0.2.77"), "192.0.2.2", Error::AddressNotAvailable),
        (Some("192.0.2.1"), "2001:db8::2", Error::InvalidArgument),
        (Some("127.0.0.1"), "192.0.2.2", Error::InvalidArgument),
    ] {
        let local = local.map(|text| text.parse().unwrap());
        assert_eq!(network.path(NOW, local, remote.parse().unwrap()), Err(error), "{local:?} {remote}");
    }
}

fn solicited_node() -> Ipv6Addr {
    crate::wire::ndp::solicited_node(v6(1))
}

/// The advertisement in a frame and to whom it went.
fn advertisement(frame: &Sent) -> (ethernet::Address, IpAddr, u8, NeighborMessage) {
    let (header, packet) = EthernetHeader::parse(&frame.bytes).unwrap();
    let ip = crate::wire::ipv6::Ipv6Header::parse(packet, packet.len()).unwrap();
    let message = NeighborMessage::parse(&packet[40..]).unwrap();
    (header.destination(), ip.destination().into(), ip.hop_limit(), message)
}

#[test]
fn solicitations_for_our_addresses_are_answered() {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let solicitation = |source| NeighborMessage::Solicitation { target: v6(1), source, nonce: None };
    for (name, source, option, to_hardware, to, solicited) in [
        ("with the sender's address", v6(2), Some(hardware(2)), hardware(2), v6(2), true),
        (
            "duplicate address detection",
            Ipv6Addr::UNSPECIFIED,
            None,
            [0x33, 0x33, 0, 0, 0, 1],
            all_nodes,
            false,
        ),
    ] {
        let mut network = network(&config(1));
        receive(&mut network, NOW, &neighbor_frame(source, solicited_node(), 255, solicitation(option)));
        let frames = take_frames(&mut network);
        assert_eq!(frames.len(), 1, "{name}");
        let flags = AdvertisementFlags { router: false, solicited, overriding: true };
        let message = NeighborMessage::Advertisement { flags, target: v6(1), hardware: Some(hardware(1)) };
        assert_eq!(advertisement(&frames[0]), (to_hardware, to.into(), 255, message), "{name}");
    }
}

#[test]
fn invalid_neighbour_messages_are_ignored() {
    let ask = |target, source| NeighborMessage::Solicitation { target, source, nonce: None };
    let tell = |solicited| NeighborMessage::Advertisement {
        flags: AdvertisementFlags { router: false, solicited, overriding: true },
        target: v6(2),
        hardware: Some(hardware(2)),
    };
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let nobody = Ipv6Addr::UNSPECIFIED;
    for (name, frame) in [
        ("forwarded", neighbor_frame(v6(2), v6(1), 254, ask(v6(1), Some(hardware(2))))),
        (
            "from nobody with an address",
            neighbor_frame(nobody, solicited_node(), 255, ask(v6(1), Some(hardware(2)))),
        ),
        ("from nobody to one host", neighbor_frame(nobody, v6(1), 255, ask(v6(1), None))),
        ("advertised to all as an answer", neighbor_frame(v6(2), all_nodes, 255, tell(true))),
        ("advertised after forwarding", neighbor_frame(v6(2), v6(1), 254, tell(true))),
    ] {
        let mut network = network(&config(1));
        let mut path = network.path(NOW, None, v6(2).into()).unwrap();
        send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
        network.frames().clear();
        receive(&mut network, NOW, &frame);
        assert_eq!(network.counters().icmp_in_errors, 1, "{name}");
        assert!(network.frames().is_empty(), "{name}");
    }
}

#[test]
fn a_fragmented_solicitation_is_ignored() {
    let frame = neighbor_frame(
        v6(2),
        v6(1),
        255,
        NeighborMessage::Solicitation { target: v6(1), source: Some(hardware(2)), nonce: None },
    );
    let (front, message) = frame.split_at(54);
    let mut fragmented = [front, &[58, 0, 0, 0, 0, 0, 0, 1], message].concat();
    fragmented[14 + 6] = 44;
    fragmented[14 + 5] += 8;
    let mut network = network(&config(1));
    receive(&mut network, NOW, &fragmented);
    assert_eq!(network.counters().icmp_in_errors, 1);
    assert!(network.frames().is_empty());
}

#[test]
fn two_hosts_find_each_other_by_either_protocol() {
    for (local, remote) in [(IpAddr::V4(v4(1)), IpAddr::V4(v4(2))), (v6(1).into(), v6(2).into())] {
        let (mut one, mut two) = (network(&config(1)), network(&config(2)));
        let mut path = one.path(NOW, None, remote).unwrap();
        assert_eq!(path.local, local);
        let mut data = buffer(&one, b"hello");
        send_udp(&mut one, NOW, &mut path, Payload::Whole(&mut data)).unwrap();
        let mut heard = Vec::new();
        exchange(NOW, [&mut one, &mut two], |host, _, ingress| {
            if let Ingress::Packet(packet) = ingress {
                heard.push((host, packet.source, packet.head[8..].to_vec()));
            }
        });
        assert_eq!(heard, [(1, local, b"hello".to_vec())]);
    }
}

#[test]
fn link_local_addresses_reach_each_other() {
    let (mut one, mut two) = (network(&config(1)), network(&config(2)));
    let remote = crate::wire::ndp::link_local(hardware(2));
    let mut path = one.path(NOW, None, remote.into()).unwrap();
    assert_eq!(path.local, IpAddr::V6(crate::wire::ndp::link_local(hardware(1))));
    send_udp(&mut one, NOW, &mut path, Payload::Empty).unwrap();
    let mut arrived = 0;
    exchange(NOW, [&mut one, &mut two], |_, _, ingress| {
        arrived += usize::from(matches!(ingress, Ingress::Packet(_)));
    });
    assert_eq!(arrived, 1);
}
