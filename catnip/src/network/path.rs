//! The way to a destination, looked up once and kept by whoever sends there.

use std::net::{IpAddr, SocketAddr};

use libos::Instant;

use super::PlainProtocol;
use super::express::PacketKind;
use super::fragment::IdentificationSlot;
use crate::slab::Key;
use crate::wire::{ethernet, ipv4};

/// Bytes of the headers that an [`Express`] keeps.
pub(super) const EXPRESS_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES;

/// The Ethernet and IPv4 headers of the last packet, of which the next of its kind differs in three numbers. Good
/// for as long as the neighbour's address is, which two comparisons tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Express {
    /// Total length, identification and checksum are zero.
    pub(super) headers: [u8; EXPRESS_BYTES],
    /// One's complement sum of the IPv4 header.
    pub(super) sum: u16,
    pub(super) kind: PacketKind,
    /// Which state of the neighbour cache the address was taken from.
    pub(super) epoch: u32,
    pub(super) usable_until: Instant,
}

impl Express {
    /// None: the next packet's headers are made from nothing.
    pub(super) const NONE: Self = Self {
        headers: [0; EXPRESS_BYTES],
        sum: 0,
        kind: PacketKind::new(PlainProtocol::Udp, 0, 0),
        epoch: 0,
        usable_until: Instant::ZERO,
    };
}

/// How packets leave towards a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// To a neighbour on the link, found in the neighbour cache under the key.
    Neighbor { next_hop: IpAddr, key: Key },
    /// To an Ethernet address that follows from the destination: broadcast and multicast.
    Fixed([u8; 6]),
    /// Onto a medium that has no addresses of its own.
    Medium,
    /// Back to this stack.
    Loop,
}

/// What is done with packets on their way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendPolicy {
    /// Routers are told not to cut them. TCP's never are cut.
    pub dont_fragment: bool,
    /// Those that are larger than the path carries are cut before they leave; else they are refused.
    pub may_be_cut: bool,
    /// Those to a group that this host is in come back to it too.
    pub copy_to_ourselves: bool,
}

impl Default for SendPolicy {
    fn default() -> Self {
        Self { dont_fragment: false, may_be_cut: true, copy_to_ourselves: false }
    }
}

/// Route, source address and neighbour for a destination. Made by [`super::Network::path`]; kept by
/// a connection for as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The source address of what is sent.
    pub local: IpAddr,
    /// The destination.
    pub remote: IpAddr,
    /// Largest IP packet, in bytes. Whoever keeps the path may lower it when told by ICMP.
    pub mtu: usize,
    /// How packets leave.
    pub(super) policy: SendPolicy,
    pub(super) exit: Exit,
    /// Which of the IPv4 identification counters goes with the two addresses.
    pub(super) identification: IdentificationSlot,
    /// Which addresses and routes of the interface the exit was chosen by.
    pub(super) generation: u32,
    /// The neighbour's address was in doubt when the last headers were made: what shows that packets arrive is
    /// of use.
    pub(super) unconfirmed: bool,
    pub(super) express: Express,
}

impl Path {
    /// True when packets for `remote` go this way.
    #[must_use]
    #[inline]
    pub fn leads_to(&self, remote: &SocketAddr) -> bool {
        match (&self.remote, remote) {
            (IpAddr::V4(own), SocketAddr::V4(remote)) => own == remote.ip(),
            (IpAddr::V6(own), SocketAddr::V6(remote)) => own == remote.ip(),
            (IpAddr::V4(_), SocketAddr::V6(_)) | (IpAddr::V6(_), SocketAddr::V4(_)) => false,
        }
    }

    /// Changes how packets leave.
    pub fn set_policy(&mut self, policy: SendPolicy) {
        self.policy = policy;
        self.express = Express::NONE;
    }

    /// True when nothing is gained by telling that packets arrive: see [`super::Network::confirm`].
    pub(crate) const fn is_confirmed(&self) -> bool {
        !self.unconfirmed
    }

    /// True when packets come straight back to this stack.
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.exit == Exit::Loop
    }
}
