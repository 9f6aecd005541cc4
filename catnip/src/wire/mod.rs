//! Wire formats: views over received bytes, checked once when they are made, and headers composed in place.
//!
//! A view's field reads go to fixed places in arrays, so no byte that a peer sends makes them panic.

pub mod arp;
pub mod checksum;
pub mod dhcp;
pub mod ethernet;
pub mod icmp;
pub mod igmp;
pub mod ipv4;
pub mod ipv6;
pub mod membership;
pub mod mld;
pub mod ndp;
pub mod router;
pub mod udp;
pub mod vlan;

#[cfg(test)]
mod tests;
