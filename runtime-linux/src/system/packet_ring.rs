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
        let Some((header, at)) = self.locate() else {
            // What is left of a block whose headers point out of it cannot be found.
            self.left = 0;
            return None;
        };
        Some(self.frame(&header, at))
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

    /// The current frame's header, if it lies in the block.
    #[inline]
    fn header(&self) -> Option<libc::tpacket3_hdr> {
        let header_bytes = size_of::<libc::tpacket3_hdr>();
        if self.at > BLOCK_BYTES - header_bytes {
            return None;
        }
        let header = self.mapping.range(self.start() + self.at, header_bytes);
        // SAFETY: within the mapping, and within the block, which the kernel leaves alone while it is ours; any bytes
        // are a header.
        Some(unsafe { header.cast::<libc::tpacket3_hdr>().read_unaligned() })
    }

    /// The current frame's header, and where in the mapping its virtio header and it are, if they lie in the block.
    #[inline]
    fn locate(&self) -> Option<(libc::tpacket3_hdr, usize)> {
        let header = self.header()?;
        let at = self.at + usize::from(header.tp_mac).checked_sub(VIRTIO_BYTES)?;
        let end = at.checked_add(VIRTIO_BYTES)?.checked_add(header.tp_snaplen as usize)?;
        (end <= BLOCK_BYTES).then_some((header, self.start() + at))
    }

    /// The current frame: [`Self::locate`] says where.
    #[inline]
    fn frame(&self, header: &libc::tpacket3_hdr, at: usize) -> RingFrame<'_> {
        let len = VIRTIO_BYTES + header.tp_snaplen as usize;
        let start = self.mapping.range(at, len).as_ptr();
        // SAFETY: within the mapping, and within the block, which the kernel has written and leaves alone while it is
        // ours; `front` borrows the ring, so that the block is not given back while the frame is looked at.
        let all = unsafe { std::slice::from_raw_parts(start, len) };
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
        if let Some(header) = self.header() {
            let step = header.tp_next_offset as usize;
            self.at = self.at.saturating_add(step);
            // A header that leads nowhere is the last one, whatever the block says of their number.
            self.left = if step == 0 { 0 } else { self.left.saturating_sub(1) };
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

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 2;
    const HEADER: usize = 48;
    const FRAME_AT: u16 = 96;

    fn ring() -> PacketRing {
        let mapping = Mapping::anonymous(BLOCKS * BLOCK_BYTES).unwrap();
        PacketRing { mapping, blocks: BLOCKS, block: 0, at: 0, left: 0, held: false }
    }

    fn put<T>(ring: &PacketRing, at: usize, value: T) {
        let place = ring.mapping.range(at, size_of::<T>()).cast::<T>();
        // SAFETY: within the mapping, which nobody else has.
        unsafe { place.write_unaligned(value) };
    }

    /// Hands over a block whose first header is at `first`.
    fn hand_over(ring: &PacketRing, block: usize, count: u32, first: u32) {
        let start = block * BLOCK_BYTES;
        put(ring, start + COUNT_AT, count);
        put(ring, start + FIRST_AT, first);
        put(ring, start + STATUS_AT, TP_STATUS_USER);
    }

    fn header(next: u32, bytes: u32, mac: u16) -> libc::tpacket3_hdr {
        // SAFETY: integers, for which all zeros are a value.
        let mut header: libc::tpacket3_hdr = unsafe { std::mem::zeroed() };
        (header.tp_next_offset, header.tp_snaplen, header.tp_len, header.tp_mac) = (next, bytes, bytes, mac);
        header
    }

    /// Frames that come out until there is none, and where in the mapping they lie.
    fn read(ring: &mut PacketRing) -> Vec<(usize, usize)> {
        let base = ring.mapping.range(0, 0).as_ptr() as usize;
        let mut frames = Vec::new();
        while let Some(frame) = ring.front() {
            frames.push((frame.bytes.as_ptr() as usize - base, frame.bytes.len()));
            ring.advance();
            assert!(frames.len() < 100, "it never ends");
        }
        frames
    }

    #[test]
    fn the_frames_of_a_block_come_in_order_and_the_block_goes_back() {
        let mut ring = ring();
        put(&ring, HEADER, header(2048, 60, FRAME_AT));
        put(&ring, HEADER + 2048, header(0, 1514, FRAME_AT));
        hand_over(&ring, 0, 2, HEADER as u32);
        let first = HEADER + usize::from(FRAME_AT);
        assert_eq!(read(&mut ring), [(first, 60), (first + 2048, 1514)]);
        assert_eq!(ring.mapping.word(STATUS_AT).load(Ordering::Relaxed), 0);
        assert_eq!(ring.block, 1);
    }

    #[test]
    fn headers_that_point_out_of_their_block_end_it_and_the_next_block_is_read() {
        let edge = BLOCK_BYTES as u32;
        for (count, first, bad) in [
            (1, edge, header(0, 60, FRAME_AT)),
            (1, u32::MAX, header(0, 60, FRAME_AT)),
            (1, HEADER as u32, header(0, edge, FRAME_AT)),
            (1, HEADER as u32, header(0, u32::MAX, FRAME_AT)),
            (1, HEADER as u32, header(0, 60, 0)),
            (u32::MAX, HEADER as u32, header(u32::MAX, edge, FRAME_AT)),
        ] {
            let mut ring = ring();
            put(&ring, HEADER, bad);
            hand_over(&ring, 0, count, first);
            put(&ring, BLOCK_BYTES + HEADER, header(0, 60, FRAME_AT));
            hand_over(&ring, 1, 1, HEADER as u32);
            assert_eq!(read(&mut ring), [], "{count} {first}");
            assert_eq!(read(&mut ring), [(BLOCK_BYTES + HEADER + usize::from(FRAME_AT), 60)]);
        }
    }

    #[test]
    fn a_count_that_is_larger_than_the_block_ends_where_the_headers_do() {
        let mut ring = ring();
        put(&ring, HEADER, header(0, 60, FRAME_AT));
        hand_over(&ring, 0, u32::MAX, HEADER as u32);
        assert_eq!(read(&mut ring).len(), 1);
    }
}
