//! Receiving: from a packet to its socket, and from there to who waits or into a queue.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use libos::{Error, Instant, RxFrame, ScatterGather};

use super::layer::UdpLayer;
use super::socket::{Datagram, Socket};
use super::{UdpConfig, UdpCounters};
use crate::events::{EventQueue, Readiness, SocketId, UdpId};
use crate::network::{DestinationKind, IcmpError, IcmpErrorKind, LaneEnd, Network, Packet, Plain};
use crate::tcp::demux::FourTuple;
use crate::waiting::Waiting;
use crate::wire::udp::{self, UdpHeader};
use crate::wire::{ethernet, ipv4};

/// Bytes in front of the payload in a frame of a lane.
const HEADERS_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + udp::HEADER_BYTES;

impl UdpLayer {
    /// Takes a received datagram whose checksum is right: for who is `waiting`, or into its socket's queue.
    pub fn on_packet(
        &mut self,
        now: Instant,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
        packet: Packet,
    ) {
        let Some(header) = UdpHeader::of_checked(&packet.head) else { return };
        if packet.kind != DestinationKind::Unicast {
            return self.deliver_to_all(now, network, events, waiting, packet);
        }
        let Some(index) =
            self.find(packet.destination, header.destination_port(), packet.source, header.source_port())
        else {
            return self.refuse(now, network, &packet);
        };
        let from = SocketAddr::new(packet.source, header.source_port());
        let Packet { mut head, rest, segment_bytes, .. } = packet;
        head.advance(udp::HEADER_BYTES);
        let data = ScatterGather::from_parts(head, rest);
        self.deliver(index, from, Body { data, segment_bytes }, events, waiting);
    }

    /// As [`Self::on_packet`], for a packet of the usual kind.
    #[inline(always)]
    pub(crate) fn on_plain(
        &mut self,
        now: Instant,
        network: &mut Network,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
        plain: Plain,
        frame: RxFrame,
    ) {
        let flow = network.note_flow(&frame, &plain);
        let (source, destination) = (plain.source.into(), plain.destination.into());
        let (source_port, destination_port) = ((plain.ports >> 16) as u16, plain.ports as u16);
        let Some(index) = self.find(destination, destination_port, source, source_port) else {
            network.keep_header(&frame, plain);
            return self.refuse(now, network, &plain.packet(frame));
        };
        let segment_bytes = frame.segment_bytes;
        // A plain frame has no further buffers to drop.
        std::mem::forget(frame.rest);
        let mut data = frame.head;
        data.truncate(plain.end);
        data.advance(plain.start + udp::HEADER_BYTES);
        let mut data = ScatterGather::from(data);
        if segment_bytes == 0
            && let Some(socket) = self.sockets.get_index(index)
            && socket.has_nothing_to_tell()
        {
            let from = SocketAddrV4::new(plain.source, source_port);
            match waiting.offer_datagram(socket.user_data, || SocketAddr::V4(from), data) {
                Ok(()) => {
                    self.counters.in_datagrams += 1;
                    if let Some(flow) = &flow
                        && let Some(queue) = waiting.queue_of_datagrams(socket.user_data)
                    {
                        let generation = self.sockets.generation();
                        let (source, port) = (plain.source, source_port);
                        network.open_lane(flow, LaneEnd::Udp { generation, queue, source, port });
                    }
                    return;
                }
                Err(refused) => data = refused,
            }
        }
        self.keep(index, SocketAddr::new(source, source_port), Body { data, segment_bytes }, events);
    }

    /// Takes a datagram of a lane, for who waits for it alone: `frame` up to `end`, with the headers in front.
    ///
    /// # Errors
    /// The frame, and nothing done, when nobody or somebody else waits.
    #[inline(always)]
    pub(crate) fn on_lane(
        &mut self,
        waiting: &mut impl Waiting,
        lane: &LaneEnd,
        frame: RxFrame,
        end: usize,
    ) -> Result<(), RxFrame> {
        let LaneEnd::Udp { generation, queue, source, port } = lane else { return Err(frame) };
        if *generation != self.sockets.generation()
            || !Network::is_datagram(&frame, end)
            || !waiting.awaits_datagram(*queue)
        {
            return Err(frame);
        }
        // A frame of a lane has no further buffers to drop.
        std::mem::forget(frame.rest);
        let mut data = frame.head;
        data.truncate(end);
        data.advance(HEADERS_BYTES);
        waiting.give_datagram(*queue, (*source, *port), ScatterGather::from(data));
        self.counters.in_datagrams += 1;
        Ok(())
    }

    /// Tells the sender that there is nobody.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&mut self, now: Instant, network: &mut Network, packet: &Packet) {
        if network.receive_unclaimed_datagram(now, packet) {
            return;
        }
        self.counters.no_ports += 1;
        network.send_port_unreachable(now, packet);
    }

    #[inline]
    pub(super) fn deliver(
        &mut self,
        index: u32,
        from: SocketAddr,
        body: Body,
        events: &mut EventQueue,
        waiting: &mut impl Waiting,
    ) {
        let Some(socket) = self.sockets.get_index(index) else { return };
        let Body { mut data, segment_bytes } = body;
        if segment_bytes == 0 && socket.has_nothing_to_tell() {
            match waiting.offer_datagram(socket.user_data, || from, data) {
                Ok(()) => {
                    self.counters.in_datagrams += 1;
                    return;
                }
                Err(refused) => data = refused,
            }
        }
        self.keep(index, from, Body { data, segment_bytes }, events);
    }

    /// Queues what nobody waits for.
    #[inline(never)]
    fn keep(&mut self, index: u32, from: SocketAddr, body: Body, events: &mut EventQueue) {
        let Some((key, socket)) = self.sockets.change().entry_mut(index) else { return };
        let mut inbox = Inbox { socket, config: &self.config, counters: &mut self.counters };
        inbox.take_body(from, body);
        if !socket.queue.is_empty() {
            events.push(&mut socket.mark, SocketId::Udp(UdpId(key)), socket.user_data, Readiness::READABLE);
        }
    }

    /// The socket for a datagram: the one connected to its sender, else the one that takes datagrams
    /// to its destination from anybody.
    #[inline(always)]
    pub(super) fn find(
        &self,
        destination: IpAddr,
        port: u16,
        source: IpAddr,
        source_port: u16,
    ) -> Option<u32> {
        if self.ports.connected(port) > 0 {
            let tuple = FourTuple::new(destination, port, source, source_port);
            if let Some(index) = self.find_connected(&tuple) {
                return Some(index);
            }
        }
        let mut next = self.ports.first(port);
        loop {
            let index = next?;
            let socket = self.sockets.get_index(index)?;
            if socket.takes(destination) {
                return Some(index);
            }
            next = socket.next;
        }
    }

    /// Tells the connected socket, if there is one, what ICMP says about what it sent (RFC 1122
    /// section 4.1.3.3). Sockets without a peer are not told: they could not know about which datagram.
    pub fn on_error(&mut self, events: &mut EventQueue, icmp: &IcmpError) {
        let IcmpError { local, remote, kind, .. } = *icmp;
        let tuple = FourTuple::new(local.ip(), local.port(), remote.ip(), remote.port());
        let connected = self.find_connected(&tuple);
        if let IcmpErrorKind::FragmentationNeeded { mtu } = kind {
            // This concerns whoever sends there, with a peer or without.
            let sender = self.find(local.ip(), local.port(), remote.ip(), remote.port());
            if !sender.is_some_and(|index| self.lower_mtu(index, remote.ip(), mtu)) {
                return;
            }
        }
        let Some(index) = connected else { return };
        let Some((key, socket)) = self.sockets.change().entry_mut(index) else { return };
        let error = match kind {
            IcmpErrorKind::PortUnreachable | IcmpErrorKind::ProtocolUnreachable => Error::ConnectionRefused,
            IcmpErrorKind::HostUnreachable
            | IcmpErrorKind::AdminProhibited
            | IcmpErrorKind::TimeExceeded
            | IcmpErrorKind::ParameterProblem => Error::HostUnreachable,
            IcmpErrorKind::NetworkUnreachable => Error::NetworkUnreachable,
            IcmpErrorKind::FragmentationNeeded { .. } => Error::MessageTooLong,
        };
        socket.error = Some(error);
        // The next datagram's call says so.
        socket.way.bend();
        self.counters.in_icmp_errors += 1;
        events.push(&mut socket.mark, SocketId::Udp(UdpId(key)), socket.user_data, Readiness::READABLE);
    }
}

/// A received datagram's payload.
pub(super) struct Body {
    pub(super) data: ScatterGather,
    /// When the device joined several datagrams: the bytes of each; else 0.
    pub(super) segment_bytes: u16,
}

/// Where one socket's datagrams go.
struct Inbox<'a> {
    socket: &'a mut Socket,
    config: &'a UdpConfig,
    counters: &'a mut UdpCounters,
}

impl Inbox<'_> {
    #[inline(never)]
    fn take_body(&mut self, from: SocketAddr, body: Body) {
        let Body { data, segment_bytes } = body;
        if segment_bytes != 0 {
            return self.take_joined(from, data, segment_bytes.into());
        }
        let held_bytes = held_bytes(&data);
        self.take(from, data, held_bytes);
    }

    /// Queues a datagram, or drops it when the queue is full.
    #[inline]
    fn take(&mut self, from: SocketAddr, data: ScatterGather, held_bytes: usize) {
        let UdpConfig { receive_queue_datagrams, receive_queue_bytes, .. } = *self.config;
        if !self.socket.queue.has_room(held_bytes, receive_queue_datagrams, receive_queue_bytes) {
            self.counters.receive_overflows += 1;
            return;
        }
        self.socket.queue.push(Datagram { from, data }, held_bytes);
        self.counters.in_datagrams += 1;
    }

    /// Queues datagrams that the device joined: each of `segment_bytes`, the last one of what is left.
    #[inline(never)]
    fn take_joined(&mut self, from: SocketAddr, joined: ScatterGather, segment_bytes: usize) {
        // They share the memory, so the first one answers for it and the others for their bytes.
        let mut held_bytes = held_bytes(&joined);
        let (mut data, mut missing) = (ScatterGather::new(), segment_bytes);
        for mut piece in joined {
            while piece.len() >= missing {
                data.push(piece.split_to(missing));
                self.take(from, std::mem::take(&mut data), std::mem::replace(&mut held_bytes, segment_bytes));
                missing = segment_bytes;
            }
            missing -= piece.len();
            data.push(piece);
        }
        if !data.is_empty() {
            self.take(from, data, held_bytes);
        }
    }
}

/// Bytes of memory that received data keeps from being reused.
fn held_bytes(data: &ScatterGather) -> usize {
    data.iter().map(|piece| piece.held_bytes()).sum()
}
