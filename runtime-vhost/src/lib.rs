//! Shared-memory packets between two processes of one machine: vhost-user with virtio-net's rings, either end.
//!
//! [`VhostConfig`] says how the link is to be, [`Vhost::open`] meets the other end for the calling thread, and
//! [`VhostQueue::open`] does for several threads. It needs no root, no interface of the kernel and no
//! hardware: a Unix socket that both may use, over which the front end hands over its memory. What speaks the same
//! protocol is DPDK, Open vSwitch, VPP and QEMU.

#![deny(unsafe_code)]

mod back;
mod config;
mod counters;
mod features;
mod front;
mod header;
#[cfg(test)]
mod hostile_tests;
mod link;
mod peer_memory;
mod ring;
mod runtime;
mod system;

pub use config::{MAX_MTU, MAX_QUEUES, MAX_SOCKET_BYTES, MIN_MTU, VhostConfig, VhostRole};
pub use counters::VhostCounters;
pub use ring::{MAX_RING_SIZE, MIN_RING_SIZE, RingKind};
pub use runtime::{Vhost, VhostQueue};

/// An Ethernet header.
const ETHERNET_BYTES: usize = 14;
/// The same with a VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// The largest frame: an IP packet of any length behind an Ethernet header.
const MAX_FRAME_BYTES: usize = 65_535 + LINK_HEADER_BYTES;
