//! The receive ring of a packet socket, version 3: blocks that the kernel fills with frames and hands over whole.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use libc::{TP_STATUS_CSUM_VALID, TP_STATUS_USER, TP_STATUS_VLAN_TPID_VALID, TP_STATUS_VLAN_VALID};

use super::mapping::Mapping;
use super::socket;

/// Bytes of a block: it takes the largest frame, 64 KiB, with its headers, and a burst of small ones.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;
/// Bytes of the virtio-net header in front of each frame.
pub(crate) const VIRTIO_BYTES: usize = 10;

/// The kernel hands a block over this long after its first frame at the latest: the shortest that it knows.
const RETIRE_MS: u32 = 1;
/// What the kernel wants to know of a frame's size although blocks have none.
const FRAME_BYTES: usize = 2048;
/// 802.1Q, where the kernel does not name another tag.
const VLAN_TYPE: u16 = 0x8100;

/// Where the block's state and the number of its frames are (`struct tpacket_block_desc`).
const STATUS_AT: usize = 8;
const COUNT_AT: usize = 12;
const FIRST_AT: usize = 16;

/// A frame in the ring, to be copied out before the next is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RingFrame<'a> {
    /// What the kernel says of checksum and segments.
    pub virtio: &'a [u8],
    /// The frame, without its VLAN tag.
    pub bytes: &'a [u8],
    /// The tag that belongs behind the Ethernet addresses.
    pub vlan: Option<[u8; 4]>,
    /// The kernel or the device has checked the checksum.
    pub checked: bool,
    /// The frame was longer than a block has room for.
    pub cut: bool,
}

/// The ring and how far it was read.
#[derive(Debug)]
pub(crate) struct PacketRing {
    mapping: Mapping,
    blocks: usize,
    block: usize,
    /// Where the next frame's header is in the block, and how many frames are left there.
    at: usize,
    left: u32,
    /// The block is ours, and goes back once it is read.
    held: bool,
}

impl PacketRing {
    /// Sets up a ring of `bytes`, rounded to whole blocks, on a socket that has its other options.
    pub fn new(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let version = libc::tpacket_versions::TPACKET_V3 as libc::c_int;
        socket::set_option(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        let blocks = bytes.div_ceil(BLOCK_BYTES).max(2);
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: FRAME_BYTES as u32,
            tp_frame_nr: (blocks * (BLOCK_BYTES / FRAME_BYTES)) as u32,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        socket::set_option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let mapping = Mapping::new(fd, blocks * BLOCK_BYTES, 0)?;
        Ok(Self { mapping, blocks, block: 0, at: 0, left: 0, held: false })
    }

    /// The oldest frame; it stays the oldest until [`Self::advance`].
    #[inline]
    pub fn front(&mut self) -> Option<RingFrame<'_>> {
        while self.left == 0 {
            if !self.next_block() {
                return None;
            }
        }
        Some(self.frame())
    }

    /// Takes the next block that the kernel has handed over, after giving the last one back.
    fn next_block(&mut self) -> bool {
        if self.held {
            self.mapping.word(self.start() + STATUS_AT).store(0, Ordering::Release);
            self.block = (self.block + 1) % self.blocks;
            self.held = false;
        }
        let start = self.start();
        if self.mapping.word(start + STATUS_AT).load(Ordering::Acquire) & TP_STATUS_USER == 0 {
            return false;
        }
        self.held = true;
        self.left = self.mapping.word(start + COUNT_AT).load(Ordering::Relaxed);
        self.at = self.mapping.word(start + FIRST_AT).load(Ordering::Relaxed) as usize;
        true
    }

    fn start(&self) -> usize {
        self.block * BLOCK_BYTES
    }

    fn header(&self) -> libc::tpacket3_hdr {
        let header = self.mapping.range(self.start() + self.at, size_of::<libc::tpacket3_hdr>());
        // SAFETY: within the mapping; the kernel wrote a header there and leaves it alone while the block is ours.
        unsafe { header.cast::<libc::tpacket3_hdr>().read_unaligned() }
    }

    fn frame(&self) -> RingFrame<'_> {
        let header = self.header();
        let bytes = header.tp_snaplen as usize;
        let virtio = self.start() + self.at + usize::from(header.tp_mac).saturating_sub(VIRTIO_BYTES);
        let start = self.mapping.range(virtio, VIRTIO_BYTES + bytes).as_ptr();
        // SAFETY: within the mapping, written by the kernel, which leaves it alone while the block is ours; `front`
        // borrows the ring, so that the block is not given back while the frame is looked at.
        let all = unsafe { std::slice::from_raw_parts(start, VIRTIO_BYTES + bytes) };
        let (virtio, bytes) = all.split_at(VIRTIO_BYTES);
        RingFrame {
            virtio,
            bytes,
            vlan: (header.tp_status & TP_STATUS_VLAN_VALID != 0)
                .then(|| vlan_tag(header.tp_status, header.hv1.tp_vlan_tci as u16, header.hv1.tp_vlan_tpid)),
            checked: header.tp_status & TP_STATUS_CSUM_VALID != 0,
            cut: header.tp_snaplen < header.tp_len,
        }
    }

    /// Leaves the oldest frame behind.
    #[inline]
    pub fn advance(&mut self) {
        if self.left > 0 {
            self.at += self.header().tp_next_offset as usize;
            self.left -= 1;
        }
    }
}

/// The tag that the kernel took off a frame, as bytes.
#[cold]
pub(super) fn vlan_tag(status: u32, control: u16, kind: u16) -> [u8; 4] {
    let kind = if status & TP_STATUS_VLAN_TPID_VALID != 0 { kind } else { VLAN_TYPE };
    let ([a, b], [c, d]) = (kind.to_be_bytes(), control.to_be_bytes());
    [a, b, c, d]
}
