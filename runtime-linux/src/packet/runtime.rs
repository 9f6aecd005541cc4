//! The runtime: frames between one packet socket and the stack.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use libos::metrics::MetricsSink;
use libos::runtime::{Medium, MemoryAccess, RxBatch, TxChecksum, TxFrame};
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, Runtime, SetupError};

use super::config::PacketConfig;
use super::counters::PacketCounters;
use super::receive::{Read, from_ring, from_socket};
use super::socket::PacketSocket;
use crate::interface::{self, Watch};
use crate::receive_buffers::ReceiveBuffers;
use crate::system::send::FrameSender;
use crate::system::socket;
use crate::virtio_header;

/// Largest TCP payload that the device is asked to cut, in bytes: with Ethernet, IP and TCP headers and all their
/// options it stays an IP packet of less than 64 KiB.
const MAX_SEGMENTATION_BYTES: usize = 65_000;
/// Most segments of memory in one frame: 64 of 1 KiB are a whole 64 KiB frame.
const MAX_SEGMENTS: usize = 64;

/// One queue of an interface: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Packet {
    queue: PacketSocket,
    arena: Arena,
    /// For a socket without a ring: the memory that the next frame is read into.
    buffers: ReceiveBuffers,
    sender: FrameSender,
    watch: Watch,
    counters: PacketCounters,
    /// Frames that the kernel has dropped, which it counts from zero after each question.
    dropped: Cell<u64>,
}

impl PacketSocket {
    /// What the device can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let offload = self.offload;
        Capabilities {
            medium: Medium::Ethernet,
            hardware_address: self.attachment.hardware_address,
            mtu: self.attachment.mtu,
            tx_checksum: if offload { TxChecksum::Partial } else { TxChecksum::Software },
            tcp_segmentation_bytes: if offload { MAX_SEGMENTATION_BYTES } else { 0 },
            max_segments: MAX_SEGMENTS,
        }
    }
}

impl Packet {
    /// Opens an interface with queues, one runtime each, that all serve the calling thread. For queues on several
    /// threads see [`PacketSocket::open`].
    ///
    /// # Errors
    /// As [`PacketSocket::open`].
    pub fn open(config: &PacketConfig, arena: &Arena) -> Result<Vec<Self>, SetupError> {
        let queues = PacketSocket::open(config)?;
        Ok(queues.into_iter().map(|queue| Self::new(queue, arena)).collect())
    }

    /// Makes a runtime of a queue. Frames are received into memory of `arena`.
    #[must_use]
    pub fn new(queue: PacketSocket, arena: &Arena) -> Self {
        Self {
            buffers: ReceiveBuffers::new(queue.attachment.mtu, true),
            queue,
            arena: arena.clone(),
            sender: FrameSender::default(),
            watch: Watch::default(),
            counters: PacketCounters::default(),
            dropped: Cell::new(0),
        }
    }

    /// What this queue has counted.
    #[must_use]
    pub fn counters(&self) -> PacketCounters {
        let fd = self.queue.fd.as_fd();
        if let Ok(new) =
            socket::option::<libc::tpacket_stats_v3>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)
        {
            self.dropped.set(self.dropped.get() + u64::from(new.tp_drops));
        }
        PacketCounters { rx_ring_full: self.dropped.get(), ..self.counters }
    }

    /// What to do after the kernel took none of the frames: true when the first is to be left out.
    #[cold]
    fn refusal(&mut self, error: &io::Error) -> Result<bool, Error> {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {
                self.counters.tx_would_block += 1;
                Ok(false)
            }
            // As with an unplugged cable, what is sent meanwhile is lost. An interface that was deleted is down first.
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => {
                interface::look(self.queue.fd.as_fd(), self.queue.attachment.link.index)?;
                self.counters.tx_link_down += 1;
                Ok(true)
            }
            _ => {
                self.counters.tx_refused += 1;
                Ok(true)
            }
        }
    }

    fn count_sent(&mut self, frame: &TxFrame<'_>) {
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.len() as u64;
        self.counters.tx_segmented_frames += u64::from(frame.offload.segmentation().is_some());
    }
}

impl Runtime for Packet {
    fn name(&self) -> &str {
        &self.queue.name
    }

    fn capabilities(&self) -> Capabilities {
        self.queue.capabilities()
    }

    fn memory_access(&self) -> MemoryAccess {
        MemoryAccess::Copy
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let before = batch.len();
        let mtu = self.queue.attachment.mtu;
        match &mut self.queue.ring {
            Some(ring) => from_ring(ring, &self.arena, mtu, batch, &mut self.counters),
            None => {
                let done = from_socket(
                    self.queue.fd.as_fd(),
                    &mut self.buffers,
                    &self.arena,
                    mtu,
                    batch,
                    &mut self.counters,
                );
                if done == Read::Broken {
                    interface::look(self.queue.fd.as_fd(), self.queue.attachment.link.index)?;
                }
            }
        }
        if batch.len() > before {
            return Ok(());
        }
        self.watch.look(now, self.queue.fd.as_fd(), self.queue.attachment.link.index)
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        while !batch.is_empty() {
            let offered = (0..batch.len()).map_while(|at| batch.get(at)).map(|frame| {
                let [header @ .., _, _] = virtio_header::encode(&frame.offload);
                (header, frame.segments)
            });
            self.counters.tx_calls += 1;
            match self.sender.send(self.queue.fd.as_fd(), offered) {
                Ok(sent) => {
                    for _ in 0..sent {
                        if let Some(frame) = batch.front() {
                            self.count_sent(&frame);
                        }
                        batch.pop_front();
                    }
                }
                Err(error) if self.refusal(&error)? => batch.pop_front(),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.watch.next_deadline()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.queue.fd.as_raw_fd())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.counters().write_all(sink);
    }
}
