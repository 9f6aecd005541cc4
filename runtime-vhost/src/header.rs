//! The header in front of each frame: `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6), little-endian.

use libos::runtime::{RxChecksum, Segmentation, TxOffload};

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 12;

const FLAG_NEEDS_CHECKSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;

const SEGMENTATION_NONE: u8 = 0;
const SEGMENTATION_TCP_V4: u8 = 1;
const SEGMENTATION_TCP_V6: u8 = 4;
/// A bit beside the kind: the segments carry ECN's CWR.
const SEGMENTATION_ECN: u8 = 0x80;

/// What the peer says about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub checksum: RxChecksum,
    /// Payload bytes of each segment when several are joined, else 0.
    pub segment_bytes: u16,
    /// Buffers that the frame is spread over: of meaning to a driver that takes frames in several.
    pub buffers: u16,
}

/// Writes what the peer has to know of a frame that is spread over `buffers` buffers.
#[inline]
pub(crate) fn encode(offload: &TxOffload, buffers: u16) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    if let Some(checksum) = offload.checksum() {
        header[0] = FLAG_NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&checksum.start.to_le_bytes());
        header[8..10].copy_from_slice(&u16::from(checksum.offset).to_le_bytes());
    }
    if let Some(Segmentation { segment_bytes, header_bytes, ipv6 }) = offload.segmentation() {
        header[1] = if ipv6 { SEGMENTATION_TCP_V6 } else { SEGMENTATION_TCP_V4 };
        header[2..4].copy_from_slice(&header_bytes.to_le_bytes());
        header[4..6].copy_from_slice(&segment_bytes.to_le_bytes());
    }
    header[10..].copy_from_slice(&buffers.to_le_bytes());
    header
}

/// Reads what the peer says about a frame; None for what was never negotiated, such as joined UDP datagrams.
#[inline]
pub(crate) fn decode(header: &[u8; HEADER_BYTES]) -> Option<Received> {
    let [flags, segmentation, _, _, size_0, size_1, _, _, _, _, buffers_0, buffers_1] = *header;
    // A checksum still to be completed comes from a sender on this machine: the bytes never were on
    // a wire, and there is nothing to verify.
    let verified = flags & (FLAG_NEEDS_CHECKSUM | FLAG_DATA_VALID) != 0;
    let segment_bytes = match segmentation & !SEGMENTATION_ECN {
        SEGMENTATION_NONE => 0,
        SEGMENTATION_TCP_V4 | SEGMENTATION_TCP_V6 => u16::from_le_bytes([size_0, size_1]),
        _ => return None,
    };
    Some(Received {
        checksum: if verified { RxChecksum::Verified } else { RxChecksum::Unknown },
        segment_bytes,
        buffers: u16::from_le_bytes([buffers_0, buffers_1]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::runtime::PartialChecksum;

    #[test]
    fn a_plain_frame_says_how_many_buffers_it_takes_and_nothing_else() {
        assert_eq!(encode(&TxOffload::default(), 0x0201), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    }

    #[test]
    fn what_is_asked_of_the_peer_is_where_virtio_puts_it_and_is_understood() {
        let checksum = Some(PartialChecksum { start: 34, offset: 16 });
        for (ipv6, kind) in [(false, 1), (true, 4)] {
            let segmentation = Some(Segmentation { segment_bytes: 1448, header_bytes: 66, ipv6 });
            let header = encode(&TxOffload::new(checksum, segmentation), 3);
            let field = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
            assert_eq!(header[..2], [1, kind]);
            assert_eq!([field(2), field(4), field(6), field(8), field(10)], [66, 1448, 34, 16, 3]);
            let received = Received { checksum: RxChecksum::Verified, segment_bytes: 1448, buffers: 3 };
            assert_eq!(decode(&header), Some(received));
        }
    }

    #[test]
    fn what_the_peer_says_is_understood_or_refused() {
        let [low, high] = 1448_u16.to_le_bytes();
        let received = |checksum, segment_bytes| Some(Received { checksum, segment_bytes, buffers: 1 });
        for (flags, kind, expected) in [
            (0, 0, received(RxChecksum::Unknown, 0)),
            (1, 0, received(RxChecksum::Verified, 0)),
            (2, 0, received(RxChecksum::Verified, 0)),
            (1, 4 | 0x80, received(RxChecksum::Verified, 1448)),
            (1, 0x80, received(RxChecksum::Verified, 0)),
            (1, 3, None),
            (1, 5, None),
            (0, 0x7f, None),
        ] {
            let header = [flags, kind, 0, 0, low, high, 0, 0, 0, 0, 1, 0];
            assert_eq!(decode(&header), expected, "flags {flags}, kind {kind}");
        }
    }
}
