//! Ports of several queue pairs, each with a thread and memory of its own.

use std::sync::Barrier;
use std::thread;

use libos::FrameBatch;
use libos::memory::ArenaConfig;
use runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort, HASH_KEY_BYTES, Spreading};

use crate::end::{End, bytes, config, pattern, push};
use crate::namespace;

const QUEUES: usize = 4;
const FRAMES: usize = 20_000;
const MEMORY: ArenaConfig = ArenaConfig { region_bytes: 16 << 20, hugepages: false };

fn open(config: &DpdkConfig) -> Vec<runtime_dpdk::DpdkQueue> {
    DpdkPort::open(config, MEMORY.region_bytes * config.queues).unwrap().into_queues()
}

#[test]
fn each_thread_gets_what_it_sent_while_one_does_not_poll() {
    namespace::enter("-Urn", || {
        let queues = open(&DpdkConfig { queues: QUEUES, ..config("net_ring0") });
        let all_open = Barrier::new(QUEUES);
        thread::scope(|scope| {
            for (own, queue) in queues.into_iter().enumerate() {
                let all_open = &all_open;
                scope.spawn(move || {
                    let arena = queue.arena(&MEMORY).unwrap();
                    let mut end = End { dpdk: Dpdk::new(queue, &arena).unwrap(), arena };
                    all_open.wait();
                    exchange(&mut end, own);
                    // The port goes on until its last queue is given up, and this one's memory with it.
                    all_open.wait();
                });
            }
        });
    });
}

/// Sends to oneself, over a queue of rings; the last thread alone does not receive.
fn exchange(end: &mut End, own: usize) {
    let mut received = 0;
    for sent in 0..FRAMES {
        let mut batch = FrameBatch::new();
        push(&mut batch, [end.buffer(&pattern(60 + sent % 100, own * FRAMES + sent))]);
        end.transmit(&mut batch);
        if own == QUEUES - 1 {
            continue;
        }
        for frame in end.receive_all() {
            let expected = pattern(60 + received % 100, own * FRAMES + received);
            assert!(bytes(&frame) == expected, "frame {received} of queue {own}");
            received += 1;
        }
    }
    let counters = end.dpdk.counters();
    if own == QUEUES - 1 {
        assert!(
            counters.tx_would_block > 0 && counters.rx_frames == 0,
            "nobody takes its frames: {counters:?}"
        );
    } else {
        assert_eq!((received, counters.rx_frames), (FRAMES, FRAMES as u64));
    }
}

/// The port's own table and key, as DPDK tells them.
fn told(entries: u16) -> (Vec<u16>, Vec<u8>) {
    let mut parts = [dpdk_sys::rte_eth_rss_reta_entry64 { mask: u64::MAX, reta: [u16::MAX; 64] }; 2];
    let mut key = vec![0; HASH_KEY_BYTES];
    let mut conf = dpdk_sys::rte_eth_rss_conf {
        rss_key: key.as_mut_ptr(),
        rss_key_len: HASH_KEY_BYTES as u8,
        rss_hf: 0,
    };
    // SAFETY: there is room for as many entries, and for the key.
    unsafe {
        assert_eq!(dpdk_sys::rte_eth_dev_rss_reta_query(0, parts.as_mut_ptr(), entries), 0);
        assert_eq!(dpdk_sys::rte_eth_dev_rss_hash_conf_get(0, &raw mut conf), 0);
    }
    (parts.iter().flat_map(|part| part.reta).collect(), key)
}

#[test]
fn a_device_is_told_how_to_spread_flows() {
    namespace::enter("-Urn", || {
        let spreading = Spreading { key: [0x6d; HASH_KEY_BYTES], queues: vec![0, 1, 2, 1] };
        let null = DpdkConfig { queues: 3, spreading: Some(spreading.clone()), ..config("net_null0") };
        let arena = libos::Arena::new(&MEMORY).unwrap();
        let ends: Vec<Dpdk> =
            open(&null).into_iter().map(|queue| Dpdk::new(queue, &arena).unwrap()).collect();
        let (table, key) = told(128);
        assert_eq!(table, spreading.queues.repeat(32));
        assert_eq!(key, spreading.key);
        drop(ends);
    });
}
