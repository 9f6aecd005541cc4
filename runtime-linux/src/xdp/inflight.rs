//! Memory that the device or the kernel has at the moment.

use std::collections::VecDeque;

use libos::{Buffer, BufferMut};

/// Buffers are at least this large, so that no two begin in the same so many bytes.
const BUCKET_BYTES: usize = 2048;
const NO_SLOT: u16 = u16::MAX;

/// Buffers that wait for frames, found by where they begin in the region, in whatever order they come back.
#[derive(Debug)]
pub(super) struct Lent {
    /// For each 2 KiB of the region, the slot of the buffer that begins there.
    buckets: Box<[u16]>,
    slots: Vec<Option<(usize, BufferMut)>>,
    unused: Vec<u16>,
}

impl Lent {
    /// Room for so many buffers, fewer than 65,535, in a region of so many bytes.
    pub fn new(buffers: usize, region_bytes: usize) -> Self {
        let buffers = buffers.min(usize::from(NO_SLOT));
        Self {
            buckets: vec![NO_SLOT; region_bytes.div_ceil(BUCKET_BYTES)].into(),
            slots: (0..buffers).map(|_| None).collect(),
            unused: (0..buffers as u16).rev().collect(),
        }
    }

    /// Buffers that more can be lent.
    #[inline]
    pub fn room(&self) -> usize {
        self.unused.len()
    }

    /// Keeps a buffer that was lent at this place. Hands it back when there is no room.
    #[inline]
    pub fn put(&mut self, at: usize, buffer: BufferMut) -> Result<(), BufferMut> {
        let Some(bucket) = self.buckets.get_mut(at / BUCKET_BYTES) else { return Err(buffer) };
        let Some(slot) = self.unused.pop() else { return Err(buffer) };
        *bucket = slot;
        self.slots[usize::from(slot)] = Some((at, buffer));
        Ok(())
    }

    /// Takes the buffer back that was lent at this place.
    #[inline]
    pub fn take(&mut self, at: usize) -> Option<BufferMut> {
        let bucket = self.buckets.get_mut(at / BUCKET_BYTES)?;
        let slot = *bucket;
        let entry = self.slots.get_mut(usize::from(slot))?;
        let (_, buffer) = entry.take_if(|(lent_at, _)| *lent_at == at)?;
        *bucket = NO_SLOT;
        self.unused.push(slot);
        Some(buffer)
    }
}

/// Pieces that are being sent. They come back in order from every driver that is known; from another they would be
/// looked for.
#[derive(Debug, Default)]
pub(super) struct Sending {
    pieces: VecDeque<(u64, Option<Buffer>)>,
}

impl Sending {
    /// Pieces that are being sent, those before which others came back included.
    #[inline]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Keeps a piece's memory until it comes back.
    #[inline]
    pub fn put(&mut self, address: u64, piece: Buffer) {
        self.pieces.push_back((address, Some(piece)));
    }

    /// Lets go of the memory of the oldest piece that was sent from this address.
    #[inline]
    pub fn complete(&mut self, address: u64) {
        match self.pieces.front() {
            Some((oldest, Some(_))) if *oldest == address => {
                self.pieces.pop_front();
            }
            _ => self.complete_later(address),
        }
        while self.pieces.front().is_some_and(|(_, piece)| piece.is_none()) {
            self.pieces.pop_front();
        }
    }

    #[cold]
    fn complete_later(&mut self, address: u64) {
        let found = self.pieces.iter_mut().find(|(sent, piece)| *sent == address && piece.is_some());
        if let Some((_, piece)) = found {
            *piece = None;
        }
    }
}
