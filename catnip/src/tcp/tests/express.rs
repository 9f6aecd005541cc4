//! The straight way does what the general one does: two worlds live through the same, one of whose devices hands
//! frames over in pieces, which only the general way takes.

use std::net::SocketAddr;
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::runtime::{Medium, RxChecksum, TxChecksum, TxOffload};
use libos::{
    Arena, Buffer, Capabilities, Instant, PopLimit, QueueDescriptor, RxFrame, ScatterGather, SocketOption,
};
use proptest::prelude::*;

use crate::events::ConnectionId;
use crate::stack::{Stack, StackConfig};
use crate::tcp::{TcpInfo, TcpOptions};
use crate::waiting::Waiting;

/// How data is pushed and how frames arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    General,
}

/// Whether somebody waits for what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Waits,
    Looks,
}

/// Takes what arrives, if somebody waits for it.
struct Taker<'a>(Program, &'a mut Vec<u8>);

impl Taker<'_> {
    fn take(&mut self, data: &ScatterGather) {
        data.iter().for_each(|piece| self.1.extend_from_slice(piece));
    }
}

impl Waiting for Taker<'_> {
    type Ticket = ();

    fn offer_datagram(
        &mut self,
        _user_data: u64,
        _from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather> {
        Err(data)
    }

    fn offer_data(&mut self, _user_data: u64, data: ScatterGather) -> Result<(), ScatterGather> {
        match self.0 {
            Program::Waits => self.take(&data),
            Program::Looks => return Err(data),
        }
        Ok(())
    }

    fn queue_of_data(&self, _user_data: u64) -> Option<QueueDescriptor> {
        (self.0 == Program::Waits).then(|| QueueDescriptor::from_raw(0))
    }

    fn give_data(&mut self, _queue: QueueDescriptor, data: ScatterGather) -> Result<(), ScatterGather> {
        self.offer_data(0, data)
    }

    fn next_for_data(&mut self, _user_data: u64) -> Option<((), PopLimit)> {
        (self.0 == Program::Waits).then_some(((), PopLimit::default()))
    }

    fn data(&mut self, (): (), data: ScatterGather) {
        self.take(&data);
    }
}

/// Two stacks with a connection between them.
struct World {
    way: Way,
    program: Program,
    stacks: [Stack; 2],
    connections: [ConnectionId; 2],
    /// Under way to each side.
    wires: [Vec<Vec<u8>>; 2],
    /// Every frame sent, with its sender.
    sent: Vec<(usize, Vec<u8>)>,
    received: [Vec<u8>; 2],
    /// Pushes and segments that took the shortest way.
    lone: [usize; 2],
    /// Data that the program goes on holding.
    kept: Vec<Buffer>,
    arena: Arena,
    now: Instant,
}

fn stack(arena: &Arena, host: u8) -> Stack {
    let device = Capabilities {
        medium: Medium::Ethernet,
        hardware_address: [2, 0, 0, 0, 0, host],
        mtu: 1500,
        tx_checksum: TxChecksum::Software,
        tcp_segmentation_bytes: 0,
        max_segments: 19,
    };
    let config = StackConfig::new(device).with_address(format!("10.0.0.{host}/24").parse().unwrap());
    Stack::new(&config, arena.clone(), u64::from(host), Instant::ZERO).unwrap()
}

impl World {
    fn new(way: Way, program: Program, no_delay: bool) -> Self {
        let arena = Arena::new(&ArenaConfig::default()).unwrap();
        let mut stacks = [stack(&arena, 1), stack(&arena, 2)];
        let now = Instant::ZERO;
        let options = TcpOptions { user_timeout_option: true, ..TcpOptions::default() };
        let address = "10.0.0.2:7".parse().unwrap();
        let binding = stacks[1].tcp_bind(address).unwrap();
        let listener = stacks[1].tcp_listen(binding, 1, &options).unwrap();
        let client = stacks[0].tcp_connect(now, &mut None, address, &options).unwrap();
        let connections = [client, client];
        let (wires, received, lone, kept) = Default::default();
        let mut world = Self {
            way,
            program,
            stacks,
            connections,
            wires,
            sent: Vec::new(),
            received,
            lone,
            kept,
            arena,
            now,
        };
        for _ in 0..8 {
            world.poll();
            world.deliver(0, usize::MAX);
            world.deliver(1, usize::MAX);
        }
        world.connections[1] = world.stacks[1].tcp_accept(listener).unwrap().0;
        for (stack, id) in world.stacks.iter_mut().zip(world.connections) {
            stack.tcp_set_option(id, SocketOption::NoDelay(no_delay)).unwrap();
        }
        world
    }

    fn poll(&mut self) {
        for side in 0..2 {
            self.stacks[side].poll(self.now);
            while let Some(frame) = self.stacks[side].frames().front() {
                let bytes: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
                self.stacks[side].frames().pop_front();
                self.sent.push((side, bytes.clone()));
                self.wires[1 - side].push(bytes);
            }
            assert_eq!(self.stacks[side].tcp_broken_invariant(), None);
        }
    }

    fn push(&mut self, side: usize, len: usize, after: After) {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        let buffer = self.arena.copy_from(&bytes).unwrap().freeze();
        if after == After::Kept {
            self.kept.push(buffer.clone());
        }
        let mut data = buffer.into();
        let (stack, id) = (&mut self.stacks[side], self.connections[side]);
        match self.way {
            Way::Straight => match stack.tcp_straight(self.now, id, &mut data) {
                Some(frame) => {
                    assert!(!stack.has_frames() && data.is_empty());
                    stack.frames().push_frame(frame, TxOffload::default());
                    self.lone[0] += 1;
                    Ok(len)
                }
                None => stack.tcp_push(self.now, id, &mut data),
            },
            Way::General => stack.tcp_send(id, &mut data),
        }
        .unwrap();
        self.poll();
    }

    /// Hands up to `most` frames to a side, and reads what they bring.
    fn deliver(&mut self, side: usize, most: usize) {
        let count = self.wires[side].len().min(most);
        for mut bytes in self.wires[side].drain(..count).collect::<Vec<_>>() {
            let frame = match self.way {
                Way::Straight => RxFrame {
                    checksum: RxChecksum::Verified,
                    ..RxFrame::from(self.arena.copy_from(&bytes).unwrap().freeze())
                },
                Way::General => {
                    // Padding, as short frames have it, so that there is a second piece in any case.
                    bytes.push(0);
                    let (head, rest) = bytes.split_at(bytes.len() - 1);
                    let pieces = [head, rest].map(|piece| self.arena.copy_from(piece).unwrap().freeze());
                    let [head, rest] = pieces;
                    RxFrame { head, rest: vec![rest].into(), checksum: RxChecksum::Unknown, segment_bytes: 0 }
                }
            };
            let mut taker = Taker(self.program, &mut self.received[side]);
            match self.stacks[side].receive_straight(self.now, frame, &mut taker) {
                Ok(_) => self.lone[1] += 1,
                Err(frame) => self.stacks[side].receive_for(self.now, frame, &mut taker),
            }
            self.poll();
        }
        let limit = PopLimit::default();
        if let Ok(Some(data)) = self.stacks[side].tcp_receive(self.connections[side], limit) {
            data.iter().for_each(|piece| self.received[side].extend_from_slice(piece));
        }
        self.poll();
    }

    fn infos(&self) -> [Option<TcpInfo>; 2] {
        [0, 1].map(|side| self.stacks[side].tcp_info(self.connections[side]))
    }
}

/// What the program does with data once it is pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Dropped,
    Kept,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push(usize, usize, After),
    Set(usize, SocketOption),
    Deliver(usize, usize),
    Lose(usize),
    Duplicate(usize),
    Swap(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..2_usize;
    let len = prop_oneof![1..200_usize, 1_400..1_500_usize, 1..20_000_usize];
    let after = prop_oneof![3 => Just(After::Dropped), 1 => Just(After::Kept)];
    let option = prop_oneof![
        any::<bool>().prop_map(SocketOption::NoDelay),
        any::<bool>().prop_map(SocketOption::Cork),
        any::<bool>().prop_map(SocketOption::QuickAck),
        any::<bool>().prop_map(SocketOption::KeepAlive),
        prop_oneof![Just(None), (100..200_u64).prop_map(|seconds| Some(Duration::from_secs(seconds)))]
            .prop_map(SocketOption::UserTimeout),
    ];
    prop_oneof![
        6 => (side.clone(), len, after).prop_map(|(side, len, after)| Step::Push(side, len, after)),
        1 => (side.clone(), option).prop_map(|(side, option)| Step::Set(side, option)),
        8 => (side.clone(), 1..6_usize).prop_map(|(side, most)| Step::Deliver(side, most)),
        1 => side.clone().prop_map(Step::Lose),
        1 => side.clone().prop_map(Step::Duplicate),
        1 => side.prop_map(Step::Swap),
        4 => prop_oneof![0..3_000_u64, 0..400_000_u64].prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Push(side, len, after) => world.push(side, len, after),
        Step::Set(side, option) => {
            world.stacks[side].tcp_set_option(world.connections[side], option).unwrap();
        }
        Step::Deliver(side, most) => world.deliver(side, most),
        Step::Lose(side) => drop(world.wires[side].pop()),
        Step::Duplicate(side) => {
            let copy = world.wires[side].first().cloned();
            world.wires[side].extend(copy);
        }
        Step::Swap(side) => world.wires[side].reverse(),
        Step::Pass(micros) => {
            world.now += Duration::from_micros(micros);
            world.poll();
        }
    }
}

/// A message and its answer, each delivered at once, and now and then something else in between.
fn exchange() -> impl Strategy<Value = Vec<Step>> {
    let len = || prop_oneof![8 => 1..200_usize, 1 => 1_400..1_500_usize, 1 => 1..5_000_usize];
    let aside = || prop_oneof![6 => Just(None), 1 => step().prop_map(Some)];
    (len(), aside(), aside(), len(), aside(), aside()).prop_map(|(said, a, b, answered, c, d)| {
        let said = [Some(Step::Push(0, said, After::Dropped)), a, Some(Step::Deliver(1, 9)), b];
        let answered = [Some(Step::Push(1, answered, After::Dropped)), c, Some(Step::Deliver(0, 9)), d];
        said.into_iter().chain(answered).flatten().collect()
    })
}

proptest! {
    #[test]
    fn both_ways_say_and_answer_the_same(
        program in prop_oneof![3 => Just(Program::Waits), 1 => Just(Program::Looks)],
        no_delay in any::<bool>(),
        exchanges in prop::collection::vec(exchange(), 1..20),
    ) {
        let mut straight = World::new(Way::Straight, program, no_delay);
        let mut general = World::new(Way::General, program, no_delay);
        for step in exchanges.into_iter().flatten() {
            take(&mut straight, step);
            take(&mut general, step);
            prop_assert_eq!(&straight.sent, &general.sent, "after {:?}", step);
            prop_assert_eq!(straight.infos(), general.infos(), "after {:?}", step);
            prop_assert_eq!(&straight.received, &general.received);
        }
    }

    #[test]
    fn both_ways_send_the_same_frames_and_know_the_same(
        no_delay in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut straight = World::new(Way::Straight, Program::Looks, no_delay);
        let mut general = World::new(Way::General, Program::Looks, no_delay);
        for step in steps {
            take(&mut straight, step);
            take(&mut general, step);
            prop_assert_eq!(&straight.sent, &general.sent, "after {:?}", step);
            prop_assert_eq!(straight.infos(), general.infos(), "after {:?}", step);
            prop_assert_eq!(&straight.received, &general.received);
        }
    }
}

#[test]
fn a_lone_push_is_a_frame_at_once_and_one_behind_it_waits() {
    let mut world = World::new(Way::Straight, Program::Looks, true);
    for (len, frames) in [(64, 1), (64, 1)] {
        let mut data = world.arena.copy_from(&vec![7; len]).unwrap().freeze().into();
        world.stacks[0].tcp_push(world.now, world.connections[0], &mut data).unwrap();
        assert!(data.is_empty());
        assert_eq!(world.stacks[0].frames().len(), frames);
    }
    world.poll();
    assert_eq!(world.wires[1].len(), 2);
    world.deliver(1, 2);
    assert_eq!(world.received[1], [7; 128]);
}

#[test]
fn messages_and_answers_take_the_shortest_way_until_something_else_is_under_way() {
    let mut world = World::new(Way::Straight, Program::Waits, true);
    let exchange = |world: &mut World, len: usize| {
        let before = world.lone;
        for side in [0, 1] {
            world.push(side, len, After::Dropped);
            world.deliver(1 - side, usize::MAX);
        }
        [0, 1].map(|way| world.lone[way] - before[way])
    };
    for _ in 0..4 {
        exchange(&mut world, 64);
    }
    assert_eq!(exchange(&mut world, 64), [2, 2]);
    assert_eq!(exchange(&mut world, 3_000)[0], 0, "more than a segment");
    for _ in 0..4 {
        exchange(&mut world, 64);
    }
    assert_eq!(exchange(&mut world, 64), [2, 2]);
    let before = world.lone[0];
    world.push(0, 64, After::Dropped);
    world.push(0, 64, After::Dropped);
    assert_eq!(world.lone[0], before + 1, "the first is still under way");
    world.deliver(1, usize::MAX);
    for _ in 0..4 {
        exchange(&mut world, 64);
    }
    assert_eq!(exchange(&mut world, 64), [2, 2]);
    // Whoever gets hold of the connection may change anything.
    let id = world.connections[0];
    world.stacks[0].tcp_set_option(id, SocketOption::Cork(false)).unwrap();
    assert_eq!(exchange(&mut world, 64)[0], 1);
    assert_eq!(exchange(&mut world, 64), [2, 2]);
}
