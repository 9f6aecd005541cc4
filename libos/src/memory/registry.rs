//! Which memory of this process devices may be told about: a table of regions that any thread reads
//! without a lock.
//!
//! Every [`super::Region`] stands in it from when it is made until it is given back. A device runtime does not read the
//! table frame by frame: it keeps a [`super::DeviceRegions`], which asks [`generation`] and looks again
//! only when something has changed.

use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

/// Most regions that stand in the table at one time: two for each of 128 cores. One that comes when it is full is used all the
/// same, but devices do not hear of it: they copy what is in it.
pub const MAX_REGISTERED_REGIONS: usize = 256;

/// What [`Slot::id`] is while the slot has no region, or is being written to.
const VACANT: u64 = 0;

/// What [`Slot::fd`] is for a region without one.
const NO_FD: RawFd = -1;

/// A region of registered memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredRegion {
    /// Never used again in this process, though the addresses may be.
    pub id: u64,
    /// The first byte.
    pub base: *const u8,
    /// Bytes in all.
    pub len: usize,
    /// The file of which these bytes are a shared mapping, from its first byte on, when there is one. It is
    /// open for as long as the region is registered.
    pub fd: Option<RawFd>,
}

// SAFETY: the pointer is an address to tell a device, which may be done from any thread.
unsafe impl Send for RegisteredRegion {}

impl RegisteredRegion {
    /// True when all of `bytes` are in the region. No bytes are in every region.
    #[must_use]
    #[inline]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let offset = (bytes.as_ptr() as usize).wrapping_sub(self.base as usize);
        bytes.is_empty() || (offset < self.len && bytes.len() <= self.len - offset)
    }
}

/// Written under [`WRITERS`]; readers take `id` before and after the rest. As no id comes back, the same id
/// twice means that nothing was written between.
struct Slot {
    id: AtomicU64,
    base: AtomicUsize,
    len: AtomicUsize,
    fd: AtomicI32,
}

static SLOTS: [Slot; MAX_REGISTERED_REGIONS] = [const { Slot::vacant() }; MAX_REGISTERED_REGIONS];
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// Who changes the table holds it.
static WRITERS: Mutex<()> = Mutex::new(());
/// The last id that was given out.
static LAST_ID: AtomicU64 = AtomicU64::new(VACANT);

impl Slot {
    const fn vacant() -> Self {
        Self {
            id: AtomicU64::new(VACANT),
            base: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            fd: AtomicI32::new(NO_FD),
        }
    }

    /// The slot's region; none while there is none, or it is changing.
    fn read(&self) -> Option<RegisteredRegion> {
        let id = self.id.load(Ordering::Acquire);
        if id == VACANT {
            return None;
        }
        let base = self.base.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let fd = self.fd.load(Ordering::Relaxed);
        // Whoever read a word of a later writing sees the vacant mark, or what came after, below.
        fence(Ordering::Acquire);
        let unchanged = self.id.load(Ordering::Relaxed) == id;
        let base = ptr::with_exposed_provenance(base);
        unchanged.then_some(RegisteredRegion { id, base, len, fd: (fd != NO_FD).then_some(fd) })
    }
}

/// A number that changes whenever a region comes or goes. A thread that holds a buffer sees a number at least as new as the
/// buffer's region.
#[must_use]
#[inline]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// Calls `visit` for every registered region. One that comes meanwhile may be missing; [`generation`], if it was asked
/// before, has then changed.
pub fn for_each_region(visit: impl FnMut(RegisteredRegion)) {
    SLOTS.iter().filter_map(Slot::read).for_each(visit);
}

/// The registered region that all of `bytes` are in. Looks through the whole table: meant for set-up and tests.
#[must_use]
pub fn region_of(bytes: &[u8]) -> Option<RegisteredRegion> {
    SLOTS.iter().filter_map(Slot::read).find(|region| region.contains(bytes))
}

/// A region's place in the table, given up when dropped.
#[derive(Debug)]
pub(super) struct Registration {
    slot: Option<usize>,
}

impl Registration {
    /// Registers `len` bytes from `base` on. Takes a lock and allocates nothing: an allocator's own region
    /// comes here too.
    pub(super) fn new(base: ptr::NonNull<u8>, len: usize, fd: Option<RawFd>) -> Self {
        let _writing = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        let vacant = |slot: &&Slot| slot.id.load(Ordering::Relaxed) == VACANT;
        let Some((index, slot)) = SLOTS.iter().enumerate().find(|(_, slot)| vacant(slot)) else {
            return Self { slot: None };
        };
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        fence(Ordering::Release);
        slot.base.store(base.as_ptr().expose_provenance(), Ordering::Relaxed);
        slot.len.store(len, Ordering::Relaxed);
        slot.fd.store(fd.unwrap_or(NO_FD), Ordering::Relaxed);
        slot.id.store(id, Ordering::Release);
        GENERATION.fetch_add(1, Ordering::Release);
        Self { slot: Some(index) }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _writing = WRITERS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = self.slot.and_then(|index| SLOTS.get(index)) {
            slot.id.store(VACANT, Ordering::Relaxed);
            GENERATION.fetch_add(1, Ordering::Release);
        }
    }
}
