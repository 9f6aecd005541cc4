//! XDP sockets on one end of a veth pair, with frames written by hand and sent by a packet socket on the other, each
//! test in a network namespace that root made.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "../../../tests/common/namespace.rs"]
mod namespace;
#[path = "../../../tests/common/root.rs"]
mod root;
#[path = "../common/veth.rs"]
mod veth;

use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant as Time};

use libos::runtime::{MemoryAccess, RxBatch, TxOffload};
use libos::{Arena, Buffer, Error, FrameBatch, Instant, Runtime, RxFrame};
use runtime_linux::packet::{Packet, PacketConfig};
use runtime_linux::xdp::{Placement, Xdp, XdpConfig, XdpQueue};

use crate::veth::{EXPERIMENT, FAR, NEAR, PATIENCE, arena, bytes, frame, pair, run};

fn config() -> XdpConfig {
    XdpConfig { interface: NEAR.into(), ..XdpConfig::default() }
}

fn open(config: &XdpConfig, arena: &Arena) -> Xdp {
    let [end] = <[Xdp; 1]>::try_from(Xdp::open(config, arena).unwrap()).unwrap();
    end
}

fn far(arena: &Arena) -> Packet {
    let config = PacketConfig { interface: FAR.into(), ..PacketConfig::default() };
    let [end] = <[Packet; 1]>::try_from(Packet::open(&config, arena).unwrap()).unwrap();
    end
}

/// Sends frames, each given as its segments.
fn send(end: &mut impl Runtime, frames: impl IntoIterator<Item = Vec<Buffer>>) {
    let mut batch = FrameBatch::new();
    for segments in frames {
        segments.into_iter().for_each(|segment| batch.push(segment));
        batch.finish(TxOffload::default());
    }
    let end_at = Time::now() + PATIENCE;
    while !batch.is_empty() && Time::now() < end_at {
        end.transmit(Instant::ZERO, &mut batch).unwrap();
        end.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
    }
    assert!(batch.is_empty());
}

fn in_arena(arena: &Arena, bytes: &[u8]) -> Buffer {
    arena.copy_from(bytes).unwrap().freeze()
}

/// The next frames of the experiment's type, as many as are wanted, as they came.
fn expect(end: &mut impl Runtime, count: usize) -> Vec<RxFrame> {
    let mut frames = Vec::new();
    let end_at = Time::now() + PATIENCE;
    while frames.len() < count && Time::now() < end_at {
        let mut batch = RxBatch::new();
        end.receive(Instant::ZERO, &mut batch).unwrap();
        frames.extend(batch.into_iter().filter(|frame| frame.head[12..14] == EXPERIMENT));
        sleep(Duration::from_micros(20));
    }
    assert_eq!(frames.len(), count);
    frames
}

fn contents(frames: &[RxFrame]) -> Vec<Vec<u8>> {
    frames.iter().map(bytes).collect()
}

#[test]
fn frames_of_every_size_arrive_in_order_in_buffers_of_the_arena() {
    root::enter(|| {
        pair(1, 1500);
        let (ours, theirs) = (arena(32), arena(32));
        for placement in [Placement::Native, Placement::Generic] {
            let mut near = open(&XdpConfig { placement, ..config() }, &ours);
            let mut far = far(&theirs);
            assert_eq!(near.mode().native, placement == Placement::Native);
            let sent: Vec<_> = (0..1000_usize).map(|n| frame(&vec![n as u8; 46 + n * 7 % 1454])).collect();
            send(&mut far, sent.iter().map(|frame| vec![in_arena(&theirs, frame)]));
            let received = expect(&mut near, 1000);
            assert!(contents(&received) == sent, "{placement:?}");
            assert!(received.iter().all(|frame| ours.contains(frame.head.as_ptr())));
            drop(received);
            drop(near);
            assert_eq!(ours.stats().live_buffers, 0, "every buffer came back");
        }
    });
}

#[test]
fn veth_copies_and_says_that_it_was_asked_for_more() {
    root::enter(|| {
        pair(1, 1500);
        let arena = arena(32);
        let near = open(&config(), &arena);
        let mode = near.mode();
        assert!(mode.native && !mode.zero_copy);
        assert_eq!(near.memory_access(), MemoryAccess::Copy);
        assert!(mode.refused.iter().any(|why| why.contains("zero-copy")), "{mode}");
        drop(near);
        let near = open(&XdpConfig { zero_copy: false, ..config() }, &arena);
        assert!(near.mode().refused.is_empty(), "{}", near.mode());
    });
}

#[test]
fn frames_are_sent_from_where_they_lie_and_their_memory_is_free_afterwards() {
    root::enter(|| {
        pair(1, 9000);
        let (ours, theirs) = (arena(32), arena(32));
        let mut near = open(&config(), &ours);
        let mut far = far(&theirs);
        let waiting = ours.stats().live_buffers;
        let sent: Vec<_> = (0..1000_usize)
            .flat_map(|n| [(n, 46 + n * 13 % 1454), (n, 4100 + n * 13 % 4880)])
            .map(|(n, bytes)| frame(&vec![n as u8; bytes]))
            .collect();
        let mut received = Vec::new();
        for frames in sent.chunks(100) {
            // Short ones in one segment, long ones in up to four, views of one buffer or several.
            let segments = frames.iter().enumerate().map(|(index, frame)| {
                let whole = in_arena(&ours, frame);
                let other = in_arena(&ours, frame);
                match (frame.len() > 4096, index / 2 % 3) {
                    (false, _) => vec![whole],
                    (true, 0) => vec![whole.slice(..14), whole.slice(14..)],
                    (true, 1) => vec![whole.slice(..20), other.slice(20..)],
                    (true, _) => {
                        vec![whole.slice(..14), other.slice(14..30), whole.slice(30..31), other.slice(31..)]
                    }
                }
            });
            send(&mut near, segments);
            received.extend(contents(&expect(&mut far, frames.len())));
        }
        assert!(received == sent);
        let counters = near.counters();
        assert_eq!((counters.tx_frames, counters.tx_gathered_frames), (2000, 0), "{counters:?}");
        near.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        assert_eq!(ours.stats().live_buffers, waiting, "nothing is held that was sent");
    });
}

#[test]
fn memory_outside_the_region_and_frames_in_many_pieces_are_copied_and_counted() {
    root::enter(|| {
        pair(1, 1500);
        let (ours, theirs) = (arena(32), arena(32));
        let mut near = open(&config(), &ours);
        let mut far = far(&theirs);
        let payload: Vec<u8> = (0..1400_usize).map(|at| (at % 251) as u8).collect();
        let sent = frame(&payload);
        let foreign = vec![in_arena(&ours, &sent[..14]), Buffer::from(payload.clone())];
        let whole = in_arena(&ours, &sent);
        let in_pieces = (0..40).map(|piece| whole.slice(piece * 35..(piece * 35 + 35))).collect::<Vec<_>>();
        let rest = whole.slice(1400..);
        let in_pieces = in_pieces.into_iter().chain([rest]).collect();
        send(&mut near, [foreign, in_pieces]);
        assert!(contents(&expect(&mut far, 2)) == [sent.clone(), sent.clone()]);
        let counters = near.counters();
        assert_eq!((counters.tx_gathered_frames, counters.tx_gathered_bytes), (2, 2 * 1414));
    });
}

#[test]
fn large_frames_come_and_go_in_several_buffers() {
    root::enter(|| {
        pair(1, 9000);
        let (ours, theirs) = (arena(32), arena(32));
        let mut near = open(&config(), &ours);
        assert!(near.mode().multi_buffer, "{}", near.mode());
        let mut far = far(&theirs);
        let sent: Vec<_> = (0..100_usize)
            .map(|n| frame(&(0..9000 - n * 50).map(|at| (at * n % 253) as u8).collect::<Vec<_>>()))
            .collect();
        send(&mut far, sent.iter().map(|frame| vec![in_arena(&theirs, frame)]));
        assert!(contents(&expect(&mut near, 100)) == sent);
        assert!(near.counters().rx_multi_buffer_frames > 50);
        send(&mut near, sent.iter().map(|frame| vec![in_arena(&ours, frame)]));
        assert!(contents(&expect(&mut far, 100)) == sent);
        assert_eq!(near.counters().tx_gathered_frames, 0);
    });
}

#[test]
fn each_queue_may_be_served_by_a_thread_of_its_own() {
    root::enter(|| {
        pair(2, 1500);
        let theirs = arena(32);
        let mut far = far(&theirs);
        let queues = XdpQueue::open(&XdpConfig { queues: 2, ..config() }).unwrap();
        let threads: Vec<_> = queues
            .into_iter()
            .enumerate()
            .map(|(number, queue)| {
                thread::spawn(move || {
                    let arena = arena(32);
                    let mut near = Xdp::new(queue, &arena).unwrap();
                    send(&mut near, [vec![in_arena(&arena, &frame(&[number as u8; 60]))]]);
                })
            })
            .collect();
        let mut received: Vec<_> = expect(&mut far, 2).iter().map(|frame| bytes(frame)[14]).collect();
        received.sort_unstable();
        assert_eq!(received, [0, 1]);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_queue_that_is_dropped_while_another_runs_gives_everything_back_and_may_be_served_again() {
    root::enter(|| {
        pair(2, 1500);
        let theirs = arena(32);
        let mut far = far(&theirs);
        let mut exchange = |near: &mut Xdp, arena: &Arena| {
            send(near, [vec![in_arena(arena, &frame(&[7; 60]))]]);
            assert_eq!(contents(&expect(&mut far, 1)), [frame(&[7; 60])]);
        };
        let [first, second] =
            <[XdpQueue; 2]>::try_from(XdpQueue::open(&XdpConfig { queues: 2, ..config() }).unwrap()).unwrap();
        let own = arena(32);
        let mut goes_on = Xdp::new(second, &own).unwrap();
        for _ in 0..3 {
            let arena = arena(32);
            let mut near = Xdp::new(first.clone(), &arena).unwrap();
            assert!(arena.stats().live_buffers > 0, "buffers wait for frames");
            exchange(&mut near, &arena);
            drop(near);
            assert_eq!(arena.stats().live_buffers, 0);
            exchange(&mut goes_on, &own);
        }
    });
}

#[test]
fn without_memory_frames_are_lost_and_later_ones_arrive() {
    root::enter(|| {
        pair(1, 1500);
        let (ours, theirs) = (arena(16), arena(16));
        let mut near = open(&XdpConfig { receive_ring: 64, transmit_ring: 64, ..config() }, &ours);
        let mut far = far(&theirs);
        let mut held = Vec::new();
        for size in [1 << 20, 16_000, 1500, 64] {
            held.extend(std::iter::from_fn(|| ours.allocate(size)));
        }
        let mut kept = Vec::new();
        for number in 0..300_u32 {
            send(&mut far, [vec![in_arena(&theirs, &frame(&[number as u8; 100]))]]);
            let mut batch = RxBatch::new();
            near.receive(Instant::ZERO, &mut batch).unwrap();
            kept.extend(batch);
        }
        assert!(near.counters().rx_no_buffers > 0);
        assert!(kept.len() <= 128, "{} frames came in 128 buffers", kept.len());
        drop((kept, held));
        near.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        send(
            &mut far,
            [vec![in_arena(&theirs, &frame(b"now there is memory, so this one arrives as ever"))]],
        );
        expect(&mut near, 1);
    });
}

#[test]
fn a_full_transmit_ring_keeps_the_others_waiting_and_none_is_lost() {
    root::enter(|| {
        pair(1, 1500);
        let (ours, theirs) = (arena(32), arena(32));
        let mut near = open(&XdpConfig { transmit_ring: 64, ..config() }, &ours);
        let mut far = far(&theirs);
        let sent: Vec<_> = (0..1000_u32).map(|n| frame(&n.to_be_bytes().repeat(20))).collect();
        send(&mut near, sent.iter().map(|frame| vec![in_arena(&ours, frame)]));
        assert!(contents(&expect(&mut far, 1000)) == sent);
        assert!(near.counters().tx_ring_full > 0);
    });
}

#[test]
fn what_the_kernel_left_in_the_ring_goes_out_soon_though_nothing_more_is_sent() {
    root::enter(|| {
        pair(1, 1500);
        let (ours, theirs) = (arena(16), arena(16));
        let mut near = open(&config(), &ours);
        let mut far = far(&theirs);
        run("link set near down");
        let sent = frame(&[7; 100]);
        let mut batch = FrameBatch::new();
        batch.push(in_arena(&ours, &sent));
        batch.finish(TxOffload::default());
        let now = Instant::from_millis(5);
        near.transmit(now, &mut batch).unwrap();
        assert!(batch.is_empty());
        assert_eq!(near.next_deadline(), Some(Instant::from_millis(6)));
        run("link set near up");
        near.receive(Instant::from_millis(6), &mut RxBatch::new()).unwrap();
        assert_eq!(contents(&expect(&mut far, 1)), [sent]);
        assert!(near.next_deadline() > Some(Instant::from_millis(1000)));
    });
}

#[test]
fn an_interface_that_was_deleted_has_failed_for_good() {
    root::enter(|| {
        pair(1, 1500);
        let arena = arena(16);
        let mut near = open(&config(), &arena);
        near.receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
        run("link delete far");
        let mut batch = FrameBatch::new();
        batch.push(in_arena(&arena, &frame(&[0; 46])));
        batch.finish(TxOffload::default());
        // What arrived before comes first.
        let mut arrived = RxBatch::new();
        let _ = near.receive(Instant::ZERO, &mut arrived);
        for second in 1..3 {
            let now = Instant::from_millis(second * 1000);
            assert_eq!(near.receive(now, &mut RxBatch::new()), Err(Error::DeviceFailed));
            assert_eq!(near.transmit(now, &mut batch), Err(Error::DeviceFailed));
        }
        drop((near, batch, arrived));
        assert_eq!(arena.stats().live_buffers, 0);
    });
}

#[test]
fn another_program_may_use_the_interface_once_the_last_queue_is_dropped() {
    root::enter(|| {
        pair(1, 1500);
        let arena = arena(16);
        for _ in 0..10 {
            drop(open(&config(), &arena));
        }
        let shown = Command::new("ip").args(["link", "show", "dev", NEAR]).output().unwrap();
        assert!(!String::from_utf8_lossy(&shown.stdout).contains("xdp"), "no program is left behind");
        assert_eq!(arena.stats().live_buffers, 0);
    });
}
