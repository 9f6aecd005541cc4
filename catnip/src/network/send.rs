//! Sending: checksum, IP header and link header in front of a transport's packet, and off to the
//! device, to the queue of a neighbour, or back to ourselves.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use libos::memory::CopyCause;
use libos::runtime::{Medium, PartialChecksum, RxChecksum, RxFrame, Segmentation, TxChecksum, TxOffload};
use libos::{Buffer, BufferList, Error, Instant};

use super::fragment::IdentificationSlot;
use super::interface::NextHop;
use super::neighbor::{PendingPacket, Resolution};
use super::path::Exit;
use super::{HeaderBuffer, Network, Outgoing, Path, Payload, PieceList, Protocol};
use crate::slab::Key;
use crate::wire::checksum::Checksum;
use crate::wire::ethernet::{self, Address};
use crate::wire::ipv4::{self, Ipv4Fields};
use crate::wire::ipv6::{self, Ipv6Fields};
use crate::wire::vlan;

/// Largest packet that IP can express, which only segmentation offload composes on smaller links.
const MAX_PACKET_BYTES: usize = 65535;

/// Longest frame of those that this layer composes in one go: an IPv6 packet that every link carries.
const MAX_OWN_FRAME_BYTES: usize = 1294;

/// Where a packet goes once its headers are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the device, for a station on the link.
    Link(Address),
    /// To the device, which knows no stations.
    Medium,
    /// Into the queue of a neighbour whose address is being looked for.
    Wait(Key),
    /// Back to ourselves.
    Loop,
}

/// What there is to be known of a packet's transport besides its header.
#[derive(Debug, Clone, Copy)]
struct Transport {
    protocol: Protocol,
    checksum_offset: usize,
    /// Bytes of header and payload.
    len: usize,
    segment_bytes: Option<u16>,
    /// The packet is to be cut: no device can complete its checksum.
    cut: bool,
}

impl Network {
    /// Sends one transport packet along `path`. Checksum, IP header and link header are put on here.
    /// A packet to a neighbour whose address is not known yet waits for it, and is dropped if nobody
    /// answers.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] when the queue to the device is full, [`Error::MessageTooLong`] for a
    /// packet beyond what IP expresses, or one that may not be cut and is beyond the path's MTU, [`Error::HostUnreachable`] when the neighbour was given up lately,
    /// [`Error::NoBuffers`] when there is no memory for headers or no place for one more neighbour. In
    /// each case nothing was sent and the payload is untouched.
    #[inline(always)]
    pub fn send(&mut self, now: Instant, path: &mut Path, packet: Outgoing<'_>) -> Result<(), Error> {
        self.counters.ip_out_requests += 1;
        if self.transmit_queue_is_full() {
            self.counters.link_out_queue_full += 1;
            return Err(Error::WouldBlock);
        }
        self.send_any(now, path, packet)
    }

    #[inline(always)]
    fn ipv4_fields(
        &mut self,
        (source, destination): (Ipv4Addr, Ipv4Addr),
        (slot, dont_fragment): (IdentificationSlot, bool),
        protocol: Protocol,
        hop_limit: u8,
        traffic_class: u8,
        packet_len: usize,
    ) -> Ipv4Fields {
        Ipv4Fields {
            traffic_class,
            total_len: narrow(packet_len),
            // RFC 6864 section 4.1: the identification of a packet that is never cut means nothing.
            identification: if dont_fragment { 0 } else { self.identifications.next_v4(slot) },
            dont_fragment,
            // RFC 1122 section 3.2.1.7: nothing is sent with a time to live of zero.
            time_to_live: hop_limit.max(1),
            protocol: protocol.number(),
            source,
            destination,
        }
    }

    /// Sends a packet of any kind.
    #[inline(never)]
    fn send_any(&mut self, now: Instant, path: &mut Path, packet: Outgoing<'_>) -> Result<(), Error> {
        let Outgoing {
            protocol,
            headers,
            checksum_offset,
            mut payload,
            segment_bytes,
            hop_limit,
            traffic_class,
        } = packet;
        let transport_len = headers.transport_header().len() + payload.len();
        // IPv4's length includes its header.
        let (ip_header_len, max_len) = match path.local {
            IpAddr::V4(_) => (ipv4::HEADER_BYTES, MAX_PACKET_BYTES),
            IpAddr::V6(_) => (ipv6::HEADER_BYTES, MAX_PACKET_BYTES + ipv6::HEADER_BYTES),
        };
        let packet_len = ip_header_len + transport_len;
        let fits = segment_bytes.is_some() || path.exit == Exit::Loop || packet_len <= path.mtu;
        // A transport that chooses its packets' sizes has none of them cut.
        if packet_len > max_len || !fits && (protocol == Protocol::Tcp || !path.policy.may_be_cut) {
            self.counters.ip_frag_fails += 1;
            return Err(Error::MessageTooLong);
        }
        let way = match path.exit {
            Exit::Neighbor { .. } if path.generation != self.interface.generation() => {
                self.reroute(path)?;
                self.resolve(now, path)?
            }
            Exit::Neighbor { key, .. } => match self.neighbors.usable(now, key) {
                Some(hardware) => Way::Link(hardware),
                None => self.resolve(now, path)?,
            },
            Exit::Fixed(hardware) => Way::Link(hardware),
            Exit::Medium => Way::Medium,
            Exit::Loop => Way::Loop,
        };
        let untouched = self.device.tx_checksum == TxChecksum::Unneeded && segment_bytes.is_none() && fits;
        let offload = if untouched || way == Way::Loop {
            TxOffload::default()
        } else {
            let transport =
                Transport { protocol, checksum_offset, len: transport_len, segment_bytes, cut: !fits };
            self.complete(path, transport, headers, &payload)
        };
        let ether_type = match (path.local, path.remote) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let ends = (source, destination);
                let fields = self.ipv4_fields(
                    ends,
                    (path.identification, (protocol == Protocol::Tcp || path.policy.dont_fragment) && fits),
                    protocol,
                    hop_limit,
                    traffic_class,
                    packet_len,
                );
                headers.put_ipv4(fields.compose());
                ethernet::TYPE_IPV4
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let fields = Ipv6Fields {
                    traffic_class,
                    payload_len: narrow(transport_len),
                    next_header: protocol.number(),
                    hop_limit: hop_limit.max(1),
                    source,
                    destination,
                };
                headers.put_ipv6(fields.compose());
                ethernet::TYPE_IPV6
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                return Err(Error::InvalidArgument);
            }
        };
        if path.policy.copy_to_ourselves && self.is_in_group(path.remote) {
            self.loop_copy(headers, &payload);
        }
        match way {
            Way::Link(hardware) => {
                self.put_link_header(headers, hardware, ether_type);
                if let (Exit::Neighbor { key, .. }, ethernet::TYPE_IPV4) = (path.exit, ether_type) {
                    path.unconfirmed = !self.neighbors.is_confirmed(key);
                    // The flags of one that is cut are not those of others, and tags have no place there.
                    if fits && self.vlan.is_none() {
                        self.keep_express(path, key, headers, protocol, hop_limit, traffic_class);
                    }
                }
                if fits {
                    self.emit(headers, &mut payload, offload)
                } else {
                    self.emit_cut(headers.all(), payload.buffers(), path.mtu)
                }
            }
            Way::Medium if fits => self.emit(headers, &mut payload, offload),
            Way::Medium => self.emit_cut(headers.all(), payload.buffers(), path.mtu),
            Way::Wait(key) => {
                self.put_link_header(headers, [0; 6], ether_type);
                let cut_to = (!fits).then_some(path.mtu);
                let queued = self.enqueue(key, headers, payload, (offload, cut_to));
                self.or_discard(queued)
            }
            Way::Loop => {
                let looped = self.loop_back(headers, payload, segment_bytes);
                self.or_discard(looped)
            }
        }
    }

    /// Bytes of the headers below IP.
    pub(super) const fn link_header_len(&self) -> usize {
        match self.device.medium {
            Medium::Ethernet if self.vlan.is_some() => ethernet::HEADER_BYTES + vlan::TAG_BYTES,
            Medium::Ethernet => ethernet::HEADER_BYTES,
            Medium::Ip => 0,
        }
    }

    fn put_link_header(&self, headers: &mut HeaderBuffer, hardware: Address, ether_type: u16) {
        headers.put_ethernet(ethernet::compose(hardware, self.device.hardware_address, ether_type));
        if let Some(vlan) = self.vlan {
            headers.put_tag(vlan.tag());
        }
    }

    fn or_discard(&mut self, sent: Option<()>) -> Result<(), Error> {
        self.counters.ip_out_discards += u64::from(sent.is_none());
        sent.ok_or(Error::NoBuffers)
    }

    /// Chooses a path's next hop again: addresses or routes have changed since.
    #[cold]
    fn reroute(&mut self, path: &mut Path) -> Result<(), Error> {
        if !self.interface.is_local(path.local) {
            return Err(Error::AddressNotAvailable);
        }
        match self.interface.next_hop_around(path.remote, |router| self.neighbors.has_failed(router)) {
            Some(NextHop::Neighbor(next_hop)) => {
                path.exit = Exit::Neighbor { next_hop, key: self.neighbors.find(next_hop) };
                path.generation = self.interface.generation();
                Ok(())
            }
            // Nobody's connection turns into one to ourselves or to a group.
            Some(NextHop::Ourselves | NextHop::Broadcast | NextHop::Group) | None => {
                self.counters.ip_out_no_routes += 1;
                Err(Error::NetworkUnreachable)
            }
        }
    }

    /// The way when the neighbour's address is old or not known.
    #[cold]
    fn resolve(&mut self, now: Instant, path: &mut Path) -> Result<Way, Error> {
        let Exit::Neighbor { next_hop, key } = &mut path.exit else { return Ok(Way::Loop) };
        match self.neighbors.resolve(now, *next_hop) {
            Resolution::Known(known, hardware) => {
                *key = known;
                path.unconfirmed = !self.neighbors.is_confirmed(known);
                Ok(Way::Link(hardware))
            }
            Resolution::Wait { key: waiting, ask } => {
                *key = waiting;
                if ask {
                    let next_hop = *next_hop;
                    self.solicit(now, next_hop, None);
                }
                Ok(Way::Wait(waiting))
            }
            Resolution::Refused(error) => Err(error),
        }
    }

    /// Fills in the transport's checksum, or as much of it as the device wants, and says what the
    /// device has to do.
    #[inline(never)]
    fn complete(
        &self,
        path: &Path,
        transport: Transport,
        headers: &mut HeaderBuffer,
        payload: &Payload<'_>,
    ) -> TxOffload {
        let Transport { protocol, checksum_offset, len, segment_bytes, cut } = transport;
        let link_len = self.link_header_len();
        let ip_header_len = if path.local.is_ipv4() { ipv4::HEADER_BYTES } else { ipv6::HEADER_BYTES };
        let start = link_len + ip_header_len;
        let segmentation = segment_bytes.map(|segment_bytes| Segmentation {
            segment_bytes,
            header_bytes: narrow(start + headers.transport_header().len()),
            ipv6: path.local.is_ipv6(),
        });
        if self.device.tx_checksum == TxChecksum::Unneeded && !cut {
            return TxOffload::new(None, segmentation);
        }
        // The device that cuts a packet computes each segment's checksum. Devices are not asked to
        // complete ICMP checksums: not all can.
        let partial = !cut
            && (self.device.tx_checksum == TxChecksum::Partial || segment_bytes.is_some())
            && matches!(protocol, Protocol::Tcp | Protocol::Udp);
        let mut sum = match protocol {
            Protocol::Icmpv4 => Checksum::new(),
            Protocol::Tcp | Protocol::Udp | Protocol::Icmpv6 => {
                Checksum::pseudo_header(path.local, path.remote, protocol.number(), len)
            }
        };
        let header = headers.transport_mut();
        let value = if partial {
            sum.partial()
        } else {
            sum.add_bytes(header);
            match payload {
                Payload::Empty => {}
                Payload::Whole(buffer) => sum.add_bytes(buffer),
                Payload::Pieces(pieces) => pieces.iter().for_each(|piece| sum.add_bytes(piece)),
            }
            // RFC 768: zero would say that there is no checksum.
            match (sum.finish(), protocol) {
                (0, Protocol::Udp) => 0xffff,
                (value, _) => value,
            }
        };
        if let Some(field) = header.get_mut(checksum_offset..).and_then(|bytes| bytes.first_chunk_mut()) {
            *field = value.to_be_bytes();
        }
        let checksum =
            partial.then(|| PartialChecksum { start: narrow(start), offset: checksum_offset as u8 });
        TxOffload::new(checksum, segmentation)
    }

    /// Queues a finished frame for the device. Nothing is done when there is no memory.
    #[inline]
    fn emit(
        &mut self,
        headers: &HeaderBuffer,
        payload: &mut Payload<'_>,
        offload: TxOffload,
    ) -> Result<(), Error> {
        if let Payload::Whole(buffer) = payload
            && let Some(frame) = buffer.with_header(headers.all())
        {
            self.frames.push(frame);
        } else {
            let pushed = self.push_separately(headers, payload);
            self.or_discard(pushed)?;
        }
        self.frames.finish(offload);
        self.counters.link_out_frames += 1;
        Ok(())
    }

    /// Queues the headers in a buffer of their own, and the payload behind it.
    #[inline(never)]
    fn push_separately(&mut self, headers: &HeaderBuffer, payload: &mut Payload<'_>) -> Option<()> {
        match payload {
            Payload::Empty => self.frames.push(self.arena.copy_from(headers.all())?.freeze()),
            Payload::Whole(buffer) => {
                self.frames.push(self.arena.copy_from(headers.all())?.freeze());
                self.frames.push(buffer.clone());
            }
            Payload::Pieces(pieces) => {
                self.gather(pieces)?;
                self.frames.push(self.arena.copy_from(headers.all())?.freeze());
                pieces.drain(..).for_each(|piece| self.frames.push(piece));
            }
        }
        Some(())
    }

    /// Copies the pieces together when a frame cannot have so many.
    #[inline]
    fn gather(&self, pieces: &mut PieceList) -> Option<()> {
        if pieces.len() <= self.max_pieces() {
            return Some(());
        }
        let whole = self.arena.gather(CopyCause::Gathered, pieces.iter())?;
        pieces.clear();
        pieces.push(whole.freeze());
        Some(())
    }

    /// Queues a packet for a neighbour whose address is being looked for.
    #[cold]
    fn enqueue(
        &mut self,
        key: Key,
        headers: &HeaderBuffer,
        payload: Payload<'_>,
        (offload, cut_to): (TxOffload, Option<usize>),
    ) -> Option<()> {
        if let Payload::Pieces(pieces) = payload {
            self.gather(pieces)?;
            let headers = self.arena.copy_from(headers.all())?;
            let payload = pieces.drain(..).collect();
            self.neighbors.queue(key, PendingPacket { headers, payload, offload, cut_to });
        } else {
            let headers = self.arena.copy_from(headers.all())?;
            let payload = payload.into_buffers();
            self.neighbors.queue(key, PendingPacket { headers, payload, offload, cut_to });
        }
        Some(())
    }

    /// Queues a packet on its way back to ourselves. The list of further buffers may be allocated:
    /// programs that talk to their own address are not in a hurry.
    #[inline(never)]
    fn loop_back(
        &mut self,
        headers: &HeaderBuffer,
        mut payload: Payload<'_>,
        segment_bytes: Option<u16>,
    ) -> Option<()> {
        if self.looped.len() >= self.max_looped {
            // As on any link with a full queue: the packet is lost, the sender is not told.
            self.counters.loop_queue_full += 1;
            return Some(());
        }
        let whole = match &mut payload {
            Payload::Whole(buffer) => buffer.with_header(headers.all()),
            Payload::Empty | Payload::Pieces(_) => None,
        };
        let (head, rest) = match whole {
            Some(head) => (head, BufferList::new()),
            None => (self.arena.copy_from(headers.all())?.freeze(), payload.into_buffers().into()),
        };
        let (checksum, segment_bytes) = (RxChecksum::Verified, segment_bytes.unwrap_or(0));
        self.looped.push_back(RxFrame { head, rest, checksum, segment_bytes });
        Some(())
    }

    /// Queues a copy of a packet to a group on its way back to ourselves. Without room or memory it is
    /// lost, as on any link.
    #[cold]
    fn loop_copy(&mut self, headers: &HeaderBuffer, payload: &Payload<'_>) {
        let head = self.arena.copy_from(headers.all()).filter(|_| self.looped.len() < self.max_looped);
        let Some(head) = head else {
            self.counters.loop_queue_full += 1;
            return;
        };
        let (head, rest) = (head.freeze(), payload.buffers().to_vec().into());
        self.looped.push_back(RxFrame { head, rest, checksum: RxChecksum::Verified, segment_bytes: 0 });
    }

    /// Sends the packets that waited for a neighbour's address.
    pub(super) fn send_released(&mut self, released: super::neighbor::Released) {
        for packet in released.packets {
            let PendingPacket { mut headers, payload, offload, cut_to } = packet;
            if let Some(destination) = headers.first_chunk_mut::<6>() {
                *destination = released.hardware;
            }
            if let Some(mtu) = cut_to {
                // Without memory it is lost, as on the link, and counted.
                let _ = self.emit_cut(&headers, &payload, mtu);
                continue;
            }
            self.frames.push(headers.freeze());
            payload.into_iter().for_each(|piece| self.frames.push(piece));
            self.frames.finish(offload);
            self.counters.link_out_frames += 1;
        }
    }

    /// Queues an IP packet of this layer's own for a station on the link; drops it when there is no room
    /// or no memory.
    pub(super) fn send_packet_to(&mut self, hardware: Address, ether_type: u16, packet: &[u8]) -> bool {
        match self.device.medium {
            Medium::Ip => self.send_frame(packet),
            Medium::Ethernet => {
                let mut frame = ArrayVec::<u8, MAX_OWN_FRAME_BYTES>::new();
                frame.extend(ethernet::compose(hardware, self.device.hardware_address, ether_type));
                frame.try_extend_from_slice(packet).is_ok() && self.send_frame(&frame)
            }
        }
    }

    /// Queues a frame of this layer's own for the device; drops it when there is no room or no memory.
    pub(super) fn send_frame(&mut self, frame: &[u8]) -> bool {
        if self.transmit_queue_is_full() {
            self.counters.link_out_queue_full += 1;
            return false;
        }
        let copy = match (self.vlan, frame.split_at_checked(ethernet::TYPE_OFFSET)) {
            (Some(vlan), Some((addresses, behind))) => {
                self.arena.allocate(frame.len() + vlan::TAG_BYTES).map(|mut copy| {
                    [addresses, &vlan.tag(), behind].iter().for_each(|part| {
                        copy.extend_from_slice(part);
                    });
                    copy
                })
            }
            (Some(_), None) | (None, _) => self.arena.copy_from(frame),
        };
        let Some(frame) = copy else {
            self.counters.ip_out_discards += 1;
            return false;
        };
        self.frames.push(frame.freeze());
        self.frames.finish(TxOffload::default());
        self.counters.link_out_frames += 1;
        true
    }
}

/// Lengths that were checked against [`MAX_PACKET_BYTES`], or are those of headers.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "checked before")]
const fn narrow(len: usize) -> u16 {
    debug_assert!(len <= MAX_PACKET_BYTES);
    len as u16
}

impl Payload<'_> {
    /// The buffers where they are.
    fn buffers(&self) -> &[Buffer] {
        match self {
            Self::Empty => &[],
            Self::Whole(buffer) => std::slice::from_ref(buffer),
            Self::Pieces(pieces) => pieces,
        }
    }

    /// The buffers in a list of their own; pieces are taken out, a whole one is shared.
    fn into_buffers(self) -> Vec<Buffer> {
        match self {
            Self::Empty => Vec::new(),
            Self::Whole(buffer) => vec![buffer.clone()],
            Self::Pieces(pieces) => pieces.drain(..).collect(),
        }
    }
}
