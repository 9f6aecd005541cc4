//! Packets that are cut before they are sent.

use std::collections::HashSet;

use libos::runtime::{Medium, TxChecksum};

use super::*;
use crate::network::testing::*;
use crate::network::{Payload, PieceList};
use crate::stack::StackConfig;

/// The host that what host 1 sends is for.
pub(super) fn host_2() -> Network {
    network(&config(2))
}

/// What the frames are to a receiver: the data of the datagrams in them.
fn received(network: &mut Network, frames: &[Sent]) -> Vec<Vec<u8>> {
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.bytes.clone()).collect();
    deliver(network, &frames).into_iter().map(|datagram| datagram[8..].to_vec()).collect()
}

fn data(len: usize) -> Vec<u8> {
    (0..=250_u8).cycle().take(len).collect()
}

fn introduced(config: &StackConfig) -> Network {
    let mut network = network(config);
    introduce(&mut network, NOW);
    network.poll(NOW);
    network.frames().clear();
    network
}

#[test]
fn datagrams_larger_than_the_path_arrive_whole() {
    for v6_family in [false, true] {
        let (two, _) = ends(v6_family);
        for (mtu, len) in [(1500, 1473), (1500, 1481), (1500, 3000), (1280, 65_507), (9000, 65_507)] {
            for checksum in [TxChecksum::Software, TxChecksum::Partial, TxChecksum::Unneeded] {
                let mut config = config(1);
                config.device.tx_checksum = checksum;
                config.device.mtu = mtu;
                let mut network = introduced(&config);
                let mut path = network.path(NOW, None, two).unwrap();
                let data = data(len);
                let mut payload = buffer(&network, &data);
                // The second goes the short way, where there is one.
                for _ in 0..2 {
                    send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut payload)).unwrap();
                }
                let frames = take_frames(&mut network);
                let most = mtu + 14;
                assert!(frames.iter().all(|frame| frame.bytes.len() <= most && frame.segments <= 2));
                assert!(frames.iter().all(|frame| frame.offload.checksum().is_none()));
                assert_eq!(received(&mut host_2(), &frames), [data.clone(), data], "{mtu} {len}");
                let counters = network.counters();
                assert_eq!(counters.ip_frag_oks, 2);
                assert_eq!(counters.ip_frag_creates, frames.len() as u64);
            }
        }
    }
}

#[test]
fn parts_begin_at_multiples_of_eight_and_share_a_number() {
    let mut config = config(1);
    config.device.mtu = 1003;
    config.addresses.truncate(1);
    let mut network = introduced(&config);
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    let mut numbers = HashSet::new();
    for _ in 0..100 {
        let mut payload = buffer(&network, &data(2900));
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut payload)).unwrap();
        let frames = take_frames(&mut network);
        let header = |frame: &Sent| {
            let bytes = &frame.bytes[14..34];
            (u16::from_be_bytes([bytes[4], bytes[5]]), u16::from_be_bytes([bytes[6], bytes[7]]))
        };
        let (number, _) = header(&frames[0]);
        assert!(numbers.insert(number), "each packet has another");
        let fields: Vec<_> = frames.iter().map(header).collect();
        let more = 0x2000;
        assert_eq!(fields, [(number, more), (number, more | 122), (number, 244)]);
        assert_eq!(frames.iter().map(|frame| frame.bytes.len() - 34).collect::<Vec<_>>(), [976, 976, 956]);
    }
}

#[test]
fn numbers_of_one_destination_say_nothing_of_anothers() {
    let config = config(1);
    let mut network = network(&config);
    let mut first_numbers = HashSet::new();
    for host in 0..200 {
        for remote in [IpAddr::V4(v4(host)), v6(host).into()] {
            let slot = network.identifications.slot(remote);
            assert_eq!(slot, network.identifications.slot(remote), "a destination keeps its own");
            let first = network.identifications.next(slot);
            assert_eq!(network.identifications.next(slot), first.wrapping_add(1));
            first_numbers.insert(first & 0xffff);
        }
    }
    // Hosts that share a counter are still far from each other: 400 random numbers of 16 bits.
    assert!(first_numbers.len() > 390, "{}", first_numbers.len());
}

#[test]
fn a_packet_that_waits_for_its_neighbour_is_cut_when_it_goes() {
    for v6_family in [false, true] {
        let (two, _) = ends(v6_family);
        let mut network = network(&config(1));
        let mut path = network.path(NOW, None, two).unwrap();
        let data = data(60_000);
        let mut payload = buffer(&network, &data);
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut payload)).unwrap();
        let mut peer = host_2();
        let mut arrived = Vec::new();
        exchange(NOW, [&mut network, &mut peer], |_, _, ingress| {
            if let Ingress::Packet(packet) = ingress {
                arrived.push(packet.head[8..].to_vec());
            }
        });
        assert_eq!(arrived, [data]);
    }
}

#[test]
fn datagrams_in_pieces_and_on_bare_ip_are_cut_too() {
    for v6_family in [false, true] {
        let (two, _) = ends(v6_family);
        let mut config = config(1);
        config.device.medium = Medium::Ip;
        let mut network = network(&config);
        let mut path = network.path(NOW, None, two).unwrap();
        let data = data(9_000);
        let mut pieces: PieceList =
            data.chunks(3_000).map(|piece| network.arena().copy_from(piece).unwrap().freeze()).collect();
        send_udp(&mut network, NOW, &mut path, Payload::Pieces(&mut pieces)).unwrap();
        let mut frames = take_frames(&mut network);
        assert!(frames.iter().all(|frame| frame.bytes.len() <= 1500));
        for frame in &mut frames {
            frame.bytes = framed_to(hardware(2), &frame.bytes);
        }
        assert_eq!(received(&mut host_2(), &frames), [data]);
    }
}

#[test]
fn to_ourselves_nothing_is_cut() {
    for own in [IpAddr::V4(v4(1)), v6(1).into()] {
        let mut network = network(&config(1));
        let mut path = network.path(NOW, None, own).unwrap();
        let mut payload = buffer(&network, &data(65_507));
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut payload)).unwrap();
        assert_eq!(network.looped_packets(), 1);
        let Some(Ingress::Packet(packet)) = network.receive_looped(NOW) else { panic!() };
        assert_eq!(packet.len(), 65_515);
    }
}

#[test]
fn without_memory_no_part_is_sent() {
    let mut network = introduced(&config(1));
    let mut path = network.path(NOW, None, v4(2).into()).unwrap();
    let mut payload = buffer(&network, &data(10_000));
    let mut hoard = Vec::new();
    for size in [1 << 20, 1 << 12, 64, 1] {
        while let Some(block) = network.arena().allocate(size) {
            hoard.push(block);
        }
    }
    let sent = send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut payload));
    assert_eq!(sent, Err(libos::Error::NoBuffers));
    assert_eq!((take_frames(&mut network).len(), payload.len()), (0, 10_000));
    assert_eq!(network.counters().ip_frag_fails, 1);
}
