//! A port whose frames get lost on the way out, so that what was sent is sent again from the buffers it was in.

use std::os::fd::RawFd;

use catnip_os::catnip::{Stack, StackConfig, StackModule};
use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::metrics::MetricsSink;
use catnip_os::libos::runtime::RxBatch;
use catnip_os::libos::{
    Capabilities, Config, Error, FrameBatch, Instant, LibOs, MemoryAccess, MemoryQueues, Runtime,
};
use catnip_os::runtime_dpdk::{Dpdk, DpdkConfig, DpdkPort};

/// One frame of so many is lost.
const LOSS: u64 = 40;

struct Lossy {
    dpdk: Dpdk,
    /// Frames that were not lost.
    kept: FrameBatch,
    random: u64,
}

impl Lossy {
    fn loses(&mut self) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random.is_multiple_of(LOSS)
    }
}

impl Runtime for Lossy {
    fn name(&self) -> &str {
        self.dpdk.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.dpdk.capabilities()
    }

    fn memory_access(&self) -> MemoryAccess {
        self.dpdk.memory_access()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        self.dpdk.transmit(now, &mut self.kept)?;
        self.dpdk.receive(now, batch)
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        while let Some(frame) = batch.front() {
            let (segments, offload) = (frame.segments.to_vec(), frame.offload);
            if !self.loses() {
                segments.into_iter().for_each(|segment| self.kept.push(segment));
                self.kept.finish(offload);
            }
            batch.pop_front();
        }
        self.dpdk.transmit(now, &mut self.kept)
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.dpdk.metrics(sink);
    }
}

/// As `catnip_os::open`, with loss on the way out.
pub fn open(config: &Config) -> LibOs {
    let memory = ArenaConfig::from_config(config).unwrap();
    let port = DpdkPort::open(&DpdkConfig::from_config(config).unwrap(), memory.region_bytes).unwrap();
    let arena = port.arena(&memory).unwrap();
    let libos = LibOs::builder().config(config).arena(arena).build().unwrap();
    libos.install(MemoryQueues::from_config(config).unwrap()).unwrap();
    let queue = port.into_queues().pop().unwrap();
    let dpdk = Dpdk::new(queue, libos.device_arena()).unwrap();
    let lossy = Lossy { dpdk, kept: FrameBatch::new(), random: 0x2545_f491_4f6c_dd1d };
    let settings = StackConfig::from_config(config, lossy.capabilities()).unwrap();
    let stack = Stack::new(&settings, libos.device_arena().clone(), 1, libos.now()).unwrap();
    libos.install(StackModule::new(stack, lossy)).unwrap();
    libos
}
