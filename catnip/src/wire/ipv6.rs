//! IPv6 headers and extension headers (RFC 8200).

use std::net::Ipv6Addr;

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;

/// Where the header says what follows.
pub const NEXT_HEADER_OFFSET: usize = 6;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ipv6Error {
    /// Not enough bytes for a header.
    Truncated,
    /// Not version 6.
    Version,
    /// A payload length beyond the bytes that are there.
    PayloadLength,
}

/// A checked fixed header.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6Header<'a>(&'a [u8; HEADER_BYTES]);

impl<'a> Ipv6Header<'a> {
    /// The header at the start of `head`, the first bytes of a packet of which `available` bytes
    /// were received in all.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse(head: &'a [u8], available: usize) -> Result<Self, Ipv6Error> {
        let header = Self::parse_quoted(head)?;
        if HEADER_BYTES + header.payload_len() > available {
            return Err(Ipv6Error::PayloadLength);
        }
        Ok(header)
    }

    /// The header that an ICMP error quotes: the packet may have been cut.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse_quoted(head: &'a [u8]) -> Result<Self, Ipv6Error> {
        let fixed = head.first_chunk::<HEADER_BYTES>().ok_or(Ipv6Error::Truncated)?;
        if fixed[0] >> 4 == 6 { Ok(Self(fixed)) } else { Err(Ipv6Error::Version) }
    }

    /// DSCP and ECN.
    #[must_use]
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// Bytes behind the fixed header.
    #[must_use]
    #[inline]
    pub fn payload_len(self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    /// What follows the fixed header.
    #[must_use]
    #[inline]
    pub const fn next_header(self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[must_use]
    #[inline]
    pub const fn hop_limit(self) -> u8 {
        self.0[7]
    }

    /// The sender.
    #[must_use]
    #[inline]
    pub fn source(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[8..24]);
        Ipv6Addr::from_octets(octets)
    }

    /// The receiver.
    #[must_use]
    #[inline]
    pub fn destination(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets.copy_from_slice(&self.0[24..]);
        Ipv6Addr::from_octets(octets)
    }
}

/// What a fixed header says.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6Fields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
    /// What follows the fixed header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// The sender.
    pub source: Ipv6Addr,
    /// The receiver.
    pub destination: Ipv6Addr,
}

impl Ipv6Fields {
    /// Composes the header, with flow label 0.
    #[must_use]
    #[inline]
    pub fn compose(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[0] = 0x60 | self.traffic_class >> 4;
        header[1] = self.traffic_class << 4;
        header[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        header[6] = self.next_header;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..].copy_from_slice(&self.destination.octets());
        header
    }
}

/// Changes a header's traffic class and payload length.
pub fn mend(header: &mut [u8; HEADER_BYTES], traffic_class: u8, payload_len: u16) {
    header[0] = 0x60 | traffic_class >> 4;
    header[1] = header[1] & 0xf | traffic_class << 4;
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
}

/// Next header values that are extension headers or end the chain (RFC 8200 section 4).
pub mod next_header {
    /// Options that every router looks at.
    pub const HOP_BY_HOP: u8 = 0;
    /// A list of addresses to visit.
    pub const ROUTING: u8 = 43;
    /// A part of a larger packet.
    pub const FRAGMENT: u8 = 44;
    /// Nothing follows.
    pub const NONE: u8 = 59;
    /// Options that the destination looks at.
    pub const DESTINATION: u8 = 60;
}

/// What an extension header whose length is in its second byte says.
#[derive(Debug, Clone, Copy)]
pub struct ExtensionHeader<'a> {
    /// What follows it.
    pub next_header: u8,
    /// Its bytes behind next header and length.
    pub body: &'a [u8],
}

impl<'a> ExtensionHeader<'a> {
    /// The header at the start of `bytes`. `None` when it does not fit in there.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let [next_header, length, behind @ ..] = bytes else { return None };
        // The length counts 8 bytes each and leaves the first 8 out (RFC 8200 section 4.3).
        let body = behind.get(..usize::from(*length) * 8 + 6)?;
        Some(Self { next_header: *next_header, body })
    }

    /// Bytes of the header.
    #[must_use]
    pub fn len(&self) -> usize {
        self.body.len() + 2
    }

    /// False: no header is without bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// A fragment header (RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentHeader {
    /// What follows it in the whole packet.
    pub next_header: u8,
    /// Bytes of the whole packet's fragmentable part in front of this one.
    pub offset: usize,
    /// True when this is not the last part.
    pub more: bool,
    /// The number that the parts share.
    pub identification: u32,
}

impl FragmentHeader {
    /// Bytes of the header.
    pub const BYTES: usize = 8;

    /// The header at the start of `bytes`. `None` when it does not fit in there.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [next_header, _, high, low, a, b, c, d] = *bytes.first_chunk::<{ Self::BYTES }>()?;
        let offset_and_flags = u16::from_be_bytes([high, low]);
        Some(Self {
            next_header,
            offset: usize::from(offset_and_flags & 0xfff8),
            more: offset_and_flags & 1 != 0,
            identification: u32::from_be_bytes([a, b, c, d]),
        })
    }

    /// Composes the header. The offset is a multiple of eight.
    #[must_use]
    pub fn compose(&self) -> [u8; Self::BYTES] {
        let offset = u16::try_from(self.offset).unwrap_or(u16::MAX) & 0xfff8;
        let [high, low] = (offset | u16::from(self.more)).to_be_bytes();
        let [a, b, c, d] = self.identification.to_be_bytes();
        [self.next_header, 0, high, low, a, b, c, d]
    }

    /// True for a packet that has the header but only one part (RFC 6946).
    #[must_use]
    pub fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }
}

/// What an option that the receiver does not know asks for (RFC 8200 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptionAction {
    /// Skip the option.
    Skip,
    /// Discard the packet.
    Discard,
    /// Discard the packet and report it, whatever its destination.
    DiscardReport,
    /// Discard the packet and report it unless its destination was a group.
    DiscardReportUnicast,
}

/// An option that keeps a packet from being delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOption {
    /// Bytes from the start of the options to the option.
    pub offset: usize,
    /// What it asks for.
    pub action: OptionAction,
}

/// Walks the options of a hop-by-hop or destination options header. Only padding is known; unknown
/// options that ask for no more are skipped.
///
/// # Errors
/// The first option that asks for the packet to be discarded, or that does not fit in there.
pub fn check_options(options: &[u8]) -> Result<(), BadOption> {
    const PAD_1: u8 = 0;
    const PAD_N: u8 = 1;
    let mut offset = 0;
    while let Some(&kind) = options.get(offset) {
        if kind == PAD_1 {
            offset += 1;
            continue;
        }
        let end = options.get(offset + 1).map(|length| offset + 2 + usize::from(*length));
        let Some(end) = end.filter(|end| *end <= options.len()) else {
            return Err(BadOption { offset, action: OptionAction::Discard });
        };
        let action = match kind >> 6 {
            _ if kind == PAD_N => OptionAction::Skip,
            0b00 => OptionAction::Skip,
            0b01 => OptionAction::Discard,
            0b10 => OptionAction::DiscardReport,
            _ => OptionAction::DiscardReportUnicast,
        };
        if action != OptionAction::Skip {
            return Err(BadOption { offset, action });
        }
        offset = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Ipv6Fields = Ipv6Fields {
        traffic_class: 0x2e,
        payload_len: 4,
        next_header: 17,
        hop_limit: 64,
        source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
    };

    #[test]
    fn what_is_composed_is_read_back() {
        let mut packet = FIELDS.compose().to_vec();
        packet.extend([1, 2, 3, 4]);
        let header = Ipv6Header::parse(&packet, packet.len()).unwrap();
        assert_eq!(header.traffic_class(), FIELDS.traffic_class);
        assert_eq!(header.payload_len(), 4);
        assert_eq!(header.next_header(), 17);
        assert_eq!(header.hop_limit(), 64);
        assert_eq!(header.source(), FIELDS.source);
        assert_eq!(header.destination(), FIELDS.destination);
    }

    #[test]
    fn malformed_headers_are_refused_for_what_is_wrong() {
        let mut packet = FIELDS.compose().to_vec();
        packet.extend([1, 2, 3, 4]);
        let mut version = packet.clone();
        version[0] = 0x40;
        for (name, packet, error) in [
            ("no header", packet[..39].to_vec(), Ipv6Error::Truncated),
            ("version 4", version, Ipv6Error::Version),
            ("payload cut", packet[..43].to_vec(), Ipv6Error::PayloadLength),
        ] {
            assert_eq!(Ipv6Header::parse(&packet, packet.len()).map(|_| ()), Err(error), "{name}");
        }
    }

    #[test]
    fn extension_headers_end_where_their_length_says() {
        let bytes = [17, 0, 1, 4, 0, 0, 0, 0, 9, 9];
        let header = ExtensionHeader::parse(&bytes).unwrap();
        assert_eq!((header.next_header, header.len()), (17, 8));
        assert!(ExtensionHeader::parse(&bytes[..7]).is_none());
        assert!(ExtensionHeader::parse(&[17, 1, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(ExtensionHeader::parse(&[17]).is_none());
    }

    #[test]
    fn options_are_treated_as_their_first_bits_say() {
        use OptionAction::{Discard, DiscardReport, DiscardReportUnicast};
        let bad = |offset, action| Err(BadOption { offset, action });
        for (name, options, expected) in [
            ("none", &[][..], Ok(())),
            ("padding", &[0, 1, 3, 0, 0, 0], Ok(())),
            ("router alert", &[5, 2, 0, 0, 1, 0], Ok(())),
            ("unknown, skip", &[0x3e, 0], Ok(())),
            ("unknown, discard", &[0, 0x7e, 0], bad(1, Discard)),
            ("unknown, report", &[1, 0, 0xbe, 0], bad(2, DiscardReport)),
            ("unknown, report for unicast", &[0xfe, 0], bad(0, DiscardReportUnicast)),
            ("without a length", &[0x3e], bad(0, Discard)),
            ("longer than the header", &[0x3e, 1], bad(0, Discard)),
        ] {
            assert_eq!(check_options(options), expected, "{name}");
        }
    }

    #[test]
    fn fragment_headers_are_read() {
        let header = FragmentHeader::parse(&[17, 0, 0, 9, 0, 0, 1, 0]).unwrap();
        assert_eq!(header, FragmentHeader { next_header: 17, offset: 8, more: true, identification: 256 });
        assert_eq!(header.compose(), [17, 0, 0, 9, 0, 0, 1, 0]);
        assert!(FragmentHeader::parse(&[6, 0, 0, 0, 0, 0, 0, 1]).unwrap().is_atomic());
        assert!(FragmentHeader::parse(&[6, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
