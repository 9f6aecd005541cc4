//! Receiving: buffers go into the fill ring and come back with frames in the receive ring.

use libc::{XDP_PKT_CONTD, xdp_desc};
use libos::memory::Region;
use libos::runtime::RxBatch;
use libos::{Arena, Buffer, BufferMut, RxFrame};

use super::counters::XdpCounters;
use super::inflight::Lent;
use super::socket::XskSocket;

/// Of an address that comes back, the bits for where the buffer begins; those above say how far into it the data does.
const BEGIN_BITS: u32 = 48;
/// Memory that waits for frames is at most this part of the region.
const REGION_PART: usize = 4;
/// Most pieces of a frame behind the first: as many as a packet of the kernel has (`MAX_SKB_FRAGS`, 45 at most).
const MAX_FURTHER_PIECES: usize = 45;
/// Pages of the device, beyond which the next bytes may be anywhere.
pub(super) const PAGE_BYTES: usize = 4096;

/// Buffers that wait for frames, and what has arrived of a frame in several.
#[derive(Debug)]
pub(super) struct Receiver {
    arena: Arena,
    lent: Lent,
    chunk_bytes: usize,
    /// A buffer must lie in one page: the device has no other view of it.
    page_bound: bool,
    partial: Option<RxFrame>,
}

impl Receiver {
    /// For buffers of so many bytes, at most so many at a time.
    pub fn new(arena: &Arena, chunk_bytes: usize, buffers: usize, page_bound: bool) -> Self {
        let region_bytes = arena.region().len();
        let most = (region_bytes / REGION_PART / (2 * chunk_bytes)).max(1);
        let lent = Lent::new(buffers.min(most), region_bytes);
        Self { arena: arena.clone(), lent, chunk_bytes, page_bound, partial: None }
    }

    /// What the device needs of buffers from now on.
    pub fn set_page_bound(&mut self, page_bound: bool) {
        self.page_bound = page_bound;
    }

    /// Gives the kernel buffers in place of those that came back.
    #[inline]
    pub fn fill(&mut self, socket: &mut XskSocket, counters: &mut XdpCounters) {
        if self.lent.room() > 0 {
            self.fill_all(socket, counters);
        }
    }

    #[inline(never)]
    fn fill_all(&mut self, socket: &mut XskSocket, counters: &mut XdpCounters) {
        let wanted = self.lent.room().min(socket.fill.room(self.lent.room() as u32) as usize);
        for _ in 0..wanted {
            let Some((at, buffer)) = self.allocate() else {
                counters.rx_no_buffers += 1;
                break;
            };
            if self.lent.put(at, buffer).is_err() || !socket.fill.put(at as u64) {
                break;
            }
        }
        socket.fill.submit();
    }

    /// A buffer, and where in the region a chunk in it begins.
    #[inline]
    fn allocate(&self) -> Option<(usize, BufferMut)> {
        let spare = if self.page_bound { self.chunk_bytes } else { 0 };
        let mut buffer = self.arena.allocate(self.chunk_bytes + spare)?;
        buffer.set_len(self.chunk_bytes + spare);
        let begin = offset(self.arena.region(), &buffer);
        let in_page = begin % PAGE_BYTES;
        let crosses = self.page_bound && in_page + self.chunk_bytes > PAGE_BYTES;
        let at = if crosses { begin.next_multiple_of(PAGE_BYTES) } else { begin };
        Some((at, buffer))
    }

    /// Appends the frames that have arrived.
    #[inline]
    pub fn receive(&mut self, socket: &mut XskSocket, batch: &mut RxBatch, counters: &mut XdpCounters) {
        while !batch.is_full()
            && let Some(entry) = socket.receive.take()
        {
            let Some(data) = self.data(&entry) else {
                counters.rx_unknown_buffers += 1;
                continue;
            };
            counters.rx_bytes += data.len() as u64;
            if entry.options & XDP_PKT_CONTD == 0 && self.partial.is_none() {
                counters.rx_frames += 1;
                batch.push(data.into());
            } else if let Some(frame) = self.join(data, entry.options & XDP_PKT_CONTD != 0) {
                counters.rx_frames += 1;
                counters.rx_multi_buffer_frames += 1;
                batch.push(frame);
            }
        }
        socket.receive.release();
        self.fill(socket, counters);
    }

    /// The data that came back in a buffer.
    #[inline]
    fn data(&mut self, entry: &xdp_desc) -> Option<Buffer> {
        let at = (entry.addr & ((1 << BEGIN_BITS) - 1)) as usize;
        let mut buffer = self.lent.take(at)?;
        let start = at - offset(self.arena.region(), &buffer) + (entry.addr >> BEGIN_BITS) as usize;
        let end = start.checked_add(entry.len as usize).filter(|end| *end <= buffer.capacity())?;
        buffer.set_len(end);
        let mut data = buffer.freeze();
        data.advance(start);
        Some(data)
    }

    /// Adds a piece to a frame in several; the frame when it is whole.
    #[cold]
    fn join(&mut self, piece: Buffer, more: bool) -> Option<RxFrame> {
        match &mut self.partial {
            Some(frame) if frame.rest.len() < MAX_FURTHER_PIECES => frame.rest.push(piece),
            // No frame is so long: what there is of it is let go of.
            Some(_) | None => self.partial = Some(piece.into()),
        }
        if more { None } else { self.partial.take() }
    }
}

/// Where in the region a buffer begins.
#[inline]
pub(super) fn offset(region: &Region, bytes: &[u8]) -> usize {
    (bytes.as_ptr() as usize).wrapping_sub(region.base().as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::memory::ArenaConfig;

    #[test]
    fn chunks_for_a_device_lie_in_one_page_each_and_in_their_buffers() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        for chunk_bytes in [2048, 3072, 4096] {
            let receiver = Receiver::new(&arena, chunk_bytes, 64, true);
            let mut held = Vec::new();
            for odd in 0..200 {
                // So that buffers begin anywhere.
                held.push(arena.allocate(64 * odd + 1).unwrap());
                let (at, buffer) = receiver.allocate().unwrap();
                assert_eq!(at / PAGE_BYTES, (at + chunk_bytes - 1) / PAGE_BYTES, "{at}");
                let begin = offset(arena.region(), &buffer);
                assert!(begin <= at && at + chunk_bytes <= begin + buffer.capacity());
                held.push(buffer);
            }
        }
    }
}
