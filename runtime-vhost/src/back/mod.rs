//! The back end: the device, which maps the front end's memory and copies between that and its own.
//!
//! It trusts the front end with nothing. What it hands up is a copy of its own; what it reads of the rings
//! it reads once; what it touches was found in the regions that the front end shares.

mod bell;
mod control;
mod early;
mod frames;
mod queue;

use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

pub(crate) use control::control;
pub(crate) use queue::Back;

use crate::peer_memory::PeerMemory;
use crate::ring::{DeviceRing, Position, RingMemory, RingOptions};

/// What the control thread tells a queue: which rings to serve, first the one to send with, which is the front end's to
/// receive with.
#[derive(Debug, Default)]
pub(crate) struct BackRings {
    pub setups: [Option<RingSetup>; 2],
    /// The queue serves one of them, or of those before.
    pub in_use: bool,
    /// Where the queue was in each ring when it last looked.
    pub positions: [Option<Position>; 2],
    /// The front end takes a frame in several buffers.
    pub mergeable: bool,
}

/// A ring that runs.
#[derive(Debug, Clone)]
pub(crate) struct RingSetup {
    pub memory: Arc<PeerMemory>,
    pub options: RingOptions,
    /// Descriptor, driver and device area, as the front end knows them.
    pub areas: [u64; 3],
    pub start: Position,
    /// Wakes us; None when the front end never does.
    pub kick: Option<Arc<EventFd>>,
    /// Wakes the other end; None when it polls.
    pub call: Option<Arc<EventFd>>,
}

impl RingSetup {
    /// The ring, unless its areas are not all in the shared memory.
    pub fn ring(&self) -> Option<DeviceRing> {
        Some(DeviceRing::new(self.ring_memory()?, &self.options, self.start))
    }

    #[allow(unsafe_code, reason = "the memory is shared with another process")]
    pub fn ring_memory(&self) -> Option<RingMemory> {
        let RingOptions { kind, size, .. } = self.options;
        let [a, b, c] = kind.area_bytes(size);
        let [descriptors, driver, device] = self.areas;
        let find = |address, bytes| self.memory.find_by_user_address(address, bytes);
        let areas = [find(descriptors, a)?, find(driver, b)?, find(device, c)?];
        // SAFETY: the areas were found in the shared memory, which the ring keeps mapped.
        unsafe { RingMemory::new(areas, kind, size, Box::new(self.memory.clone())) }
    }

    /// True when nothing of `old` is taken away: who still uses that may go on.
    fn goes_on_from(&self, old: &Self) -> bool {
        self.memory.contains(&old.memory) && self.options == old.options && self.areas == old.areas
    }

    /// True when the queue need not be disturbed for `other`.
    fn is_same(&self, other: &Self) -> bool {
        let fds = |setup: &Self| [&setup.kick, &setup.call].map(|fd| fd.as_ref().map(|fd| fd.as_raw_fd()));
        Arc::ptr_eq(&self.memory, &other.memory)
            && self.options == other.options
            && self.areas == other.areas
            && fds(self) == fds(other)
    }
}
