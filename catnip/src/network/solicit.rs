//! Asking for neighbours and telling about ourselves, by whichever protocol the address needs.

use std::collections::VecDeque;
use std::net::IpAddr;

use libos::Instant;

use super::neighbor::PendingPacket;
use super::quoted::Quoted;
use super::{IcmpErrorKind, MAX_UNREPORTED_ERRORS, Network};
use crate::stack::MAX_ADDRESSES;
use crate::wire::ethernet;
use crate::wire::ndp::solicited_node;

impl Network {
    /// Asks for a neighbour's address: everybody, or the one who had it last.
    pub(super) fn solicit(&mut self, now: Instant, address: IpAddr, known: Option<ethernet::Address>) {
        match address {
            IpAddr::V4(address) => self.request_arp(address, known),
            IpAddr::V6(address) => self.request_ndp(now, address, known),
        }
    }

    /// Joins the groups in which our IPv6 addresses are asked for (RFC 4291 section 2.7.1).
    pub(super) fn join_own_groups(&mut self, now: Instant) {
        let addresses: arrayvec::ArrayVec<IpAddr, { MAX_ADDRESSES + 1 }> =
            self.interface.addresses().collect();
        for address in addresses {
            if let IpAddr::V6(address) = address {
                let joined = self.join_group(now, solicited_node(address).into());
                debug_assert!(joined.is_ok(), "there are more groups than addresses");
            }
        }
    }

    /// Tells the link which addresses are ours, so that old entries in others' caches go.
    pub(super) fn announce_addresses(&mut self) {
        let addresses: arrayvec::ArrayVec<IpAddr, { MAX_ADDRESSES + 1 }> =
            self.interface.addresses().collect();
        for address in addresses {
            match address {
                IpAddr::V4(address) => self.announce_arp(address),
                IpAddr::V6(address) => self.announce_ndp(address),
            }
        }
    }

    /// Tells the transports that packets were dropped because a neighbour does not answer
    /// (RFC 4861 section 7.2.2; RFC 1122 section 2.3.2.2 for the queue).
    pub(super) fn report_unreachable(&mut self, packets: &VecDeque<PendingPacket>) {
        for packet in packets {
            let quoted = match packet.ip().first().map(|first| first >> 4) {
                Some(4) => Quoted::parse_v4(packet.ip()),
                Some(6) => Quoted::parse_v6(packet.ip()),
                _ => None,
            };
            if let Some(quoted) = quoted.filter(|_| self.unreported.len() < MAX_UNREPORTED_ERRORS) {
                self.unreported.push_back(quoted.error(IcmpErrorKind::HostUnreachable));
            }
        }
    }
}
