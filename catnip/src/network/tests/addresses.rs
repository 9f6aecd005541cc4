//! Our addresses over time as the link sees them: probes, announcements, conflicts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::memory::ArenaConfig;
use libos::{Arena, Instant};

use crate::network::testing::*;
use crate::network::{AddressOrigin, AddressState, ConflictDetection, Network};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::ipv6::next_header;
use crate::wire::ndp::{AdvertisementFlags, NeighborMessage, solicited_node};

const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn started(config: &StackConfig) -> Network {
    let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
    Network::new(config, arena, &mut Random::new(1), Instant::ZERO).unwrap()
}

fn v4_config(mode: ConflictDetection) -> StackConfig {
    let address = format!("{}/24", v4(1)).parse().unwrap();
    StackConfig { conflict_detection: mode, ..StackConfig::new(device(1)).with_address(address) }
}

fn v6_config(mode: ConflictDetection) -> StackConfig {
    let address = format!("{}/64", v6(1)).parse().unwrap();
    let config =
        StackConfig { conflict_detection: mode, ..StackConfig::new(device(1)).with_address(address) };
    StackConfig { link_local: false, ..config }
}

/// Lets time pass and tells what was sent when, in milliseconds; reports of groups apart.
fn run(network: &mut Network, until_ms: u64) -> Vec<(u64, Sent)> {
    let mut sent: Vec<_> = take_frames(network).into_iter().map(|frame| (0, frame)).collect();
    while let Some(now) = network.next_deadline().filter(|now| *now <= Instant::from_millis(until_ms)) {
        network.poll(now);
        let frames = take_frames(network);
        sent.extend(frames.into_iter().map(|frame| (now.as_nanos() / 1_000_000, frame)));
    }
    sent.retain(|(_, frame)| !is_group_report(frame));
    sent
}

fn is_group_report(frame: &Sent) -> bool {
    let (header, packet) = EthernetHeader::parse(&frame.bytes).unwrap();
    header.ether_type() == ethernet::TYPE_IPV6 && packet[6] == next_header::HOP_BY_HOP
}

fn arp_of(frame: &Sent) -> ArpPacket {
    let (header, body) = EthernetHeader::parse(&frame.bytes).unwrap();
    assert_eq!(header.destination(), ethernet::BROADCAST);
    ArpPacket::parse(body).unwrap()
}

fn state(network: &Network, address: IpAddr) -> AddressState {
    network.addresses().find(|status| status.prefix.address == address).unwrap().state
}

fn arp(operation: Operation, hardware: ethernet::Address, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = ArpPacket {
        operation,
        sender_hardware: hardware,
        sender_protocol: sender,
        target_hardware: [0; 6],
        target_protocol: target,
    };
    packet.compose_frame(ethernet::BROADCAST).to_vec()
}

#[test]
fn an_ipv4_address_is_probed_three_times_then_used_and_announced_twice() {
    let mut network = started(&v4_config(ConflictDetection::Probe));
    let sent = run(&mut network, 20_000);
    let senders: Vec<_> = sent.iter().map(|(_, frame)| arp_of(frame).sender_protocol).collect();
    assert_eq!(senders, [NOBODY, NOBODY, NOBODY, v4(1), v4(1)]);
    assert!(sent.iter().all(|(_, frame)| arp_of(frame).target_protocol == v4(1)));
    let gaps: Vec<u64> = sent.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(sent[0].0 <= 1000);
    assert!((1000..=2000).contains(&gaps[0]) && (1000..=2000).contains(&gaps[1]), "{gaps:?}");
    assert!((1999..=2001).contains(&gaps[2]) && (1999..=2001).contains(&gaps[3]), "{gaps:?}");
    assert_eq!(state(&network, v4(1).into()), AddressState::Preferred);
    assert!(network.is_local(v4(1).into()));
}

#[test]
fn a_tentative_address_is_neither_used_nor_answered_for() {
    let mut network = started(&v4_config(ConflictDetection::Probe));
    run(&mut network, 1_000);
    assert_eq!(state(&network, v4(1).into()), AddressState::Tentative);
    assert!(!network.is_local(v4(1).into()));
    let now = Instant::from_millis(1_000);
    receive(&mut network, now, &arp(Operation::Request, hardware(2), v4(2), v4(1)));
    assert!(network.frames().is_empty());
    assert_eq!(network.counters().address_conflicts, 0);
}

#[test]
fn who_uses_or_wants_a_tentative_ipv4_address_keeps_it() {
    for (name, frame, duplicate) in [
        ("a claim", arp(Operation::Reply, hardware(2), v4(1), v4(9)), true),
        ("a probe", arp(Operation::Request, hardware(2), NOBODY, v4(1)), true),
        ("our own probe", arp(Operation::Request, hardware(1), NOBODY, v4(1)), false),
        ("a probe for another", arp(Operation::Request, hardware(2), NOBODY, v4(9)), false),
    ] {
        let mut network = started(&v4_config(ConflictDetection::Probe));
        run(&mut network, 2_000);
        receive(&mut network, Instant::from_millis(2_000), &frame);
        run(&mut network, 20_000);
        assert_eq!(network.is_local(v4(1).into()), !duplicate, "{name}");
        assert_eq!(network.counters().address_duplicates, u64::from(duplicate), "{name}");
        // Whoever had it may be gone by and by.
        run(&mut network, 90_000);
        assert!(network.is_local(v4(1).into()), "{name}");
    }
}

#[test]
fn an_address_is_defended_but_not_all_the_time() {
    let mut network = started(&v4_config(ConflictDetection::Defend));
    assert!(network.is_local(v4(1).into()));
    assert_eq!(run(&mut network, 20_000).len(), 2);
    let claim = arp(Operation::Request, hardware(2), v4(1), v4(1));
    for (at_ms, answers) in [(20_000, 1), (21_000, 0), (29_000, 0), (30_001, 1), (39_000, 0)] {
        receive(&mut network, Instant::from_millis(at_ms), &claim);
        let frames = take_frames(&mut network);
        assert_eq!(frames.len(), answers, "{at_ms}");
        assert!(frames.iter().all(|frame| arp_of(frame).sender_protocol == v4(1)));
    }
    assert_eq!(network.counters().address_conflicts, 5);
    assert_eq!(state(&network, v4(1).into()), AddressState::Preferred);
}

#[test]
fn without_conflict_detection_addresses_are_announced_once_and_claims_only_counted() {
    let mut network = started(&v4_config(ConflictDetection::Off));
    assert_eq!(run(&mut network, 20_000).len(), 1);
    let claim = arp(Operation::Request, hardware(2), v4(1), v4(1));
    receive(&mut network, Instant::from_millis(20_000), &claim);
    assert!(network.frames().is_empty());
    assert_eq!(network.counters().address_conflicts, 1);
}

/// The message, and where it came from and went to.
fn message(frame: &Sent) -> (Ipv6Addr, Ipv6Addr, NeighborMessage) {
    let (_, packet) = EthernetHeader::parse(&frame.bytes).unwrap();
    let ip = crate::wire::ipv6::Ipv6Header::parse(packet, packet.len()).unwrap();
    assert_eq!(ip.hop_limit(), 255);
    (ip.source(), ip.destination(), NeighborMessage::parse(&packet[40..]).unwrap())
}

#[test]
fn an_ipv6_address_is_asked_for_once_and_used_a_second_later() {
    let mut network = started(&v6_config(ConflictDetection::Probe));
    let sent = run(&mut network, 5_000);
    let (source, destination, question) = message(&sent[0].1);
    assert_eq!((source, destination), (Ipv6Addr::UNSPECIFIED, solicited_node(v6(1))));
    let NeighborMessage::Solicitation { target, source, nonce } = question else { panic!("{question:?}") };
    assert_eq!((target, source), (v6(1), None));
    assert!(nonce.is_some());
    let (source, _, announcement) = message(&sent[1].1);
    assert_eq!(source, v6(1));
    assert!(matches!(announcement, NeighborMessage::Advertisement { .. }));
    assert!((999..=1001).contains(&(sent[1].0 - sent[0].0)));
    assert_eq!(sent.len(), 2);
    assert!(network.is_local(v6(1).into()));
}

#[test]
fn who_uses_or_wants_a_tentative_ipv6_address_keeps_it() {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let ask = |nonce| NeighborMessage::Solicitation { target: v6(1), source: None, nonce };
    let resolve = NeighborMessage::Solicitation { target: v6(1), source: Some(hardware(2)), nonce: None };
    let flags = AdvertisementFlags::default();
    let tell = NeighborMessage::Advertisement { flags, target: v6(1), hardware: Some(hardware(2)) };
    let group = solicited_node(v6(1));
    let mut probe = started(&v6_config(ConflictDetection::Probe));
    let (_, _, own) = message(&run(&mut probe, 1_000)[0].1);
    for (name, source, destination, message, duplicate) in [
        ("another's probe", nobody, group, ask(None), true),
        ("another's marked probe", nobody, group, ask(Some([9; 6])), true),
        ("our own probe", nobody, group, own, false),
        ("an advertisement", v6(1), all_nodes, tell, true),
        ("address resolution", v6(2), group, resolve, false),
    ] {
        let mut network = started(&v6_config(ConflictDetection::Probe));
        run(&mut network, 1_000);
        assert_eq!(state(&network, v6(1).into()), AddressState::Tentative, "{name}");
        let frame = neighbor_frame(source, destination, 255, message);
        receive(&mut network, Instant::from_millis(1_000), &frame);
        take_frames(&mut network).iter().for_each(|frame| assert!(is_group_report(frame), "{name}"));
        assert!(network.frames().is_empty(), "{name}");
        run(&mut network, 100_000);
        assert_eq!(network.is_local(v6(1).into()), !duplicate, "{name}");
        let expected = if duplicate { AddressState::Duplicate } else { AddressState::Preferred };
        assert_eq!(state(&network, v6(1).into()), expected, "{name}");
    }
}

#[test]
fn the_addresses_tell_where_they_come_from() {
    let network = network(&config(1));
    let origins: Vec<_> = network.addresses().map(|status| status.origin).collect();
    assert_eq!(origins, [AddressOrigin::Static, AddressOrigin::Static, AddressOrigin::LinkLocal]);
    assert!(network.addresses().all(|status| status.valid_until == Instant::FAR_FUTURE));
}
