//! What nearly all frames are, found out with the fewest questions: TCP or UDP over IPv4, without options and
//! uncut, in one buffer, for our first address, and right in every way.

use std::net::Ipv4Addr;

use libos::runtime::{Medium, RxFrame};

use super::{DestinationKind, Network, Packet, Protocol};
use crate::wire::checksum::{self, Checksum};
use crate::wire::udp::UdpHeader;
use crate::wire::{ethernet, ipv4};

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();

/// Of the first eight bytes of an Ethernet frame, those of the destination.
const DESTINATION_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
/// Version 4 and a header of five words.
const VERSION_AND_LENGTH: u8 = 0x45;
/// More fragments, or an offset.
const FRAGMENT_MASK: u16 = u16::from_ne_bytes([0x3f, 0xff]);

/// A packet of the usual kind, and where in its frame it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: PlainProtocol,
    pub(crate) traffic_class: u8,
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

const PLAIN_HEADER_LEN: u8 = 20;
const _: () = assert!(PLAIN_HEADER_LEN as usize == ipv4::HEADER_BYTES);

/// What frames of the usual kind are compared with, each in one word.
#[derive(Debug)]
pub(super) struct PlainFilter {
    /// The device's Ethernet address as the first bytes of a frame, read as one word.
    hardware: u64,
    /// Our first IPv4 address as it stands in a header, if there is one.
    destination: Option<u32>,
    /// The last sender that was found to be possible.
    source: Option<u32>,
}

impl PlainFilter {
    /// Lets nothing pass.
    pub(super) const NONE: Self = Self { hardware: u64::MAX, destination: None, source: None };

    /// For frames to these addresses.
    pub(super) fn new(hardware: ethernet::Address, first: Option<Ipv4Addr>) -> Self {
        let Some(first) = first else { return Self::NONE };
        let [a, b, c, d, e, f] = hardware;
        Self {
            hardware: u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]),
            destination: Some(u32::from_ne_bytes(first.octets())),
            source: None,
        }
    }
}

impl Network {
    /// Finds out whether a frame is of the usual kind. `None`, and nothing done, for all else: it is for
    /// [`Self::receive_any`], which also says what is wrong with it.
    #[inline(always)]
    pub(crate) fn receive_plain(&mut self, frame: &RxFrame) -> Option<Plain> {
        let link_len = match self.device.medium {
            Medium::Ethernet => {
                let link = frame.head.first_chunk::<{ ethernet::HEADER_BYTES }>()?;
                let [a, b, c, d, e, f, g, h, .., t0, t1] = *link;
                let destination = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) & DESTINATION_MASK;
                if destination != self.plain.hardware || u16::from_be_bytes([t0, t1]) != ethernet::TYPE_IPV4 {
                    return None;
                }
                ethernet::HEADER_BYTES
            }
            Medium::Ip => 0,
        };
        let packet = frame.head.get(link_len..)?;
        let header = packet.first_chunk::<{ ipv4::HEADER_BYTES }>()?;
        let [
            version,
            traffic_class,
            l0,
            l1,
            i0,
            i1,
            f0,
            f1,
            ttl,
            protocol,
            c0,
            c1,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ] = *header;
        let words = [
            [version, traffic_class, l0, l1],
            [i0, i1, f0, f1],
            [ttl, protocol, c0, c1],
            [s0, s1, s2, s3],
            [d0, d1, d2, d3],
        ]
        .map(u32::from_ne_bytes);
        let [.., source, destination] = words;
        let sum = words.into_iter().map(u64::from).sum::<u64>();
        let total_len = usize::from(u16::from_be_bytes([l0, l1]));
        let usual = version == VERSION_AND_LENGTH
            && u16::from_ne_bytes([f0, f1]) & FRAGMENT_MASK == 0
            && self.plain.destination == Some(destination)
            && (ipv4::HEADER_BYTES..=packet.len()).contains(&total_len)
            && checksum::is_right_sum(sum)
            && frame.rest.is_empty();
        if !usual || (self.plain.source != Some(source) && !self.is_possible_source(source)) {
            return None;
        }
        let protocol = match protocol {
            TCP => PlainProtocol::Tcp,
            UDP => {
                let transport = packet.get(ipv4::HEADER_BYTES..)?;
                let len = UdpHeader::of_checked(transport)?.len();
                if len != total_len - ipv4::HEADER_BYTES {
                    return None;
                }
                PlainProtocol::Udp
            }
            _ => return None,
        };
        let plain = Plain {
            source: Ipv4Addr::from(source.to_ne_bytes()),
            destination: Ipv4Addr::from(destination.to_ne_bytes()),
            protocol,
            traffic_class,
            start: link_len + ipv4::HEADER_BYTES,
            end: link_len + total_len,
        };
        if self.wants_checksum(frame) && !sum_is_right(plain, frame) {
            return None;
        }
        self.counters.link_in_frames += 1;
        self.counters.ip_in_receives += 1;
        self.counters.ip_in_delivers += 1;
        Some(plain)
    }

    /// True when somebody else can be the sender; then the next question about him is answered sooner.
    #[inline(never)]
    fn is_possible_source(&mut self, source: u32) -> bool {
        let possible = !self.interface.is_impossible_source_v4(Ipv4Addr::from(source.to_ne_bytes()));
        if possible {
            self.plain.source = Some(source);
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
