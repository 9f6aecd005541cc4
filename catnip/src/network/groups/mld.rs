//! MLD on the wire: queries in, reports out.

use std::net::{IpAddr, Ipv6Addr};

use arrayvec::ArrayVec;
use libos::Instant;

use super::table::{Dialect, MAX_V6_REPORT_BYTES, Question, What};
use crate::network::interface::group_hardware;
use crate::network::receive::IpInfo;
use crate::network::{Network, Protocol};
use crate::wire::checksum::Checksum;
use crate::wire::ipv6::{self, Ipv6Fields};
use crate::wire::mld::{self, Query, Version};
use crate::wire::{ethernet, icmp};

/// No message leaves its link (RFC 3810 section 5).
const HOP_LIMIT: u8 = 1;

const MAX_MESSAGE_BYTES: usize = mld::V2_REPORT_HEADER_BYTES + MAX_V6_REPORT_BYTES;
const HEADERS_BYTES: usize = ipv6::HEADER_BYTES + mld::ROUTER_ALERT.len();

type Message = ArrayVec<u8, MAX_MESSAGE_BYTES>;

impl Network {
    /// Takes an MLD message whose checksum is right.
    #[cold]
    pub(in crate::network) fn receive_mld(&mut self, now: Instant, ip: &IpInfo, message: &[u8]) {
        // RFC 3810 section 6.2: what does not come from this link is no router's of this link.
        let from_link = match ip.source {
            IpAddr::V6(source) => source.is_unicast_link_local() && ip.hop_limit == HOP_LIMIT,
            IpAddr::V4(_) => false,
        };
        match (message.first(), from_link) {
            (Some(&mld::QUERY), true) => {
                let Some(Query { version, group, max_response_ms, robustness }) = Query::parse(message)
                else {
                    self.counters.icmp_in_errors += 1;
                    return;
                };
                let dialect = match version {
                    Version::V1 => Dialect::Older,
                    Version::V2 => Dialect::Newest,
                };
                let group = IpAddr::V6(group);
                let sources = mld::sources(message).into_iter().flatten().map(IpAddr::V6);
                let question = Question { dialect, group, max_response_ms, robustness };
                self.groups.on_query(now, question, sources);
            }
            (Some(&mld::V1_REPORT), true) => {
                if let Some(group) = mld::group(message) {
                    self.groups.on_others_report(now, group.into());
                }
            }
            (Some(&mld::QUERY), false) => self.counters.icmp_in_errors += 1,
            // What others tell routers.
            _ => {}
        }
    }

    /// Sends a report.
    pub(super) fn send_mld(&mut self, what: &What) {
        match what {
            What::Records(records) => {
                let mut message = Message::new();
                mld::compose_v2_report(&mut message, records);
                self.send_mld_message(mld::V2_ROUTERS, message);
            }
            What::Present(groups) => {
                for group in groups.iter().filter_map(ipv6) {
                    self.send_mld_v1(group, mld::V1_REPORT, group);
                }
            }
            What::Left(group) => {
                if let Some(group) = ipv6(group) {
                    self.send_mld_v1(mld::ALL_ROUTERS, mld::V1_DONE, group);
                }
            }
        }
    }

    fn send_mld_v1(&mut self, destination: Ipv6Addr, kind: u8, group: Ipv6Addr) {
        self.send_mld_message(destination, mld::compose_v1(kind, group).into_iter().collect());
    }

    fn send_mld_message(&mut self, destination: Ipv6Addr, mut message: Message) {
        // RFC 3810 section 5.2.13: without an address on the link yet, from none.
        let source = self.interface.link_local().unwrap_or(Ipv6Addr::UNSPECIFIED);
        let mut sum =
            Checksum::pseudo_header_v6(&source, &destination, Protocol::Icmpv6.number(), message.len());
        sum.add_bytes(&message);
        if let Some(field) = message.get_mut(icmp::CHECKSUM_OFFSET..icmp::CHECKSUM_OFFSET + 2) {
            field.copy_from_slice(&sum.finish().to_be_bytes());
        }
        let fields = Ipv6Fields {
            traffic_class: 0,
            payload_len: u16::try_from(mld::ROUTER_ALERT.len() + message.len()).unwrap_or(u16::MAX),
            next_header: ipv6::next_header::HOP_BY_HOP,
            hop_limit: HOP_LIMIT,
            source,
            destination,
        };
        let mut packet = ArrayVec::<u8, { HEADERS_BYTES + MAX_MESSAGE_BYTES }>::new();
        packet.extend(fields.compose());
        packet.extend(mld::ROUTER_ALERT);
        packet.extend(message);
        let hardware = group_hardware(destination.into());
        if self.send_packet_to(hardware, ethernet::TYPE_IPV6, &packet) {
            self.counters.icmp_out_messages += 1;
        }
    }
}

/// The address, if it is of this family.
fn ipv6(address: &IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    }
}
