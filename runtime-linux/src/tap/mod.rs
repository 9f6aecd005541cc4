//! TAP: a virtual Ethernet link whose other end is an interface of the kernel.
//!
//! [`TapConfig`] says how the device is to be, [`Tap::open`] opens it for the calling thread, and
//! [`TapQueue::open`] opens it for several threads. Frames cross with a virtio-net header in front, so
//! that checksums and segmentation are left to whoever does them best: between two programs of one
//! machine, nobody.
//!
//! Everything works unprivileged inside `unshare -Urn`, where the program owns the network.

mod config;
mod counters;
mod device;
mod runtime;
mod section;
#[cfg(test)]
mod tests;

pub use crate::interface::{MAX_MTU, MAX_NAME_BYTES, MIN_MTU};
pub use config::{HostAddress, MAX_QUEUES, TapConfig};
pub use counters::TapCounters;
pub use device::TapQueue;
pub use runtime::Tap;
