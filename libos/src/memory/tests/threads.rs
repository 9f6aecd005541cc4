//! Buffers that other threads hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;

use super::super::{Arena, Buffer, Region};
use super::{arena, holdings, pattern};

/// An arena on a region that raises a flag when it is given back.
fn watched_arena() -> (Arena, Arc<AtomicBool>) {
    let region = Region::map(1 << 20, false).unwrap();
    let released = Arc::new(AtomicBool::new(false));
    let flag = released.clone();
    // SAFETY: the hook owns the mapping, nobody else knows it.
    let region = unsafe {
        Region::from_foreign(region.base(), region.len(), move || {
            drop(region);
            flag.store(true, Ordering::SeqCst);
        })
    };
    (Arena::with_region(region).unwrap(), released)
}

fn lend(arena: &Arena, bytes: &[u8]) -> Bytes {
    arena.copy_from(bytes).unwrap().freeze().into()
}

#[test]
fn lending_copies_nothing_and_comes_back() {
    let arena = arena(1 << 20);
    let buffer = arena.copy_from(&pattern(1, 2000)).unwrap().freeze();
    let (address, held_bytes) = (buffer.as_ptr(), buffer.held_bytes());
    let bytes = Bytes::from(buffer);
    assert_eq!(bytes.as_ptr(), address);
    assert_eq!(holdings(arena.stats()), (held_bytes, 1, held_bytes));
    let other = bytes.slice(500..);
    thread::spawn(move || {
        assert_eq!(bytes[..], pattern(1, 2000));
    })
    .join()
    .unwrap();
    assert_eq!(arena.stats().live_buffers, 1);
    thread::spawn(move || {
        assert_eq!(other[..], pattern(1, 2000)[500..]);
    })
    .join()
    .unwrap();
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn what_this_thread_drops_comes_back_as_well() {
    let arena = arena(1 << 20);
    drop(lend(&arena, b"to nobody"));
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
    assert!(Bytes::from(arena.allocate(10).unwrap().freeze()).is_empty());
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn a_block_is_not_written_to_while_other_threads_see_it() {
    let arena = arena(1 << 20);
    let mut buffer = arena.copy_from(b"shared").unwrap().freeze();
    let (first, second) = (Bytes::from(buffer.clone()), Bytes::from(buffer.slice(2..)));
    assert!(!buffer.is_unique());
    assert!(buffer.with_header(b"h").is_none());
    let buffer_back = buffer.try_into_mut().unwrap_err();
    buffer = buffer_back;
    thread::spawn(move || drop(first)).join().unwrap();
    assert!(!buffer.is_unique());
    thread::spawn(move || drop(second)).join().unwrap();
    assert!(buffer.is_unique(), "nobody else has it any more");
    assert_eq!(&buffer.with_header(b"h").unwrap()[..], b"hshared");
    let third = Bytes::from(buffer.clone());
    assert!(!buffer.is_unique(), "a block can be lent again");
    drop(buffer);
    assert_eq!(&third[..], b"shared");
    drop(third);
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn returned_blocks_are_allocated_again_without_a_reclaim() {
    let arena = arena(1 << 20);
    arena.set_lent_limit_bytes(usize::MAX);
    let mut lent: Vec<Bytes> = Vec::new();
    while let Some(buffer) = arena.copy_from(&[1; 2048]) {
        lent.push(buffer.freeze().into());
    }
    let count = lent.len();
    thread::spawn(move || drop(lent)).join().unwrap();
    let held: Vec<_> = (0..count).map_while(|_| arena.allocate(2048)).collect();
    assert_eq!(held.len(), count);
}

#[test]
fn reclaim_takes_back_what_was_returned() {
    let (arena, released) = watched_arena();
    let lent = lend(&arena, b"abc");
    thread::spawn(move || drop(lent)).join().unwrap();
    arena.reclaim();
    arena.reclaim();
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
    drop(arena);
    assert!(released.load(Ordering::SeqCst));
}

#[test]
fn beyond_the_limit_other_threads_get_copies() {
    let arena = arena(1 << 20);
    let buffer = arena.copy_from(&pattern(5, 2048)).unwrap().freeze();
    arena.set_lent_limit_bytes(buffer.held_bytes());
    let lent = Bytes::from(buffer.clone());
    let lent_again = Bytes::from(buffer.slice(1..));
    assert!(arena.contains(lent_again.as_ptr()), "a block that is lent already costs nothing more");
    let copied = lend(&arena, &pattern(6, 2048));
    assert!(!arena.contains(copied.as_ptr()));
    assert_eq!(copied[..], pattern(6, 2048));
    assert_eq!((arena.stats().lent_copies, arena.stats().live_buffers), (1, 1));
    drop((buffer, lent, lent_again));
    arena.reclaim();
    assert!(arena.contains(lend(&arena, b"room again").as_ptr()));
}

#[test]
fn memory_stays_while_another_thread_holds_it_though_the_arena_is_gone() {
    let (arena, released) = watched_arena();
    let (first, second) = (lend(&arena, b"first"), lend(&arena, b"second"));
    let returned_before = lend(&arena, b"third");
    drop(returned_before);
    drop(arena);
    assert!(!released.load(Ordering::SeqCst));
    let flag = released.clone();
    thread::spawn(move || {
        assert_eq!(&first[..], b"first");
        drop(first);
        assert!(!flag.load(Ordering::SeqCst));
        assert_eq!(&second[..], b"second");
        drop(second);
        assert!(flag.load(Ordering::SeqCst), "the last one gives the region back, on any thread");
    })
    .join()
    .unwrap();
}

#[test]
fn the_arenas_thread_may_be_the_last_one() {
    let (arena, released) = watched_arena();
    let local = arena.copy_from(b"local").unwrap().freeze();
    let both = arena.copy_from(b"both").unwrap().freeze();
    let lent = Bytes::from(both.clone());
    drop(arena);
    drop(both);
    thread::spawn(move || drop(lent)).join().unwrap();
    assert!(!released.load(Ordering::SeqCst));
    assert_eq!(&local[..], b"local");
    drop(local);
    assert!(released.load(Ordering::SeqCst));

    let (arena, released) = watched_arena();
    let lent = lend(&arena, b"lent");
    drop(arena);
    drop(lent);
    assert!(released.load(Ordering::SeqCst), "also for what was dropped here after the handles");
}

/// Many threads return blocks while the arena's thread allocates, lends and drops its own views, and at
/// last goes away in the middle of it.
#[test]
fn threads_return_blocks_while_the_arena_works_and_when_it_goes() {
    const THREADS: usize = 3;
    let rounds = if cfg!(miri) { 40 } else { 3_000 };
    let (arena, released) = watched_arena();
    let (senders, workers): (Vec<_>, Vec<_>) = (0..THREADS)
        .map(|_| {
            let (sender, receiver) = mpsc::channel::<(usize, Bytes)>();
            let worker = thread::spawn(move || {
                let mut kept = Vec::new();
                for (seed, bytes) in receiver {
                    assert_eq!(bytes[..], pattern(seed, bytes.len()));
                    kept.push((seed, bytes.slice(bytes.len() / 2..)));
                    if kept.len() > 7 {
                        let (seed, bytes): (usize, Bytes) = kept.swap_remove(seed % 7);
                        assert!(pattern(seed, bytes.len() * 2 + 1).len() > bytes.len());
                    }
                }
            });
            (sender, worker)
        })
        .unzip();
    let mut local: Vec<(usize, Buffer)> = Vec::new();
    for round in 0..rounds {
        let len = [20, 700, 2048, 9000][round % 4];
        let Some(buffer) = arena.copy_from(&pattern(round, len)) else {
            thread::yield_now();
            continue;
        };
        let buffer = buffer.freeze();
        senders[round % THREADS].send((round, buffer.clone().into())).unwrap();
        if round % 3 == 0 {
            senders[(round + 1) % THREADS].send((round, buffer.clone().into())).unwrap();
        }
        local.push((round, buffer));
        if local.len() > 16 {
            let (seed, mut buffer) = local.swap_remove(round % 16);
            assert_eq!(buffer[..], pattern(seed, buffer.len()));
            if let Some(framed) = buffer.with_header(b"header") {
                assert_eq!(&framed[..6], b"header");
            }
        }
        arena.reclaim();
    }
    drop(senders);
    drop(arena);
    drop(local);
    for worker in workers {
        worker.join().unwrap();
    }
    assert!(released.load(Ordering::SeqCst));
}
