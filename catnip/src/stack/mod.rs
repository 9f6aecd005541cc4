//! The stack: network layer and transports joined.

mod config;

pub use config::StackConfig;
