//! What tests of this layer and of the transports above it share: networks, frames, and a wire between two.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, RxFrame, TxChecksum, TxOffload};
use libos::{Arena, Buffer, Instant};

use super::{HeaderBuffer, Ingress, Network, Outgoing, Path, Payload, Protocol};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::wire::checksum::{self, Checksum};
use crate::wire::ethernet;
use crate::wire::ipv4::Ipv4Fields;
use crate::wire::ipv6::Ipv6Fields;
use crate::wire::ndp;
use crate::wire::udp;

/// A hardware address by number.
pub(crate) fn hardware(number: u8) -> ethernet::Address {
    [2, 0, 0, 0, 0, number]
}

/// The IPv4 address of the test network by number.
pub(crate) fn v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

/// The IPv6 address of the test network by number.
pub(crate) fn v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into())
}

/// A device of the simplest kind.
pub(crate) fn device(number: u8) -> Capabilities {
    Capabilities {
        medium: Medium::Ethernet,
        hardware_address: hardware(number),
        mtu: 1500,
        tx_checksum: TxChecksum::Software,
        tcp_segmentation_bytes: 0,
        max_segments: 4,
    }
}

/// A configuration with both addresses of the number.
pub(crate) fn config(number: u8) -> StackConfig {
    StackConfig::new(device(number))
        .with_address(format!("{}/24", v4(number)).parse().unwrap())
        .with_address(format!("{}/64", v6(number)).parse().unwrap())
}

/// A network of the configuration that has sent its announcements.
pub(crate) fn network(config: &StackConfig) -> Network {
    let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
    let mut network = Network::new(config, arena, &mut Random::new(1), Instant::ZERO).unwrap();
    network.frames().clear();
    network
}

/// A frame that was sent.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) bytes: Vec<u8>,
    pub(crate) segments: usize,
    pub(crate) offload: TxOffload,
}

/// Takes all frames that are to be sent.
pub(crate) fn take_frames(network: &mut Network) -> Vec<Sent> {
    let mut frames = Vec::new();
    while let Some(frame) = network.frames().front() {
        frames.push(Sent {
            bytes: frame.segments.iter().flat_map(|segment| segment.iter().copied()).collect(),
            segments: frame.segments.len(),
            offload: frame.offload,
        });
        network.frames().pop_front();
    }
    frames
}

/// A buffer with these bytes.
pub(crate) fn buffer(network: &Network, bytes: &[u8]) -> Buffer {
    network.arena().copy_from(bytes).unwrap().freeze()
}

/// Hands a frame to the network.
pub(crate) fn receive(network: &mut Network, now: Instant, frame: &[u8]) -> Ingress {
    let frame = RxFrame::from(buffer(network, frame));
    network.receive(now, frame)
}

/// Carries frames between two networks until there are none; what is for transports is handed to
/// `upper`, told by 0 and 1 to whom it came.
pub(crate) fn exchange(
    now: Instant,
    networks: [&mut Network; 2],
    mut upper: impl FnMut(usize, &mut Network, Ingress),
) {
    let [first, second] = networks;
    for _ in 0..1000 {
        let (to_second, to_first) = (take_frames(first), take_frames(second));
        if to_second.is_empty() && to_first.is_empty() {
            return;
        }
        for frame in to_second {
            let ingress = receive(second, now, &frame.bytes);
            upper(1, second, ingress);
        }
        for frame in to_first {
            let ingress = receive(first, now, &frame.bytes);
            upper(0, first, ingress);
        }
    }
    panic!("frames are exchanged without end");
}

/// An IP packet in a frame from host 2 to host 1.
pub(crate) fn framed(packet: &[u8]) -> Vec<u8> {
    framed_to(hardware(1), packet)
}

/// An IP packet in a frame from host 2 to a group.
pub(crate) fn framed_to_group(group: IpAddr, packet: &[u8]) -> Vec<u8> {
    framed_to(super::interface::group_hardware(group), packet)
}

/// An IP packet in a frame from host 2 to a hardware address.
pub(crate) fn framed_to(destination: ethernet::Address, packet: &[u8]) -> Vec<u8> {
    let ether_type = if packet[0] >> 4 == 4 { ethernet::TYPE_IPV4 } else { ethernet::TYPE_IPV6 };
    let mut frame = ethernet::compose(destination, hardware(2), ether_type).to_vec();
    frame.extend(packet);
    frame
}

/// An IP packet of either version.
pub(crate) fn ip_packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap();
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Ipv4Fields {
            traffic_class: 0,
            total_len: len + 20,
            identification: 7,
            dont_fragment: false,
            time_to_live: 64,
            protocol,
            source,
            destination,
        }
        .compose()
        .to_vec(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Fields {
            traffic_class: 0,
            payload_len: len,
            next_header: protocol,
            hop_limit: 64,
            source,
            destination,
        }
        .compose()
        .to_vec(),
        _ => panic!("addresses of unlike families"),
    };
    packet.extend(payload);
    packet
}

/// A neighbour message from host 2 in a frame.
pub(crate) fn neighbor_frame(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: ndp::NeighborMessage,
) -> Vec<u8> {
    let mut bytes = [0; ndp::MESSAGE_BYTES];
    let len = message.compose(&mut bytes);
    let message = icmp_message(source.into(), destination.into(), bytes[0], 0, &bytes[4..len]);
    let mut packet = ip_packet(source.into(), destination.into(), 58, &message);
    packet[7] = hop_limit;
    framed(&packet)
}

/// Changes a byte of an IPv4 packet and mends the header's checksum.
pub(crate) fn with_header_byte(mut packet: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    packet[offset] = value;
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A UDP datagram with its checksum.
pub(crate) fn udp_datagram(source: IpAddr, destination: IpAddr, ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len() + udp::HEADER_BYTES).unwrap();
    let mut datagram = udp::compose(ports.0, ports.1, len).to_vec();
    datagram.extend(data);
    put_checksum(source, destination, 17, &mut datagram, udp::CHECKSUM_OFFSET);
    datagram
}

/// An ICMP message with its checksum.
pub(crate) fn icmp_message(source: IpAddr, destination: IpAddr, kind: u8, code: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(body);
    if source.is_ipv4() {
        let sum = checksum::of(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    } else {
        put_checksum(source, destination, 58, &mut message, 2);
    }
    message
}

fn put_checksum(source: IpAddr, destination: IpAddr, protocol: u8, bytes: &mut [u8], offset: usize) {
    let mut sum = Checksum::pseudo_header(source, destination, protocol, bytes.len());
    sum.add_bytes(bytes);
    bytes[offset..offset + 2].copy_from_slice(&sum.finish().to_be_bytes());
}

/// Sends a UDP datagram from port 1000 to port 2000.
pub(crate) fn send_udp(
    network: &mut Network,
    now: Instant,
    path: &mut Path,
    payload: Payload<'_>,
) -> Result<(), libos::Error> {
    let mut headers = HeaderBuffer::new();
    let len = u16::try_from(payload.len() + udp::HEADER_BYTES).unwrap();
    headers.transport(udp::HEADER_BYTES).copy_from_slice(&udp::compose(1000, 2000, len));
    let outgoing = Outgoing {
        protocol: Protocol::Udp,
        headers: &mut headers,
        checksum_offset: udp::CHECKSUM_OFFSET,
        payload,
        segment_bytes: None,
        hop_limit: 64,
        traffic_class: 0,
    };
    network.send(now, path, outgoing)
}

/// Tells host 1 the hardware address of host 2, for both families.
pub(crate) fn introduce(network: &mut Network, now: Instant) {
    use crate::wire::arp::{ArpPacket, Operation};
    let request = ArpPacket {
        operation: Operation::Request,
        sender_hardware: hardware(2),
        sender_protocol: v4(2),
        target_hardware: [0; 6],
        target_protocol: v4(1),
    };
    receive(network, now, &request.compose_frame(ethernet::BROADCAST));
    let mut body = vec![0; 4];
    body.extend(v6(1).octets());
    body.extend([1, 1]);
    body.extend(hardware(2));
    let mut packet =
        ip_packet(v6(2).into(), v6(1).into(), 58, &icmp_message(v6(2).into(), v6(1).into(), 135, 0, &body));
    packet[7] = 255;
    receive(network, now, &framed(&packet));
    network.frames().clear();
}
