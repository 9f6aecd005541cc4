//! The way out: frames of the stack to mbufs that refer to the frames' own buffers.

use std::rc::Rc;

use arrayvec::ArrayVec;
use dpdk_sys as sys;
use libos::runtime::{BURST, Segmentation, TxFrame, TxOffload};
use libos::{Buffer, FrameBatch};

use crate::counters::DpdkCounters;
use crate::loans::Loans;
use crate::mbufs::{Burst, Mbuf};
use crate::negotiation::Negotiated;
use crate::pools::Pool;

/// Most bytes that one mbuf refers to.
const MAX_ATTACHED_BYTES: usize = u16::MAX as usize;

/// Where TCP and UDP have their checksum, by which they are told apart.
const TCP_CHECKSUM_OFFSET: u16 = 16;
const UDP_CHECKSUM_OFFSET: u16 = 6;

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
    room_bytes: usize,
    port_segments: usize,
    sums_ipv4_headers: bool,
    /// Frames that are tried at once: fewer while the device has no room, so that little is made in vain.
    window: usize,
}

/// What became of a frame that was to be made into mbufs.
enum Composed {
    /// The frame's first mbuf, and how many bytes of it were copied.
    Ready(Mbuf, usize),
    /// No mbuf is free: the device has them all.
    NoRoom,
    /// The device cannot send such a frame.
    Refused,
}

/// Frames at the front of a batch as mbufs.
#[derive(Default)]
struct Made {
    mbufs: Burst,
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
    tail: Mbuf,
    mbufs: usize,
    bytes: usize,
    copied_bytes: usize,
}

impl Chain {
    const EMPTY: Self =
        Self { head: std::ptr::null_mut(), tail: std::ptr::null_mut(), mbufs: 0, bytes: 0, copied_bytes: 0 };

    /// Appends an mbuf that holds, or refers to, so many bytes.
    fn append(&mut self, mbuf: Mbuf, bytes: usize) {
        if self.head.is_null() {
            self.head = mbuf;
        } else {
            // SAFETY: both mbufs are ours.
            unsafe { sys::catnip_mbuf_chain(self.tail, mbuf) };
        }
        self.tail = mbuf;
        self.mbufs += 1;
        self.bytes += bytes;
    }

    /// Gives all mbufs back, and with them what they refer to.
    fn free(self) {
        if !self.head.is_null() {
            // SAFETY: the mbufs are ours.
            unsafe { sys::rte_pktmbuf_free(self.head) };
        }
    }
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
            let unsent = made.mbufs.len() - sent;
            for mbuf in made.mbufs.drain(sent..) {
                // SAFETY: the driver did not take the mbuf.
                unsafe { sys::rte_pktmbuf_free(mbuf) };
            }
            made.copied_bytes[..sent].iter().for_each(|bytes| count_sent(batch, *bytes, counters));
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
                Composed::Ready(mbuf, copied_bytes) => {
                    made.mbufs.push(mbuf);
                    made.copied_bytes.push(copied_bytes);
                    made.cut |= frame.offload.segmentation.is_some();
                }
                Composed::Refused => return Stop::Refused,
                Composed::NoRoom => return Stop::NoRoom,
            }
        }
        Stop::Done
    }

    /// Hands the mbufs to the driver; returns how many it took.
    fn send(&self, made: &mut Made) -> usize {
        let mut count = made.mbufs.len() as u16;
        // SAFETY: as many mbufs that are ours, until the driver takes them.
        unsafe {
            if made.cut {
                // Devices want other sums in frames that they cut than the stack leaves, each in its own way.
                let fit = sys::rte_eth_tx_prepare(self.port, self.queue, made.mbufs.as_mut_ptr(), count);
                made.refused = fit < count;
                count = fit;
            }
            usize::from(sys::rte_eth_tx_burst(self.port, self.queue, made.mbufs.as_mut_ptr(), count))
        }
    }

    fn compose(&mut self, frame: &TxFrame<'_>, reaches: &impl Fn(&[u8]) -> bool) -> Composed {
        let Some(description) = describe(frame, self.sums_ipv4_headers) else { return Composed::Refused };
        let mut chain = Chain::EMPTY;
        let mut room = self.string(&mut chain, frame.segments, reaches);
        if room && chain.mbufs > self.port_segments {
            // The device takes fewer pieces than the frame has.
            chain.free();
            chain = Chain::EMPTY;
            room = self.string(&mut chain, frame.segments, &|_| false);
        }
        if !room {
            chain.free();
            return Composed::NoRoom;
        }
        if chain.mbufs > self.port_segments || chain.head.is_null() {
            chain.free();
            return Composed::Refused;
        }
        let description =
            sys::catnip_frame { bytes: chain.bytes as u32, segments: chain.mbufs as u16, ..description };
        // SAFETY: the chain is ours.
        unsafe { sys::catnip_mbuf_frame(chain.head, &raw const description) };
        Composed::Ready(chain.head, chain.copied_bytes)
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
            // SAFETY: the mbuf is ours, and the loan keeps the bytes where they are. The device only reads them.
            unsafe { sys::catnip_mbuf_attach(mbuf, data.cast_mut().cast(), bytes as u16, shared) };
            chain.append(mbuf, bytes);
        }
        true
    }

    /// Appends the bytes themselves, behind those that were copied before.
    fn copy(&mut self, chain: &mut Chain, bytes: &[u8], tail_room: &mut usize) -> bool {
        let mut left = bytes;
        while !left.is_empty() {
            if *tail_room == 0 {
                let Some(mbuf) = self.new_mbuf() else { return false };
                chain.append(mbuf, 0);
                *tail_room = self.room_bytes;
            }
            let (part, rest) = left.split_at(left.len().min(*tail_room));
            let filled = self.room_bytes - *tail_room;
            // SAFETY: the mbuf is ours and has `room_bytes` of room, of which `filled` are taken.
            unsafe {
                let data = sys::catnip_mbuf_append(chain.tail, (filled + part.len()) as u16);
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

/// Counts the frame at the front, of which as many bytes were copied, and lets go of it.
#[inline]
fn count_sent(batch: &mut FrameBatch, copied_bytes: usize, counters: &mut DpdkCounters) {
    if let Some(frame) = batch.front() {
        counters.tx_frames += 1;
        counters.tx_bytes += frame.len() as u64;
        counters.tx_segmented_frames += u64::from(frame.offload.segmentation.is_some());
        counters.tx_copied_frames += u64::from(copied_bytes > 0);
        counters.tx_copied_bytes += copied_bytes as u64;
    }
    batch.pop_front();
}

/// What the device has to know to do its part; None when the frame is not one that it can be told of. Of IPv4 frames that
/// it cuts, it may have to be asked for the sums of the headers as well.
fn describe(frame: &TxFrame<'_>, sums_ipv4_headers: bool) -> Option<sys::catnip_frame> {
    let plain = sys::catnip_frame {
        flags: 0,
        bytes: 0,
        segments: 0,
        link_header_bytes: 0,
        network_header_bytes: 0,
        transport_header_bytes: 0,
        segment_bytes: 0,
    };
    let TxOffload { checksum: Some(checksum), segmentation } = frame.offload else {
        return frame.offload.segmentation.is_none().then_some(plain);
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
