//! Opening a socket on a queue: memory, rings, and the best way of XDP that the interface takes.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use libc::{XDP_COPY, XDP_USE_NEED_WAKEUP, XDP_USE_SG, XDP_ZEROCOPY, xdp_desc};
use libos::SetupError;
use libos::memory::Region;

use super::attach::{XdpQueue, failed, reason};
use super::mode::XdpMode;
use crate::system::socket;
use crate::system::xsk::{self, Consumer, Producer, RingKind};

/// What the kernel leaves free in front of a frame, for programs that put headers there (`XDP_PACKET_HEADROOM`).
const KERNEL_HEADROOM_BYTES: usize = 256;
/// Ethernet header and one VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// The least bytes that the kernel takes as a chunk, and the most: a page.
const MIN_CHUNK_BYTES: usize = 2048;
const MAX_CHUNK_BYTES: usize = 4096;

/// A queue that another socket has just left is busy until the kernel has cleaned up.
const BUSY_RETRIES: u32 = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

// asm-generic/socket.h: busy polling.
const SO_BUSY_POLL: libc::c_int = 46;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;
/// Frames that the device is asked for at once: what the kernel's own polls ask for.
const BUSY_POLL_FRAMES: libc::c_int = 64;

/// A socket with its rings.
#[derive(Debug)]
pub(super) struct XskSocket {
    pub fill: Producer<u64>,
    pub completion: Consumer<u64>,
    pub receive: Consumer<xdp_desc>,
    pub transmit: Producer<xdp_desc>,
    // Behind the rings, so that they are unmapped before it is closed.
    pub fd: OwnedFd,
}

/// Bytes of the buffers that frames are received into.
pub(super) fn chunk_bytes(mtu: usize) -> usize {
    (KERNEL_HEADROOM_BYTES + LINK_HEADER_BYTES + mtu)
        .next_multiple_of(64)
        .clamp(MIN_CHUNK_BYTES, MAX_CHUNK_BYTES)
}

/// True when a frame of this MTU does not fit into one chunk.
fn needs_fragments(mtu: usize) -> bool {
    KERNEL_HEADROOM_BYTES + LINK_HEADER_BYTES + mtu > MAX_CHUNK_BYTES
}

impl XskSocket {
    /// Makes a socket with the region as its memory; not yet bound.
    pub fn new(queue: &XdpQueue, region: &Region) -> Result<Self, SetupError> {
        let config = &queue.config;
        let fd = socket::open(libc::AF_XDP, libc::SOCK_RAW)
            .map_err(|error| failed(config, "socket(AF_XDP)", socket_reason(&error)))?;
        let chunk = chunk_bytes(queue.attached.attachment.mtu) as u32;
        xsk::register(fd.as_fd(), region, chunk)
            .map_err(|error| failed(config, "XDP_UMEM_REG", memory_reason(&error, region)))?;
        let ring = |error: io::Error| failed(config, "XDP ring", error.to_string());
        let (receive, transmit) = (config.receive_ring as u32, config.transmit_ring as u32);
        // As many buffers wait for frames as frames may wait for us, while others are in the device.
        let fill = Producer::new(fd.as_fd(), RingKind::Fill, 2 * receive).map_err(ring)?;
        let completion = Consumer::new(fd.as_fd(), RingKind::Completion, transmit).map_err(ring)?;
        let receive = Consumer::new(fd.as_fd(), RingKind::Receive, receive).map_err(ring)?;
        let transmit = Producer::new(fd.as_fd(), RingKind::Transmit, transmit).map_err(ring)?;
        Ok(Self { fill, completion, receive, transmit, fd })
    }

    /// Binds to the queue in the best way that the interface takes, and says which. The fill ring should have entries:
    /// drivers look at once.
    pub fn bind(&self, queue: &XdpQueue) -> Result<XdpMode, SetupError> {
        let XdpQueue { attached, config, .. } = queue;
        let mut refused: Vec<String> = attached.refused.iter().cloned().collect();
        let mut last = None;
        let wanted = config.zero_copy && attached.native;
        for (zero_copy, multi_buffer) in [(true, true), (true, false), (false, true), (false, false)] {
            if (zero_copy && !wanted) || (multi_buffer && !attached.fragments) {
                continue;
            }
            if !multi_buffer && needs_fragments(attached.attachment.mtu) {
                continue;
            }
            let flags = XDP_USE_NEED_WAKEUP
                | if zero_copy { XDP_ZEROCOPY } else { XDP_COPY }
                | if multi_buffer { XDP_USE_SG } else { 0 };
            match self.try_bind(queue, flags) {
                Ok(()) => {
                    let native = attached.native;
                    return Ok(XdpMode { native, zero_copy, multi_buffer, refused });
                }
                Err(error) => {
                    let copy = if zero_copy { "zero-copy" } else { "copying" };
                    let buffers = if multi_buffer { "several buffers" } else { "one buffer" };
                    refused.push(format!("{copy} with {buffers} a frame was refused: {error}"));
                    last = Some(error);
                }
            }
        }
        let why = match last {
            Some(error) => bind_reason(&error, queue),
            None => {
                "frames of this MTU need several buffers each, which takes Linux 6.6; lower xdp.mtu and the \
                     interface's"
                    .into()
            }
        };
        Err(failed(config, "bind", why))
    }

    /// Binds in one way, waiting while a socket before us is being cleaned up.
    fn try_bind(&self, queue: &XdpQueue, flags: u16) -> io::Result<()> {
        let interface = queue.attached.attachment.link.index;
        let mut retries = 0;
        loop {
            match xsk::bind(self.fd.as_fd(), interface, queue.queue, flags) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && retries < BUSY_RETRIES => {
                    retries += 1;
                    sleep(BUSY_PAUSE);
                }
                result => return result,
            }
        }
    }

    /// Has polls drive the device. True when the kernel takes part.
    pub fn prefer_busy_poll(&self, busy_poll_us: u32) -> io::Result<()> {
        let fd = self.fd.as_fd();
        let set = |name, value: libc::c_int| socket::set_option(fd, libc::SOL_SOCKET, name, &value);
        set(SO_PREFER_BUSY_POLL, 1)?;
        set(SO_BUSY_POLL, busy_poll_us.cast_signed())?;
        set(SO_BUSY_POLL_BUDGET, BUSY_POLL_FRAMES)
    }
}

/// Waits, after a socket with zero copies was closed, until the device has let go of the memory: it would write into
/// buffers that are in use again.
#[derive(Debug)]
pub(super) struct Quiesce {
    /// What to ask again for; nothing when the kernel copied.
    pub queue: Option<XdpQueue>,
    pub arena: libos::Arena,
}

impl Drop for Quiesce {
    fn drop(&mut self) {
        let Some(queue) = &self.queue else { return };
        match XskSocket::new(queue, self.arena.region()) {
            // Refused as long as the device is busy with the one before. What else it may say does not matter.
            Ok(next) => drop(next.try_bind(queue, XDP_COPY)),
            // Nobody can be asked, for instance because no more memory may be locked.
            Err(_) => sleep(BUSY_PAUSE * BUSY_RETRIES),
        }
    }
}

fn socket_reason(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAFNOSUPPORT) => "the kernel has no XDP sockets (CONFIG_XDP_SOCKETS)".into(),
        _ => reason(error),
    }
}

fn memory_reason(error: &io::Error, region: &Region) -> String {
    let mib = region.len() >> 20;
    match error.raw_os_error() {
        Some(libc::ENOBUFS) => format!(
            "the {mib} MiB of the region are more than may be locked: run as root, raise `ulimit -l`, or lower \
             memory.region_mib"
        ),
        Some(libc::ENOMEM) => format!("no memory for a region of {mib} MiB; lower memory.region_mib"),
        Some(libc::EINVAL) => "memory in unaligned chunks takes Linux 5.4".into(),
        _ => error.to_string(),
    }
}

fn bind_reason(error: &io::Error, queue: &XdpQueue) -> String {
    let (number, name) = (queue.queue, &queue.config.interface);
    match error.raw_os_error() {
        Some(libc::EBUSY) => format!("another XDP socket serves queue {number}"),
        Some(libc::EINVAL) => {
            format!("{error}: the interface has no queue {number} for both ways (`ethtool -l {name}`)")
        }
        _ => error.to_string(),
    }
}
