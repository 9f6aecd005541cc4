//! The sockets, and which generation of them it is: whoever keeps a way to one asks whether it is still the same.

use std::ops::Deref;

use super::socket::Socket;
use crate::slab::Slab;

/// All sockets by key. Reading is a slab's.
#[derive(Debug)]
pub(super) struct Sockets {
    slab: Slab<Socket>,
    generation: u64,
}

impl Sockets {
    /// None, and room for so many.
    pub(super) fn with_capacity_limit(capacity: usize) -> Self {
        Self { slab: Slab::with_capacity_limit(capacity), generation: 0 }
    }

    /// Counts changes of what decides whose a datagram is, and whether it goes straight to who waits.
    #[inline(always)]
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// For a change of anything. Ways that were kept are not taken any more.
    #[inline]
    pub(super) fn change(&mut self) -> &mut Slab<Socket> {
        self.generation += 1;
        &mut self.slab
    }

    /// For sending and for taking out what was received, which change nobody's way here.
    #[inline(always)]
    pub(super) fn in_use(&mut self) -> &mut Slab<Socket> {
        &mut self.slab
    }
}

impl Deref for Sockets {
    type Target = Slab<Socket>;

    #[inline(always)]
    fn deref(&self) -> &Slab<Socket> {
        &self.slab
    }
}
