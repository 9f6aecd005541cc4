//! Parts that contradict each other, never end, or are many.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::receiving::icmp_errors;
use super::*;
use crate::network::fragment::FragmentConfig;
use crate::network::testing::*;

#[test]
fn a_packet_with_overlapping_parts_is_dropped_as_a_whole() {
    for (name, cuts) in [
        ("the second within the first", &[cut(0, 56, true), cut(8, 48, false), cut(56, 108, false)][..]),
        ("the second over the first's end", &[cut(0, 56, true), cut(48, 108, false)]),
        ("the second in front of a later one", &[cut(64, 108, false), cut(0, 72, true)]),
        ("over two", &[cut(0, 24, true), cut(48, 108, false), cut(16, 56, true), cut(24, 48, true)]),
        ("around another", &[cut(16, 24, true), cut(8, 108, false), cut(0, 8, true)]),
        ("a longer one at the same place", &[cut(0, 32, true), cut(0, 56, true), cut(56, 108, false)]),
        ("beyond the end", &[cut(56, 92, false), cut(96, 104, true), cut(0, 56, true)]),
        ("the end in front of what came", &[cut(64, 80, true), cut(56, 60, false), cut(0, 56, true)]),
        ("two ends", &[cut(56, 100, false), cut(100, 108, false), cut(0, 56, true)]),
    ] {
        for v6_family in [false, true] {
            let ends = ends(v6_family);
            let whole = datagram(ends, 100);
            let mut network = acquainted();
            let parts: Vec<Vec<u8>> = cuts.iter().map(|at| part(ends, 17, 7, &whole, *at)).collect();
            assert_eq!(deliver(&mut network, &parts), [] as [Vec<u8>; 0], "{name}");
            assert!(network.counters().ip_reasm_fails > 0, "{name}");
            // RFC 5722 section 4: nor is anything made of what comes later.
            let honest = [cut(0, 56, true), cut(56, 108, false)].map(|at| part(ends, 17, 7, &whole, at));
            assert_eq!(deliver(&mut network, &honest), [] as [Vec<u8>; 0], "{name}");
            assert_eq!(network.fragments.held_bytes(), 0, "{name}");
            // Nothing is said of it: an error would tell the attacker what was kept.
            network.frames().clear();
            network.poll(NOW.plus_nanos(60_000_000_000));
            assert_eq!(icmp_errors(&mut network).len(), 0, "{name}");
        }
    }
}

#[test]
fn a_part_that_comes_again_with_other_bytes_spoils_the_packet() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let whole = datagram(ends, 100);
        let mut network = acquainted();
        let first = part(ends, 17, 7, &whole, cut(0, 56, true));
        let forged = part_with_data(ends, 17, 7, &[9; 56], cut(0, 56, true));
        let last = part(ends, 17, 7, &whole, cut(56, 108, false));
        assert_eq!(deliver(&mut network, [&first, &forged, &last]), [] as [Vec<u8>; 0]);
    }
}

#[test]
fn malformed_parts_are_dropped_and_in_ipv6_told() {
    let big = vec![0; 1400];
    for (name, v6_family, data, at, problem) in [
        ("a length that is no multiple of eight", false, &big[..13], cut(0, 13, true), None),
        ("the same in IPv6", true, &big[..13], cut(0, 13, true), Some((0, 4))),
        ("beyond the largest packet", false, &big[..1400], cut(65_528, 0, false), None),
        ("the same in IPv6", true, &big[..1400], cut(65_528, 0, false), Some((0, 42))),
        ("no bytes", false, &big[..0], cut(8, 8, true), None),
        ("the same in IPv6", true, &big[..0], cut(8, 8, true), None),
        ("not the whole UDP header", true, &big[..0], cut(0, 0, true), Some((3, 0))),
    ] {
        let ends = ends(v6_family);
        let mut network = acquainted();
        let frame = part_with_data(ends, 17, 7, data, at);
        deliver(&mut network, [&frame]);
        assert_eq!(network.counters().ip_reasm_fails, 1, "{name}");
        assert_eq!(network.fragments.len(), 0, "{name}");
        let errors = icmp_errors(&mut network);
        let told: Vec<(u8, u8)> = errors.iter().map(|error| (error[1], error[7])).collect();
        assert_eq!(told, problem.into_iter().collect::<Vec<_>>(), "{name}");
        assert!(errors.iter().all(|error| error[0] == 4), "{name}");
    }
}

#[test]
fn the_first_part_in_ipv6_has_all_headers() {
    let ends = ends(true);
    let mut network = acquainted();
    // Destination options that reach beyond the part.
    let frame = part_with_data(ends, 60, 7, &[17, 1, 1, 4, 0, 0, 0, 0], cut(0, 8, true));
    deliver(&mut network, [&frame]);
    let errors = icmp_errors(&mut network);
    assert_eq!(errors.len(), 1);
    assert_eq!((errors[0][0], errors[0][1]), (4, 3));
    assert_eq!(errors[0][8..], frame[14..]);
}

#[test]
fn parts_within_parts_come_to_nothing() {
    let ends = ends(true);
    let whole = datagram(ends, 100);
    let inner = FragmentHeader { next_header: 17, offset: 0, more: true, identification: 9 };
    let payload = [&inner.compose()[..], &whole[..56]].concat();
    let mut network = acquainted();
    let parts = [cut(0, 24, true), cut(24, 64, false)].map(|at| part(ends, 44, 7, &payload, at));
    assert_eq!(deliver(&mut network, &parts), [] as [Vec<u8>; 0]);
    assert_eq!(network.fragments.len(), 0);
}

#[test]
fn neighbours_are_not_found_in_parts() {
    let (two, one) = ends(true);
    let mut body = vec![0; 4];
    body.extend(v6(1).octets());
    body.extend([1, 1]);
    body.extend(hardware(2));
    let message = icmp_message(two, one, 135, 0, &body);
    let mut network = acquainted();
    let len = message.len();
    for at in [cut(0, 16, true), cut(16, len, false)] {
        let mut frame = part((two, one), 58, 7, &message, at);
        frame[14 + 7] = 255;
        receive(&mut network, NOW, &frame);
    }
    assert_eq!(network.counters().ip_reasm_oks, 1);
    assert_eq!(network.counters().icmp_in_errors, 1);
    assert_eq!(take_frames(&mut network).len(), 0);
}

#[test]
fn tiny_parts_hold_little_memory_and_come_to_an_end() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let whole = datagram(ends, 2000);
        let mut network = acquainted();
        let (mut parts, mut most_held) = (0, 0);
        for start in (8..whole.len() - 8).step_by(8) {
            deliver(&mut network, [&part(ends, 17, 7, &whole, cut(start, start + 8, true))]);
            parts += 1;
            most_held = most_held.max(network.fragments.held_bytes());
        }
        assert!(parts > super::super::parts::MAX_PARTS);
        assert!(most_held <= 64 << 10, "{most_held}");
        assert_eq!(network.fragments.held_bytes(), 0, "too many parts");
    }
}

/// Parts of packets that never come to an end, from one source or many, and between them honest packets
/// of another, of which none is to be lost.
#[test]
fn a_flood_of_parts_is_bounded_and_lets_others_through() {
    for (v6_family, one_source) in [(false, true), (false, false), (true, true), (true, false)] {
        let honest = ends(v6_family);
        let mut network = acquainted();
        let whole = datagram(honest, 2000);
        let limits = FragmentConfig::default();
        let mut delivered = 0;
        for number in 0..20_000_u32 {
            let source: IpAddr = match (v6_family, one_source) {
                (false, true) => v4(66).into(),
                (true, true) => v6(66).into(),
                (false, false) => Ipv4Addr::from_bits(0x0a00_0000 + number).into(),
                (true, false) => Ipv6Addr::from_bits(0x2001_0db9 << 96 | u128::from(number)).into(),
            };
            let id = u16::try_from(number % 65_536).unwrap();
            let start = if number % 2 == 0 { 0 } else { 64 };
            let at = cut(start, start + 1400, true);
            deliver(&mut network, [&part_with_data((source, honest.1), 17, id, &[1; 1400], at)]);
            if number % 100 == 0 {
                let parts = [cut(0, 1400, true), cut(1400, 2008, false)];
                let parts = parts.map(|at| part(honest, 17, id, &whole, at));
                delivered += deliver(&mut network, &parts).len();
            }
            assert!(network.fragments.len() <= limits.max_packets);
            assert!(network.fragments.held_bytes() <= limits.max_bytes);
        }
        assert_eq!(delivered, 200);
        let held = network.fragments.held_bytes();
        let limit = if one_source { limits.max_source_bytes } else { limits.max_bytes };
        assert!(held <= limit && network.arena().used_bytes() <= 2 * limit, "{held} bytes");
        // Time empties the table, a bounded number in each poll.
        let later = NOW.plus_nanos(120_000_000_000);
        for _ in 0..limits.max_packets.div_ceil(64) {
            network.poll(later);
            network.frames().clear();
        }
        assert_eq!((network.fragments.len(), network.fragments.held_bytes()), (0, 0));
    }
}

#[test]
fn small_memories_hold_few_parts() {
    use libos::memory::ArenaConfig;
    let arena = libos::Arena::new(&ArenaConfig { region_bytes: 2 << 20, hugepages: false }).unwrap();
    let mut random = crate::random::Random::new(1);
    let mut network = Network::new(&config(1), arena, &mut random, NOW).unwrap();
    network.frames().clear();
    let ends = ends(false);
    for id in 0..500 {
        deliver(&mut network, [&part_with_data(ends, 17, id, &[1; 1400], cut(0, 1400, true))]);
        assert!(network.fragments.held_bytes() <= (2 << 20) / 16);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_parts_the_books_are_kept(
        parts in prop::collection::vec((0_u16..4, 0_usize..40, 0_usize..200, any::<bool>()), 1..300),
        v6_family in any::<bool>(),
        max_packets in 1_usize..4,
        max_bytes in 0_usize..8192,
    ) {
        let mut config = config(1);
        config.verify_checksums = false;
        config.fragment.max_packets = max_packets;
        config.fragment.max_bytes = max_bytes;
        config.fragment.max_source_bytes = max_bytes / 2;
        let mut network = network(&config);
        for (id, eighth, len, more) in parts {
            let at = cut(eighth * 8, 0, more);
            let frame = part_with_data(ends(v6_family), 17, id, &vec![id as u8; len], at);
            let _ = receive(&mut network, NOW, &frame);
            prop_assert!(network.fragments.len() <= max_packets);
            prop_assert!(network.fragments.held_bytes() <= max_bytes);
        }
        network.poll(NOW.plus_nanos(60_000_000_000));
        prop_assert_eq!((network.fragments.len(), network.fragments.held_bytes()), (0, 0));
        network.frames().clear();
        // Errors wait for the neighbour.
        prop_assert!(network.arena().stats().live_buffers <= 2 * 16);
    }
}
