//! Packets in parts: received in every order and with every malice, and sent.

mod hostile;
mod receiving;
mod sending;

use std::net::IpAddr;

use libos::Instant;

use crate::network::testing::*;
use crate::network::{Ingress, Network};
use crate::wire::ipv4;
use crate::wire::ipv6::FragmentHeader;

const NOW: Instant = Instant::from_millis(1);

/// Which bytes of a payload a part has, and whether it says that more follow.
#[derive(Debug, Clone, Copy)]
struct Cut {
    start: usize,
    end: usize,
    more: bool,
}

const fn cut(start: usize, end: usize, more: bool) -> Cut {
    Cut { start, end, more }
}

/// Hosts 2 and 1 of either family: from whom and to whom parts go.
fn ends(v6_family: bool) -> (IpAddr, IpAddr) {
    if v6_family { (v6(2).into(), v6(1).into()) } else { (v4(2).into(), v4(1).into()) }
}

/// A part of a packet of this protocol and identification, in a frame to host 1.
fn part(ends: (IpAddr, IpAddr), protocol: u8, id: u16, payload: &[u8], at: Cut) -> Vec<u8> {
    part_with_data(ends, protocol, id, &payload[at.start..at.end], at)
}

/// As [`part`], with any data.
fn part_with_data((from, to): (IpAddr, IpAddr), protocol: u8, id: u16, data: &[u8], at: Cut) -> Vec<u8> {
    let packet = if from.is_ipv4() {
        let mut packet = ip_packet(from, to, protocol, data);
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        let len = u16::try_from(packet.len()).unwrap();
        ipv4::make_part(&mut packet[..20], len, at.start, at.more);
        packet
    } else {
        let (offset, more) = (at.start, at.more);
        let header = FragmentHeader { next_header: protocol, offset, more, identification: id.into() };
        ip_packet(from, to, 44, &[&header.compose()[..], data].concat())
    };
    framed(&packet)
}

/// A UDP datagram with this much data, no two bytes in a row alike.
fn datagram((from, to): (IpAddr, IpAddr), data_len: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..=250_u8).cycle().take(data_len).collect();
    udp_datagram(from, to, (1000, 2000), &data)
}

/// Hands in frames; returns the transport packets that came of them.
fn deliver<'a>(network: &mut Network, frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    let packet = |frame: &Vec<u8>| match receive(network, NOW, frame) {
        Ingress::Packet(packet) => Some(
            packet.head.iter().chain(packet.rest.iter().flat_map(|piece| piece.iter())).copied().collect(),
        ),
        Ingress::Consumed | Ingress::Error(_) => None,
    };
    frames.into_iter().filter_map(packet).collect()
}

/// A network that knows host 2.
fn acquainted() -> Network {
    let mut network = network(&config(1));
    introduce(&mut network, NOW);
    network.poll(Instant::from_millis(3_000));
    network.frames().clear();
    network
}
