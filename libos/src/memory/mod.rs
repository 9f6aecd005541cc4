//! Registered memory: one region, an allocator inside it, and the buffers that are views into it.
//!
//! [`Arena`] maps a [`Region`] and hands out [`BufferMut`]s, which become shared [`Buffer`]s. Everything
//! here belongs to one thread and counts references without atomics; what goes to other threads
//! goes as [`bytes::Bytes`] and comes back through a lock-free list. `docs/design/memory.md` tells
//! who owns what, and what happens at each limit.
//!
//! The tests also run under AddressSanitizer and ThreadSanitizer: `tests/sanitizers.sh address` and
//! `thread`. The former builds with `--cfg sanitize_address`, which poisons freed blocks, so that a use after
//! free inside a region is found.

mod allocator;
mod arena;
mod block;
mod buffer;
mod classes;
mod copies;
mod device_regions;
mod external;
#[cfg(feature = "global-allocator")]
mod global;
mod poison;
mod raw;
mod region;
pub mod registry;
mod remote;
mod room;
mod slab;
mod spans;
#[cfg(test)]
mod tests;

pub use arena::{Arena, ArenaConfig, ArenaStats};
pub use buffer::{Buffer, BufferMut};
pub use copies::{CopiedBytes, CopyCause};
pub use device_regions::DeviceRegions;
#[cfg(feature = "global-allocator")]
pub use global::{GlobalAllocator, GlobalAllocatorStats};
pub use raw::{RawBlock, RawBuffer};
pub use region::Region;
pub use registry::RegisteredRegion;
pub use room::WithRoom;

/// Bytes kept free in front of a buffer's data, for headers: enough for Ethernet, a VLAN tag, IPv6
/// and TCP with all options, rounded up to cache lines.
pub const HEADROOM_BYTES: usize = 128;
