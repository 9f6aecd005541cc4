//! The way out: frames of the stack to mbufs that refer to the frames' own buffers.

use std::ptr;
use std::rc::Rc;

use arrayvec::ArrayVec;
use dpdk_sys as sys;
use libos::runtime::{BURST, Segmentation, TxFrame};
use libos::{Buffer, FrameBatch};

use crate::counters::DpdkCounters;
use crate::loans::Loans;
use crate::mbufs::{Burst, Mbuf};
use crate::negotiation::Negotiated;
use crate::pools::Pool;

/// Most bytes that one mbuf refers to.
const MAX_ATTACHED_BYTES: usize = u16::MAX as usize;

/// Where TCP and UDP have their checksum, by which they are told apart.
const TCP_CHECKSUM_OFFSET: u8 = 16;
const UDP_CHECKSUM_OFFSET: u8 = 6;

const ETHERTYPE_AT: usize = 12;
const ETHERNET_BYTES: u16 = 14;
const VLAN_TAG_BYTES: u16 = 4;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The sending side of one queue.
pub(crate) struct Transmitter {
    port: u16,
    queue: u16,
    pool: Rc<Pool>,
    loans: Loans,
    /// New mbufs, taken from the pool many at a time.
    spare: Burst,
    /// Those of the frames of one burst, with what they will refer to. Empty between bursts.
    pieces: Vec<sys::catnip_piece>,
    room_bytes: usize,
    port_segments: usize,
    sums_ipv4_headers: bool,
    /// Frames that are tried at once: fewer while the device has no room, so that little is made in vain.
    window: usize,
}

/// What became of a frame that was to be made into mbufs.
enum Composed {
    /// What the device is told of it, and how many bytes of it were copied.
    Ready(sys::catnip_frame, usize),
    /// No mbuf is free: the device has them all.
    NoRoom,
    /// The device cannot send such a frame.
    Refused,
}

/// Frames at the front of a batch, as the device is told of them.
#[derive(Default)]
struct Made {
    frames: ArrayVec<sys::catnip_frame, BURST>,
    /// Of each frame.
    copied_bytes: ArrayVec<usize, BURST>,
    /// There are frames among them that the device is to cut.
    cut: bool,
    /// The device does not take the frame behind those that were sent.
    refused: bool,
}

/// Why no further frame was made into mbufs.
#[derive(PartialEq, Eq)]
enum Stop {
    /// There is none, or as many as are tried at once.
    Done,
    /// The next one cannot be sent.
    Refused,
    /// The device has all mbufs.
    NoRoom,
}

/// A frame's mbufs as they are strung together.
struct Chain {
    head: Mbuf,
    mbufs: usize,
    bytes: usize,
    copied_bytes: usize,
}

impl Chain {
    const EMPTY: Self = Self { head: ptr::null_mut(), mbufs: 0, bytes: 0, copied_bytes: 0 };
}

impl Transmitter {
    pub(crate) fn new(
        (port, queue): (u16, u16),
        pool: Rc<Pool>,
        loans: usize,
        negotiated: &Negotiated,
    ) -> Self {
        Self {
            port,
            queue,
            pool,
            loans: Loans::new(loans),
            spare: Burst::new_const(),
            pieces: Vec::with_capacity(2 * BURST),
            room_bytes: negotiated.room_bytes,
            port_segments: negotiated.port_segments,
            sums_ipv4_headers: negotiated.sums_ipv4_headers,
            window: BURST,
        }
    }

    /// Buffers that the device has at the moment.
    pub(crate) fn lent(&self) -> usize {
        self.loans.lent()
    }

    /// Offers the device the frames of `batch` until it has no room. `reaches` says which memory the device can read.
    pub(crate) fn transmit(
        &mut self,
        batch: &mut FrameBatch,
        reaches: impl Fn(&[u8]) -> bool,
        counters: &mut DpdkCounters,
    ) {
        self.loans.collect();
        while !batch.is_empty() {
            let mut made = Made::default();
            let stop = self.make(batch, &reaches, &mut made);
            let sent = self.send(&mut made);
            let unsent = made.frames.len() - sent;
            for frame in &made.frames[sent..] {
                // SAFETY: the driver did not take the frame's mbufs.
                unsafe { sys::rte_pktmbuf_free(frame.head) };
            }
            for (frame, copied_bytes) in made.frames[..sent].iter().zip(&made.copied_bytes) {
                count_sent(frame, *copied_bytes, counters);
                batch.pop_front();
            }
            if sent == 0 && (stop == Stop::Refused || made.refused) {
                counters.tx_refused += 1;
                batch.pop_front();
            } else if unsent > 0 || stop == Stop::NoRoom {
                counters.tx_would_block += 1;
                self.window = sent.clamp(1, BURST);
                break;
            } else {
                self.window = (self.window * 2).min(BURST);
            }
        }
    }

    /// Makes mbufs of the frames at the front of `batch`, which stay there.
    fn make(&mut self, batch: &FrameBatch, reaches: &impl Fn(&[u8]) -> bool, made: &mut Made) -> Stop {
        for index in 0..self.window {
            let Some(frame) = batch.get(index) else { break };
            match self.compose(&frame, reaches) {
                Composed::Ready(description, copied_bytes) => {
                    made.frames.push(description);
                    made.copied_bytes.push(copied_bytes);
                    made.cut |= frame.offload.segmentation().is_some();
                }
                Composed::Refused => return Stop::Refused,
                Composed::NoRoom => return Stop::NoRoom,
            }
        }
        Stop::Done
    }

    /// Makes the frames' mbufs what they are to be, and hands them to the driver; returns how many frames it took.
    fn send(&mut self, made: &mut Made) -> usize {
        let mut heads: Burst = made.frames.iter().map(|frame| frame.head).collect();
        let mut count = heads.len() as u16;
        // SAFETY: the mbufs are ours, until the driver takes them, and the loans keep the bytes where they are, which the
        // device only reads.
        unsafe {
            self.attach_pieces(0);
            sys::catnip_mbufs_describe(made.frames.as_ptr(), u32::from(count));
            if made.cut {
                // Devices want other sums in frames that they cut than the stack leaves, each in its own way.
                let fit = sys::rte_eth_tx_prepare(self.port, self.queue, heads.as_mut_ptr(), count);
                made.refused = fit < count;
                count = fit;
            }
            usize::from(sys::rte_eth_tx_burst(self.port, self.queue, heads.as_mut_ptr(), count))
        }
    }

    /// Makes mbufs of the pieces from the given one on, which are done with.
    ///
    /// # Safety
    /// Their mbufs are ours, and what they will refer to is on loan.
    unsafe fn attach_pieces(&mut self, start: usize) {
        let pieces = &self.pieces[start..];
        // SAFETY: the caller's promise.
        unsafe { sys::catnip_mbufs_attach(pieces.as_ptr(), pieces.len() as u32) };
        self.pieces.truncate(start);
    }

    fn compose(&mut self, frame: &TxFrame<'_>, reaches: &impl Fn(&[u8]) -> bool) -> Composed {
        let Some(description) = describe(frame, self.sums_ipv4_headers) else { return Composed::Refused };
        let start = self.pieces.len();
        let mut chain = Chain::EMPTY;
        let mut room = self.string(&mut chain, frame.segments, reaches);
        if room && chain.mbufs > self.port_segments {
            // The device takes fewer pieces than the frame has.
            self.free(&chain, start);
            chain = Chain::EMPTY;
            room = self.string(&mut chain, frame.segments, &|_| false);
        }
        if room && chain.mbufs <= self.port_segments && !chain.head.is_null() {
            let description = sys::catnip_frame {
                head: chain.head,
                bytes: chain.bytes as u32,
                segments: chain.mbufs as u16,
                ..description
            };
            return Composed::Ready(description, chain.copied_bytes);
        }
        self.free(&chain, start);
        if room { Composed::Refused } else { Composed::NoRoom }
    }

    /// Gives all mbufs of a chain back, and with them what they refer to.
    #[cold]
    fn free(&mut self, chain: &Chain, start: usize) {
        // SAFETY: the mbufs are ours, and nobody else has seen them.
        unsafe {
            self.attach_pieces(start);
            if !chain.head.is_null() {
                sys::rte_pktmbuf_free(chain.head);
            }
        }
    }

    /// Appends an mbuf that will refer to memory on loan, or has bytes of its own.
    #[inline]
    fn append(&mut self, chain: &mut Chain, piece: sys::catnip_piece) {
        match self.pieces.last_mut() {
            Some(last) if chain.mbufs > 0 => last.next = piece.mbuf,
            Some(_) | None => chain.head = piece.mbuf,
        }
        chain.mbufs += 1;
        self.pieces.push(piece);
    }

    /// Strings mbufs together for all segments; false when there are not enough.
    fn string(&mut self, chain: &mut Chain, segments: &[Buffer], reaches: &impl Fn(&[u8]) -> bool) -> bool {
        // Room left in the last mbuf, when it is one of copied bytes.
        let mut tail_room = 0;
        segments.iter().all(|segment| {
            if reaches(segment) {
                tail_room = 0;
                self.attach(chain, segment)
            } else {
                self.copy(chain, segment, &mut tail_room)
            }
        })
    }

    /// Appends mbufs that refer to the segment, which stays alive as long as they do.
    fn attach(&mut self, chain: &mut Chain, segment: &Buffer) -> bool {
        let mut left = segment.clone();
        while !left.is_empty() {
            let part = left.split_to(MAX_ATTACHED_BYTES);
            let (data, bytes) = (part.as_ptr(), part.len());
            let Some(mbuf) = self.new_mbuf() else { return false };
            let Some(shared) = self.loans.lend(part) else {
                self.spare.push(mbuf);
                return false;
            };
            chain.bytes += bytes;
            let (data, bytes) = (data.cast_mut().cast(), bytes as u16);
            self.append(chain, sys::catnip_piece { mbuf, next: ptr::null_mut(), data, shared, bytes });
        }
        true
    }

    /// Appends the bytes themselves, behind those that were copied before.
    fn copy(&mut self, chain: &mut Chain, bytes: &[u8], tail_room: &mut usize) -> bool {
        let mut left = bytes;
        while !left.is_empty() {
            if *tail_room == 0 {
                let Some(mbuf) = self.new_mbuf() else { return false };
                let nothing = ptr::null_mut();
                let piece = sys::catnip_piece {
                    mbuf,
                    next: ptr::null_mut(),
                    data: nothing,
                    shared: ptr::null_mut(),
                    bytes: 0,
                };
                self.append(chain, piece);
                *tail_room = self.room_bytes;
            }
            let Some(tail) = self.pieces.last().map(|piece| piece.mbuf) else { return false };
            let (part, rest) = left.split_at(left.len().min(*tail_room));
            let filled = self.room_bytes - *tail_room;
            // SAFETY: the mbuf is ours and has `room_bytes` of room, of which `filled` are taken.
            unsafe {
                let data = sys::catnip_mbuf_append(tail, (filled + part.len()) as u16);
                data.add(filled).copy_from_nonoverlapping(part.as_ptr(), part.len());
            }
            *tail_room -= part.len();
            chain.bytes += part.len();
            chain.copied_bytes += part.len();
            left = rest;
        }
        true
    }

    #[inline]
    fn new_mbuf(&mut self) -> Option<Mbuf> {
        if self.spare.is_empty() {
            self.pool.take(&mut self.spare);
        }
        self.spare.pop()
    }
}

impl Drop for Transmitter {
    fn drop(&mut self) {
        for mbuf in self.spare.drain(..) {
            // SAFETY: the mbuf is ours.
            unsafe { sys::rte_pktmbuf_free(mbuf) };
        }
    }
}

impl std::fmt::Debug for Transmitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transmitter").field("lent", &self.lent()).finish_non_exhaustive()
    }
}

/// Counts a frame that the driver took, of which as many bytes were copied.
#[inline]
fn count_sent(frame: &sys::catnip_frame, copied_bytes: usize, counters: &mut DpdkCounters) {
    counters.tx_frames += 1;
    counters.tx_bytes += u64::from(frame.bytes);
    counters.tx_segmented_frames += u64::from(frame.segment_bytes > 0);
    counters.tx_copied_frames += u64::from(copied_bytes > 0);
    counters.tx_copied_bytes += copied_bytes as u64;
}

/// What the device has to know to do its part; None when the frame is not one that it can be told of. Of IPv4 frames that
/// it cuts, it may have to be asked for the sums of the headers as well.
fn describe(frame: &TxFrame<'_>, sums_ipv4_headers: bool) -> Option<sys::catnip_frame> {
    let plain = sys::catnip_frame {
        head: ptr::null_mut(),
        flags: 0,
        bytes: 0,
        segments: 0,
        link_header_bytes: 0,
        network_header_bytes: 0,
        transport_header_bytes: 0,
        segment_bytes: 0,
    };
    let segmentation = frame.offload.segmentation();
    let Some(checksum) = frame.offload.checksum() else {
        return segmentation.is_none().then_some(plain);
    };
    let header = frame.segments.first()?;
    let field = |at: usize| Some(u16::from_be_bytes(*header.get(at..)?.first_chunk()?));
    let mut link_header_bytes = ETHERNET_BYTES;
    let mut ethertype = field(ETHERTYPE_AT)?;
    if ethertype == ETHERTYPE_VLAN {
        link_header_bytes += VLAN_TAG_BYTES;
        ethertype = field(ETHERTYPE_AT + usize::from(VLAN_TAG_BYTES))?;
    }
    let ipv6 = ethertype == ETHERTYPE_IPV6;
    let transport = match checksum.offset {
        TCP_CHECKSUM_OFFSET => sys::CATNIP_RTE_MBUF_F_TX_TCP_CKSUM,
        UDP_CHECKSUM_OFFSET => sys::CATNIP_RTE_MBUF_F_TX_UDP_CKSUM,
        _ => return None,
    };
    let network = if ipv6 { sys::CATNIP_RTE_MBUF_F_TX_IPV6 } else { sys::CATNIP_RTE_MBUF_F_TX_IPV4 };
    let described = sys::catnip_frame {
        flags: transport | network,
        link_header_bytes,
        network_header_bytes: checksum.start.checked_sub(link_header_bytes)?,
        ..plain
    };
    let Some(Segmentation { segment_bytes, header_bytes, ipv6: _ }) = segmentation else {
        return Some(described);
    };
    let of_each_header = if !ipv6 && sums_ipv4_headers { sys::CATNIP_RTE_MBUF_F_TX_IP_CKSUM } else { 0 };
    Some(sys::catnip_frame {
        flags: described.flags | sys::CATNIP_RTE_MBUF_F_TX_TCP_SEG | of_each_header,
        transport_header_bytes: header_bytes.checked_sub(checksum.start)?,
        segment_bytes,
        ..described
    })
}
