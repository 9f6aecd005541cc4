//! Device runtimes on Linux: how frames get in and out of the library OS through the kernel.
//!
//! [`tap`] is a virtual Ethernet link between the library OS and the kernel's own stack. It needs no
//! hardware, and inside `unshare -Urn` no privileges. [`packet`] uses an interface of the kernel, any that
//! there is, through packet sockets. [`xdp`] takes frames off a device's queue before the kernel's stack sees them, into
//! the library OS's own memory.

#![deny(unsafe_code)]

mod interface;
mod netlink;
pub mod packet;
mod receive_buffers;
pub mod steering;
mod system;
pub mod tap;
mod virtio_header;
pub mod xdp;
