//! The runtime: frames between one queue pair of a port and the stack.

use std::mem::{self, ManuallyDrop};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::sync::Arc;

use libos::memory::DeviceRegions;
use libos::metrics::MetricsSink;
use libos::runtime::RxBatch;
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, MemoryAccess, Runtime, SetupError};

use crate::counters::DpdkCounters;
use crate::interrupts::Interrupts;
use crate::pools::{BufferPool, Pool, PoolLayout, SPARE_MBUFS};
use crate::port::{DpdkQueue, Port};
use crate::receiver::{ReceivePool, Receiver};
use crate::transmitter::Transmitter;
use crate::{drivers, eal, registration, xstats};

/// Mbufs for sending, for each descriptor: a frame has headers and payload, and more when it is cut.
const MBUFS_PER_DESCRIPTOR: usize = 2;

/// One queue pair of a port: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Dpdk {
    port: Arc<Port>,
    queue: u16,
    running: bool,
    /// What has happened to the port that this queue knows of.
    seen: u32,
    memory: MemoryAccess,
    regions: DeviceRegions<()>,
    receiver: ManuallyDrop<Receiver>,
    transmitter: ManuallyDrop<Transmitter>,
    interrupts: Option<Interrupts>,
    counters: DpdkCounters,
}

impl Dpdk {
    /// Makes a runtime of a queue pair, on the thread that will poll it, with that thread's memory. The last queue's
    /// runtime starts the port and waits for its link.
    ///
    /// # Errors
    /// [`SetupError::Device`] with the port, the call and DPDK's own words.
    pub fn new(queue: DpdkQueue, arena: &Arena) -> Result<Self, SetupError> {
        let DpdkQueue { port, index } = queue;
        eal::register_thread();
        let mut regions = DeviceRegions::new();
        refresh(&mut regions, &port);
        // Any byte of the region will do.
        // SAFETY: the region's first byte is initialised memory that lives as long as the arena.
        let first = unsafe { std::slice::from_raw_parts(arena.region().base().as_ptr(), 1) };
        let reachable = regions.find(first).is_some();
        let at = (port.id, index);
        let receive_mbufs = port.receive_buffers + SPARE_MBUFS;
        let send_mbufs = usize::from(port.tx_descriptors) * MBUFS_PER_DESCRIPTOR + SPARE_MBUFS;
        let room_bytes = port.negotiated.room_bytes;
        let (receive_pool, send_pool) = if reachable {
            let buffers = BufferPool::new(&port.name, arena, receive_mbufs, room_bytes)?;
            (
                ReceivePool::Arena(buffers),
                Rc::new(Pool::new(&port.name, send_mbufs, room_bytes, PoolLayout::Any)?),
            )
        } else {
            // Drivers with memory of their own, that of the pool they receive into, copy what is in another one.
            let pool = Rc::new(Pool::new(
                &port.name,
                receive_mbufs + send_mbufs,
                room_bytes,
                drivers::pool_layout(&port.driver),
            )?);
            (ReceivePool::Own(pool.clone()), pool)
        };
        let receiver = Receiver::new(at, arena, receive_pool);
        let transmitter = Transmitter::new(at, send_pool, send_mbufs, &port.negotiated);
        port.set_up_queue(index, receiver.pool())?;
        Ok(Self {
            queue: index,
            running: false,
            seen: 0,
            // A device may refuse memory that its kind could use: out of its IOMMU's range, say.
            memory: if reachable { port.memory } else { MemoryAccess::Copy },
            regions,
            receiver: ManuallyDrop::new(receiver),
            transmitter: ManuallyDrop::new(transmitter),
            interrupts: None,
            counters: DpdkCounters::default(),
            port,
        })
    }

    /// What this queue has counted.
    #[must_use]
    pub fn counters(&self) -> DpdkCounters {
        self.counters
    }

    /// Buffers that the device has at the moment, to be sent.
    #[must_use]
    pub fn buffers_on_loan(&self) -> usize {
        self.transmitter.lent()
    }

    /// True when there is a device to ask; an error when it is gone for good.
    #[inline]
    fn is_running(&mut self) -> Result<bool, Error> {
        if self.running && self.seen == self.port.events.generation() {
            return Ok(true);
        }
        self.look()
    }

    /// Looks whether the queues of other threads are all there by now, and what has happened to the port.
    #[cold]
    #[inline(never)]
    fn look(&mut self) -> Result<bool, Error> {
        let port = &self.port;
        if port.events.is_gone() {
            return Err(Error::DeviceFailed);
        }
        let ran = self.running;
        self.running = port.is_started();
        if self.running {
            self.seen = port.events.generation();
        }
        if self.running && !ran && port.interrupts {
            self.interrupts = Interrupts::new(port.id, self.queue, &port.events);
        }
        Ok(self.running)
    }
}

/// Tells the port of the memory that is registered now.
#[inline]
fn refresh(regions: &mut DeviceRegions<()>, port: &Port) {
    regions.refresh(
        |region| registration::tell(port.memory, port.device, &port.name, region),
        |region, ()| registration::forget(port.device, port.events.is_destroyed(), region),
    );
}

impl Runtime for Dpdk {
    fn name(&self) -> &str {
        &self.port.name
    }

    fn capabilities(&self) -> Capabilities {
        self.port.capabilities()
    }

    fn memory_access(&self) -> MemoryAccess {
        self.memory
    }

    #[inline]
    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        if !self.is_running()? {
            return Ok(());
        }
        if let Some(interrupts) = &self.interrupts
            && interrupts.are_armed()
        {
            interrupts.disarm();
        }
        self.receiver.receive(batch, &mut self.counters);
        Ok(())
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        if !self.is_running()? {
            return Ok(());
        }
        refresh(&mut self.regions, &self.port);
        let reaches = |bytes: &[u8]| self.regions.find(bytes).is_some();
        self.transmitter.transmit(batch, reaches, &mut self.counters);
        Ok(())
    }

    fn wake_fd(&self) -> Option<RawFd> {
        let interrupts = self.interrupts.as_ref()?;
        if self.seen != self.port.events.generation() {
            return Some(interrupts.readable_fd());
        }
        interrupts.wake_fd(self.port.has_peer())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.counters.write(sink);
        sink.gauge("tx_buffers_on_loan", self.buffers_on_loan() as u64);
        sink.gauge("spreads_flows", u64::from(self.port.spreads()));
        if self.running && !self.port.events.is_gone() {
            sink.gauge("link_up", u64::from(self.port.link_is_up()));
            if self.port.has_peer() {
                sink.enter("port");
                xstats::write(self.port.id, sink);
                sink.leave();
            }
        }
    }

    fn failure(&self) -> Option<String> {
        self.port.events.reason().map(|reason| format!("{}: {reason}", self.port.name))
    }
}

impl Drop for Dpdk {
    /// With its last queue the port is closed, and its memory given back. While other queues run, the device may go on
    /// using this one's memory, which then stays.
    fn drop(&mut self) {
        self.interrupts = None;
        let closed = self.port.give_up_queue();
        if closed {
            // SAFETY: dropped once, here.
            unsafe {
                ManuallyDrop::drop(&mut self.receiver);
                ManuallyDrop::drop(&mut self.transmitter);
            }
            let port = &self.port;
            self.regions.forget_all(|region, ()| {
                registration::forget(port.device, port.events.is_destroyed(), region);
            });
        } else {
            mem::forget(mem::take(&mut self.regions));
        }
    }
}
