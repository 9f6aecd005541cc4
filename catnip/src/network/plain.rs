//! What nearly all frames are, found out with the fewest questions: TCP or UDP over IPv4, without options and
//! uncut, in one buffer, for our first address, and right in every way.

use std::net::Ipv4Addr;

use libos::runtime::RxFrame;

use super::lane::Lanes;
use super::{DestinationKind, Network, Packet, Protocol};
use crate::tcp;
use crate::wire::checksum::{self, Checksum};
use crate::wire::{ethernet, ipv4, udp};

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();

/// Of the first eight bytes of an Ethernet frame, those of the destination.
const DESTINATION_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
/// Version 4 and a header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;
/// Of the second word: more fragments, or an offset.
const FRAGMENT_MASK: u32 = u32::from_ne_bytes([0, 0, 0x3f, 0xff]);

/// A packet of the usual kind, and where in its frame it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: PlainProtocol,
    pub(crate) traffic_class: u8,
    /// The sender's port in the upper half, the receiver's in the lower.
    pub(crate) ports: u32,
    /// Bytes from the frame's first to the transport header's first.
    pub(crate) start: usize,
    /// Bytes from the frame's first to the packet's end.
    pub(crate) end: usize,
}

/// What is in a packet of the usual kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlainProtocol {
    Tcp,
    Udp,
}

impl PlainProtocol {
    /// Bytes from the transport header's first to its checksum.
    #[inline(always)]
    pub(super) const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => tcp::segment::CHECKSUM_OFFSET,
            Self::Udp => udp::CHECKSUM_OFFSET,
        }
    }

    #[inline]
    pub(super) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

impl Plain {
    /// The packet in `frame`.
    #[inline]
    pub(crate) fn packet(self, mut frame: RxFrame) -> Packet {
        frame.head.truncate(self.end);
        frame.head.advance(self.start);
        Packet {
            protocol: self.protocol.protocol(),
            source: self.source.into(),
            destination: self.destination.into(),
            kind: DestinationKind::Unicast,
            head: frame.head,
            rest: frame.rest,
            segment_bytes: frame.segment_bytes,
            traffic_class: self.traffic_class,
            network_header_len: PLAIN_HEADER_LEN,
        }
    }
}

/// No word of a header.
const NO_ADDRESS: u64 = u64::MAX;
/// A header and the least that a transport puts behind it.
const MIN_PACKET_BYTES: usize = ipv4::HEADER_BYTES + udp::HEADER_BYTES;
const PLAIN_HEADER_LEN: u8 = 20;
const _: () = assert!(PLAIN_HEADER_LEN as usize == ipv4::HEADER_BYTES);

/// What frames of the usual kind are compared with, each in one word.
#[derive(Debug)]
pub(super) struct PlainFilter {
    /// The device's Ethernet address as the first bytes of a frame, read as one word.
    hardware: u64,
    /// Our first IPv4 address as it stands in a header, or [`NO_ADDRESS`].
    destination: u64,
    /// The last sender that was found to be possible, or [`NO_ADDRESS`].
    source: u64,
}

impl PlainFilter {
    /// Lets nothing pass.
    pub(super) const NONE: Self = Self { hardware: u64::MAX, destination: NO_ADDRESS, source: NO_ADDRESS };

    /// For frames to these addresses.
    pub(super) fn new(hardware: ethernet::Address, first: Option<Ipv4Addr>) -> Self {
        let Some(first) = first else { return Self::NONE };
        let [a, b, c, d, e, f] = hardware;
        Self {
            hardware: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
            destination: u32::from_ne_bytes(first.octets()).into(),
            source: NO_ADDRESS,
        }
    }
}

impl Network {
    /// Finds out whether a frame with a link header of so many bytes is of the usual kind. `None`, and nothing done,
    /// for all else: it is for [`Self::receive_any`], which also says what is wrong with it.
    #[inline(always)]
    pub(crate) fn receive_plain<const LINK_BYTES: usize>(&mut self, frame: &RxFrame) -> Option<Plain> {
        // Either transport's header begins with the ports and has eight bytes or more.
        let bytes = frame.head.get(..LINK_BYTES + ipv4::HEADER_BYTES + udp::HEADER_BYTES)?;
        let (link, packet) = bytes.split_at(LINK_BYTES);
        if LINK_BYTES == ethernet::HEADER_BYTES {
            let destination = u64::from_ne_bytes(*link.first_chunk()?) & DESTINATION_MASK;
            let ethertype = u16::from_be_bytes(*link.last_chunk()?);
            if destination != self.plain.hardware || ethertype != ethernet::TYPE_IPV4 {
                return None;
            }
        }
        // A chunk and not its bytes: these would be read one by one.
        let (words, _) = packet.as_chunks::<4>();
        let word = |index: usize| words[index];
        let words = [word(0), word(1), word(2), word(3), word(4)].map(u32::from_ne_bytes);
        let [.., source, destination] = words;
        let sum = words.into_iter().map(u64::from).sum::<u64>();
        // Parts of words that are in registers: read from memory once more, each byte would cost as much as a word.
        let [version, traffic_class, _, _] = words[0].to_ne_bytes();
        let total_len = usize::from(u32::from_be(words[0]) as u16);
        let [_, protocol, _, _] = words[2].to_ne_bytes();
        let usual = version == VERSION_AND_LENGTH
            && words[1] & FRAGMENT_MASK == 0
            && self.plain.destination == u64::from(destination)
            && (MIN_PACKET_BYTES..=frame.head.len() - LINK_BYTES).contains(&total_len)
            && checksum::is_right_sum(sum)
            && frame.rest.is_untouched();
        if !usual || (self.plain.source != u64::from(source) && !self.is_possible_source(source)) {
            return None;
        }
        let [u0, u1, _, _] = word(6);
        let protocol = match protocol {
            TCP => PlainProtocol::Tcp,
            UDP if usize::from(u16::from_be_bytes([u0, u1])) == total_len - ipv4::HEADER_BYTES => {
                PlainProtocol::Udp
            }
            _ => return None,
        };
        let plain = Plain {
            source: Ipv4Addr::from(source.to_ne_bytes()),
            destination: Ipv4Addr::from(destination.to_ne_bytes()),
            protocol,
            traffic_class,
            ports: u32::from_be_bytes(word(5)),
            start: LINK_BYTES + ipv4::HEADER_BYTES,
            end: LINK_BYTES + total_len,
        };
        if self.wants_checksum(frame) && !sum_is_right(plain, frame) {
            return None;
        }
        self.plain_in += 1;
        Some(plain)
    }

    /// True when somebody else can be the sender; then the next question about him is answered sooner.
    #[inline(never)]
    fn is_possible_source(&mut self, source: u32) -> bool {
        let possible = !self.interface.is_impossible_source_v4(Ipv4Addr::from(source.to_ne_bytes()));
        if possible {
            self.plain.source = source.into();
        }
        possible
    }

    /// Keeps the header of a packet that is to be answered with an error.
    pub(crate) fn keep_header(&mut self, frame: &RxFrame, plain: Plain) {
        let packet = frame.head.get(plain.start - ipv4::HEADER_BYTES..).unwrap_or_default();
        self.last_header.keep(packet, ipv4::HEADER_BYTES);
    }

    /// Our addresses have changed: nothing that was kept of them is good any more.
    pub(super) fn addresses_changed(&mut self) {
        self.neighbors.renew_epoch();
        self.renew_plain_filter();
    }

    pub(super) fn renew_plain_filter(&mut self) {
        // Tagged frames are none of the usual kind.
        let first = self.interface.first_v4().filter(|_| self.vlan.is_none());
        self.plain = PlainFilter::new(self.device.hardware_address, first);
        self.lanes = Lanes::NONE;
    }
}

#[inline(never)]
fn sum_is_right(plain: Plain, frame: &RxFrame) -> bool {
    let transport = frame.head.get(plain.start..plain.end).unwrap_or_default();
    // RFC 768: zero says that the sender computed none.
    if plain.protocol == PlainProtocol::Udp && transport.get(6..8) == Some(&[0, 0]) {
        return true;
    }
    let protocol = plain.protocol.protocol().number();
    let mut sum = Checksum::pseudo_header_v4(plain.source, plain.destination, protocol, transport.len());
    sum.add_bytes(transport);
    sum.is_right()
}
