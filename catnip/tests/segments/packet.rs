//! Segments to packets and back, for both IP versions.

use std::net::IpAddr;

use catnip::wire::checksum::Checksum;
use catnip::wire::ipv4::{Ipv4Fields, Ipv4Header};
use catnip::wire::ipv6::{Ipv6Fields, Ipv6Header};

use crate::script::{ChecksumField, Cookie, FLAGS, Icmp, Opt, PSH, SYN, Segment};

const TCP: u8 = 6;
const ICMPV4: u8 = 1;
const ICMPV6: u8 = 58;

/// Addresses and ports of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl Ends {
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source }
    }
}

/// The byte at an offset of every script's streams.
pub fn pattern(offset: u32) -> u8 {
    (offset % 251) as u8
}

/// An IP packet.
pub fn ip(ends: Ends, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ipv4Fields {
            traffic_class: 0,
            total_len: (20 + payload.len()) as u16,
            identification: 1,
            dont_fragment: true,
            time_to_live: 64,
            protocol,
            source,
            destination,
        }
        .compose()
        .to_vec(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Fields {
            traffic_class: 0,
            payload_len: payload.len() as u16,
            next_header: protocol,
            hop_limit: 64,
            source,
            destination,
        }
        .compose()
        .to_vec(),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("both ends of a script are of one family")
        }
    };
    packet.extend(payload);
    packet
}

fn with_checksum(ends: Ends, protocol: u8, mut payload: Vec<u8>, at: usize) -> Vec<u8> {
    let mut sum = match protocol {
        ICMPV4 => Checksum::new(),
        _ => Checksum::pseudo_header(ends.source, ends.destination, protocol, payload.len()),
    };
    sum.add_bytes(&payload);
    payload[at..at + 2].copy_from_slice(&sum.finish().to_be_bytes());
    payload
}

/// What options of a segment of the peer are about that the stack said before.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The stack's initial sequence number, which SACK blocks count from.
    pub blocks_from: u32,
    /// The Fast Open cookie that it gave last.
    pub cookie: &'a [u8],
}

/// The offset in its stream of the first byte of a segment's payload; a SYN is in front of it.
pub fn first_offset(sequence: u32, flags: u8) -> u32 {
    sequence.wrapping_add(u32::from(flags & SYN != 0)).wrapping_sub(1)
}

/// The bytes of a segment; both numbers as they stand in the header.
pub fn tcp(
    ends: Ends,
    local_port: u16,
    segment: &Segment,
    (seq, ack): (u32, u32),
    known: Known<'_>,
) -> Vec<u8> {
    let mut options = Vec::new();
    segment.options.iter().flatten().for_each(|option| option.append(&mut options, known));
    options.resize(options.len().next_multiple_of(4), 0);
    let mut tcp = [segment.port.to_be_bytes(), local_port.to_be_bytes()].concat();
    tcp.extend(seq.to_be_bytes());
    tcp.extend(ack.to_be_bytes());
    tcp.extend([((20 + options.len()) as u8 / 4) << 4, segment.flags]);
    tcp.extend(segment.window.unwrap_or(30_000).to_be_bytes());
    tcp.extend([0, 0]);
    tcp.extend(segment.urgent.to_be_bytes());
    tcp.extend(options);
    let first = first_offset(segment.sequence, segment.flags);
    tcp.extend((0..segment.payload_bytes as u32).map(|at| pattern(first.wrapping_add(at))));
    let mut tcp = with_checksum(ends, TCP, tcp, 16);
    if segment.checksum == ChecksumField::Wrong {
        tcp[17] ^= 1;
    }
    ip(ends, TCP, &tcp)
}

/// An ICMP error from the peer about a segment of ours with this sequence number.
pub fn icmp(ends: Ends, ports: (u16, u16), error: Icmp, seq: u32) -> Vec<u8> {
    let mut quoted = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    quoted.extend(seq.to_be_bytes());
    quoted.resize(20, 0);
    let quoted = ip(ends.reversed(), TCP, &quoted);
    let is_v4 = ends.source.is_ipv4();
    let (kind, code, value): (u8, u8, u32) = match (error, is_v4) {
        (Icmp::PortUnreachable, true) => (3, 3, 0),
        (Icmp::HostUnreachable, true) => (3, 1, 0),
        (Icmp::TimeExceeded, true) => (11, 0, 0),
        (Icmp::TooBig { mtu }, true) => (3, 4, mtu.into()),
        (Icmp::PortUnreachable, false) => (1, 4, 0),
        (Icmp::HostUnreachable, false) => (1, 3, 0),
        (Icmp::TimeExceeded, false) => (3, 0, 0),
        (Icmp::TooBig { mtu }, false) => (2, 0, mtu.into()),
    };
    let mut message = vec![kind, code, 0, 0];
    message.extend(value.to_be_bytes());
    message.extend(quoted);
    let protocol = if is_v4 { ICMPV4 } else { ICMPV6 };
    ip(ends, protocol, &with_checksum(ends, protocol, message, 2))
}

/// The TCP bytes of a packet that the stack sent; `None` for other protocols.
pub fn transport(packet: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (ends, protocol, payload) = match packet.first().map(|first| first >> 4) {
        Some(4) => {
            let header = Ipv4Header::parse(packet, packet.len()).map_err(|error| format!("{error:?}"))?;
            let ends = Ends { source: header.source().into(), destination: header.destination().into() };
            (ends, header.protocol(), &packet[header.header_len()..])
        }
        _ => {
            let header = Ipv6Header::parse(packet, packet.len()).map_err(|error| format!("{error:?}"))?;
            let ends = Ends { source: header.source().into(), destination: header.destination().into() };
            (ends, header.next_header(), &packet[40..])
        }
    };
    if protocol != TCP {
        return Ok(None);
    }
    let mut sum = Checksum::pseudo_header(ends.source, ends.destination, TCP, payload.len());
    sum.add_bytes(payload);
    if !sum.is_right() {
        return Err("a segment was sent with a wrong checksum".to_owned());
    }
    Ok(Some(payload.to_vec()))
}

impl Opt {
    fn append(&self, bytes: &mut Vec<u8>, known: Known<'_>) {
        match self {
            Self::Mss(mss) => {
                bytes.extend([2, 4]);
                bytes.extend(mss.to_be_bytes());
            }
            Self::WindowScale(shift) => bytes.extend([1, 3, 3, *shift]),
            Self::SackPermitted => bytes.extend([1, 1, 4, 2]),
            Self::Timestamp(value, echo) => {
                bytes.extend([1, 1, 8, 10]);
                bytes.extend(value.unwrap_or(0).to_be_bytes());
                bytes.extend(echo.unwrap_or(0).to_be_bytes());
            }
            Self::Sack(blocks) => {
                bytes.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
                for (start, end) in blocks {
                    bytes.extend(known.blocks_from.wrapping_add(*start).to_be_bytes());
                    bytes.extend(known.blocks_from.wrapping_add(*end).to_be_bytes());
                }
            }
            Self::UserTimeout(seconds) => {
                bytes.extend([28, 4]);
                bytes.extend(seconds.to_be_bytes());
            }
            Self::FastOpen(cookie) => {
                let cookie = match cookie {
                    Cookie::None => return,
                    Cookie::Request | Cookie::Any => &[],
                    Cookie::Given => known.cookie,
                    Cookie::These(bytes) => bytes,
                };
                bytes.extend([34, 2 + cookie.len() as u8]);
                bytes.extend(cookie);
            }
            Self::Raw(raw) => bytes.extend(raw),
        }
    }
}

/// Flags as a script writes them; PSH only when `with_push`.
pub fn show_flags(flags: u8, with_push: bool) -> String {
    let shown = |&&(_, bit): &&(char, u8)| flags & bit != 0 && (bit != PSH || with_push);
    FLAGS.iter().filter(shown).map(|(letter, _)| letter).collect()
}
