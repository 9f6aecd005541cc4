//! Registered memory: one region, an allocator inside it, and the buffers that are views into it.

mod arena;
mod buffer;

pub use arena::{Arena, ArenaConfig, ArenaStats};
pub use buffer::{Buffer, BufferMut};

/// Bytes kept free in front of a buffer's data, for headers: enough for Ethernet, a VLAN tag, IPv6
/// and TCP with all options, rounded up to cache lines.
pub const HEADROOM_BYTES: usize = 128;
