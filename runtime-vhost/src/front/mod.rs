//! The front end: the driver, whose memory both ends use.
//!
//! The back end maps the whole region of the library OS and is trusted with it, as a guest trusts its hypervisor: it can
//! write to any of it. What it writes into the rings is checked all the same.

mod control;
mod memory;
mod queue;
mod reach;
mod table;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

pub(crate) use control::control;
pub(crate) use queue::{Front, ring_bell};

/// What a queue tells the control thread.
#[derive(Debug, Default)]
pub(crate) struct FrontRings {
    /// The rings, from when they are there until the other end knows of them.
    pub setup: Option<FrontSetup>,
    /// True once `setup` was there.
    pub attached: bool,
    pub stop: Stop,
    /// Regions beside the queues' own that the other end has mapped, by their ids.
    pub shared: Arc<[u64]>,
}

/// Whether the other end still uses a queue pair's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stop {
    #[default]
    No,
    Asked,
    Done,
}

/// A queue pair's rings, and the memory that they and all buffers are in.
#[derive(Debug)]
pub(crate) struct FrontSetup {
    pub region: OwnedFd,
    pub region_address: u64,
    pub region_bytes: u64,
    /// To receive, and to send.
    pub rings: [FrontRing; 2],
}

/// Where a ring is.
#[derive(Debug)]
pub(crate) struct FrontRing {
    /// Descriptor, driver and device area.
    pub areas: [u64; 3],
    /// Wakes the other end.
    pub kick: EventFd,
    /// Wakes us.
    pub call: EventFd,
}
