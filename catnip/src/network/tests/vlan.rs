//! Stacks in VLANs.

use std::net::IpAddr;

use libos::Instant;
use libos::runtime::{Medium, TxChecksum};

use crate::network::testing::*;
use crate::network::{Ingress, Network, Payload};
use crate::stack::StackConfig;
use crate::wire::vlan::VlanId;

const NOW: Instant = Instant::from_millis(1);

fn in_vlan(number: u8, vlan: u16) -> StackConfig {
    StackConfig { vlan: VlanId::new(vlan), ..config(number) }
}

/// The frame with a tag of these two bytes.
fn tagged(mut frame: Vec<u8>, control: [u8; 2]) -> Vec<u8> {
    frame.splice(12..12, [0x81, 0, control[0], control[1]]);
    frame
}

fn datagram(v6_family: bool) -> Vec<u8> {
    let (two, one): (IpAddr, IpAddr) =
        if v6_family { (v6(2).into(), v6(1).into()) } else { (v4(2).into(), v4(1).into()) };
    framed(&ip_packet(two, one, 17, &udp_datagram(two, one, (1, 2), b"data")))
}

#[test]
fn only_frames_of_the_own_vlan_are_received() {
    for (name, own, tags, taken) in [
        ("untagged without a VLAN", 0, &[][..], true),
        ("a priority without a VLAN", 0, &[[0xe0, 0]], true),
        ("tagged without a VLAN", 0, &[[0, 100]], false),
        ("untagged in a VLAN", 100, &[], false),
        ("a priority in a VLAN", 100, &[[0xe0, 0]], false),
        ("the own VLAN", 100, &[[0, 100]], true),
        ("the own VLAN with a priority", 100, &[[0xf0, 100]], true),
        ("another VLAN", 100, &[[0, 101]], false),
    ] {
        for v6_family in [false, true] {
            let mut network = network(&in_vlan(1, own));
            let frame = tags.iter().fold(datagram(v6_family), |frame, tag| tagged(frame, *tag));
            let ingress = receive(&mut network, NOW, &frame);
            assert_eq!(matches!(ingress, Ingress::Packet(_)), taken, "{name}");
            assert_eq!(network.counters().link_in_other_vlans, u64::from(!taken), "{name}");
        }
    }
    let mut network = network(&in_vlan(1, 100));
    assert!(matches!(
        receive(&mut network, NOW, &tagged(datagram(false), [0, 100])[..15]),
        Ingress::Consumed
    ));
    let twice = tagged(tagged(datagram(false), [0, 7]), [0, 100]);
    assert!(matches!(receive(&mut network, NOW, &twice), Ingress::Consumed));
    assert_eq!(network.counters().link_in_unknown_types, 1, "no tags within tags");
}

#[test]
fn everything_that_is_sent_is_tagged_and_no_longer_than_the_device_allows() {
    for checksum in [TxChecksum::Software, TxChecksum::Partial] {
        let two = StackConfig {
            device: libos::runtime::Capabilities { tx_checksum: checksum, ..device(2) },
            ..in_vlan(2, 100)
        };
        let (mut one, mut two) = (network(&in_vlan(1, 100)), network(&two));
        for remote in [IpAddr::V4(v4(1)), v6(1).into()] {
            let mut path = two.path(NOW, None, remote).unwrap();
            assert_eq!(path.mtu, 1496);
            // The first waits for the neighbour, the last is cut.
            for len in [10, 1400, 4000] {
                let mut payload = buffer(&two, &vec![7; len]);
                send_udp(&mut two, NOW, &mut path, Payload::Whole(&mut payload)).unwrap();
            }
            let mut arrived = Vec::new();
            for _ in 0..4 {
                arrived.extend(carry(&mut two, &mut one));
                carry(&mut one, &mut two);
            }
            arrived.sort_unstable();
            assert_eq!(arrived, [18, 1408, 4008], "{remote}");
        }
        assert_eq!(two.counters().ip_frag_oks, 2);
    }
}

/// Carries frames, each of which is tagged and not too long; returns the lengths of datagrams that arrived.
fn carry(from: &mut Network, to: &mut Network) -> Vec<usize> {
    let mut arrived = Vec::new();
    for mut frame in take_frames(from) {
        assert_eq!(frame.bytes[12..16], [0x81, 0, 0, 100]);
        assert!(frame.bytes.len() <= 1514, "{}", frame.bytes.len());
        if let Some(partial) = frame.offload.checksum() {
            // What the device would do.
            let start = usize::from(partial.start);
            let sum = crate::wire::checksum::of(&frame.bytes[start..]);
            let at = start + usize::from(partial.offset);
            frame.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ingress::Packet(packet) = receive(to, NOW, &frame.bytes) {
            arrived.push(packet.len());
        }
    }
    arrived
}

#[test]
fn a_neighbour_that_does_not_answer_is_reported_in_a_vlan_too() {
    let mut network = network(&in_vlan(1, 100));
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    for second in 0..10 {
        network.poll(Instant::from_millis(1_000 * second));
    }
    assert!(network.next_error().is_some_and(|error| error.remote.ip() == IpAddr::V4(v4(2))));
}

#[test]
fn what_has_no_frames_has_no_vlans() {
    let mut config = in_vlan(1, 100);
    config.device.medium = Medium::Ip;
    assert!(config.check().is_err());
}
