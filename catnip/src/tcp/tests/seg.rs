//! Segments written down by hand: what the peer sends, and what it expects.
//!
//! Sequence numbers count from the initial one of whoever sends them, as in packetdrill: a SYN is at 0, the
//! first byte of data at 1.

use crate::tcp::segment::Flags;

/// The stack's port in all scripts.
pub(super) const LOCAL_PORT: u16 = 80;
/// The peer's port, unless a script says otherwise.
pub(super) const PEER_PORT: u16 = 40_000;

/// A sequence or acknowledgment number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// Counted from the initial sequence number of its direction.
    Relative(u32),
    /// As it stands in the header.
    Raw(u32),
}

/// What follows the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// So many bytes of the pattern that all scripts send, see [`pattern`].
    Pattern(usize),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// A segment to be sent, or one expected: then what is `None` is not looked at.
#[derive(Debug, Clone)]
pub(super) struct Seg {
    pub flags: Flags,
    pub seq: Option<Number>,
    pub ack: Option<Number>,
    pub window: Option<u16>,
    pub urgent: u16,
    pub mss: Option<u16>,
    pub wscale: Option<u8>,
    pub timestamp: Option<(u32, u32)>,
    /// SACK blocks as start and end, counted as acknowledgments are.
    pub sack: Option<Vec<(u32, u32)>>,
    /// Option bytes behind those above.
    pub options: Vec<u8>,
    /// The ECN field of the IP header.
    pub ecn: Option<u8>,
    pub text: Text,
    pub local_port: u16,
    pub peer_port: u16,
}

/// An empty segment without flags.
pub(super) fn seg() -> Seg {
    Seg {
        flags: Flags::NONE,
        seq: None,
        ack: None,
        window: None,
        urgent: 0,
        mss: None,
        wscale: None,
        timestamp: None,
        sack: None,
        options: Vec::new(),
        ecn: None,
        text: Text::Pattern(0),
        local_port: LOCAL_PORT,
        peer_port: PEER_PORT,
    }
}

/// The byte at an offset of every script's streams.
pub(super) fn pattern(offset: u32) -> u8 {
    (offset % 251) as u8
}

impl Seg {
    pub(super) fn flag(mut self, flag: Flags) -> Self {
        self.flags |= flag;
        self
    }

    pub(super) fn syn(self) -> Self {
        self.flag(Flags::SYN)
    }

    pub(super) fn fin(self) -> Self {
        self.flag(Flags::FIN)
    }

    pub(super) fn rst(self) -> Self {
        self.flag(Flags::RST)
    }

    pub(super) fn psh(self) -> Self {
        self.flag(Flags::PSH)
    }

    pub(super) fn ece(self) -> Self {
        self.flag(Flags::ECE)
    }

    pub(super) fn cwr(self) -> Self {
        self.flag(Flags::CWR)
    }

    /// In a packet that asks for no congestion marks.
    pub(super) fn not_ect(mut self) -> Self {
        self.ecn = Some(0b00);
        self
    }

    /// In a packet that may be marked: ECT(0).
    pub(super) fn ect(mut self) -> Self {
        self.ecn = Some(0b10);
        self
    }

    /// In a packet that was marked.
    pub(super) fn ce(mut self) -> Self {
        self.ecn = Some(0b11);
        self
    }

    /// Urgent data up to `offset` bytes behind the sequence number.
    pub(super) fn urg(mut self, offset: u16) -> Self {
        self.urgent = offset;
        self.flag(Flags::URG)
    }

    pub(super) fn seq(mut self, seq: u32) -> Self {
        self.seq = Some(Number::Relative(seq));
        self
    }

    pub(super) fn raw_seq(mut self, seq: u32) -> Self {
        self.seq = Some(Number::Raw(seq));
        self
    }

    /// Acknowledges, and sets ACK.
    pub(super) fn ack(mut self, ack: u32) -> Self {
        self.ack = Some(Number::Relative(ack));
        self.flag(Flags::ACK)
    }

    pub(super) fn raw_ack(mut self, ack: u32) -> Self {
        self.ack = Some(Number::Raw(ack));
        self.flag(Flags::ACK)
    }

    /// The window field, unscaled.
    pub(super) fn win(mut self, window: u16) -> Self {
        self.window = Some(window);
        self
    }

    pub(super) fn mss(mut self, mss: u16) -> Self {
        self.mss = Some(mss);
        self
    }

    pub(super) fn wscale(mut self, shift: u8) -> Self {
        self.wscale = Some(shift);
        self
    }

    /// The timestamps option: value and echo.
    pub(super) fn ts(mut self, value: u32, echo: u32) -> Self {
        self.timestamp = Some((value, echo));
        self
    }

    /// Takes selective acknowledgments. For a SYN.
    pub(super) fn sack_permitted(self) -> Self {
        self.options(&[4, 2])
    }

    /// Has come beyond a gap, or again: start and end, as an acknowledgment counts. Expected without blocks,
    /// there must be none.
    pub(super) fn sack(mut self, blocks: &[(u32, u32)]) -> Self {
        self.sack = Some(blocks.to_vec());
        self
    }

    /// Raw option bytes, padded with zeros to a multiple of four when sent.
    pub(super) fn options(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }

    /// `len` bytes of the pattern, as they belong at the sequence number.
    pub(super) fn data(mut self, len: usize) -> Self {
        self.text = Text::Pattern(len);
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.text = Text::Bytes(bytes.to_vec());
        self
    }

    pub(super) fn with_peer_port(mut self, port: u16) -> Self {
        self.peer_port = port;
        self
    }

    /// The payload, which begins at the relative sequence number `seq`.
    pub(super) fn payload(&self, seq: u32) -> Vec<u8> {
        match &self.text {
            Text::Pattern(len) => {
                (0..*len as u32).map(|at| pattern(seq.wrapping_sub(1).wrapping_add(at))).collect()
            }
            Text::Bytes(bytes) => bytes.clone(),
        }
    }

    /// The header's option bytes.
    pub(super) fn option_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(mss) = self.mss {
            bytes.extend([2, 4]);
            bytes.extend(mss.to_be_bytes());
        }
        if let Some(shift) = self.wscale {
            bytes.extend([1, 3, 3, shift]);
        }
        if let Some((value, echo)) = self.timestamp {
            bytes.extend([1, 1, 8, 10]);
            bytes.extend(value.to_be_bytes());
            bytes.extend(echo.to_be_bytes());
        }
        bytes.extend(&self.options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}
