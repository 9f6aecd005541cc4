//! Receiving: from the ring, or frame by frame from a socket without one.

use std::io;
use std::os::fd::BorrowedFd;

use libos::memory::HEADROOM_BYTES;
use libos::runtime::{RxBatch, RxChecksum};
use libos::{Arena, Buffer, BufferMut, RxFrame};

use super::counters::PacketCounters;
use crate::receive_buffers::ReceiveBuffers;
use crate::system::packet_ring::{PacketRing, RingFrame, VIRTIO_BYTES};
use crate::system::receive::receive;
use crate::virtio_header::{self, Joined};

/// Ethernet header and one VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// Ethernet addresses, behind which a VLAN tag goes.
const ADDRESSES_BYTES: usize = 12;
/// Most bytes of a received frame in one buffer: 16 KiB with what the arena puts in front of the data.
const PIECE_BYTES: usize = 16_384 - 2 * HEADROOM_BYTES;

/// Bytes after which one receive ends: what the program does with them is done while they are in the processor's cache,
/// and their buffers are there for the next.
const RECEIVE_BYTES: usize = 256 << 10;

/// How reading from a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// There is no more, or enough was read.
    Done,
    /// The link went down, which is said once, or the interface is gone.
    Broken,
}

/// Reads frames from a socket without a ring.
pub(super) fn from_socket(
    fd: BorrowedFd<'_>,
    buffers: &mut ReceiveBuffers,
    arena: &Arena,
    mtu: usize,
    batch: &mut RxBatch,
    counters: &mut PacketCounters,
) -> Read {
    let mut bytes = 0;
    while !batch.is_full() && bytes < RECEIVE_BYTES {
        if !buffers.fill(arena) {
            counters.rx_no_buffers += 1;
            break;
        }
        let mut header = [0; virtio_header::HEADER_BYTES];
        let read = match receive(fd, &mut buffers.parts(&mut header[..VIRTIO_BYTES])) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => return Read::Broken,
        };
        let frame_bytes = read.bytes.saturating_sub(VIRTIO_BYTES);
        bytes += frame_bytes;
        let said = virtio_header::decode(&header);
        if said.joined == Joined::Datagrams {
            counters.rx_joined_datagrams += 1;
            continue;
        }
        let too_long = read.cut || (said.joined == Joined::Nothing && frame_bytes > mtu + LINK_HEADER_BYTES);
        let taken = if too_long { None } else { buffers.take(frame_bytes) };
        let Some((mut head, rest)) = taken else {
            counters.rx_too_long += 1;
            continue;
        };
        if let Some(tag) = &read.vlan {
            put_tag(&mut head, tag);
        }
        counters.rx_frames += 1;
        counters.rx_bytes += frame_bytes as u64;
        counters.rx_joined_frames += u64::from(said.segment_bytes != 0);
        let checksum = if read.checked { RxChecksum::Verified } else { said.checksum };
        batch.push(RxFrame { head, rest, checksum, segment_bytes: said.segment_bytes });
    }
    Read::Done
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
    Taken::Frame(RxFrame { head: head.freeze(), rest: rest.into(), checksum, segment_bytes })
}

/// Puts a VLAN tag back behind a frame's addresses; the buffer has room in front.
#[cold]
fn put_tag(head: &mut Buffer, tag: &[u8; 4]) {
    let Some(addresses) = head.first_chunk::<ADDRESSES_BYTES>().copied() else { return };
    head.advance(ADDRESSES_BYTES);
    let put = head.prepend_by(ADDRESSES_BYTES + tag.len(), |header| {
        header[..ADDRESSES_BYTES].copy_from_slice(&addresses);
        header[ADDRESSES_BYTES..].copy_from_slice(tag);
    });
    debug_assert!(put, "a new buffer is nobody else's, and has headroom");
}

#[inline]
fn fill(buffer: &mut BufferMut, pieces: &[&[u8]]) {
    for piece in pieces {
        buffer.extend_from_slice(piece);
    }
}

/// Takes frames out of the ring.
pub(super) fn from_ring(
    ring: &mut PacketRing,
    arena: &Arena,
    mtu: usize,
    batch: &mut RxBatch,
    counters: &mut PacketCounters,
) {
    let mut bytes = 0;
    while !batch.is_full()
        && bytes < RECEIVE_BYTES
        && let Some(frame) = ring.front()
    {
        match take(&frame, arena, mtu) {
            Taken::Frame(received) => {
                counters.rx_frames += 1;
                counters.rx_bytes += frame.bytes.len() as u64;
                bytes += frame.bytes.len();
                counters.rx_joined_frames += u64::from(received.segment_bytes != 0);
                batch.push(received);
            }
            Taken::TooLong => counters.rx_too_long += 1,
            Taken::JoinedDatagrams => counters.rx_joined_datagrams += 1,
            Taken::NoMemory => {
                counters.rx_no_buffers += 1;
                break;
            }
        }
        ring.advance();
    }
}
