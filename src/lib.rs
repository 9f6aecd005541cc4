//! Catnip: a library OS. This facade is what programs depend on.
#[cfg(feature = "catnip")]
pub use catnip;
pub use libos;
#[cfg(feature = "tap")]
pub use runtime_linux;
#[cfg(feature = "sim")]
pub use runtime_sim;
