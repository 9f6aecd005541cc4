//! Simulated links: an Ethernet segment (or bare IP) on a virtual clock, with seeded faults.
//!
//! A [`Fabric`] joins any number of ports; each port is a [`SimRuntime`], a device like any other.
//! What happens is a function of the seed, the configuration and the calls alone: no thread, no
//! clock of the machine, no address of memory enters into it.
//!
//! [`pipe()`] is the other extreme: two devices joined back to back with nothing in between, for
//! benchmarks of what is above them.

mod clock;
mod event_queue;
mod fabric;
mod mark;
mod observer;
mod offload;
mod path;
mod pcap;
mod pipe;
mod port;

pub use clock::CoarseClock;
pub use fabric::Fabric;
pub use observer::{Loss, Observer, Sighting, Stage};
pub use path::{Faults, PathConfig, Ppm, QueueCounters, Verdict};
pub use pcap::{PcapObserver, PcapWriter};
pub use pipe::{PipeConfig, PipeEnd, pipe};
pub use port::{PortConfig, PortCounters, PortId, Receiving, SimRuntime, Transmitting};
