//! XDP sockets: frames between a device's queue and the library OS's own memory, before the kernel's stack sees them.
//!
//! [`XdpConfig`] names the interface and its queues, [`Xdp::open`] opens them for the calling thread, and
//! [`XdpQueue::open`] for several. The region that a library OS's buffers come from is registered with the socket:
//! with a driver that can, the device reads and writes it itself; else the kernel copies. What was got, and why
//! not more, is in the log, in the metrics and in [`Xdp::mode`].
//!
//! Attaching the program takes root on the machine: being root in a user namespace of one's own is not enough.

mod attach;
mod config;
mod counters;
mod inflight;
mod mode;
mod program;
mod receive;
mod runtime;
mod section;
mod socket;
#[cfg(test)]
mod tests;
mod transmit;

pub use attach::XdpQueue;
pub use config::{MAX_QUEUE, MAX_RING_ENTRIES, MIN_RING_ENTRIES, Placement, XdpConfig};
pub use counters::XdpCounters;
pub use mode::XdpMode;
pub use runtime::Xdp;
