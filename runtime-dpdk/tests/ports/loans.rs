//! Buffers stay alive while the device has them, whatever the program does.

use libos::{FrameBatch, Runtime};

use crate::end::{End, bytes, config, pattern, push};
use crate::namespace;

/// Fewer than the ring holds.
const FRAMES: usize = 200;
const FRAME_BYTES: usize = 700;

#[test]
fn what_is_freed_and_written_over_after_sending_still_arrives() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        let mut batch = FrameBatch::new();
        let mut addresses = Vec::new();
        for index in 0..FRAMES {
            let buffer = end.buffer(&pattern(FRAME_BYTES, index));
            addresses.push(buffer.as_ptr());
            push(&mut batch, [buffer]);
        }
        end.transmit(&mut batch);
        // All views of the program's and the stack's are gone: the device alone has the buffers.
        drop(batch);
        assert_eq!(end.dpdk.buffers_on_loan(), FRAMES);
        let scribbled: Vec<_> = (0..4 * FRAMES).map(|_| end.buffer(&[0xee; FRAME_BYTES])).collect();
        assert!(scribbled.iter().all(|buffer| !addresses.contains(&buffer.as_ptr())));
        drop(scribbled);

        let frames = end.receive_all();
        assert_eq!(frames.len(), FRAMES);
        for (index, frame) in frames.iter().enumerate() {
            assert!(bytes(frame) == pattern(FRAME_BYTES, index), "frame {index}");
        }
        assert_eq!(end.dpdk.buffers_on_loan(), 0);
        let reused: Vec<_> = (0..4 * FRAMES).map(|_| end.buffer(&[0xdd; FRAME_BYTES])).collect();
        assert!(reused.iter().any(|buffer| addresses.contains(&buffer.as_ptr())), "they are free now");
    });
}

#[test]
fn bytes_outside_registered_memory_are_copied_and_counted() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        let (header, payload) = (pattern(54, 1), pattern(30_000, 2));
        let mut batch = FrameBatch::new();
        push(&mut batch, [end.buffer(&header), payload.clone().into()]);
        end.transmit(&mut batch);
        let frames = end.receive_all();
        assert!(bytes(&frames[0]) == [header, payload].concat());
        let counters = end.dpdk.counters();
        assert_eq!((counters.tx_copied_frames, counters.tx_copied_bytes), (1, 30_000));
    });
}

#[test]
fn memory_that_is_registered_later_is_not_copied() {
    namespace::enter("-Urn", || {
        let mut end = End::open(&config("net_ring0"));
        for round in 0..3 {
            // A region each time, perhaps at the addresses of the last.
            let other = End::more_memory();
            let mut batch = FrameBatch::new();
            push(&mut batch, [other.copy_from(&pattern(FRAME_BYTES, round)).unwrap().freeze()]);
            end.transmit(&mut batch);
            drop((batch, other));
            assert!(bytes(&end.receive_all()[0]) == pattern(FRAME_BYTES, round));
        }
        assert_eq!(end.dpdk.counters().tx_copied_frames, 0);
    });
}

#[test]
fn a_port_that_is_told_to_copies_everything() {
    namespace::enter("-Urn", || {
        let memory = runtime_dpdk::MemoryPolicy::Copy;
        let mut end = End::open(&runtime_dpdk::DpdkConfig { memory, ..config("net_ring0") });
        assert_eq!(end.dpdk.memory_access(), libos::MemoryAccess::Copy);
        let mut batch = FrameBatch::new();
        push(&mut batch, [end.buffer(&pattern(54, 1)), end.buffer(&pattern(9000, 2))]);
        end.transmit(&mut batch);
        assert_eq!(end.dpdk.buffers_on_loan(), 0);
        assert!(bytes(&end.receive_all()[0]) == [pattern(54, 1), pattern(9000, 2)].concat());
        assert_eq!(end.dpdk.counters().tx_copied_bytes, 9054);
    });
}
