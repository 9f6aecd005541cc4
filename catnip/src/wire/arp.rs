//! ARP packets for IPv4 on Ethernet (RFC 826).

use std::net::Ipv4Addr;

use super::ethernet::{self, Address};

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 28;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const PREAMBLE: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Asks who has the target's protocol address.
    Request,
    /// Says that the sender has its protocol address.
    Reply,
}

/// A packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpPacket {
    /// What it is for.
    pub operation: Operation,
    /// Who sent it.
    pub sender_hardware: Address,
    /// The sender's protocol address; unspecified in a probe (RFC 5227).
    pub sender_protocol: Ipv4Addr,
    /// Whom it is for; of no meaning in a request.
    pub target_hardware: Address,
    /// Whose hardware address is asked for.
    pub target_protocol: Ipv4Addr,
}

impl ArpPacket {
    /// The packet at the start of `bytes`, which may be padded. `None` when it is too short, is not
    /// about IPv4 on Ethernet, or is neither request nor reply.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (preamble, rest) = bytes.split_first_chunk::<6>()?;
        let (operation, rest) = rest.split_first_chunk::<2>()?;
        let (sender_hardware, rest) = rest.split_first_chunk::<6>()?;
        let (sender_protocol, rest) = rest.split_first_chunk::<4>()?;
        let (target_hardware, rest) = rest.split_first_chunk::<6>()?;
        let target_protocol = rest.first_chunk::<4>()?;
        if *preamble != PREAMBLE {
            return None;
        }
        let operation = match u16::from_be_bytes(*operation) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return None,
        };
        Some(Self {
            operation,
            sender_hardware: *sender_hardware,
            sender_protocol: Ipv4Addr::from_octets(*sender_protocol),
            target_hardware: *target_hardware,
            target_protocol: Ipv4Addr::from_octets(*target_protocol),
        })
    }

    /// Composes the packet.
    #[must_use]
    pub fn compose(&self) -> [u8; PACKET_BYTES] {
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        let mut packet = [0; PACKET_BYTES];
        packet[..6].copy_from_slice(&PREAMBLE);
        packet[6..8].copy_from_slice(&operation.to_be_bytes());
        packet[8..14].copy_from_slice(&self.sender_hardware);
        packet[14..18].copy_from_slice(&self.sender_protocol.octets());
        packet[18..24].copy_from_slice(&self.target_hardware);
        packet[24..].copy_from_slice(&self.target_protocol.octets());
        packet
    }

    /// The packet in an Ethernet frame.
    #[must_use]
    pub fn compose_frame(&self, destination: Address) -> [u8; ethernet::HEADER_BYTES + PACKET_BYTES] {
        let mut frame = [0; ethernet::HEADER_BYTES + PACKET_BYTES];
        let header = ethernet::compose(destination, self.sender_hardware, ethernet::TYPE_ARP);
        frame[..ethernet::HEADER_BYTES].copy_from_slice(&header);
        frame[ethernet::HEADER_BYTES..].copy_from_slice(&self.compose());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: ArpPacket = ArpPacket {
        operation: Operation::Request,
        sender_hardware: [2, 0, 0, 0, 0, 1],
        sender_protocol: Ipv4Addr::new(192, 0, 2, 1),
        target_hardware: [0; 6],
        target_protocol: Ipv4Addr::new(192, 0, 2, 2),
    };

    #[test]
    fn what_is_composed_is_read_back() {
        for operation in [Operation::Request, Operation::Reply] {
            let packet = ArpPacket { operation, ..PACKET };
            assert_eq!(ArpPacket::parse(&packet.compose()), Some(packet));
        }
    }

    #[test]
    fn malformed_packets_are_refused() {
        let good = PACKET.compose();
        for (name, offset, value) in [
            ("hardware type", 1, 2),
            ("protocol type", 2, 9),
            ("hardware address length", 4, 8),
            ("protocol address length", 5, 16),
            ("operation 0", 7, 0),
            ("operation 3", 7, 3),
        ] {
            let mut packet = good;
            packet[offset] = value;
            assert_eq!(ArpPacket::parse(&packet), None, "{name}");
        }
        for len in 0..PACKET_BYTES {
            assert_eq!(ArpPacket::parse(&good[..len]), None, "{len} bytes");
        }
    }
}
