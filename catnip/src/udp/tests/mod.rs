//! Sockets of two hosts on one wire.

mod groups;
mod path_mtu;
mod straight;

use std::net::{IpAddr, SocketAddr};

use libos::{Error, Instant, PopLimit, ScatterGather, SocketOption, SocketOptionName};

use super::{Datagram, UdpConfig, UdpLayer};
use crate::events::{EventQueue, Readiness, SocketId, UdpId};
use crate::network::testing::{buffer, config, exchange, introduce, network, receive, take_frames, v4, v6};
use crate::network::{Ingress, Network};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::waiting::{Nobody, Waiting};

const NOW: Instant = Instant::from_millis(1);

struct Host {
    network: Network,
    udp: UdpLayer,
    events: EventQueue,
}

impl Host {
    fn new(number: u8) -> Self {
        Self::with(&config(number))
    }

    fn with(config: &StackConfig) -> Self {
        let udp = UdpLayer::new(&config.udp, None, &mut Random::new(3));
        Self { network: network(config), udp, events: EventQueue::new() }
    }

    fn bind(&mut self, local: impl Into<SocketAddr>) -> UdpId {
        self.udp.bind(&self.network, local.into()).unwrap()
    }

    fn connect(&mut self, id: UdpId, remote: impl Into<SocketAddr>) -> Result<(), Error> {
        self.udp.connect(NOW, &mut self.network, id, remote.into())
    }

    fn send(&mut self, id: UdpId, to: Option<SocketAddr>, bytes: &[u8]) -> Result<(), Error> {
        let mut data = ScatterGather::from(buffer(&self.network, bytes));
        self.udp.send(NOW, &mut self.network, id, to.as_ref(), &mut data)
    }

    fn set(&mut self, id: UdpId, option: SocketOption) -> Result<(), Error> {
        self.udp.set_option(&mut self.network, id, option)
    }

    fn take(&mut self, ingress: Ingress) {
        match ingress {
            Ingress::Packet(packet) => {
                self.udp.on_packet(NOW, &mut self.network, &mut self.events, &mut Nobody, packet);
            }
            Ingress::Error(error) => self.udp.on_error(&mut self.events, &error),
            Ingress::Consumed => {}
        }
    }

    fn received(&mut self, id: UdpId) -> Option<(SocketAddr, Vec<u8>)> {
        let Datagram { from, data } = self.udp.receive(id).unwrap()?;
        Some((from, data.to_vec()))
    }

    fn readiness(&mut self) -> Vec<(SocketId, Readiness)> {
        std::iter::from_fn(|| self.events.pop()).map(|event| (event.socket, event.readiness)).collect()
    }
}

/// Carries frames between the hosts until there are none.
fn settle(one: &mut Host, two: &mut Host) {
    let Host { network: first, udp: first_udp, events: first_events } = one;
    let Host { network: second, udp: second_udp, events: second_events } = two;
    exchange(NOW, [first, second], |host, network, ingress| {
        let (udp, events) = if host == 0 {
            (&mut *first_udp, &mut *first_events)
        } else {
            (&mut *second_udp, &mut *second_events)
        };
        match ingress {
            Ingress::Packet(packet) => udp.on_packet(NOW, network, events, &mut Nobody, packet),
            Ingress::Error(error) => udp.on_error(events, &error),
            Ingress::Consumed => {}
        }
    });
}

#[test]
fn datagrams_go_there_and_back_by_either_family() {
    for (one_address, two_address, wildcard) in
        [(IpAddr::V4(v4(1)), IpAddr::V4(v4(2)), "0.0.0.0:0"), (v6(1).into(), v6(2).into(), "[::]:0")]
    {
        let (mut one, mut two) = (Host::new(1), Host::new(2));
        let server = two.bind((two_address, 7));
        let client = one.bind(wildcard.parse::<SocketAddr>().unwrap());
        one.send(client, Some((two_address, 7).into()), b"ping").unwrap();
        settle(&mut one, &mut two);
        let (from, data) = two.received(server).unwrap();
        let client_port = one.udp.local_address(client).unwrap().port();
        assert_eq!((from, &data[..]), ((one_address, client_port).into(), &b"ping"[..]));
        two.send(server, Some(from), b"pong").unwrap();
        settle(&mut one, &mut two);
        assert_eq!(one.received(client), Some(((two_address, 7).into(), b"pong".to_vec())));
        assert_eq!(one.received(client), None);
        assert_eq!(one.readiness(), [(SocketId::Udp(client), Readiness::READABLE)]);
    }
}

/// Waits for so many datagrams, and keeps them with their socket's number.
struct Patient {
    waits: usize,
    got: Vec<(u64, Vec<u8>)>,
}

impl Waiting for Patient {
    type Ticket = u64;

    fn offer_datagram(
        &mut self,
        user_data: u64,
        _from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather> {
        let Some(left) = self.waits.checked_sub(1) else { return Err(data) };
        self.waits = left;
        self.got.push((user_data, data.to_vec()));
        Ok(())
    }

    fn offer_data(&mut self, _user_data: u64, data: ScatterGather) -> Result<(), ScatterGather> {
        Err(data)
    }

    fn next_for_data(&mut self, _user_data: u64) -> Option<(u64, PopLimit)> {
        None
    }

    fn data(&mut self, _user_data: u64, _data: ScatterGather) {}
}

#[test]
fn datagrams_go_to_who_waits_first_and_into_the_queue_behind() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let server = two.bind((v4(2), 7));
    two.udp.set_user_data(&mut two.events, server, 42);
    let client = one.bind((v4(1), 0));
    // Both learn each other's hardware address.
    one.send(client, Some((v4(2), 7).into()), b"first").unwrap();
    settle(&mut one, &mut two);
    assert_eq!(two.received(server).unwrap().1, b"first");
    two.readiness();
    for datagram in [&b"a"[..], b"", b"b", b"c", b"d"] {
        one.send(client, Some((v4(2), 7).into()), datagram).unwrap();
    }
    let mut patient = Patient { waits: 3, got: Vec::new() };
    for (index, frame) in take_frames(&mut one.network).iter().enumerate() {
        if index == 4 {
            // One who comes late gets what is queued, not what comes.
            patient.waits = 1;
        }
        let Ingress::Packet(packet) = receive(&mut two.network, NOW, &frame.bytes) else { panic!() };
        two.udp.on_packet(NOW, &mut two.network, &mut two.events, &mut patient, packet);
    }
    assert_eq!(patient.got, [(42, b"a".to_vec()), (42, Vec::new()), (42, b"b".to_vec())]);
    assert_eq!(patient.waits, 1);
    assert_eq!(two.readiness(), [(SocketId::Udp(server), Readiness::READABLE)]);
    let queued: Vec<_> = std::iter::from_fn(|| two.received(server)).map(|(_, data)| data).collect();
    assert_eq!(queued, [b"c", b"d"]);
    assert_eq!(two.udp.counters().in_datagrams, 6);
}

#[test]
fn empty_largest_and_oversize_datagrams() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let server = two.bind((v4(2), 7));
    let client = one.bind((v4(1), 0));
    for (len, fits) in [(0, true), (1472, true), (1473, true), (65507, true), (65508, false)] {
        let data = vec![0x5a; len];
        let sent = one.send(client, Some((v4(2), 7).into()), &data);
        assert_eq!(sent, if fits { Ok(()) } else { Err(Error::MessageTooLong) }, "{len}");
        settle(&mut one, &mut two);
        assert_eq!(two.received(server).map(|(_, data)| data), fits.then_some(data), "{len}");
    }
}

#[test]
fn a_datagram_of_many_segments_arrives_whole() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let server = two.bind((v4(2), 7));
    let client = one.bind((v4(1), 0));
    for count in [2, 3, 4, 40] {
        let mut data: ScatterGather = (0..count).map(|mark| buffer(&one.network, &[mark; 5])).collect();
        one.udp.send(NOW, &mut one.network, client, Some(&(v4(2), 7).into()), &mut data).unwrap();
        assert!(data.is_empty());
        settle(&mut one, &mut two);
        let expected: Vec<u8> = (0..count).flat_map(|mark| [mark; 5]).collect();
        assert_eq!(two.received(server).unwrap().1, expected);
    }
    assert_eq!(one.network.arena().stats().live_buffers, 0);
}

#[test]
fn what_cannot_be_sent_stays_with_the_caller() {
    let mut one = Host::with(&StackConfig { transmit_queue_frames: 1, ..config(1) });
    let client = one.bind((v4(1), 0));
    one.set(client, SocketOption::Broadcast(true)).unwrap();
    let to = Some((v4(255), 7).into());
    one.send(client, to, b"fills the queue").unwrap();
    for segments in [1, 2] {
        let mut data: ScatterGather = (0..segments).map(|_| buffer(&one.network, b"abc")).collect();
        let sent = one.udp.send(NOW, &mut one.network, client, to.as_ref(), &mut data);
        assert_eq!(sent, Err(Error::WouldBlock));
        assert_eq!((data.segments(), data.len()), (segments, segments * 3));
    }
    take_frames(&mut one.network);
    assert_eq!(one.send(client, to, b"again"), Ok(()));
}

/// The first goes the general way, which later ones are spared: with nobody else holding the data, with the sender
/// keeping it, and without memory for headers.
#[test]
fn data_that_its_sender_keeps_arrives_and_stays_as_it_is() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let server = two.bind((v4(2), 7));
    let client = one.bind((v4(1), 9));
    let to = Some((v4(2), 7).into());
    let kept = buffer(&one.network, b"kept");
    for bytes in [&b"first"[..], b"second"] {
        one.send(client, to, bytes).unwrap();
        settle(&mut one, &mut two);
        assert_eq!(two.received(server).unwrap().1, bytes);
    }
    for _ in 0..3 {
        let mut data = ScatterGather::from(kept.clone());
        one.udp.send(NOW, &mut one.network, client, to.as_ref(), &mut data).unwrap();
        assert!(data.is_empty());
    }
    let hoard: Vec<_> = std::iter::from_fn(|| one.network.arena().allocate(1)).collect();
    let mut data = ScatterGather::from(kept.clone());
    let sent = one.udp.send(NOW, &mut one.network, client, to.as_ref(), &mut data);
    assert_eq!((sent, data.to_vec()), (Err(Error::NoBuffers), b"kept".to_vec()));
    drop((hoard, data));
    settle(&mut one, &mut two);
    for _ in 0..3 {
        assert_eq!(two.received(server).unwrap().1, b"kept");
    }
    assert_eq!((two.received(server), &kept[..]), (None, &b"kept"[..]));
}

#[test]
fn addresses_that_cannot_be_bound_are_refused() {
    let mut one = Host::new(1);
    one.bind((v4(1), 7));
    let all: SocketAddr = "0.0.0.0:8".parse().unwrap();
    one.bind(all);
    for (local, expected) in [
        ("192.0.2.1:7", Some(Error::AddressInUse)),
        ("0.0.0.0:7", Some(Error::AddressInUse)),
        ("[::]:7", None),
        ("192.0.2.1:8", Some(Error::AddressInUse)),
        ("127.0.0.1:8", Some(Error::AddressInUse)),
        ("192.0.2.9:9", Some(Error::AddressNotAvailable)),
        ("[2001:db8::9]:9", Some(Error::AddressNotAvailable)),
        ("127.0.0.1:7", None),
        ("[2001:db8::1]:8", None),
        ("[::ffff:192.0.2.1]:10", None),
    ] {
        let bound = one.udp.bind(&one.network, local.parse().unwrap());
        assert_eq!(bound.err(), expected, "{local}");
    }
}

#[test]
fn a_closed_sockets_port_and_key_are_free_for_others() {
    let mut one = Host::new(1);
    let first = one.bind((v4(1), 7));
    let other = one.bind("127.0.0.1:7".parse::<SocketAddr>().unwrap());
    one.udp.close(&mut one.network, &mut one.events, first);
    one.udp.close(&mut one.network, &mut one.events, first);
    let second = one.bind((v4(1), 7));
    assert_ne!(first, second);
    assert_eq!(one.udp.local_address(first), Err(Error::BadDescriptor));
    assert_eq!(one.udp.receive(first).err(), Some(Error::BadDescriptor));
    assert_eq!(one.udp.local_address(other).map(|local| local.port()), Ok(7));
    one.udp.close(&mut one.network, &mut one.events, other);
    one.udp.close(&mut one.network, &mut one.events, second);
    assert!(one.udp.is_empty());
}

#[test]
fn ephemeral_ports_are_random_within_their_range_and_end() {
    let udp = UdpConfig { ephemeral_low: 50_000, ephemeral_high: 50_009, ..UdpConfig::default() };
    let mut one = Host::with(&StackConfig { udp, ..config(1) });
    let ids: Vec<UdpId> = (0..10).map(|_| one.bind((v4(1), 0))).collect();
    let ports: Vec<u16> = ids.iter().map(|id| one.udp.local_address(*id).unwrap().port()).collect();
    let mut sorted = ports.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (50_000..=50_009).collect::<Vec<_>>());
    assert_ne!(ports, sorted);
    let refused = one.udp.bind(&one.network, (v4(1), 0).into());
    assert_eq!(refused, Err(Error::AddressNotAvailable));
}

#[test]
fn a_full_table_refuses_one_more() {
    let udp = UdpConfig { max_sockets: 2, ..UdpConfig::default() };
    let mut one = Host::with(&StackConfig { udp, ..config(1) });
    one.bind((v4(1), 0));
    one.bind((v4(1), 0));
    assert_eq!(one.udp.bind(&one.network, (v4(1), 0).into()), Err(Error::TooManyConnections));
}

#[test]
fn a_closed_port_refuses_a_connected_sender_at_its_next_call() {
    for (one_address, two_address) in [(IpAddr::V4(v4(1)), IpAddr::V4(v4(2))), (v6(1).into(), v6(2).into())] {
        let (mut one, mut two) = (Host::new(1), Host::new(2));
        let client = one.bind((one_address, 0));
        one.connect(client, (two_address, 7)).unwrap();
        one.send(client, None, b"anybody?").unwrap();
        settle(&mut one, &mut two);
        assert_eq!(two.udp.counters().no_ports, 1);
        assert_eq!(one.readiness(), [(SocketId::Udp(client), Readiness::READABLE)]);
        assert_eq!(one.udp.receive(client).err(), Some(Error::ConnectionRefused));
        assert_eq!(one.received(client), None);
        one.send(client, None, b"again").unwrap();
        settle(&mut one, &mut two);
        assert_eq!(one.send(client, None, b"and again"), Err(Error::ConnectionRefused));
        assert_eq!(
            one.udp.option(client, SocketOptionName::PendingError),
            Ok(SocketOption::PendingError(None))
        );
    }
}

#[test]
fn a_sender_without_a_peer_is_not_told_of_a_closed_port() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let client = one.bind((v4(1), 0));
    one.send(client, Some((v4(2), 7).into()), b"anybody?").unwrap();
    settle(&mut one, &mut two);
    assert!(!one.udp.is_readable(client));
    assert_eq!(one.received(client), None);
}

#[test]
fn a_connected_socket_hears_its_peer_alone() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let client = one.bind("0.0.0.0:5000".parse::<SocketAddr>().unwrap());
    let (peer, stranger) = (two.bind((v4(2), 7)), two.bind((v4(2), 8)));
    one.connect(client, (v4(2), 7)).unwrap();
    assert_eq!(one.udp.local_address(client), Ok((v4(1), 5000).into()));
    assert_eq!(one.udp.remote_address(client), Ok((v4(2), 7).into()));
    for (id, mark) in [(stranger, b"no"), (peer, b"ok")] {
        two.send(id, Some((v4(1), 5000).into()), mark).unwrap();
        settle(&mut one, &mut two);
    }
    assert_eq!(one.received(client).unwrap().1, b"ok");
    assert_eq!(one.received(client), None);
    assert_eq!(one.udp.counters().no_ports, 1);
}

#[test]
fn connected_sockets_share_a_port_with_each_other_and_with_one_that_hears_everybody() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let mut connected = Vec::new();
    for peer_port in 1000..1100 {
        let id = one.bind((v4(1), 53));
        one.connect(id, (v4(2), peer_port)).unwrap();
        connected.push((id, peer_port));
    }
    let anybody = one.bind((v4(1), 53));
    for (id, peer_port) in connected.iter().copied().chain([(anybody, 2000)]) {
        let peer = two.bind((v4(2), peer_port));
        two.send(peer, Some((v4(1), 53).into()), b"for you").unwrap();
        settle(&mut one, &mut two);
        assert_eq!(one.received(id), Some(((v4(2), peer_port).into(), b"for you".to_vec())));
    }
    let again = one.bind("127.0.0.1:53".parse::<SocketAddr>().unwrap());
    one.udp.close(&mut one.network, &mut one.events, again);
    for (id, _) in connected {
        one.udp.close(&mut one.network, &mut one.events, id);
    }
    assert_eq!(one.udp.len(), 1);
}

#[test]
fn two_sockets_cannot_be_connected_in_the_same_way() {
    let mut one = Host::new(1);
    let first = one.bind((v4(1), 53));
    one.connect(first, (v4(2), 7)).unwrap();
    one.connect(first, (v4(2), 7)).unwrap();
    let second = one.bind((v4(1), 53));
    assert_eq!(one.connect(second, (v4(2), 7)), Err(Error::AddressInUse));
    one.connect(second, (v4(2), 8)).unwrap();
    one.connect(first, (v4(2), 9)).unwrap();
    assert_eq!(one.connect(second, (v4(2), 7)), Ok(()));
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let mut one = Host::new(1);
    let id = one.bind((v4(1), 0));
    assert_eq!(one.send(id, None, b"x"), Err(Error::NotConnected));
    assert_eq!(one.send(id, Some((v4(2), 0).into()), b"x"), Err(Error::InvalidArgument));
    assert_eq!(one.send(id, Some((v6(2), 7).into()), b"x"), Err(Error::InvalidArgument));
    assert_eq!(one.connect(id, (v4(2), 0)), Err(Error::InvalidArgument));
    assert_eq!(one.connect(id, (v6(2), 7)), Err(Error::InvalidArgument));
    assert_eq!(one.udp.remote_address(id), Err(Error::NotConnected));
    let zero = one.udp.set_option(&mut one.network, id, SocketOption::HopLimit(0));
    assert_eq!(zero, Err(Error::InvalidArgument));
    let outside = "203.0.113.1:7".parse().unwrap();
    assert_eq!(one.send(id, Some(outside), b"x"), Err(Error::NetworkUnreachable));
}

#[test]
fn a_full_receive_queue_drops_what_is_new_by_number_and_by_memory() {
    let small = UdpConfig { receive_queue_datagrams: 3, ..UdpConfig::default() };
    let tight = UdpConfig { receive_queue_bytes: 5000, ..UdpConfig::default() };
    for (udp, data_len, kept) in [(small, 1, 3..=3), (tight, 1400, 1..=3)] {
        let mut two = Host::with(&StackConfig { udp, ..config(2) });
        let mut one = Host::new(1);
        let server = two.bind((v4(2), 7));
        let client = one.bind((v4(1), 0));
        for mark in 0..10_u8 {
            one.send(client, Some((v4(2), 7).into()), &vec![mark; data_len]).unwrap();
        }
        settle(&mut one, &mut two);
        let marks: Vec<u8> = std::iter::from_fn(|| two.received(server)).map(|(_, data)| data[0]).collect();
        assert!(kept.contains(&marks.len()), "{marks:?}");
        assert_eq!(marks, (0..10).take(marks.len()).collect::<Vec<u8>>());
        assert_eq!(two.udp.counters().receive_overflows, 10 - marks.len() as u64);
        one.send(client, Some((v4(2), 7).into()), b"room again").unwrap();
        settle(&mut one, &mut two);
        assert!(two.received(server).is_some());
        assert_eq!(two.network.arena().stats().live_buffers, 0);
    }
}

#[test]
fn datagrams_that_the_device_joined_come_out_one_by_one() {
    use crate::network::testing::{framed, ip_packet, udp_datagram};
    use libos::RxFrame;
    let data: Vec<u8> = (0..25).collect();
    for cut in [67, 50, 42 + 10, 42 + 3] {
        let mut one = Host::new(1);
        let server = one.bind((v4(1), 7));
        let datagram = udp_datagram(v4(2).into(), v4(1).into(), (9, 7), &data);
        let frame = framed(&ip_packet(v4(2).into(), v4(1).into(), 17, &datagram));
        let (head, rest) = frame.split_at(cut);
        let mut received = RxFrame { segment_bytes: 10, ..RxFrame::from(buffer(&one.network, head)) };
        received.rest.extend((!rest.is_empty()).then(|| buffer(&one.network, rest)));
        let ingress = one.network.receive(NOW, received);
        one.take(ingress);
        let datagrams: Vec<Vec<u8>> =
            std::iter::from_fn(|| one.received(server)).map(|(_, data)| data).collect();
        assert_eq!(datagrams, [&data[..10], &data[10..20], &data[20..]], "cut at {cut}");
        assert_eq!(one.network.arena().stats().live_buffers, 0);
    }
}

#[test]
fn broadcasts_reach_a_socket_on_all_addresses() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let bound = two.bind((v4(2), 7));
    let all = two.bind("0.0.0.0:8".parse::<SocketAddr>().unwrap());
    let client = one.bind((v4(1), 0));
    one.set(client, SocketOption::Broadcast(true)).unwrap();
    for port in [7, 8] {
        one.send(client, Some((v4(255), port).into()), b"all").unwrap();
    }
    settle(&mut one, &mut two);
    assert_eq!(two.received(bound), None);
    assert_eq!(two.received(all).unwrap().1, b"all");
    assert_eq!(two.network.counters().icmp_out_destination_errors, 0, "no error about a broadcast");
}

#[test]
fn a_socket_reaches_another_on_the_same_host() {
    let mut one = Host::new(1);
    for address in ["192.0.2.1", "127.0.0.1", "[::1]", "[2001:db8::1]"] {
        let server = one.bind(format!("{address}:7").parse::<SocketAddr>().unwrap());
        let client = one.bind(format!("{address}:0").parse::<SocketAddr>().unwrap());
        one.send(client, Some(one.udp.local_address(server).unwrap()), b"me").unwrap();
        let ingress = one.network.receive_looped(NOW).unwrap();
        one.take(ingress);
        let from = one.udp.local_address(client).unwrap();
        assert_eq!(one.received(server), Some((from, b"me".to_vec())));
        one.udp.close(&mut one.network, &mut one.events, server);
        one.connect(client, (from.ip(), 7)).unwrap();
        one.send(client, None, b"gone?").unwrap();
        while let Some(ingress) = one.network.receive_looped(NOW) {
            one.take(ingress);
        }
        assert_eq!(one.udp.receive(client).err(), Some(Error::ConnectionRefused), "{address}");
    }
}

#[test]
fn a_smaller_path_is_learned_from_icmp() {
    use crate::network::testing::{framed, icmp_message, ip_packet};
    let mut one = Host::new(1);
    let client = one.bind((v6(1), 5000));
    one.connect(client, (v6(2), 7)).unwrap();
    let quoted = ip_packet(v6(1).into(), v6(2).into(), 17, &[0x13, 0x88, 0, 7, 0, 9, 0, 0, 1]);
    let body = [&[0, 0, 5, 20][..], &quoted].concat();
    let message = icmp_message(v6(2).into(), v6(1).into(), 2, 0, &body);
    let frame = framed(&ip_packet(v6(2).into(), v6(1).into(), 58, &message));
    for expected in [Some(Error::MessageTooLong), None] {
        let ingress = receive(&mut one.network, NOW, &frame);
        one.take(ingress);
        assert_eq!(one.udp.receive(client).err(), expected, "told once");
    }
    assert_eq!(one.send(client, None, &[0; 1300 - 48]), Ok(()));
    one.network.poll(NOW);
    for (len, parts) in [(1300 - 48, 1), (1301 - 48, 2)] {
        introduce(&mut one.network, NOW);
        assert_eq!(one.send(client, None, &vec![0; len]), Ok(()));
        assert_eq!(take_frames(&mut one.network).len(), parts, "{len} bytes");
    }
}

#[test]
fn events_carry_the_sockets_number_and_end_with_it() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let (first, second) = (two.bind((v4(2), 7)), two.bind((v4(2), 8)));
    two.udp.set_user_data(&mut two.events, first, 11);
    let client = one.bind((v4(1), 0));
    for port in [7, 8, 7] {
        one.send(client, Some((v4(2), port).into()), b"x").unwrap();
    }
    settle(&mut one, &mut two);
    two.udp.set_user_data(&mut two.events, first, 12);
    two.udp.close(&mut two.network, &mut two.events, second);
    let events: Vec<_> = std::iter::from_fn(|| two.events.pop()).collect();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].socket, events[0].user_data), (SocketId::Udp(first), 12));
}

#[test]
fn the_hop_limit_is_the_sockets_own() {
    let mut one = Host::new(1);
    let client = one.bind((v4(1), 0));
    one.set(client, SocketOption::HopLimit(3)).unwrap();
    one.set(client, SocketOption::Broadcast(true)).unwrap();
    one.send(client, Some((v4(255), 7).into()), b"x").unwrap();
    assert_eq!(take_frames(&mut one.network)[0].bytes[22], 3);
}
