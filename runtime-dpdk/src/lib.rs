//! Device runtime of the Catnip library OS on DPDK: any poll-mode driver, physical or virtual.
//!
//! [`DpdkConfig`] says which port and how, [`DpdkPort::open`] takes it, and [`Dpdk::new`] makes a runtime of each of
//! its queues on the thread that will poll it. `docs/design/dpdk.md` tells how frames get in and out without
//! a copy, and for which drivers they do.

mod config;
mod counters;
mod drivers;
mod eal;
mod events;
mod failure;
mod interrupts;
mod loans;
mod mbufs;
mod negotiation;
mod pools;
mod port;
mod receiver;
mod registration;
mod runtime;
mod section;
mod spreading;
mod transmitter;
mod xstats;

pub use config::{DpdkConfig, MAX_DESCRIPTORS, MAX_MTU, MAX_QUEUES, MIN_DESCRIPTORS, MIN_MTU, MemoryPolicy};
pub use counters::DpdkCounters;
pub use port::{DpdkPort, DpdkQueue};
pub use runtime::Dpdk;
pub use spreading::{HASH_KEY_BYTES, Spreading};
