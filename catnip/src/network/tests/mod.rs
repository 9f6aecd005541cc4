//! The network layer, driven frame by frame over virtual time.

mod addresses;
mod errors;
mod hostile;
mod malformed;
mod neighbors;
mod routers;
mod sending;
mod vlan;
