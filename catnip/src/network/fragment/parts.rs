//! The parts of one packet, as far as they have come.

use libos::{Buffer, BufferMut, Instant};

use crate::network::DestinationKind;

/// Most parts of one packet: so many that the largest one fits on links of 576 bytes. A packet in more is
/// given up.
pub(super) const MAX_PARTS: usize = 128;

/// Explicit congestion notification within a traffic class (RFC 3168 section 5).
const ECN_MASK: u8 = 0b11;
const ECN_CONGESTED: u8 = 0b11;
const ECN_NOT_CAPABLE: u8 = 0b00;

/// A part that just arrived.
#[derive(Debug)]
pub(super) struct Part {
    /// Bytes of the packet's payload in front of it.
    pub(super) start: usize,
    pub(super) data: Buffer,
    /// It is not the last one.
    pub(super) more: bool,
    pub(super) traffic_class: u8,
    /// Of the first part: all of it, from its IP header on.
    pub(super) first: Option<First>,
}

/// What is kept of the first part besides its data: the headers of the packet to be, and what an error quotes.
#[derive(Debug, Clone)]
pub(super) struct First {
    pub(super) packet: Buffer,
    /// Bytes of headers that the whole packet has too.
    pub(super) header_len: usize,
    pub(super) kind: DestinationKind,
    /// IPv6: the field that names what follows those headers, and what it is to say.
    pub(super) next_header: Option<(usize, u8)>,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is kept.
    Kept,
    /// It had come before.
    Duplicate,
    /// It contradicts what came before, or there are too many: the packet is spoiled.
    Conflict,
}

#[derive(Debug)]
struct Piece {
    start: usize,
    data: Buffer,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.data.len()
    }
}

/// A packet that waits for parts.
#[derive(Debug)]
pub(super) struct Partial {
    /// In order, without overlaps.
    pieces: Vec<Piece>,
    /// Bytes of all pieces.
    received: usize,
    /// Bytes of the payload, once the last part has come.
    end: Option<usize>,
    first: Option<First>,
    /// A bit for each of the four values of ECN that came.
    ecn_seen: u8,
    /// Some of it was contradictory: whatever else comes is dropped (RFC 5722 section 4).
    spoiled: bool,
    pub(super) held_bytes: usize,
    pub(super) expires: Instant,
    pub(super) serial: u64,
}

impl Partial {
    pub(super) fn new(expires: Instant, serial: u64) -> Self {
        Self {
            pieces: Vec::new(),
            received: 0,
            end: None,
            first: None,
            ecn_seen: 0,
            spoiled: false,
            held_bytes: 0,
            expires,
            serial,
        }
    }

    /// Takes a part. Those that overlap are never put together, whichever version the packet is of: what
    /// they say twice in unlike ways is what attacks are made of (RFC 5722, RFC 1858).
    pub(super) fn add(&mut self, part: Part) -> Added {
        let Part { start, data, more, traffic_class, first } = part;
        if self.spoiled {
            return Added::Conflict;
        }
        let end = start + data.len();
        let index = self.pieces.partition_point(|piece| piece.start < start);
        let before = index.checked_sub(1).and_then(|index| self.pieces.get(index));
        let behind = self.pieces.get(index);
        if before.is_some_and(|before| before.end() > start) || behind.is_some_and(|next| next.start < end) {
            // RFC 8200 section 4.5: the network may duplicate.
            let duplicate = behind.is_some_and(|same| same.start == start && *same.data == *data)
                && self.end.is_none_or(|known| more || known == end);
            return if duplicate { Added::Duplicate } else { self.spoil() };
        }
        let reaches = self.pieces.last().map_or(0, Piece::end);
        let fits = match (self.end, more) {
            (Some(known), true) => end <= known,
            (Some(known), false) => end == known,
            (None, true) => true,
            (None, false) => reaches <= end,
        };
        if !fits || self.pieces.len() >= MAX_PARTS {
            return self.spoil();
        }
        if !more {
            self.end = Some(end);
        }
        self.first = self.first.take().or(first);
        self.ecn_seen |= 1 << (traffic_class & ECN_MASK);
        self.received += data.len();
        self.held_bytes += data.held_bytes();
        self.pieces.insert(index, Piece { start, data });
        Added::Kept
    }

    /// Lets go of everything but the knowledge that nothing comes of this packet.
    fn spoil(&mut self) -> Added {
        (self.pieces, self.first) = (Vec::new(), None);
        (self.held_bytes, self.spoiled) = (0, true);
        Added::Conflict
    }

    /// True when nothing is missing.
    pub(super) fn is_complete(&self) -> bool {
        self.end == Some(self.received) && self.first.is_some()
    }

    /// The first part, if it came and nothing was wrong.
    pub(super) fn first(&self) -> Option<&First> {
        self.first.as_ref()
    }

    /// Bytes of the whole packet.
    pub(super) fn len(&self) -> usize {
        self.received + self.first.as_ref().map_or(0, |first| first.header_len)
    }

    /// Writes the first part's headers, as they are, and all data.
    pub(super) fn write(&self, packet: &mut BufferMut) {
        let header = self.first.as_ref().and_then(|first| first.packet.get(..first.header_len));
        packet.extend_from_slice(header.unwrap_or_default());
        self.pieces.iter().for_each(|piece| {
            packet.extend_from_slice(&piece.data);
        });
    }

    /// The whole packet's traffic class, where the first part has `traffic_class`. `None` when the packet is
    /// to be dropped: a part was congested, and the sender would never hear of it (RFC 3168 section 5.3).
    pub(super) fn merged_traffic_class(&self, traffic_class: u8) -> Option<u8> {
        let seen = |ecn: u8| self.ecn_seen & 1 << ecn != 0;
        match (seen(ECN_CONGESTED), seen(ECN_NOT_CAPABLE)) {
            (false, _) => Some(traffic_class),
            (true, false) => Some(traffic_class | ECN_CONGESTED),
            (true, true) => None,
        }
    }
}
