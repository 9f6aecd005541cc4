//! Neighbours on the link: one cache for what ARP (RFC 826) and neighbour discovery (RFC 4861) find out.

mod config;

pub use config::NeighborConfig;
