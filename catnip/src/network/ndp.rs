//! Neighbour discovery: solicitations and advertisements (RFC 4861 section 7.2).

use std::net::{IpAddr, Ipv6Addr};

use libos::Instant;
use libos::runtime::Medium;

use super::fragment::IdentificationSlot;
use super::interface::{ALL_NODES, NextHop, group_hardware};
use super::neighbor::Claim;
use super::path::{Exit, Express};
use super::receive::IpInfo;
use super::{HeaderBuffer, Network, Outgoing, Path, Payload, Protocol, SendPolicy};
use crate::wire::ethernet;
use crate::wire::icmp;
use crate::wire::ndp::{AdvertisementFlags, MESSAGE_BYTES, NeighborMessage, solicited_node};

/// What shows that a message was not forwarded by any router (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;

impl Network {
    /// Takes a neighbour solicitation or advertisement whose checksum is right.
    pub(super) fn receive_ndp(&mut self, now: Instant, ip: &IpInfo, message: &[u8]) {
        // RFC 4861 sections 7.1.1 and 7.1.2; RFC 6980 section 5 for fragments.
        let message = NeighborMessage::parse(message).filter(|_| {
            ip.hop_limit == HOP_LIMIT && !ip.fragmented && self.device.medium == Medium::Ethernet
        });
        let (Some(message), IpAddr::V6(source), IpAddr::V6(destination)) =
            (message, ip.source, ip.destination)
        else {
            self.counters.icmp_in_errors += 1;
            return;
        };
        match message {
            NeighborMessage::Solicitation { target, source: hardware, nonce } => {
                if source.is_unspecified() && (hardware.is_some() || destination != solicited_node(target)) {
                    self.counters.icmp_in_errors += 1;
                    return;
                }
                // RFC 4862 section 5.4.3: who asks from nowhere wants the address that we want too. RFC 7527
                // section 4.2: unless it is our own question that comes back.
                if self.addresses.is_tentative(target.into()) {
                    if source.is_unspecified() && nonce != Some(self.addresses.nonce()) {
                        self.on_address_conflict(now, target.into());
                    }
                    return;
                }
                self.receive_solicitation(now, source, target, hardware);
            }
            NeighborMessage::Advertisement { flags, target, hardware } => {
                if source.is_unspecified() || destination.is_multicast() && flags.solicited {
                    self.counters.icmp_in_errors += 1;
                    return;
                }
                // RFC 4862 section 5.4.4.
                if self.interface.is_own_v6(target) || self.addresses.is_tentative(target.into()) {
                    self.on_address_conflict(now, target.into());
                    return;
                }
                let hardware = hardware.filter(|hardware| !ethernet::is_multicast(*hardware));
                if !flags.router {
                    self.on_router_became_host(now, target);
                }
                let claim = Claim { solicited: flags.solicited, overriding: flags.overriding, create: false };
                if let Some(released) = self.neighbors.learn(now, target.into(), hardware, claim) {
                    self.send_released(released);
                }
            }
        }
    }

    fn receive_solicitation(
        &mut self,
        now: Instant,
        source: Ipv6Addr,
        target: Ipv6Addr,
        hardware: Option<ethernet::Address>,
    ) {
        if !self.interface.is_own_v6(target) {
            return;
        }
        let hardware = hardware.filter(|hardware| !ethernet::is_multicast(*hardware));
        // RFC 4861 section 7.2.3: the sender is about to talk to us.
        if let Some(hardware) = hardware.filter(|_| self.interface.on_link(source.into()).is_some()) {
            let claim = Claim { solicited: false, overriding: true, create: true };
            if let Some(released) = self.neighbors.learn(now, source.into(), Some(hardware), claim) {
                self.send_released(released);
            }
        }
        if !self.may_answer(now) {
            return;
        }
        // RFC 4861 section 7.2.4: whoever has no address yet is answered through the group of all.
        let (remote, solicited) = if source.is_unspecified() { (ALL_NODES, false) } else { (source, true) };
        let exit = match hardware {
            Some(hardware) => Some(Exit::Fixed(hardware)),
            None => self.path(now, Some(target.into()), remote.into()).ok().map(|path| path.exit),
        };
        let Some(exit) = exit else { return };
        let flags = AdvertisementFlags { router: false, solicited, overriding: true };
        let hardware = Some(self.device.hardware_address);
        self.send_ndp(now, target, remote, exit, NeighborMessage::Advertisement { flags, target, hardware });
    }

    /// Asks for a neighbour's address: its group, or the one who had it last.
    pub(super) fn request_ndp(&mut self, now: Instant, target: Ipv6Addr, known: Option<ethernet::Address>) {
        let next_hop = NextHop::Neighbor(target.into());
        let Some(IpAddr::V6(local)) = self.interface.source_for(target.into(), next_hop) else { return };
        let (remote, hardware) = match known {
            Some(hardware) => (target, hardware),
            None => {
                let group = solicited_node(target);
                (group, group_hardware(group.into()))
            }
        };
        let source = Some(self.device.hardware_address);
        let message = NeighborMessage::Solicitation { target, source, nonce: None };
        self.send_ndp(now, local, remote, Exit::Fixed(hardware), message);
    }

    /// Asks whether anybody has an address, without saying that it is ours (RFC 4862 section 5.4.2).
    pub(super) fn probe_ndp(&mut self, now: Instant, target: Ipv6Addr) {
        let nonce = Some(self.addresses.nonce());
        let message = NeighborMessage::Solicitation { target, source: None, nonce };
        let group = solicited_node(target);
        let exit = Exit::Fixed(group_hardware(group.into()));
        self.send_ndp(now, Ipv6Addr::UNSPECIFIED, group, exit, message);
    }

    /// Tells everybody that an address is ours (RFC 4861 section 7.2.6).
    pub(super) fn announce_ndp(&mut self, now: Instant, address: Ipv6Addr) {
        let flags = AdvertisementFlags { router: false, solicited: false, overriding: true };
        let hardware = Some(self.device.hardware_address);
        let message = NeighborMessage::Advertisement { flags, target: address, hardware };
        let exit = Exit::Fixed(group_hardware(ALL_NODES.into()));
        self.send_ndp(now, address, ALL_NODES, exit, message);
    }

    fn send_ndp(
        &mut self,
        now: Instant,
        local: Ipv6Addr,
        remote: Ipv6Addr,
        exit: Exit,
        message: NeighborMessage,
    ) {
        let mut bytes = [0; MESSAGE_BYTES];
        let len = message.compose(&mut bytes);
        self.send_discovery(now, local, remote, exit, bytes.get(..len).unwrap_or_default());
    }

    /// Sends a message of neighbour discovery.
    pub(super) fn send_discovery(
        &mut self,
        now: Instant,
        local: Ipv6Addr,
        remote: Ipv6Addr,
        exit: Exit,
        message: &[u8],
    ) {
        let mut path = Path {
            local: local.into(),
            remote: remote.into(),
            mtu: self.device.mtu,
            policy: SendPolicy::default(),
            exit,
            identification: IdentificationSlot::default(),
            generation: self.interface.generation(),
            unconfirmed: false,
            express: Express::NONE,
        };
        let mut headers = HeaderBuffer::new();
        headers.transport(message.len()).copy_from_slice(message);
        let outgoing = Outgoing {
            protocol: Protocol::Icmpv6,
            headers: &mut headers,
            checksum_offset: icmp::CHECKSUM_OFFSET,
            payload: Payload::Empty,
            segment_bytes: None,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
        };
        // What cannot be sent now is asked for again by the neighbour's timer, or by the peer.
        if self.send(now, &mut path, outgoing).is_ok() {
            self.counters.icmp_out_messages += 1;
        }
    }
}
