//! Frames between the front end's memory and ours: each byte is copied once.

use libos::runtime::TxFrame;
use libos::{Arena, Buffer, BufferMut, RxFrame};

use crate::header::{self, HEADER_BYTES};
use crate::peer_memory::PeerMemory;
use crate::ring::Piece;
use crate::{ETHERNET_BYTES, MAX_FRAME_BYTES};

/// A long frame is received into buffers of 16 KiB, with what the arena puts in front of the data.
const BUFFER_BYTES: usize = 16_384 - 2 * libos::memory::HEADROOM_BYTES;

/// What became of a frame in the front end's memory.
pub(super) enum Copied {
    Frame(RxFrame),
    /// Not a frame, or not in the shared memory.
    Malformed,
    /// No memory for the copy; it stays where it is.
    NoBuffers,
}

/// Bytes of all pieces. Far from overflowing: a ring has few descriptors of 32 bits.
pub(super) fn bytes_of(pieces: &[Piece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.len)).sum()
}

/// Copies the frame that `pieces` hold, with its header, into memory of `arena`.
#[inline]
pub(super) fn read(memory: &PeerMemory, pieces: &[Piece], arena: &Arena) -> Copied {
    let Some(bytes) = bytes_of(pieces).checked_sub(HEADER_BYTES as u64) else { return Copied::Malformed };
    if !(ETHERNET_BYTES as u64..=MAX_FRAME_BYTES as u64).contains(&bytes) {
        return Copied::Malformed;
    }
    let bytes = bytes as usize;
    let mut from = Cursor { memory, pieces, offset: 0 };
    let mut header = [0; HEADER_BYTES];
    let said = if from.read(&mut header) { header::decode(&header) } else { None };
    let Some(said) = said else { return Copied::Malformed };
    let head = match from.read_buffer(arena, bytes.min(BUFFER_BYTES)) {
        Ok(head) => head,
        Err(why) => return why,
    };
    let mut rest = Vec::new();
    if bytes > BUFFER_BYTES {
        rest.reserve_exact((bytes - 1) / BUFFER_BYTES);
        let mut left = bytes - BUFFER_BYTES;
        while left > 0 {
            match from.read_buffer(arena, left.min(BUFFER_BYTES)) {
                Ok(buffer) => {
                    left -= buffer.len();
                    rest.push(buffer);
                }
                Err(why) => return why,
            }
        }
    }
    Copied::Frame(RxFrame {
        head,
        rest: rest.into(),
        checksum: said.checksum,
        segment_bytes: said.segment_bytes,
    })
}

/// Copies a frame with its header to `pieces`, which are `buffers` of the front end's and have room for it. False when
/// they are not in the shared memory.
#[inline]
pub(super) fn write(memory: &PeerMemory, pieces: &[Piece], buffers: u16, frame: &TxFrame<'_>) -> bool {
    let mut to = Cursor { memory, pieces, offset: 0 };
    to.write(&header::encode(&frame.offload, buffers))
        && frame.segments.iter().all(|segment| to.write(segment))
}

/// A place in a list of pieces.
struct Cursor<'a> {
    memory: &'a PeerMemory,
    pieces: &'a [Piece],
    /// Bytes of the first piece that are done with.
    offset: u32,
}

impl Cursor<'_> {
    /// Passes over at most `most` bytes; says where they are, and how many. None at the end.
    #[inline]
    fn advance(&mut self, most: usize) -> Option<(u64, usize)> {
        loop {
            let piece = self.pieces.first()?;
            let left = piece.len - self.offset;
            if left == 0 {
                self.pieces = self.pieces.get(1..)?;
                self.offset = 0;
                continue;
            }
            let count = most.min(left as usize);
            let address = piece.address.wrapping_add(u64::from(self.offset));
            self.offset += count as u32;
            return Some((address, count));
        }
    }

    /// Reads all of `to`.
    #[inline]
    fn read(&mut self, mut to: &mut [u8]) -> bool {
        while !to.is_empty() {
            let Some((address, count)) = self.advance(to.len()) else { return false };
            let (now, later) = to.split_at_mut(count);
            if !self.memory.read(address, now) {
                return false;
            }
            to = later;
        }
        true
    }

    #[inline]
    fn read_buffer(&mut self, arena: &Arena, bytes: usize) -> Result<Buffer, Copied> {
        let mut buffer: BufferMut = arena.allocate(bytes).ok_or(Copied::NoBuffers)?;
        buffer.set_len(bytes);
        if self.read(&mut buffer) { Ok(buffer.freeze()) } else { Err(Copied::Malformed) }
    }

    /// Writes all of `from`.
    #[inline]
    fn write(&mut self, mut from: &[u8]) -> bool {
        while !from.is_empty() {
            let Some((address, count)) = self.advance(from.len()) else { return false };
            let (now, later) = from.split_at(count);
            if !self.memory.write(address, now) {
                return false;
            }
            from = later;
        }
        true
    }
}
