//! Receiving: from the link to IP, and from IP to whoever the packet is for.

use std::net::IpAddr;

use libos::Instant;
use libos::runtime::{Medium, RxChecksum, RxFrame};

use super::groups::IGMP;
use super::{DestinationKind, Ingress, Network, Packet, Protocol};
use crate::wire::checksum::Checksum;
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::udp::UdpHeader;
use crate::wire::vlan;

const TCP: u8 = Protocol::Tcp.number();
const UDP: u8 = Protocol::Udp.number();
const ICMPV4: u8 = Protocol::Icmpv4.number();
const ICMPV6: u8 = Protocol::Icmpv6.number();

/// How a packet got here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// In a frame for this host.
    Host,
    /// In a frame for everybody, or for a group.
    Group,
    /// Sent by this stack to itself.
    Ourselves,
}

/// What an IP header, of either version, says about its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct IpInfo {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) kind: DestinationKind,
    pub(super) protocol: u8,
    pub(super) traffic_class: u8,
    pub(super) hop_limit: u8,
    /// Bytes of the header, extension headers included.
    pub(super) header_len: usize,
    /// There was a fragment header, though of a packet in one piece.
    pub(super) fragmented: bool,
    /// Bytes from the packet's start to the field that names the protocol.
    pub(super) protocol_pointer: usize,
}

/// Bytes of a received frame in all its segments.
#[inline]
pub(super) fn frame_len(frame: &RxFrame) -> usize {
    if frame.rest.is_empty() { frame.head.len() } else { frame.head.len() + frame.rest.bytes() }
}

/// Leaves of a frame what is beyond `start` and in front of `end`. `start` must be within the head.
#[inline]
pub(super) fn cut(frame: &mut RxFrame, start: usize, end: usize) {
    if end <= frame.head.len() {
        frame.head.truncate(end);
        if !frame.rest.is_empty() {
            frame.rest.clear();
        }
    } else {
        let mut left = end - frame.head.len();
        frame.rest.retain_mut(|piece| {
            piece.truncate(left);
            left -= piece.len();
            !piece.is_empty()
        });
    }
    frame.head.advance(start);
}

impl Network {
    /// Takes one received frame: Ethernet or bare IP, by the device's medium. What is for this layer
    /// is dealt with; what is for a transport comes back. Bounded work, whatever the bytes.
    pub fn receive(&mut self, now: Instant, frame: RxFrame) -> Ingress {
        let plain = match self.device.medium {
            Medium::Ethernet => self.receive_plain::<{ ethernet::HEADER_BYTES }>(&frame),
            Medium::Ip => self.receive_plain::<0>(&frame),
        };
        match plain {
            Some(plain) => {
                self.keep_header(&frame, plain);
                Ingress::Packet(plain.packet(frame))
            }
            None => self.receive_any(now, frame),
        }
    }

    /// Takes a frame of any kind.
    #[inline(never)]
    pub(crate) fn receive_any(&mut self, now: Instant, mut frame: RxFrame) -> Ingress {
        self.counters.link_in_frames += 1;
        if self.device.medium == Medium::Ip {
            return self.receive_ip(now, frame, Origin::Host);
        }
        let Some((header, _)) = EthernetHeader::parse(&frame.head) else {
            self.counters.link_in_malformed += 1;
            return Ingress::Consumed;
        };
        let destination = header.destination();
        let origin = if destination == self.device.hardware_address {
            Origin::Host
        } else if ethernet::is_multicast(destination) {
            Origin::Group
        } else {
            self.counters.link_in_other_host += 1;
            return Ingress::Consumed;
        };
        let mut ether_type = header.ether_type();
        frame.head.advance(ethernet::HEADER_BYTES);
        if ether_type == vlan::TYPE_VLAN || self.vlan.is_some() {
            let Some(tagged) = self.take_tag(ether_type, &mut frame) else {
                self.counters.link_in_other_vlans += 1;
                return Ingress::Consumed;
            };
            ether_type = tagged;
        }
        match ether_type {
            ethernet::TYPE_IPV4 => self.receive_ipv4(now, frame, origin),
            ethernet::TYPE_IPV6 => self.receive_ipv6(now, frame, origin),
            ethernet::TYPE_ARP => {
                self.receive_arp(now, &frame.head);
                Ingress::Consumed
            }
            _ => {
                self.counters.link_in_unknown_types += 1;
                Ingress::Consumed
            }
        }
    }

    /// Takes a VLAN tag off a frame, whose type stood in front of it; the type of what follows. `None` when
    /// the frame is for another VLAN. Tags that have a priority alone are as good as none (802.1Q section 6.9).
    #[cold]
    fn take_tag(&self, ether_type: u16, frame: &mut RxFrame) -> Option<u16> {
        if ether_type != vlan::TYPE_VLAN {
            return None;
        }
        let (id, ether_type) = vlan::parse(&frame.head)?;
        if id != self.vlan {
            return None;
        }
        frame.head.advance(vlan::TAG_BYTES);
        Some(ether_type)
    }

    pub(super) fn receive_from_ourselves(&mut self, now: Instant, frame: RxFrame) -> Ingress {
        self.receive_ip(now, frame, Origin::Ourselves)
    }

    fn receive_ip(&mut self, now: Instant, frame: RxFrame, origin: Origin) -> Ingress {
        match frame.head.first().map(|first| first >> 4) {
            Some(4) => self.receive_ipv4(now, frame, origin),
            Some(6) => self.receive_ipv6(now, frame, origin),
            _ => {
                self.counters.link_in_malformed += 1;
                Ingress::Consumed
            }
        }
    }

    /// Passes on an IP payload: `frame` begins with the transport header and ends with the packet.
    pub(super) fn deliver(&mut self, now: Instant, ip: &IpInfo, frame: RxFrame) -> Ingress {
        match (ip.protocol, ip.source.is_ipv4()) {
            (TCP, _) => self.deliver_transport(ip, Protocol::Tcp, frame),
            (UDP, _) => self.deliver_transport(ip, Protocol::Udp, frame),
            (ICMPV4, true) => {
                self.counters.ip_in_delivers += 1;
                self.receive_icmpv4(now, ip, frame)
            }
            (IGMP, true) => {
                self.counters.ip_in_delivers += 1;
                self.receive_igmp(now, ip, frame);
                Ingress::Consumed
            }
            (ICMPV6, false) => {
                self.counters.ip_in_delivers += 1;
                self.receive_icmpv6(now, ip, frame)
            }
            _ => {
                self.counters.ip_in_unknown_protocols += 1;
                self.send_protocol_unreachable(now, ip, &frame.head);
                Ingress::Consumed
            }
        }
    }

    /// Hands a TCP segment or a UDP datagram up, if its checksum is right.
    fn deliver_transport(&mut self, ip: &IpInfo, protocol: Protocol, mut frame: RxFrame) -> Ingress {
        if protocol == Protocol::Udp {
            let Some(header) = UdpHeader::parse(&frame.head, frame_len(&frame)) else {
                self.counters.udp_in_malformed += 1;
                return Ingress::Consumed;
            };
            let (len, sum) = (header.len(), header.checksum());
            cut(&mut frame, 0, len);
            // RFC 768: zero says that the sender computed none. RFC 8200 section 8.1: not in IPv6,
            // unless the path needs none.
            let right = match (sum, ip.source.is_ipv4()) {
                (0, true) => true,
                (0, false) => !self.wants_checksum(&frame),
                _ => self.checksum_is_right(ip, &frame),
            };
            if !right {
                self.counters.udp_in_checksum_errors += 1;
                return Ingress::Consumed;
            }
        } else if !self.checksum_is_right(ip, &frame) {
            self.counters.tcp_in_checksum_errors += 1;
            return Ingress::Consumed;
        }
        self.counters.ip_in_delivers += 1;
        Ingress::Packet(Packet {
            protocol,
            source: ip.source,
            destination: ip.destination,
            kind: ip.kind,
            head: frame.head,
            rest: frame.rest,
            segment_bytes: frame.segment_bytes,
            traffic_class: ip.traffic_class,
            // Longer chains of extension headers are refused.
            network_header_len: u8::try_from(ip.header_len).unwrap_or(u8::MAX),
        })
    }

    #[inline]
    pub(super) fn wants_checksum(&self, frame: &RxFrame) -> bool {
        self.verify_checksums && frame.checksum == RxChecksum::Unknown
    }

    /// True when the transport's checksum is right, or nobody wants it checked.
    pub(super) fn checksum_is_right(&self, ip: &IpInfo, frame: &RxFrame) -> bool {
        if !self.wants_checksum(frame) {
            return true;
        }
        let mut sum = if ip.protocol == ICMPV4 {
            Checksum::new()
        } else {
            Checksum::pseudo_header(ip.source, ip.destination, ip.protocol, frame_len(frame))
        };
        sum.add_bytes(&frame.head);
        frame.rest.iter().for_each(|piece| sum.add_bytes(piece));
        sum.is_right()
    }
}
