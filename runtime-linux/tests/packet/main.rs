//! Packet sockets on one end of a veth pair, with frames written by hand on the other, each test in a network
//! namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../../../tests/common/namespace.rs"]
mod namespace;
#[path = "../common/veth.rs"]
mod veth;

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant as Time};

use libos::runtime::{MemoryAccess, RxBatch, RxChecksum, TxChecksum, TxOffload};
use libos::{Arena, Error, FrameBatch, Instant, Runtime};
use runtime_linux::packet::{Packet, PacketConfig};

use crate::veth::{EXPERIMENT, FAR, NEAR, PATIENCE, arena, bytes, frame, pair, run};

fn config(interface: &str) -> PacketConfig {
    PacketConfig { interface: interface.into(), ..PacketConfig::default() }
}

/// With a ring, and without.
const RING_KIB: [usize; 2] = [8192, 0];

fn open(config: &PacketConfig, arena: &Arena) -> Packet {
    let [end] = <[Packet; 1]>::try_from(Packet::open(config, arena).unwrap()).unwrap();
    end
}

fn send(end: &mut Packet, arena: &Arena, frames: &[Vec<u8>]) {
    let mut batch = FrameBatch::new();
    for frame in frames {
        batch.push(arena.copy_from(&frame[..14]).unwrap().freeze());
        batch.push(arena.copy_from(&frame[14..]).unwrap().freeze());
        batch.finish(TxOffload::default());
    }
    let end_at = Time::now() + PATIENCE;
    while !batch.is_empty() && Time::now() < end_at {
        end.transmit(Instant::ZERO, &mut batch).unwrap();
    }
    assert!(batch.is_empty());
}

fn receive(end: &mut Packet) -> Vec<Vec<u8>> {
    let mut batch = RxBatch::new();
    end.receive(Instant::ZERO, &mut batch).unwrap();
    batch.iter().map(bytes).filter(|frame| frame[12..14] == EXPERIMENT).collect()
}

/// The next frames of the experiment's type, as many as are wanted.
fn expect(end: &mut Packet, count: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let end_at = Time::now() + PATIENCE;
    while frames.len() < count && Time::now() < end_at {
        frames.extend(receive(end));
        sleep(Duration::from_micros(100));
    }
    assert_eq!(frames.len(), count, "{:?}", end.counters());
    frames
}

#[test]
fn frames_of_every_size_cross_in_order_in_bursts_larger_than_a_batch() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        for ring_kib in RING_KIB {
            frames_of_every_size(ring_kib);
        }
    });
}

fn frames_of_every_size(ring_kib: usize) {
    let arena = arena(32);
    let mut near = open(&PacketConfig { ring_kib, ..config(NEAR) }, &arena);
    let mut far = open(&PacketConfig { ring_kib, ..config(FAR) }, &arena);
    assert_eq!((near.name(), near.memory_access()), (NEAR, MemoryAccess::Copy));
    let frames: Vec<_> = (0..1000_usize).map(|n| frame(&vec![n as u8; 46 + n * 7 % 1454])).collect();
    send(&mut far, &arena, &frames);
    assert!(expect(&mut near, 1000) == frames);
    let counters = far.counters();
    assert!(counters.tx_calls < 50, "{counters:?}");
    assert_eq!(receive(&mut far), Vec::<Vec<u8>>::new(), "what was sent is not received");
}

#[test]
fn what_the_interface_offers_follows_the_configuration() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        let arena = arena(16);
        let offered = open(&config(NEAR), &arena).capabilities();
        assert_eq!((offered.tx_checksum, offered.tcp_segmentation_bytes), (TxChecksum::Partial, 65_000));
        assert_eq!(offered.mtu, 1500);
        let mac = [2, 0, 0, 0, 0, 1];
        let other = PacketConfig {
            offload: false,
            mac: Some(mac),
            mtu: Some(1400),
            promiscuous: true,
            ..config(NEAR)
        };
        let offered = open(&other, &arena).capabilities();
        assert_eq!((offered.tx_checksum, offered.tcp_segmentation_bytes), (TxChecksum::Software, 0));
        assert_eq!((offered.mtu, offered.hardware_address), (1400, mac));
    });
}

#[test]
fn a_vlan_tag_that_the_kernel_took_off_is_put_back() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        let arena = arena(32);
        let mut far = open(&config(FAR), &arena);
        for (size, ring_kib) in [(46, 8192), (1486, 8192), (46, 0), (1486, 0)] {
            let mut near = open(&PacketConfig { ring_kib, ..config(NEAR) }, &arena);
            let plain = frame(&vec![7; size]);
            let tagged = [&plain[..12], &[0x81, 0, 0x20, 5], &plain[12..]].concat();
            send(&mut far, &arena, std::slice::from_ref(&tagged));
            let mut batch = RxBatch::new();
            let end_at = Time::now() + PATIENCE;
            while batch.is_empty() && Time::now() < end_at {
                near.receive(Instant::ZERO, &mut batch).unwrap();
            }
            assert_eq!(bytes(&batch[0]), tagged);
        }
    });
}

#[test]
fn a_checksum_that_the_kernel_left_open_needs_none_to_be_verified() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        run("address add 10.9.0.1/24 dev far");
        run("neighbor add 10.9.0.2 lladdr 02:00:00:00:00:01 dev far");
        let arena = arena(32);
        for ring_kib in RING_KIB {
            let mut near = open(&PacketConfig { ring_kib, ..config(NEAR) }, &arena);
            UdpSocket::bind("10.9.0.1:0").unwrap().send_to(b"hello", "10.9.0.2:7").unwrap();
            let mut batch = RxBatch::new();
            let end_at = Time::now() + PATIENCE;
            while !batch.iter().any(|frame| frame.head[12..14] == [8, 0]) && Time::now() < end_at {
                near.receive(Instant::ZERO, &mut batch).unwrap();
            }
            let datagram = batch.iter().find(|frame| frame.head[12..14] == [8, 0]).unwrap();
            assert_eq!(datagram.checksum, RxChecksum::Verified);
        }
    });
}

#[test]
fn each_flow_stays_on_one_of_several_queues() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        run("address add 10.9.0.1/24 dev far");
        run("neighbor add 10.9.0.2 lladdr 02:00:00:00:00:01 dev far");
        let arena = arena(64);
        let mut queues = Packet::open(&PacketConfig { queues: 3, ..config(NEAR) }, &arena).unwrap();
        let sockets: Vec<_> = (0..30).map(|_| UdpSocket::bind("10.9.0.1:0").unwrap()).collect();
        for _ in 0..5 {
            for socket in &sockets {
                socket.send_to(b"hello", "10.9.0.2:7").unwrap();
            }
        }
        let mut seen = vec![Vec::new(); queues.len()];
        let end_at = Time::now() + PATIENCE;
        while seen.iter().map(Vec::len).sum::<usize>() < 150 && Time::now() < end_at {
            for (queue, ports) in queues.iter_mut().zip(&mut seen) {
                let mut batch = RxBatch::new();
                queue.receive(Instant::ZERO, &mut batch).unwrap();
                let datagrams = batch.iter().filter(|frame| frame.head[12..14] == [8, 0]);
                ports.extend(datagrams.map(|frame| [frame.head[34], frame.head[35]]));
            }
        }
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 150);
        let used = seen.iter().filter(|ports| !ports.is_empty()).count();
        assert!(used > 1, "all flows came to one queue");
        for (queue, ports) in seen.iter().enumerate() {
            let elsewhere = seen.iter().enumerate().filter(|(other, _)| *other != queue);
            assert!(elsewhere.flat_map(|(_, ports)| ports).all(|port| !ports.contains(port)));
        }
    });
}

#[test]
fn what_arrives_while_several_queues_are_opened_arrives_once() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        let ours = arena(64);
        let opened = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let theirs = arena(16);
                let mut far = open(&config(FAR), &theirs);
                let (mut number, end_at) = (0_u32, Time::now() + 2 * PATIENCE);
                while !opened.load(Ordering::Relaxed) && Time::now() < end_at {
                    send(&mut far, &theirs, &[frame(&number.to_be_bytes())]);
                    number += 1;
                }
            });
            for _ in 0..20 {
                let mut queues = Packet::open(&PacketConfig { queues: 8, ..config(NEAR) }, &ours).unwrap();
                let mut seen = HashSet::new();
                let end_at = Time::now() + PATIENCE;
                while seen.len() < 100 && Time::now() < end_at {
                    for bytes in queues.iter_mut().flat_map(receive) {
                        assert!(seen.insert(bytes), "a frame came twice");
                    }
                }
                assert!(seen.len() >= 100);
            }
            opened.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn without_memory_frames_wait_in_the_kernel_until_there_is_some() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        for ring_kib in RING_KIB {
            let (ours, theirs) = (arena(16), arena(16));
            let mut near = open(&PacketConfig { ring_kib, ..config(NEAR) }, &ours);
            let mut far = open(&config(FAR), &theirs);
            let mut held = Vec::new();
            for size in [1 << 20, 16_000, 1500, 64] {
                held.extend(std::iter::from_fn(|| ours.allocate(size)));
            }
            let frames: Vec<_> = (0..10).map(|number| frame(&[number; 100])).collect();
            send(&mut far, &theirs, &frames);
            let end_at = Time::now() + PATIENCE;
            while near.counters().rx_no_buffers == 0 && Time::now() < end_at {
                assert_eq!(receive(&mut near), Vec::<Vec<u8>>::new());
            }
            held.clear();
            assert!(expect(&mut near, 10) == frames);
        }
    });
}

#[test]
fn a_full_ring_is_counted_and_what_comes_later_arrives() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        let arena = arena(64);
        let small = PacketConfig { ring_kib: 512, ..config(NEAR) };
        let (mut near, mut far) = (open(&small, &arena), open(&config(FAR), &arena));
        let frames: Vec<_> = (0..1000).map(|_| frame(&[1; 1400])).collect();
        send(&mut far, &arena, &frames);
        let end_at = Time::now() + PATIENCE;
        let mut kept = 0;
        while kept + near.counters().rx_ring_full < 1000 && Time::now() < end_at {
            kept += receive(&mut near).len() as u64;
        }
        assert!(near.counters().rx_ring_full > 0);
        assert!((100..1000).contains(&kept), "{kept}");
        send(&mut far, &arena, &[frame(b"and now some that fit in, as many as one batch has")]);
        expect(&mut near, 1);
    });
}

#[test]
fn frames_that_the_kernel_refuses_do_not_hold_up_the_others() {
    namespace::enter("-Urn", || {
        pair(1, 1500);
        let arena = arena(32);
        let (mut near, mut far) = (open(&config(NEAR), &arena), open(&config(FAR), &arena));
        send(&mut far, &arena, &[frame(&[1; 50]), frame(&vec![2; 9000]), frame(&[3; 50])]);
        assert_eq!(expect(&mut near, 2), [frame(&[1; 50]), frame(&[3; 50])]);
        assert_eq!(far.counters().tx_refused, 1);
        run("link set far down");
        send(&mut far, &arena, &[frame(&[4; 50])]);
        assert_eq!(far.counters().tx_link_down, 1);
    });
}

#[test]
fn an_interface_that_was_deleted_has_failed_for_good() {
    namespace::enter("-Urn", || {
        for ring_kib in RING_KIB {
            pair(1, 1500);
            let arena = arena(16);
            let mut near = open(&PacketConfig { ring_kib, ..config(NEAR) }, &arena);
            receive(&mut near);
            run("link delete far");
            let mut batch = FrameBatch::new();
            batch.push(arena.copy_from(&frame(&[0; 46])).unwrap().freeze());
            batch.finish(TxOffload::default());
            for second in 1..3 {
                let now = Instant::from_millis(second * 1000);
                assert_eq!(near.transmit(now, &mut batch), Err(Error::DeviceFailed));
                assert_eq!(near.receive(now, &mut RxBatch::new()), Err(Error::DeviceFailed));
            }
            assert_eq!(batch.len(), 1);
        }
    });
}
