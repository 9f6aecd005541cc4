//! IPv4 headers (RFC 791).

use std::net::Ipv4Addr;

use super::checksum::{self, Checksum};

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

/// The option that makes routers look at packets that are not for them (RFC 2113).
pub const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const FRAGMENT_OFFSET: u16 = 0x1fff;

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ipv4Error {
    /// Not enough bytes for a header, or fewer than the header says it has.
    Truncated,
    /// Not version 4.
    Version,
    /// A header length below the least.
    HeaderLength,
    /// A total length below that of the header or beyond the bytes that are there.
    TotalLength,
    /// The header's checksum does not fit.
    Checksum,
}

/// A checked header.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Header<'a> {
    fixed: &'a [u8; HEADER_BYTES],
    options: &'a [u8],
}

/// Why a packet is not taken for the sake of its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionFault {
    /// The byte so far into the header makes no sense: a length that is too short or leads out of the header.
    Malformed {
        /// Bytes from the header's start.
        at: usize,
    },
    /// The sender has named hosts for the packet to visit after this one.
    UnfinishedRoute,
}

impl<'a> Ipv4Header<'a> {
    /// The header at the start of `head`, the first bytes of a packet of which `available` bytes
    /// were received in all.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse(head: &'a [u8], available: usize) -> Result<Self, Ipv4Error> {
        let header = Self::parse_quoted(head)?;
        let total = header.total_len();
        if total < header.header_len() || total > available {
            return Err(Ipv4Error::TotalLength);
        }
        let mut sum = Checksum::new();
        sum.add_bytes(header.fixed);
        if !header.options.is_empty() {
            sum.add_bytes(header.options);
        }
        if sum.is_right() { Ok(header) } else { Err(Ipv4Error::Checksum) }
    }

    /// The header at the start of `packet` and its payload, if it is of the usual kind: without options,
    /// of a whole packet that ends within the bytes that are there, its checksum right.
    #[must_use]
    #[inline]
    pub fn parse_plain(packet: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let fixed = packet.first_chunk::<HEADER_BYTES>()?;
        let header = Self { fixed, options: &[] };
        let payload = packet.get(HEADER_BYTES..header.total_len())?;
        let mut sum = Checksum::new();
        sum.add_bytes(fixed);
        let plain = fixed[0] == 0x45 && !header.is_fragment() && sum.is_right();
        plain.then_some((header, payload))
    }

    /// The first thing about the options for which the packet is not taken (RFC 791 section 3.1).
    #[cold]
    #[must_use]
    pub fn option_fault(&self) -> Option<OptionFault> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        const LOOSE_SOURCE_ROUTE: u8 = 131;
        const STRICT_SOURCE_ROUTE: u8 = 137;
        let mut rest = self.options;
        while let Some((&kind, behind)) = rest.split_first() {
            let kind_at = HEADER_BYTES + self.options.len() - rest.len();
            rest = match (kind, behind) {
                (END, _) => return None,
                (NO_OPERATION, _) => behind,
                // The pointer counts from the option's first byte, which is 1, and is behind the option in the end.
                (LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE, [len, pointer, ..])
                    if (3..=rest.len()).contains(&usize::from(*len)) && pointer <= len =>
                {
                    return Some(OptionFault::UnfinishedRoute);
                }
                (_, [len, ..]) if (2..=rest.len()).contains(&usize::from(*len)) => &rest[usize::from(*len)..],
                (_, behind) => {
                    return Some(OptionFault::Malformed { at: kind_at + usize::from(!behind.is_empty()) });
                }
            };
        }
        None
    }

    /// The header that an ICMP error quotes. Routers may have changed its length, checksum and time
    /// to live, and the packet may have been cut: only what is needed to read it is checked.
    ///
    /// # Errors
    /// What is wrong with it.
    #[inline]
    pub fn parse_quoted(head: &'a [u8]) -> Result<Self, Ipv4Error> {
        let (fixed, behind) = head.split_first_chunk::<HEADER_BYTES>().ok_or(Ipv4Error::Truncated)?;
        let [version_and_length, ..] = *fixed;
        // The usual case first: version 4 and no options.
        if version_and_length == 0x45 {
            return Ok(Self { fixed, options: &[] });
        }
        if version_and_length >> 4 != 4 {
            return Err(Ipv4Error::Version);
        }
        let header_len = usize::from(version_and_length & 0xf) * 4;
        let options_len = header_len.checked_sub(HEADER_BYTES).ok_or(Ipv4Error::HeaderLength)?;
        let options = behind.get(..options_len).ok_or(Ipv4Error::Truncated)?;
        Ok(Self { fixed, options })
    }

    #[inline]
    const fn u16_at(self, offset: usize) -> u16 {
        u16::from_be_bytes([self.fixed[offset], self.fixed[offset + 1]])
    }

    /// Bytes of header and options.
    #[must_use]
    #[inline]
    pub const fn header_len(self) -> usize {
        HEADER_BYTES + self.options.len()
    }

    /// Bytes of header, options and payload.
    #[must_use]
    #[inline]
    pub fn total_len(self) -> usize {
        usize::from(self.u16_at(2))
    }

    /// DSCP and ECN.
    #[must_use]
    #[inline]
    pub const fn traffic_class(self) -> u8 {
        self.fixed[1]
    }

    /// True for a part of a larger packet.
    #[must_use]
    #[inline]
    pub const fn is_fragment(self) -> bool {
        self.u16_at(6) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// True for a part that is not the first, and so lacks the transport header.
    #[must_use]
    #[inline]
    pub const fn is_later_fragment(self) -> bool {
        self.u16_at(6) & FRAGMENT_OFFSET != 0
    }

    /// Bytes of the whole packet's payload in front of this part.
    #[must_use]
    #[inline]
    pub const fn fragment_offset(self) -> usize {
        (self.u16_at(6) & FRAGMENT_OFFSET) as usize * 8
    }

    /// True when this is not the last part.
    #[must_use]
    #[inline]
    pub const fn more_fragments(self) -> bool {
        self.u16_at(6) & MORE_FRAGMENTS != 0
    }

    /// True when routers must not cut the packet.
    #[must_use]
    #[inline]
    pub const fn dont_fragment(self) -> bool {
        self.u16_at(6) & DONT_FRAGMENT != 0
    }

    /// The number that fragments of one packet share.
    #[must_use]
    #[inline]
    pub const fn identification(self) -> u16 {
        self.u16_at(4)
    }

    /// Time to live.
    #[must_use]
    #[inline]
    pub const fn time_to_live(self) -> u8 {
        self.fixed[8]
    }

    /// The protocol of the payload.
    #[must_use]
    #[inline]
    pub const fn protocol(self) -> u8 {
        self.fixed[9]
    }

    /// The sender.
    #[must_use]
    #[inline]
    pub const fn source(self) -> Ipv4Addr {
        Ipv4Addr::new(self.fixed[12], self.fixed[13], self.fixed[14], self.fixed[15])
    }

    /// The receiver.
    #[must_use]
    #[inline]
    pub const fn destination(self) -> Ipv4Addr {
        Ipv4Addr::new(self.fixed[16], self.fixed[17], self.fixed[18], self.fixed[19])
    }
}

/// Makes the header, options included, that of a part of its packet: `start` bytes of payload are in front
/// of it, and with the header it is `total_len` long. Of the whole packet when nothing is in front and no
/// `more` follows. The checksum is mended.
pub fn make_part(header: &mut [u8], total_len: u16, start: usize, more: bool) {
    let flags = if more { MORE_FRAGMENTS } else { 0 };
    let offset = u16::try_from(start / 8).unwrap_or(FRAGMENT_OFFSET) & FRAGMENT_OFFSET;
    if let Some(fixed) = header.first_chunk_mut::<HEADER_BYTES>() {
        fixed[2..4].copy_from_slice(&total_len.to_be_bytes());
        fixed[6..8].copy_from_slice(&(flags | offset).to_be_bytes());
        fixed[10..12].fill(0);
    }
    let sum = checksum::of(header);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// What a header without options says.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Fields {
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_len: u16,
    /// The number that fragments of the packet will share.
    pub identification: u16,
    /// Routers must not cut the packet.
    pub dont_fragment: bool,
    /// Time to live.
    pub time_to_live: u8,
    /// The protocol of the payload.
    pub protocol: u8,
    /// The sender.
    pub source: Ipv4Addr,
    /// The receiver.
    pub destination: Ipv4Addr,
}

impl Ipv4Fields {
    /// Composes the header, checksum included.
    #[must_use]
    #[inline]
    pub fn compose(&self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..12].copy_from_slice(&self.compose_changing());
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..].copy_from_slice(&self.destination.octets());
        header
    }

    /// Composes the header with the router alert option, checksum included. The total length is that
    /// with the option.
    #[must_use]
    pub fn compose_with_router_alert(&self) -> [u8; HEADER_BYTES + ROUTER_ALERT.len()] {
        let mut header = [0; HEADER_BYTES + ROUTER_ALERT.len()];
        header[..HEADER_BYTES].copy_from_slice(&self.compose());
        header[HEADER_BYTES..].copy_from_slice(&ROUTER_ALERT);
        header[0] = 0x46;
        header[10..12].fill(0);
        let sum = checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// Composes what is in front of the addresses: all that differs from one packet between them to
    /// the next.
    #[must_use]
    #[inline]
    pub fn compose_changing(&self) -> [u8; 12] {
        let [len_high, len_low] = self.total_len.to_be_bytes();
        let [id_high, id_low] = self.identification.to_be_bytes();
        let flags = if self.dont_fragment { DONT_FRAGMENT } else { 0 };
        let [flags_high, flags_low] = flags.to_be_bytes();
        // Whole words: what is stored is added up where it is, in registers.
        let length = [0x45, self.traffic_class, len_high, len_low];
        let identification = [id_high, id_low, flags_high, flags_low];
        let protocol = [self.time_to_live, self.protocol, 0, 0];
        let sum = [length, identification, protocol, self.source.octets(), self.destination.octets()]
            .into_iter()
            .fold(0, |sum, word| sum + u64::from(u32::from_ne_bytes(word)));
        let [sum_high, sum_low] = checksum::of_sum(sum).to_be_bytes();
        let [a, b, c, d] = length;
        let [e, f, g, h] = identification;
        [a, b, c, d, e, f, g, h, self.time_to_live, self.protocol, sum_high, sum_low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: Ipv4Fields = Ipv4Fields {
        traffic_class: 0x2e,
        total_len: 24,
        identification: 0x1234,
        dont_fragment: true,
        time_to_live: 64,
        protocol: 17,
        source: Ipv4Addr::new(192, 0, 2, 1),
        destination: Ipv4Addr::new(198, 51, 100, 2),
    };

    fn packet() -> Vec<u8> {
        let mut packet = FIELDS.compose().to_vec();
        packet.extend([1, 2, 3, 4]);
        packet
    }

    /// The packet with one byte changed and the checksum mended.
    fn changed(offset: usize, value: u8) -> Vec<u8> {
        let mut packet = packet();
        packet[offset] = value;
        packet[10..12].fill(0);
        let len = (usize::from(packet[0] & 0xf) * 4).clamp(HEADER_BYTES, packet.len());
        let sum = checksum::of(&packet[..len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn what_is_composed_is_read_back() {
        let packet = packet();
        let header = Ipv4Header::parse(&packet, packet.len()).unwrap();
        assert_eq!(header.traffic_class(), FIELDS.traffic_class);
        assert_eq!(header.total_len(), 24);
        assert_eq!(header.identification(), 0x1234);
        assert!(header.dont_fragment());
        assert!(!header.is_fragment());
        assert_eq!(header.time_to_live(), 64);
        assert_eq!(header.protocol(), 17);
        assert_eq!(header.source(), FIELDS.source);
        assert_eq!(header.destination(), FIELDS.destination);
        assert_eq!(header.header_len(), HEADER_BYTES);
    }

    #[test]
    fn malformed_headers_are_refused_for_what_is_wrong() {
        let mut broken_checksum = packet();
        broken_checksum[8] ^= 1;
        let cases = [
            ("no header", packet()[..19].to_vec(), Ipv4Error::Truncated),
            ("version 6", changed(0, 0x65), Ipv4Error::Version),
            ("header of 16 bytes", changed(0, 0x44), Ipv4Error::HeaderLength),
            ("options beyond the end", changed(0, 0x4f), Ipv4Error::Truncated),
            ("total length of 19", changed(3, 19), Ipv4Error::TotalLength),
            ("total length beyond the end", changed(3, 25), Ipv4Error::TotalLength),
            ("checksum", broken_checksum, Ipv4Error::Checksum),
        ];
        for (name, packet, error) in cases {
            assert_eq!(Ipv4Header::parse(&packet, packet.len()).map(|_| ()), Err(error), "{name}");
        }
    }

    #[test]
    fn options_belong_to_the_header_and_its_checksum() {
        let packet = changed(0, 0x46);
        assert_eq!(Ipv4Header::parse(&packet, packet.len()).unwrap().header_len(), 24);
        let mut broken = packet;
        broken[20] ^= 1;
        assert_eq!(Ipv4Header::parse(&broken, broken.len()).map(|_| ()), Err(Ipv4Error::Checksum));
    }

    #[test]
    fn fragments_are_told_from_whole_packets() {
        for (flags, fragment, later) in
            [(0x00, false, false), (0x40, false, false), (0x20, true, false), (0x01, true, true)]
        {
            let packet = changed(6, flags);
            let header = Ipv4Header::parse(&packet, packet.len()).unwrap();
            assert_eq!((header.is_fragment(), header.is_later_fragment()), (fragment, later), "{flags:#x}");
        }
    }
}
