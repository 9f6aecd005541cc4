//! Sending: pieces of frames go into the transmit ring where they lie, and come back in the completion ring.

use std::io;
use std::os::fd::AsFd;

use libc::{XDP_PKT_CONTD, xdp_desc};
use libos::memory::Region;
use libos::runtime::TxFrame;
use libos::{Arena, Buffer, FrameBatch};

use super::counters::XdpCounters;
use super::inflight::Sending;
use super::mode::XdpMode;
use super::receive::{PAGE_BYTES, offset};
use super::socket::XskSocket;
use crate::system::xsk;

/// Most pieces of a frame that the kernel copies: the first, and as many pages as a packet of the kernel has.
const COPIED_PIECES: usize = 16;
/// Most pieces of a frame that a device reads itself: the least of the drivers that take any number but one.
const DEVICE_PIECES: usize = 8;
/// Pieces that the kernel takes out of the ring in one call.
const PIECES_A_KICK: usize = 32;

/// How a piece of memory may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    piece_bytes: usize,
    pieces: usize,
    /// The device knows pages, and not what is behind them.
    page_bound: bool,
    /// Frames of several pieces and at most so many bytes are gathered. Where the kernel copies, it takes a page for each
    /// piece behind the first, which costs more than a second copy of what is in the cache.
    gather_bytes: usize,
}

impl Limits {
    /// The pieces that `len` bytes at `at` in the region make: where each begins, and its bytes.
    #[inline]
    fn cut(self, at: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
        let end = at + len;
        let mut next = at;
        std::iter::from_fn(move || {
            let page = if self.page_bound { PAGE_BYTES - next % PAGE_BYTES } else { usize::MAX };
            let bytes = (end - next).min(self.piece_bytes).min(page);
            let piece = (next, bytes);
            next += bytes;
            (bytes > 0).then_some(piece)
        })
    }
}

/// How a frame can go out.
enum Plan {
    /// As it lies, in so many pieces.
    Direct(usize),
    /// Copied together.
    Gathered,
    /// Not at all.
    TooLong,
}

/// Memory that is being sent.
#[derive(Debug)]
pub(super) struct Transmitter {
    arena: Arena,
    limits: Limits,
    sending: Sending,
    capacity: usize,
    /// The kernel has not looked at all that is in the ring.
    pub kick_left: bool,
}

impl Transmitter {
    pub fn new(arena: &Arena, mode: &XdpMode, chunk_bytes: usize, capacity: usize) -> Self {
        let pieces = match (mode.multi_buffer, mode.zero_copy) {
            (false, _) => 1,
            (true, false) => COPIED_PIECES,
            (true, true) => DEVICE_PIECES,
        };
        let limits = Limits {
            piece_bytes: chunk_bytes,
            pieces,
            page_bound: mode.zero_copy,
            gather_bytes: if mode.zero_copy { 0 } else { chunk_bytes },
        };
        Self { arena: arena.clone(), limits, sending: Sending::default(), capacity, kick_left: false }
    }

    /// Most segments of memory in a frame that go out as they lie.
    pub fn max_segments(&self) -> usize {
        self.limits.pieces.max(2)
    }

    /// Lets go of what was sent.
    #[inline]
    pub fn reap(&mut self, socket: &mut XskSocket) {
        if self.sending.is_empty() {
            return;
        }
        while let Some(address) = socket.completion.take() {
            self.sending.complete(address);
        }
        socket.completion.release();
    }

    fn room(&self, socket: &mut XskSocket, wanted: usize) -> usize {
        let ring = socket.transmit.room(wanted as u32) as usize;
        ring.min(self.capacity - self.sending.len().min(self.capacity))
    }

    fn plan(&self, frame: &TxFrame<'_>) -> Plan {
        let region = self.arena.region();
        let mut pieces = 0;
        for segment in frame.segments.iter().filter(|segment| !segment.is_empty()) {
            if !lies_in(region, segment) {
                pieces = usize::MAX;
                break;
            }
            pieces += self.limits.cut(offset(region, segment), segment.len()).count();
        }
        let gathered = pieces > 1 && frame.len() <= self.limits.gather_bytes;
        if pieces <= self.limits.pieces && !gathered {
            return Plan::Direct(pieces);
        }
        // In one run a frame takes the fewest pieces; it may begin anywhere in a page.
        let run = frame.len().div_ceil(self.limits.piece_bytes) + usize::from(self.limits.pieces > 1);
        if run <= self.limits.pieces { Plan::Gathered } else { Plan::TooLong }
    }

    /// Takes frames off the front of the batch while there is room.
    pub fn transmit(
        &mut self,
        socket: &mut XskSocket,
        batch: &mut FrameBatch,
        counters: &mut XdpCounters,
    ) -> io::Result<()> {
        self.reap(socket);
        let before = self.sending.len();
        while let Some(front) = batch.front() {
            match self.plan(&front) {
                Plan::Direct(_) => {
                    if self.send_direct(socket, batch, counters) == 0 {
                        counters.tx_ring_full += 1;
                        break;
                    }
                }
                Plan::Gathered => {
                    if !self.send_gathered(socket, &front, counters) {
                        break;
                    }
                    batch.pop_front();
                }
                Plan::TooLong => {
                    counters.tx_refused += 1;
                    batch.pop_front();
                }
            }
        }
        let pieces = self.sending.len() - before;
        if pieces == 0 && !self.kick_left {
            return Ok(());
        }
        socket.transmit.submit();
        self.kick(socket, pieces, counters)
    }

    /// Sends the frames at the front that can go as they lie, as many as there is room for.
    fn send_direct(
        &mut self,
        socket: &mut XskSocket,
        batch: &mut FrameBatch,
        counters: &mut XdpCounters,
    ) -> usize {
        let room = self.room(socket, self.capacity);
        let (mut frames, mut pieces) = (0, 0);
        while let Some(frame) = batch.get(frames)
            && let Plan::Direct(more) = self.plan(&frame)
            && pieces + more <= room
        {
            pieces += more;
            counters.tx_bytes += frame.len() as u64;
            frames += 1;
        }
        counters.tx_frames += frames as u64;
        batch.take_frames(frames, |first, others, _offload| {
            let mut last = first;
            for segment in others.filter(|segment| !segment.is_empty()) {
                self.put(socket, std::mem::replace(&mut last, segment), More::Follows);
            }
            self.put(socket, last, More::Nothing);
        });
        frames
    }

    /// Copies a frame together and sends it; false when there is no room.
    fn send_gathered(
        &mut self,
        socket: &mut XskSocket,
        frame: &TxFrame<'_>,
        counters: &mut XdpCounters,
    ) -> bool {
        let bytes = frame.len();
        if self.room(socket, self.limits.pieces) < self.limits.pieces {
            counters.tx_ring_full += 1;
            return false;
        }
        // In a single piece that must not cross a page, there is a spare one to move to.
        let single = self.limits.pieces == 1 && self.limits.page_bound;
        let Some(mut copy) = self.arena.allocate(bytes + if single { bytes } else { 0 }) else {
            return false;
        };
        if single {
            copy.set_len(1);
            let begin = offset(self.arena.region(), &copy);
            let crosses = begin % PAGE_BYTES + bytes > PAGE_BYTES;
            copy.set_len(if crosses { begin.next_multiple_of(PAGE_BYTES) - begin } else { 0 });
        }
        let start = copy.len();
        for segment in frame.segments {
            copy.extend_from_slice(segment);
        }
        counters.tx_frames += 1;
        counters.tx_bytes += bytes as u64;
        counters.tx_gathered_frames += 1;
        counters.tx_gathered_bytes += bytes as u64;
        let mut copy = copy.freeze();
        copy.advance(start);
        self.put(socket, copy, More::Nothing);
        true
    }

    /// Puts a segment into the ring, in as many pieces as it takes.
    #[inline]
    fn put(&mut self, socket: &mut XskSocket, segment: Buffer, more: More) {
        let at = offset(self.arena.region(), &segment);
        let end = at + segment.len();
        for (begin, bytes) in self.limits.cut(at, segment.len()) {
            let continued = more == More::Follows || begin + bytes < end;
            let put = socket.transmit.put(xdp_desc {
                addr: begin as u64,
                len: bytes as u32,
                options: if continued { XDP_PKT_CONTD } else { 0 },
            });
            debug_assert!(put, "room was asked for");
            if begin + bytes < end {
                self.sending.put(begin as u64, segment.clone());
            } else {
                self.sending.put(begin as u64, segment);
                break;
            }
        }
    }

    /// Has the kernel look at the ring, if it wants to be told.
    pub fn kick(
        &mut self,
        socket: &mut XskSocket,
        pieces: usize,
        counters: &mut XdpCounters,
    ) -> io::Result<()> {
        self.kick_left = false;
        if !socket.transmit.needs_wakeup() {
            return Ok(());
        }
        for _ in 0..=pieces / PIECES_A_KICK {
            counters.tx_kicks += 1;
            match xsk::kick_transmit(socket.fd.as_fd()) {
                Ok(()) => return Ok(()),
                Err(error) => match error.raw_os_error() {
                    // More than one call takes, or the device is busy: what is left is in the ring.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::ENOMEM | libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
        self.kick_left = true;
        Ok(())
    }
}

/// Whether a piece is the last of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Follows,
    Nothing,
}

/// True when all bytes are in the region.
#[inline]
fn lies_in(region: &Region, bytes: &[u8]) -> bool {
    let at = offset(region, bytes);
    at < region.len() && bytes.len() <= region.len() - at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_and_are_never_too_long_nor_across_pages_where_those_count() {
        for page_bound in [false, true] {
            for piece_bytes in [2048, 4096] {
                let limits = Limits { piece_bytes, pieces: 16, page_bound, gather_bytes: 0 };
                for (at, len) in
                    [(0, 0), (0, 1), (4095, 2), (4096, 4096), (100, 9000), (8191, 1), (2049, 2047)]
                {
                    let mut next = at;
                    for (begin, bytes) in limits.cut(at, len) {
                        assert_eq!(begin, next);
                        assert!((1..=piece_bytes).contains(&bytes));
                        let pages = [begin / PAGE_BYTES, (begin + bytes - 1) / PAGE_BYTES];
                        assert!(!page_bound || pages[0] == pages[1], "{begin} and {bytes} bytes");
                        next += bytes;
                    }
                    assert_eq!(next, at + len);
                }
            }
        }
    }
}
