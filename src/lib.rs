//! Catnip: a library OS. This facade is what programs depend on.

/// The README's program in Rust, compiled as its readers would. That in C is run by `capi/tests/examples.rs`.
#[cfg(all(doctest, feature = "catnip"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(feature = "catnip")]
mod cores;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
mod device;
#[cfg(any(feature = "tap", feature = "packet", feature = "xdp", feature = "dpdk", feature = "vhost"))]
mod gathered;
#[cfg(feature = "catnip")]
mod loopback;
mod open;

#[cfg(feature = "catnip")]
pub use catnip;
#[cfg(feature = "catnip")]
pub use cores::{CoreSeat, Cores, open_cores};
pub use libos;
pub use open::open;
#[cfg(feature = "dpdk")]
pub use runtime_dpdk;
#[cfg(feature = "tap")]
pub use runtime_linux;
#[cfg(feature = "sim")]
pub use runtime_sim;
#[cfg(feature = "vhost")]
pub use runtime_vhost;
