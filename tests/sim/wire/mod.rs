//! What an observer on the wire understands of the frames, by a parser that is not ours.

mod arrivals;
mod watch;

use std::net::{IpAddr, SocketAddr};

use libos::runtime::Medium;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
    TcpOption, TcpPacket, TcpSeqNumber, UdpPacket,
};

pub use self::watch::{Ours, Seen, Watch};

/// The two ends of a segment, its sender's first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    pub from: SocketAddr,
    pub to: SocketAddr,
}

impl Flow {
    pub fn reversed(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

/// A TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub flow: Flow,
    pub sequence: TcpSeqNumber,
    pub acknowledgement: Option<TcpSeqNumber>,
    pub window: u16,
    /// The window scale option, which only SYN segments carry.
    pub window_scale: Option<u8>,
    /// The largest segment its sender takes, which only SYN segments tell.
    pub max_segment: Option<u16>,
    /// The timestamp and the echoed one.
    pub stamps: Option<(u32, u32)>,
    /// The selective acknowledgements, of four the first three.
    pub blocks: [Option<(TcpSeqNumber, TcpSeqNumber)>; 3],
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload_bytes: usize,
}

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Tcp(Segment),
    /// UDP or ICMP.
    Datagram,
    /// ARP, a fragment, or something unknown.
    Other,
    /// Something that is too short or contradicts itself.
    Malformed,
}

/// A frame, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parsed {
    pub content: Content,
    pub network_checksum_holds: bool,
    pub transport_checksum_holds: bool,
}

impl Parsed {
    fn without_checksums(content: Content) -> Self {
        Self { content, network_checksum_holds: true, transport_checksum_holds: true }
    }
}

/// Parses a frame.
pub fn parse(medium: Medium, bytes: &[u8]) -> Parsed {
    parse_link(medium, bytes).unwrap_or(Parsed::without_checksums(Content::Malformed))
}

fn parse_link(medium: Medium, bytes: &[u8]) -> Option<Parsed> {
    match medium {
        Medium::Ip if bytes.first()? >> 4 == 6 => parse_ipv6(bytes),
        Medium::Ip => parse_ipv4(bytes),
        Medium::Ethernet => {
            let frame = EthernetFrame::new_checked(bytes).ok()?;
            match frame.ethertype() {
                EthernetProtocol::Ipv4 => parse_ipv4(frame.payload()),
                EthernetProtocol::Ipv6 => parse_ipv6(frame.payload()),
                EthernetProtocol::Arp | EthernetProtocol::Unknown(_) => {
                    Some(Parsed::without_checksums(Content::Other))
                }
            }
        }
    }
}

fn parse_ipv4(bytes: &[u8]) -> Option<Parsed> {
    let packet = Ipv4Packet::new_checked(bytes).ok()?;
    let network_checksum_holds = packet.verify_checksum();
    if packet.more_frags() || packet.frag_offset() > 0 {
        return Some(Parsed { network_checksum_holds, ..Parsed::without_checksums(Content::Other) });
    }
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let (content, transport_checksum_holds) =
        parse_transport(packet.next_header(), from, to, packet.payload())?;
    Some(Parsed { content, network_checksum_holds, transport_checksum_holds })
}

fn parse_ipv6(bytes: &[u8]) -> Option<Parsed> {
    let packet = Ipv6Packet::new_checked(bytes).ok()?;
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let (content, transport_checksum_holds) =
        parse_transport(packet.next_header(), from, to, packet.payload())?;
    Some(Parsed { content, network_checksum_holds: true, transport_checksum_holds })
}

fn parse_transport(protocol: IpProtocol, from: IpAddr, to: IpAddr, bytes: &[u8]) -> Option<(Content, bool)> {
    match protocol {
        IpProtocol::Tcp => {
            let packet = TcpPacket::new_checked(bytes).ok()?;
            let content = Content::Tcp(segment(&packet, from, to));
            Some((content, packet.verify_checksum(&from.into(), &to.into())))
        }
        IpProtocol::Udp => {
            let packet = UdpPacket::new_checked(bytes).ok()?;
            Some((Content::Datagram, packet.verify_checksum(&from.into(), &to.into())))
        }
        IpProtocol::Icmp => {
            Some((Content::Datagram, Icmpv4Packet::new_checked(bytes).ok()?.verify_checksum()))
        }
        IpProtocol::Icmpv6 => {
            let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { return None };
            let packet = Icmpv6Packet::new_checked(bytes).ok()?;
            Some((Content::Datagram, packet.verify_checksum(&from, &to)))
        }
        _ => Some((Content::Other, true)),
    }
}

fn segment(packet: &TcpPacket<&[u8]>, from: IpAddr, to: IpAddr) -> Segment {
    let mut options = packet.options();
    let mut window_scale = None;
    let mut max_segment = None;
    let mut stamps = None;
    let mut blocks = [None; 3];
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::EndOfList => break,
            TcpOption::WindowScale(scale) => window_scale = Some(scale),
            TcpOption::MaxSegmentSize(bytes) => max_segment = Some(bytes),
            TcpOption::TimeStamp { tsval, tsecr } => stamps = Some((tsval, tsecr)),
            TcpOption::SackRange(ranges) => {
                let number = |raw: u32| TcpSeqNumber(raw.cast_signed());
                blocks = ranges.map(|range| range.map(|(start, end)| (number(start), number(end))));
            }
            TcpOption::NoOperation | TcpOption::SackPermitted | TcpOption::Unknown { .. } => {}
        }
        options = rest;
        if options.is_empty() {
            break;
        }
    }
    Segment {
        flow: Flow {
            from: SocketAddr::new(from, packet.src_port()),
            to: SocketAddr::new(to, packet.dst_port()),
        },
        sequence: packet.seq_number(),
        acknowledgement: packet.ack().then(|| packet.ack_number()),
        window: packet.window_len(),
        window_scale: window_scale.filter(|_| packet.syn()),
        max_segment: max_segment.filter(|_| packet.syn()),
        stamps,
        blocks,
        syn: packet.syn(),
        fin: packet.fin(),
        rst: packet.rst(),
        payload_bytes: packet.payload().len(),
    }
}
