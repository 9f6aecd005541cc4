//! The fabric as its users see it: devices at its ports and a clock.

use std::time::Duration;

use libos::Runtime;
use libos::memory::ArenaConfig;
use libos::runtime::{PartialChecksum, Segmentation};

use super::*;
use crate::{Receiving, Transmitting};

const HEADER: usize = ETHERNET_HEADER_BYTES;

struct Net {
    clock: ManualClock,
    fabric: Fabric,
    ports: Vec<SimRuntime>,
    arenas: Vec<Arena>,
}

fn address(port: usize) -> [u8; 6] {
    [2, 0, 0, 0, 0, port as u8]
}

fn net(ports: usize, configure: impl Fn(&mut PortConfig, &mut PathConfig)) -> Net {
    let clock = ManualClock::new();
    let fabric = Fabric::new(clock.clone(), Medium::Ethernet, 1);
    let arena = |_| Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
    let arenas: Vec<Arena> = (0..ports).map(arena).collect();
    let ports = arenas.iter().enumerate().map(|(index, arena)| {
        let mut config = PortConfig::new("port", address(index), arena.clone());
        let mut path = PathConfig::default();
        configure(&mut config, &mut path);
        fabric.add_port(config, path)
    });
    Net { clock, ports: ports.collect(), fabric, arenas }
}

fn frame(to: [u8; 6], payload: &[u8]) -> Vec<u8> {
    [&to[..], &[0; 6], &[8, 0], payload].concat()
}

impl Net {
    /// Sends one frame from the first port; returns how many frames were left with the sender.
    fn send(&mut self, bytes: &[u8], offload: TxOffload) -> usize {
        let mut batch = FrameBatch::new();
        let (head, rest) = bytes.split_at(bytes.len() / 2);
        batch.push(self.arenas[0].copy_from(head).unwrap().freeze());
        batch.push(self.arenas[0].copy_from(rest).unwrap().freeze());
        batch.finish(offload);
        self.ports[0].transmit(self.clock.now(), &mut batch).unwrap();
        batch.len()
    }

    fn receive(&mut self, port: usize) -> Vec<RxFrame> {
        let mut batch = RxBatch::new();
        self.ports[port].receive(self.clock.now(), &mut batch).unwrap();
        batch.into_iter().collect()
    }

    /// Moves the clock to each deadline in turn; returns when the last one was.
    fn settle(&mut self) -> Instant {
        while let Some(deadline) = self.fabric.next_deadline() {
            self.clock.set(deadline);
            self.fabric.run();
        }
        self.clock.now()
    }
}

#[test]
fn a_frame_arrives_after_the_latency_in_memory_of_the_receiver() {
    let mut net = net(2, |_, _| ());
    net.send(&frame(address(1), b"hello"), TxOffload::default());
    assert_eq!(net.arenas[0].stats().live_buffers, 0);
    assert_eq!(net.ports[1].next_deadline(), Some(Instant::from_micros(10)));
    net.clock.set(Instant::from_nanos(9_999));
    assert!(net.receive(1).is_empty());
    net.clock.set(Instant::from_micros(10));
    assert_eq!(net.fabric.frames_under_way(PortId::from_index(1)), 1);
    let frames = net.receive(1);
    assert_eq!(&frames[0].head[HEADER..], b"hello");
    assert_eq!(net.arenas[1].stats().live_buffers, 1);
    assert_eq!(net.fabric.frames_under_way(PortId::from_index(1)), 0);
}

#[test]
fn frames_go_to_the_addressed_port_and_others_to_all_but_the_sender() {
    let cases = [
        (address(2), false, [0, 0, 1]),
        (address(0), false, [0, 0, 0]),
        ([0xff; 6], false, [0, 1, 1]),
        ([1, 0, 0x5e, 0, 0, 1], false, [0, 1, 1]),
        ([2, 9, 9, 9, 9, 9], false, [0, 1, 1]),
        (address(2), true, [0, 1, 1]),
    ];
    for (to, floods, expected) in cases {
        let mut net = net(3, |_, _| ());
        net.fabric.set_floods(floods);
        net.send(&frame(to, b"x"), TxOffload::default());
        net.settle();
        let received: Vec<_> = (0..3).map(|port| net.receive(port).len()).collect();
        assert_eq!(received, expected, "{to:?}");
    }
}

#[test]
fn a_device_with_a_line_rate_holds_its_senders_memory_and_pushes_back() {
    let mut net = net(2, |port, _| {
        port.transmitting =
            Transmitting { line_bits_per_s: Some(8_000_000), ring_frames: 2, ..Transmitting::default() };
    });
    let bytes = frame(address(1), &[0; 86]);
    let left: Vec<_> = (0..3).map(|_| net.send(&bytes, TxOffload::default())).collect();
    assert_eq!(left, [0, 0, 1]);
    assert_eq!(net.arenas[0].stats().live_buffers, 4);
    net.clock.set(Instant::from_micros(100));
    assert_eq!(net.send(&bytes, TxOffload::default()), 0);
    assert_eq!(net.settle(), Instant::from_micros(310));
    assert_eq!(net.arenas[0].stats().live_buffers, 0);
    assert_eq!(net.receive(1).len(), 3);
}

#[test]
fn what_the_receiver_has_no_room_or_memory_for_is_lost_and_shown() {
    let mut net = net(2, |port, _| port.receiving = Receiving { ring_frames: 2, ..Receiving::default() });
    let seen = Rc::new(RefCell::new(Vec::new()));
    let log = Rc::clone(&seen);
    net.fabric.observe(move |sighting: &Sighting<'_>| log.borrow_mut().push(sighting.stage));
    for _ in 0..3 {
        net.send(&frame(address(1), b"x"), TxOffload::default());
    }
    net.settle();
    let (from, to) = (PortId::from_index(0), PortId::from_index(1));
    let lost = Stage::Lost(to, Loss::RingFull);
    let expected = [vec![Stage::Sent(from); 3], vec![Stage::Delivered(to), Stage::Delivered(to), lost]];
    assert_eq!(*seen.borrow(), expected.concat());
    assert_eq!(net.fabric.counters(to).lost_frames, 1);
}

#[test]
fn offloads_are_done_by_the_device_or_left_to_a_receiver_that_takes_them() {
    let mut payload = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    payload.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    payload.resize(40 + 3000, 7);
    let segmentation = Segmentation { segment_bytes: 1000, header_bytes: 54, ipv6: false };
    let offload = TxOffload::new(Some(PartialChecksum { start: 34, offset: 16 }), Some(segmentation));
    for (cuts_segments, expected) in [(true, vec![(1054, 0); 3]), (false, vec![(3054, 1000)])] {
        let mut net = net(2, |port, _| {
            port.transmitting.cuts_segments = cuts_segments;
            port.receiving.head_bytes = 128;
        });
        net.send(&frame(address(1), &payload), offload);
        net.settle();
        let frames = net.receive(1);
        let length = |frame: &RxFrame| frame.rest.iter().fold(frame.head.len(), |sum, rest| sum + rest.len());
        let seen: Vec<_> = frames.iter().map(|frame| (length(frame), frame.segment_bytes)).collect();
        assert_eq!(seen, expected);
        assert!(frames.iter().all(|frame| frame.head.len() == 128));
        assert!(frames.iter().all(|frame| (frame.checksum == RxChecksum::Verified) != cuts_segments));
    }
}

#[test]
fn a_device_that_checks_says_so_of_whole_frames_only() {
    for (verdict, expected) in
        [(Verdict::Pass, RxChecksum::Verified), (Verdict::Corrupt(200), RxChecksum::Unknown)]
    {
        let mut net = net(2, |port, _| port.receiving.verifies_checksums = true);
        net.fabric.set_script(PortId::from_index(1), move |_, _| verdict);
        net.send(&frame(address(1), &[0; 40]), TxOffload::default());
        net.settle();
        assert_eq!(net.receive(1)[0].checksum, expected);
    }
}

#[test]
fn a_script_decides_frame_by_frame_until_the_fabric_is_healed() {
    let mut net = net(2, |_, _| ());
    let mut verdicts =
        [Verdict::Drop, Verdict::Delay(Duration::from_millis(1)), Verdict::Duplicate].into_iter();
    net.fabric.set_script(PortId::from_index(1), move |_, _| verdicts.next().unwrap_or(Verdict::Drop));
    for payload in [b"a", b"b", b"c", b"d"] {
        net.send(&frame(address(1), payload), TxOffload::default());
    }
    net.fabric.heal();
    net.send(&frame(address(1), b"e"), TxOffload::default());
    net.settle();
    let order: Vec<u8> = net.receive(1).iter().map(|frame| frame.head[HEADER]).collect();
    assert_eq!(order, b"cceb");
}

#[test]
fn frames_beyond_the_mtu_are_refused() {
    let mut net = net(2, |port, _| port.mtu = 576);
    net.send(&frame(address(1), &[0; 576]), TxOffload::default());
    net.send(&frame(address(1), &[0; 577]), TxOffload::default());
    net.settle();
    assert_eq!(net.receive(1).len(), 1);
    assert_eq!(net.fabric.counters(PortId::from_index(0)).refused_frames, 1);
}
