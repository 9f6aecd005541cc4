//! The stack: network layer and transports joined.

mod config;

pub use config::StackConfig;
pub(crate) use config::{MAX_ADDRESSES, MIN_MTU_IPV6};
