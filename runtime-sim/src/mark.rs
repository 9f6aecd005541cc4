//! What a router with active queue management does to a packet: it marks instead of dropping (RFC 3168 §5).

use libos::runtime::Medium;

use crate::path::{ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// Congestion experienced.
const CE: u8 = 0b11;

/// Marks the packet of a frame if it asks for marks; true when it is marked then.
pub(crate) fn mark(medium: Medium, frame: &mut [u8]) -> bool {
    let packet = match medium {
        Medium::Ip => frame,
        Medium::Ethernet => {
            let Some((header, packet)) = frame.split_at_mut_checked(ETHERNET_HEADER_BYTES) else {
                return false;
            };
            if !header.ends_with(&ETHERTYPE_IPV4) && !header.ends_with(&ETHERTYPE_IPV6) {
                return false;
            }
            packet
        }
    };
    let Some([first, second, ..]) = packet.first_chunk_mut::<20>() else { return false };
    match *first >> 4 {
        4 => {
            if *second & CE == 0 {
                return false;
            }
            let added = CE - (*second & CE);
            *second |= CE;
            lower_checksum(packet, added);
            true
        }
        // The traffic class stands across the first two bytes.
        6 => {
            if *second >> 4 & CE == 0 {
                return false;
            }
            *second |= CE << 4;
            true
        }
        _ => false,
    }
}

/// Mends an IPv4 header's checksum after `added` was added to its first word (RFC 1624, equation 3).
fn lower_checksum(packet: &mut [u8], added: u8) {
    if let Some(field) = packet.get_mut(10..12).and_then(|field| field.first_chunk_mut::<2>()) {
        let sum = u32::from(!u16::from_be_bytes(*field)) + u32::from(added);
        // One carry at most.
        #[allow(clippy::cast_possible_truncation)]
        let folded = (sum & 0xffff) as u16 + (sum >> 16) as u16;
        *field = (!folded).to_be_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of RFC 1071's kind: all words and the checksum add up to ones.
    fn adds_up(header: &[u8]) -> bool {
        let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        (sum & 0xffff) + (sum >> 16) == 0xffff
    }

    fn ipv4(traffic_class: u8) -> Vec<u8> {
        let mut header =
            vec![0x45, traffic_class, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let sum: u32 = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn what_asks_for_marks_is_marked_and_its_checksum_stays_right() {
        for (class, marked) in
            [(0b00, None), (0b01, Some(0b11)), (0b10, Some(0b11)), (0xb9, Some(0xbb)), (3, Some(3))]
        {
            let mut packet = ipv4(class);
            assert_eq!(mark(Medium::Ip, &mut packet), marked.is_some(), "{class}");
            assert_eq!(packet[1], marked.unwrap_or(class));
            assert!(adds_up(&packet), "{class}: {packet:x?}");
        }
    }

    #[test]
    fn an_ipv6_packet_is_marked_in_its_traffic_class() {
        let mut packet = [0x60, 0x20, 0, 0].repeat(10);
        assert!(mark(Medium::Ip, &mut packet));
        assert_eq!(packet[..2], [0x60, 0x30]);
        packet[..2].copy_from_slice(&[0x60, 0x00]);
        assert!(!mark(Medium::Ip, &mut packet));
    }

    #[test]
    fn what_is_no_ip_is_left_alone() {
        let mut frame = [&[0_u8; 12][..], &[0x08, 0x06], &ipv4(2)].concat();
        let before = frame.clone();
        assert!(!mark(Medium::Ethernet, &mut frame) && frame == before);
        frame[12..14].copy_from_slice(&ETHERTYPE_IPV4);
        assert!(mark(Medium::Ethernet, &mut frame) && frame[15] == 3);
        assert!(!mark(Medium::Ethernet, &mut [0; 5]));
    }
}
