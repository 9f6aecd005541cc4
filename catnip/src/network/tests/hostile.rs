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

/// What a rogue router, server or neighbour does.
#[derive(Debug, Clone)]
enum Rogue {
    /// A message of neighbour discovery, of this type, from the link.
    Discovery { kind: u8, body: Vec<u8> },
    /// An answer of a DHCP server.
    Lease { kind: u8, yours: u8, options: Vec<u8> },
    /// An ARP packet that names these hosts as sender and target.
    Claim { sender: [u8; 4], target: [u8; 4], reply: bool },
    /// So many seconds pass.
    Pass(u16),
}

/// Options of neighbour discovery: of all kinds, well-formed for the most part.
fn discovery_options() -> impl Strategy<Value = Vec<u8>> {
    let option =
        (0_u8..8, 1_u8..6, prop::collection::vec(any::<u8>(), 40)).prop_map(|(kind, units, body)| {
            let mut option = vec![kind, units];
            option.extend(&body[..usize::from(units) * 8 - 2]);
            if kind == 3 {
                // Prefixes that could be taken.
                option[2] = 64;
                option.get_mut(16..18).into_iter().for_each(|start| start.copy_from_slice(&[0x20, 1]));
            }
            option
        });
    prop::collection::vec(option, 0..8).prop_map(|options| options.concat())
}

fn rogue() -> impl Strategy<Value = Rogue> {
    let own = crate::wire::ndp::link_local(hardware(1)).octets();
    let target = prop_oneof![Just(own), any::<[u8; 16]>()];
    prop_oneof![
        (any::<[u8; 12]>(), discovery_options()).prop_map(|(fixed, options)| Rogue::Discovery {
            kind: 134,
            body: [&fixed[..], &options].concat()
        }),
        (135_u8..138, any::<[u8; 4]>(), target, any::<[u8; 16]>(), discovery_options()).prop_map(
            |(kind, flags, target, destination, options)| {
                let destination = if kind == 137 { &destination[..] } else { &[] };
                Rogue::Discovery { kind, body: [&flags[..], &target, destination, &options].concat() }
            }
        ),
        (
            1_u8..8,
            any::<u8>(),
            prop::collection::vec((0_u8..70, prop::collection::vec(any::<u8>(), 0..9)), 0..9)
        )
            .prop_map(|(kind, yours, options)| {
                let mut bytes = vec![53, 1, kind, 54, 4, 192, 0, 2, 254, 51, 4, 0, 0, 1, 0];
                for (kind, body) in options {
                    bytes.extend([kind, u8::try_from(body.len()).unwrap()]);
                    bytes.extend(body);
                }
                Rogue::Lease { kind, yours, options: bytes }
            }),
        (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<bool>())
            .prop_map(|(sender, target, reply)| Rogue::Claim { sender, target, reply }),
        (0_u16..4000).prop_map(Rogue::Pass),
    ]
}

/// The transaction of the last DHCP message among these frames.
fn transaction(frames: &[Sent]) -> Option<u32> {
    let messages = frames.iter().filter(|frame| frame.bytes.get(34..38) == Some(&[0, 68, 0, 67]));
    messages.filter_map(|frame| frame.bytes.get(46..50)?.try_into().ok().map(u32::from_be_bytes)).next_back()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn rogue_routers_and_servers_make_bounded_work_and_state(
        acts in prop::collection::vec(rogue(), 1..60),
        probe in any::<bool>(),
    ) {
        use crate::wire::arp::{ArpPacket, Operation};
        use crate::wire::ethernet;
        let mut config = config(1);
        (config.dhcp, config.router_discovery) = (true, true);
        config.neighbor.max_neighbors = 16;
        if probe {
            config.conflict_detection = crate::network::ConflictDetection::Probe;
        }
        let mut network = network(&config);
        let (mut now, mut current) = (NOW, 0);
        for act in acts {
            match act {
                Rogue::Discovery { kind, body } => {
                    let from = crate::wire::ndp::link_local(hardware(2));
                    let all_nodes = "ff02::1".parse::<std::net::Ipv6Addr>().unwrap();
                    let message = icmp_message(from.into(), all_nodes.into(), kind, 0, &body);
                    let mut packet = ip_packet(from.into(), all_nodes.into(), 58, &message);
                    packet[7] = 255;
                    receive(&mut network, now, &framed(&packet));
                }
                Rogue::Lease { kind, yours, mut options } => {
                    options[2] = kind;
                    let data = crate::wire::dhcp::tests::reply(current, hardware(1), v4(yours), &options);
                    let (from, to) = (IpAddr::V4(v4(254)), IpAddr::V4(std::net::Ipv4Addr::BROADCAST));
                    let datagram = udp_datagram(from, to, (67, 68), &data);
                    let frame = framed_to(ethernet::BROADCAST, &ip_packet(from, to, 17, &datagram));
                    if let Ingress::Packet(packet) = receive(&mut network, now, &frame) {
                        network.receive_unclaimed_datagram(now, &packet);
                    }
                }
                Rogue::Claim { sender, target, reply } => {
                    // Hosts of the link, and nobody.
                    let host = |[wild, number, ..]: [u8; 4]| if wild < 60 { [0; 4] } else { [192, 0, 2, number % 80] };
                    let packet = ArpPacket {
                        operation: if reply { Operation::Reply } else { Operation::Request },
                        sender_hardware: hardware(2),
                        sender_protocol: host(sender).into(),
                        target_hardware: hardware(1),
                        target_protocol: host(target).into(),
                    };
                    receive(&mut network, now, &packet.compose_frame(ethernet::BROADCAST));
                }
                Rogue::Pass(seconds) => {
                    let end = now + std::time::Duration::from_secs(seconds.into());
                    let mut polls = 0;
                    while let Some(next) = network.next_deadline().filter(|next| *next <= end) {
                        now = now.max(next);
                        network.poll(now);
                        polls += 1;
                        let frames = take_frames(&mut network);
                        current = transaction(&frames).unwrap_or(current);
                        prop_assert!(frames.len() <= 100, "{} frames in one poll", frames.len());
                        prop_assert!(polls <= 100 + 20 * u32::from(seconds), "{polls} polls in {seconds} s");
                    }
                    now = end;
                }
            }
            let frames = take_frames(&mut network);
            current = transaction(&frames).unwrap_or(current);
            prop_assert!(frames.len() <= 20, "{} answers to one frame", frames.len());
            prop_assert!(network.addresses().count() <= 3 + 1 + 8);
            // What waits for neighbours.
            prop_assert!(network.arena().stats().live_buffers <= 16 * 16);
        }
    }
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
