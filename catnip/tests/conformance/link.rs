//! Who answers for an address on an Ethernet: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861, section 7).

use std::net::{IpAddr, SocketAddr};

use crate::host::{Host, MAC, PEER_PORT, PORT, Peer};
use crate::wire::{FAMILIES, Family, ICMPV6, Packet, SYN, octets, seal, udp, v6};

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const EVERYBODY: [u8; 6] = [0xff; 6];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const ARP: u16 = 0x806;
const US: [u8; 4] = [192, 0, 2, 1];
const THEM: [u8; 4] = [192, 0, 2, 2];

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

fn arp(operation: u8, sender: ([u8; 6], [u8; 4]), target: ([u8; 6], [u8; 4])) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, operation];
    [&fixed[..], &sender.0, &sender.1, &target.0, &target.1].concat()
}

#[test]
fn a_request_for_our_address_is_answered_to_who_asked() {
    let mut host = Host::on_ethernet("");
    let request = arp(1, (PEER_MAC, THEM), ([0; 6], US));
    let answer = frame(PEER_MAC, MAC, ARP, &arp(2, (MAC, US), (PEER_MAC, THEM)));
    let padded = [&request[..], &[0; 18]].concat();
    for (name, to, body) in
        [("as usual", EVERYBODY, &request), ("padded", EVERYBODY, &padded), ("to us", MAC, &request)]
    {
        assert_eq!(host.ask_frame(&frame(to, PEER_MAC, ARP, body)), std::slice::from_ref(&answer), "{name}");
    }
    // RFC 5227, section 2.1.1: a probe has no sender, and is answered as well.
    let probe = arp(1, (PEER_MAC, [0; 4]), ([0; 6], US));
    assert_eq!(host.ask_frame(&frame(EVERYBODY, PEER_MAC, ARP, &probe)).len(), 1);
}

#[test]
fn requests_that_cannot_be_and_those_for_others_are_not_answered() {
    let mut host = Host::on_ethernet("");
    let request = arp(1, (PEER_MAC, THEM), ([0; 6], US));
    for (name, at, value) in [
        ("another kind of hardware", 0, 9),
        ("another protocol", 2, 9),
        ("longer hardware addresses", 4, 7),
        ("longer addresses", 5, 6),
        ("no operation", 7, 0),
        ("an unknown operation", 7, 3),
        ("for another host", 27, 3),
        ("from a hardware group", 8, 1),
        ("from a group", 14, 224),
        ("from the broadcast address", 17, 255),
    ] {
        let mut body = request.clone();
        body[at] = value;
        assert_eq!(host.ask_frame(&frame(EVERYBODY, PEER_MAC, ARP, &body)).len(), 0, "{name}");
    }
    for len in 0..request.len() {
        assert_eq!(host.ask_frame(&frame(EVERYBODY, PEER_MAC, ARP, &request[..len])).len(), 0, "{len} bytes");
    }
    let to_another = frame([2, 9, 9, 9, 9, 9], PEER_MAC, ARP, &request);
    assert_eq!(host.ask_frame(&to_another).len(), 0, "a frame for another");
}

/// A frame with a neighbour discovery message; its checksum is right.
fn discovery(source: &str, destination: &str, hop_limit: u8, head: [u8; 2], rest: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut message = [&head[..], &[0; 2], rest].concat();
    seal(source, destination, ICMPV6, &mut message, 2);
    let to = match octets(destination)[..] {
        [0xff, .., a, b, c, d] => [0x33, 0x33, a, b, c, d],
        _ => MAC,
    };
    frame(to, PEER_MAC, 0x86dd, &v6(source, destination, ICMPV6, hop_limit, &message))
}

#[test]
fn solicitations_are_answered_when_they_are_valid() {
    let (us, peer, group) = ("2001:db8::1", "2001:db8::2", "ff02::1:ff00:1");
    let target = |address: &str| [vec![0; 4], octets(address.parse().unwrap())].concat();
    let with = |option: &[u8]| [&target(us)[..], option].concat();
    let source_address = [1, 1, 2, 0, 0, 0, 0, 2];
    let full = with(&source_address);
    let unknown = [&full[..], &[99, 1, 0, 0, 0, 0, 0, 0]].concat();
    let no_length = with(&[1, 0, 2, 0, 0, 0, 0, 2]);
    let too_long = with(&[1, 2, 2, 0, 0, 0, 0, 2]);
    let (bare, other, to_group) = (target(us), target("2001:db8::55"), target("ff02::1"));
    let solicitation = [135, 0];
    let (solicited, unsolicited) = (Some((peer, 0x60)), Some(("ff02::1", 0x20)));
    // The first one tells where the peer is, to whom the others are answered. RFC 4861, sections 7.1.1 and 7.2.4.
    let mut host = Host::on_ethernet("");
    for (name, packet, answer) in [
        ("as usual", discovery(peer, group, 255, solicitation, &full), solicited),
        ("to our address", discovery(peer, us, 255, solicitation, &bare), solicited),
        ("with an unknown option", discovery(peer, group, 255, solicitation, &unknown), solicited),
        ("to detect a duplicate", discovery("::", group, 255, solicitation, &bare), unsolicited),
        ("from beyond the link", discovery(peer, group, 254, solicitation, &full), None),
        ("with a code", discovery(peer, group, 255, [135, 1], &full), None),
        ("too short", discovery(peer, group, 255, solicitation, &bare[..19]), None),
        ("for a group", discovery(peer, group, 255, solicitation, &to_group), None),
        ("for another", discovery(peer, group, 255, solicitation, &other), None),
        ("with an option of no length", discovery(peer, group, 255, solicitation, &no_length), None),
        ("with an option that runs over", discovery(peer, group, 255, solicitation, &too_long), None),
        ("from nobody who has an address", discovery("::", group, 255, solicitation, &full), None),
        ("from nobody to our address", discovery("::", us, 255, solicitation, &bare), None),
        ("from nobody to all", discovery("::", "ff02::1", 255, solicitation, &bare), None),
        ("from a group", discovery("ff02::1", group, 255, solicitation, &full), None),
    ] {
        let answers = host.ask_frame(&packet);
        assert_eq!(answers.len(), usize::from(answer.is_some()), "{name}");
        for (frame, (destination, flags)) in answers.iter().zip(answer) {
            let sent = Packet::parse(0, &frame[14..]);
            assert_eq!(
                (sent.source.to_string(), sent.destination.to_string()),
                (us.into(), destination.into())
            );
            assert_eq!((sent.ttl, sent.body[0], sent.body[4]), (255, 136, flags), "{name}");
            assert_eq!(sent.body[8..24], target(us)[4..], "{name}");
            assert_eq!(sent.body[24..], [2, 1, 2, 0, 0, 0, 0, 1], "{name}: our hardware address");
        }
    }
}

#[test]
fn what_is_for_one_host_is_not_taken_out_of_a_frame_for_all() {
    for family in FAMILIES {
        let mut host = Host::on_ethernet("");
        let socket = host.stack.udp_bind(SocketAddr::new(family.stack(), PORT)).unwrap();
        let (to, kind) = if family == Family::V4 { (EVERYBODY, 0x800) } else { (ALL_NODES, 0x86dd) };
        let peer = Peer::new(family);
        let to_port = |port| udp(family.peer(), family.stack(), (PEER_PORT, port), b"data");
        for packet in [to_port(PORT), to_port(PORT + 1), peer.packet(&peer.segment(SYN, 0, 0, b""))] {
            assert_eq!(host.ask_frame(&frame(to, PEER_MAC, kind, &packet)).len(), 0, "{family:?}");
        }
        assert!(!host.stack.udp_is_readable(socket), "{family:?}");
        host.inject(&frame(MAC, PEER_MAC, kind, &to_port(PORT)));
        assert!(host.stack.udp_is_readable(socket), "{family:?}");
    }
}
