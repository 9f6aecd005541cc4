//! Received parts: checked, kept, and handed on as one packet when all have come.

use std::iter;
use std::net::IpAddr;

use libos::memory::CopyCause;
use libos::runtime::RxFrame;
use libos::{Buffer, Instant};

use super::cache::{Key, Outcome};
use super::parts::{First, Part, Partial};
use crate::network::icmp_errors::Complaint;
use crate::network::ipv6::has_whole_chain;
use crate::network::receive::{IpInfo, Origin, cut};
use crate::network::{DestinationKind, Ingress, Network};
use crate::wire::icmp::v6::parameter;
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::ipv6::{self, FragmentHeader, Ipv6Header};

/// Largest packet that IPv4 expresses, and largest payload that IPv6 does.
const MAX_BYTES: usize = 65535;
/// Where the IPv6 header has the payload's length.
const PAYLOAD_LENGTH_OFFSET: usize = 4;
/// Bytes from the start of a fragment header to its offset.
const FRAGMENT_OFFSET_OFFSET: usize = 2;
/// Packets given up in one poll because their time has run out; the rest in the next.
const EXPIRIES_PER_POLL: usize = 64;
/// Memory that a part may hold besides its bytes. Parts that would hold more are copied, so that small ones
/// do not keep large buffers.
const MAX_SPARE_BYTES: usize = 1024;

/// Where the fragment header of an IPv6 packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) struct FragmentPlace {
    pub(in crate::network) header: FragmentHeader,
    /// Bytes from the packet's start to the fragment header.
    pub(in crate::network) offset: usize,
    /// Bytes from the packet's start to the field that names the fragment header.
    pub(in crate::network) named_at: usize,
}

impl Network {
    /// Takes a part of an IPv4 packet, at the start of `frame`.
    #[cold]
    pub(in crate::network) fn receive_part_v4(
        &mut self,
        now: Instant,
        frame: RxFrame,
        kind: DestinationKind,
        origin: Origin,
    ) -> Ingress {
        self.counters.ip_reasm_reqds += 1;
        let Some(packet) = Ipv4Header::parse_quoted(&frame.head)
            .ok()
            .map(Ipv4Header::total_len)
            .and_then(|total_len| self.compact(frame, total_len))
        else {
            return self.fail_part();
        };
        let Ok(header) = Ipv4Header::parse_quoted(&packet) else { return self.fail_part() };
        let (start, more, header_len) =
            (header.fragment_offset(), header.more_fragments(), header.header_len());
        let Some(data) = packet.try_slice(header_len..) else { return self.fail_part() };
        // RFC 791 section 3.1: parts are cut at multiples of eight bytes, and the whole is no larger than a
        // packet can be.
        let is_cut_wrong = more && !data.len().is_multiple_of(8);
        if data.is_empty() || is_cut_wrong || header_len + start + data.len() > MAX_BYTES {
            return self.fail_part();
        }
        let key = Key {
            source: header.source().into(),
            destination: header.destination().into(),
            protocol: header.protocol(),
            identification: header.identification().into(),
        };
        let traffic_class = header.traffic_class();
        let first =
            (start == 0).then(|| First { packet: packet.clone(), header_len, kind, next_header: None });
        match self.add_part(now, key, Part { start, data, more, traffic_class, first }) {
            Some(whole) => self.take_ipv4(now, RxFrame::from(whole), origin),
            None => Ingress::Consumed,
        }
    }

    /// Takes a part of an IPv6 packet, at the start of `frame`.
    #[cold]
    pub(in crate::network) fn receive_part_v6(
        &mut self,
        now: Instant,
        ip: &IpInfo,
        frame: RxFrame,
        packet_len: usize,
        place: FragmentPlace,
        origin: Origin,
    ) -> Ingress {
        self.counters.ip_reasm_reqds += 1;
        let FragmentPlace { header, offset, named_at } = place;
        let FragmentHeader { next_header, offset: start, more, identification } = header;
        let Some(packet) = self.compact(frame, packet_len) else { return self.fail_part() };
        let Some(data) = packet.try_slice(offset + FragmentHeader::BYTES..) else { return self.fail_part() };
        // RFC 8200 section 4.5, in the order in which it lists what is wrong.
        let whole_len = offset - ipv6::HEADER_BYTES + start + data.len();
        let problem = if more && !data.len().is_multiple_of(8) {
            Some((parameter::ERRONEOUS_FIELD, PAYLOAD_LENGTH_OFFSET))
        } else if whole_len > MAX_BYTES {
            Some((parameter::ERRONEOUS_FIELD, offset + FRAGMENT_OFFSET_OFFSET))
        } else if start == 0 && !has_whole_chain(&packet, offset, next_header) {
            // RFC 7112 section 5.
            Some((parameter::INCOMPLETE_CHAIN, 0))
        } else {
            None
        };
        if let Some((code, pointer)) = problem {
            let complaint = Complaint::ParameterProblem { code, pointer, even_multicast: false };
            self.complain(now, ip, complaint, &[&packet]);
            return self.fail_part();
        }
        if data.is_empty() {
            return self.fail_part();
        }
        let key = Key { source: ip.source, destination: ip.destination, protocol: 0, identification };
        let first = (start == 0).then(|| First {
            packet: packet.clone(),
            header_len: offset,
            kind: ip.kind,
            next_header: Some((named_at, next_header)),
        });
        let part = Part { start, data, more, traffic_class: ip.traffic_class, first };
        match self.add_part(now, key, part) {
            Some(whole) => self.take_reassembled_ipv6(now, RxFrame::from(whole), origin),
            None => Ingress::Consumed,
        }
    }

    fn fail_part(&mut self) -> Ingress {
        self.counters.ip_reasm_fails += 1;
        Ingress::Consumed
    }

    /// The packet at the start of a frame in one buffer that holds little more memory than it needs.
    fn compact(&self, mut frame: RxFrame, packet_len: usize) -> Option<Buffer> {
        cut(&mut frame, 0, packet_len);
        if frame.rest.is_empty() && frame.head.held_bytes() <= frame.head.len() + MAX_SPARE_BYTES {
            return Some(frame.head);
        }
        let pieces = iter::once(&frame.head).chain(&frame.rest);
        Some(self.arena.gather(CopyCause::Reassembled, pieces)?.freeze())
    }

    /// Keeps a part; returns the whole packet when that was the last one missing.
    fn add_part(&mut self, now: Instant, key: Key, part: Part) -> Option<Buffer> {
        let outcome = self.fragments.add(now, key, part);
        self.counters.ip_reasm_fails += self.fragments.take_evicted();
        let whole = match outcome {
            Outcome::Waiting => return None,
            Outcome::Dropped => None,
            Outcome::Complete(partial) => self.put_together(&partial),
        };
        match whole {
            Some(_) => self.counters.ip_reasm_oks += 1,
            None => self.counters.ip_reasm_fails += 1,
        }
        whole
    }

    /// The packet that was cut. `None` without memory, or when it is to be dropped.
    fn put_together(&self, partial: &Partial) -> Option<Buffer> {
        let first = partial.first()?;
        let mut packet = self.arena.allocate(partial.len())?;
        partial.write(&mut packet);
        self.arena.count_copy(CopyCause::Reassembled, packet.len());
        match first.next_header {
            None => {
                let (header, _) = packet.split_at_mut_checked(first.header_len)?;
                let traffic_class = partial.merged_traffic_class(*header.get(1)?)?;
                *header.get_mut(1)? = traffic_class;
                ipv4::make_part(header, u16::try_from(partial.len()).ok()?, 0, false);
            }
            Some((named_at, next_header)) => {
                let header = Ipv6Header::parse_quoted(&packet).ok()?;
                let traffic_class = partial.merged_traffic_class(header.traffic_class())?;
                let payload_len = u16::try_from(partial.len() - ipv6::HEADER_BYTES).ok()?;
                *packet.get_mut(named_at)? = next_header;
                ipv6::mend(packet.first_chunk_mut()?, traffic_class, payload_len);
            }
        }
        Some(packet.freeze())
    }

    /// Gives up packets whose parts have been waited for long enough. Bounded work.
    #[cold]
    pub(in crate::network) fn expire_parts(&mut self, now: Instant) {
        for _ in 0..EXPIRIES_PER_POLL {
            let Some((key, partial)) = self.fragments.take_expired(now) else { return };
            self.counters.ip_reasm_timeout += 1;
            self.counters.ip_reasm_fails += 1;
            // RFC 792, RFC 8200 section 4.5: only of packets whose first part has come the sender is told.
            if let Some(First { packet, kind, .. }) = partial.first() {
                let ip = quoted_info(&key, *kind);
                self.complain(now, &ip, Complaint::ReassemblyTime, &[packet]);
            }
        }
    }
}

/// As much of a packet's header as an error about it needs.
fn quoted_info(key: &Key, kind: DestinationKind) -> IpInfo {
    let (source, destination): (IpAddr, IpAddr) = (key.source, key.destination);
    IpInfo {
        source,
        destination,
        kind,
        protocol: key.protocol,
        traffic_class: 0,
        hop_limit: 0,
        header_len: 0,
        fragmented: true,
        protocol_pointer: 0,
    }
}
