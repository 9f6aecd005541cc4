//! An open port with one queue, and frames of known bytes.

use libos::memory::ArenaConfig;
use libos::runtime::{RxBatch, TxOffload};
use libos::{Arena, Buffer, FrameBatch, Instant, Runtime, RxFrame};
use runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort};

pub struct End {
    // Dropped before the memory that it uses.
    pub dpdk: Dpdk,
    pub arena: Arena,
}

pub fn config(device: &str) -> DpdkConfig {
    DpdkConfig {
        device: device.to_owned(),
        rx_descriptors: 256,
        tx_descriptors: 256,
        mac: Some([2, 0, 0, 0, 0, 9]),
        ..DpdkConfig::default()
    }
}

impl End {
    pub fn open(config: &DpdkConfig) -> Self {
        let memory = ArenaConfig { region_bytes: 32 << 20, hugepages: false };
        let port = DpdkPort::open(config, memory.region_bytes).unwrap();
        let arena = port.arena(&memory).unwrap();
        let queue = port.into_queues().pop().unwrap();
        Self { dpdk: Dpdk::new(queue, &arena).unwrap(), arena }
    }

    /// A frame of the arena's memory.
    pub fn buffer(&self, bytes: &[u8]) -> Buffer {
        self.arena.copy_from(bytes).unwrap().freeze()
    }

    /// Memory that no port was made with.
    pub fn more_memory() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 4 << 20, hugepages: false }).unwrap()
    }

    pub fn transmit(&mut self, batch: &mut FrameBatch) {
        self.dpdk.transmit(Instant::ZERO, batch).unwrap();
    }

    /// What one poll brings.
    pub fn receive(&mut self) -> Vec<RxFrame> {
        let mut batch = RxBatch::new();
        self.dpdk.receive(Instant::ZERO, &mut batch).unwrap();
        batch.into_iter().collect()
    }

    /// Everything that has arrived.
    pub fn receive_all(&mut self) -> Vec<RxFrame> {
        let mut frames = Vec::new();
        loop {
            let some = self.receive();
            if some.is_empty() {
                return frames;
            }
            frames.extend(some);
        }
    }
}

/// Adds a frame of these segments.
pub fn push(batch: &mut FrameBatch, segments: impl IntoIterator<Item = Buffer>) {
    segments.into_iter().for_each(|segment| batch.push(segment));
    batch.finish(TxOffload::default());
}

/// A frame's bytes, of however many buffers.
pub fn bytes(frame: &RxFrame) -> Vec<u8> {
    let mut bytes = frame.head.to_vec();
    frame.rest.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Bytes that differ from frame to frame and from place to place.
pub fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + seed * 17 + (at >> 8) * 7) as u8).collect()
}
