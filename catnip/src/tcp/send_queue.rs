//! Bytes that the program gave and the peer has not acknowledged, by reference.

use std::collections::VecDeque;

use libos::memory::CopyCause;
use libos::{Arena, Buffer};

use crate::network::{Payload, PieceList};

/// Largest buffer that is copied behind another one.
const SMALL_BYTES: usize = 256;

/// Room of the buffers that small ones are copied into.
const JOINED_BYTES: usize = 2_048;

/// A buffer and where in the stream it begins.
#[derive(Debug)]
struct Chunk {
    start: u64,
    data: Buffer,
}

/// The send queue of one connection. Offsets count from its first byte, the oldest unacknowledged.
///
/// Sending in sequence costs O(1) a segment wherever in the queue it goes on; any other place is found
/// in O(log chunks). How much may be queued is the caller's limit.
#[derive(Debug, Default)]
pub struct SendQueue {
    /// Adjacent and not empty.
    chunks: VecDeque<Chunk>,
    /// The stream positions of the first byte and behind the last one.
    start: u64,
    end: u64,
    /// The chunk that was asked for last.
    cursor: usize,
    /// In the place of all chunks, between [`Self::push_lone`] and what ends that.
    lone: Option<Buffer>,
}

impl SendQueue {
    /// An empty queue, which holds no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes in the queue.
    #[inline]
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Number of buffers in the queue.
    #[must_use]
    pub fn chunks(&self) -> usize {
        self.chunks.len()
    }

    /// Appends a buffer.
    #[inline(always)]
    pub fn push(&mut self, data: Buffer) {
        if data.is_empty() {
            return;
        }
        let start = self.end;
        self.end += data.len() as u64;
        self.chunks.push_back(Chunk { start, data });
    }

    /// Puts one buffer, which is not empty, into an empty queue, where it stays alone: until
    /// [`Self::acknowledge_lone`] or [`Self::settle_lone`], nothing else must be asked but [`Self::len_bytes`].
    #[inline(always)]
    pub fn push_lone(&mut self, data: Buffer) {
        debug_assert!(self.chunks.is_empty() && self.start == self.end, "a lone buffer behind others");
        self.end += data.len() as u64;
        // There is nothing in its place to be dropped.
        std::mem::forget(self.lone.replace(data));
    }

    /// Lets go of the one buffer.
    #[inline(always)]
    pub fn acknowledge_lone(&mut self) {
        self.start = self.end;
        if let Some(data) = self.lone.take() {
            drop(data);
        }
    }

    /// The one buffer is one of possibly several from now on.
    pub fn settle_lone(&mut self) {
        if let Some(data) = self.lone.take() {
            self.cursor = 0;
            self.chunks.push_back(Chunk { start: self.start, data });
        }
    }

    /// Appends a buffer. A small one is copied behind the last one while that was not sent (the first
    /// `sent_bytes` of the queue were) and has room, so that a program that writes a few bytes at a time
    /// gets full segments of few pieces.
    #[inline]
    pub fn append(&mut self, data: Buffer, sent_bytes: usize, arena: &Arena) {
        let joins = data.len() <= SMALL_BYTES
            && self.chunks.back().is_some_and(|last| {
                last.start >= self.start + sent_bytes as u64 && last.data.len() < JOINED_BYTES
            });
        if joins {
            self.join(data, arena);
        } else {
            self.push(data);
        }
    }

    #[cold]
    fn join(&mut self, mut data: Buffer, arena: &Arena) {
        if let Some(Chunk { start, data: last }) = self.chunks.pop_back() {
            let last = match last.try_into_mut() {
                Ok(mut last) => {
                    let copied = last.extend_from_slice(&data);
                    data.advance(copied);
                    arena.count_copy(CopyCause::Joined, copied);
                    self.end += copied as u64;
                    last.freeze()
                }
                // The program still reads it.
                Err(last) => last,
            };
            self.chunks.push_back(Chunk { start, data: last });
        }
        if data.is_empty() {
            return;
        }
        match arena.allocate(JOINED_BYTES) {
            Some(mut joined) if data.len() <= JOINED_BYTES => {
                joined.extend_from_slice(&data);
                arena.count_copy(CopyCause::Joined, data.len());
                self.push(joined.freeze());
            }
            // It is sent from where it is.
            Some(_) | None => self.push(data),
        }
    }

    /// Lets go of the first `bytes` bytes, all when there are fewer.
    #[inline]
    pub fn acknowledge(&mut self, bytes: usize) {
        if self.chunks.len() == 1 && bytes >= self.len_bytes() {
            // A lone message, the usual case where latency counts.
            self.start = self.end;
            self.cursor = 0;
            self.chunks.pop_front();
        } else {
            self.acknowledge_some(bytes);
        }
    }

    #[inline(never)]
    fn acknowledge_some(&mut self, bytes: usize) {
        self.start += bytes.min(self.len_bytes()) as u64;
        while let Some(front) = self.chunks.front_mut() {
            let acknowledged = (self.start - front.start) as usize;
            if acknowledged < front.data.len() {
                front.data.advance(acknowledged);
                front.start = self.start;
                break;
            }
            self.chunks.pop_front();
            self.cursor = self.cursor.saturating_sub(1);
        }
    }

    /// The bytes `offset..offset + len` as payload of a packet, and how many of them it has: the buffer that
    /// is exactly these, or views gathered in `pieces`, which end where `pieces` is full.
    #[inline]
    pub fn payload<'a>(
        &'a mut self,
        offset: usize,
        len: usize,
        pieces: &'a mut PieceList,
    ) -> (Payload<'a>, usize) {
        let Some((index, skip)) = self.locate(offset) else { return (Payload::Empty, 0) };
        if skip == 0 && self.chunks.get(index).is_some_and(|chunk| chunk.data.len() == len) {
            return match self.chunks.get_mut(index) {
                Some(chunk) => (Payload::Whole(&mut chunk.data), len),
                None => (Payload::Empty, 0),
            };
        }
        let gathered = self.gather(index, skip, len, pieces);
        (Payload::Pieces(pieces), gathered)
    }

    fn gather(&mut self, mut index: usize, mut skip: usize, len: usize, pieces: &mut PieceList) -> usize {
        pieces.clear();
        let mut gathered = 0;
        while gathered < len && !pieces.is_full() {
            let Some(chunk) = self.chunks.get(index) else {
                break;
            };
            let mut piece = chunk.data.clone();
            piece.advance(skip);
            piece.truncate(len - gathered);
            gathered += piece.len();
            pieces.push(piece);
            self.cursor = index;
            index += 1;
            skip = 0;
        }
        gathered
    }

    /// The chunk that a byte is in, and how far in; `None` behind the end.
    #[inline]
    fn locate(&mut self, offset: usize) -> Option<(usize, usize)> {
        let position = self.start + offset as u64;
        if position >= self.end {
            return None;
        }
        // Mostly it is the same chunk as before or the next.
        for index in [self.cursor, self.cursor + 1] {
            if let Some(skip) = self.offset_within(index, position) {
                self.cursor = index;
                return Some((index, skip));
            }
        }
        let index = self.chunks.partition_point(|chunk| chunk.start <= position).checked_sub(1)?;
        self.cursor = index;
        Some((index, self.offset_within(index, position)?))
    }

    #[inline]
    fn offset_within(&self, index: usize, position: u64) -> Option<usize> {
        let chunk = self.chunks.get(index)?;
        let skip = usize::try_from(position.checked_sub(chunk.start)?).ok()?;
        (skip < chunk.data.len()).then_some(skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::memory::ArenaConfig;
    use proptest::prelude::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 1 << 20, hugepages: false }).unwrap()
    }

    fn buffer(arena: &Arena, bytes: &[u8]) -> Buffer {
        arena.copy_from(bytes).unwrap().freeze()
    }

    fn queue(arena: &Arena, chunks: &[&[u8]]) -> SendQueue {
        let mut queue = SendQueue::new();
        chunks.iter().for_each(|bytes| queue.push(buffer(arena, bytes)));
        queue
    }

    fn gathered(queue: &mut SendQueue, offset: usize, len: usize) -> Vec<u8> {
        let mut pieces = PieceList::new();
        let (payload, count) = queue.payload(offset, len, &mut pieces);
        let bytes = match payload {
            Payload::Empty => Vec::new(),
            Payload::Whole(chunk) => chunk.to_vec(),
            Payload::Pieces(pieces) => pieces.iter().flat_map(|piece| piece.to_vec()).collect(),
        };
        assert_eq!(bytes.len(), count);
        bytes
    }

    fn is_whole(queue: &mut SendQueue, offset: usize, len: usize) -> bool {
        matches!(queue.payload(offset, len, &mut PieceList::new()).0, Payload::Whole(_))
    }

    #[test]
    fn bytes_are_gathered_across_buffers() {
        let arena = arena();
        let mut queue = queue(&arena, &[b"abc", b"", b"d", b"efgh"]);
        assert_eq!((queue.len_bytes(), queue.chunks()), (8, 3));
        for (offset, len, expected) in [
            (0, 8, &b"abcdefgh"[..]),
            (2, 3, b"cde"),
            (7, 9, b"h"),
            (8, 1, b""),
            (900, 1, b""),
            (1, 0, b""),
            (0, 2, b"ab"),
        ] {
            assert_eq!(gathered(&mut queue, offset, len), expected, "{offset}+{len}");
        }
    }

    #[test]
    fn acknowledged_buffers_are_given_back_and_a_half_one_is_kept() {
        let arena = arena();
        let mut queue = queue(&arena, &[b"abc", b"def"]);
        assert_eq!(arena.stats().live_buffers, 2);
        queue.acknowledge(4);
        assert_eq!(arena.stats().live_buffers, 1);
        assert_eq!(gathered(&mut queue, 0, 9), b"ef");
        queue.acknowledge(900);
        assert_eq!((queue.len_bytes(), queue.chunks(), arena.stats().live_buffers), (0, 0, 0));
        queue.push(buffer(&arena, b"next"));
        assert_eq!(gathered(&mut queue, 0, 9), b"next");
    }

    #[test]
    fn a_full_piece_list_ends_gathering() {
        let arena = arena();
        let chunks: Vec<&[u8]> = vec![b"xy"; 40];
        let mut queue = queue(&arena, &chunks);
        let mut pieces = PieceList::new();
        let capacity = pieces.capacity();
        assert_eq!(queue.payload(1, 79, &mut pieces).1, capacity * 2 - 1);
        assert_eq!(queue.payload(0, 1, &mut pieces).1, 1, "what an earlier call gathered is gone");
    }

    #[test]
    fn a_whole_buffer_is_found_only_when_the_range_is_exactly_it() {
        let arena = arena();
        let mut queue = queue(&arena, &[b"abc", b"def"]);
        for (offset, len, whole) in [(3, 3, true), (0, 3, true), (0, 2, false), (1, 2, false), (0, 4, false)]
        {
            assert_eq!(is_whole(&mut queue, offset, len), whole, "{offset}+{len}");
        }
        queue.acknowledge(1);
        assert!(is_whole(&mut queue, 0, 2));
        assert_eq!(gathered(&mut queue, 0, 2), b"bc");
    }

    #[test]
    fn small_buffers_are_joined_behind_what_was_not_sent() {
        let arena = arena();
        let mut queue = SendQueue::new();
        queue.append(buffer(&arena, b"sent"), 0, &arena);
        for number in 0..2_000_u32 {
            queue.append(buffer(&arena, &number.to_be_bytes()), 4, &arena);
        }
        assert_eq!(queue.len_bytes(), 8_004);
        assert!(queue.chunks() <= 12, "{} pieces", queue.chunks());
        assert_eq!(arena.stats().live_buffers, queue.chunks());
        assert!(is_whole(&mut queue, 0, 4), "what was sent is left alone");
        let expected: Vec<u8> = (0..2_000_u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(gathered(&mut queue, 4, 8_000), expected);
        // All but the first behind what cannot take any more.
        let copied = arena.stats().copied_bytes.joined;
        assert!((7_900..8_000).contains(&copied), "{copied}");
    }

    #[test]
    fn large_buffers_and_those_the_program_still_reads_are_not_written_to() {
        let arena = arena();
        let mut queue = SendQueue::new();
        let kept = buffer(&arena, b"kept");
        queue.append(kept.clone(), 0, &arena);
        queue.append(buffer(&arena, b"more"), 0, &arena);
        let large = buffer(&arena, &[7; 2_048]);
        let address = large.as_ptr();
        queue.append(large, 0, &arena);
        queue.append(buffer(&arena, b"last"), 0, &arena);
        assert_eq!((&kept[..], queue.chunks()), (&b"kept"[..], 4));
        let sent_from = queue.chunks.get(2).map(|chunk| chunk.data.as_ptr());
        assert_eq!(sent_from, Some(address));
        assert_eq!(gathered(&mut queue, 0, 8), b"keptmore");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(usize),
        Acknowledge(usize),
        Gather(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..6).prop_map(Step::Push),
            (0_usize..12).prop_map(Step::Acknowledge),
            (0_usize..40, 0_usize..12).prop_map(|(offset, len)| Step::Gather(offset, len)),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_row_of_bytes(joins: bool, steps in prop::collection::vec(step(), 1..120)) {
            let arena = arena();
            let mut queue = SendQueue::new();
            let mut model: VecDeque<u8> = VecDeque::new();
            let mut next = 0_u8;
            for step in steps {
                match step {
                    Step::Push(len) => {
                        let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                        if joins {
                            let sent = model.len() / 2;
                            queue.append(buffer(&arena, &bytes), sent, &arena);
                        } else {
                            queue.push(buffer(&arena, &bytes));
                        }
                        model.extend(bytes);
                    }
                    Step::Acknowledge(bytes) => {
                        queue.acknowledge(bytes);
                        model.drain(..bytes.min(model.len()));
                    }
                    Step::Gather(offset, len) => {
                        let expected: Vec<u8> = model.iter().skip(offset).take(len).copied().collect();
                        prop_assert_eq!(gathered(&mut queue, offset, len), expected);
                    }
                }
                prop_assert_eq!(queue.len_bytes(), model.len());
                prop_assert_eq!(arena.stats().live_buffers, queue.chunks());
            }
        }
    }
}
