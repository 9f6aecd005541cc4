//! Groups: what is received, and what routers are told and when.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::{Error, Instant};

use super::table::{MAX_GROUPS, MAX_REPORT_GROUPS};
use crate::network::interface::group_hardware;
use crate::network::testing::*;
use crate::network::{DestinationKind, Ingress, Network};
use crate::wire::checksum::{self, Checksum};

const NOW: Instant = Instant::from_millis(1);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3);

/// A network whose reports about its own addresses are done.
pub(super) fn quiet_network() -> Network {
    let mut network = network(&config(1));
    settle(&mut network, NOW);
    network.frames().clear();
    network
}

/// Lets all reports go out that are due within two seconds; returns the time then.
pub(super) fn settle(network: &mut Network, mut now: Instant) -> Instant {
    for _ in 0..40 {
        now = now.plus_nanos(50_000_000);
        network.poll(now);
    }
    now
}

/// The membership messages that were sent: destination, and the message behind all headers.
pub(super) fn reports(network: &mut Network) -> Vec<(IpAddr, Vec<u8>)> {
    take_frames(network)
        .iter()
        .filter_map(|frame| {
            let packet = &frame.bytes[14..];
            let (destination, message) = match packet[0] {
                0x46 if packet[9] == 2 => {
                    assert_eq!((packet[8], &packet[20..24]), (1, &[0x94, 4, 0, 0][..]), "TTL and option");
                    assert_eq!(checksum::of(&packet[..24]), 0);
                    assert_eq!(checksum::of(&packet[24..]), 0);
                    (IpAddr::from(*packet[16..].first_chunk::<4>().unwrap()), &packet[24..])
                }
                0x60 if packet[6] == 0 => {
                    assert_eq!((packet[7], &packet[40..48]), (1, &[58, 0, 5, 2, 0, 0, 1, 0][..]));
                    let octets = |at: usize| IpAddr::from(*packet[at..].first_chunk::<16>().unwrap());
                    let (source, destination) = (octets(8), octets(24));
                    assert_eq!(source, "fe80::ff:fe00:1".parse::<IpAddr>().unwrap());
                    let mut sum = Checksum::pseudo_header(source, destination, 58, packet.len() - 48);
                    sum.add_bytes(&packet[48..]);
                    assert!(sum.is_right());
                    (destination, &packet[48..])
                }
                _ => return None,
            };
            assert_eq!(frame.bytes[..6], group_hardware(destination));
            Some((destination, message.to_vec()))
        })
        .collect()
}

/// A version 3 or version 2 report of one record.
fn record(kind: u8, group: IpAddr) -> (IpAddr, Vec<u8>) {
    match group {
        IpAddr::V4(group) => {
            let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0];
            message.extend(group.octets());
            let sum = checksum::of(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
            (Ipv4Addr::new(224, 0, 0, 22).into(), message)
        }
        IpAddr::V6(group) => {
            let mut message = vec![143, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0];
            message.extend(group.octets());
            (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16).into(), message)
        }
    }
}

/// Leaves out the checksum of ICMPv6, which depends on the addresses and was checked.
fn comparable(mut reports: Vec<(IpAddr, Vec<u8>)>) -> Vec<(IpAddr, Vec<u8>)> {
    for (destination, message) in &mut reports {
        if destination.is_ipv6() {
            message[2..4].fill(0);
        }
    }
    reports
}

pub(super) fn igmp_query(code: u8, group: Ipv4Addr, tail: &[u8]) -> Vec<u8> {
    let mut message = vec![0x11, code, 0, 0];
    message.extend(group.octets());
    message.extend(tail);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let to = if group.is_unspecified() { Ipv4Addr::new(224, 0, 0, 1) } else { group };
    let packet = with_header_byte(ip_packet(v4(2).into(), to.into(), 2, &message), 8, 1);
    framed_to(group_hardware(to.into()), &packet)
}

pub(super) fn mld_message(kind: u8, code: u16, group: Ipv6Addr, tail: &[u8]) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    let mut body = vec![high, low, 0, 0];
    body.extend(group.octets());
    body.extend(tail);
    let source: IpAddr = "fe80::2".parse().unwrap();
    let to = if group.is_unspecified() { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) } else { group };
    let mut packet = ip_packet(source, to.into(), 58, &icmp_message(source, to.into(), kind, 0, &body));
    packet[7] = 1;
    framed_to(group_hardware(to.into()), &packet)
}

#[test]
fn what_is_sent_to_a_group_arrives_while_somebody_is_in_it() {
    for (group, source) in [(IpAddr::V4(GROUP), IpAddr::V4(v4(2))), (GROUP_V6.into(), v6(2).into())] {
        let mut network = quiet_network();
        let datagram = udp_datagram(source, group, (1000, 2000), b"data");
        let frame = framed_to(group_hardware(group), &ip_packet(source, group, 17, &datagram));
        let is_taken = |network: &mut Network| match receive(network, NOW, &frame) {
            Ingress::Packet(packet) => {
                assert_eq!((packet.kind, packet.destination), (DestinationKind::Multicast, group));
                true
            }
            Ingress::Consumed | Ingress::Error(_) => false,
        };
        assert!(!is_taken(&mut network));
        network.join_group(NOW, group).unwrap();
        network.join_group(NOW, group).unwrap();
        assert!(is_taken(&mut network));
        network.leave_group(NOW, group).unwrap();
        assert!(is_taken(&mut network), "one is left");
        network.leave_group(NOW, group).unwrap();
        assert!(!is_taken(&mut network));
        assert_eq!(network.leave_group(NOW, group), Err(Error::AddressNotAvailable));
    }
}

#[test]
fn joining_and_leaving_are_reported_twice_each() {
    for group in [IpAddr::V4(GROUP), GROUP_V6.into()] {
        let mut network = quiet_network();
        network.join_group(NOW, group).unwrap();
        assert_eq!(comparable(reports(&mut network)), [record(4, group)], "at once");
        let now = settle(&mut network, NOW);
        assert_eq!(comparable(reports(&mut network)), [record(4, group)], "and once more");
        network.leave_group(now, group).unwrap();
        let now = settle(&mut network, now);
        assert_eq!(comparable(reports(&mut network)), [record(3, group), record(3, group)]);
        settle(&mut network, now);
        assert_eq!(reports(&mut network), []);
    }
}

#[test]
fn own_addresses_have_their_groups_reported() {
    let mut network = network(&config(1));
    settle(&mut network, NOW);
    let groups: Vec<Vec<u8>> =
        reports(&mut network).iter().map(|(_, message)| message[12..].to_vec()).collect();
    for group in ["ff02::1:ff00:1", "ff02::1:ff00:1"] {
        assert!(groups.contains(&group.parse::<Ipv6Addr>().unwrap().octets().to_vec()), "{groups:?}");
    }
}

#[test]
fn queries_are_answered_within_their_time() {
    for (group, general, specific) in [
        (
            IpAddr::V4(GROUP),
            igmp_query(20, Ipv4Addr::UNSPECIFIED, &[2, 125, 0, 0]),
            igmp_query(20, GROUP, &[2, 125, 0, 0]),
        ),
        (
            GROUP_V6.into(),
            mld_message(130, 2000, Ipv6Addr::UNSPECIFIED, &[2, 125, 0, 0]),
            mld_message(130, 2000, GROUP_V6, &[2, 125, 0, 0]),
        ),
    ] {
        let mut network = quiet_network();
        network.join_group(NOW, group).unwrap();
        let mut now = settle(&mut network, NOW);
        network.frames().clear();
        for query in [specific, general] {
            receive(&mut network, now, &query);
            receive(&mut network, now, &query);
            now = settle(&mut network, now);
            let sent = reports(&mut network);
            assert_eq!(sent.len(), 1, "one answer to two questions");
            let (_, message) = &sent[0];
            let octets = match group {
                IpAddr::V4(group) => group.octets().to_vec(),
                IpAddr::V6(group) => group.octets().to_vec(),
            };
            assert!(message[8..].windows(octets.len()).any(|window| window == octets));
            assert_eq!(message[8], 2, "a record of the present state");
        }
    }
}

#[test]
fn older_routers_are_answered_in_their_version_for_a_while() {
    let v4_report = |kind: u8| {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(GROUP.octets());
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    };
    let v6_report = |kind: u8| {
        let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
        message.extend(GROUP_V6.octets());
        message
    };
    let (routers_v4, routers_v6) = (Ipv4Addr::new(224, 0, 0, 2), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2));
    for (query, group, report, leave) in [
        (
            igmp_query(10, GROUP, &[]),
            IpAddr::V4(GROUP),
            v4_report(0x16),
            vec![(IpAddr::V4(routers_v4), v4_report(0x17))],
        ),
        (igmp_query(0, GROUP, &[]), GROUP.into(), v4_report(0x12), vec![]),
        (
            mld_message(130, 1000, GROUP_V6, &[]),
            GROUP_V6.into(),
            v6_report(131),
            vec![(routers_v6.into(), v6_report(132))],
        ),
    ] {
        let mut network = quiet_network();
        network.join_group(NOW, group).unwrap();
        let mut now = settle(&mut network, NOW);
        network.frames().clear();
        receive(&mut network, now, &query);
        for _ in 0..6 {
            now = settle(&mut network, now);
        }
        assert_eq!(comparable(reports(&mut network)), [(group, report)]);
        network.leave_group(now, group).unwrap();
        now = settle(&mut network, now);
        assert_eq!(comparable(reports(&mut network)), leave);
        network.join_group(now.plus_nanos(300_000_000_000), group).unwrap();
        assert_eq!(comparable(reports(&mut network)), [record(4, group)], "the router has not come back");
    }
}

#[test]
fn in_older_versions_one_report_is_enough_for_all() {
    for (query, report, group) in [
        (igmp_query(100, GROUP, &[]), igmp_report(), IpAddr::V4(GROUP)),
        (mld_message(130, 10_000, GROUP_V6, &[]), mld_message(131, 0, GROUP_V6, &[]), GROUP_V6.into()),
    ] {
        let mut network = quiet_network();
        network.join_group(NOW, group).unwrap();
        let mut now = settle(&mut network, NOW);
        network.frames().clear();
        receive(&mut network, now, &query);
        receive(&mut network, now, &report);
        for _ in 0..6 {
            now = settle(&mut network, now);
        }
        assert_eq!(reports(&mut network), []);
    }
}

/// Somebody else's version 2 report.
fn igmp_report() -> Vec<u8> {
    let mut message = vec![0x16, 0, 0, 0];
    message.extend(GROUP.octets());
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    framed_to(group_hardware(GROUP.into()), &ip_packet(v4(2).into(), GROUP.into(), 2, &message))
}

#[test]
fn questions_from_afar_are_not_answered() {
    let far_v4 = {
        let mut frame = igmp_query(20, GROUP, &[2, 125, 0, 0]);
        let packet = with_header_byte(frame.split_off(14), 8, 63);
        framed_to(group_hardware(GROUP.into()), &packet)
    };
    let mut far_v6 = mld_message(130, 2000, GROUP_V6, &[2, 125, 0, 0]);
    far_v6[14 + 7] = 64;
    for (query, group) in [(far_v4, IpAddr::V4(GROUP)), (far_v6, GROUP_V6.into())] {
        let mut network = quiet_network();
        network.join_group(NOW, group).unwrap();
        let now = settle(&mut network, NOW);
        network.frames().clear();
        receive(&mut network, now, &query);
        settle(&mut network, now);
        assert_eq!(reports(&mut network), []);
    }
}

#[test]
fn the_number_of_groups_and_the_length_of_reports_are_bounded() {
    let mut network = quiet_network();
    let group = |number: usize| IpAddr::from(Ipv4Addr::from_bits(0xef00_0000 + number as u32));
    let before = network.groups.len();
    let joined = (0..MAX_GROUPS).filter(|number| network.join_group(NOW, group(*number)).is_ok()).count();
    assert_eq!(joined, MAX_GROUPS - before);
    assert_eq!(network.join_group(NOW, group(MAX_GROUPS)), Err(Error::NoBuffers));
    let now = settle(&mut network, NOW);
    network.frames().clear();
    receive(&mut network, now, &igmp_query(20, Ipv4Addr::UNSPECIFIED, &[2, 125, 0, 0]));
    settle(&mut network, now);
    let sent = reports(&mut network);
    assert_eq!(sent.len(), joined.div_ceil(MAX_REPORT_GROUPS));
    let records: usize = sent.iter().map(|(_, message)| usize::from(message[7])).sum();
    assert_eq!(records, joined);
}

#[test]
fn what_is_no_group_cannot_be_joined() {
    let mut network = quiet_network();
    for address in [IpAddr::V4(v4(1)), v6(1).into(), Ipv4Addr::BROADCAST.into()] {
        assert_eq!(network.join_group(NOW, address), Err(Error::InvalidArgument));
    }
}
