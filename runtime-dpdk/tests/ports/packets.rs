//! Packets as a stack leaves them to a device that does the sums: with the pseudo-header's in the field.

use libos::runtime::{PartialChecksum, Segmentation, TxOffload};

pub const ETHERNET_BYTES: usize = 14;
const HOSTS_V4: [[u8; 4]; 2] = [[10, 8, 0, 2], [10, 8, 0, 1]];
const HOSTS_V6: [[u8; 16]; 2] = [
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
    [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
];
pub const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 9];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V4,
    V6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    pub const fn header_bytes(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }

    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

impl Version {
    pub const fn header_bytes(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// The sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1).
    pub fn pseudo_header(self, protocol: Protocol, len: usize) -> u32 {
        let hosts = match self {
            Self::V4 => HOSTS_V4.concat(),
            Self::V6 => HOSTS_V6.concat(),
        };
        sum(&hosts) + u32::from(protocol.number()) + len as u32
    }
}

pub fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

pub fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame's headers; the transport's checksum has `field`.
pub fn headers(version: Version, protocol: Protocol, payload_bytes: usize, field: u16) -> Vec<u8> {
    let len = protocol.header_bytes() + payload_bytes;
    let mut frame = [&[2, 0, 0, 0, 0, 8][..], &SOURCE].concat();
    match version {
        Version::V4 => {
            frame.extend([0x08, 0, 0x45, 0]);
            frame.extend(((20 + len) as u16).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol.number(), 0, 0]);
            frame.extend(HOSTS_V4.concat());
            let checksum = !fold(sum(&frame[ETHERNET_BYTES..]));
            frame[ETHERNET_BYTES + 10..ETHERNET_BYTES + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        Version::V6 => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((len as u16).to_be_bytes());
            frame.extend([protocol.number(), 64]);
            frame.extend(HOSTS_V6.concat());
        }
    }
    let start = frame.len();
    frame.extend([0x30, 0x39, 0, 9]);
    match protocol {
        Protocol::Tcp => frame.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0x20, 0, 0, 0, 0, 0]),
        Protocol::Udp => {
            frame.extend((len as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
    }
    let at = start + protocol.checksum_offset();
    frame[at..at + 2].copy_from_slice(&field.to_be_bytes());
    frame
}

/// What the stack asks a device for: the sum, and to cut when it says into what.
pub fn offload(version: Version, protocol: Protocol, segment_bytes: Option<u16>) -> TxOffload {
    let start = (ETHERNET_BYTES + version.header_bytes()) as u16;
    let checksum = PartialChecksum { start, offset: protocol.checksum_offset() as u8 };
    let segmentation = segment_bytes.map(|segment_bytes| Segmentation {
        segment_bytes,
        header_bytes: start + protocol.header_bytes() as u16,
        ipv6: version == Version::V6,
    });
    TxOffload::new(Some(checksum), segmentation)
}

/// What the stack leaves in the field for the device to complete.
pub fn partial(version: Version, protocol: Protocol, payload_bytes: usize) -> u16 {
    fold(version.pseudo_header(protocol, protocol.header_bytes() + payload_bytes))
}

/// True when the transport's checksum is that of the frame.
pub fn is_right(version: Version, protocol: Protocol, frame: &[u8]) -> bool {
    let transport = &frame[ETHERNET_BYTES + version.header_bytes()..];
    fold(version.pseudo_header(protocol, transport.len()) + sum(transport)) == 0xffff
}
