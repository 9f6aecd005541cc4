//! Two stacks on one wire, driven by hand: what one frame or one call does, in virtual time.

mod lane;

use std::net::SocketAddr;
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{Arena, Error, Instant, PopLimit, RxFrame, ScatterGather, Shutdown, SocketOption};

use super::{Stack, StackConfig};
use crate::events::{ConnectionId, ListenerId, Readiness, SocketId};
use crate::network::Prefix;
use crate::tcp::{EcnMode, State, TcpOptions};

/// Two stacks, `a` at 10.0.0.1 and fd00::1, `b` at 10.0.0.2 and fd00::2, and the time both are at.
struct Pair {
    a: Stack,
    b: Stack,
    now: Instant,
    arena: Arena,
    /// Frames carried since the start.
    carried: usize,
    /// ARP requests of `a` among them.
    asked: usize,
}

fn stack(arena: &Arena, medium: Medium, host: u8, configure: &dyn Fn(&mut StackConfig)) -> Stack {
    let device = Capabilities {
        medium,
        hardware_address: if medium == Medium::Ethernet { [2, 0, 0, 0, 0, host] } else { [0; 6] },
        mtu: 1500,
        tx_checksum: TxChecksum::Software,
        tcp_segmentation_bytes: 0,
        max_segments: 19,
    };
    let mut config = StackConfig::new(device)
        .with_address(format!("10.0.0.{host}/24").parse::<Prefix>().unwrap())
        .with_address(format!("fd00::{host}/64").parse::<Prefix>().unwrap());
    configure(&mut config);
    Stack::new(&config, arena.clone(), u64::from(host), Instant::ZERO).unwrap()
}

impl Pair {
    fn new() -> Self {
        Self::configured(Medium::Ethernet, &|_| {})
    }

    fn configured(medium: Medium, configure: &dyn Fn(&mut StackConfig)) -> Self {
        let arena = Arena::new(&ArenaConfig::default()).unwrap();
        let a = stack(&arena, medium, 1, configure);
        let b = stack(&arena, medium, 2, configure);
        Self { a, b, now: Instant::ZERO, arena, carried: 0, asked: 0 }
    }

    /// Carries the frames that wait now from each side to the other; returns how many.
    fn carry(&mut self) -> usize {
        let now = self.now;
        self.a.poll(now);
        self.b.poll(now);
        let before = self.carried;
        for turn in 0..2 {
            let (from, to) = if turn == 0 { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
            while let Some(frame) = from.frames().front() {
                let bytes: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
                from.frames().pop_front();
                let copy = self.arena.copy_from(&bytes).unwrap().freeze();
                to.receive(now, RxFrame::from(copy));
                self.carried += 1;
                self.asked += usize::from(turn == 0 && is_arp_request(&bytes));
            }
        }
        for side in [&self.a, &self.b] {
            assert_eq!(side.tcp_broken_invariant(), None);
        }
        self.carried - before
    }

    /// Carries frames, without letting time pass, until nobody has any.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            if self.carry() == 0 {
                return;
            }
        }
        panic!("the two never stop sending");
    }

    /// Lets `duration` pass, waking the stacks when they ask for it.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.settle();
            let next = [&self.a, &self.b].iter().filter_map(|side| side.next_deadline()).min();
            match next {
                Some(next) if next <= end => self.now = self.now.max(next),
                Some(_) | None => break,
            }
        }
        self.now = end;
        self.settle();
    }

    fn listen(&mut self, local: &str) -> ListenerId {
        let binding = self.b.tcp_bind(local.parse().unwrap()).unwrap();
        self.b.tcp_listen(binding, 16, &TcpOptions::default()).unwrap()
    }

    /// A connection from `a` to `b`.
    fn connect(&mut self, remote: &str) -> (ConnectionId, ConnectionId) {
        let listener = self.listen(remote);
        let remote: SocketAddr = remote.parse().unwrap();
        let client = self.a.tcp_connect(self.now, &mut None, remote, &TcpOptions::default()).unwrap();
        self.settle();
        let (server, peer) = self.b.tcp_accept(listener).unwrap();
        assert_eq!(peer, self.a.tcp_local_address(client).unwrap());
        (client, server)
    }

    fn data(&self, bytes: &[u8]) -> ScatterGather {
        self.arena.copy_from(bytes).unwrap().freeze().into()
    }
}

fn is_arp_request(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && frame.get(20..22) == Some(&[0, 1])
}

fn receive(stack: &mut Stack, id: ConnectionId) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Ok(Some(data)) = stack.tcp_receive(id, PopLimit::default()) {
        if data.is_empty() {
            break;
        }
        bytes.extend(data.to_vec());
    }
    bytes
}

#[test]
fn a_connection_opens_carries_data_both_ways_and_closes() {
    for remote in ["10.0.0.2:80", "[fd00::2]:80"] {
        let mut pair = Pair::new();
        let (client, server) = pair.connect(remote);
        let mut data = pair.data(b"hello");
        assert_eq!(pair.a.tcp_send(client, &mut data), Ok(5));
        pair.settle();
        assert_eq!(receive(&mut pair.b, server), b"hello");
        let mut data = pair.data(b"world!");
        assert_eq!(pair.b.tcp_send(server, &mut data), Ok(6));
        pair.settle();
        assert_eq!(receive(&mut pair.a, client), b"world!");
        pair.a.tcp_close(pair.now, client);
        pair.settle();
        assert!(matches!(pair.b.tcp_receive(server, PopLimit::default()), Ok(Some(end)) if end.is_empty()));
        assert_eq!(pair.b.tcp_info(server).unwrap().state, State::CloseWait);
        pair.b.tcp_close(pair.now, server);
        pair.settle();
        assert_eq!(pair.b.tcp_connections(), 0, "the passive side is done");
        assert_eq!(pair.a.tcp_connections(), 1, "the active side is in TIME-WAIT");
        pair.pass(Duration::from_secs(61));
        assert_eq!(pair.a.tcp_connections(), 0);
    }
}

#[test]
fn a_neighbour_is_not_probed_while_it_acknowledges_and_is_when_it_does_not() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect("10.0.0.2:80");
    for (acknowledges, asked) in [(true, 0), (false, 1)] {
        pair.pass(Duration::from_secs(60));
        let before = pair.asked;
        for _ in 0..10 {
            let mut data = pair.data(b"hello");
            if acknowledges {
                pair.a.tcp_send(client, &mut data).unwrap();
            } else {
                let socket = pair.a.udp_bind("10.0.0.1:0".parse().unwrap()).unwrap();
                let to = "10.0.0.2:9".parse().unwrap();
                pair.a.udp_send(pair.now, socket, Some(&to), &mut data).unwrap();
            }
            pair.pass(Duration::from_secs(1));
            receive(&mut pair.b, server);
        }
        assert_eq!(pair.asked - before, asked, "acknowledges: {acknowledges}");
    }
}

#[test]
fn a_syn_that_waits_for_its_neighbour_keeps_what_it_asks_for() {
    let mut pair = Pair::configured(Medium::Ethernet, &|config| config.tcp.ecn = EcnMode::On);
    let remote = "10.0.0.2:80".parse().unwrap();
    let binding = pair.b.tcp_bind(remote).unwrap();
    let serving = TcpOptions { fast_open_queue: 4, ..TcpOptions::default() };
    let listener = pair.b.tcp_listen(binding, 16, &serving).unwrap();
    let asking = TcpOptions { fast_open_connect: true, ..TcpOptions::default() };
    let client = pair.a.tcp_connect(pair.now, &mut None, remote, &asking).unwrap();
    // Nobody hears who has the address until the SYN has timed out.
    for at_ms in [0, 1_000, 1_001] {
        pair.now = Instant::from_millis(at_ms);
        pair.a.poll(pair.now);
        while pair.a.frames().front().is_some() {
            pair.a.frames().pop_front();
        }
    }
    pair.pass(Duration::from_secs(3));
    pair.b.tcp_accept(listener).unwrap();
    let info = pair.a.tcp_info(client).unwrap();
    assert_eq!((info.state, info.ecn), (State::Established, true));
    // The cookie came: the next SYN takes data along.
    let again = pair.a.tcp_connect(pair.now, &mut None, remote, &asking).unwrap();
    let mut data = pair.data(b"early");
    pair.a.tcp_send(again, &mut data).unwrap();
    pair.settle();
    assert_eq!((pair.a.tcp_counters().fast_open_active, pair.b.tcp_counters().fast_open_passive), (1, 1));
}

#[test]
fn bulk_data_larger_than_all_windows_arrives_whole() {
    for medium in [Medium::Ethernet, Medium::Ip] {
        let mut pair = Pair::configured(medium, &|_| {});
        let (client, server) = pair.connect("10.0.0.2:80");
        let sent: Vec<u8> = (0..5_000_000u32).map(|at| (at % 251) as u8).collect();
        let mut data = pair.data(&sent);
        let mut received = Vec::new();
        while !data.is_empty() || received.len() < sent.len() {
            pair.a.tcp_send(client, &mut data).unwrap();
            pair.pass(Duration::from_millis(1));
            received.extend(receive(&mut pair.b, server));
            assert!(pair.now < Instant::from_millis(60_000), "{} of {}", received.len(), sent.len());
        }
        assert!(received == sent);
    }
}

#[test]
fn a_closed_port_refuses() {
    let mut pair = Pair::new();
    let client = pair
        .a
        .tcp_connect(pair.now, &mut None, "10.0.0.2:80".parse().unwrap(), &TcpOptions::default())
        .unwrap();
    pair.settle();
    assert_eq!(pair.a.tcp_error(client), Some(Error::ConnectionRefused));
    let event = pair.a.next_event().unwrap();
    assert_eq!(event.socket, SocketId::Connection(client));
    assert!(event.readiness.contains(Readiness::CLOSED));
}

#[test]
fn half_close_lets_the_other_half_go_on() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect("10.0.0.2:80");
    pair.a.tcp_shutdown(client, Shutdown::Write).unwrap();
    pair.settle();
    let mut data = pair.data(b"still here");
    assert_eq!(pair.a.tcp_send(client, &mut data.clone()), Err(Error::Closed));
    pair.b.tcp_send(server, &mut data).unwrap();
    pair.settle();
    assert_eq!(receive(&mut pair.a, client), b"still here");
    pair.b.tcp_close(pair.now, server);
    pair.settle();
    assert_eq!(pair.a.tcp_info(client).unwrap().state, State::TimeWait);
}

#[test]
fn closing_with_unread_data_resets() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect("10.0.0.2:80");
    let mut data = pair.data(b"never read");
    pair.a.tcp_send(client, &mut data).unwrap();
    pair.settle();
    pair.b.tcp_close(pair.now, server);
    pair.settle();
    assert_eq!(pair.a.tcp_error(client), Some(Error::ConnectionReset));
    assert_eq!(pair.b.tcp_connections(), 0);
}

#[test]
fn an_idle_connection_costs_no_frames_and_lives() {
    let mut pair = Pair::new();
    let (client, server) = pair.connect("10.0.0.2:80");
    pair.pass(Duration::from_secs(1));
    let before = (*pair.a.tcp_counters(), *pair.b.tcp_counters());
    pair.pass(Duration::from_secs(125));
    assert_eq!((*pair.a.tcp_counters(), *pair.b.tcp_counters()), before);
    let mut data = pair.data(b"still there?");
    pair.a.tcp_send(client, &mut data).unwrap();
    pair.pass(Duration::from_millis(100));
    assert_eq!(receive(&mut pair.b, server), b"still there?");
}

#[test]
fn a_window_that_was_closed_reopens_when_the_program_reads() {
    let mut pair = Pair::configured(Medium::Ethernet, &|config| {
        config.tcp.options.set(SocketOption::ReceiveBuffer(20_000)).unwrap();
    });
    let binding = pair.b.tcp_bind("10.0.0.2:80".parse().unwrap()).unwrap();
    let options = pair.b.default_tcp_options().clone();
    let listener = pair.b.tcp_listen(binding, 1, &options).unwrap();
    let client = pair
        .a
        .tcp_connect(pair.now, &mut None, "10.0.0.2:80".parse().unwrap(), &TcpOptions::default())
        .unwrap();
    pair.settle();
    let (server, _) = pair.b.tcp_accept(listener).unwrap();
    let sent: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
    let mut data = pair.data(&sent);
    pair.a.tcp_send(client, &mut data).unwrap();
    pair.pass(Duration::from_secs(300));
    assert_eq!(pair.a.tcp_info(client).unwrap().snd_wnd_bytes, 0);
    assert!(pair.a.tcp_counters().zero_window_probes > 3);
    let mut received = Vec::new();
    while received.len() < sent.len() {
        let bytes = receive(&mut pair.b, server);
        received.extend(bytes);
        pair.pass(Duration::from_millis(1));
        assert!(pair.now < Instant::from_millis(301_000));
    }
    assert!(received == sent);
}

#[test]
fn both_sides_may_open_at_once() {
    let mut pair = Pair::new();
    let (at_a, at_b): (SocketAddr, SocketAddr) =
        ("10.0.0.1:7000".parse().unwrap(), "10.0.0.2:7000".parse().unwrap());
    let (bound_a, bound_b) = (pair.a.tcp_bind(at_a).unwrap(), pair.b.tcp_bind(at_b).unwrap());
    let a = pair.a.tcp_connect(pair.now, &mut Some(bound_a), at_b, &TcpOptions::default()).unwrap();
    let b = pair.b.tcp_connect(pair.now, &mut Some(bound_b), at_a, &TcpOptions::default()).unwrap();
    pair.settle();
    assert_eq!(pair.a.tcp_info(a).unwrap().state, State::Established);
    assert_eq!(pair.b.tcp_info(b).unwrap().state, State::Established);
    assert_eq!(pair.a.tcp_transitions().count(State::SynSent, State::SynReceived), 1);
    let mut data = pair.data(b"both");
    pair.a.tcp_send(a, &mut data).unwrap();
    pair.settle();
    assert_eq!(receive(&mut pair.b, b), b"both");
    pair.a.tcp_close(pair.now, a);
    pair.b.tcp_close(pair.now, b);
    pair.pass(Duration::from_secs(61));
    assert_eq!(pair.a.tcp_transitions().count(State::FinWait1, State::Closing), 1);
    assert_eq!((pair.a.tcp_connections(), pair.b.tcp_connections()), (0, 0));
}

#[test]
fn datagrams_go_both_ways_and_closed_ports_answer() {
    let mut pair = Pair::new();
    let server = pair.b.udp_bind("0.0.0.0:53".parse().unwrap()).unwrap();
    let client = pair.a.udp_bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let mut query = pair.data(b"query");
    pair.a.udp_send(pair.now, client, Some(&"10.0.0.2:53".parse().unwrap()), &mut query).unwrap();
    pair.settle();
    let datagram = pair.b.udp_receive(server).unwrap().unwrap();
    assert_eq!(datagram.data.to_vec(), b"query");
    let mut answer = pair.data(b"answer");
    pair.b.udp_send(pair.now, server, Some(&datagram.from), &mut answer).unwrap();
    pair.settle();
    assert_eq!(pair.a.udp_receive(client).unwrap().unwrap().data.to_vec(), b"answer");
    pair.a.udp_connect(pair.now, client, "10.0.0.2:54".parse().unwrap()).unwrap();
    let mut lost = pair.data(b"nobody");
    pair.a.udp_send(pair.now, client, None, &mut lost).unwrap();
    pair.settle();
    assert_eq!(pair.a.udp_receive(client).err(), Some(Error::ConnectionRefused));
}

#[test]
fn a_connection_to_our_own_address_works() {
    let mut pair = Pair::new();
    let binding = pair.a.tcp_bind("10.0.0.1:80".parse().unwrap()).unwrap();
    let listener = pair.a.tcp_listen(binding, 1, &TcpOptions::default()).unwrap();
    let client = pair
        .a
        .tcp_connect(pair.now, &mut None, "10.0.0.1:80".parse().unwrap(), &TcpOptions::default())
        .unwrap();
    pair.pass(Duration::from_millis(10));
    let (server, _) = pair.a.tcp_accept(listener).unwrap();
    let mut data = pair.data(b"myself");
    pair.a.tcp_send(client, &mut data).unwrap();
    pair.pass(Duration::from_millis(10));
    assert_eq!(receive(&mut pair.a, server), b"myself");
}

#[test]
fn memory_returns_to_its_start() {
    let mut pair = Pair::new();
    pair.settle();
    let at_start = pair.arena.stats().live_buffers;
    let (client, server) = pair.connect("10.0.0.2:80");
    let mut data = pair.data(&[7; 100_000]);
    pair.a.tcp_send(client, &mut data).unwrap();
    drop(data);
    pair.pass(Duration::from_secs(1));
    assert_eq!(receive(&mut pair.b, server).len(), 100_000);
    pair.a.tcp_close(pair.now, client);
    pair.b.tcp_close(pair.now, server);
    pair.pass(Duration::from_secs(200));
    assert_eq!(pair.arena.stats().live_buffers, at_start);
}

/// Takes the frames that wait, and returns the TCP flags of each segment among them.
fn take_flags(stack: &mut Stack) -> Vec<u8> {
    let mut flags = Vec::new();
    while let Some(frame) = stack.frames().front() {
        let bytes: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
        stack.frames().pop_front();
        // Behind 14 bytes of Ethernet and 20 of IPv4, of which the tenth is the protocol.
        if bytes[23] == 6 {
            flags.push(bytes[34 + 13]);
        }
    }
    flags
}

#[test]
fn the_answer_to_data_on_a_syn_waits_for_the_syn_ack_that_found_no_room() {
    const SYN: u8 = 0x02;
    const ROOM: usize = 4;
    let mut pair = Pair::configured(Medium::Ethernet, &|config| config.transmit_queue_frames = ROOM);
    let (server, client) = ("10.0.0.2:7", "10.0.0.1:9");
    let binding = pair.b.tcp_bind(server.parse().unwrap()).unwrap();
    let options = TcpOptions { fast_open_queue: 4, fast_open_connect: true, ..TcpOptions::default() };
    let listener = pair.b.tcp_listen(binding, 16, &options).unwrap();
    let sender = pair.b.udp_bind("10.0.0.2:9".parse().unwrap()).unwrap();
    let connect = |pair: &mut Pair| {
        let id = pair.a.tcp_connect(pair.now, &mut None, server.parse().unwrap(), &options).unwrap();
        let mut data = pair.data(b"request");
        pair.a.tcp_send(id, &mut data).unwrap();
        pair.a.poll(pair.now);
    };
    // The first gets a cookie, once the neighbours know each other.
    for _ in 0..2 {
        connect(&mut pair);
        pair.pass(Duration::from_secs(3));
        pair.b.tcp_accept(listener).unwrap();
    }

    connect(&mut pair);
    for _ in 0..ROOM {
        let mut datagram = pair.data(b"fills the queue");
        pair.b.udp_send(pair.now, sender, Some(&client.parse().unwrap()), &mut datagram).unwrap();
    }
    let syn: Vec<u8> =
        pair.a.frames().front().unwrap().segments.iter().flat_map(|segment| segment.to_vec()).collect();
    pair.a.frames().pop_front();
    pair.b.receive(pair.now, RxFrame::from(pair.arena.copy_from(&syn).unwrap().freeze()));
    let (id, _) = pair.b.tcp_accept(listener).expect("the SYN's data was taken");
    let mut answer = pair.data(b"answer");
    pair.b.tcp_send(id, &mut answer).unwrap();
    pair.b.poll(pair.now);
    let mut sent = take_flags(&mut pair.b);
    for _ in 0..4 {
        pair.b.poll(pair.now);
        sent.extend(take_flags(&mut pair.b));
    }
    assert!(sent.len() > 1, "{sent:x?}");
    assert_eq!(sent[0] & SYN, SYN, "{sent:x?}");
}
