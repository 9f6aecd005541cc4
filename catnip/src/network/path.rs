//! The way to a destination, looked up once and kept by whoever sends there.

use std::net::IpAddr;

use crate::slab::Key;

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
    pub(super) exit: Exit,
    /// Which of the IPv4 identification counters goes with the two addresses.
    pub(super) identification: u8,
}

impl Path {
    /// True when packets come straight back to this stack.
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.exit == Exit::Loop
    }
}
