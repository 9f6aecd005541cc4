//! TCP headers: parsed once into a [`Segment`], written from [`HeaderFields`] (RFC 9293 §3.1).

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use super::fast_open::FastOpenCookie;
use super::options::{OptionFields, Options};
use super::sequence::SequenceNumber;

/// Bytes of a header without options.
pub const MIN_HEADER_BYTES: usize = 20;
/// Most bytes of a header with options.
pub const MAX_HEADER_BYTES: usize = 60;
/// Bytes from a header's start to its checksum field.
pub const CHECKSUM_OFFSET: usize = 16;

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(u16);

impl Flags {
    /// No bit.
    pub const NONE: Self = Self(0);
    /// The sender has no more data.
    pub const FIN: Self = Self(0x01);
    /// Sequence numbers are to be synchronised.
    pub const SYN: Self = Self(0x02);
    /// The connection is to be reset.
    pub const RST: Self = Self(0x04);
    /// The receiver should be given the data now.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment field is significant.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is significant.
    pub const URG: Self = Self(0x20);
    /// Congestion was experienced on the way (RFC 3168 §6.1).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168 §6.1).
    pub const CWR: Self = Self(0x80);

    /// Part of the count of marked packets (RFC 9768 §3.2), in the byte in front of the others.
    pub const AE: Self = Self(0x100);

    /// The bits as they stand in the header's 14th byte.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits as u16)
    }

    /// The bits as they stand in the header's 14th byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0 as u8
    }

    /// The bits as they stand in the header's 13th and 14th byte.
    #[must_use]
    pub(super) const fn control_bits(self) -> u16 {
        self.0
    }

    /// True when all bits of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True when at least one bit of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These bits but for those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 9] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "AE"];
        let mut names = NAMES.iter().enumerate().filter(|(bit, _)| self.0 >> bit & 1 == 1);
        match names.next() {
            Some((_, first)) => f.write_str(first)?,
            None => f.write_str("-")?,
        }
        names.try_for_each(|(_, name)| write!(f, "|{name}"))
    }
}

/// Why bytes are no TCP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseError {
    /// Fewer bytes than a header has, or than its data offset says.
    Truncated,
    /// A data offset below the 20 bytes of a header.
    DataOffset,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "TCP header cut short",
            Self::DataOffset => "TCP data offset below 5 words",
        })
    }
}

impl std::error::Error for ParseError {}

/// A received header. The payload follows at [`Self::header_bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// The sender's port.
    pub source_port: u16,
    /// Our port.
    pub destination_port: u16,
    /// SEG.SEQ: of the first payload byte, or of the SYN.
    pub sequence: SequenceNumber,
    /// SEG.ACK: the next number the sender expects; significant with ACK.
    pub acknowledgment: SequenceNumber,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND as it stands in the header, to be shifted by whoever knows the scale.
    pub window: u16,
    /// Bytes from the sequence number to the end of urgent data; significant with URG.
    pub urgent: u16,
    /// The options.
    pub options: Options,
    /// Bytes of header, options included.
    pub header_bytes: usize,
}

impl Segment {
    /// Reads a header. `bytes` begin with it; whatever follows is payload. The checksum is not looked
    /// at.
    ///
    /// # Errors
    /// When there is no complete header. Odd options are no error, see [`Options::malformed`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let Some(fixed) = bytes.first_chunk::<MIN_HEADER_BYTES>() else {
            return Err(ParseError::Truncated);
        };
        let &[s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, _, _, u0, u1] = fixed;
        let header_bytes = usize::from(offset >> 4) * 4;
        if header_bytes < MIN_HEADER_BYTES {
            return Err(ParseError::DataOffset);
        }
        let Some(option_bytes) = bytes.get(MIN_HEADER_BYTES..header_bytes) else {
            return Err(ParseError::Truncated);
        };
        let flags = Flags(u16::from(offset & 1) << 8 | u16::from(flags));
        Ok(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            destination_port: u16::from_be_bytes([d0, d1]),
            sequence: SequenceNumber::new(u32::from_be_bytes([q0, q1, q2, q3])),
            acknowledgment: SequenceNumber::new(u32::from_be_bytes([a0, a1, a2, a3])),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            urgent: u16::from_be_bytes([u0, u1]),
            options: Options::parse(option_bytes, flags.contains(Flags::SYN)),
            header_bytes,
        })
    }

    /// SEG.LEN: sequence numbers taken up by `payload_bytes` of data, a SYN and a FIN.
    #[must_use]
    pub const fn sequence_len(&self, payload_bytes: u32) -> u32 {
        payload_bytes + (self.flags.contains(Flags::SYN) as u32) + (self.flags.contains(Flags::FIN) as u32)
    }

    /// The SACK blocks as start and end, unchecked. `bytes` are those that this was parsed from.
    pub fn sack_blocks<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (SequenceNumber, SequenceNumber)> + use<'a> {
        self.options.sack_blocks(bytes.get(MIN_HEADER_BYTES..).unwrap_or_default())
    }

    /// The Fast Open cookie, or the request for one. `bytes` are those that this was parsed from.
    #[must_use]
    pub fn fast_open_cookie(&self, bytes: &[u8]) -> Option<FastOpenCookie> {
        self.options.fast_open_cookie(bytes.get(MIN_HEADER_BYTES..)?)
    }
}

/// A header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeaderFields<'a> {
    /// Our port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub sequence: SequenceNumber,
    /// SEG.ACK.
    pub acknowledgment: SequenceNumber,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND, already shifted.
    pub window: u16,
    /// The urgent pointer.
    pub urgent: u16,
    /// The options.
    pub options: OptionFields<'a>,
}

impl HeaderFields<'_> {
    /// Bytes the header takes, options included.
    #[inline]
    #[must_use]
    pub const fn header_bytes(&self) -> usize {
        MIN_HEADER_BYTES + self.options.len()
    }

    /// Writes the header to the front of `out`, which must have room for [`Self::header_bytes`]; else
    /// nothing is written. Returns how many bytes were. The checksum field is zero.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let header_bytes = self.header_bytes();
        let Some(out) = out.get_mut(..header_bytes) else {
            return 0;
        };
        let Some((fixed, option_bytes)) = out.split_first_chunk_mut::<MIN_HEADER_BYTES>() else {
            return 0;
        };
        let [s0, s1] = self.source_port.to_be_bytes();
        let [d0, d1] = self.destination_port.to_be_bytes();
        let [q0, q1, q2, q3] = self.sequence.raw().to_be_bytes();
        let [a0, a1, a2, a3] = self.acknowledgment.raw().to_be_bytes();
        let [w0, w1] = self.window.to_be_bytes();
        let [u0, u1] = self.urgent.to_be_bytes();
        let [accurate, flags] = self.flags.control_bits().to_be_bytes();
        let offset = (header_bytes as u8 / 4) << 4 | accurate;
        *fixed = [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, w0, w1, 0, 0, u0, u1];
        self.options.emit(option_bytes);
        header_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::Timestamp;
    use super::*;
    use proptest::prelude::*;

    /// A data segment of a connection with timestamps, written out by hand.
    const DATA: [u8; 34] = [
        0x30, 0x39, 0x00, 0x50, // ports 12345, 80
        0xff, 0xff, 0xff, 0xfe, // sequence
        0x00, 0x00, 0x10, 0x01, // acknowledgment
        0x80, 0x18, 0x01, 0xf6, // 8 words, PSH|ACK, window 502
        0xbe, 0xef, 0x00, 0x00, // checksum, urgent
        0x01, 0x01, 0x08, 0x0a, // NOP, NOP, timestamps
        0x00, 0x00, 0x00, 0x64, 0x00, 0x00, 0x00, 0xc8, // 100, 200
        b'h', b'i',
    ];

    fn with(index: usize, byte: u8) -> Vec<u8> {
        let mut bytes = DATA.to_vec();
        bytes[index] = byte;
        bytes
    }

    #[test]
    fn a_data_segment_is_read_field_by_field() {
        let segment = Segment::parse(&DATA).unwrap();
        let timestamp = Some(Timestamp { value: 100, echo: 200 });
        assert_eq!(
            segment,
            Segment {
                source_port: 12345,
                destination_port: 80,
                sequence: SequenceNumber::new(0xffff_fffe),
                acknowledgment: SequenceNumber::new(0x1001),
                flags: Flags::PSH | Flags::ACK,
                window: 502,
                urgent: 0,
                options: Options { timestamp, ..Options::default() },
                header_bytes: 32,
            }
        );
        assert_eq!(&DATA[segment.header_bytes..], b"hi");
    }

    #[test]
    fn an_impossible_header_is_refused() {
        let cases: [(&str, Vec<u8>, ParseError); 5] = [
            ("empty", vec![], ParseError::Truncated),
            ("19 bytes", DATA[..19].to_vec(), ParseError::Truncated),
            ("options cut", DATA[..31].to_vec(), ParseError::Truncated),
            ("offset 4", with(12, 0x40), ParseError::DataOffset),
            ("offset beyond the end", with(12, 0x90), ParseError::Truncated),
        ];
        for (name, bytes, error) in cases {
            assert_eq!(Segment::parse(&bytes), Err(error), "{name}");
        }
    }

    #[test]
    fn malformed_options_do_not_cost_the_segment() {
        let segment = Segment::parse(&with(23, 0)).unwrap();
        assert!(segment.options.malformed);
        assert_eq!((segment.header_bytes, segment.window), (32, 502));
    }

    #[test]
    fn syn_and_fin_take_a_sequence_number_each() {
        for (flags, payload_bytes, len) in [
            (Flags::ACK, 0, 0),
            (Flags::ACK, 7, 7),
            (Flags::SYN, 0, 1),
            (Flags::FIN | Flags::ACK, 7, 8),
            (Flags::SYN | Flags::FIN, 2, 4),
        ] {
            let segment = Segment { flags, ..Segment::parse(&DATA).unwrap() };
            assert_eq!(segment.sequence_len(payload_bytes), len, "{flags:?}");
        }
    }

    #[test]
    fn sack_blocks_are_found_behind_the_fixed_header() {
        let mut bytes = DATA[..20].to_vec();
        bytes[12] = 0x80;
        bytes.extend([1, 1, 5, 10, 0, 0, 0, 3, 0, 0, 0, 5]);
        let segment = Segment::parse(&bytes).unwrap();
        let blocks: Vec<_> =
            segment.sack_blocks(&bytes).map(|(start, end)| (start.raw(), end.raw())).collect();
        assert_eq!(blocks, [(3, 5)]);
    }

    #[test]
    fn a_header_is_written_as_it_is_read() {
        let fields = HeaderFields {
            source_port: 12345,
            destination_port: 80,
            sequence: SequenceNumber::new(0xffff_fffe),
            acknowledgment: SequenceNumber::new(0x1001),
            flags: Flags::PSH | Flags::ACK,
            window: 502,
            urgent: 0,
            options: OptionFields {
                timestamp: Some(Timestamp { value: 100, echo: 200 }),
                ..OptionFields::default()
            },
        };
        let mut out = [0xaa; 34];
        assert_eq!(fields.emit(&mut out), 32);
        let mut expected = DATA;
        (expected[16], expected[17], expected[32], expected[33]) = (0, 0, 0xaa, 0xaa);
        assert_eq!(out, expected);
        assert_eq!(fields.emit(&mut [0; 31]), 0);
    }

    #[test]
    fn flags_are_shown_by_name() {
        assert_eq!(format!("{:?} {:?}", Flags::SYN | Flags::ACK, Flags::NONE), "SYN|ACK -");
        assert!((Flags::SYN | Flags::ACK).intersects(Flags::ACK | Flags::RST));
        assert!(!(Flags::SYN | Flags::ACK).contains(Flags::ACK | Flags::RST));
        assert_eq!((Flags::SYN | Flags::ACK).without(Flags::SYN), Flags::ACK);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(segment) = Segment::parse(&bytes) {
                prop_assert!((MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&segment.header_bytes));
                prop_assert!(segment.header_bytes <= bytes.len());
                segment.sack_blocks(&bytes).for_each(drop);
            }
        }
    }
}
