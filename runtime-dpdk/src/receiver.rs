//! The way in: mbufs of a queue to frames of the stack.

use std::rc::Rc;

use dpdk_sys as sys;
use libos::runtime::{RxBatch, RxChecksum};
use libos::{Arena, Buffer, BufferList, RxFrame};

use crate::counters::DpdkCounters;
use crate::mbufs::{self, Mbuf, Received};
use crate::pools::{BufferPool, Pool, Returns};

/// Most mbufs of one frame; longer chains are dropped.
const MAX_FRAME_MBUFS: usize = 64;

/// Where a queue receives into.
#[derive(Debug)]
pub(crate) enum ReceivePool {
    /// Buffers of the arena, which frames are handed up in.
    Arena(BufferPool),
    /// DPDK's own memory, which frames are copied out of.
    Own(Rc<Pool>),
}

impl ReceivePool {
    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        match self {
            Self::Arena(pool) => pool.as_ptr(),
            Self::Own(pool) => pool.as_ptr(),
        }
    }
}

/// The receiving side of one queue.
#[derive(Debug)]
pub(crate) struct Receiver {
    port: u16,
    queue: u16,
    arena: Arena,
    pool: ReceivePool,
}

/// What is made of one mbuf.
enum Piece {
    Received(Buffer),
    Copied(Buffer),
    /// There was no memory for it.
    Lost,
}

impl Receiver {
    /// Receives frames for a stack with that arena.
    pub(crate) fn new((port, queue): (u16, u16), arena: &Arena, pool: ReceivePool) -> Self {
        Self { port, queue, arena: arena.clone(), pool }
    }

    pub(crate) fn pool(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }

    /// Takes what has arrived, as many frames as `batch` has room for.
    #[inline]
    pub(crate) fn receive(&self, batch: &mut RxBatch, counters: &mut DpdkCounters) {
        let received = Received::take(self.port, self.queue, batch.remaining_capacity());
        let mut returns = Returns::default();
        for (mbuf, first) in received.frames() {
            if let Some(frame) = self.frame(mbuf, first, &mut returns, counters) {
                batch.push(frame);
            }
        }
        if let ReceivePool::Arena(pool) = &self.pool {
            returns.finish(pool);
        }
    }

    /// Makes a frame of a chain of mbufs, which all go back to their pools.
    #[inline]
    fn frame(
        &self,
        mbuf: Mbuf,
        first: &sys::catnip_segment,
        returns: &mut Returns,
        counters: &mut DpdkCounters,
    ) -> Option<RxFrame> {
        let checksum = checksum(first.flags);
        let joined = first.flags & sys::CATNIP_RTE_MBUF_F_RX_LRO != 0;
        let segment_bytes = if joined { first.segment_bytes } else { 0 };
        let next = first.next;
        let mut copied_bytes = 0;
        let mut take = |piece: Piece| match piece {
            Piece::Received(buffer) => Some(buffer),
            Piece::Copied(buffer) => {
                copied_bytes += buffer.len() as u64;
                Some(buffer)
            }
            Piece::Lost => None,
        };
        // SAFETY: each mbuf of the chain is ours, and looked at once.
        let head = take(unsafe { self.piece(mbuf, first, returns) });
        let mut frame = head.map(|head| RxFrame { head, rest: BufferList::new(), checksum, segment_bytes });
        let mut next = next;
        while !next.is_null() {
            let mbuf = next;
            // SAFETY: as above; the segment is read before the mbuf is given back.
            let piece = unsafe {
                let segment = mbufs::segment(mbuf);
                next = segment.next;
                take(self.piece(mbuf, &segment, returns))
            };
            frame = match (frame, piece) {
                (Some(mut frame), Some(piece)) if frame.rest.len() < MAX_FRAME_MBUFS => {
                    frame.rest.push(piece);
                    Some(frame)
                }
                // The whole frame is lost with one piece of it; the others go back to their pools.
                _ => None,
            };
        }
        let Some(frame) = frame else {
            counters.rx_no_buffers += 1;
            return None;
        };
        let bytes = frame.head.len() + frame.rest.bytes();
        counters.rx_frames += 1;
        counters.rx_bytes += bytes as u64;
        counters.rx_joined_frames += u64::from(joined);
        counters.rx_copied_frames += u64::from(copied_bytes > 0);
        counters.rx_copied_bytes += copied_bytes;
        Some(frame)
    }

    /// Takes the bytes of one mbuf, which goes back to its pool.
    ///
    /// # Safety
    /// The mbuf is ours, and `segment` what it says.
    #[inline]
    unsafe fn piece(&self, mbuf: Mbuf, segment: &sys::catnip_segment, returns: &mut Returns) -> Piece {
        let bytes = usize::from(segment.bytes);
        match &self.pool {
            ReceivePool::Arena(pool) if segment.pool == pool.as_ptr() => {
                // SAFETY: the mbuf is of this pool, and ours.
                let buffer = unsafe { pool.exchange(&self.arena, mbuf, (segment.data, bytes), returns) };
                buffer.map_or(Piece::Lost, Piece::Received)
            }
            // An mbuf of somebody else's pool: what another port of this process sent, over a ring.
            ReceivePool::Arena(_) | ReceivePool::Own(_) => {
                // SAFETY: the mbuf has as many bytes of data, which nobody writes to any more.
                let copy = self.arena.copy_from(unsafe { std::slice::from_raw_parts(segment.data, bytes) });
                // Its further mbufs are taken by themselves.
                // SAFETY: the mbuf is ours.
                unsafe { free_one(mbuf) };
                copy.map_or(Piece::Lost, |copy| Piece::Copied(copy.freeze()))
            }
        }
    }
}

/// Frees one mbuf of a chain, and not those behind it.
///
/// # Safety
/// The mbuf is ours.
#[inline]
unsafe fn free_one(mbuf: Mbuf) {
    // SAFETY: the caller's promise.
    unsafe { sys::rte_pktmbuf_free_seg(mbuf) };
}

/// What the driver's flags say of the transport checksum. "None" means that the field is not filled in but the
/// data is good: it came from memory of this machine.
#[inline]
fn checksum(flags: u64) -> RxChecksum {
    match flags & sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_MASK {
        sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_GOOD | sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_NONE => {
            RxChecksum::Verified
        }
        _ => RxChecksum::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_did_not_find_good_the_stack_checks() {
        let (good, none) = (sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_GOOD, sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_NONE);
        let bad = none & !good;
        for (flags, checks) in [
            (good, RxChecksum::Verified),
            (none, RxChecksum::Verified),
            (bad, RxChecksum::Unknown),
            (0, RxChecksum::Unknown),
            (!sys::CATNIP_RTE_MBUF_F_RX_L4_CKSUM_MASK, RxChecksum::Unknown),
        ] {
            assert_eq!(checksum(flags), checks, "{flags:x}");
        }
    }
}
