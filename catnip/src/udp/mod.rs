//! The user datagram protocol (RFC 768): sockets, their ports and their receive queues.

mod config;
mod counters;
mod groups;
mod layer;
mod memberships;
mod options;
mod ports;
mod receive;
mod send;
mod socket;
mod sockets;
mod way;

#[cfg(test)]
mod tests;

pub use config::UdpConfig;
pub use counters::UdpCounters;
pub use layer::UdpLayer;
pub use socket::Datagram;
