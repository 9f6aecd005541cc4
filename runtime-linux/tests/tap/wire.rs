//! Frames written and read by hand, so that these tests depend on no protocol stack but the kernel's.

use std::net::Ipv4Addr;

use libos::runtime::{PartialChecksum, Segmentation, TxOffload};

/// The Ethernet address that these tests give to our end.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x42];
/// Our IPv4 address.
pub const OUR_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// The kernel's IPv4 address.
pub const KERNEL_IP: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const PROTOCOL_TCP: u8 = 6;
pub const PROTOCOL_UDP: u8 = 17;

pub const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
pub const TCP_AT: usize = ETHERNET_BYTES + IPV4_BYTES;

pub const SYN: u8 = 0x02;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The internet checksum's sum (RFC 1071), not yet inverted.
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum over TCP's or UDP's pseudo-header: what a frame with a partial checksum carries.
pub fn pseudo_header_sum(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, bytes: usize) -> u16 {
    fold(sum(&from.octets()) + sum(&to.octets()) + u32::from(protocol) + bytes as u32)
}

fn ethernet(to: [u8; 6], ethertype: u16) -> Vec<u8> {
    [&to[..], &OUR_MAC, &ethertype.to_be_bytes()].concat()
}

/// "Who has the kernel's address? Tell us" (RFC 826).
pub fn arp_request() -> Vec<u8> {
    let mut frame = ethernet([0xff; 6], ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend_from_slice(&OUR_MAC);
    frame.extend_from_slice(&OUR_IP.octets());
    frame.extend_from_slice(&[0; 6]);
    frame.extend_from_slice(&KERNEL_IP.octets());
    frame
}

fn ipv4(to: [u8; 6], protocol: u8, payload_bytes: usize) -> Vec<u8> {
    let mut frame = ethernet(to, ETHERTYPE_IPV4);
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&((IPV4_BYTES + payload_bytes) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol, 0, 0]);
    frame.extend_from_slice(&OUR_IP.octets());
    frame.extend_from_slice(&KERNEL_IP.octets());
    let checksum = !fold(sum(&frame[ETHERNET_BYTES..]));
    frame[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The headers of a UDP datagram to the kernel, with no checksum (RFC 768 allows that on IPv4).
pub fn udp_headers(to: [u8; 6], ports: (u16, u16), payload_bytes: usize) -> Vec<u8> {
    let mut frame = ipv4(to, PROTOCOL_UDP, 8 + payload_bytes);
    for field in [ports.0, ports.1, (8 + payload_bytes) as u16, 0] {
        frame.extend_from_slice(&field.to_be_bytes());
    }
    frame
}

/// The header fields of a TCP segment that these tests look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    pub from_port: u16,
    pub to_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    /// Bytes of the header with its options.
    pub header_bytes: usize,
}

impl Tcp {
    /// Reads the TCP header of an IPv4 frame.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        if u16_at(frame, 12) != ETHERTYPE_IPV4 || frame[ETHERNET_BYTES + 9] != PROTOCOL_TCP {
            return None;
        }
        let segment = &frame[TCP_AT..];
        Some(Self {
            from_port: u16_at(segment, 0),
            to_port: u16_at(segment, 2),
            sequence: u32_at(segment, 4),
            acknowledgement: u32_at(segment, 8),
            flags: segment[13],
            header_bytes: usize::from(segment[12] >> 4) * 4,
        })
    }

    /// The headers of this segment to the kernel with an MSS option of 1460, the checksum left to the
    /// device, and what the device has to be told.
    pub fn headers(&self, to: [u8; 6], payload_bytes: usize) -> (Vec<u8>, TxOffload) {
        let tcp_bytes = 24;
        let mut frame = ipv4(to, PROTOCOL_TCP, tcp_bytes + payload_bytes);
        frame.extend_from_slice(&self.from_port.to_be_bytes());
        frame.extend_from_slice(&self.to_port.to_be_bytes());
        frame.extend_from_slice(&self.sequence.to_be_bytes());
        frame.extend_from_slice(&self.acknowledgement.to_be_bytes());
        frame.extend_from_slice(&[6 << 4, self.flags, 0xff, 0xff]);
        let partial = pseudo_header_sum(OUR_IP, KERNEL_IP, PROTOCOL_TCP, tcp_bytes + payload_bytes);
        frame.extend_from_slice(&partial.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 2, 4]);
        frame.extend_from_slice(&1460_u16.to_be_bytes());
        let segmentation = (payload_bytes > 1460).then_some(Segmentation {
            segment_bytes: 1460,
            header_bytes: frame.len() as u16,
            ipv6: false,
        });
        let checksum = Some(PartialChecksum { start: TCP_AT as u16, offset: 16 });
        (frame, TxOffload::new(checksum, segmentation))
    }
}
