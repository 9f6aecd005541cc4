//! The header that the kernel puts in front of each frame on a TAP device with `IFF_VNET_HDR`, and with
//! two bytes less on a packet socket with `PACKET_VNET_HDR`: `struct virtio_net_hdr_v1` (virtio 1.1,
//! 5.1.6), in the machine's byte order as long as `TUNSETVNETLE` was not asked for.

use libos::runtime::{RxChecksum, Segmentation, TxOffload};

/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 12;

const FLAG_NEEDS_CHECKSUM: u8 = 1;
const FLAG_DATA_VALID: u8 = 2;

const SEGMENTATION_NONE: u8 = 0;
const SEGMENTATION_TCP_V4: u8 = 1;
const SEGMENTATION_UDP: u8 = 3;
const SEGMENTATION_TCP_V6: u8 = 4;
const SEGMENTATION_UDP_L4: u8 = 5;
/// A bit beside the kind: the segments carry ECN's CWR.
const SEGMENTATION_ECN: u8 = 0x80;

/// What the kernel joined into one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    Nothing,
    /// TCP segments.
    Segments,
    /// Datagrams of one UDP flow.
    Datagrams,
}

/// What the kernel says about a frame it hands to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    pub checksum: RxChecksum,
    pub joined: Joined,
    /// Payload bytes of each part when several were joined, else 0.
    pub segment_bytes: u16,
}

/// Writes what the kernel has to do to a frame that we send.
#[inline]
pub(crate) fn encode(offload: &TxOffload) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    if let Some(checksum) = offload.checksum() {
        header[0] = FLAG_NEEDS_CHECKSUM;
        header[6..8].copy_from_slice(&checksum.start.to_ne_bytes());
        header[8..10].copy_from_slice(&u16::from(checksum.offset).to_ne_bytes());
    }
    if let Some(Segmentation { segment_bytes, header_bytes, ipv6 }) = offload.segmentation() {
        header[1] = if ipv6 { SEGMENTATION_TCP_V6 } else { SEGMENTATION_TCP_V4 };
        header[2..4].copy_from_slice(&header_bytes.to_ne_bytes());
        header[4..6].copy_from_slice(&segment_bytes.to_ne_bytes());
    }
    header
}

/// Reads what the kernel says about a frame that we received.
#[inline]
pub(crate) fn decode(header: &[u8; HEADER_BYTES]) -> Received {
    let [flags, segmentation, _, _, size_0, size_1, ..] = *header;
    // A checksum still to be completed comes from a sender on this machine: the bytes never were on
    // a wire, and there is nothing to verify.
    let verified = flags & (FLAG_NEEDS_CHECKSUM | FLAG_DATA_VALID) != 0;
    let joined = match segmentation & !SEGMENTATION_ECN {
        SEGMENTATION_NONE => Joined::Nothing,
        SEGMENTATION_UDP | SEGMENTATION_UDP_L4 => Joined::Datagrams,
        _ => Joined::Segments,
    };
    Received {
        checksum: if verified { RxChecksum::Verified } else { RxChecksum::Unknown },
        joined,
        segment_bytes: if joined == Joined::Nothing { 0 } else { u16::from_ne_bytes([size_0, size_1]) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::runtime::PartialChecksum;

    #[test]
    fn a_plain_frame_has_a_header_of_zeros() {
        assert_eq!(encode(&TxOffload::default()), [0; HEADER_BYTES]);
    }

    #[test]
    fn what_is_asked_of_the_kernel_is_where_virtio_puts_it() {
        let checksum = Some(PartialChecksum { start: 34, offset: 16 });
        for (ipv6, kind) in [(false, 1), (true, 4)] {
            let segmentation = Some(Segmentation { segment_bytes: 1448, header_bytes: 66, ipv6 });
            let header = encode(&TxOffload::new(checksum, segmentation));
            let field = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
            assert_eq!(header[..2], [1, kind]);
            assert_eq!([field(2), field(4), field(6), field(8), field(10)], [66, 1448, 34, 16, 0]);
        }
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        let [low, high] = 1448_u16.to_ne_bytes();
        let verified = RxChecksum::Verified;
        let unknown = RxChecksum::Unknown;
        for (flags, kind, checksum, joined, segment_bytes) in [
            (0, 0, unknown, Joined::Nothing, 0),
            (1, 0, verified, Joined::Nothing, 0),
            (2, 0, verified, Joined::Nothing, 0),
            (1, 1, verified, Joined::Segments, 1448),
            (1, 4 | 0x80, verified, Joined::Segments, 1448),
            (1, 0x80, verified, Joined::Nothing, 0),
            (1, 3, verified, Joined::Datagrams, 1448),
            (1, 5, verified, Joined::Datagrams, 1448),
        ] {
            let header = [flags, kind, 0, 0, low, high, 0, 0, 0, 0, 0, 0];
            let expected = Received { checksum, joined, segment_bytes };
            assert_eq!(decode(&header), expected, "flags {flags}, kind {kind}");
        }
    }
}
