//! Received IPv4 packets (RFC 791, RFC 1122 section 3.2.1).

use libos::Instant;
use libos::runtime::RxFrame;

use super::icmp_errors::Complaint;
use super::receive::{IpInfo, Origin, cut, frame_len};
use super::{DestinationKind, Ingress, Network, Protocol};
use crate::wire::ipv4::{self, Ipv4Header, OptionFault};

/// Where the protocol field is.
const PROTOCOL_OFFSET: usize = 9;

impl Network {
    /// Takes an IPv4 packet at the start of `frame`, which may be padded.
    pub(super) fn receive_ipv4(&mut self, now: Instant, frame: RxFrame, origin: Origin) -> Ingress {
        self.counters.ip_in_receives += 1;
        self.take_ipv4(now, frame, origin)
    }

    /// As [`Self::receive_ipv4`], also for a packet that was put together.
    pub(super) fn take_ipv4(&mut self, now: Instant, mut frame: RxFrame, origin: Origin) -> Ingress {
        let Ok(header) = Ipv4Header::parse(&frame.head, frame_len(&frame)) else {
            self.counters.ip_in_header_errors += 1;
            return Ingress::Consumed;
        };
        let (source, destination) = (header.source(), header.destination());
        let kind = match origin {
            Origin::Ourselves => {
                self.interface.is_local(destination.into()).then_some(DestinationKind::Unicast)
            }
            Origin::Host => self.interface.destination_kind_v4(destination),
            // RFC 1122 section 3.3.6: whoever is meant alone is not called through a broadcast.
            Origin::Group => self
                .interface
                .destination_kind_v4(destination)
                .filter(|kind| *kind != DestinationKind::Unicast),
        };
        let kind = kind.or_else(|| self.group_kind(destination.into()));
        let Some(kind) = kind else {
            self.counters.ip_in_address_errors += 1;
            return Ingress::Consumed;
        };
        if origin != Origin::Ourselves && self.interface.is_impossible_source_v4(source) {
            self.counters.ip_in_address_errors += 1;
            return Ingress::Consumed;
        }
        if header.is_fragment() {
            return self.receive_part_v4(now, frame, kind, origin);
        }
        let (header_len, total_len) = (header.header_len(), header.total_len());
        let ip = IpInfo {
            source: source.into(),
            destination: destination.into(),
            kind,
            protocol: header.protocol(),
            traffic_class: header.traffic_class(),
            hop_limit: header.time_to_live(),
            header_len,
            fragmented: false,
            protocol_pointer: PROTOCOL_OFFSET,
        };
        if header_len > ipv4::HEADER_BYTES
            && let Some(fault) = header.option_fault()
        {
            self.counters.ip_in_header_errors += 1;
            let complaint = match fault {
                // RFC 1122, section 3.2.2.5: the sender is told where.
                OptionFault::Malformed { at } => {
                    Complaint::ParameterProblem { code: 0, pointer: at, even_multicast: false }
                }
                // RFC 1122, section 3.3.5: a host that does not forward says so.
                OptionFault::UnfinishedRoute => Complaint::SourceRoute,
            };
            self.complain(now, &ip, complaint, &[&frame.head]);
            return Ingress::Consumed;
        }
        if ip.protocol != Protocol::Tcp.number() {
            self.last_header.keep(&frame.head, header_len);
        }
        cut(&mut frame, header_len, total_len);
        self.deliver(now, &ip, frame)
    }
}
