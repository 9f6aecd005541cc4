//! Packets in parts: putting received ones together (RFC 791, RFC 815, RFC 8200 section 4.5), and cutting
//! those to be sent that are larger than their path carries.

mod cache;
mod config;
mod cut;
mod parts;
mod receive;

#[cfg(test)]
mod tests;

pub(super) use cache::FragmentCache;
pub use config::FragmentConfig;
pub(super) use cut::{IdentificationSlot, Identifications};
pub(super) use receive::FragmentPlace;
