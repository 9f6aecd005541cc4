//! A module that takes the straight ways and is left alone while it is calm does what one does that is asked to look at
//! everything with each poll, and whose frames come in pieces, which only the general way takes.

mod device;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::runtime::TxChecksum;
use libos::time::ManualClock;
use libos::{
    Arena, Clock, Domain, LibOs, Outcome, QueueDescriptor, Shutdown, SocketKind, SocketOption, Token,
};
use proptest::prelude::*;

use crate::network::testing::{config, framed_to, hardware, icmp_message, ip_packet, udp_datagram, v4};
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::{checksum, ethernet, ipv4};
use crate::{Stack, StackModule};
use device::{Line, Stirred, Way, Wire};

const SERVER_PORT: u16 = 7;

struct Side {
    libos: LibOs,
    wire: Rc<RefCell<Wire>>,
    queues: Vec<QueueDescriptor>,
    tokens: Vec<(&'static str, Token)>,
}

/// Two library OSes with a wire between them, and all that was seen of them.
struct World {
    sides: [Side; 2],
    clock: ManualClock,
    arena: Arena,
    log: Vec<String>,
}

fn side(way: Way, number: u8, arena: &Arena, clock: &ManualClock, settings: Settings) -> Side {
    let mut config = config(number);
    config.device.tx_checksum = settings.checksum;
    (config.dhcp, config.router_discovery) = (settings.asks, settings.asks);
    let wire = Rc::new(RefCell::new(Wire::new()));
    let device = Line { way, wire: wire.clone(), capabilities: config.device, arena: arena.clone() };
    let libos = LibOs::builder().clock(clock.clone()).arena(arena.clone()).build().unwrap();
    let stack = Stack::new(&config, arena.clone(), number.into(), clock.now()).unwrap();
    let module = StackModule::new(stack, device);
    match way {
        Way::Straight => libos.install(module).unwrap(),
        Way::General => libos.install(Stirred(module)).unwrap(),
    };
    Side { libos, wire, queues: Vec::new(), tokens: Vec::new() }
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    checksum: TxChecksum,
    /// DHCP and router discovery are on, whose questions nobody answers.
    asks: bool,
}

impl World {
    fn new(way: Way, settings: Settings) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 32 << 20, hugepages: false }).unwrap();
        let clock = ManualClock::new();
        let sides = [1, 2].map(|number| side(way, number, &arena, &clock, settings));
        let mut world = Self { sides, clock, arena, log: Vec::new() };
        world.connect();
        world
    }

    /// Each side has a datagram socket and a connection, in this order; the second has a listener behind.
    fn connect(&mut self) {
        let address = |side: u8| SocketAddr::from((v4(side + 1), SERVER_PORT));
        for side in 0..2_u8 {
            let Side { libos, queues, .. } = &mut self.sides[usize::from(side)];
            let datagrams = libos.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
            libos.bind(datagrams, address(side)).unwrap();
            queues.push(datagrams);
        }
        let [client, server] = &mut self.sides;
        let stream = client.libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        let listener = server.libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        server.libos.bind(listener, address(1)).unwrap();
        server.libos.listen(listener, 4).unwrap();
        server.tokens.push(("accept", server.libos.accept(listener).unwrap()));
        client.tokens.push(("connect", client.libos.connect(stream, address(1)).unwrap()));
        client.queues.push(stream);
        self.settle();
        self.sides[1].queues.push(listener);
        assert_eq!(self.sides[1].queues.len(), 3);
    }

    fn settle(&mut self) {
        for _ in 0..8 {
            (0..2).for_each(|side| self.carry(side, usize::MAX));
        }
    }

    /// Polls a side, and has what it sent arrive at the other, which is polled then.
    fn carry(&mut self, from: usize, most: usize) {
        self.poll(from);
        let to = 1 - from;
        {
            let (mut source, mut target) =
                (self.sides[from].wire.borrow_mut(), self.sides[to].wire.borrow_mut());
            let count = source.sent.len().min(most);
            target.incoming.extend(source.sent.drain(..count));
        }
        self.poll(to);
    }

    fn poll(&mut self, side: usize) {
        self.sides[side].libos.poll().unwrap();
        self.take_completions(side);
    }

    fn take_completions(&mut self, side: usize) {
        let now = self.clock.now();
        let Side { libos, tokens, queues, wire } = &mut self.sides[side];
        tokens.retain(|(what, token)| {
            let Some(completion) = libos.try_take(*token).unwrap() else { return true };
            let outcome = match completion.outcome {
                Outcome::Popped { data, from } => format!("{:?} from {from:?}", data.to_vec()),
                Outcome::Accepted { queue, peer } => {
                    queues.push(queue);
                    format!("accepted {peer}")
                }
                other => format!("{other:?}"),
            };
            self.log.push(format!("{side} {what} {outcome}"));
            false
        });
        for frame in wire.borrow_mut().untold() {
            self.log.push(format!("{side} at {now:?} sent {frame:?}"));
        }
    }

    /// What a call started, or why not.
    fn start(&mut self, side: usize, what: &'static str, started: Result<Token, libos::Error>) {
        match started {
            Ok(token) => self.sides[side].tokens.push((what, token)),
            Err(error) => self.log.push(format!("{side} {what} {error:?}")),
        }
        self.take_completions(side);
    }

    fn queue(&self, side: usize, index: usize) -> Option<QueueDescriptor> {
        self.sides[side].queues.get(index).copied()
    }

    fn push(&mut self, side: usize, index: usize, len: usize) {
        let Some(queue) = self.queue(side, index) else { return };
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + self.log.len()) as u8).collect();
        let data = self.arena.copy_from(&bytes).unwrap().freeze();
        let libos = &self.sides[side].libos;
        let other = SocketAddr::from((v4(2 - side as u8), SERVER_PORT));
        let pushed = if index == 0 { libos.pushto(queue, data, other) } else { libos.push(queue, data) };
        self.start(side, "push", pushed);
    }

    fn pop(&mut self, side: usize, index: usize) {
        let Some(queue) = self.queue(side, index) else { return };
        let popped = self.sides[side].libos.pop(queue);
        self.start(side, "pop", popped);
    }

    /// A message there, and one back, to pops that wait.
    fn echo(&mut self, index: usize, len: usize) {
        // The connection that was accepted stands where the client's does.
        let index = if index == 0 { 0 } else { 1 };
        for from in 0..2 {
            self.pop(1 - from, index);
            self.push(from, index, len);
            self.carry(from, usize::MAX);
        }
    }

    fn metrics(&self) -> Vec<String> {
        let told = self.sides.each_ref().map(|side| {
            let snapshot = side.libos.metrics().unwrap();
            let own =
                snapshot.iter().filter(|(name, _)| name.starts_with("catnip.") && !name.contains(".device."));
            own.map(|(name, metric)| format!("{name} {metric:?}")).collect::<Vec<_>>()
        });
        assert!(told.iter().all(|metrics| metrics.len() > 50));
        told.concat()
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Echo(usize, usize, usize),
    Push(usize, usize, usize),
    Pop(usize, usize),
    Accept,
    Connect(usize),
    Set(usize, usize, SocketOption),
    Shutdown(usize, usize),
    Close(usize, usize),
    Cancel(usize),
    Poll(usize),
    Carry(usize, usize),
    Lose(usize),
    Duplicate(usize),
    Stranger(usize, usize),
    Room(usize, usize),
    Pass(u64, usize),
}

/// Frames of somebody else to a host: what there is to be answered, noted, or waited for.
fn stranger(number: u8, kind: usize) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (v4(9).into(), v4(number).into());
    let framed = |packet: &[u8]| framed_to(hardware(number), packet);
    let datagram = udp_datagram(from, to, (9, 4000), b"to nobody");
    match kind {
        0 => {
            let request = ArpPacket {
                operation: Operation::Request,
                sender_hardware: hardware(9),
                sender_protocol: v4(9),
                target_hardware: [0; 6],
                target_protocol: v4(number),
            };
            request.compose_frame(ethernet::BROADCAST).to_vec()
        }
        1 => framed(&ip_packet(from, to, 1, &icmp_message(from, to, 8, 0, &[0, 1, 0, 2]))),
        2 => framed(&ip_packet(from, to, 17, &datagram)),
        // The first part of one that never comes whole.
        3 => {
            let packet = ip_packet(from, to, 17, &datagram[..16]);
            framed(&crate::network::testing::with_header_byte(packet, 6, 0x20))
        }
        // A question for groups.
        4 => framed_to(
            [1, 0, 0x5e, 0, 0, 1],
            &ip_packet(from, IpAddr::from([224, 0, 0, 1]), 2, &[0x11, 20, 0xee, 0xeb, 0, 0, 0, 0]),
        ),
        _ => vec![0xff; 60],
    }
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Echo(index, len, count) => (0..count).for_each(|_| world.echo(index, len)),
        Step::Push(side, index, len) => world.push(side, index, len),
        Step::Pop(side, index) => world.pop(side, index),
        Step::Accept => {
            let accepted = world.sides[1].libos.accept(world.sides[1].queues[2]);
            world.start(1, "accept", accepted);
        }
        Step::Connect(kind) => {
            let kind = if kind == 0 { SocketKind::Datagram } else { SocketKind::Stream };
            let queue = world.sides[0].libos.socket(Domain::Ipv4, kind).unwrap();
            world.sides[0].queues.push(queue);
            let connected = world.sides[0].libos.connect(queue, (v4(2), SERVER_PORT).into());
            world.start(0, "connect", connected);
        }
        Step::Set(side, index, option) => {
            if let Some(queue) = world.queue(side, index) {
                let set = world.sides[side].libos.set_option(queue, option);
                world.log.push(format!("{side} set {set:?}"));
            }
        }
        Step::Shutdown(side, index) => {
            if let Some(queue) = world.queue(side, index) {
                let shut = world.sides[side].libos.shutdown(queue, Shutdown::Write);
                world.log.push(format!("{side} shut down {shut:?}"));
            }
        }
        Step::Close(side, index) => {
            if let Some(queue) = world.queue(side, index) {
                let closed = world.sides[side].libos.close(queue);
                world.start(side, "close", closed);
            }
        }
        Step::Cancel(side) => {
            if let Some((_, token)) = world.sides[side].tokens.pop() {
                world.sides[side].libos.discard(token).unwrap();
            }
        }
        Step::Poll(side) => world.poll(side),
        Step::Carry(side, most) => world.carry(side, most),
        Step::Lose(side) => drop(world.sides[side].wire.borrow_mut().sent.pop()),
        Step::Duplicate(side) => {
            let mut wire = world.sides[side].wire.borrow_mut();
            let copy = wire.sent.last().cloned();
            wire.sent.extend(copy);
        }
        Step::Stranger(side, kind) => {
            world.sides[side].wire.borrow_mut().incoming.push_back(stranger(side as u8 + 1, kind));
            world.poll(side);
        }
        Step::Room(side, frames) => world.sides[side].wire.borrow_mut().room = frames,
        Step::Pass(millis, count) => {
            for _ in 0..count {
                world.clock.advance(Duration::from_millis(millis));
                (0..2).for_each(|side| world.carry(side, usize::MAX));
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..2_usize;
    // Datagrams and the first connection for the most part.
    let index = || prop_oneof![3 => Just(0_usize), 3 => Just(1), 1 => 2..5_usize];
    let len = || prop_oneof![6 => 1..100_usize, 1 => 1..5_000_usize];
    let option = prop_oneof![
        any::<bool>().prop_map(SocketOption::NoDelay),
        any::<bool>().prop_map(SocketOption::Cork),
        any::<bool>().prop_map(SocketOption::KeepAlive),
        (1..9_u8).prop_map(SocketOption::HopLimit),
    ];
    prop_oneof![
        12 => (0..2_usize, len(), 1..6_usize).prop_map(|(index, len, count)| Step::Echo(index, len, count)),
        6 => (side.clone(), index(), len()).prop_map(|(side, index, len)| Step::Push(side, index, len)),
        6 => (side.clone(), index()).prop_map(|(side, index)| Step::Pop(side, index)),
        1 => Just(Step::Accept),
        1 => (0..2_usize).prop_map(Step::Connect),
        1 => (side.clone(), index(), option).prop_map(|(side, index, option)| Step::Set(side, index, option)),
        1 => (side.clone(), index()).prop_map(|(side, index)| Step::Shutdown(side, index)),
        1 => (side.clone(), index()).prop_map(|(side, index)| Step::Close(side, index)),
        1 => side.clone().prop_map(Step::Cancel),
        3 => side.clone().prop_map(Step::Poll),
        8 => (side.clone(), 1..6_usize).prop_map(|(side, most)| Step::Carry(side, most)),
        1 => side.clone().prop_map(Step::Lose),
        1 => side.clone().prop_map(Step::Duplicate),
        2 => (side.clone(), 0..6_usize).prop_map(|(side, kind)| Step::Stranger(side, kind)),
        1 => (side, prop_oneof![Just(0_usize), Just(1), Just(usize::MAX)])
            .prop_map(|(side, frames)| Step::Room(side, frames)),
        3 => (prop_oneof![1..50_u64, 1..2_000_u64], 1..30_usize)
            .prop_map(|(millis, count)| Step::Pass(millis, count)),
    ]
}

proptest! {
    #[test]
    fn a_calm_module_does_what_one_does_that_is_stirred_all_the_time(
        checksum in prop_oneof![Just(TxChecksum::Unneeded), Just(TxChecksum::Software)],
        asks in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let settings = Settings { checksum, asks };
        let [mut straight, mut general] = [Way::Straight, Way::General].map(|way| World::new(way, settings));
        for step in steps {
            take(&mut straight, step);
            take(&mut general, step);
            let differing = straight.log.iter().zip(&general.log).find(|(one, other)| one != other);
            prop_assert_eq!(differing, None, "after {:?}", step);
            let both = straight.log.len().min(general.log.len());
            prop_assert_eq!(&straight.log[both..], &general.log[both..], "after {:?}", step);
            prop_assert_eq!(straight.metrics(), general.metrics(), "after {:?}", step);
            straight.log.clear();
            general.log.clear();
        }
    }
}

/// The frame with a bit of its headers turned over, and the IPv4 header's checksum made right.
fn turn_bit(frame: &mut Vec<u8>, bit: usize) {
    // Padding, so that one that states a few bytes more has them, as it does the general way.
    frame.extend([0; 8]);
    frame[bit / 8] ^= 1 << (bit % 8);
    let header = &mut frame[ethernet::HEADER_BYTES..ethernet::HEADER_BYTES + ipv4::HEADER_BYTES];
    header[10..12].fill(0);
    let sum = checksum::of(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn whatever_bit_of_its_headers_is_another_a_segment_ends_as_it_does_the_general_way() {
    /// Of Ethernet, IPv4, and TCP with timestamps.
    const HEADERS_BYTES: usize = 66;
    let settings = Settings { checksum: TxChecksum::Unneeded, asks: false };
    for bit in 0..HEADERS_BYTES * 8 {
        let worlds = [Way::Straight, Way::General].map(|way| {
            let mut world = World::new(way, settings);
            (0..4).for_each(|_| world.echo(1, 64));
            world.pop(1, 1);
            world.push(0, 1, 64);
            turn_bit(world.sides[0].wire.borrow_mut().sent.last_mut().unwrap(), bit);
            world.carry(0, 1);
            let metrics = world.metrics();
            world.push(1, 1, 64);
            take(&mut world, Step::Pass(100, 10));
            (metrics, world.log.clone(), world.metrics())
        });
        let [(metrics, log, later), (general_metrics, general_log, general_later)] = worlds;
        let what = (bit / 8, bit % 8);
        assert_eq!(metrics, general_metrics, "{what:?}");
        assert_eq!(log.iter().zip(&general_log).find(|(one, other)| one != other), None, "{what:?}");
        assert_eq!((log.len(), later), (general_log.len(), general_later), "{what:?}");
    }
}

#[test]
fn messages_that_are_answered_go_straight_in_and_out() {
    let settings = Settings { checksum: TxChecksum::Unneeded, asks: false };
    let mut world = World::new(Way::Straight, settings);
    for (index, expected) in [(0, 2 * 20), (1, 2 * 20)] {
        // The first ones find the way.
        (0..10).for_each(|_| world.echo(index, 64));
        let before = world.sides.each_ref().map(|side| side.wire.borrow().lone_sent);
        (0..20).for_each(|_| world.echo(index, 64));
        let after = world.sides.each_ref().map(|side| side.wire.borrow().lone_sent);
        assert_eq!(after[0] + after[1] - before[0] - before[1], expected, "queue {index}");
    }
}
