//! Honest parts.

use std::time::Duration;

use libos::Instant;
use proptest::prelude::*;

use super::*;
use crate::network::testing::*;

#[test]
fn parts_come_together_in_any_order() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let whole = datagram(ends, 100);
        let cuts = [cut(0, 32, true), cut(32, 64, true), cut(64, 72, true), cut(72, 108, false)];
        let parts = cuts.map(|at| part(ends, 17, 7, &whole, at));
        for order in permutations(parts.len()) {
            let mut network = acquainted();
            let delivered = deliver(&mut network, order.iter().map(|index| &parts[*index]));
            assert_eq!(delivered, std::slice::from_ref(&whole), "{order:?}");
            let counters = network.counters();
            assert_eq!((counters.ip_reasm_reqds, counters.ip_reasm_oks, counters.ip_reasm_fails), (4, 1, 0));
            assert_eq!((network.fragments.len(), network.fragments.held_bytes()), (0, 0));
            assert_eq!(network.arena().stats().live_buffers, 0);
        }
    }
}

fn permutations(len: usize) -> Vec<Vec<usize>> {
    match len {
        0 => vec![vec![]],
        _ => permutations(len - 1)
            .into_iter()
            .flat_map(|order| {
                (0..len).map(move |at| {
                    let mut longer = order.clone();
                    longer.insert(at, len - 1);
                    longer
                })
            })
            .collect(),
    }
}

#[test]
fn the_largest_datagrams_come_together() {
    for (v6_family, data_len) in [(false, 65_507), (true, 65_527)] {
        let ends = ends(v6_family);
        let whole = datagram_of_any_size(ends, data_len);
        let most = 1440;
        let cuts = (0..whole.len()).step_by(most).map(|start| {
            let end = whole.len().min(start + most);
            cut(start, end, end < whole.len())
        });
        let parts: Vec<Vec<u8>> = cuts.map(|at| part(ends, 17, 7, &whole, at)).collect();
        let mut network = acquainted();
        assert_eq!(deliver(&mut network, parts.iter().rev()), [whole]);
    }
}

/// A datagram with more data than the tests' own helper can express.
fn datagram_of_any_size((from, to): (IpAddr, IpAddr), data_len: usize) -> Vec<u8> {
    use crate::wire::checksum::Checksum;
    let len = u16::try_from(data_len + 8).unwrap();
    let mut datagram = crate::wire::udp::compose(1000, 2000, len).to_vec();
    datagram.extend((0..=250_u8).cycle().take(data_len));
    let mut sum = Checksum::pseudo_header(from, to, 17, datagram.len());
    sum.add_bytes(&datagram);
    datagram[6..8].copy_from_slice(&sum.finish().to_be_bytes());
    datagram
}

#[test]
fn duplicates_cost_nothing() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let whole = datagram(ends, 100);
        let parts = [cut(0, 56, true), cut(56, 108, false)].map(|at| part(ends, 17, 7, &whole, at));
        let mut network = acquainted();
        assert_eq!(
            deliver(&mut network, [&parts[0], &parts[0], &parts[0], &parts[1]]),
            std::slice::from_ref(&whole)
        );
        // What comes after the packet begins another, which is never whole.
        assert_eq!(deliver(&mut network, [&parts[1], &parts[1]]), [] as [Vec<u8>; 0]);
        assert_eq!(network.counters().ip_reasm_fails, 0);
    }
}

#[test]
fn packets_are_told_apart_by_their_identification_and_ends() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let (one, other) = (datagram(ends, 100), datagram(ends, 92));
        let cuts = |whole: &[u8], id| {
            [cut(0, 56, true), cut(56, whole.len(), false)].map(|at| part(ends, 17, id, whole, at))
        };
        let (first, second) = (cuts(&one, 1), cuts(&other, 2));
        let mut network = acquainted();
        let delivered = deliver(&mut network, [&first[0], &second[0], &second[1], &first[1]]);
        assert_eq!(delivered, [other, one]);
    }
}

#[test]
fn after_a_minute_the_sender_of_a_first_part_is_told() {
    for v6_family in [false, true] {
        let ends = ends(v6_family);
        let whole = datagram(ends, 100);
        for (name, at, told) in
            [("first part", cut(0, 56, true), true), ("last part", cut(56, 108, false), false)]
        {
            let mut network = acquainted();
            let frame = part(ends, 17, 7, &whole, at);
            deliver(&mut network, [&frame]);
            let minute = NOW.plus_nanos(60_000_000_000);
            assert!(network.next_deadline().is_some_and(|deadline| deadline <= minute), "{name}");
            network.poll(Instant::from_millis(60_000));
            assert_eq!(network.fragments.len(), 1, "{name}");
            network.poll(minute);
            assert_eq!(network.fragments.len(), 0, "{name}");
            assert_eq!(network.counters().ip_reasm_timeout, 1);
            let errors: Vec<Vec<u8>> = icmp_errors(&mut network);
            if told {
                let (kind, code) = if v6_family { (3, 1) } else { (11, 1) };
                assert_eq!(errors.len(), 1, "{name}");
                assert_eq!(errors[0][..2], [kind, code]);
                assert_eq!(errors[0][8..], frame[14..], "the part is quoted");
            } else {
                assert_eq!(errors.len(), 0, "{name}");
            }
        }
    }
}

/// ICMP errors that were sent, from their ICMP headers on.
pub(super) fn icmp_errors(network: &mut Network) -> Vec<Vec<u8>> {
    let message = |frame: Sent| {
        let packet = frame.bytes.get(14..)?;
        match (packet[0] >> 4, packet[9], packet[6]) {
            (4, 1, _) => Some(packet[20..].to_vec()),
            (6, _, 58) if packet[40] < 128 => Some(packet[40..].to_vec()),
            _ => None,
        }
    };
    take_frames(network).into_iter().filter_map(message).collect()
}

#[test]
fn the_configured_time_counts() {
    let mut config = config(1);
    config.fragment.timeout = Duration::from_millis(500);
    let mut network = network(&config);
    let ends = ends(false);
    deliver(&mut network, [&part(ends, 17, 7, &datagram(ends, 100), cut(0, 56, true))]);
    network.poll(NOW.plus_nanos(499_999_999));
    assert_eq!(network.fragments.len(), 1);
    network.poll(NOW.plus_nanos(500_000_000));
    assert_eq!(network.fragments.len(), 0);
}

#[test]
fn congestion_of_one_part_is_congestion_of_the_packet() {
    const NOT_CAPABLE: u8 = 0;
    for (classes, merged) in [
        ([2, 2], Some(2)),
        ([2, 3], Some(3)),
        ([3, 2], Some(3)),
        ([1, 3], Some(3)),
        ([NOT_CAPABLE, NOT_CAPABLE], Some(0)),
        ([NOT_CAPABLE, 3], None),
    ] {
        for v6_family in [false, true] {
            let ends = ends(v6_family);
            let whole = datagram(ends, 100);
            let mut network = acquainted();
            let mut seen = None;
            for (at, class) in [cut(0, 56, true), cut(56, 108, false)].into_iter().zip(classes) {
                let mut frame = part(ends, 17, 7, &whole, at);
                if v6_family {
                    frame[14 + 1] |= class << 4;
                } else {
                    frame = framed(&with_header_byte(frame.split_off(14), 1, class));
                }
                if let Ingress::Packet(packet) = receive(&mut network, NOW, &frame) {
                    seen = Some(packet.traffic_class);
                }
            }
            assert_eq!(seen, merged, "{classes:?}");
        }
    }
}

#[test]
fn a_packet_with_a_fragment_header_in_one_piece_is_no_part() {
    let ends = ends(true);
    let whole = datagram(ends, 40);
    let mut network = acquainted();
    let other = part(ends, 17, 7, &datagram(ends, 100), cut(0, 56, true));
    let atomic = part(ends, 17, 7, &whole, cut(0, 48, false));
    assert_eq!(deliver(&mut network, [&other, &atomic]), [whole]);
    assert_eq!(network.fragments.len(), 1, "the other one still waits");
    assert_eq!(network.counters().ip_reasm_reqds, 1);
}

#[test]
fn a_large_echo_request_is_answered_in_parts() {
    for (v6_family, protocol, request) in [(false, 1, 8), (true, 58, 128)] {
        let (two, one) = ends(v6_family);
        let body: Vec<u8> = (0..=250_u8).cycle().take(3004).collect();
        let message = icmp_message(two, one, request, 0, &body);
        let cuts = [cut(0, 1440, true), cut(1440, 2880, true), cut(2880, 3008, false)];
        let mut network = acquainted();
        for at in cuts {
            receive(&mut network, NOW, &part((two, one), protocol, 7, &message, at));
        }
        let mut peer = sending::host_2();
        let answer = take_frames(&mut network);
        assert_eq!(answer.len(), 3);
        assert!(answer.iter().all(|frame| frame.bytes.len() <= 1514));
        // The peer, which asked nothing, counts the message once it is whole.
        for frame in answer {
            receive(&mut peer, NOW, &frame.bytes);
        }
        let counters = peer.counters();
        assert_eq!((counters.ip_reasm_oks, counters.icmp_in_messages, counters.icmp_in_errors), (1, 1, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn however_a_packet_is_cut_and_shuffled_it_comes_out_whole(
        data_len in 0_usize..9000,
        eighths in prop::collection::btree_set(1_usize..1100, 1..60),
        order in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 60),
        v6_family in any::<bool>(),
    ) {
        let ends = ends(v6_family);
        let whole = datagram(ends, data_len);
        let mut starts: Vec<usize> =
            eighths.into_iter().map(|eighth| eighth * 8).filter(|start| *start < whole.len()).collect();
        starts.insert(0, 0);
        let next = starts.iter().copied().skip(1).chain([whole.len()]);
        let mut parts: Vec<Vec<u8>> = starts
            .iter()
            .zip(next)
            .map(|(start, end)| part(ends, 17, 7, &whole, cut(*start, end, end < whole.len())))
            .collect();
        let last = parts.len() - 1;
        for (index, (swap, duplicate)) in order.into_iter().enumerate().take(last) {
            parts.swap(index, index + swap.index(last + 1 - index));
            if duplicate {
                parts.push(parts[index].clone());
            }
        }
        let mut network = acquainted();
        let delivered = deliver(&mut network, &parts);
        prop_assert_eq!(delivered.first(), Some(&whole));
        prop_assert_eq!(network.counters().ip_reasm_fails, 0);
    }
}
