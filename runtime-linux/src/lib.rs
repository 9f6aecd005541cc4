//! Device runtimes on Linux: how frames get in and out of the library OS through the kernel.
//!
//! [`tap`] is a virtual Ethernet link between the library OS and the kernel's own stack. It needs no
//! hardware, and inside `unshare -Urn` no privileges.

#![deny(unsafe_code)]

mod netlink;
mod system;
pub mod tap;
