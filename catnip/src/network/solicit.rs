//! Asking for neighbours and telling about ourselves, by whichever protocol the address needs.

use std::collections::VecDeque;
use std::net::IpAddr;

use libos::Instant;

use super::neighbor::PendingPacket;
use super::quoted::Quoted;
use super::{IcmpErrorKind, MAX_UNREPORTED_ERRORS, Network};
use crate::wire::ethernet;

impl Network {
    /// Asks for a neighbour's address: everybody, or the one who had it last.
    pub(super) fn solicit(&mut self, now: Instant, address: IpAddr, known: Option<ethernet::Address>) {
        match address {
            IpAddr::V4(address) => self.request_arp(address, known),
            IpAddr::V6(address) => self.request_ndp(now, address, known),
        }
    }

    /// True when a question about an address of ours may be answered; false when too many were.
    pub(super) fn may_answer(&mut self, now: Instant) -> bool {
        let may = self.neighbor_answers.take(now);
        self.counters.neighbor_answers_limited += u64::from(!may);
        may
    }

    /// Tells the transports that packets were dropped because a neighbour does not answer
    /// (RFC 4861 section 7.2.2; RFC 1122 section 2.3.2.2 for the queue).
    pub(super) fn report_unreachable(&mut self, packets: &VecDeque<PendingPacket>) {
        let link_header_len = self.link_header_len();
        for packet in packets {
            let ip = packet.ip(link_header_len);
            let quoted = match ip.first().map(|first| first >> 4) {
                Some(4) => Quoted::parse_v4(ip),
                Some(6) => Quoted::parse_v6(ip),
                _ => None,
            };
            if let Some(quoted) = quoted.filter(|_| self.unreported.len() < MAX_UNREPORTED_ERRORS) {
                self.unreported.push_back(quoted.error(IcmpErrorKind::HostUnreachable));
            }
        }
    }
}
