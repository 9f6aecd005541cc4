//! Datagrams to groups and to everybody, which go to all sockets that ask for them.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use libos::{Instant, ScatterGather};

use super::UdpLayer;
use super::layer::MAX_SHARING_SOCKETS;
use super::receive::Body;
use crate::events::EventQueue;
use crate::network::{DestinationKind, Network, Packet};
use crate::waiting::Waiting;
use crate::wire::udp::{self, UdpHeader};

impl UdpLayer {
    /// Hands a datagram to every socket on its port that is in its group, or takes broadcasts. They share
    /// its memory. Sockets with a peer take part in neither.
    #[cold]
    #[inline(never)]
    pub(super) fn deliver_to_all(
        &mut self,
        now: Instant,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
        packet: Packet,
    ) {
        let Some(header) = UdpHeader::of_checked(&packet.head) else { return };
        let destination = packet.destination;
        let of_all = packet.kind == DestinationKind::Broadcast || network.is_group_of_all(destination);
        let mut takers = ArrayVec::<u32, MAX_SHARING_SOCKETS>::new();
        let mut next = self.ports.first(header.destination_port());
        while let Some((index, socket)) =
            next.and_then(|index| self.sockets.get_index(index).map(|socket| (index, socket)))
        {
            if socket.takes_group(destination, packet.source, of_all) && takers.try_push(index).is_err() {
                break;
            }
            next = socket.next;
        }
        if takers.is_empty() {
            return self.refuse(now, network, &packet);
        }
        let from = SocketAddr::new(packet.source, header.source_port());
        let Packet { mut head, rest, segment_bytes, .. } = packet;
        head.advance(udp::HEADER_BYTES);
        let data = ScatterGather::from_parts(head, rest);
        for index in takers {
            self.deliver(index, from, Body { data: data.clone(), segment_bytes }, events, waiting);
        }
    }
}
