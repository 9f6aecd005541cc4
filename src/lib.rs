//! Catnip: a library OS. This facade is what programs depend on.

#[cfg(feature = "dpdk")]
mod dpdk;
#[cfg(feature = "catnip")]
mod loopback;
mod open;

#[cfg(feature = "catnip")]
pub use catnip;
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
