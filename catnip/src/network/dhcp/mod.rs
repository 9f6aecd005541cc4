//! Getting an IPv4 address from a DHCP server, and keeping it (RFC 2131).

mod client;
mod lease;
mod serve;

#[cfg(test)]
mod tests;

pub(super) use client::DhcpClient;
pub use client::DhcpCounters;
pub use lease::Lease;
