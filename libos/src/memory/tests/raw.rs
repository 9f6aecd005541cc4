//! Buffers as plain pointers.

use super::super::{Buffer, BufferMut, RawBlock};
use super::{arena, holdings, pattern};

#[test]
fn a_buffer_survives_the_way_through_pointers() {
    let arena = arena(1 << 20);
    let raw = arena.copy_from(b"abcdef").unwrap().into_raw();
    assert_eq!(arena.stats().live_buffers, 1);
    // SAFETY: as it came from `into_raw`, with no other view.
    let mut writable = unsafe { BufferMut::from_raw(raw) };
    writable[0] = b'X';
    let raw = writable.freeze().slice(..3).into_raw();
    // SAFETY: as it came from `into_raw`.
    let buffer = unsafe { Buffer::from_raw(raw) };
    assert_eq!(&buffer[..], b"Xbc");
    drop(buffer);
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn a_further_view_stays_within_the_block() {
    let arena = arena(1 << 20);
    let arena_buffer = arena.copy_from(&pattern(1, 1000)).unwrap().freeze();
    let foreign_buffer = Buffer::from(pattern(1, 1000));
    for buffer in [arena_buffer, foreign_buffer] {
        let (block, data) = (buffer.clone().into_raw().block, buffer.as_ptr());
        let view = |offset: isize, len| {
            // SAFETY: `buffer` is a reference to the block, and nobody writes to it.
            unsafe { Buffer::view_raw(block, data.wrapping_offset(offset), len) }
        };
        assert_eq!(view(10, 20).unwrap()[..], pattern(1, 1000)[10..30]);
        assert_eq!(view(0, 1000).unwrap().len(), 1000);
        let room_bytes = buffer.held_bytes() - if buffer.headroom() > 0 { 192 } else { 0 };
        let (front, room) = (buffer.headroom() as isize, room_bytes as isize);
        assert!(view(-front, 1).is_some());
        assert!(view(-front - 1, 1).is_none());
        assert_eq!(view(room, 0).unwrap().len(), 0);
        assert!(view(room, 1).is_none());
        assert!(view(0, usize::MAX).is_none());
        assert!(view(room + 1, 0).is_none());
        // SAFETY: gives the reference back that `into_raw` above took away.
        drop(unsafe { Buffer::from_raw(super::super::RawBuffer { data: buffer.data, len: 0, block }) });
    }
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn an_address_leads_to_its_live_block_and_no_other() {
    let arena = arena(1 << 20);
    for capacity in [0, 64, 2048, 32_000, 200_000] {
        let mut buffer = arena.allocate(capacity).unwrap();
        let neighbour = arena.allocate(capacity).unwrap();
        buffer.set_len(usize::MAX);
        let last = buffer.last().map_or(buffer.as_ptr(), std::ptr::from_ref);
        let raw = buffer.into_raw();
        let block = raw.block.as_ptr();
        for address in [block.cast_const(), raw.data.as_ptr(), last] {
            assert_eq!(arena.live_block(address), Some(raw.block), "{capacity}");
        }
        assert_ne!(arena.live_block(last.wrapping_add(1)), Some(raw.block));
        assert_ne!(arena.live_block(block.wrapping_sub(1)), Some(raw.block));
        // SAFETY: from `as_ptr` and `into_raw` above.
        unsafe {
            assert_eq!(RawBlock::from_ptr(block), Some(raw.block));
            assert_eq!(RawBlock::from_ptr(std::ptr::null_mut()), None);
            drop(BufferMut::from_raw(raw));
        }
        assert_eq!(arena.live_block(block), None, "{capacity}: freed");
        drop(neighbour);
    }
    for address in
        [std::ptr::null(), arena.region().base().as_ptr().wrapping_sub(1), std::ptr::from_ref(&arena).cast()]
    {
        assert_eq!(arena.live_block(address), None);
    }
    let end = arena.region().base().as_ptr().wrapping_add(arena.region().len());
    assert_eq!(arena.live_block(end), None);
    assert_eq!(arena.live_block(std::ptr::without_provenance(usize::MAX)), None);
}
