//! A peer without a stack: a port, and packets made by hand.

use std::net::{IpAddr, SocketAddr};

use libos::memory::ArenaConfig;
use libos::runtime::{Medium, RxBatch};
use libos::{Arena, Instant, Runtime};
use runtime_sim::{Fabric, PathConfig, PortConfig, PortId, SimRuntime};
use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber, UdpPacket};

use crate::host::address;
use crate::wire::{Content, Segment, parse};

const IPV4_HEADER_BYTES: usize = 20;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// A TCP segment to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Tcp<'a> {
    pub to: SocketAddr,
    pub from_port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    /// A multiple of four bytes.
    pub options: &'a [u8],
    pub payload: &'a [u8],
}

/// A UDP datagram to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Udp<'a> {
    pub to: IpAddr,
    /// From and to.
    pub ports: (u16, u16),
    pub payload: &'a [u8],
}

/// A port whose frames a test makes and reads.
pub struct RawPeer {
    runtime: SimRuntime,
    medium: Medium,
    number: u8,
}

impl RawPeer {
    /// Host `number`, which speaks IPv4.
    pub fn new(fabric: &Fabric, medium: Medium, number: u8) -> Self {
        let arena =
            Arena::new(&ArenaConfig { region_bytes: 1 << 20, hugepages: false }).expect("a small arena");
        let port = PortConfig::new("raw", [2, 0, 0, 0, 0, number], arena);
        let runtime = fabric.add_port(port, PathConfig::default());
        Self { runtime, medium, number }
    }

    pub fn port(&self) -> PortId {
        self.runtime.port()
    }

    /// The TCP segments that came since the last call.
    pub fn received(&mut self) -> Vec<Segment> {
        let mut segments = Vec::new();
        let mut batch = RxBatch::new();
        loop {
            self.runtime.receive(Instant::ZERO, &mut batch).expect("a fabric never fails");
            if batch.is_empty() {
                return segments;
            }
            for frame in batch.drain(..) {
                if let Content::Tcp(segment) = parse(self.medium, &frame.head).content {
                    segments.push(segment);
                }
            }
        }
    }

    /// Bytes of all frames that came since the last call.
    pub fn received_bytes(&mut self) -> usize {
        let mut bytes = 0;
        let mut batch = RxBatch::new();
        loop {
            self.runtime.receive(Instant::ZERO, &mut batch).expect("a fabric never fails");
            if batch.is_empty() {
                return bytes;
            }
            bytes += batch.drain(..).map(|frame| frame.head.len()).sum::<usize>();
        }
    }

    /// An Ethernet frame around an IPv4 packet.
    pub fn ethernet(&self, to: [u8; 6], packet: &[u8]) -> Vec<u8> {
        [&to[..], &[2, 0, 0, 0, 0, self.number], &[8, 0], packet].concat()
    }

    /// An IPv4 packet with a TCP segment.
    pub fn tcp(&self, tcp: &Tcp<'_>) -> Vec<u8> {
        let header_bytes = TCP_HEADER_BYTES + tcp.options.len();
        let mut bytes = vec![0; header_bytes];
        bytes[TCP_HEADER_BYTES..].copy_from_slice(tcp.options);
        bytes.extend_from_slice(tcp.payload);
        bytes[13] = tcp.flags;
        let mut segment = TcpPacket::new_unchecked(&mut bytes);
        segment.set_src_port(tcp.from_port);
        segment.set_dst_port(tcp.to.port());
        segment.set_seq_number(TcpSeqNumber(tcp.sequence.cast_signed()));
        segment.set_ack_number(TcpSeqNumber(tcp.acknowledgement.cast_signed()));
        segment.set_header_len(header_bytes as u8);
        segment.set_window_len(tcp.window);
        segment.fill_checksum(&address(self.number, false).into(), &tcp.to.ip().into());
        self.ipv4(tcp.to.ip(), IpProtocol::Tcp, &bytes)
    }

    /// An IPv4 packet with a UDP datagram.
    pub fn udp(&self, udp: &Udp<'_>) -> Vec<u8> {
        let mut bytes = vec![0; UDP_HEADER_BYTES];
        bytes.extend_from_slice(udp.payload);
        let len = bytes.len() as u16;
        let mut datagram = UdpPacket::new_unchecked(&mut bytes);
        datagram.set_src_port(udp.ports.0);
        datagram.set_dst_port(udp.ports.1);
        datagram.set_len(len);
        datagram.fill_checksum(&address(self.number, false).into(), &udp.to.into());
        self.ipv4(udp.to, IpProtocol::Udp, &bytes)
    }

    fn ipv4(&self, to: IpAddr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let ipv4 = |address: IpAddr| match address {
            IpAddr::V4(address) => address,
            IpAddr::V6(_) => panic!("a raw peer speaks IPv4"),
        };
        let mut bytes = vec![0; IPV4_HEADER_BYTES + payload.len()];
        bytes[IPV4_HEADER_BYTES..].copy_from_slice(payload);
        let total = bytes.len() as u16;
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        packet.set_version(4);
        packet.set_header_len(IPV4_HEADER_BYTES as u8);
        packet.set_total_len(total);
        packet.set_hop_limit(64);
        packet.set_next_header(protocol);
        packet.set_src_addr(ipv4(address(self.number, false)));
        packet.set_dst_addr(ipv4(to));
        packet.fill_checksum();
        bytes
    }
}
