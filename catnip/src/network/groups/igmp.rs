//! IGMP on the wire: queries in, reports out.

use std::net::{IpAddr, Ipv4Addr};

use arrayvec::ArrayVec;
use libos::Instant;
use libos::runtime::RxFrame;

use super::table::{Dialect, MAX_V4_REPORT_BYTES, Question, What};
use crate::network::Network;
use crate::network::interface::{ALL_SYSTEMS, group_hardware};
use crate::network::receive::IpInfo;
use crate::wire::ethernet;
use crate::wire::igmp::{self, IgmpMessage, Version};
use crate::wire::ipv4::{self, Ipv4Fields};

/// The protocol's number.
pub(in crate::network) const IGMP: u8 = 2;
/// No message leaves its link (RFC 3376 section 4).
const TIME_TO_LIVE: u8 = 1;
/// RFC 3376 section 4: internetwork control.
const TRAFFIC_CLASS: u8 = 0xc0;

const MAX_MESSAGE_BYTES: usize = igmp::HEADER_BYTES + MAX_V4_REPORT_BYTES;
const HEADER_BYTES: usize = ipv4::HEADER_BYTES + ipv4::ROUTER_ALERT.len();

type Message = ArrayVec<u8, MAX_MESSAGE_BYTES>;

impl Network {
    /// Takes an IGMP message.
    #[cold]
    pub(in crate::network) fn receive_igmp(&mut self, now: Instant, ip: &IpInfo, frame: RxFrame) {
        self.counters.igmp_in_messages += 1;
        let Some(frame) = self.joined(frame) else { return };
        match IgmpMessage::parse(&frame.head) {
            // A router on this link, and not through it, asks.
            Some(IgmpMessage::Query { version, group, max_response_ms, robustness })
                if ip.hop_limit == TIME_TO_LIVE =>
            {
                let dialect = match version {
                    Version::V1 => Dialect::Oldest,
                    Version::V2 => Dialect::Older,
                    Version::V3 => Dialect::Newest,
                };
                // RFC 3376 section 9.1: a question about all groups goes to all hosts.
                if !group.is_unspecified() || ip.destination == IpAddr::V4(ALL_SYSTEMS) {
                    let group = IpAddr::V4(group);
                    let sources = igmp::sources(&frame.head).into_iter().flatten().map(IpAddr::V4);
                    let question = Question { dialect, group, max_response_ms, robustness };
                    self.groups.on_query(now, question, sources);
                }
            }
            Some(IgmpMessage::OthersReport(group)) => self.groups.on_others_report(now, group.into()),
            Some(IgmpMessage::Query { .. } | IgmpMessage::Other) => {}
            None => self.counters.igmp_in_errors += 1,
        }
    }

    /// Sends a report.
    pub(super) fn send_igmp(&mut self, dialect: Dialect, what: &What) {
        match (what, dialect) {
            (What::Records(records), _) => {
                let mut message = Message::new();
                igmp::compose_v3_report(&mut message, records);
                self.send_igmp_message(igmp::V3_ROUTERS, &message);
            }
            (What::Present(groups), dialect) => {
                let version = if dialect == Dialect::Oldest { Version::V1 } else { Version::V2 };
                for group in groups.iter().filter_map(ipv4) {
                    self.send_igmp_message(group, &igmp::compose_report(version, group));
                }
            }
            // RFC 1112: whoever leaves says nothing.
            (What::Left(_), Dialect::Oldest) => {}
            (What::Left(group), Dialect::Older | Dialect::Newest) => {
                if let Some(group) = ipv4(group) {
                    self.send_igmp_message(igmp::ALL_ROUTERS, &igmp::compose_leave(group));
                }
            }
        }
    }

    fn send_igmp_message(&mut self, destination: Ipv4Addr, message: &[u8]) {
        // RFC 3376 section 4.2.13: without an address yet, from none.
        let source = self.interface.first_v4().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut packet = ArrayVec::<u8, { HEADER_BYTES + MAX_MESSAGE_BYTES }>::new();
        let fields = Ipv4Fields {
            traffic_class: TRAFFIC_CLASS,
            total_len: u16::try_from(HEADER_BYTES + message.len()).unwrap_or(u16::MAX),
            identification: 0,
            dont_fragment: true,
            time_to_live: TIME_TO_LIVE,
            protocol: IGMP,
            source,
            destination,
        };
        packet.extend(fields.compose_with_router_alert());
        packet.extend(message.iter().copied());
        let hardware = group_hardware(destination.into());
        if self.send_packet_to(hardware, ethernet::TYPE_IPV4, &packet) {
            self.counters.igmp_out_messages += 1;
        }
    }
}

/// The address, if it is of this family.
fn ipv4(address: &IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    }
}
