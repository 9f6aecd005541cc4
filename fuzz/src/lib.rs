//! What the fuzz targets do with their input. Each target is a function here, so that a finding can be stepped
//! through in an ordinary program too.
//!
//! A target fails by panicking: an assertion of the stack's own, one made here, or the sanitizer's.

pub mod ingress;
pub mod parsers;
pub mod reassembly;

use libos::Arena;
use libos::memory::ArenaConfig;

/// Memory of every run: little, so that runs get to its end.
const REGION_BYTES: usize = 2 << 20;

thread_local! {
    /// Mapped once: that takes longer than most runs.
    static ARENA: Arena = Arena::new(&ArenaConfig { region_bytes: REGION_BYTES, hugepages: false })
        .expect("memory for a small region");
}

/// The memory that runs share one after the other. Each has to leave it empty.
fn arena() -> Arena {
    ARENA.with(Arena::clone)
}
