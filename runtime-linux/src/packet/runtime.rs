//! The runtime: frames between one packet socket and the stack.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use libos::memory::HEADROOM_BYTES;
use libos::metrics::MetricsSink;
use libos::runtime::{Medium, MemoryAccess, RxBatch, RxChecksum, TxChecksum, TxFrame};
use libos::{
    Arena, Buffer, BufferMut, Capabilities, Error, FrameBatch, Instant, Runtime, RxFrame, SetupError,
};

use super::config::PacketConfig;
use super::counters::PacketCounters;
use super::socket::PacketSocket;
use crate::interface::{self, Watch};
use crate::system::packet_ring::{RingFrame, VIRTIO_BYTES};
use crate::system::send::FrameSender;
use crate::system::socket;
use crate::virtio_header::{self, Joined};

/// Largest TCP payload that the device is asked to cut, in bytes: with Ethernet, IP and TCP headers and all their
/// options it stays an IP packet of less than 64 KiB.
const MAX_SEGMENTATION_BYTES: usize = 65_000;
/// Most segments of memory in one frame: 64 of 1 KiB are a whole 64 KiB frame.
const MAX_SEGMENTS: usize = 64;
/// Ethernet header and one VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// Ethernet addresses, behind which a VLAN tag goes.
const ADDRESSES_BYTES: usize = 12;
/// Most bytes of a received frame in one buffer: 16 KiB with what the arena puts in front of the data.
const PIECE_BYTES: usize = 16_384 - 2 * HEADROOM_BYTES;

/// Bytes after which one receive ends: what the program does with them is done while they are in the processor's cache,
/// and their buffers are there for the next.
const RECEIVE_BYTES: usize = 256 << 10;

/// One queue of an interface: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Packet {
    queue: PacketSocket,
    arena: Arena,
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
        self.counters.tx_segmented_frames += u64::from(frame.offload.segmentation.is_some());
    }
}

/// What became of the oldest frame in the ring.
enum Taken {
    Frame(RxFrame),
    TooLong,
    JoinedDatagrams,
    NoMemory,
}

/// Copies a frame out of the ring.
#[inline]
fn take(frame: &RingFrame<'_>, arena: &Arena, mtu: usize) -> Taken {
    let mut header = [0; virtio_header::HEADER_BYTES];
    header[..VIRTIO_BYTES].copy_from_slice(frame.virtio);
    let said = virtio_header::decode(&header);
    let segment_bytes = match said.joined {
        Joined::Nothing if frame.bytes.len() > mtu + LINK_HEADER_BYTES => return Taken::TooLong,
        _ if frame.cut => return Taken::TooLong,
        Joined::Nothing => 0,
        Joined::Segments => said.segment_bytes,
        Joined::Datagrams => return Taken::JoinedDatagrams,
    };
    let checksum = if frame.checked { RxChecksum::Verified } else { said.checksum };
    let tag_bytes = if frame.vlan.is_some() { 4 } else { 0 };
    let (first, others) = frame.bytes.split_at(frame.bytes.len().min(PIECE_BYTES - tag_bytes));
    let Some(mut head) = arena.allocate(first.len() + tag_bytes) else { return Taken::NoMemory };
    match &frame.vlan {
        None => fill(&mut head, &[first]),
        Some(tag) => {
            let (addresses, after) = first.split_at(first.len().min(ADDRESSES_BYTES));
            fill(&mut head, &[addresses, tag, after]);
        }
    }
    let mut rest: Vec<Buffer> = Vec::new();
    for piece in others.chunks(PIECE_BYTES) {
        let Some(mut buffer) = arena.allocate(piece.len()) else { return Taken::NoMemory };
        fill(&mut buffer, &[piece]);
        rest.push(buffer.freeze());
    }
    Taken::Frame(RxFrame { head: head.freeze(), rest, checksum, segment_bytes })
}

#[inline]
fn fill(buffer: &mut BufferMut, pieces: &[&[u8]]) {
    for piece in pieces {
        buffer.extend_from_slice(piece);
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
        let mut bytes = 0;
        while !batch.is_full() && bytes < RECEIVE_BYTES {
            let Some(frame) = self.queue.ring.front() else {
                return self.watch.look(now, self.queue.fd.as_fd(), self.queue.attachment.link.index);
            };
            match take(&frame, &self.arena, self.queue.attachment.mtu) {
                Taken::Frame(received) => {
                    self.counters.rx_frames += 1;
                    self.counters.rx_bytes += frame.bytes.len() as u64;
                    bytes += frame.bytes.len();
                    self.counters.rx_joined_frames += u64::from(received.segment_bytes != 0);
                    batch.push(received);
                }
                Taken::TooLong => self.counters.rx_too_long += 1,
                Taken::JoinedDatagrams => self.counters.rx_joined_datagrams += 1,
                Taken::NoMemory => {
                    self.counters.rx_no_buffers += 1;
                    break;
                }
            }
            self.queue.ring.advance();
        }
        Ok(())
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
        self.counters().write(sink);
    }
}
