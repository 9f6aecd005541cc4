//! Views: slicing, headroom, and when memory may be written to.

use bytes::Bytes;

use super::super::{Buffer, BufferMut, HEADROOM_BYTES};
use super::{arena, holdings, pattern};

#[test]
fn a_view_is_three_words_and_none_costs_nothing() {
    assert_eq!(size_of::<Buffer>(), 24);
    assert_eq!(size_of::<Option<Buffer>>(), 24);
    assert_eq!(size_of::<BufferMut>(), 24);
}

#[test]
fn a_new_buffer_is_empty_with_room_on_both_sides() {
    let arena = arena(1 << 20);
    for capacity in [0, 1, 64, 65, 1514, 2048, 32_000, 40_000, 65_536, 500_000] {
        let mut buffer = arena.allocate(capacity).unwrap();
        assert!(buffer.is_empty());
        assert!(buffer.capacity() >= capacity, "{capacity}");
        buffer.set_len(capacity);
        buffer.fill(0xa5);
        let buffer = buffer.freeze();
        assert_eq!(buffer.len(), capacity);
        assert!(buffer.headroom() >= HEADROOM_BYTES);
        assert!(buffer.held_bytes() >= capacity + HEADROOM_BYTES);
        assert_eq!(buffer.as_ptr() as usize % 64, 0, "data begins on a cache line");
    }
}

#[test]
fn lengths_stop_at_the_capacity() {
    let arena = arena(1 << 20);
    let mut buffer = arena.allocate(100).unwrap();
    let capacity = buffer.capacity();
    buffer.set_len(usize::MAX);
    assert_eq!(buffer.len(), capacity);
    assert_eq!(buffer.extend_from_slice(b"more"), 0);
    buffer.set_len(capacity - 3);
    assert_eq!(buffer.extend_from_slice(b"more"), 3);
    assert_eq!(&buffer[capacity - 3..], b"mor");
}

#[test]
fn slices_see_the_same_bytes_and_keep_them() {
    let arena = arena(1 << 20);
    let bytes = pattern(1, 1000);
    let mut whole = arena.copy_from(&bytes).unwrap().freeze();
    let middle = whole.slice(100..=199);
    let tail = whole.slice((std::ops::Bound::Excluded(899), std::ops::Bound::Unbounded));
    let front = whole.split_to(10);
    whole.advance(5);
    whole.truncate(20);
    assert_eq!(&front[..], &bytes[..10]);
    assert_eq!(&whole[..], &bytes[15..35]);
    drop(whole);
    assert_eq!(&middle[..], &bytes[100..200]);
    assert_eq!(&tail[..], &bytes[900..]);
    assert_eq!(middle.as_ptr(), front.as_ptr().wrapping_add(100), "nothing was copied");
    assert_eq!(arena.stats().live_buffers, 1);
    drop((front, middle, tail));
    assert_eq!(holdings(arena.stats()), (0, 0, 0));
}

#[test]
fn ranges_outside_the_view_are_refused() {
    let arena = arena(1 << 20);
    let buffer = arena.copy_from(&[7; 100]).unwrap().freeze().slice(10..20);
    assert!(buffer.try_slice(..11).is_none());
    assert!(buffer.try_slice(..=10).is_none());
    assert!(buffer.try_slice(11..).is_none());
    #[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
    let reversed = buffer.try_slice(5..4);
    assert!(reversed.is_none());
    assert!(buffer.try_slice(0..=usize::MAX).is_none());
    assert!(buffer.try_slice((std::ops::Bound::Excluded(usize::MAX), std::ops::Bound::Unbounded)).is_none());
    assert_eq!(buffer.try_slice(10..).unwrap().len(), 0);
    assert_eq!(buffer.try_slice(..).unwrap().len(), 10);
}

#[test]
#[should_panic(expected = "out of the bounds of a buffer of 3 bytes")]
fn slice_panics_outside_the_view() {
    let _ = Buffer::from(&b"abc"[..]).slice(..4);
}

#[test]
fn cutting_more_than_there_is_takes_everything() {
    let mut buffer = Buffer::from(&b"abc"[..]);
    assert_eq!(&buffer.split_to(9)[..], b"abc");
    assert!(buffer.is_empty());
    let mut buffer = Buffer::from(&b"abc"[..]);
    buffer.advance(usize::MAX);
    assert!(buffer.is_empty());
}

#[test]
fn a_header_goes_in_front_of_the_only_view() {
    let arena = arena(1 << 20);
    let mut payload = arena.copy_from(b"payload").unwrap().freeze();
    let framed = payload.with_header(b"header ").unwrap();
    assert_eq!(&framed[..], b"header payload");
    assert_eq!(&payload[..], b"payload");
    assert!(payload.with_header(b"again ").is_none(), "the first frame still shows the bytes in front");
    drop(framed);
    assert_eq!(&payload.with_header(b"again ").unwrap()[..], b"again payload");
}

#[test]
fn a_header_needs_room() {
    let arena = arena(1 << 20);
    let mut payload = arena.copy_from(b"payload").unwrap().freeze();
    let room = payload.headroom();
    assert!(payload.with_header(&vec![1; room + 1]).is_none());
    let mut framed = payload.with_header(&vec![1; room]).unwrap();
    drop(payload);
    assert_eq!(framed.headroom(), 0);
    assert!(framed.with_header(b"x").is_none());
    assert_eq!(framed.with_header(b"").unwrap().len(), room + 7);
}

#[test]
fn only_the_last_view_may_be_written_to() {
    let arena = arena(1 << 20);
    let buffer = arena.copy_from(b"abcdef").unwrap().freeze();
    let other = buffer.slice(2..4);
    let buffer = buffer.try_into_mut().unwrap_err();
    drop(buffer);
    let mut writable = other.try_into_mut().unwrap();
    writable[0] = b'X';
    assert_eq!(writable.extend_from_slice(b"YZ"), 2);
    assert_eq!(&writable[..], b"XdYZ");
    assert!(writable.freeze().headroom() > HEADROOM_BYTES, "the cut-off bytes are headroom");
}

#[test]
fn foreign_memory_is_neither_copied_nor_written_to() {
    let vector = pattern(3, 5000);
    let address = vector.as_ptr();
    let mut buffer = Buffer::from(vector.clone());
    assert_ne!(buffer.as_ptr(), address);
    drop(buffer);
    buffer = Buffer::from(vector);
    assert_eq!(buffer.as_ptr(), address);
    assert_eq!(&buffer[..], pattern(3, 5000));
    assert_eq!((buffer.headroom(), buffer.held_bytes()), (0, 5000));
    assert!(!buffer.is_unique());
    assert!(buffer.with_header(b"h").is_none());
    assert!(buffer.slice(1..).try_into_mut().is_err());

    let text: &'static [u8] = b"static";
    assert_eq!(Buffer::from(text).as_ptr(), text.as_ptr());
}

#[test]
fn bytes_pass_through_a_buffer_unchanged() {
    let bytes = Bytes::from(pattern(4, 3000));
    let address = bytes.as_ptr();
    let buffer = Buffer::from(bytes.clone());
    assert_eq!(buffer.as_ptr(), address);
    let part = buffer.slice(500..2500);
    drop((bytes, buffer));
    let part = Bytes::from(part);
    assert_eq!(part.as_ptr(), address.wrapping_add(500), "the same memory, and not wrapped again");
    assert_eq!(part[..], pattern(4, 3000)[500..2500]);
    assert!(part.is_unique(), "nothing else holds it any more");
}
