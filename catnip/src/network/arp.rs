//! ARP: who asks for us is answered, who tells about others is listened to (RFC 826).

use std::net::{IpAddr, Ipv4Addr};

use libos::Instant;

use super::Network;
use super::neighbor::Claim;
use crate::wire::arp::{ArpPacket, Operation};
use crate::wire::ethernet;

impl Network {
    pub(super) fn receive_arp(&mut self, now: Instant, bytes: &[u8]) {
        let Some(packet) = ArpPacket::parse(bytes) else {
            self.counters.arp_in_malformed += 1;
            return;
        };
        let (sender, hardware) = (packet.sender_protocol, packet.sender_hardware);
        if ethernet::is_multicast(hardware) || hardware == [0; 6] {
            self.counters.arp_in_malformed += 1;
            return;
        }
        self.counters.arp_in_packets += 1;
        // What we sent may come back to us; what others send about our addresses are conflicts.
        if hardware == self.device.hardware_address {
            return;
        }
        // RFC 5227 section 2.4.
        if self.interface.is_own_v4(sender) {
            self.on_address_conflict(now, sender.into());
            return;
        }
        // RFC 5227 section 2.1.1: somebody uses the address that we ask for, or asks for it too.
        let wanted = if sender.is_unspecified() { packet.target_protocol } else { sender };
        if self.addresses.is_tentative(wanted.into()) {
            self.on_address_conflict(now, wanted.into());
            return;
        }
        let for_us = self.interface.is_own_v4(packet.target_protocol);
        let request = packet.operation == Operation::Request;
        // A probe has no sender yet (RFC 5227 section 2.1.1), and nobody is a neighbour who is not on
        // the link.
        let has_sender = !sender.is_unspecified()
            && !self.interface.is_impossible_source_v4(sender)
            && self.interface.on_link(sender.into()).is_some();
        if has_sender {
            let solicited = !request
                && for_us
                && packet.target_hardware == self.device.hardware_address
                && self.neighbors.is_asked(sender.into());
            // RFC 826: known senders are merged; new ones are remembered only if they want to talk
            // to us, so that nobody fills the cache with replies.
            let claim = Claim { solicited, overriding: true, create: for_us && request };
            if let Some(released) = self.neighbors.learn(now, sender.into(), Some(hardware), claim) {
                self.send_released(released);
            }
        }
        if for_us && request && (has_sender || sender.is_unspecified()) && self.may_answer(now) {
            self.send_arp(
                hardware,
                ArpPacket {
                    operation: Operation::Reply,
                    sender_hardware: self.device.hardware_address,
                    sender_protocol: packet.target_protocol,
                    target_hardware: hardware,
                    target_protocol: sender,
                },
            );
        }
    }

    /// Asks for a neighbour's address: everybody, or the one who had it last.
    pub(super) fn request_arp(&mut self, target: Ipv4Addr, known: Option<ethernet::Address>) {
        let next_hop = super::NextHop::Neighbor(target.into());
        let Some(IpAddr::V4(sender)) = self.interface.source_for(target.into(), next_hop) else { return };
        self.send_arp(
            known.unwrap_or(ethernet::BROADCAST),
            ArpPacket {
                operation: Operation::Request,
                sender_hardware: self.device.hardware_address,
                sender_protocol: sender,
                target_hardware: [0; 6],
                target_protocol: target,
            },
        );
    }

    /// Tells everybody that an address is ours (RFC 5227 section 2.3).
    pub(super) fn announce_arp(&mut self, address: Ipv4Addr) {
        self.send_arp(
            ethernet::BROADCAST,
            ArpPacket {
                operation: Operation::Request,
                sender_hardware: self.device.hardware_address,
                sender_protocol: address,
                target_hardware: [0; 6],
                target_protocol: address,
            },
        );
    }

    /// Asks whether anybody has an address, without saying that it is ours (RFC 5227 section 2.1.1).
    pub(super) fn probe_arp(&mut self, address: Ipv4Addr) {
        self.send_arp(
            ethernet::BROADCAST,
            ArpPacket {
                operation: Operation::Request,
                sender_hardware: self.device.hardware_address,
                sender_protocol: Ipv4Addr::UNSPECIFIED,
                target_hardware: [0; 6],
                target_protocol: address,
            },
        );
    }

    fn send_arp(&mut self, destination: ethernet::Address, packet: ArpPacket) {
        if self.send_frame(&packet.compose_frame(destination)) {
            self.counters.arp_out_packets += 1;
        }
    }
}
