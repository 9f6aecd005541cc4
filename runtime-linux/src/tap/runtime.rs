//! The runtime: frames between one queue of a TAP device and the stack.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use arrayvec::ArrayVec;
use libos::metrics::MetricsSink;
use libos::runtime::{Medium, RxBatch, TxChecksum, TxFrame};
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, Runtime, RxFrame, SetupError};

use super::config::TapConfig;
use super::counters::TapCounters;
use super::device::TapQueue;
use crate::receive_buffers::ReceiveBuffers;
use crate::virtio_header::{self, HEADER_BYTES};

/// Largest TCP payload that the kernel is asked to cut, in bytes: with Ethernet, IP and TCP headers
/// and all their options it stays an IP packet of less than 64 KiB.
const MAX_SEGMENTATION_BYTES: usize = 65_000;

/// Most segments of memory in one frame. The kernel takes 1024 with the header; this many keep the
/// list of a frame within a page of stack, and 64 of 1 KiB are a whole 64 KiB frame.
const MAX_SEGMENTS: usize = 64;

/// Bytes after which one receive ends: what the program does with them is done while they are in the processor's cache,
/// and their buffers are there for the next.
const RECEIVE_BYTES: usize = 256 << 10;

/// One queue of a TAP device: a [`Runtime`] for the thread whose memory it was given.
#[derive(Debug)]
pub struct Tap {
    queue: TapQueue,
    arena: Arena,
    buffers: ReceiveBuffers,
    counters: TapCounters,
}

/// What became of a frame that was offered to the kernel.
enum Offered {
    Taken,
    Dropped,
    NoRoom,
}

impl TapQueue {
    /// What the device can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        let offload = self.offload;
        Capabilities {
            medium: Medium::Ethernet,
            hardware_address: self.hardware_address,
            mtu: self.mtu,
            tx_checksum: if offload { TxChecksum::Partial } else { TxChecksum::Software },
            tcp_segmentation_bytes: if offload { MAX_SEGMENTATION_BYTES } else { 0 },
            max_segments: MAX_SEGMENTS,
        }
    }
}

impl Tap {
    /// Opens a device whose queues, one runtime each, all serve the calling thread. For queues on
    /// several threads see [`TapQueue::open`].
    ///
    /// # Errors
    /// As [`TapQueue::open`].
    pub fn open(config: &TapConfig, arena: &Arena) -> Result<Vec<Self>, SetupError> {
        let queues = TapQueue::open(config)?;
        Ok(queues.into_iter().map(|queue| Self::new(queue, arena)).collect())
    }

    /// Makes a runtime of a queue. Frames are received into memory of `arena`.
    #[must_use]
    pub fn new(queue: TapQueue, arena: &Arena) -> Self {
        let buffers = ReceiveBuffers::new(queue.mtu, queue.offload);
        Self { queue, arena: arena.clone(), buffers, counters: TapCounters::default() }
    }

    /// What this queue has counted.
    #[must_use]
    pub fn counters(&self) -> TapCounters {
        self.counters
    }

    /// Offers the kernel one frame. The write copies: the frame's memory is free when it returns.
    fn offer(&mut self, frame: &TxFrame<'_>) -> Result<Offered, Error> {
        let header = virtio_header::encode(&frame.offload);
        let mut parts: ArrayVec<IoSlice<'_>, { MAX_SEGMENTS + 1 }> = ArrayVec::new();
        parts.push(IoSlice::new(&header));
        for segment in frame.segments {
            if parts.try_push(IoSlice::new(segment)).is_err() {
                self.counters.tx_refused += 1;
                return Ok(Offered::Dropped);
            }
        }
        match (&self.queue.file).write_vectored(&parts) {
            Ok(length) => {
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += length.saturating_sub(HEADER_BYTES) as u64;
                self.counters.tx_segmented_frames += u64::from(frame.offload.segmentation().is_some());
                Ok(Offered::Taken)
            }
            Err(error) => self.refusal(&error),
        }
    }

    #[cold]
    fn refusal(&mut self, error: &io::Error) -> Result<Offered, Error> {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {
                self.counters.tx_would_block += 1;
                Ok(Offered::NoRoom)
            }
            // tun_get_user() answers so while the interface is down. As with an unplugged cable,
            // what is sent meanwhile is lost.
            Some(libc::EIO) => {
                self.counters.tx_link_down += 1;
                Ok(Offered::Dropped)
            }
            Some(libc::EBADFD | libc::EBADF | libc::ENODEV | libc::ENXIO) => Err(Error::DeviceFailed),
            _ => {
                self.counters.tx_refused += 1;
                Ok(Offered::Dropped)
            }
        }
    }
}

impl Runtime for Tap {
    fn name(&self) -> &str {
        &self.queue.name
    }

    fn capabilities(&self) -> Capabilities {
        self.queue.capabilities()
    }

    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let mut header = [0; HEADER_BYTES];
        let mut bytes = 0;
        while !batch.is_full() && bytes < RECEIVE_BYTES {
            if !self.buffers.fill(&self.arena) {
                self.counters.rx_no_buffers += 1;
                break;
            }
            let read = (&self.queue.file).read_vectored(&mut self.buffers.parts(&mut header));
            let frame_bytes = match read {
                Ok(bytes) => bytes.saturating_sub(HEADER_BYTES),
                Err(error) if is_transient(&error) => break,
                Err(_) => return Err(Error::DeviceFailed),
            };
            let Some((head, rest)) = self.buffers.take(frame_bytes) else {
                self.counters.rx_too_long += 1;
                continue;
            };
            let virtio_header::Received { checksum, segment_bytes, joined: _ } =
                virtio_header::decode(&header);
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += frame_bytes as u64;
            bytes += frame_bytes;
            self.counters.rx_joined_frames += u64::from(segment_bytes != 0);
            batch.push(RxFrame { head, rest, checksum, segment_bytes });
        }
        Ok(())
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        while let Some(frame) = batch.front() {
            match self.offer(&frame)? {
                Offered::Taken | Offered::Dropped => batch.pop_front(),
                Offered::NoRoom => break,
            }
        }
        Ok(())
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.queue.file.as_raw_fd())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.counters.write_all(sink);
        sink.gauge("steered", u64::from(self.queue.steered));
    }
}

fn is_transient(error: &io::Error) -> bool {
    // EIO: the interface is down; it may come up again.
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::EINTR | libc::ENOBUFS | libc::ENOMEM | libc::EIO)
    )
}
