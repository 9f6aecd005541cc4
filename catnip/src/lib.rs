//! The Catnip protocol engine.
#![forbid(unsafe_code)]

pub mod events;
pub mod network;
pub mod random;
pub mod slab;
pub mod stack;
pub mod steering;
pub mod tcp;
pub mod timer;
pub mod udp;
pub mod wire;

mod module;
mod waiting;

pub use module::StackModule;
pub use stack::{Stack, StackConfig};
pub use waiting::{Nobody, Waiting};

/// The page about driving the stack, whose example has to compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../docs/harness.md")]
struct HarnessPage;
