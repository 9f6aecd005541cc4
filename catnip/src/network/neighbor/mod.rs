//! Neighbours on the link: one cache for what ARP (RFC 826) and neighbour discovery (RFC 4861) find out.

mod age;
mod cache;
mod config;
mod entry;

#[cfg(test)]
mod tests;

pub use cache::NeighborCounters;
pub(super) use cache::{Claim, Expiry, NeighborCache, Released, Resolution};
pub use config::NeighborConfig;
pub(super) use entry::PendingPacket;
