//! Packets byte by byte, made and read without any of the stack's own code, so that both cannot be wrong alike.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ICMPV4: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The host with this number on the link.
    pub fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    pub fn stack(self) -> IpAddr {
        self.host(1)
    }

    pub fn peer(self) -> IpAddr {
        self.host(2)
    }

    pub fn header_bytes(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    pub fn icmp(self) -> u8 {
        match self {
            Self::V4 => ICMPV4,
            Self::V6 => ICMPV6,
        }
    }
}

/// The Internet checksum's sum, two bytes at a time (RFC 1071).
pub fn sum(bytes: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The pseudo header and what follows it, summed.
pub fn transport_sum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> u16 {
    let mut all = [octets(source), octets(destination)].concat();
    all.extend((bytes.len() as u32).to_be_bytes());
    all.extend([0, 0, 0, protocol]);
    all.extend(bytes);
    sum(&all)
}

/// Puts the right checksum of a transport's message at `at`.
pub fn seal(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &mut [u8], at: usize) {
    bytes[at..at + 2].fill(0);
    let sum =
        if protocol == ICMPV4 { sum(bytes) } else { transport_sum(source, destination, protocol, bytes) };
    bytes[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// An IPv4 header with options and all fields; the checksum is right.
#[derive(Debug, Clone)]
pub struct V4 {
    pub tos: u8,
    pub id: u16,
    /// Flags and offset.
    pub fragment: u16,
    pub ttl: u8,
    pub protocol: u8,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
    pub options: Vec<u8>,
}

impl V4 {
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { panic!("IPv4") };
        Self { tos: 0, id: 7, fragment: 0, ttl: 64, protocol, source, destination, options: Vec::new() }
    }

    pub fn with(&self, payload: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let mut bytes = vec![0x40 | (header / 4) as u8, self.tos];
        bytes.extend(((header + payload.len()) as u16).to_be_bytes());
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.fragment.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        bytes.extend(&self.options);
        reseal_v4(&mut bytes);
        bytes.extend(payload);
        bytes
    }
}

/// Puts the right checksum into an IPv4 header.
pub fn reseal_v4(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    let header = header.min(packet.len());
    packet[10..12].fill(0);
    let sum = !sum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// An IPv6 header and what is behind it.
pub fn v6(source: IpAddr, destination: IpAddr, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, hop_limit]);
    bytes.extend(octets(source));
    bytes.extend(octets(destination));
    bytes.extend(payload);
    bytes
}

/// A plain packet of either family.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match source {
        IpAddr::V4(_) => V4::new(source, destination, protocol).with(payload),
        IpAddr::V6(_) => v6(source, destination, protocol, 64, payload),
    }
}

pub fn udp_bytes(source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    bytes.extend((8 + payload.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    seal(source, destination, UDP, &mut bytes, 6);
    if bytes[6..8] == [0, 0] {
        bytes[6..8].fill(0xff);
    }
    bytes
}

/// Two bytes of data with which a datagram's checksum comes out as zero.
pub fn zero_sum_data(source: IpAddr, destination: IpAddr, ports: (u16, u16)) -> [u8; 2] {
    let mut bytes = udp_bytes(source, destination, ports, &[0, 0]);
    bytes[6..8].fill(0);
    (!transport_sum(source, destination, UDP, &bytes)).to_be_bytes()
}

pub fn udp(source: IpAddr, destination: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    ip(source, destination, UDP, &udp_bytes(source, destination, ports, payload))
}

/// An ICMP message of either family.
pub fn icmp(source: IpAddr, destination: IpAddr, kind: u8, code: u8, rest: &[u8]) -> Vec<u8> {
    let protocol = if source.is_ipv4() { ICMPV4 } else { ICMPV6 };
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    seal(source, destination, protocol, &mut bytes, 2);
    ip(source, destination, protocol, &bytes)
}

/// A TCP segment to be sent or that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    pub ports: (u16, u16),
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    /// Padded to words.
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Tcp {
    pub fn bytes(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut bytes = [self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes()].concat();
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(self.ack.to_be_bytes());
        let mut options = self.options.clone();
        options.resize(options.len().next_multiple_of(4), 0);
        bytes.extend([((20 + options.len()) / 4 * 16) as u8, self.flags]);
        bytes.extend(self.window.to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(self.urgent.to_be_bytes());
        bytes.extend(options);
        bytes.extend(&self.payload);
        seal(source, destination, TCP, &mut bytes, 16);
        bytes
    }

    pub fn packet(&self, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        ip(source, destination, TCP, &self.bytes(source, destination))
    }

    /// The options one by one; padding is left out.
    pub fn option_list(&self) -> Vec<(u8, Vec<u8>)> {
        let mut list = Vec::new();
        let mut rest = &self.options[..];
        while let Some(&kind) = rest.first() {
            match kind {
                0 => break,
                1 => rest = &rest[1..],
                _ => {
                    let len = usize::from(rest[1]);
                    assert!(len >= 2 && len <= rest.len(), "malformed options {:?}", self.options);
                    list.push((kind, rest[2..len].to_vec()));
                    rest = &rest[len..];
                }
            }
        }
        list
    }

    pub fn option(&self, kind: u8) -> Option<Vec<u8>> {
        self.option_list().into_iter().find(|option| option.0 == kind).map(|option| option.1)
    }
}

/// A packet that the stack sent, its checksums checked.
#[derive(Debug, Clone)]
pub struct Packet {
    pub at_us: u64,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    pub tos: u8,
    /// IPv4: identification, flags and offset. 0 in IPv6.
    pub id: u16,
    pub fragment: u16,
    /// What is behind the IP headers.
    pub body: Vec<u8>,
}

impl Packet {
    pub fn parse(at_us: u64, bytes: &[u8]) -> Self {
        let packet = match bytes[0] >> 4 {
            4 => {
                let header = usize::from(bytes[0] & 15) * 4;
                assert_eq!(sum(&bytes[..header]), 0xffff, "the header's checksum");
                let total = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                assert_eq!(total, bytes.len(), "the total length");
                let address =
                    |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
                Self {
                    at_us,
                    source: address(12).into(),
                    destination: address(16).into(),
                    protocol: bytes[9],
                    ttl: bytes[8],
                    tos: bytes[1],
                    id: u16::from_be_bytes([bytes[4], bytes[5]]),
                    fragment: u16::from_be_bytes([bytes[6], bytes[7]]),
                    body: bytes[header..].to_vec(),
                }
            }
            6 => {
                let address = |at: usize| {
                    let octets: [u8; 16] = bytes[at..at + 16].try_into().unwrap();
                    IpAddr::from(octets)
                };
                assert_eq!(usize::from(u16::from_be_bytes([bytes[4], bytes[5]])), bytes.len() - 40);
                let (mut protocol, mut at) = (bytes[6], 40);
                let mut fragment = 0;
                loop {
                    let len = match protocol {
                        0 | 43 | 60 => (usize::from(bytes[at + 1]) + 1) * 8,
                        44 => {
                            fragment = u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]);
                            8
                        }
                        _ => break,
                    };
                    protocol = bytes[at];
                    at += len;
                }
                Self {
                    at_us,
                    source: address(8),
                    destination: address(24),
                    protocol,
                    ttl: bytes[7],
                    tos: (bytes[0] << 4) | (bytes[1] >> 4),
                    id: 0,
                    fragment,
                    body: bytes[at..].to_vec(),
                }
            }
            version => panic!("version {version}"),
        };
        packet.check();
        packet
    }

    pub fn is_part(&self) -> bool {
        match self.source {
            IpAddr::V4(_) => self.fragment & 0x3fff != 0,
            IpAddr::V6(_) => self.fragment & 0xfff9 != 0,
        }
    }

    fn check(&self) {
        if self.is_part() {
            return;
        }
        let sum = match self.protocol {
            ICMPV4 => sum(&self.body),
            TCP | UDP | ICMPV6 => transport_sum(self.source, self.destination, self.protocol, &self.body),
            2 => sum(&self.body),
            protocol => panic!("protocol {protocol}"),
        };
        assert_eq!(sum, 0xffff, "checksum of {self:?}");
    }

    pub fn tcp(&self) -> Tcp {
        assert_eq!(self.protocol, TCP, "{self:?}");
        let bytes = &self.body;
        let header = usize::from(bytes[12] >> 4) * 4;
        assert_eq!(bytes[12] & 15, 0, "reserved bits and AE");
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Tcp {
            ports: (word(0), word(2)),
            seq: number(4),
            ack: number(8),
            flags: bytes[13],
            window: word(14),
            urgent: word(18),
            options: bytes[20..header].to_vec(),
            payload: bytes[header..].to_vec(),
        }
    }
}
