//! The user datagram protocol (RFC 768).

mod config;

pub use config::UdpConfig;
