//! Frames across a link whose two ends are two threads: every kind of ring, every size, both ways.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot run has failed"
)]

use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant as WallInstant};

use libos::memory::{ArenaConfig, Region};
use libos::runtime::{
    MemoryAccess, PartialChecksum, RxBatch, RxChecksum, Segmentation, TxChecksum, TxOffload,
};
use libos::{Arena, Buffer, Error, FrameBatch, Instant, Runtime, RxFrame};
use runtime_vhost::{RingKind, Vhost, VhostConfig, VhostQueue, VhostRole};

const TIMEOUT: Duration = Duration::from_secs(30);

fn socket() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("catnip-link-{}-{next}.sock", std::process::id()))
}

fn arena(role: VhostRole) -> Arena {
    match role {
        VhostRole::Front => Arena::with_region(Region::map_shared(64 << 20).unwrap()).unwrap(),
        VhostRole::Back => Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap(),
    }
}

/// Runs the two ends of a link, each on a thread with memory of its own.
fn link(
    config: &VhostConfig,
    front: impl FnOnce(Vec<Vhost>, Arena) + Send,
    back: impl FnOnce(Vec<Vhost>, Arena) + Send,
) {
    let config = VhostConfig { socket: socket(), wait_for_peer: TIMEOUT, ..config.clone() };
    let open = |role| {
        let config =
            VhostConfig { role, server: (role == VhostRole::Back) == config.server, ..config.clone() };
        let arena = arena(role);
        (Vhost::open(&config, &arena).unwrap(), arena)
    };
    let opened = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (end, arena) = open(VhostRole::Front);
            opened.wait();
            front(end, arena);
        });
        scope.spawn(|| {
            let (end, arena) = open(VhostRole::Back);
            opened.wait();
            back(end, arena);
        });
    });
    assert!(!config.socket.exists(), "the socket is left behind");
}

fn noise(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(101)) as u8).collect()
}

/// Puts a frame of several segments into a batch.
fn push(batch: &mut FrameBatch, arena: &Arena, bytes: &[u8], segment_bytes: usize, offload: TxOffload) {
    for segment in bytes.chunks(segment_bytes) {
        batch.push(arena.copy_from(segment).unwrap().freeze());
    }
    batch.finish(offload);
}

fn send_all(vhost: &mut Vhost, batch: &mut FrameBatch) {
    let deadline = WallInstant::now() + TIMEOUT;
    while !batch.is_empty() {
        vhost.transmit(Instant::ZERO, batch).unwrap();
        assert!(WallInstant::now() < deadline, "nobody takes the frames");
        thread::yield_now();
    }
}

fn receive(vhost: &mut Vhost, count: usize) -> Vec<RxFrame> {
    let deadline = WallInstant::now() + TIMEOUT;
    let mut frames = Vec::new();
    while frames.len() < count {
        let mut batch = RxBatch::new();
        // No more than asked for: a batch takes what it has room for.
        while batch.remaining_capacity() > count - frames.len() {
            batch.push(Buffer::from(&b""[..]).into());
        }
        let known = batch.len();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        frames.extend(batch.drain(known..));
        thread::yield_now();
        assert!(WallInstant::now() < deadline, "{} frames of {count} came", frames.len());
    }
    frames
}

fn bytes_of(frame: &RxFrame) -> Vec<u8> {
    frame.rest.iter().fold(frame.head.to_vec(), |mut all, segment| {
        all.extend_from_slice(segment);
        all
    })
}

fn every_kind() -> impl Iterator<Item = VhostConfig> {
    let config = VhostConfig::new("", VhostRole::Back);
    [RingKind::Split, RingKind::Packed].into_iter().flat_map(move |ring| {
        [(16, true, true), (256, true, true), (64, false, false)].map(|(queue_size, offload, server)| {
            VhostConfig { ring, queue_size, offload, server, ..config.clone() }
        })
    })
}

const SIZES: [usize; 12] = [14, 15, 60, 64, 128, 1000, 1513, 1514, 4000, 4160, 20_000, 65_549];

#[test]
fn frames_of_all_sizes_cross_in_order_both_ways() {
    for config in every_kind() {
        let largest = if config.offload { 65_549 } else { 1514 };
        let sizes: Vec<usize> = SIZES.iter().copied().filter(|&size| size <= largest).collect();
        let send = |end: &mut Vhost, arena: &Arena| {
            for round in 0..20 {
                let mut batch = FrameBatch::new();
                for (index, &size) in sizes.iter().enumerate() {
                    let segment = [size, 100, 1 << 13][round % 3].max(size / 15 + 1);
                    push(&mut batch, arena, &noise(round * 100 + index, size), segment, TxOffload::default());
                }
                send_all(end, &mut batch);
            }
        };
        let check = |end: &mut Vhost| {
            for round in 0..20 {
                let frames = receive(end, sizes.len());
                for (index, (frame, &size)) in frames.iter().zip(&sizes).enumerate() {
                    assert!(bytes_of(frame) == noise(round * 100 + index, size), "{size} in {config:?}");
                    assert_eq!((frame.checksum, frame.segment_bytes), (RxChecksum::Unknown, 0));
                }
            }
        };
        link(
            &config,
            |mut ends, arena| {
                let end = &mut ends[0];
                send(end, &arena);
                check(end);
                let counters = end.counters();
                assert_eq!((counters.tx_copied_frames, counters.rx_copied_frames), (0, 0));
                assert_eq!(counters.tx_frames, 20 * sizes.len() as u64);
                // Until the other end has gone, so that it sees all.
                while end.receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {}
                drop(ends);
                assert_eq!(arena.stats().live_buffers, 0);
            },
            |mut ends, arena| {
                let end = &mut ends[0];
                check(end);
                send(end, &arena);
                let counters = end.counters();
                assert_eq!(counters.tx_copied_frames, 20 * sizes.len() as u64);
                assert_eq!(counters.rx_copied_frames, 20 * sizes.len() as u64);
                thread::sleep(Duration::from_millis(50));
                drop(ends);
                assert_eq!(arena.stats().live_buffers, 0);
            },
        );
    }
}

#[test]
fn a_front_end_sends_all_memory_that_it_shares_as_it_is_and_copies_the_rest() {
    let shareable = Arena::with_region(Region::map_shared(1 << 20).unwrap()).unwrap();
    let private = arena(VhostRole::Back);
    let lend =
        |arena: &Arena, seed| bytes::Bytes::from(arena.copy_from(&noise(seed, 5000)).unwrap().freeze());
    let memory = [lend(&shareable, 0), lend(&private, 1), bytes::Bytes::from(noise(2, 5000))];
    // What is registered once the link is up may be shared by then, or not yet.
    for (share_registered, copied) in
        [(true, [Some(false), Some(true), Some(true), None]), (false, [Some(true); 4])]
    {
        let config = VhostConfig { share_registered, ..VhostConfig::new("", VhostRole::Back) };
        link(
            &config,
            |mut ends, arena| {
                let later = Arena::with_region(Region::map_shared(1 << 20).unwrap()).unwrap();
                let later = later.copy_from(&noise(3, 5000)).unwrap().freeze();
                let buffers = memory.iter().cloned().map(Buffer::from).chain([later]);
                for (kind, (buffer, copied)) in buffers.zip(copied).enumerate() {
                    let before = ends[0].counters().tx_copied_frames;
                    let mut batch = FrameBatch::new();
                    // Behind memory of the queue's own, as payload is behind headers.
                    batch.push(arena.copy_from(&noise(9, 54)).unwrap().freeze());
                    batch.push(buffer);
                    batch.finish(TxOffload::default());
                    send_all(&mut ends[0], &mut batch);
                    let counted = ends[0].counters().tx_copied_frames - before;
                    let expected = copied.map_or(counted, u64::from);
                    assert_eq!(counted, expected, "memory {kind}, sharing {share_registered}");
                }
                while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {}
            },
            |mut ends, _| {
                for (kind, frame) in receive(&mut ends[0], 4).iter().enumerate() {
                    assert!(bytes_of(frame) == [noise(9, 54), noise(kind, 5000)].concat(), "memory {kind}");
                }
            },
        );
    }
}

/// Regions of one size, one after the other, which come to lie at the same addresses.
#[test]
fn memory_that_is_registered_while_the_link_is_up_is_soon_sent_as_it_is() {
    const ROUNDS: usize = 4;
    for config in every_kind() {
        let came = AtomicU32::new(0);
        link(
            &config,
            |mut ends, arena| {
                for round in 0..ROUNDS {
                    let later = Arena::with_region(Region::map_shared(1 << 20).unwrap()).unwrap();
                    let deadline = WallInstant::now() + TIMEOUT;
                    loop {
                        let before = ends[0].counters().tx_copied_frames;
                        let mut batch = FrameBatch::new();
                        batch.push(arena.copy_from(&noise(9, 54)).unwrap().freeze());
                        batch.push(later.copy_from(&noise(round, 5000)).unwrap().freeze());
                        batch.finish(TxOffload::default());
                        let sent = came.load(Ordering::Relaxed);
                        send_all(&mut ends[0], &mut batch);
                        // The copy is another's, the memory itself is ours until it has arrived.
                        while came.load(Ordering::Relaxed) == sent {
                            ends[0].receive(Instant::ZERO, &mut RxBatch::new()).unwrap();
                            assert!(WallInstant::now() < deadline);
                        }
                        if ends[0].counters().tx_copied_frames == before {
                            break;
                        }
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                came.store(u32::MAX, Ordering::Relaxed);
                while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {}
            },
            |mut ends, _| {
                let mut round = 0;
                while came.load(Ordering::Relaxed) != u32::MAX {
                    let mut batch = RxBatch::new();
                    ends[0].receive(Instant::ZERO, &mut batch).unwrap();
                    for frame in batch {
                        let is_of = |round| bytes_of(&frame) == [noise(9, 54), noise(round, 5000)].concat();
                        round += usize::from(!is_of(round));
                        assert!(is_of(round) && round < ROUNDS);
                        came.fetch_add(1, Ordering::Relaxed);
                    }
                }
                assert_eq!(ends[0].counters().rx_malformed, 0);
            },
        );
    }
}

#[test]
fn what_is_left_to_the_other_end_is_told_to_it() {
    let checksum = Some(PartialChecksum { start: 34, offset: 16 });
    let segmentation = Some(Segmentation { segment_bytes: 1448, header_bytes: 66, ipv6: false });
    let offloads = [(TxOffload::new(checksum, None), 0), (TxOffload::new(checksum, segmentation), 1448)];
    for config in every_kind().filter(|config| config.offload) {
        let send = |end: &mut Vhost, arena: &Arena| {
            let capabilities = end.capabilities();
            assert_eq!(capabilities.tx_checksum, TxChecksum::Partial);
            assert!(capabilities.tcp_segmentation_bytes >= 64_000);
            let mut batch = FrameBatch::new();
            for (offload, _) in offloads {
                push(&mut batch, arena, &noise(1, 6000), 6000, offload);
            }
            send_all(end, &mut batch);
        };
        let check = |end: &mut Vhost| {
            for (frame, (_, segment_bytes)) in receive(end, 2).iter().zip(offloads) {
                assert_eq!((frame.checksum, frame.segment_bytes), (RxChecksum::Verified, segment_bytes));
            }
        };
        link(
            &config,
            |mut ends, arena| {
                assert_eq!(ends[0].memory_access(), MemoryAccess::Dma);
                send(&mut ends[0], &arena);
                check(&mut ends[0]);
                while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {}
            },
            |mut ends, arena| {
                assert_eq!(ends[0].memory_access(), MemoryAccess::Copy);
                check(&mut ends[0]);
                send(&mut ends[0], &arena);
                thread::sleep(Duration::from_millis(50));
            },
        );
    }
}

#[test]
fn without_offloads_nothing_is_left_to_the_other_end() {
    let config = VhostConfig { offload: false, ..VhostConfig::new("", VhostRole::Back) };
    let check = |ends: Vec<Vhost>, _| {
        let capabilities = ends[0].capabilities();
        assert_eq!(capabilities.tx_checksum, TxChecksum::Software);
        assert_eq!(capabilities.tcp_segmentation_bytes, 0);
        thread::sleep(Duration::from_millis(100));
    };
    link(&config, check, check);
}

#[test]
fn each_queue_pair_has_frames_of_its_own() {
    for mut config in every_kind() {
        config.queues = 3;
        let send = |ends: &mut [Vhost], arena: &Arena| {
            for (index, end) in ends.iter_mut().enumerate() {
                let mut batch = FrameBatch::new();
                push(&mut batch, arena, &noise(index, 200), 200, TxOffload::default());
                send_all(end, &mut batch);
            }
        };
        let check = |ends: &mut [Vhost]| {
            for (index, end) in ends.iter_mut().enumerate().rev() {
                assert!(bytes_of(&receive(end, 1)[0]) == noise(index, 200));
            }
        };
        link(
            &config,
            |mut ends, arena| {
                assert_eq!(ends.len(), 3);
                send(&mut ends, &arena);
                check(&mut ends);
                while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {}
            },
            |mut ends, arena| {
                check(&mut ends);
                send(&mut ends, &arena);
                thread::sleep(Duration::from_millis(50));
            },
        );
    }
}

#[test]
fn an_end_that_leaves_is_an_error_at_the_other() {
    for config in every_kind() {
        for leaver in [VhostRole::Front, VhostRole::Back] {
            let end = |role: VhostRole| {
                move |mut ends: Vec<Vhost>, arena: Arena| {
                    if role == leaver {
                        return;
                    }
                    let deadline = WallInstant::now() + TIMEOUT;
                    while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {
                        assert!(WallInstant::now() < deadline);
                    }
                    let mut batch = FrameBatch::new();
                    push(&mut batch, &arena, &noise(1, 64), 64, TxOffload::default());
                    for _ in 0..2 {
                        assert_eq!(ends[0].transmit(Instant::ZERO, &mut batch), Err(Error::DeviceFailed));
                    }
                    assert!(ends[0].failure().unwrap().contains("left"), "{:?}", ends[0].failure());
                }
            };
            link(&config, end(VhostRole::Front), end(VhostRole::Back));
        }
    }
}

/// Each thread has its queue pair and its memory; a front end shares all of it.
#[test]
fn each_thread_can_have_a_queue_pair_and_memory_of_its_own() {
    let config =
        VhostConfig { queues: 2, wait_for_peer: TIMEOUT, ..VhostConfig::new(socket(), VhostRole::Back) };
    let front_config = VhostConfig { role: VhostRole::Front, server: false, ..config.clone() };
    let done = Barrier::new(4);
    let (config, front_config, done) = (&config, &front_config, &done);
    thread::scope(|scope| {
        for config in [config, front_config] {
            scope.spawn(move || {
                for (index, queue) in VhostQueue::open(config).unwrap().into_iter().enumerate() {
                    scope.spawn(move || {
                        let arena = arena(config.role);
                        let mut end = Vhost::new(queue, &arena).unwrap();
                        let seed = index * 2 + usize::from(config.role == VhostRole::Back);
                        for round in 0..500 {
                            let mut batch = FrameBatch::new();
                            push(&mut batch, &arena, &noise(seed + round, 700), 300, TxOffload::default());
                            send_all(&mut end, &mut batch);
                            let came = receive(&mut end, 1);
                            assert!(bytes_of(&came[0]) == noise((seed ^ 1) + round, 700), "pair {index}");
                        }
                        done.wait();
                    });
                }
            });
        }
    });
}

#[test]
fn a_back_end_that_reconnects_serves_one_front_end_after_the_other() {
    for ring in [RingKind::Split, RingKind::Packed] {
        let config = VhostConfig {
            ring,
            reconnect: true,
            wait_for_peer: TIMEOUT,
            ..VhostConfig::new(socket(), VhostRole::Back)
        };
        let front_config = VhostConfig { role: VhostRole::Front, server: false, ..config.clone() };
        let stop = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let arena = arena(VhostRole::Back);
                let mut back = Vhost::open(&config, &arena).unwrap().pop().unwrap();
                let mut out = FrameBatch::new();
                while stop.load(Ordering::Relaxed) == 0 {
                    let mut batch = RxBatch::new();
                    back.receive(Instant::ZERO, &mut batch).unwrap();
                    for frame in batch {
                        out.push(frame.head);
                        out.finish(TxOffload::default());
                    }
                    back.transmit(Instant::ZERO, &mut out).unwrap();
                    thread::yield_now();
                }
            });
            for visit in 0..3 {
                let arena = arena(VhostRole::Front);
                let mut front = Vhost::open(&front_config, &arena).unwrap().pop().unwrap();
                for round in 0..100 {
                    let mut batch = FrameBatch::new();
                    push(&mut batch, &arena, &noise(visit * 1000 + round, 200), 200, TxOffload::default());
                    send_all(&mut front, &mut batch);
                    assert!(bytes_of(&receive(&mut front, 1)[0]) == noise(visit * 1000 + round, 200));
                }
            }
            // What the program was told that the link can do has to stay so.
            let less = VhostConfig { offload: false, ..front_config.clone() };
            let arena = arena(VhostRole::Front);
            let refused = Vhost::open(&less, &arena).map(|mut ends| {
                let deadline = WallInstant::now() + TIMEOUT;
                while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {
                    assert!(WallInstant::now() < deadline);
                }
            });
            drop(refused);
            stop.store(1, Ordering::Relaxed);
        });
    }
}
