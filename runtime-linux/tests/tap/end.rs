//! Our end of the link: an open device, and waiting for what arrives on it.

use std::collections::VecDeque;
use std::thread::sleep;
use std::time::{Duration, Instant as Time};

use libos::memory::ArenaConfig;
use libos::runtime::{RxBatch, TxOffload};
use libos::{Arena, FrameBatch, Instant, Runtime, RxFrame};
use runtime_linux::tap::{Tap, TapConfig, TapQueue};

use crate::wire::{self, ETHERTYPE_ARP, KERNEL_IP, OUR_MAC, u16_at};

/// Far more than a frame takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(5);

/// What these tests use: our end 10.9.0.2, the kernel's 10.9.0.1/24.
pub fn config() -> TapConfig {
    TapConfig {
        name: "tap-test".into(),
        mac: Some(OUR_MAC),
        host_addresses: vec!["10.9.0.1/24".parse().unwrap()],
        ..TapConfig::default()
    }
}

pub fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 32 << 20, hugepages: false }).unwrap()
}

/// Our end of an open device.
pub struct End {
    pub tap: Tap,
    pub arena: Arena,
    /// Received and not yet looked at.
    waiting: VecDeque<RxFrame>,
}

impl End {
    pub fn open(config: &TapConfig) -> Self {
        let [end] = Self::open_all(config).try_into().unwrap_or_else(|_| panic!("one queue"));
        end
    }

    /// One for each queue.
    pub fn open_all(config: &TapConfig) -> Vec<Self> {
        let queues = TapQueue::open(config).unwrap();
        let end = |queue| {
            let arena = arena();
            Self { tap: Tap::new(queue, &arena), arena, waiting: VecDeque::new() }
        };
        queues.into_iter().map(end).collect()
    }

    /// Sends one frame, its bytes in the given segments.
    pub fn send(&mut self, segments: &[&[u8]], offload: TxOffload) {
        let mut batch = FrameBatch::new();
        for bytes in segments {
            batch.push(self.arena.copy_from(bytes).unwrap().freeze());
        }
        batch.finish(offload);
        self.tap.transmit(Instant::ZERO, &mut batch).unwrap();
        assert!(batch.is_empty(), "the device took the frame");
    }

    /// The first frame for which `pick` returns something; those before it are dropped.
    pub fn expect<T>(&mut self, what: &str, mut pick: impl FnMut(&RxFrame) -> Option<T>) -> T {
        let end = Time::now() + PATIENCE;
        while Time::now() < end {
            if self.waiting.is_empty() && self.receive() == 0 {
                sleep(Duration::from_millis(1));
            }
            while let Some(frame) = self.waiting.pop_front() {
                if let Some(picked) = pick(&frame) {
                    return picked;
                }
            }
        }
        panic!("no {what} arrived; {:?}", self.tap.counters());
    }

    /// Receives one batch; returns how many frames it had.
    pub fn receive(&mut self) -> usize {
        let mut batch = RxBatch::new();
        self.tap.receive(Instant::ZERO, &mut batch).unwrap();
        let frames = batch.len();
        self.waiting.extend(batch);
        frames
    }

    /// Asks for the kernel's Ethernet address, by which the kernel learns ours as well.
    pub fn resolve(&mut self) -> [u8; 6] {
        self.send(&[&wire::arp_request()], TxOffload::default());
        self.expect("ARP reply", |frame| {
            let head = &frame.head;
            let is_reply = u16_at(head, 12) == ETHERTYPE_ARP && u16_at(head, 20) == 2;
            (is_reply && head[28..32] == KERNEL_IP.octets()).then(|| head[22..28].try_into().unwrap())
        })
    }
}

/// All bytes of a frame.
pub fn bytes(frame: &RxFrame) -> Vec<u8> {
    frame.rest.iter().fold(frame.head.to_vec(), |mut bytes, buffer| {
        bytes.extend_from_slice(buffer);
        bytes
    })
}
