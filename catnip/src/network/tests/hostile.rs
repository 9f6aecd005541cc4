//! Whatever arrives: no panic, no leak, no answer without end.

use std::net::IpAddr;

use libos::Instant;
use libos::runtime::{Medium, RxFrame};
use proptest::prelude::*;

use crate::network::testing::*;
use crate::network::{Ingress, Network};

const NOW: Instant = Instant::from_millis(1);

/// Hands in a frame cut in two at `cut`, takes what comes of it to its end, and checks that no memory
/// is left behind.
fn survive(network: &mut Network, frame: &[u8], cut: usize) {
    let (head, rest) = frame.split_at(cut.min(frame.len()));
    let mut received = RxFrame::from(buffer(network, head));
    if !rest.is_empty() {
        received.rest.push(buffer(network, rest));
    }
    match network.receive(NOW, received) {
        Ingress::Packet(packet) => network.send_port_unreachable(NOW, &packet),
        Ingress::Consumed | Ingress::Error(_) => {}
    }
    while network.receive_looped(NOW).is_some() {}
    let answers = take_frames(network).len();
    assert!(answers <= 1 + 16, "{answers} answers to one frame");
    assert!(network.arena().stats().live_buffers <= 16);
}

/// Frames from which hostile ones are made.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (two, one) in [(IpAddr::V4(v4(2)), IpAddr::V4(v4(1))), (v6(2).into(), v6(1).into())] {
        let icmp = if two.is_ipv4() { 1 } else { 58 };
        let quoted = ip_packet(one, two, 6, &[0; 20]);
        for kind in [0, 1, 2, 3, 4, 8, 11, 12, 128, 135, 136] {
            let mut body = vec![0; 4];
            body.extend(&quoted);
            seeds.push(framed(&ip_packet(two, one, icmp, &icmp_message(two, one, kind, 0, &body))));
        }
        seeds.push(framed(&ip_packet(two, one, 17, &udp_datagram(two, one, (1, 2), b"data"))));
        seeds.push(framed(&ip_packet(two, one, 0, &[60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 5, 2, 0, 0, 1, 0])));
    }
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_frames_do_no_harm(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
        kind in prop::sample::select(vec![[8_u8, 0], [8, 6], [0x86, 0xdd]]),
        bare in any::<bool>(),
        cut in 0_usize..200,
    ) {
        let mut config = config(1);
        config.verify_checksums = false;
        if bare {
            config.device.medium = Medium::Ip;
        }
        let mut network = network(&config);
        for mut frame in frames {
            if !bare && frame.len() > 14 {
                frame[..6].copy_from_slice(&hardware(1));
                frame[12..14].copy_from_slice(&kind);
            }
            survive(&mut network, &frame, cut);
        }
    }

    #[test]
    fn frames_that_are_nearly_right_do_no_harm(
        seed in prop::sample::select(seeds()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        len in any::<prop::sample::Index>(),
        shorten in any::<bool>(),
        cut in 0_usize..150,
    ) {
        let mut config = config(1);
        config.verify_checksums = false;
        let mut network = network(&config);
        introduce(&mut network, NOW);
        let mut frame = seed;
        for (index, value) in changes {
            let at = 14 + index.index(frame.len() - 14);
            frame[at] = value;
        }
        if shorten {
            frame.truncate(len.index(frame.len()));
        }
        if frame.len() >= 34 && frame[12..14] == [8, 0] {
            // Deeper than the header's checksum.
            frame[24..26].fill(0);
            let sum = crate::wire::checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        survive(&mut network, &frame, cut);
    }
}
