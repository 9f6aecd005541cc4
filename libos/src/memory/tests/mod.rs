//! Tests of arena and buffers as their users see them.

mod arena;
mod model;
mod raw;
mod threads;
mod views;

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Arena, ArenaConfig, ArenaStats, Region};

/// An arena of normal pages.
fn arena(region_bytes: usize) -> Arena {
    Arena::new(&ArenaConfig { region_bytes, hugepages: false }).unwrap()
}

/// An arena on a region that raises `released` when it is given back. No `Arc` shares the flag, as
/// ThreadSanitizer does not see the fence in that.
fn watched_arena(released: &'static AtomicBool) -> Arena {
    let region = Region::map(1 << 20, false).unwrap();
    // SAFETY: the hook owns the mapping, nobody else knows it.
    let region = unsafe {
        Region::from_foreign(region.base(), region.len(), move || {
            drop(region);
            released.store(true, Ordering::SeqCst);
        })
    };
    Arena::with_region(region).unwrap()
}

/// What must be the same again when everything was given back.
fn holdings(stats: ArenaStats) -> (usize, usize, usize) {
    (stats.used_bytes, stats.live_buffers, stats.lent_bytes)
}

/// Bytes that differ from one `seed` to the next.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (seed.wrapping_mul(31).wrapping_add(index).wrapping_mul(167) >> 3) as u8).collect()
}
