//! Exhaustion, fragmentation, accounting, and how long an arena lives.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Arena, ArenaConfig, Buffer, BufferMut, Region};
use super::{arena, holdings, pattern, watched_arena};

fn exhaust(arena: &Arena, capacity: usize) -> Vec<BufferMut> {
    let mut held = Vec::new();
    while let Some(mut buffer) = arena.allocate(capacity) {
        buffer.set_len(capacity);
        let marked = capacity.min(64);
        buffer[..marked].copy_from_slice(&pattern(held.len(), marked));
        held.push(buffer);
    }
    held
}

#[test]
fn a_full_region_says_so_and_recovers() {
    let arena = arena(1 << 20);
    for capacity in [0, 64, 2048, 9000, 32_000, 65_536] {
        let held = exhaust(&arena, capacity);
        let failed_before = arena.stats().failed_allocations;
        assert!(arena.allocate(capacity).is_none());
        assert_eq!(arena.stats().failed_allocations, failed_before + 1);
        assert!(held.len() * (capacity + 192) > 700 << 10, "{capacity}: {} fit", held.len());
        for (index, buffer) in held.iter().enumerate() {
            let marked = capacity.min(64);
            assert_eq!(buffer[..marked], pattern(index, marked), "{capacity}: buffers overlap");
        }
        let count = held.len();
        drop(held);
        assert_eq!(holdings(arena.stats()), (0, 0, 0));
        assert_eq!(exhaust(&arena, capacity).len(), count, "as many fit again");
    }
}

#[test]
fn a_handle_with_a_reserve_leaves_it_to_the_others() {
    let arena = arena(1 << 20);
    let program = arena.leaving(256 << 10);
    let taken = exhaust(&program, 2_000);
    let used_bytes = arena.stats().used_bytes;
    assert!((700 << 10..=768 << 10).contains(&used_bytes), "{used_bytes}");
    assert!(program.clone().allocate(2_000).is_none() && program.allocate(500 << 10).is_none());
    assert!(exhaust(&arena, 2_000).len() >= 100, "the reserve is there for who has none");
    drop(taken);
    assert!(program.allocate(2_000).is_some());
}

#[test]
fn one_block_more_fits_when_one_was_given_back() {
    let arena = arena(1 << 20);
    let mut held = exhaust(&arena, 2048);
    let middle = held.len() / 2;
    held.swap_remove(middle);
    held.push(arena.allocate(2048).unwrap());
    assert!(arena.allocate(2048).is_none());
}

#[test]
fn a_small_buffer_fits_wherever_a_larger_one_was_given_back() {
    let arena = arena(1 << 20);
    let mut held = exhaust(&arena, 2048);
    // One block in each slab stays in use, so that no slab can be cut anew.
    let mut number = 0;
    held.retain(|_| {
        number += 1;
        number % 20 == 0
    });
    let failed_before = arena.stats().failed_allocations;
    let small = exhaust(&arena, 100);
    assert!(small.len() >= number - held.len(), "{} of {number}", small.len());
    assert_eq!(arena.stats().failed_allocations, failed_before + 1);
    drop((held, small));
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn impossible_sizes_fail_without_harm() {
    let arena = arena(1 << 20);
    for capacity in [1 << 20, usize::MAX, usize::MAX - 191, usize::MAX / 2, 1 << 47] {
        assert!(arena.allocate(capacity).is_none(), "{capacity}");
    }
    assert_eq!(arena.stats().failed_allocations, 5);
    assert!(arena.allocate(100).is_some());
}

#[test]
fn everything_given_back_is_one_piece_again() {
    let arena = arena(8 << 20);
    let whole = (8 << 20) - 192;
    drop(arena.allocate(whole).expect("the whole region is one buffer"));
    let mut held: Vec<Buffer> = Vec::new();
    for round in 0..4_000 {
        let capacity = [0, 64, 300, 1500, 2048, 5000, 30_000, 70_000, 300_000][round % 9];
        match arena.allocate(capacity) {
            Some(buffer) => held.push(buffer.freeze()),
            None => drop(held.swap_remove(round * 7919 % held.len())),
        }
    }
    assert!(arena.allocate(whole).is_none());
    while !held.is_empty() {
        drop(held.swap_remove(held.len() * 31 / 47));
    }
    drop(arena.allocate(whole).expect("nothing stays behind"));
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn a_payload_of_tens_of_mebibytes_works() {
    let arena = arena(64 << 20);
    let mut large = arena.allocate(40 << 20).unwrap();
    large.set_len(40 << 20);
    large[(40 << 20) - 1] = 9;
    assert_eq!(large.freeze().slice((40 << 20) - 1..)[0], 9);
}

#[test]
fn stats_follow_what_is_handed_out() {
    let arena = arena(1 << 20);
    assert_eq!(arena.stats().region_bytes, 1 << 20);
    let small = arena.allocate(2048).unwrap();
    let large = arena.allocate(100_000).unwrap();
    let held = small.freeze();
    let used_bytes = held.held_bytes() + large.freeze().held_bytes();
    let stats = arena.stats();
    assert_eq!((stats.used_bytes, stats.live_buffers), (held.held_bytes(), 1));
    assert_eq!(stats.peak_used_bytes, used_bytes);
    let view = held.clone();
    assert_eq!(arena.stats().live_buffers, 1, "views are not buffers");
    drop((held, view));
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
    assert_eq!(arena.stats().peak_used_bytes, used_bytes, "the peak stays");
}

#[test]
fn an_arena_has_a_slab_at_least() {
    let smallest = Arena::new(&ArenaConfig { region_bytes: 0, hugepages: false }).unwrap();
    assert!(smallest.allocate(2048).is_some());
    let memory = Region::map(64 << 10, false).unwrap();
    // SAFETY: half of the mapping, which the hook keeps and nobody else uses.
    let region = unsafe { Region::from_foreign(memory.base(), 32 << 10, move || drop(memory)) };
    let error = Arena::with_region(region).unwrap_err();
    assert_eq!(error.to_string(), "mapping 32768 bytes: a region has at least 65536 bytes");
}

#[test]
fn hugepages_are_used_or_done_without() {
    let arena = Arena::new(&ArenaConfig { region_bytes: 4 << 20, hugepages: true }).unwrap();
    let buffer = arena.copy_from(&pattern(1, 100_000)).unwrap();
    assert_eq!(buffer[..], pattern(1, 100_000));
}

#[test]
fn an_arena_knows_its_addresses() {
    let arena = arena(1 << 20);
    let buffer = arena.copy_from(b"abc").unwrap();
    assert!(arena.contains(buffer.as_ptr()));
    assert!(!arena.contains(Buffer::from(vec![1; 10]).as_ptr()));
    assert!(!arena.contains(std::ptr::null()));
}

#[test]
fn a_region_lives_until_the_last_handle_and_the_last_buffer_are_gone() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let arena = watched_arena(&RELEASED);
    let second_handle = arena.clone();
    drop(arena);
    let buffer = second_handle.copy_from(b"still here").unwrap().freeze();
    drop(second_handle);
    let view = buffer.slice(6..);
    drop(buffer);
    assert_eq!(&view[..], b"here");
    assert!(!RELEASED.load(Ordering::SeqCst));
    drop(view);
    assert!(RELEASED.load(Ordering::SeqCst));
}

#[test]
fn a_region_with_an_odd_start_is_used_from_its_first_cache_line_on() {
    let memory = Region::map(1 << 20, false).unwrap();
    let len = memory.len() - 13;
    // SAFETY: within the mapping, which the hook keeps and nobody else uses.
    let region = unsafe { Region::from_foreign(memory.base().add(13), len, move || drop(memory)) };
    let base: NonNull<u8> = region.base();
    let arena = Arena::with_region(region).unwrap();
    let buffer = arena.allocate(2048).unwrap();
    assert_eq!(buffer.as_ptr() as usize % 64, 0);
    assert!(buffer.as_ptr() > base.as_ptr());
    assert!(arena.allocate((1 << 20) - (32 << 10)).is_none());
}
