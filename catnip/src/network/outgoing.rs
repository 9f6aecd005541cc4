//! What a transport hands down to be sent, and the buffer in which all headers of a packet come together.

use arrayvec::ArrayVec;
use libos::Buffer;

use super::path::EXPRESS_BYTES;
use crate::wire::{ethernet, ipv4, ipv6, vlan};

/// Longest transport header: TCP with all options (RFC 9293 section 3.1).
pub const MAX_TRANSPORT_HEADER_BYTES: usize = 60;

/// Where the transport header starts: behind room for Ethernet and IPv6, at a cache line.
const TRANSPORT_START: usize = 64;
const IPV4_START: usize = TRANSPORT_START - ipv4::HEADER_BYTES;
const IPV6_START: usize = TRANSPORT_START - ipv6::HEADER_BYTES;
const ETHERNET_IPV4_START: usize = IPV4_START - ethernet::HEADER_BYTES;
const ETHERNET_IPV6_START: usize = IPV6_START - ethernet::HEADER_BYTES;

/// Protocols above IP that the stack itself speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 792.
    Icmpv4,
    /// RFC 4443.
    Icmpv6,
}

impl Protocol {
    /// Its number in the IPv4 protocol and the IPv6 next header field.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u8 {
        match self {
            Self::Icmpv4 => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
        }
    }
}

/// The headers of one packet. The transport header starts at a fixed place and the lower headers end
/// there, so that a packet is composed without moving anything. Reusable from packet to packet.
#[derive(Debug, Clone)]
pub struct HeaderBuffer {
    bytes: [u8; TRANSPORT_START + MAX_TRANSPORT_HEADER_BYTES],
    transport_end: usize,
    start: usize,
}

impl Default for HeaderBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl HeaderBuffer {
    /// A buffer with an empty transport header.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self {
            bytes: [0; TRANSPORT_START + MAX_TRANSPORT_HEADER_BYTES],
            transport_end: TRANSPORT_START,
            start: TRANSPORT_START,
        }
    }

    /// Sets the transport header's length, at most [`MAX_TRANSPORT_HEADER_BYTES`], and returns its
    /// bytes, which hold whatever they held before.
    #[inline]
    pub fn transport(&mut self, len: usize) -> &mut [u8] {
        self.transport_end = TRANSPORT_START + len.min(MAX_TRANSPORT_HEADER_BYTES);
        self.start = TRANSPORT_START;
        self.transport_mut()
    }

    /// The transport header.
    #[must_use]
    #[inline]
    pub fn transport_header(&self) -> &[u8] {
        self.bytes.get(TRANSPORT_START..self.transport_end).unwrap_or_default()
    }

    #[inline]
    pub(super) fn transport_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(TRANSPORT_START..self.transport_end).unwrap_or_default()
    }

    /// The Ethernet and IPv4 headers that are there.
    pub(super) fn express(&self) -> [u8; EXPRESS_BYTES] {
        let mut headers = [0; EXPRESS_BYTES];
        headers.copy_from_slice(&self.bytes[ETHERNET_IPV4_START..TRANSPORT_START]);
        headers
    }

    /// Puts the IPv4 header in front of the transport header.
    #[inline]
    pub(super) fn put_ipv4(&mut self, header: [u8; ipv4::HEADER_BYTES]) {
        self.bytes[IPV4_START..TRANSPORT_START].copy_from_slice(&header);
        self.start = IPV4_START;
    }

    /// Puts the IPv6 header in front of the transport header.
    #[inline]
    pub(super) fn put_ipv6(&mut self, header: [u8; ipv6::HEADER_BYTES]) {
        self.bytes[IPV6_START..TRANSPORT_START].copy_from_slice(&header);
        self.start = IPV6_START;
    }

    /// Puts the Ethernet header in front of the IP header that is there.
    #[inline]
    pub(super) fn put_ethernet(&mut self, header: [u8; ethernet::HEADER_BYTES]) {
        if self.start == IPV4_START {
            self.bytes[ETHERNET_IPV4_START..IPV4_START].copy_from_slice(&header);
            self.start = ETHERNET_IPV4_START;
        } else {
            self.bytes[ETHERNET_IPV6_START..IPV6_START].copy_from_slice(&header);
            self.start = ETHERNET_IPV6_START;
        }
    }

    /// Puts a VLAN tag into the Ethernet header that is there.
    pub(super) fn put_tag(&mut self, tag: [u8; vlan::TAG_BYTES]) {
        let Some(start) = self.start.checked_sub(vlan::TAG_BYTES) else { return };
        self.bytes.copy_within(self.start..self.start + ethernet::TYPE_OFFSET, start);
        let at = start + ethernet::TYPE_OFFSET;
        if let Some(place) = self.bytes.get_mut(at..at + vlan::TAG_BYTES) {
            place.copy_from_slice(&tag);
        }
        self.start = start;
    }

    /// All headers that are there, lowest first.
    #[inline]
    pub(super) fn all(&self) -> &[u8] {
        self.bytes.get(self.start..self.transport_end).unwrap_or_default()
    }
}

/// The pieces of one packet's payload, in order: as many as a frame has segments of memory besides
/// the one with the headers.
pub type PieceList = ArrayVec<Buffer, 18>;

/// What follows the transport header.
#[derive(Debug)]
pub enum Payload<'a> {
    /// Nothing.
    Empty,
    /// Exactly one buffer. If nobody else holds it, the headers go into its own headroom.
    Whole(&'a mut Buffer),
    /// Several buffers; the list is left empty.
    Pieces(&'a mut PieceList),
}

impl Payload<'_> {
    /// Bytes of all pieces.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Whole(buffer) => buffer.len(),
            Self::Pieces(pieces) => pieces_len(pieces),
        }
    }

    /// True when there are no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Out of line, so that it does not crowd the usual cases.
#[inline(never)]
fn pieces_len(pieces: &PieceList) -> usize {
    pieces.iter().map(|piece| piece.len()).sum()
}

/// One transport packet to be sent.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The transport.
    pub protocol: Protocol,
    /// The transport header, its checksum field zero. Lower headers are put in front of it.
    pub headers: &'a mut HeaderBuffer,
    /// Bytes from the start of the transport header to its checksum field.
    pub checksum_offset: usize,
    /// What follows the transport header.
    pub payload: Payload<'a>,
    /// TCP segmentation offload: payload bytes of each segment.
    pub segment_bytes: Option<u16>,
    /// Hop limit, or time to live.
    pub hop_limit: u8,
    /// Traffic class, or type of service: DSCP and ECN.
    pub traffic_class: u8,
}
