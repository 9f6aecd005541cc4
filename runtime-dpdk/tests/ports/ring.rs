//! A port of rings receives what it sends: bursts, sizes, and a device that has no room.

use libos::{FrameBatch, MemoryAccess, Runtime};

use crate::end::{End, bytes, config, pattern, push};
use crate::namespace;

#[test]
fn frames_of_any_size_and_any_pieces_arrive_as_they_were_sent() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        assert_eq!(end.dpdk.memory_access(), MemoryAccess::Dma);
        let before = end.arena.used_bytes();
        for (seed, len) in [1, 14, 60, 61, 1514, 2048, 9000, 40_000].into_iter().enumerate() {
            for pieces in [1, 2, 3, 7] {
                let sent = pattern(len, seed + pieces);
                let mut batch = FrameBatch::new();
                let parts: Vec<_> = sent.chunks(len.div_ceil(pieces)).map(|part| end.buffer(part)).collect();
                push(&mut batch, parts);
                end.transmit(&mut batch);
                assert!(batch.is_empty());
                let frames = end.receive_all();
                assert_eq!(frames.len(), 1);
                assert!(bytes(&frames[0]) == sent, "{len} bytes in {pieces} pieces");
            }
        }
        let counters = end.dpdk.counters();
        assert_eq!((counters.tx_frames, counters.rx_frames), (32, 32));
        assert_eq!(counters.tx_copied_frames, 0);
        assert_eq!(counters.rx_copied_frames, 32, "they are in mbufs of the sending side");
        assert_eq!(end.dpdk.buffers_on_loan(), 0);
        assert_eq!(end.arena.used_bytes(), before, "nothing leaks");
    });
}

#[test]
fn frames_that_the_device_has_no_room_for_stay_and_go_out_in_order() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        let mut batch = FrameBatch::new();
        const FRAMES: usize = 5000;
        for index in 0..FRAMES {
            push(&mut batch, [end.buffer(&pattern(60 + index % 100, index)), end.buffer(b"tail")]);
        }
        let mut received = Vec::new();
        let mut tries = 0;
        while received.len() < FRAMES {
            end.transmit(&mut batch);
            received.extend(end.receive_all().iter().map(bytes));
            tries += 1;
            assert!(tries < 10_000, "{} frames of {FRAMES}", received.len());
        }
        for (index, frame) in received.iter().enumerate() {
            let expected = [pattern(60 + index % 100, index), b"tail".to_vec()].concat();
            assert!(*frame == expected, "frame {index}");
        }
        assert!(end.dpdk.counters().tx_would_block > 0, "the ring is smaller than what was sent");
        assert_eq!(end.dpdk.counters().tx_frames, FRAMES as u64);
        assert_eq!(end.dpdk.buffers_on_loan(), 0);
    });
}

#[test]
fn a_null_port_takes_everything_and_gives_buffers_back() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_null0,size=200"));
        let before = end.arena.used_bytes();
        for round in 0..100 {
            let mut batch = FrameBatch::new();
            for index in 0..64 {
                push(&mut batch, [end.buffer(&pattern(100 + index, round))]);
            }
            end.transmit(&mut batch);
            assert!(batch.is_empty());
            let frames = end.receive();
            assert!(!frames.is_empty() && frames.iter().all(|frame| frame.head.len() == 200));
        }
        assert_eq!(end.dpdk.counters().rx_copied_frames, 0, "its frames are in the arena's buffers");
        assert_eq!((end.dpdk.buffers_on_loan(), end.arena.used_bytes()), (0, before));
    });
}
