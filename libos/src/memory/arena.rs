//! The arena: allocates buffers out of one region.

use std::fmt;
use std::ptr::NonNull;

use super::allocator::Allocator;
use super::buffer::{Buffer, BufferMut};
use super::classes::SLAB_BYTES;
use super::copies::{CopiedBytes, CopyCause};
use super::raw::RawBlock;
use super::region::Region;
use crate::SetupError;

/// How an arena is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaConfig {
    /// Size of the region, in bytes; rounded up to whole pages, and to 64 KiB at least.
    pub region_bytes: usize,
    /// Try hugepages first.
    pub hugepages: bool,
}

impl Default for ArenaConfig {
    /// 256 MiB, of hugepages when there are any. Normal pages are only used once they are written to.
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
    /// Most bytes that were handed out at one time.
    pub peak_used_bytes: usize,
    /// Buffers handed out and not given back.
    pub live_buffers: usize,
    /// Of the used bytes, those that are lent to other threads as `Bytes`.
    pub lent_bytes: usize,
    /// Conversions to `Bytes` that copied because the limit was reached.
    pub lent_copies: u64,
    /// Allocations that failed because the region was full.
    pub failed_allocations: u64,
    /// Payload that was copied by those who use the arena, as far as they said so.
    pub copied_bytes: CopiedBytes,
}

/// Allocates buffers out of one region of memory. A handle: clones share the region, which lives
/// until the last handle and the last buffer are gone.
pub struct Arena {
    allocator: NonNull<Allocator>,
    /// Used bytes from which on this handle allocates nothing more.
    limit_bytes: usize,
}

impl Arena {
    /// Maps a region.
    ///
    /// # Errors
    /// [`SetupError::Memory`] when the region cannot be mapped.
    pub fn new(config: &ArenaConfig) -> Result<Self, SetupError> {
        Self::with_region(Region::map(config.region_bytes.max(SLAB_BYTES), config.hugepages)?)
    }

    /// Allocates out of a region that exists already, such as a device runtime's.
    ///
    /// # Errors
    /// [`SetupError::Memory`] when the region is smaller than 64 KiB.
    pub fn with_region(region: Region) -> Result<Self, SetupError> {
        Ok(Self { allocator: Allocator::create(region)?, limit_bytes: usize::MAX })
    }

    /// Another handle to the same memory, which leaves `reserve_bytes` of it to those without such a
    /// reserve: a program that queues all it can must not take the memory in which devices receive
    /// what would empty its queues.
    #[must_use]
    pub fn leaving(&self, reserve_bytes: usize) -> Self {
        let mut handle = self.clone();
        handle.limit_bytes = self.region().len().saturating_sub(reserve_bytes);
        self.allocator().note_limit(handle.limit_bytes);
        handle
    }

    #[inline]
    fn allocator(&self) -> &Allocator {
        // SAFETY: the handle keeps the allocator alive.
        unsafe { self.allocator.as_ref() }
    }

    /// A buffer of length 0 with room for `capacity` bytes of data, and at least
    /// [`super::HEADROOM_BYTES`] in front of them. `None` when the region is full, or this handle's
    /// part of it.
    #[inline]
    #[must_use]
    pub fn allocate(&self, capacity: usize) -> Option<BufferMut> {
        let block = self.allocator().allocate(capacity, self.limit_bytes)?;
        // SAFETY: a new block of the arena has one reference, which nobody has yet.
        Some(unsafe { BufferMut::from_new_block(block) })
    }

    /// A buffer with a copy of `bytes`. `None` when the region is full.
    #[inline]
    #[must_use]
    pub fn copy_from(&self, bytes: &[u8]) -> Option<BufferMut> {
        let block = self.allocator().allocate(bytes.len(), self.limit_bytes)?;
        // SAFETY: as in `allocate`, and there is room for as many bytes.
        Some(unsafe { BufferMut::from_new_block(block).filled_with(bytes) })
    }

    /// A buffer with a copy of all pieces behind one another, counted as `cause`. `None` when the region is full.
    #[must_use]
    pub fn gather<'a>(
        &self,
        cause: CopyCause,
        pieces: impl Iterator<Item = &'a Buffer> + Clone,
    ) -> Option<BufferMut> {
        let mut whole = self.allocate(pieces.clone().map(|piece| piece.len()).sum())?;
        for piece in pieces {
            whole.extend_from_slice(piece);
        }
        self.count_copy(cause, whole.len());
        Some(whole)
    }

    /// Counts payload that the caller has copied from one buffer to another: whoever copies payload says so, as programs
    /// look at the counts to see whether their path is without copies.
    pub fn count_copy(&self, cause: CopyCause, bytes: usize) {
        self.allocator().copies.count(cause, bytes);
    }

    /// Takes back what other threads have dropped. One load when there is nothing; to be called once
    /// per poll.
    #[inline]
    pub fn reclaim(&self) {
        self.allocator().reclaim();
    }

    /// Bytes handed out, rounded up to size classes: the one figure that is cheap enough for every poll.
    #[inline]
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.allocator().used_bytes()
    }

    /// What the arena holds at the moment, after [`Self::reclaim`].
    #[must_use]
    pub fn stats(&self) -> ArenaStats {
        self.allocator().stats()
    }

    /// The memory that buffers come from, to register it with a device.
    #[must_use]
    pub fn region(&self) -> &Region {
        self.allocator().region()
    }

    /// True when `address` is in the arena's region.
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        self.region().contains(address)
    }

    /// The block that `address` points into, when it is one of this arena that has a view on this
    /// thread. Any address may be asked for, also a dangling one.
    #[must_use]
    pub fn live_block(&self, address: *const u8) -> Option<RawBlock> {
        self.allocator().live_block(address).map(RawBlock)
    }

    /// Sets how many bytes of the region other threads may hold as `Bytes` at one time; half of it
    /// when never called. Beyond that, conversions copy to the heap, so that
    /// a thread that keeps what it is given cannot starve the arena.
    pub fn set_lent_limit_bytes(&self, bytes: usize) {
        self.allocator().set_lent_limit_bytes(bytes);
    }
}

impl Clone for Arena {
    fn clone(&self) -> Self {
        self.allocator().add_handle();
        Self { allocator: self.allocator, limit_bytes: self.limit_bytes }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: this is the handle that goes.
        unsafe { Allocator::drop_handle(self.allocator) };
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Arena").field(&self.stats()).finish()
    }
}
