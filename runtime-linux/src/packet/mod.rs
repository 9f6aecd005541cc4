//! Packet sockets: frames through any interface of the kernel, without a driver of its own.
//!
//! [`PacketConfig`] names the interface, [`Packet::open`] opens it for the calling thread, and [`PacketSocket::open`]
//! for several. Frames arrive through a ring that is shared with the kernel, and leave many in a system call and past
//! the kernel's queues; both ways with a virtio-net header in front, so that checksums and segmentation are left to
//! the device.
//!
//! The kernel's own stack sees what arrives as well. So that it does not answer, the interface must have no
//! addresses, or the library OS an Ethernet address of its own.

mod config;
mod counters;
mod receive;
mod runtime;
mod section;
mod socket;

pub use config::{MAX_QUEUES, MAX_RING_KIB, MIN_RING_KIB, PacketConfig};
pub use counters::PacketCounters;
pub use runtime::Packet;
pub use socket::PacketSocket;
