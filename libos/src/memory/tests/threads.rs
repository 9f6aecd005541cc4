//! Buffers that other threads hold.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;

use bytes::Bytes;

use super::super::{Arena, Buffer};
use super::{arena, holdings, pattern, watched_arena};

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
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let arena = watched_arena(&RELEASED);
    let lent = lend(&arena, b"abc");
    thread::spawn(move || drop(lent)).join().unwrap();
    arena.reclaim();
    arena.reclaim();
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
    drop(arena);
    assert!(RELEASED.load(Ordering::SeqCst));
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
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let arena = watched_arena(&RELEASED);
    let (first, second) = (lend(&arena, b"first"), lend(&arena, b"second"));
    let returned_before = lend(&arena, b"third");
    drop(returned_before);
    drop(arena);
    assert!(!RELEASED.load(Ordering::SeqCst));
    thread::spawn(move || {
        assert_eq!(&first[..], b"first");
        drop(first);
        assert!(!RELEASED.load(Ordering::SeqCst));
        assert_eq!(&second[..], b"second");
        drop(second);
        assert!(RELEASED.load(Ordering::SeqCst), "the last one gives the region back, on any thread");
    })
    .join()
    .unwrap();
}

#[test]
fn the_arenas_thread_may_be_the_last_one() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let arena = watched_arena(&RELEASED);
    let local = arena.copy_from(b"local").unwrap().freeze();
    let both = arena.copy_from(b"both").unwrap().freeze();
    let lent = Bytes::from(both.clone());
    drop(arena);
    drop(both);
    thread::spawn(move || drop(lent)).join().unwrap();
    assert!(!RELEASED.load(Ordering::SeqCst));
    assert_eq!(&local[..], b"local");
    drop(local);
    assert!(RELEASED.load(Ordering::SeqCst));
}

#[test]
fn what_the_arenas_thread_drops_after_the_handles_frees_the_arena() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let arena = watched_arena(&RELEASED);
    let lent = lend(&arena, b"lent");
    drop(arena);
    drop(lent);
    assert!(RELEASED.load(Ordering::SeqCst));
}

/// Hands one value at a time from one thread to another, and orders nothing in the other direction: what
/// the receiver did with the bytes is for the arena to put in order. ThreadSanitizer cannot see into
/// the standard library's channels.
struct Slot(AtomicPtr<(usize, Bytes)>);

impl Slot {
    fn try_put(&self, value: Box<(usize, Bytes)>) -> Result<(), Box<(usize, Bytes)>> {
        let value = Box::into_raw(value);
        match self.0.compare_exchange(ptr::null_mut(), value, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            // SAFETY: it was a box above, and nobody has seen it.
            Err(_) => Err(unsafe { Box::from_raw(value) }),
        }
    }

    fn take(&self) -> Option<Box<(usize, Bytes)>> {
        let value = self.0.swap(ptr::null_mut(), Ordering::Acquire);
        // SAFETY: `try_put` made it of a box, and the swap makes it ours alone.
        (!value.is_null()).then(|| unsafe { Box::from_raw(value) })
    }
}

/// Takes what comes, keeps views of some of it for a while, and ends with an empty value.
fn hold_for_a_while(slot: &Slot) {
    let mut kept: Vec<(usize, Bytes)> = Vec::new();
    loop {
        let Some(value) = slot.take() else {
            thread::yield_now();
            continue;
        };
        let (seed, bytes) = *value;
        if bytes.is_empty() {
            return;
        }
        assert_eq!(bytes[..], pattern(seed, bytes.len()));
        kept.push((seed, bytes.slice(bytes.len() / 2..)));
        if kept.len() > 7 {
            kept.swap_remove(seed % 7);
        }
    }
}

/// Three threads return blocks while the arena's thread allocates, lends, writes to and drops its own
/// views; then the arena's thread is done before they are.
#[test]
fn threads_return_blocks_while_the_arena_works_and_when_it_goes() {
    static RELEASED: AtomicBool = AtomicBool::new(false);
    let rounds = if cfg!(miri) { 40 } else { 3_000 };
    let arena = watched_arena(&RELEASED);
    let slots = [const { Slot(AtomicPtr::new(ptr::null_mut())) }; 3];
    thread::scope(|scope| {
        for slot in &slots {
            scope.spawn(move || hold_for_a_while(slot));
        }
        let put = |slot: &Slot, seed: usize, bytes: Bytes| {
            let mut value = Box::new((seed, bytes));
            while let Err(back) = slot.try_put(value) {
                value = back;
                thread::yield_now();
            }
        };
        let mut local: Vec<(usize, Buffer)> = Vec::new();
        for round in 0..rounds {
            let len = [20, 700, 2048, 9000][round % 4];
            let buffer = arena.copy_from(&pattern(round, len)).unwrap().freeze();
            put(&slots[round % 3], round, buffer.clone().into());
            if round % 5 == 0 {
                put(&slots[(round + 1) % 3], round, buffer.clone().into());
            }
            local.push((round, buffer));
            if local.len() > 16 {
                let (seed, mut buffer) = local.swap_remove(round % 16);
                assert_eq!(buffer[..], pattern(seed, buffer.len()));
                if let Some(framed) = buffer.with_header(b"header") {
                    assert_eq!(&framed[..6], b"header");
                    drop(framed);
                    buffer.try_into_mut().unwrap().fill(0);
                }
            }
            arena.reclaim();
        }
        drop((arena, local));
        for slot in &slots {
            put(slot, 0, Bytes::new());
        }
    });
    assert!(RELEASED.load(Ordering::SeqCst));
}
