//! Data in order, until the program takes it.

use std::collections::VecDeque;

use libos::memory::CopyCause;
use libos::{Arena, Buffer, PopLimit, ScatterGather};

/// Memory that may be held, in multiples of the queue's limit, before small buffers are copied together.
const HELD_FACTOR: usize = 2;

/// A buffer that fills less than this part of its memory is small.
const SMALL_PART: usize = 4;

/// Room of the buffers that small ones are copied into.
const JOINED_BYTES: usize = 4_096;

/// The receive queue of one connection: buffers by reference.
///
/// How many bytes it takes is up to the window that was offered. A peer that sends single bytes would
/// make each keep a whole frame's memory, so once the memory held is twice the limit, small buffers are
/// copied behind one another.
#[derive(Debug)]
pub struct ReceiveQueue {
    buffers: VecDeque<Buffer>,
    len_bytes: usize,
    held_bytes: usize,
    limit_bytes: usize,
}

impl ReceiveQueue {
    /// An empty queue, which holds no memory, for a window of up to `limit_bytes`.
    #[must_use]
    pub const fn new(limit_bytes: usize) -> Self {
        Self { buffers: VecDeque::new(), len_bytes: 0, held_bytes: 0, limit_bytes }
    }

    /// Bytes in the queue.
    #[inline]
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Bytes of memory that the queue keeps from being reused.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Changes the limit from which on small buffers are copied together.
    pub const fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Appends a buffer.
    #[inline]
    pub fn push(&mut self, data: Buffer, arena: &Arena) {
        if data.is_empty() {
            return;
        }
        self.len_bytes += data.len();
        let held_bytes = data.held_bytes();
        let is_small = data.len().saturating_mul(SMALL_PART) < held_bytes;
        if is_small && self.held_bytes + held_bytes > self.limit_bytes.saturating_mul(HELD_FACTOR) {
            self.push_copy(data, arena);
        } else {
            self.push_whole(data);
        }
    }

    /// Takes data off the front, as much as `limit` allows and there is.
    #[inline]
    pub fn pop(&mut self, limit: PopLimit) -> ScatterGather {
        if self.buffers.len() == 1 && self.len_bytes <= limit.bytes {
            self.len_bytes = 0;
            self.held_bytes = 0;
            return self.buffers.pop_front().map(ScatterGather::from).unwrap_or_default();
        }
        self.pop_several(limit)
    }

    /// Views of the data at the front, as much as [`Self::pop`] would take.
    #[must_use]
    pub fn peek(&self, limit: PopLimit) -> ScatterGather {
        let mut seen = ScatterGather::new();
        let mut room_bytes = limit.bytes.max(1);
        for buffer in self.buffers.iter().take(limit.segments.max(1)) {
            if room_bytes == 0 {
                break;
            }
            let mut view = buffer.clone();
            view.truncate(room_bytes);
            room_bytes -= view.len();
            seen.push(view);
        }
        seen
    }

    fn pop_several(&mut self, limit: PopLimit) -> ScatterGather {
        let mut taken = ScatterGather::new();
        let mut room_bytes = limit.bytes.max(1);
        for _ in 0..limit.segments.max(1) {
            let Some(front) = self.buffers.front_mut() else {
                break;
            };
            if front.len() > room_bytes {
                if room_bytes > 0 {
                    self.len_bytes -= room_bytes;
                    taken.push(front.split_to(room_bytes));
                }
                break;
            }
            let Some(data) = self.buffers.pop_front() else {
                break;
            };
            self.held_bytes = self.held_bytes.saturating_sub(data.held_bytes());
            self.len_bytes -= data.len();
            room_bytes -= data.len();
            taken.push(data);
        }
        taken
    }

    fn push_whole(&mut self, data: Buffer) {
        self.held_bytes += data.held_bytes();
        self.buffers.push_back(data);
    }

    /// Copies a small buffer behind the last one, where its memory has room and nobody else sees it, or
    /// into a new one. Without memory for that it is kept as it came: it takes no more than it already
    /// does.
    #[cold]
    fn push_copy(&mut self, mut data: Buffer, arena: &Arena) {
        if let Some(last) = self.buffers.pop_back() {
            match last.try_into_mut() {
                Ok(mut last) => {
                    let copied = last.extend_from_slice(&data);
                    data.advance(copied);
                    arena.count_copy(CopyCause::Joined, copied);
                    self.buffers.push_back(last.freeze());
                }
                Err(last) => self.buffers.push_back(last),
            }
        }
        if data.is_empty() {
            return;
        }
        match arena.allocate(JOINED_BYTES) {
            Some(mut joined) if data.len() <= JOINED_BYTES => {
                joined.extend_from_slice(&data);
                arena.count_copy(CopyCause::Joined, data.len());
                self.push_whole(joined.freeze());
            }
            Some(_) | None => self.push_whole(data),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::memory::{ArenaConfig, CopiedBytes};
    use proptest::prelude::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 8 << 20, hugepages: false }).unwrap()
    }

    /// The payload of a received frame: `bytes` in a block of 2 KiB.
    fn frame(arena: &Arena, bytes: &[u8]) -> Buffer {
        let mut block = arena.allocate(1_900).unwrap();
        block.extend_from_slice(bytes);
        block.freeze()
    }

    const ALL: PopLimit = PopLimit { segments: usize::MAX, bytes: usize::MAX };

    #[test]
    fn a_pop_returns_what_its_limits_allow() {
        let arena = arena();
        for (segments, bytes, expected, expected_segments) in [
            (1, usize::MAX, &b"abc"[..], 1),
            (2, usize::MAX, b"abcde", 2),
            (9, usize::MAX, b"abcdefghi", 3),
            (9, 4, b"abcd", 2),
            (9, 3, b"abc", 1),
            (9, 1, b"a", 1),
            (0, 0, b"a", 1),
        ] {
            let mut queue = ReceiveQueue::new(1 << 20);
            for bytes in [&b"abc"[..], b"", b"de", b"fghi"] {
                queue.push(frame(&arena, bytes), &arena);
            }
            let popped = queue.pop(PopLimit { segments, bytes });
            assert_eq!(popped.to_vec(), expected, "{segments} segments, {bytes} bytes");
            assert_eq!(popped.segments(), expected_segments);
            assert_eq!(queue.len_bytes(), 9 - expected.len());
            let rest = queue.pop(ALL);
            assert_eq!(rest.to_vec(), &b"abcdefghi"[expected.len()..]);
            assert_eq!((queue.len_bytes(), queue.held_bytes()), (0, 0));
        }
        assert!(ReceiveQueue::new(9).pop(ALL).is_empty());
    }

    #[test]
    fn full_frames_are_never_copied() {
        let arena = arena();
        let mut queue = ReceiveQueue::new(4_096);
        for _ in 0..100 {
            let data = frame(&arena, &[7; 1_448]);
            let address = data.as_ptr();
            queue.push(data, &arena);
            assert_eq!(queue.buffers.back().map(|last| last.as_ptr()), Some(address));
        }
        assert_eq!(arena.stats().copied_bytes, CopiedBytes::default());
    }

    #[test]
    fn single_bytes_do_not_keep_a_frame_each() {
        let arena = arena();
        let mut queue = ReceiveQueue::new(64 << 10);
        let mut sent = Vec::new();
        for number in 0..60_000_u32 {
            let byte = (number % 251) as u8;
            sent.push(byte);
            queue.push(frame(&arena, &[byte]), &arena);
            assert!(queue.held_bytes() <= (64 << 10) * HELD_FACTOR + 64 * 1_024, "{number}");
        }
        let used_bytes = arena.stats().used_bytes;
        assert!(used_bytes < (64 << 10) * 5, "{used_bytes}");
        let copied = arena.stats().copied_bytes;
        assert!(copied.joined > 50_000 && copied.joined < 60_000, "{copied:?}");
        assert_eq!(queue.pop(ALL).to_vec(), sent);
        assert_eq!((queue.held_bytes(), arena.stats().live_buffers), (0, 0));
    }

    #[test]
    fn memory_that_somebody_else_sees_is_not_written_to() {
        let arena = arena();
        let first = frame(&arena, b"first");
        let mut queue = ReceiveQueue::new(first.held_bytes() - 1);
        let view = first.clone();
        queue.push(first, &arena);
        queue.push(frame(&arena, b"second"), &arena);
        queue.push(frame(&arena, b"third"), &arena);
        assert_eq!(&view[..], b"first");
        let popped = queue.pop(ALL);
        assert_eq!((popped.segments(), popped.to_vec()), (2, b"firstsecondthird".to_vec()));
    }

    proptest! {
        #[test]
        fn behaves_like_a_row_of_bytes(
            limit_bytes in 0_usize..20_000,
            steps in prop::collection::vec((any::<bool>(), 0_usize..4, 0_usize..1_500), 1..100),
        ) {
            let arena = arena();
            let mut queue = ReceiveQueue::new(limit_bytes);
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0_u8;
            for (push, segments, count) in steps {
                if push {
                    // Half of them are tiny.
                    let len = if segments < 2 { count % 8 } else { count };
                    let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                    queue.push(frame(&arena, &bytes), &arena);
                    model.extend(bytes);
                } else {
                    let popped = queue.pop(PopLimit { segments, bytes: count });
                    prop_assert!(popped.segments() <= segments.max(1));
                    prop_assert!(popped.len() <= count.max(1));
                    prop_assert_eq!(popped.is_empty(), model.is_empty());
                    let expected: Vec<u8> = model.drain(..popped.len()).collect();
                    prop_assert_eq!(popped.to_vec(), expected);
                }
                prop_assert_eq!(queue.len_bytes(), model.len());
            }
            prop_assert_eq!(queue.pop(ALL).to_vec(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!((queue.held_bytes(), arena.stats().live_buffers), (0, 0));
        }
    }
}
