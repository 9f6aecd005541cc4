//! The straight way out makes the frames of the general one: three hosts send the same datagrams, one of them as a lone push
//! does, one into the batch, and one forgets each time what it knows of the last one's headers.

use std::fmt::Debug;
use std::time::Duration;

use libos::metrics::{Snapshot, SnapshotWriter};
use libos::module::Departure;
use libos::runtime::{TxChecksum, TxOffload};
use libos::{Buffer, PathMtuDiscovery};
use proptest::prelude::*;

use super::*;
use crate::network::testing::{framed, hardware, icmp_message, ip_packet, udp_datagram};
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Lone,
    Batch,
    General,
}

/// A destination behind a router.
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

/// A host with a socket.
struct Sender {
    way: Way,
    host: Host,
    id: UdpId,
    now: Instant,
    kept: Vec<Buffer>,
    /// What the device took.
    sent: Vec<(Vec<u8>, TxOffload)>,
    /// Frames that went as a lone push does.
    lone: usize,
}

/// How a payload is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Payload {
    Own,
    Kept,
    WithoutRoom,
    InPieces,
}

impl Sender {
    fn new(way: Way, checksum: TxChecksum, local: IpAddr) -> Self {
        let mut config = config(1);
        config.device.tx_checksum = checksum;
        config.transmit_queue_frames = 6;
        config.gateway_v4 = Some(v4(2));
        let mut host = Host::with(&config);
        let id = host.bind((local, 5000));
        let mut sender = Self { way, host, id, now: NOW, kept: Vec::new(), sent: Vec::new(), lone: 0 };
        (2..4).for_each(|number| sender.meet(number, number));
        sender.poll();
        sender
    }

    /// A host says which hardware address it has.
    fn meet(&mut self, number: u8, its_hardware: u8) {
        let request = ArpPacket {
            operation: Operation::Request,
            sender_hardware: hardware(its_hardware),
            sender_protocol: v4(number),
            target_hardware: [0; 6],
            target_protocol: v4(1),
        };
        self.receive(&request.compose_frame(ethernet::BROADCAST));
    }

    fn receive(&mut self, frame: &[u8]) {
        let ingress = receive(&mut self.host.network, self.now, frame);
        self.host.take(ingress);
    }

    /// Runs timers, and has the device take what waits.
    fn poll(&mut self) {
        self.host.network.poll(self.now);
        self.take_frames();
    }

    fn take_frames(&mut self) {
        let frames = take_frames(&mut self.host.network);
        self.sent.extend(frames.into_iter().map(|frame| (frame.bytes, frame.offload)));
    }

    fn data(&mut self, bytes: &[u8], payload: Payload) -> ScatterGather {
        let whole = buffer(&self.host.network, bytes);
        match payload {
            Payload::Own => whole.into(),
            Payload::Kept => {
                self.kept.push(whole.clone());
                whole.into()
            }
            Payload::WithoutRoom => Buffer::from(bytes.to_vec()).into(),
            Payload::InPieces => {
                let (one, two) = bytes.split_at(bytes.len() / 2);
                let mut data = ScatterGather::from(buffer(&self.host.network, one));
                data.push(buffer(&self.host.network, two));
                data
            }
        }
    }

    /// Sends a datagram that leaves at once: what the call said, and how much of the data is left.
    fn send_now(
        &mut self,
        to: Option<SocketAddr>,
        bytes: &[u8],
        payload: Payload,
    ) -> (Result<(), Error>, usize) {
        let mut data = self.data(bytes, payload);
        self.forget();
        let Self { host: Host { network, udp, .. }, id, now, .. } = self;
        if self.way == Way::Lone
            && network.queued_frames() == 0
            && let Some(frame) = udp.straight(*now, network, *id, to.as_ref(), &mut data)
        {
            assert!(data.is_empty() && frame.is_unique());
            self.sent.push((frame.to_vec(), TxOffload::default()));
            self.lone += 1;
            return (Ok(()), 0);
        }
        let sent = udp.send(*now, network, *id, to.as_ref(), &mut data);
        self.take_frames();
        (sent, data.len())
    }

    /// As [`Self::send_now`], but it waits for the next poll.
    fn send(&mut self, to: Option<SocketAddr>, bytes: &[u8], payload: Payload) -> (Result<(), Error>, usize) {
        let mut data = self.data(bytes, payload);
        self.forget();
        let Self { host: Host { network, udp, .. }, id, now, .. } = self;
        let sent = udp.send(*now, network, *id, to.as_ref(), &mut data);
        (sent, data.len())
    }

    /// What is known of the headers of the last datagram, where it is not to be used.
    fn forget(&mut self) {
        let Self { way, host: Host { udp, .. }, id, .. } = self;
        let socket = udp.sockets.in_use().get_mut(id.0).unwrap();
        if *way == Way::General
            && let Some(path) = socket.way.path_mut()
        {
            path.set_policy(socket.options.policy(path.remote));
        }
    }

    fn metrics(&self) -> Snapshot {
        let mut writer = SnapshotWriter::new();
        self.host.network.metrics(&mut writer);
        self.host.udp.metrics(&mut writer);
        writer.finish()
    }
}

struct Senders([Sender; 3]);

impl Senders {
    fn new(checksum: TxChecksum, local: IpAddr) -> Self {
        Self([Way::Lone, Way::Batch, Way::General].map(|way| Sender::new(way, checksum, local)))
    }

    /// Lets the same happen to all, which has to have the same outcome.
    fn all<T: Debug + PartialEq>(&mut self, what: impl Debug, happen: impl Fn(&mut Sender) -> T) -> T {
        let [lone, others @ ..] = &mut self.0;
        let result = happen(lone);
        for other in others {
            assert_eq!(result, happen(other), "{what:?}");
            assert_eq!(lone.sent, other.sent, "{what:?}");
            assert_eq!(lone.metrics(), other.metrics(), "{what:?}");
        }
        result
    }

    fn send(&mut self, to: Option<SocketAddr>, bytes: &[u8]) -> Result<(), Error> {
        self.all("send", |sender| sender.send_now(to, bytes, Payload::Own)).0
    }

    /// All frames that were sent since, and how many of them as lone pushes.
    fn sent(&mut self) -> (Vec<Vec<u8>>, usize) {
        self.all("poll", Sender::poll);
        let frames = self.0.each_mut().map(|sender| std::mem::take(&mut sender.sent));
        let [frames, ..] = frames;
        (frames.into_iter().map(|(bytes, _)| bytes).collect(), std::mem::take(&mut self.0[0].lone))
    }
}

#[test]
fn every_length_leaves_in_the_frames_of_the_general_way() {
    let to = SocketAddr::from((v4(2), 7));
    for checksum in [TxChecksum::Software, TxChecksum::Partial, TxChecksum::Unneeded] {
        for discovery in [PathMtuDiscovery::Wanted, PathMtuDiscovery::Never, PathMtuDiscovery::Always] {
            let mut senders = Senders::new(checksum, v4(1).into());
            let option = SocketOption::PathMtuDiscovery(discovery);
            senders.all("set", |sender| sender.host.set(sender.id, option)).unwrap();
            let bytes: Vec<u8> = (0..1600_u32).map(|at| (at * 31 % 251) as u8).collect();
            senders.send(Some(to), b"first").unwrap();
            assert_eq!(senders.sent().1, 0);
            for len in 0..1476 {
                let sent = senders.send(Some(to), &bytes[..len]);
                let fits = len <= 1472;
                assert_eq!(sent.is_ok(), fits || discovery != PathMtuDiscovery::Always, "{len}");
                let (frames, lone) = senders.sent();
                assert_eq!(frames.len(), if fits { 1 } else { 2 * usize::from(sent.is_ok()) }, "{len}");
                // None has what is empty in front of it, and one that is cut ends what is known.
                let known = discovery != PathMtuDiscovery::Never && checksum == TxChecksum::Unneeded;
                assert_eq!(lone == 1, known && fits && len > 0, "{len} {checksum:?} {discovery:?}");
            }
        }
    }
}

/// What happens between two datagrams, and whether the second one goes as a lone push all the same.
type Change<'a> = (&'a str, bool, &'a dyn Fn(&mut Sender));

/// The frame of an ICMP error about a datagram to port 7 of host 2.
fn error_about(remote: IpAddr, kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
    let us = v4(1).into();
    let quoted = ip_packet(us, remote, 17, &udp_datagram(us, remote, (5000, 7), b"quoted"));
    let body = [&rest, &quoted[..]].concat();
    framed(&ip_packet(v4(2).into(), us, 1, &icmp_message(v4(2).into(), us, kind, code, &body)))
}

fn set(sender: &mut Sender, option: SocketOption) {
    sender.host.set(sender.id, option).unwrap();
}

fn pass(sender: &mut Sender, seconds: u64) {
    for _ in 0..seconds {
        sender.now += Duration::from_secs(1);
        sender.poll();
    }
}

#[test]
fn what_changes_a_datagrams_headers_ends_the_straight_way() {
    let changes: [Change<'_>; 14] = [
        ("nothing", true, &|_| {}),
        ("a little time", true, &|sender| sender.now += Duration::from_millis(10)),
        ("an option that is read", true, &|sender| {
            sender.host.udp.option(sender.id, SocketOptionName::HopLimit).unwrap();
        }),
        ("the hop limit", false, &|sender| set(sender, SocketOption::HopLimit(3))),
        ("the traffic class", false, &|sender| set(sender, SocketOption::TrafficClass(0x28))),
        ("discovery", false, &|sender| {
            set(sender, SocketOption::PathMtuDiscovery(PathMtuDiscovery::Never));
        }),
        ("another peer", false, &|sender| {
            let Sender { host: Host { network, udp, .. }, id, now, .. } = sender;
            udp.connect(*now, network, *id, (v4(3), 7).into()).unwrap();
        }),
        ("a smaller path", false, &|sender| sender.receive(&error_about(v4(2).into(), 3, 4, [0, 0, 2, 88]))),
        ("a closed port", false, &|sender| sender.receive(&error_about(v4(2).into(), 3, 3, [0; 4]))),
        ("another hardware address", false, &|sender| sender.meet(2, 7)),
        ("the hardware address once more", true, &|sender| sender.meet(2, 2)),
        ("another host's hardware address", false, &|sender| sender.meet(3, 7)),
        ("silence", false, &|sender| pass(sender, 60)),
        ("a datagram to elsewhere", false, &|sender| {
            sender.send_now(Some((v4(3), 7).into()), b"elsewhere", Payload::Own).0.unwrap();
        }),
    ];
    for connected in [true, false] {
        for (what, straight, change) in changes {
            let mut senders = Senders::new(TxChecksum::Unneeded, v4(1).into());
            let peer = SocketAddr::from((v4(2), 7));
            let to = (!connected).then_some(peer);
            if connected {
                senders.all("connect", |sender| sender.host.connect(sender.id, peer)).unwrap();
            }
            senders.send(to, b"first").unwrap();
            senders.sent();
            senders.all(what, change);
            senders.sent();
            let _ = senders.send(to, &[7; 600]);
            let (_, lone) = senders.sent();
            // Who has no peer is not told of a closed port, and goes on; what is not looked at again costs nothing but a
            // general way too many.
            if straight {
                assert_eq!(lone, 1, "{what}, connected {connected}");
            } else if connected || what != "a closed port" && what != "another peer" {
                assert_eq!(lone, 0, "{what}, connected {connected}");
            }
            let _ = senders.send(to, &[8; 600]);
            senders.sent();
        }
    }
}

#[test]
fn an_error_is_told_once_and_the_datagram_stays_with_its_sender() {
    let mut senders = Senders::new(TxChecksum::Unneeded, v4(1).into());
    let peer = SocketAddr::from((v4(2), 7));
    senders.all("connect", |sender| sender.host.connect(sender.id, peer)).unwrap();
    (0..3).for_each(|_| senders.send(None, b"first").unwrap());
    senders.all("refused", |sender| sender.receive(&error_about(v4(2).into(), 3, 3, [0; 4])));
    assert_eq!(
        senders.all("told", |sender| sender.send_now(None, b"second", Payload::Own)),
        (Err(Error::ConnectionRefused), 6)
    );
    senders.send(None, b"second").unwrap();
    senders.send(None, b"third").unwrap();
    assert_eq!(senders.sent().1, 3, "the second, the third, and the last");
}

#[test]
fn what_could_not_be_sent_is_in_nobodys_way_later() {
    let to = SocketAddr::from((v4(2), 7));
    type Failure<'a> = (&'a str, &'a dyn Fn(&mut Sender) -> Error);
    let failures: [Failure<'_>; 3] = [
        ("the device's queue is full", &|sender| {
            let results = std::iter::repeat_with(|| sender.send(Some(to), b"waits", Payload::Own).0);
            let error = results.take(10).find_map(Result::err).unwrap();
            sender.poll();
            error
        }),
        ("too long", &|sender| sender.send_now(Some(to), &[7; 65_535], Payload::Own).0.unwrap_err()),
        ("to nowhere", &|sender| {
            sender.send_now(Some((v4(2), 0).into()), b"nowhere", Payload::Own).0.unwrap_err()
        }),
    ];
    for (what, fail) in failures {
        let mut senders = Senders::new(TxChecksum::Unneeded, v4(1).into());
        (0..2).for_each(|_| senders.send(Some(to), b"before").unwrap());
        assert_eq!(senders.sent().1, 1);
        senders.all(what, fail);
        // The first one may find the way again.
        (0..3).for_each(|_| senders.send(Some(to), b"after").unwrap());
        assert!(senders.sent().1 >= 2, "{what}");
    }
}

#[test]
fn only_an_own_payload_with_room_to_a_port_of_ipv4_goes_as_a_lone_push() {
    let (to, to_v6) = (SocketAddr::from((v4(2), 7)), SocketAddr::from((v6(2), 7)));
    let mut senders = Senders::new(TxChecksum::Unneeded, v4(1).into());
    for (payload, expected) in
        [(Payload::Own, 1), (Payload::Kept, 0), (Payload::WithoutRoom, 0), (Payload::InPieces, 0)]
    {
        senders.send(Some(to), b"first").unwrap();
        senders.sent();
        senders.all(payload, |sender| sender.send_now(Some(to), b"payload", payload)).0.unwrap();
        assert_eq!(senders.sent().1, expected, "{payload:?}");
        assert!(senders.0.iter().all(|sender| sender.kept.iter().all(|kept| &kept[..] == b"payload")));
    }
    for wrong in [SocketAddr::from((v4(2), 0)), to_v6] {
        assert!(senders.send(Some(wrong), b"payload").is_err(), "{wrong}");
        assert_eq!(senders.sent(), (vec![], 0));
    }
    assert_eq!(senders.send(None, b"payload"), Err(Error::NotConnected));
}

#[test]
fn a_socket_of_ipv6_sends_nothing_straight() {
    let mut senders = Senders::new(TxChecksum::Unneeded, std::net::Ipv6Addr::UNSPECIFIED.into());
    let mapped = SocketAddr::from((v4(2).to_ipv6_mapped(), 7));
    for to in [mapped, mapped, SocketAddr::from((v4(2), 7))] {
        senders.send(Some(to), b"payload").unwrap();
        senders.sent();
        senders.all(to, |sender| sender.send_now(Some(to), b"payload", Payload::Own)).0.unwrap();
        let (frames, lone) = senders.sent();
        assert!(!frames.is_empty() && lone == 0, "{to}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(Departure, Option<(IpAddr, u16)>, usize, Payload),
    Set(SocketOption),
    Connect(IpAddr),
    Refused(IpAddr),
    TooBig(IpAddr, u16),
    Redirect(u8),
    Meet(u8, u8),
    Receive,
    Poll,
    Pass(u64),
}

fn remote() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        6 => Just(v4(2).into()),
        2 => Just(v4(3).into()),
        1 => Just(v4(4).into()),
        1 => Just(FAR),
        1 => Just(v6(2).into()),
        1 => Just(IpAddr::from([255; 4])),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    use PathMtuDiscovery::{Always, Never, Probe, Wanted};
    let to = prop::option::weighted(0.7, (remote(), prop_oneof![9 => 7..9_u16, 1 => Just(0)]));
    let len = prop_oneof![6 => 1..40_usize, 1 => Just(0), 2 => 1400..1600_usize, 1 => 0..4000_usize];
    let departure = prop_oneof![2 => Just(Departure::Now), 1 => Just(Departure::WithPoll)];
    let payload = prop_oneof![
        6 => Just(Payload::Own),
        1 => Just(Payload::Kept),
        1 => Just(Payload::WithoutRoom),
        1 => Just(Payload::InPieces),
    ];
    let option = prop_oneof![
        (0..4_u8).prop_map(SocketOption::HopLimit),
        any::<u8>().prop_map(SocketOption::TrafficClass),
        any::<bool>().prop_map(SocketOption::Broadcast),
        prop_oneof![Just(Always), Just(Never), Just(Probe), Just(Wanted)]
            .prop_map(SocketOption::PathMtuDiscovery),
    ];
    prop_oneof![
        20 => (departure, to, len, payload)
            .prop_map(|(departure, to, len, payload)| Step::Send(departure, to, len, payload)),
        2 => option.prop_map(Step::Set),
        1 => remote().prop_map(Step::Connect),
        1 => remote().prop_map(Step::Refused),
        1 => (remote(), 500..1600_u16).prop_map(|(remote, mtu)| Step::TooBig(remote, mtu)),
        1 => (2..5_u8).prop_map(Step::Redirect),
        2 => (2..5_u8, 2..5_u8).prop_map(|(host, hardware)| Step::Meet(host, hardware)),
        1 => Just(Step::Receive),
        12 => Just(Step::Poll),
        2 => prop_oneof![0..2_000_u64, 0..50_000_u64].prop_map(Step::Pass),
    ]
}

fn take(sender: &mut Sender, step: &Step) -> String {
    match *step {
        Step::Send(departure, to, len, payload) => {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            let to = to.map(SocketAddr::from);
            format!(
                "{:?}",
                match departure {
                    Departure::Now => sender.send_now(to, &bytes, payload),
                    Departure::WithPoll => sender.send(to, &bytes, payload),
                }
            )
        }
        Step::Set(option) => format!("{:?}", sender.host.set(sender.id, option)),
        Step::Connect(remote) => {
            let Sender { host: Host { network, udp, .. }, id, now, .. } = sender;
            format!("{:?}", udp.connect(*now, network, *id, (remote, 7).into()))
        }
        Step::Refused(remote) if remote.is_ipv4() => {
            sender.receive(&error_about(remote, 3, 3, [0; 4]));
            String::new()
        }
        Step::TooBig(remote, mtu) if remote.is_ipv4() => {
            let [high, low] = mtu.to_be_bytes();
            sender.receive(&error_about(remote, 3, 4, [0, 0, high, low]));
            String::new()
        }
        Step::Refused(_) | Step::TooBig(..) => String::new(),
        Step::Redirect(router) => {
            sender.receive(&error_about(FAR, 5, 1, v4(router).octets()));
            String::new()
        }
        Step::Meet(host, its_hardware) => {
            sender.meet(host, its_hardware);
            String::new()
        }
        Step::Receive => format!("{:?}", sender.host.udp.receive(sender.id).map(drop)),
        Step::Poll => {
            sender.poll();
            String::new()
        }
        Step::Pass(millis) => {
            sender.now += Duration::from_millis(millis);
            String::new()
        }
    }
}

proptest! {
    #[test]
    fn whatever_happens_all_ways_send_the_same(
        checksum in prop_oneof![
            2 => Just(TxChecksum::Unneeded),
            1 => Just(TxChecksum::Software),
            1 => Just(TxChecksum::Partial),
        ],
        local in prop_oneof![Just(IpAddr::from(v4(1))), Just(IpAddr::from([0; 4])), Just(IpAddr::from([0; 16]))],
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut senders = Senders::new(checksum, local);
        for step in steps {
            senders.all(&step, |sender| take(sender, &step));
        }
        senders.all("the end", Sender::poll);
    }
}
