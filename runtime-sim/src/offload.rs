//! What a network card does to a frame on its way out: it completes checksums and cuts segments.

use libos::runtime::{Medium, PartialChecksum, Segmentation, TxOffload};

use crate::path::ETHERNET_HEADER_BYTES;

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;

/// Does what `offload` asks for and hands each frame that goes onto the wire to `send`. Returns
/// `None` when the frame's bytes do not allow it.
pub(crate) fn apply(
    frame: &mut Vec<u8>,
    medium: Medium,
    offload: TxOffload,
    mut send: impl FnMut(&mut Vec<u8>),
) -> Option<()> {
    match (offload.segmentation(), offload.checksum()) {
        (Some(segmentation), checksum) => {
            return cut(frame, medium, segmentation, checksum.is_some(), send);
        }
        (None, Some(checksum)) => complete(frame, checksum)?,
        (None, None) => {}
    }
    send(frame);
    Some(())
}

/// Completes a checksum whose field holds the sum of the pseudo-header.
fn complete(frame: &mut [u8], checksum: PartialChecksum) -> Option<()> {
    let start = usize::from(checksum.start);
    let sum = !fold(sum(frame.get(start..)?));
    let field = frame.get_mut(start + usize::from(checksum.offset)..)?.first_chunk_mut()?;
    // Both values stand for zero; the other one would mean "no checksum" to UDP (RFC 768).
    *field = if sum == 0 { [0xff; 2] } else { sum.to_be_bytes() };
    Some(())
}

/// Cuts a TCP packet into segments, each with the headers adjusted and its own checksums.
fn cut(
    frame: &[u8],
    medium: Medium,
    segmentation: Segmentation,
    checksummed: bool,
    mut send: impl FnMut(&mut Vec<u8>),
) -> Option<()> {
    let (headers, payload) = frame.split_at_checked(usize::from(segmentation.header_bytes))?;
    let network = match medium {
        Medium::Ethernet => ETHERNET_HEADER_BYTES,
        Medium::Ip => 0,
    };
    let transport =
        network + if segmentation.ipv6 { 40 } else { usize::from(headers.get(network)? & 0xf) * 4 };
    if headers.len() < transport + 20 || headers.len() < network + 20 || segmentation.segment_bytes == 0 {
        return None;
    }
    let segment_bytes = usize::from(segmentation.segment_bytes);
    let last = payload.len().div_ceil(segment_bytes).checked_sub(1)?;
    for (index, piece) in payload.chunks(segment_bytes).enumerate() {
        let mut bytes = [headers, piece].concat();
        let packet_bytes = u16::try_from(bytes.len() - network).ok()?;
        if segmentation.ipv6 {
            put_u16(&mut bytes, network + 4, packet_bytes - 40);
        } else {
            put_u16(&mut bytes, network + 2, packet_bytes);
            let identification = u16::from_be_bytes([bytes[network + 4], bytes[network + 5]]);
            put_u16(&mut bytes, network + 4, identification.wrapping_add(index as u16));
            put_u16(&mut bytes, network + 10, 0);
            let header_sum = !fold(sum(&bytes[network..transport]));
            put_u16(&mut bytes, network + 10, header_sum);
        }
        let sequence_field = transport + 4..transport + 8;
        let sequence = u32::from_be_bytes(*bytes[sequence_field.clone()].first_chunk()?);
        let sequence = sequence.wrapping_add((index * segment_bytes) as u32);
        bytes[sequence_field].copy_from_slice(&sequence.to_be_bytes());
        // RFC 3168 6.1.2: CWR belongs to the first segment only. FIN and PSH speak of the last byte.
        let flags = &mut bytes[transport + 13];
        if index > 0 {
            *flags &= !TCP_CWR;
        }
        if index < last {
            *flags &= !(TCP_FIN | TCP_PSH);
        }
        if checksummed {
            put_u16(&mut bytes, transport + 16, 0);
            let addresses =
                if segmentation.ipv6 { network + 8..network + 40 } else { network + 12..network + 20 };
            let segment = &bytes[transport..];
            let total = sum(&bytes[addresses]) + 6 + segment.len() as u64 + sum(segment);
            put_u16(&mut bytes, transport + 16, !fold(total));
        }
        send(&mut bytes);
    }
    Some(())
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.map(u64::from).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP packet over IPv4 or IPv6 with `payload` bytes, CWR, PSH and FIN set, sequence 1000.
    fn packet(ipv6: bool, payload: usize) -> (Vec<u8>, Segmentation) {
        let mut bytes = vec![0; 14];
        if ipv6 {
            bytes.extend([0x60, 0, 0, 0, 0, 0, 6, 64]);
            bytes.extend([7; 32]);
        } else {
            bytes.extend([0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let transport = bytes.len();
        bytes.extend([0, 1, 0, 2, 0, 0, 3, 232, 0, 0, 0, 9, 0x50, 0x99, 1, 0, 0, 0, 0, 0]);
        let segmentation = Segmentation { segment_bytes: 100, header_bytes: bytes.len() as u16, ipv6 };
        bytes.extend((0..payload).map(|index| index as u8));
        assert_eq!(transport, if ipv6 { 54 } else { 34 });
        (bytes, segmentation)
    }

    #[test]
    fn a_large_packet_is_cut_into_segments_that_stand_on_their_own() {
        for ipv6 in [false, true] {
            let (mut bytes, segmentation) = packet(ipv6, 250);
            let transport = if ipv6 { 54 } else { 34 };
            let checksum = PartialChecksum { start: transport as u16, offset: 16 };
            let offload = TxOffload::new(Some(checksum), Some(segmentation));
            let mut frames = Vec::new();
            apply(&mut bytes, Medium::Ethernet, offload, |frame| frames.push(frame.clone())).unwrap();
            assert_eq!(frames.len(), 3);
            let mut payload = Vec::new();
            for (index, frame) in frames.iter().enumerate() {
                let tcp = &frame[transport..];
                let sequence = u32::from_be_bytes(*tcp[4..].first_chunk().unwrap());
                assert_eq!(sequence, 1000 + 100 * index as u32);
                assert_eq!(tcp[13], [0x90, 0x10, 0x19][index]);
                let addresses = if ipv6 { &frame[22..54] } else { &frame[26..34] };
                assert_eq!(fold(sum(addresses) + 6 + tcp.len() as u64 + sum(tcp)), 0xffff);
                if ipv6 {
                    assert_eq!(u16::from_be_bytes([frame[18], frame[19]]) as usize, frame.len() - 54);
                } else {
                    assert_eq!(fold(sum(&frame[14..34])), 0xffff);
                    assert_eq!(u16::from_be_bytes([frame[16], frame[17]]) as usize, frame.len() - 14);
                    assert_eq!(
                        u16::from_be_bytes([frame[18], frame[19]]),
                        0xffff_u16.wrapping_add(index as u16)
                    );
                }
                payload.extend_from_slice(&tcp[20..]);
            }
            assert_eq!(payload, (0..250).map(|index| index as u8).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_partial_checksum_is_completed_over_the_pseudo_headers_sum() {
        let mut datagram = vec![0xaa; 4];
        datagram.extend([0x12, 0x34, 0x00, 0x35, 0x00, 0x0b, 0x00, 0x40, b'a', b'b', b'c']);
        let checksum = PartialChecksum { start: 4, offset: 6 };
        apply(&mut datagram, Medium::Ip, TxOffload::new(Some(checksum), None), |_| ()).unwrap();
        // 0x40 stood for the pseudo-header; all words and the checksum sum up to ones.
        assert_eq!(fold(sum(&datagram[4..]) + 0x40), 0xffff);
    }

    #[test]
    fn an_offload_that_does_not_fit_the_frame_is_refused() {
        let (bytes, segmentation) = packet(false, 50);
        let refused = [
            TxOffload::new(Some(PartialChecksum { start: 1000, offset: 16 }), None),
            TxOffload::new(Some(PartialChecksum { start: 100, offset: 16 }), None),
            TxOffload::new(None, Some(Segmentation { segment_bytes: 0, ..segmentation })),
            TxOffload::new(None, Some(Segmentation { header_bytes: 40, ..segmentation })),
            TxOffload::new(None, Some(Segmentation { header_bytes: 104, ..segmentation })),
            TxOffload::new(None, Some(Segmentation { header_bytes: 999, ..segmentation })),
        ];
        for offload in refused {
            assert_eq!(apply(&mut bytes.clone(), Medium::Ethernet, offload, |_| ()), None, "{offload:?}");
        }
    }
}
