//! What a device runtime is: bursts of frames in and out, and what the device can do by itself.

mod batch;

use std::fmt;
use std::os::fd::RawFd;

use arrayvec::ArrayVec;
pub use batch::{FrameBatch, Segments, TxFrame};

use crate::metrics::MetricsSink;
use crate::{Buffer, BufferList, Error, Instant};

/// Most frames in one burst.
pub const BURST: usize = 64;

/// Received frames, oldest first.
pub type RxBatch = ArrayVec<RxFrame, BURST>;

/// What the frames of a device begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header.
    Ip,
}

/// Who computes transport checksums of what is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxChecksum {
    /// The stack computes them in software.
    Software,
    /// The device completes them: the stack leaves the pseudo-header's sum in the field and fills in
    /// [`TxOffload::checksum()`].
    Partial,
    /// Nobody: the path is memory between two peers that trust it.
    Unneeded,
}

/// What a device can do. Read once, when the module that uses the runtime is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// What frames begin with.
    pub medium: Medium,
    /// The device's Ethernet address; zeros when the medium has none.
    pub hardware_address: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// Who computes checksums of what is sent.
    pub tx_checksum: TxChecksum,
    /// Largest TCP payload of one frame that the device cuts into segments itself, in bytes; 0 for none.
    pub tcp_segmentation_bytes: usize,
    /// Most segments of memory in one frame, headers included; at least 2.
    pub max_segments: usize,
}

/// What a device can do with memory, and so whether data crosses it without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryAccess {
    /// The device reads and writes any memory that was registered with it: the library OS's region, wherever it
    /// came from.
    Dma,
    /// The device reads and writes memory that the runtime itself made, and no other. The library OS's region has to
    /// be made from it: [`crate::LibOsBuilder::arena`].
    RuntimeHeapOnly,
    /// The runtime, or the kernel behind it, copies every frame, out of and into any memory.
    #[default]
    Copy,
}

/// What is known about a received frame's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RxChecksum {
    /// Nothing: the stack checks it.
    #[default]
    Unknown,
    /// The device checked the transport checksum, or the path needs none.
    Verified,
}

/// A received frame: headers in `head`, payload from there on and in `rest`.
#[derive(Debug)]
pub struct RxFrame {
    /// The frame's first bytes: all headers, and usually everything.
    pub head: Buffer,
    /// The frame's further bytes, in order; usually empty.
    pub rest: BufferList,
    /// What is known about the transport checksum. The IPv4 header's own is always checked by the stack.
    pub checksum: RxChecksum,
    /// When the device joined several TCP segments: the payload bytes of each; else 0.
    pub segment_bytes: u16,
}

impl From<Buffer> for RxFrame {
    fn from(head: Buffer) -> Self {
        Self { head, rest: BufferList::new(), checksum: RxChecksum::Unknown, segment_bytes: 0 }
    }
}

/// What a device has for who asks for one frame.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the common one")]
pub enum Arrival {
    /// No frame has arrived.
    Nothing,
    /// This one, and no other.
    Lone(RxFrame),
    /// Perhaps some: [`Runtime::receive`] says.
    Batch,
}

/// A frame that may belong to another core.
#[derive(Debug)]
pub struct Doubt {
    /// The frame.
    pub frame: RxFrame,
    /// The cores that know nothing of it, a bit for each.
    pub refused: u64,
}

/// A checksum that the device completes: the sum of all bytes from `start` on goes to `start + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Bytes from the frame's first to the first summed.
    pub start: u16,
    /// Bytes from `start` to the checksum field.
    pub offset: u8,
}

/// A TCP segmentation that the device does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Payload bytes of each segment.
    pub segment_bytes: u16,
    /// Bytes of all headers, link layer to TCP options, that go in front of each segment.
    pub header_bytes: u16,
    /// True for IPv6, false for IPv4.
    pub ipv6: bool,
}

/// What the device has to do to a frame before it goes out: complete a checksum, cut the frame into segments, both, or
/// nothing, which is the default. One word, because each frame takes it along through every queue.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct TxOffload(u64);

impl TxOffload {
    // From the lowest bit: where the sum starts, the offset of its field, the flags, and from the highest half on what
    // segments are like.
    const OFFSET_SHIFT: u32 = 16;
    const CHECKSUM: u64 = 1 << 24;
    const SEGMENTATION: u64 = 1 << 25;
    const IPV6: u64 = 1 << 26;
    const HEADER_SHIFT: u32 = 32;
    const SEGMENT_SHIFT: u32 = 48;

    /// Complete this checksum, and cut into such segments.
    #[must_use]
    pub const fn new(checksum: Option<PartialChecksum>, segmentation: Option<Segmentation>) -> Self {
        let checksum = match checksum {
            Some(PartialChecksum { start, offset }) => {
                Self::CHECKSUM | start as u64 | (offset as u64) << Self::OFFSET_SHIFT
            }
            None => 0,
        };
        let segmentation = match segmentation {
            Some(Segmentation { segment_bytes, header_bytes, ipv6 }) => {
                let version = if ipv6 { Self::IPV6 } else { 0 };
                let sizes = (header_bytes as u64) << Self::HEADER_SHIFT
                    | (segment_bytes as u64) << Self::SEGMENT_SHIFT;
                Self::SEGMENTATION | version | sizes
            }
            None => 0,
        };
        Self(checksum | segmentation)
    }

    /// The checksum to be completed.
    #[must_use]
    pub const fn checksum(self) -> Option<PartialChecksum> {
        let (start, offset) = (self.0 as u16, (self.0 >> Self::OFFSET_SHIFT) as u8);
        if self.0 & Self::CHECKSUM != 0 { Some(PartialChecksum { start, offset }) } else { None }
    }

    /// The segments to cut into.
    #[must_use]
    pub const fn segmentation(self) -> Option<Segmentation> {
        if self.0 & Self::SEGMENTATION == 0 {
            return None;
        }
        let header_bytes = (self.0 >> Self::HEADER_SHIFT) as u16;
        Some(Segmentation {
            segment_bytes: self.segment_bytes(),
            header_bytes,
            ipv6: self.0 & Self::IPV6 != 0,
        })
    }

    /// Payload bytes of each segment, and 0 for a frame that is not to be cut.
    #[must_use]
    #[inline(always)]
    pub const fn segment_bytes(self) -> u16 {
        (self.0 >> Self::SEGMENT_SHIFT) as u16
    }
}

impl fmt::Debug for TxOffload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TxOffload");
        debug.field("checksum", &self.checksum()).field("segmentation", &self.segmentation()).finish()
    }
}

/// A device queue pair: frames in, frames out, once per poll.
pub trait Runtime {
    /// The device's name, for messages and metrics.
    fn name(&self) -> &str;

    /// What the device can do.
    fn capabilities(&self) -> Capabilities;

    /// What the device can do with memory. Frames that the runtime, or the kernel for it, copies are counted in its metrics:
    /// `rx_copied_frames`, `rx_copied_bytes`, `tx_copied_frames` and `tx_copied_bytes`.
    fn memory_access(&self) -> MemoryAccess {
        MemoryAccess::Copy
    }

    /// Appends the frames that have arrived to `batch`, as many as there is room for. Never blocks.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] when the device is gone; no frame will ever arrive again.
    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error>;

    /// Takes frames off the front of `batch` while the device has room. Never blocks.
    ///
    /// # Errors
    /// [`Error::DeviceFailed`] when the device is gone; no frame will ever leave again.
    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error>;

    /// Takes the one frame that has arrived without a batch, where that is less work: a message that somebody waits for
    /// comes alone. Asked first; whoever has no short way leaves it, and is asked with [`Self::receive`]. A runtime that
    /// has [`Self::next_doubt`] may answer [`Arrival::Lone`] with frames that are surely this core's.
    #[inline(always)]
    fn receive_lone(&mut self, now: Instant) -> Arrival {
        let _ = now;
        Arrival::Batch
    }

    /// True when [`Self::transmit_lone`] takes a frame now, and that is less work than a batch of one. Whoever ever says so
    /// implements [`Self::transmit_kept`] as well: by themselves, both drop what they are given.
    #[inline(always)]
    fn takes_lone(&self) -> bool {
        false
    }

    /// Takes a frame of one segment, of which nobody else has a view and with which the device has nothing to do, without a
    /// batch. Called only after [`Self::takes_lone`] said so, and nothing was sent since.
    #[inline(always)]
    fn transmit_lone(&mut self, now: Instant, frame: Buffer) {
        let _ = (now, frame);
    }

    /// As [`Self::transmit_lone`], for a frame of which the sender keeps a view, to send it again.
    #[inline(always)]
    fn transmit_kept(&mut self, now: Instant, frame: Buffer) {
        let _ = (now, frame);
    }

    /// When the device itself next has something to do, such as a simulated frame's arrival.
    fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// The descriptor that becomes readable when a frame arrives, when the device can signal.
    fn wake_fd(&self) -> Option<RawFd> {
        None
    }

    /// Appends the descriptors that become readable when a frame arrives; returns false when the device has to be
    /// polled, as it cannot signal or has something already.
    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        fds.extend(self.wake_fd());
        self.wake_fd().is_some()
    }

    /// The next frame of which only the stack can tell whether it belongs to this core. For runtimes of devices that
    /// several cores share; asked after each [`Self::receive`] until there is none.
    #[inline]
    fn next_doubt(&mut self) -> Option<Doubt> {
        None
    }

    /// Passes a frame on of which the stack knows nothing. Comes back when it is the stack's all the same.
    fn pass_on(&mut self, doubt: Doubt) -> Option<RxFrame> {
        Some(doubt.frame)
    }

    /// Why the device failed, in words: which device, which call, and what the system says of it. None while it works,
    /// and of a runtime that knows no more than that it did.
    fn failure(&self) -> Option<String> {
        None
    }

    /// Writes the device's counters.
    fn metrics(&self, sink: &mut dyn MetricsSink);
}
