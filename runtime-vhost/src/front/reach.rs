//! Which memory of this process the back end can read: the regions of the queues, and further registered ones that were shared
//! with it when the link came up.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use libos::memory::DeviceRegions;
use libos::memory::registry::{RegisteredRegion, for_each_region};
use libos::{Arena, Buffer};

/// Regions that the table has room for: as many as every back end takes (DPDK's and QEMU's own limit). More queues than that
/// have more regions; then there are no further ones.
const TABLE_REGIONS: usize = 8;

/// A region that is not a queue's, with a descriptor of its own.
pub(super) struct FurtherRegion {
    pub region: RegisteredRegion,
    pub file: OwnedFd,
}

/// The registered regions that another process can map, less those at these addresses, as many as fit beside them.
#[allow(unsafe_code, reason = "the registry knows files by number")]
pub(super) fn further_regions(own: &[u64]) -> Vec<FurtherRegion> {
    let mut further: Vec<FurtherRegion> = Vec::new();
    for_each_region(|region| {
        let Some(fd) = region.fd else { return };
        if own.contains(&(region.base as u64)) || own.len() + further.len() >= TABLE_REGIONS {
            return;
        }
        // SAFETY: a number that is no file's any more, or another one's, is found out below.
        let Ok(file) = (unsafe { BorrowedFd::borrow_raw(fd) }).try_clone_to_owned() else { return };
        // Its file is open for as long as it is registered: if it still is, this is its file.
        let mut is_there = false;
        for_each_region(|other| is_there |= other == region);
        if is_there {
            further.push(FurtherRegion { region, file });
        }
    });
    further
}

/// The memory that one queue may point the back end to.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// What was shared beside the queues' own regions. Ids do not come back: a later region at the same addresses is
    /// another one.
    shared: Arc<[u64]>,
    regions: DeviceRegions<()>,
}

impl Reach {
    pub fn new(shared: Arc<[u64]>) -> Self {
        Self { shared, regions: DeviceRegions::new() }
    }

    /// True when the back end can read all of a frame's segments, which are not all in the queue's own memory.
    #[cold]
    #[inline(never)]
    pub fn covers(&mut self, own: &Arena, first: &Buffer, rest: &[Buffer]) -> bool {
        let Self { shared, regions } = self;
        regions.refresh(|region| shared.contains(&region.id).then_some(()), |_, ()| {});
        std::iter::once(first)
            .chain(rest)
            .all(|segment| own.contains(segment.as_ptr()) || regions.find(segment).is_some())
    }
}
