//! Which memory of this process the back end can read: the regions of the queues, and further registered ones that were shared
//! with it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use libos::memory::DeviceRegions;
use libos::memory::registry::{RegisteredRegion, for_each_region, generation};
use libos::{Arena, Buffer};

/// A region that is not a queue's, with a descriptor of its own.
pub(super) struct FurtherRegion {
    pub region: RegisteredRegion,
    pub file: OwnedFd,
}

/// The registered regions that another process can map, less those at these addresses, as many as fit beside them among `most`.
#[allow(unsafe_code, reason = "the registry knows files by number")]
pub(super) fn further_regions(own: &[u64], most: usize) -> Vec<FurtherRegion> {
    let mut further: Vec<FurtherRegion> = Vec::new();
    for_each_region(|region| {
        let Some(fd) = region.fd else { return };
        if own.contains(&(region.base as u64)) || own.len() + further.len() >= most {
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
    /// Of the process's regions, when the control thread was last asked to share those that are not yet.
    asked: Option<u64>,
}

impl Reach {
    pub fn new(shared: Arc<[u64]>) -> Self {
        Self { shared, regions: DeviceRegions::new(), asked: None }
    }

    /// True when the back end is to be told of memory that it does not know: once for each time that regions came and went.
    pub fn asks_for_more(&mut self) -> bool {
        let now = Some(generation());
        std::mem::replace(&mut self.asked, now) != now
    }

    /// True when the back end can read all of a frame's segments, which are not all in the queue's own memory.
    #[cold]
    #[inline(never)]
    pub fn covers(&mut self, own: &Arena, first: &Buffer, rest: &[Buffer]) -> bool {
        let Self { shared, regions, asked: _ } = self;
        regions.refresh(|region| shared.contains(&region.id).then_some(()), |_, ()| {});
        std::iter::once(first)
            .chain(rest)
            .all(|segment| own.contains(segment.as_ptr()) || regions.find(segment).is_some())
    }
}
