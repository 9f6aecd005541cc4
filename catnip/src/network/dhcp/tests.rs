//! The client against a server of a few lines, frame by frame over virtual time.

use std::net::{IpAddr, Ipv4Addr};

use libos::memory::ArenaConfig;
use libos::{Arena, Error, Instant};

use super::client::{Action, DhcpClient};
use crate::network::asking::Asking;
use crate::network::testing::*;
use crate::network::{AddressOrigin, AddressState, ConflictDetection, Ingress, Network};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::steering::{CoreShare, HashKey};
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::dhcp::tests::reply;
use crate::wire::dhcp::{CLIENT_PORT, SERVER_PORT, ServerMessage};
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::ipv4::Ipv4Header;

const OFFER: u8 = 2;
const ACK: u8 = 5;
const NAK: u8 = 6;
const DISCOVER: u8 = 1;
const REQUEST: u8 = 3;
const DECLINE: u8 = 4;
const RELEASE: u8 = 7;
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

fn started(mode: ConflictDetection) -> Network {
    let config = StackConfig { dhcp: true, conflict_detection: mode, ..StackConfig::new(device(1)) };
    let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
    Network::new(&config, arena, &mut Random::new(1), Instant::ZERO).unwrap()
}

/// What the client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    kind: u8,
    transaction: u32,
    from: Ipv4Addr,
    to: Ipv4Addr,
    client: Ipv4Addr,
    requested: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
    seconds: u8,
    flags: u8,
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn asked(frame: &Sent) -> Option<Asked> {
    let (header, packet) = EthernetHeader::parse(&frame.bytes)?;
    let ip = Ipv4Header::parse(packet, packet.len()).ok()?;
    if header.ether_type() != ethernet::TYPE_IPV4 || packet[20..24] != [0, 68, 0, 67] {
        return None;
    }
    let message = &packet[28..];
    let mut asked = Asked {
        kind: 0,
        transaction: u32::from_be_bytes(*message[4..].first_chunk().unwrap()),
        from: ip.source(),
        to: ip.destination(),
        client: address(&message[12..]),
        requested: None,
        server: None,
        seconds: message[9],
        flags: message[10],
    };
    let mut options = &message[240..];
    while options[0] != 255 {
        let (body, rest) = options[2..].split_at(usize::from(options[1]));
        match options[0] {
            50 => asked.requested = Some(address(body)),
            53 => asked.kind = body[0],
            54 => asked.server = Some(address(body)),
            _ => {}
        }
        options = rest;
    }
    Some(asked)
}

/// Lets time pass; the client's messages with their times in seconds.
fn run(network: &mut Network, until: Instant) -> Vec<(u64, Asked)> {
    let mut sent = Vec::new();
    while let Some(now) = network.next_deadline().filter(|now| *now <= until) {
        network.poll(now);
        let frames = take_frames(network);
        sent.extend(frames.iter().filter_map(asked).map(|asked| (now.as_nanos() / 1_000_000_000, asked)));
    }
    sent
}

/// The grant of host 77 for an hour by host 254, which is also the router.
fn grant(kind: u8) -> Vec<u8> {
    let mut options = vec![53, 1, kind, 54, 4, 192, 0, 2, 254, 1, 4, 255, 255, 255, 0];
    options.extend([3, 4, 192, 0, 2, 254, 26, 2, 5, 0x78, 51, 4, 0, 0, 14, 16]);
    options
}

/// A server's message in a frame to everybody.
fn answer_with(transaction: u32, yours: Ipv4Addr, options: &[u8]) -> Vec<u8> {
    let (source, destination) = (IpAddr::V4(v4(254)), IpAddr::V4(Ipv4Addr::BROADCAST));
    let data = reply(transaction, hardware(1), yours, options);
    let datagram = udp_datagram(source, destination, (SERVER_PORT, CLIENT_PORT), &data);
    framed_to(ethernet::BROADCAST, &ip_packet(source, destination, 17, &datagram))
}

/// Hands a server's message in; what the client sent in answer.
fn hand(network: &mut Network, now: Instant, frame: &[u8]) -> Vec<Asked> {
    let Ingress::Packet(packet) = receive(network, now, frame) else { panic!("a datagram") };
    assert!(network.receive_unclaimed_datagram(now, &packet));
    take_frames(network).iter().filter_map(asked).collect()
}

/// Up to the lease: discover, offer, request, acknowledgment.
fn bound(mode: ConflictDetection) -> (Network, u32) {
    let mut network = started(mode);
    let sent = run(&mut network, at(1));
    let transaction = sent[0].1.transaction;
    hand(&mut network, at(1), &answer_with(transaction, v4(77), &grant(OFFER)));
    hand(&mut network, at(1), &answer_with(transaction, v4(77), &grant(ACK)));
    (network, transaction)
}

#[test]
fn an_address_is_discovered_requested_and_used_with_what_goes_with_it() {
    let mut network = started(ConflictDetection::Off);
    let sent = run(&mut network, at(1));
    let discover = Asked {
        kind: DISCOVER,
        transaction: sent[0].1.transaction,
        from: NOBODY,
        to: Ipv4Addr::BROADCAST,
        client: NOBODY,
        requested: None,
        server: None,
        seconds: 0,
        flags: 0x80,
    };
    assert_eq!(sent, [(0, discover.clone())]);
    let request = hand(&mut network, at(1), &answer_with(discover.transaction, v4(77), &grant(OFFER)));
    let (requested, server) = (Some(v4(77)), Some(v4(254)));
    assert_eq!(request, [Asked { kind: REQUEST, requested, server, ..discover.clone() }]);
    assert!(network.dhcp_lease().is_none());
    assert_eq!(network.path(at(1), None, v4(9).into()), Err(Error::NetworkUnreachable));
    hand(&mut network, at(1), &answer_with(discover.transaction, v4(77), &grant(ACK)));
    let lease = network.dhcp_lease().unwrap();
    assert_eq!((lease.address.to_string(), lease.server), ("192.0.2.77/24".to_owned(), v4(254)));
    assert_eq!((lease.renew_at, lease.rebind_at, lease.expires_at), (at(1801), at(3151), at(3601)));
    let path = network.path(at(1), None, "203.0.113.1".parse().unwrap()).unwrap();
    assert_eq!((path.local, path.mtu), (v4(77).into(), 1400));
    let status = network.addresses().next().unwrap();
    assert_eq!((status.origin, status.state), (AddressOrigin::Leased, AddressState::Preferred));
    assert_eq!(network.dhcp_counters().unwrap().leases, 1);
}

#[test]
fn discovery_goes_on_ever_more_rarely() {
    let mut network = started(ConflictDetection::Off);
    let times: Vec<u64> = run(&mut network, at(400)).iter().map(|(seconds, _)| *seconds).collect();
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, expected) in gaps.iter().zip([4, 8, 16, 32, 64, 64, 64]) {
        assert!(gap.abs_diff(expected) <= 2, "{gaps:?}");
    }
    assert!(gaps.len() >= 7);
}

#[test]
fn an_offer_whose_server_says_no_more_is_given_up_for_another() {
    let mut network = started(ConflictDetection::Off);
    let transaction = run(&mut network, at(1))[0].1.transaction;
    hand(&mut network, at(1), &answer_with(transaction, v4(77), &grant(OFFER)));
    let kinds: Vec<u8> = run(&mut network, at(100)).iter().map(|(_, asked)| asked.kind).collect();
    assert_eq!(kinds[..4], [REQUEST, REQUEST, REQUEST, DISCOVER]);
}

#[test]
fn a_request_says_as_much_time_as_the_question_that_was_answered() {
    let mut network = started(ConflictDetection::Off);
    let asked = run(&mut network, at(14));
    let last = asked.last().unwrap().1.clone();
    assert!(last.kind == DISCOVER && last.seconds >= 9, "{asked:?}");
    // The offer takes its time, and so does the agreement.
    let first = hand(&mut network, at(19), &answer_with(last.transaction, v4(77), &grant(OFFER)));
    assert_eq!((first[0].kind, first[0].seconds), (REQUEST, last.seconds));
    let again = run(&mut network, at(40));
    assert!(again.len() >= 2);
    assert!(
        again.iter().all(|(_, again)| (again.kind, again.seconds) == (REQUEST, last.seconds)),
        "{again:?}"
    );
}

#[test]
fn hosts_whose_leases_began_together_do_not_renew_them_together() {
    let renewals = (0..20).map(|seed| {
        let mut client = DhcpClient::new(hardware(1), 1_500, Asking::First, Random::new(seed), Instant::ZERO);
        let now = client.next_deadline();
        let Some(Action::Send(discover, _)) = client.next_action(now) else { panic!("a question") };
        for kind in [OFFER, ACK] {
            let answer = reply(discover.transaction, hardware(1), v4(77), &grant(kind));
            client.on_message(now, &ServerMessage::parse(&answer).unwrap());
        }
        client.next_deadline().nanos_since(now) / 1_000_000_000
    });
    let mut renewals: Vec<u64> = renewals.collect();
    renewals.sort_unstable();
    // Half of an hour, and a sixteenth of that less at most.
    assert!((1_687..=1_800).contains(&renewals[0]) && renewals[19] <= 1_800, "{renewals:?}");
    renewals.dedup();
    assert!(renewals.len() >= 10, "{renewals:?}");
}

#[test]
fn a_lease_of_seconds_is_used_and_renewed_no_more_than_it_asks_for() {
    let mut network = started(ConflictDetection::Off);
    let transaction = run(&mut network, at(1))[0].1.transaction;
    let brief = |kind| {
        let mut options = grant(kind);
        let end = options.len();
        options[end - 4..].copy_from_slice(&[0, 0, 0, 10]);
        options
    };
    hand(&mut network, at(1), &answer_with(transaction, v4(77), &brief(OFFER)));
    hand(&mut network, at(1), &answer_with(transaction, v4(77), &brief(ACK)));
    let asked = run(&mut network, at(12));
    let requests = asked.iter().filter(|(_, asked)| asked.kind == REQUEST).count();
    assert!((1..=3).contains(&requests), "{asked:?}");
    assert!(!network.is_local(v4(77).into()), "nobody prolonged it");
}

#[test]
fn a_lease_is_renewed_at_the_server_then_anywhere_then_lost() {
    let (mut network, _) = bound(ConflictDetection::Off);
    // The server is a neighbour, so that what is sent to it does not wait.
    let claim = ArpPacket {
        operation: Operation::Request,
        sender_hardware: hardware(2),
        sender_protocol: v4(254),
        target_hardware: [0; 6],
        target_protocol: v4(77),
    };
    receive(&mut network, at(2), &claim.compose_frame(ethernet::BROADCAST));
    let sent = run(&mut network, at(1801));
    let renew = sent.last().unwrap().1.clone();
    assert_eq!(
        (renew.kind, renew.from, renew.to, renew.client, renew.requested, renew.server),
        (REQUEST, v4(77), v4(254), v4(77), None, None)
    );
    hand(&mut network, at(1802), &answer_with(renew.transaction, v4(77), &grant(ACK)));
    assert_eq!(network.dhcp_lease().unwrap().expires_at, at(5402));
    assert_eq!(network.dhcp_counters().unwrap().renewals, 1);

    // From then on nobody answers.
    receive(&mut network, at(3600), &claim.compose_frame(ethernet::BROADCAST));
    let sent = run(&mut network, at(5401));
    let rebinding = sent.iter().position(|(_, asked)| asked.to == Ipv4Addr::BROADCAST).unwrap();
    assert_eq!(sent[rebinding].0, 1802 + 3150);
    assert!(sent.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 59), "{sent:?}");
    assert!(network.is_local(v4(77).into()));
    let sent = run(&mut network, at(5402));
    assert_eq!(sent.last().unwrap().1.kind, DISCOVER);
    assert!(!network.is_local(v4(77).into()) && network.dhcp_lease().is_none());
    assert_eq!(network.path(at(5402), None, v4(9).into()), Err(Error::NetworkUnreachable));
    assert_eq!(network.dhcp_counters().unwrap().expirations, 1);
}

#[test]
fn a_refusal_ends_a_lease_and_starts_again_ever_more_slowly() {
    let (mut network, _) = bound(ConflictDetection::Off);
    let refusal = [53, 1, NAK, 54, 4, 192, 0, 2, 254];
    let sent = run(&mut network, at(3151));
    hand(&mut network, at(3152), &answer_with(sent.last().unwrap().1.transaction, NOBODY, &refusal));
    assert!(!network.is_local(v4(77).into()));
    let mut now = 3152;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let (seconds, discover) = loop {
            now += 1;
            if let Some(discover) = run(&mut network, at(now)).pop() {
                break discover;
            }
        };
        waits.push(seconds);
        hand(&mut network, at(now), &answer_with(discover.transaction, v4(77), &grant(OFFER)));
        hand(&mut network, at(now), &answer_with(discover.transaction, NOBODY, &refusal));
    }
    let gaps: Vec<u64> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted() && gaps[0] <= 3 && gaps[6] >= 64, "{gaps:?}");
}

#[test]
fn an_address_in_use_is_declined_and_another_looked_for_later() {
    let (mut network, _) = bound(ConflictDetection::Defend);
    run(&mut network, at(2));
    assert_eq!(network.addresses().next().unwrap().state, AddressState::Tentative);
    let claim = ArpPacket {
        operation: Operation::Reply,
        sender_hardware: hardware(2),
        sender_protocol: v4(77),
        target_hardware: hardware(1),
        target_protocol: NOBODY,
    };
    receive(&mut network, at(2), &claim.compose_frame(hardware(1)));
    let sent: Vec<Asked> = take_frames(&mut network).iter().filter_map(asked).collect();
    assert_eq!((sent[0].kind, sent[0].requested, sent[0].server), (DECLINE, Some(v4(77)), Some(v4(254))));
    assert_eq!((sent[0].seconds, sent[0].flags), (0, 0));
    assert_eq!(network.addresses().count(), 0);
    let sent = run(&mut network, at(13));
    assert_eq!((sent[0].0, sent[0].1.kind), (12, DISCOVER));
    assert_ne!(sent[0].1.transaction, 0);
}

#[test]
fn a_leased_address_is_probed_before_it_is_used() {
    let (mut network, _) = bound(ConflictDetection::Defend);
    run(&mut network, at(2));
    assert!(!network.is_local(v4(77).into()));
    run(&mut network, at(10));
    assert!(network.is_local(v4(77).into()));
}

#[test]
fn messages_that_are_not_for_us_or_make_no_sense_are_counted_and_ignored() {
    let (mut bare, transaction) = {
        let mut network = started(ConflictDetection::Off);
        let transaction = run(&mut network, at(1))[0].1.transaction;
        (network, transaction)
    };
    let offer = answer_with(transaction, v4(77), &grant(OFFER));
    let mut others = offer.clone();
    others[14 + 28 + 33] ^= 1;
    others[14 + 20 + 6..14 + 20 + 8].fill(0);
    for (name, frame) in [
        ("another transaction", answer_with(transaction ^ 1, v4(77), &grant(OFFER))),
        ("another client", others),
        ("out of place", answer_with(transaction, v4(77), &grant(ACK))),
        ("no address", answer_with(transaction, NOBODY, &grant(OFFER))),
        ("no options", answer_with(transaction, v4(77), &[])),
        ("cut options", answer_with(transaction, v4(77), &[53, 9, 2])),
    ] {
        let before = bare.dhcp_counters().unwrap().messages_ignored;
        assert_eq!(hand(&mut bare, at(1), &frame), [], "{name}");
        assert_eq!(bare.dhcp_counters().unwrap().messages_ignored, before + 1, "{name}");
    }
    assert_eq!(hand(&mut bare, at(1), &offer).len(), 1);
}

#[test]
fn a_flood_of_offers_is_answered_once() {
    let mut network = started(ConflictDetection::Off);
    let transaction = run(&mut network, at(1))[0].1.transaction;
    let answers: usize = (0..1000)
        .map(|_| hand(&mut network, at(1), &answer_with(transaction, v4(77), &grant(OFFER))).len())
        .sum();
    assert_eq!(answers, 1);
}

#[test]
fn a_lease_is_given_back_and_no_other_asked_for() {
    let (mut network, _) = bound(ConflictDetection::Off);
    let claim = ArpPacket {
        operation: Operation::Request,
        sender_hardware: hardware(2),
        sender_protocol: v4(254),
        target_hardware: [0; 6],
        target_protocol: v4(77),
    };
    receive(&mut network, at(2), &claim.compose_frame(ethernet::BROADCAST));
    network.frames().clear();
    network.release_dhcp_lease(at(3));
    let sent: Vec<Asked> = take_frames(&mut network).iter().filter_map(asked).collect();
    assert_eq!((sent[0].kind, sent[0].to, sent[0].client), (RELEASE, v4(254), v4(77)));
    assert_eq!((sent[0].seconds, sent[0].flags), (0, 0));
    assert!(!network.is_local(v4(77).into()));
    assert_eq!(run(&mut network, at(10_000)), []);
}

/// Core 1 of two, to which steering gives what core 0 is answered.
fn second_core() -> Network {
    let share = CoreShare::split(2, HashKey::SYMMETRIC).pop();
    let conflict_detection = ConflictDetection::Off;
    let config = StackConfig { dhcp: true, share, conflict_detection, ..StackConfig::new(device(1)) };
    let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
    Network::new(&config, arena, &mut Random::new(1), Instant::ZERO).unwrap()
}

#[test]
fn of_several_cores_the_others_learn_what_the_first_was_granted_and_ask_nobody() {
    let mut network = second_core();
    assert_eq!(run(&mut network, at(10)), []);
    assert_eq!(hand(&mut network, at(10), &answer_with(9, v4(77), &grant(OFFER))), []);
    assert!(!network.is_local(v4(77).into()));
    hand(&mut network, at(10), &answer_with(9, v4(77), &grant(ACK)));
    assert!(network.is_local(v4(77).into()));
    // Each renewal has a transaction of its own.
    for renewal in 1..5 {
        let now = 10 + renewal * 1800;
        assert_eq!(run(&mut network, at(now)), []);
        hand(&mut network, at(now), &answer_with(100 + renewal as u32, v4(77), &grant(ACK)));
    }
    // Another address takes the first one's place.
    hand(&mut network, at(8000), &answer_with(200, v4(78), &grant(ACK)));
    assert_eq!(run(&mut network, at(8001)), []);
    assert_eq!((network.is_local(v4(77).into()), network.is_local(v4(78).into())), (false, true));
    hand(&mut network, at(8100), &answer_with(201, NOBODY, &grant(NAK)));
    assert!(!network.is_local(v4(78).into()));
    // Giving it back is left to the first too.
    hand(&mut network, at(8101), &answer_with(202, v4(79), &grant(ACK)));
    network.release_dhcp_lease(at(8102));
    assert!(!network.is_local(v4(79).into()));
    assert_eq!(run(&mut network, at(20_000)), []);
}

#[test]
fn when_the_first_core_is_not_heard_the_others_ask() {
    let mut network = second_core();
    let sent = run(&mut network, at(16));
    assert_eq!(sent.iter().map(|(_, asked)| asked.kind).collect::<Vec<_>>(), [DISCOVER]);
    assert!(sent[0].0 >= 15, "{sent:?}");
    let transaction = sent[0].1.transaction;
    hand(&mut network, at(16), &answer_with(transaction, v4(77), &grant(OFFER)));
    hand(&mut network, at(16), &answer_with(transaction, v4(77), &grant(ACK)));
    assert!(network.is_local(v4(77).into()));
    // Seven eighths of the lease without a renewal (RFC 2131 section 4.4.5).
    let sent = run(&mut network, at(16 + 3200));
    assert_eq!((sent[0].0, sent[0].1.kind, sent[0].1.to), (16 + 3150, REQUEST, Ipv4Addr::BROADCAST));
}

#[test]
fn without_a_client_datagrams_to_its_port_are_nobodys() {
    let mut network = network(&config(1));
    assert!(!network.is_reserved_udp_port(CLIENT_PORT));
    let frame = answer_with(1, v4(77), &grant(OFFER));
    let Ingress::Packet(packet) = receive(&mut network, at(1), &frame) else { panic!("a datagram") };
    assert!(!network.receive_unclaimed_datagram(at(1), &packet));
}
