//! Composed frames: headers, checksums, offloads, memory, limits, and packets to ourselves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::runtime::{Medium, PartialChecksum, Segmentation, TxChecksum};
use libos::{Error, Instant};

use crate::network::testing::*;
use crate::network::{HeaderBuffer, Ingress, Network, Outgoing, Path, Payload, PieceList, Protocol};
use crate::stack::StackConfig;
use crate::wire::checksum::Checksum;
use crate::wire::ipv4::Ipv4Header;

const NOW: Instant = Instant::from_millis(1);

fn acquainted(config: &StackConfig) -> Network {
    let mut network = network(config);
    introduce(&mut network, NOW);
    network
}

fn path(network: &mut Network, remote: impl Into<IpAddr>) -> Path {
    network.path(NOW, None, remote.into()).unwrap()
}

/// Sends a TCP header of 20 bytes with this payload.
fn send_tcp(
    network: &mut Network,
    path: &mut Path,
    payload: Payload<'_>,
    segment_bytes: Option<u16>,
) -> Result<(), Error> {
    let mut headers = HeaderBuffer::new();
    headers.transport(20).fill(0);
    let outgoing = Outgoing {
        protocol: Protocol::Tcp,
        headers: &mut headers,
        checksum_offset: 16,
        payload,
        segment_bytes,
        hop_limit: 64,
        traffic_class: 2,
    };
    network.send(NOW, path, outgoing)
}

#[test]
fn headers_say_what_they_should() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    send_tcp(&mut network, &mut path, Payload::Empty, None).unwrap();
    let frame = &take_frames(&mut network)[0].bytes;
    assert_eq!(frame[..6], hardware(2));
    assert_eq!(frame[6..12], hardware(1));
    let header = Ipv4Header::parse(&frame[14..], frame.len() - 14).unwrap();
    assert_eq!((header.source(), header.destination()), (v4(1), v4(2)));
    assert_eq!((header.total_len(), header.protocol(), header.time_to_live()), (40, 6, 64));
    assert_eq!(header.traffic_class(), 2);
    assert!(header.dont_fragment());
}

#[test]
fn a_path_composes_every_packet_as_it_composed_the_first() {
    for tx_checksum in [TxChecksum::Software, TxChecksum::Partial, TxChecksum::Unneeded] {
        let mut config = config(1);
        config.device.tx_checksum = tx_checksum;
        let mut network = acquainted(&config);
        let mut path = path(&mut network, v4(2));
        for len in [5, 5, 5] {
            let mut data = buffer(&network, &vec![7; len]);
            send_tcp(&mut network, &mut path, Payload::Whole(&mut data), None).unwrap();
        }
        let frames = take_frames(&mut network);
        for frame in &frames[1..] {
            assert_eq!(frame.bytes, frames[0].bytes, "{tx_checksum:?}");
            assert_eq!(frame.offload, frames[0].offload, "{tx_checksum:?}");
        }
        let mut longer = buffer(&network, &[7; 600]);
        send_tcp(&mut network, &mut path, Payload::Whole(&mut longer), None).unwrap();
        let frame = &take_frames(&mut network)[0].bytes;
        assert_eq!(Ipv4Header::parse(&frame[14..], frame.len() - 14).unwrap().total_len(), 640);
        let mut beyond = buffer(&network, &[7; 1461]);
        let refused = send_tcp(&mut network, &mut path, Payload::Whole(&mut beyond), None);
        assert_eq!(refused, Err(Error::MessageTooLong));
    }
}

#[test]
fn packets_that_may_be_cut_have_identifications_of_their_own() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    for _ in 0..3 {
        send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    }
    let identifications: Vec<u16> = take_frames(&mut network)
        .iter()
        .map(|frame| Ipv4Header::parse_quoted(&frame.bytes[14..]).unwrap())
        .inspect(|header| assert!(!header.dont_fragment()))
        .map(Ipv4Header::identification)
        .collect();
    assert_ne!(identifications[0], identifications[1]);
    assert_ne!(identifications[1], identifications[2]);
}

#[test]
fn software_checksums_are_right_over_payloads_of_any_shape() {
    for remote in [IpAddr::V4(v4(2)), v6(2).into()] {
        for cuts in [vec![0], vec![1], vec![7, 8, 9], vec![1, 1, 1], vec![100, 1201]] {
            let mut network = acquainted(&config(1));
            let mut path = path(&mut network, remote);
            let mut pieces = PieceList::new();
            for len in cuts {
                pieces.push(buffer(&network, &vec![0xa5; len]));
            }
            send_tcp(&mut network, &mut path, Payload::Pieces(&mut pieces), None).unwrap();
            assert!(pieces.is_empty());
            let frame = &take_frames(&mut network)[0].bytes;
            let transport = &frame[if remote.is_ipv4() { 34 } else { 54 }..];
            let mut sum = Checksum::pseudo_header(path.local, path.remote, 6, transport.len());
            sum.add_bytes(transport);
            assert!(sum.is_right());
        }
    }
}

#[test]
fn a_udp_checksum_is_never_zero() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    // The payload that makes the sum of everything else all ones.
    let mut sum = Checksum::pseudo_header(path.local, path.remote, 17, 10);
    sum.add_bytes(&crate::wire::udp::compose(1000, 2000, 10));
    let mut data = buffer(&network, &sum.finish().to_be_bytes());
    send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data)).unwrap();
    assert_eq!(take_frames(&mut network)[0].bytes[40..42], [0xff, 0xff]);
}

#[test]
fn a_device_that_completes_checksums_finds_the_pseudo_headers_sum() {
    for (remote, start) in [(IpAddr::V4(v4(2)), 34), (v6(2).into(), 54)] {
        let mut config = config(1);
        config.device.tx_checksum = TxChecksum::Partial;
        let mut network = acquainted(&config);
        let mut path = path(&mut network, remote);
        let mut data = buffer(&network, b"data");
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data)).unwrap();
        let frame = &take_frames(&mut network)[0];
        assert_eq!(frame.offload.checksum(), Some(PartialChecksum { start, offset: 6 }));
        let field = &frame.bytes[usize::from(start) + 6..][..2];
        let expected = Checksum::pseudo_header(path.local, path.remote, 17, 12).partial();
        assert_eq!(field, expected.to_be_bytes());
    }
}

#[test]
fn where_nobody_wants_checksums_none_is_computed() {
    let mut config = config(1);
    config.device.tx_checksum = TxChecksum::Unneeded;
    let mut network = acquainted(&config);
    let mut path = path(&mut network, v4(2));
    send_tcp(&mut network, &mut path, Payload::Empty, None).unwrap();
    let frame = &take_frames(&mut network)[0];
    assert_eq!(frame.bytes[50..52], [0, 0]);
    assert_eq!(frame.offload, Default::default());
    assert!(Ipv4Header::parse(&frame.bytes[14..], 40).is_ok(), "the IPv4 header's own sum is always there");
}

#[test]
fn a_packet_for_segmentation_says_its_whole_length_and_how_to_cut_it() {
    for (remote, header_bytes, ipv6) in [(IpAddr::V4(v4(2)), 54, false), (v6(2).into(), 74, true)] {
        let mut config = config(1);
        config.device.tx_checksum = TxChecksum::Partial;
        config.device.tcp_segmentation_bytes = 65000;
        let mut network = acquainted(&config);
        let mut path = path(&mut network, remote);
        let mut data = buffer(&network, &vec![1; 40_000]);
        send_tcp(&mut network, &mut path, Payload::Whole(&mut data), Some(1460)).unwrap();
        let frame = &take_frames(&mut network)[0];
        assert_eq!(
            frame.offload.segmentation(),
            Some(Segmentation { segment_bytes: 1460, header_bytes, ipv6 })
        );
        assert!(frame.offload.checksum().is_some());
        let length =
            if ipv6 { [frame.bytes[18], frame.bytes[19]] } else { [frame.bytes[16], frame.bytes[17]] };
        assert_eq!(u16::from_be_bytes(length), if ipv6 { 40_020 } else { 40_040 });
    }
}

#[test]
fn segments_beyond_the_mtu_are_refused() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    for (len, lower_mtu, expected) in [
        (1460, None, Ok(())),
        (1461, None, Err(Error::MessageTooLong)),
        (1000, Some(1039), Err(Error::MessageTooLong)),
        (1000, Some(1040), Ok(())),
    ] {
        path.mtu = lower_mtu.unwrap_or(1500);
        let mut data = buffer(&network, &vec![1; len]);
        assert_eq!(send_tcp(&mut network, &mut path, Payload::Whole(&mut data), None), expected, "{len}");
    }
}

#[test]
fn headers_go_into_the_payloads_headroom_unless_it_is_shared() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    let mut alone = buffer(&network, b"alone");
    let mut shared = buffer(&network, b"shared");
    let other = shared.clone();
    send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut alone)).unwrap();
    send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut shared)).unwrap();
    let segments: Vec<usize> = take_frames(&mut network).iter().map(|frame| frame.segments).collect();
    assert_eq!(segments, [1, 2]);
    assert_eq!(&other[..], b"shared");
}

#[test]
fn pieces_beyond_what_a_frame_takes_are_copied_together() {
    let mut network = acquainted(&config(1));
    let mut path = path(&mut network, v4(2));
    assert_eq!(network.max_pieces(), 3);
    for (count, segments) in [(3, 4), (4, 2), (18, 2)] {
        let mut pieces: PieceList = (0..count).map(|mark| buffer(&network, &[mark; 3])).collect();
        send_udp(&mut network, NOW, &mut path, Payload::Pieces(&mut pieces)).unwrap();
        let frame = &take_frames(&mut network)[0];
        assert_eq!(frame.segments, segments);
        let expected: Vec<u8> = (0..count).flat_map(|mark| [mark; 3]).collect();
        assert_eq!(frame.bytes[42..], expected);
    }
}

#[test]
fn a_full_queue_to_the_device_pushes_back_and_takes_nothing() {
    let mut network = acquainted(&StackConfig { transmit_queue_frames: 2, ..config(1) });
    let mut path = path(&mut network, v4(2));
    for _ in 0..2 {
        send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    }
    let mut data = buffer(&network, b"data");
    let refused = send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data));
    assert_eq!(refused, Err(Error::WouldBlock));
    assert_eq!(&data[..], b"data");
    assert!(data.is_unique());
    take_frames(&mut network);
    assert_eq!(send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data)), Ok(()));
}

#[test]
fn packets_to_ourselves_come_back_on_a_later_call() {
    for address in [
        IpAddr::V4(v4(1)),
        Ipv4Addr::LOCALHOST.into(),
        Ipv4Addr::new(127, 1, 2, 3).into(),
        v6(1).into(),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let mut network = network(&config(1));
        let mut path = path(&mut network, address);
        assert!(path.is_loop());
        let mut data = buffer(&network, b"data");
        send_udp(&mut network, NOW, &mut path, Payload::Whole(&mut data)).unwrap();
        assert!(network.frames().is_empty());
        assert!(network.needs_poll());
        assert_eq!(network.looped_packets(), 1);
        let Some(Ingress::Packet(packet)) = network.receive_looped(NOW) else { panic!() };
        assert_eq!((packet.source, packet.destination), (address, address));
        assert_eq!(packet.rest.bytes() + packet.head.len(), 12);
        assert!(!network.needs_poll());
        assert!(network.receive_looped(NOW).is_none());
    }
}

#[test]
fn too_many_packets_to_ourselves_are_lost_as_on_any_link() {
    let mut network = network(&StackConfig { loop_queue_packets: 3, ..config(1) });
    let mut path = path(&mut network, v4(1));
    for _ in 0..5 {
        send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    }
    assert_eq!(network.looped_packets(), 3);
    assert_eq!(network.counters().loop_queue_full, 2);
}

#[test]
fn a_medium_without_addresses_takes_bare_packets() {
    let mut config = config(1);
    config.device.medium = Medium::Ip;
    let mut network = network(&config);
    let mut path = path(&mut network, Ipv4Addr::new(203, 0, 113, 9));
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    let frames = take_frames(&mut network);
    assert_eq!(frames[0].bytes[0], 0x45);
    let (source, own) = (IpAddr::V4(v4(2)), IpAddr::V4(v4(1)));
    let packet = ip_packet(source, own, 17, &udp_datagram(source, own, (1, 2), b""));
    assert!(matches!(receive(&mut network, NOW, &packet), Ingress::Packet(_)));
}

#[test]
fn broadcasts_and_groups_need_no_neighbour() {
    for (remote, to) in [
        (IpAddr::V4(v4(255)), [0xff; 6]),
        (Ipv4Addr::new(224, 0, 0, 251).into(), [1, 0, 0x5e, 0, 0, 251]),
        (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(), [0x33, 0x33, 0, 0, 0, 0xfb]),
    ] {
        let mut network = network(&config(1));
        let mut path = path(&mut network, remote);
        send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
        assert_eq!(take_frames(&mut network)[0].bytes[..6], to, "{remote}");
    }
}

#[test]
fn packets_go_by_another_router_when_theirs_does_not_answer() {
    let mut config = config(1);
    config.routes = ["0.0.0.0/0 via 192.0.2.2 metric 5", "0.0.0.0/0 via 192.0.2.3 metric 1"]
        .map(|route| route.parse().unwrap())
        .to_vec();
    let mut network = acquainted(&config);
    let mut path = path(&mut network, Ipv4Addr::new(203, 0, 113, 9));
    send_udp(&mut network, NOW, &mut path, Payload::Empty).unwrap();
    let mut now = NOW;
    for _ in 0..80 {
        now = now.plus_nanos(100_000_000);
        network.poll(now);
        if network.next_error().is_some() {
            break;
        }
    }
    network.frames().clear();
    assert_eq!(send_udp(&mut network, now, &mut path, Payload::Empty), Ok(()));
    assert_eq!(take_frames(&mut network)[0].bytes[..6], hardware(2), "the other router");
}
