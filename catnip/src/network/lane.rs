//! The flows of the last packets: what the next one of each looks like, compared in whole words, and whose it is.
//!
//! Which lane may be a packet's follows from its ports, so that one is compared however many there are. A lane is made from a packet that went the general way and was delivered; nothing of it was looked up with less care. It
//! is good until the addresses change that it was looked up by; whoever the packets are for says in its own words how long
//! it is theirs.

use std::net::Ipv4Addr;

use libos::QueueDescriptor;
use libos::runtime::RxFrame;

use super::Network;
use super::plain::Plain;
use crate::slab::Key;
use crate::wire::checksum;
use crate::wire::{ethernet, ipv4, udp};

const PACKET: usize = ethernet::HEADER_BYTES;
const TRANSPORT: usize = PACKET + ipv4::HEADER_BYTES;
/// Bytes up to the end of the smaller of the transports' headers.
const HEAD_BYTES: usize = TRANSPORT + udp::HEADER_BYTES;

/// Whose the packets of a lane are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LaneEnd {
    /// Nobody's: there is no lane.
    Nobody,
    /// A datagram socket's, for as long as the sockets are of this generation.
    Udp {
        /// Of all datagram sockets.
        generation: u64,
        /// As which the socket's pops wait.
        queue: QueueDescriptor,
        /// Who sends them.
        source: Ipv4Addr,
        /// From which port.
        port: u16,
    },
    /// A connection's, which says with each segment whether it is as expected.
    Tcp {
        /// The connection's place.
        key: Key,
        /// As which its pops wait.
        queue: QueueDescriptor,
    },
}

/// What all packets of a flow have in common, read in the machine's byte order: one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Lane {
    /// Both Ethernet addresses, the type, the IP version and header length, the traffic class.
    link: [u64; 2],
    /// Both IP addresses.
    addresses: u64,
    /// Both ports.
    ports: u32,
    /// Flags and fragment offset, hop limit, protocol.
    cut_and_protocol: u32,
    /// Of the IP header without length, identification and checksum, in 16 bits and what they carry.
    sum: u32,
    end: LaneEnd,
}

const _: () = assert!(size_of::<Lane>() == 64);

/// Of the ports' product with [`SPREAD`], those that number a lane: as many lanes fit into a page.
const LANE_BITS: u32 = 6;
const LANES: usize = 1 << LANE_BITS;
/// Two to the 32nd over the golden ratio (Knuth, "The Art of Computer Programming", volume 3, section 6.4): neighbouring ports
/// come to different lanes.
const SPREAD: u32 = 0x9e37_79b1;

/// The number of the lane of a flow between these ports. Whoever makes flows whose lanes are the same gets the general way,
/// which costs the others no more than that.
#[inline(always)]
const fn lane_of(ports: u32) -> usize {
    (ports.wrapping_mul(SPREAD) >> (u32::BITS - LANE_BITS)) as usize
}

/// The lanes, and of which flow the last packet was that came the general way and has the lane's number.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: [Lane; LANES],
    last: [(Ipv4Addr, u32); LANES],
}

impl Lanes {
    pub(super) const NONE: Self =
        Self { lanes: [Lane::NONE; LANES], last: [(Ipv4Addr::UNSPECIFIED, 0); LANES] };
}

/// Where a packet of a lane ends, and which lane it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InLane {
    /// Bytes from the frame's first to the packet's end.
    pub(crate) end: usize,
    number: usize,
}

/// The eight bytes from `AT` on.
#[inline(always)]
fn eight<const AT: usize>(head: &[u8; HEAD_BYTES]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&head[AT..AT + 8]);
    u64::from_ne_bytes(bytes)
}

/// The four bytes from `AT` on.
#[inline(always)]
fn four<const AT: usize>(head: &[u8; HEAD_BYTES]) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&head[AT..AT + 4]);
    u32::from_ne_bytes(bytes)
}

/// The two bytes from `AT` on.
#[inline(always)]
fn two<const AT: usize>(head: &[u8; HEAD_BYTES]) -> [u8; 2] {
    [head[AT], head[AT + 1]]
}

impl Lane {
    /// No packet's: what it begins with makes no difference, as it is nobody's.
    const NONE: Self =
        Self { link: [0; 2], cut_and_protocol: 0, addresses: 0, ports: 0, sum: 0, end: LaneEnd::Nobody };

    fn of(head: &[u8; HEAD_BYTES], end: LaneEnd) -> Self {
        let cut_and_protocol = four::<{ PACKET + 6 }>(head);
        let version = u16::from_ne_bytes(two::<PACKET>(head));
        let words =
            [version.into(), cut_and_protocol, four::<{ PACKET + 12 }>(head), four::<{ PACKET + 16 }>(head)];
        let sum = words.into_iter().fold(0, |sum, word| sum + (word & 0xffff) + (word >> 16));
        Self {
            link: [eight::<0>(head), eight::<8>(head)],
            cut_and_protocol,
            addresses: eight::<{ PACKET + 12 }>(head),
            ports: four::<TRANSPORT>(head),
            sum,
            end,
        }
    }
}

impl Network {
    /// The lane of a frame whose flow has one and which is right in every way up to its transport: it is
    /// [`Self::lane_end`]'s, and then counts with [`Self::count_in_lane`]. `None` for all else.
    #[inline(always)]
    pub(crate) fn in_lane(&self, frame: &RxFrame) -> Option<InLane> {
        let head = frame.head.first_chunk::<HEAD_BYTES>()?;
        let number = lane_of(four::<TRANSPORT>(head));
        let lane = &self.lanes.lanes[number];
        let total_len = usize::from(u16::from_be_bytes(two::<{ PACKET + 2 }>(head)));
        let length_and_identification = four::<{ PACKET + 2 }>(head);
        let checksum = u16::from_ne_bytes(two::<{ PACKET + 10 }>(head));
        let sum = u64::from(lane.sum) + u64::from(length_and_identification) + u64::from(checksum);
        let end = PACKET + total_len;
        let is_next = four::<TRANSPORT>(head) == lane.ports
            && eight::<{ PACKET + 12 }>(head) == lane.addresses
            && eight::<0>(head) == lane.link[0]
            && eight::<8>(head) == lane.link[1]
            && four::<{ PACKET + 6 }>(head) == lane.cut_and_protocol
            && checksum::is_right_sum(sum)
            && end <= frame.head.len()
            && frame.rest.is_untouched()
            && frame.segment_bytes == 0
            && !self.wants_checksum(frame);
        is_next.then_some(InLane { end, number })
    }

    /// Whose what [`Self::in_lane`] takes is.
    #[inline(always)]
    pub(crate) const fn lane_end(&self, lane: InLane) -> &LaneEnd {
        &self.lanes.lanes[lane.number].end
    }

    /// True when the UDP header in a frame of a lane, whose packet ends at `end`, states the length that the IP header
    /// does, and there is a payload.
    #[inline(always)]
    pub(crate) fn is_datagram(frame: &RxFrame, end: usize) -> bool {
        let Some(head) = frame.head.first_chunk::<HEAD_BYTES>() else { return false };
        // As it stands in the header. What `end` was made from has no more bits, and may be less than the headers.
        let stated = (end.wrapping_sub(TRANSPORT) as u16).to_be_bytes();
        end > HEAD_BYTES && two::<{ TRANSPORT + 4 }>(head) == stated
    }

    /// Counts a frame of the lane as received and delivered.
    #[inline(always)]
    pub(crate) const fn count_in_lane(&mut self) {
        self.plain_in += 1;
    }

    /// The headers of a packet for [`Self::open_lane`] once it is delivered, if the last one that could have the same lane was
    /// of the same flow.
    #[inline(always)]
    pub(crate) fn note_flow(&mut self, frame: &RxFrame, plain: &Plain) -> Option<FlowHead> {
        let flow = (plain.source, plain.ports);
        let last = &mut self.lanes.last[lane_of(plain.ports.to_be())];
        if std::mem::replace(last, flow) != flow {
            return None;
        }
        if plain.start != TRANSPORT || self.wants_checksum(frame) {
            return None;
        }
        frame.head.first_chunk().map(|head| FlowHead(*head))
    }

    /// Makes a lane for packets that begin as this one did.
    #[cold]
    #[inline(never)]
    pub(crate) fn open_lane(&mut self, FlowHead(head): &FlowHead, end: LaneEnd) {
        self.lanes.lanes[lane_of(four::<TRANSPORT>(head))] = Lane::of(head, end);
    }
}

/// The headers of a packet.
#[derive(Debug)]
pub(crate) struct FlowHead([u8; HEAD_BYTES]);
