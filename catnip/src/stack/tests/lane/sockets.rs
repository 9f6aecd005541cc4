//! What happens to sockets while frames go the straight way.

use std::time::Duration;

use libos::{Domain, SocketOption};
use proptest::prelude::*;

use super::*;
use crate::network::testing::{hardware, with_header_byte};
use crate::stack::StackConfig;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::vlan::VlanId;

/// An ARP frame of the other host, or of one that claims to be us.
fn arp(sender: u8) -> Vec<u8> {
    let request = ArpPacket {
        operation: Operation::Request,
        sender_hardware: hardware(2),
        sender_protocol: v4(sender),
        target_hardware: [0; 6],
        target_protocol: v4(1),
    };
    request.compose_frame(ethernet::BROADCAST).to_vec()
}

/// One more of the flow, numbered so that none is taken for another.
fn next(worlds: &mut Worlds, number: u8) -> (bool, Vec<String>) {
    let (straight, outcome) = worlds.receive("next", &FLOW.frame(&[number]));
    (straight, outcome.told)
}

#[test]
fn datagrams_that_nobody_waits_for_keep_their_order() {
    let mut worlds = with_open_lane();
    (0..4).for_each(|number| assert!(!next(&mut worlds, number).0));
    let mut popped = Vec::new();
    for number in 4..9 {
        popped.extend(worlds.both("pop", |world| world.pop(0)).1.told);
        assert!(!next(&mut worlds, number).0, "others wait in front of it");
    }
    for _ in 0..4 {
        popped.extend(worlds.both("pop", |world| world.pop(0)).1.told);
    }
    let expected: Vec<String> =
        (0..9).map(|number| format!("0 popped [{number}] from {}", FLOW.remote())).collect();
    assert_eq!(popped, expected);
    worlds.open_lane(0, FLOW);
}

#[test]
fn several_pops_that_wait_get_one_datagram_each() {
    let mut worlds = with_open_lane();
    worlds.both("pops", |world| (0..3).for_each(|_| world.pop(0)));
    for (number, alone) in [(0, false), (1, false), (2, true)] {
        let told = vec![format!("0 popped [{number}] from {}", FLOW.remote())];
        assert_eq!(next(&mut worlds, number), (alone, told));
    }
    assert!(!next(&mut worlds, 3).0);
}

/// Makes a second socket on the port of the first, with a pop that waits.
fn share_port(world: &mut World) -> UdpId {
    let (one, two) = (world.socket(0).unwrap(), world.stack.udp_open(Domain::Ipv4).unwrap());
    for id in [one, two] {
        world.stack.udp_set_option(id, SocketOption::ReuseAddress(true)).unwrap();
    }
    world.stack.udp_bind_opened(two, FLOW.local()).unwrap();
    world.stack.udp_set_user_data(two, 1);
    world.sockets.push(Some(two));
    world.pops.waiting.push(1);
    two
}

/// What is done to a stack with an open lane.
type Change<'a> = (&'a str, &'a dyn Fn(&mut World));

#[test]
fn a_lane_ends_with_what_it_was_found_by() {
    let other = SocketAddr::from((v4(2), 9));
    let changes: [Change<'_>; 8] = [
        ("its socket is closed", &|world| world.close(0)),
        ("another has its place", &|world| {
            world.close(0);
            world.bind((v4(1), 8).into());
            world.pop(0);
        }),
        ("another has its place and its port", &|world| {
            world.close(0);
            world.bind(FLOW.local());
        }),
        ("it is connected to another host", &|world| {
            let id = world.socket(0).unwrap();
            let connected = world.stack.udp_connect(world.now, id, other);
            world.tell(connected);
        }),
        ("another that shares the port was bound last", &|world| {
            share_port(world);
        }),
        ("another that shares the port is connected to the sender", &|world| {
            let id = share_port(world);
            world.stack.udp_connect(world.now, id, FLOW.remote()).unwrap();
        }),
        ("its number is another", &|world| {
            let id = world.socket(0).unwrap();
            world.stack.udp_set_user_data(id, 1);
            world.sockets.push(Some(id));
            world.pops.waiting.push(1);
        }),
        ("an error is to be told first", &|world| {
            let id = world.socket(0).unwrap();
            world.stack.udp_connect(world.now, id, FLOW.remote()).unwrap();
            world.pops.waiting[0] = 0;
            world.receive(world.frame(&FLOW.error(3, 3)));
        }),
    ];
    for (what, change) in changes {
        let mut worlds = with_open_lane();
        worlds.both("pop", |world| world.pop(0));
        worlds.both(what, change);
        let (straight, told) = next(&mut worlds, 1);
        assert!(!straight, "{what}: {told:?}");
        for number in 2..6 {
            next(&mut worlds, number);
        }
    }
}

#[test]
fn frames_of_a_network_with_tags_have_no_lane() {
    let mut worlds = Worlds::new();
    let tag = 5;
    for world in &mut worlds.0 {
        let config = StackConfig { vlan: VlanId::new(tag), ..config(1) };
        assert!(config.vlan.is_some());
        world.stack = Stack::new(&config, world.arena.clone(), 1, Instant::ZERO).unwrap();
    }
    worlds.both("bind", |world| world.bind(FLOW.local()));
    let mut tagged = FLOW.frame(b"tagged");
    let bytes = tag.to_be_bytes();
    tagged.splice(12..12, [0x81, 0, bytes[0], bytes[1]]);
    for frame in [&tagged, &tagged, &tagged, &FLOW.frame(b"untagged"), &FLOW.frame(b"untagged"), &tagged] {
        worlds.both("pop", |world| world.pop(0));
        let (straight, outcome) = worlds.receive("frame", frame);
        assert_eq!((straight, outcome.told.len()), (false, usize::from(*frame == tagged)));
    }
}

/// How a frame differs from the usual one of its flow.
#[derive(Debug, Clone, Copy)]
enum Tweak {
    Usual,
    HopLimit(u8),
    TrafficClass(u8),
    Unknown,
    InPieces(usize),
    Joined(u16),
    Byte(usize, u8),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Frames(Flow, Tweak, usize),
    Error(Flow, u8),
    Arp(u8),
    Bind(bool, u16),
    Share(usize),
    Connect(usize, Flow),
    Send(usize, Flow),
    Close(usize),
    Pop(usize),
    Pass(u64),
}

fn flow() -> impl Strategy<Value = Flow> {
    prop_oneof![
        3 => Just(FLOW),
        1 => (2..4_u8, 1000..1002_u16, 7..9_u16)
            .prop_map(|(host, port, our_port)| Flow { host, port, our_port }),
    ]
}

fn tweak() -> impl Strategy<Value = Tweak> {
    prop_oneof![
        12 => Just(Tweak::Usual),
        1 => (1..3_u8).prop_map(Tweak::HopLimit),
        1 => any::<u8>().prop_map(Tweak::TrafficClass),
        1 => Just(Tweak::Unknown),
        1 => (1..50_usize).prop_map(Tweak::InPieces),
        1 => (1..9_u16).prop_map(Tweak::Joined),
        1 => (0..HEADERS_BYTES, any::<u8>()).prop_map(|(at, byte)| Tweak::Byte(at, byte)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let number = || prop_oneof![3 => Just(0_usize), 1 => 1..3_usize];
    prop_oneof![
        12 => (flow(), tweak(), 1..4_usize).prop_map(|(flow, tweak, count)| Step::Frames(flow, tweak, count)),
        1 => (flow(), 0..5_u8).prop_map(|(flow, code)| Step::Error(flow, code)),
        1 => (1..4_u8).prop_map(Step::Arp),
        2 => (any::<bool>(), 7..9_u16).prop_map(|(any, port)| Step::Bind(any, port)),
        1 => number().prop_map(Step::Share),
        1 => (number(), flow()).prop_map(|(number, flow)| Step::Connect(number, flow)),
        1 => (number(), flow()).prop_map(|(number, flow)| Step::Send(number, flow)),
        1 => number().prop_map(Step::Close),
        12 => number().prop_map(Step::Pop),
        1 => (1..20_000_u64).prop_map(Step::Pass),
    ]
}

fn take(world: &mut World, step: Step, data: &[u8]) {
    match step {
        Step::Frames(flow, tweak, count) => {
            for _ in 0..count {
                receive_tweaked(world, &flow.frame(data), tweak);
            }
        }
        Step::Error(flow, code) => drop(world.receive(world.frame(&flow.error(3, code)))),
        Step::Arp(sender) => drop(world.receive(world.frame(&arp(sender)))),
        Step::Bind(any, port) => {
            let local = if any { ([0, 0, 0, 0], port).into() } else { (v4(1), port).into() };
            world.bind(local);
        }
        Step::Share(number) => {
            if let Some(id) = world.socket(number) {
                world.stack.udp_set_option(id, SocketOption::ReuseAddress(true)).unwrap();
            }
        }
        Step::Connect(number, flow) => {
            if let Some(id) = world.socket(number) {
                let connected = world.stack.udp_connect(world.now, id, flow.remote());
                world.tell(connected);
            }
        }
        Step::Send(number, flow) => {
            if let Some(id) = world.socket(number) {
                let mut data = world.arena.copy_from(data).unwrap().freeze().into();
                let sent = world.stack.udp_send(world.now, id, Some(&flow.remote()), &mut data);
                world.tell(sent);
            }
        }
        Step::Close(number) => world.close(number),
        Step::Pop(number) => world.pop(number),
        Step::Pass(millis) => world.now += Duration::from_millis(millis),
    }
}

fn receive_tweaked(world: &mut World, usual: &[u8], tweak: Tweak) {
    let at_ip = |offset: usize, value: u8| {
        let (link, packet) = usual.split_at(ethernet::HEADER_BYTES);
        [link, &with_header_byte(packet.to_vec(), offset, value)].concat()
    };
    let mut frame = world.frame(&match tweak {
        Tweak::HopLimit(limit) => at_ip(8, limit),
        Tweak::TrafficClass(class) => at_ip(1, class),
        Tweak::Byte(at, byte) => {
            let mut bytes = usual.to_vec();
            bytes[at] = byte;
            mended(&bytes)
        }
        Tweak::Usual | Tweak::Unknown | Tweak::InPieces(_) | Tweak::Joined(_) => usual.to_vec(),
    });
    match tweak {
        Tweak::Unknown => frame.checksum = RxChecksum::Unknown,
        Tweak::InPieces(at) => {
            let at = at.min(usual.len() - 1);
            frame.rest = vec![world.arena.copy_from(&usual[at..]).unwrap().freeze()].into();
            frame.head.truncate(at);
        }
        Tweak::Joined(segment_bytes) => frame.segment_bytes = segment_bytes,
        Tweak::Usual | Tweak::HopLimit(_) | Tweak::TrafficClass(_) | Tweak::Byte(..) => {}
    }
    world.receive(frame);
}

proptest! {
    #[test]
    fn with_and_without_lanes_sockets_live_the_same(steps in prop::collection::vec(step(), 1..120)) {
        let mut worlds = Worlds::new();
        worlds.both("bind", |world| world.bind(FLOW.local()));
        for (index, step) in steps.into_iter().enumerate() {
            let data = [(index as u16).to_be_bytes(); 8];
            worlds.both((index, step), |world| take(world, step, data.as_flattened()));
        }
    }
}
