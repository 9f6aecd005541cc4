//! Data that arrived ahead of a gap, until the gap is filled (RFC 9293 §3.10.7.4; RFC 5681 §4.2).

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use libos::Buffer;

use super::sequence::SequenceNumber;

/// Most separate ranges. What would open one more is refused: the peer sends it again.
pub const MAX_RANGES: usize = 512;

/// Memory that may be held, in multiples of the receive buffer: frames of usual size fill their memory
/// by more than half. What goes beyond is refused.
pub const HELD_FACTOR: usize = 2;

/// Most ranges that an acknowledgment reports (RFC 2018 §3).
pub const REPORTED_RANGES: usize = 4;

/// Ranges touched last whose places are remembered: more than are reported, for some of them are joined.
const REMEMBERED_RANGES: usize = 16;

const NONE: u32 = u32::MAX;

/// What became of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Insertion {
    /// What was new in it was stored.
    Stored,
    /// Nothing in it was new.
    Duplicate,
    /// A limit was reached, and not all that was new was stored.
    Refused,
}

/// Adjacent buffers, as a list in `pieces`. There is a gap between any two ranges.
#[derive(Debug, Clone, Copy)]
struct Range {
    start: SequenceNumber,
    end: SequenceNumber,
    first: u32,
    last: u32,
    /// The insertion that touched it last.
    touched: u32,
}

#[derive(Debug)]
struct Piece {
    data: Option<Buffer>,
    next: u32,
}

/// The out-of-order data of one connection.
///
/// The bytes that arrived first win wherever segments overlap, so what the program reads does not
/// depend on when it reads. Growing the last range, which is what happens behind a single loss, costs
/// O(1); anything else O(log ranges) to find and at most [`MAX_RANGES`] small entries to move. What is reported is found
/// in O(log ranges) too.
#[derive(Debug)]
pub struct Reassembly {
    /// In the order of their sequence numbers.
    ranges: VecDeque<Range>,
    pieces: Vec<Piece>,
    free: u32,
    len_bytes: usize,
    held_bytes: usize,
    held_limit_bytes: usize,
    insertions: u32,
    /// A byte in each of the ranges touched last, the last one first. Ranges may have been joined or taken out since.
    recent: ArrayVec<SequenceNumber, REMEMBERED_RANGES>,
}

impl Reassembly {
    /// An empty queue for a receive buffer of `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            ranges: VecDeque::new(),
            pieces: Vec::new(),
            free: NONE,
            len_bytes: 0,
            held_bytes: 0,
            held_limit_bytes: limit_bytes.saturating_mul(HELD_FACTOR),
            insertions: 0,
            recent: ArrayVec::new(),
        }
    }

    /// Changes the receive buffer's limit.
    pub const fn set_limit(&mut self, limit_bytes: usize) {
        self.held_limit_bytes = limit_bytes.saturating_mul(HELD_FACTOR);
    }

    /// True when nothing is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes of data stored.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Bytes of memory that the stored data keeps from being reused.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Stores what is new in `data`, which begins at `sequence`. What lies in front of `rcv_nxt` is
    /// not; what lies beyond the window, the caller has cut off.
    ///
    /// Data at `rcv_nxt` is stored whatever the limits say, since it is taken out again at once, and
    /// nothing else gets out before it.
    pub fn insert(
        &mut self,
        mut sequence: SequenceNumber,
        mut data: Buffer,
        rcv_nxt: SequenceNumber,
    ) -> Insertion {
        if sequence.before(rcv_nxt) {
            data.advance(rcv_nxt.distance_from(sequence) as usize);
            sequence = rcv_nxt;
        }
        if data.is_empty() {
            return Insertion::Duplicate;
        }
        self.insertions = self.insertions.wrapping_add(1);
        let insertion = self.insert_new(sequence, data, rcv_nxt);
        self.remember(sequence);
        insertion
    }

    /// Stores what is new in `data`, all of it behind `rcv_nxt`.
    fn insert_new(
        &mut self,
        mut sequence: SequenceNumber,
        mut data: Buffer,
        rcv_nxt: SequenceNumber,
    ) -> Insertion {
        let index = self.first_ending_at_or_after(sequence);
        let mut insertion = Insertion::Duplicate;
        // Each turn stores the part of `data` up to the next boundary of a range, or skips it.
        while !data.is_empty() {
            let Some(range) = self.ranges.get_mut(index) else {
                return self.open_range(index, sequence, data, rcv_nxt);
            };
            if sequence.before(range.start) {
                let gap_bytes = range.start.distance_from(sequence) as usize;
                if data.len() < gap_bytes {
                    return self.open_range(index, sequence, data, rcv_nxt);
                }
                let front = data.split_to(gap_bytes);
                if !self.prepend(index, sequence, front, rcv_nxt) {
                    return Insertion::Refused;
                }
                sequence += gap_bytes as u32;
                insertion = Insertion::Stored;
                continue;
            }
            range.touched = self.insertions;
            let known_bytes = range.end.distance_from(sequence);
            sequence += known_bytes.min(data.len() as u32);
            data.advance(known_bytes as usize);
            if data.is_empty() {
                break;
            }
            let gap_bytes = self.gap_behind(index);
            let part = data.split_to(gap_bytes);
            sequence += part.len() as u32;
            if !self.append(index, part, rcv_nxt) {
                return Insertion::Refused;
            }
            insertion = Insertion::Stored;
            self.join_with_next(index);
        }
        insertion
    }

    /// Takes the data at `rcv_nxt` out, one buffer at a time; `None` when there is a gap.
    pub fn take_ready(&mut self, rcv_nxt: SequenceNumber) -> Option<Buffer> {
        loop {
            let range = self.ranges.front_mut()?;
            if range.start.after(rcv_nxt) {
                return None;
            }
            let start = range.start;
            let key = range.first;
            let piece = self.pieces.get_mut(key as usize)?;
            let data = piece.data.take()?;
            range.first = std::mem::replace(&mut piece.next, self.free);
            range.start += data.len() as u32;
            self.free = key;
            self.len_bytes -= data.len();
            self.held_bytes = self.held_bytes.saturating_sub(data.held_bytes());
            if range.first == NONE {
                self.ranges.pop_front();
            }
            let mut data = data;
            data.advance(rcv_nxt.distance_from(start) as usize);
            if !data.is_empty() {
                return Some(data);
            }
        }
    }

    /// How many ranges [`Self::recent_ranges`] has.
    #[must_use]
    pub fn reported_ranges(&self) -> usize {
        self.ranges.len().min(REPORTED_RANGES)
    }

    /// The ranges stored as start and end, those touched last first, as an acknowledgment reports them
    /// (RFC 2018 §4).
    pub fn recent_ranges(&mut self) -> ArrayVec<(SequenceNumber, SequenceNumber), REPORTED_RANGES> {
        let reported = self.remembered_ranges();
        if reported.len() == self.reported_ranges() {
            return reported;
        }
        // So many were joined since that it is time for another look at all of them.
        self.recollect();
        self.remembered_ranges()
    }

    fn remembered_ranges(&self) -> ArrayVec<(SequenceNumber, SequenceNumber), REPORTED_RANGES> {
        let mut reported = ArrayVec::new();
        for &place in &self.recent {
            let range = self.range_at(place).map(|range| (range.start, range.end));
            if let Some(range) = range.filter(|range| !reported.contains(range))
                && (reported.try_push(range).is_err() || reported.is_full())
            {
                break;
            }
        }
        reported
    }

    /// The range that has the byte at `place`.
    fn range_at(&self, place: SequenceNumber) -> Option<&Range> {
        let last = self.ranges.back()?;
        let range = if last.start.at_or_before(place) {
            last
        } else {
            self.ranges.get(self.ranges.partition_point(|range| range.end.at_or_before(place)))?
        };
        (range.start.at_or_before(place) && range.end.after(place)).then_some(range)
    }

    /// The range at `place`, if there is one, was touched last.
    fn remember(&mut self, place: SequenceNumber) {
        let Some(&Range { start, end, .. }) = self.range_at(place) else { return };
        let is_in = |other: &SequenceNumber| other.at_or_after(start) && other.before(end);
        if self.recent.first().is_some_and(is_in) {
            return;
        }
        self.recent.retain(|other| !is_in(other));
        self.recent.truncate(REMEMBERED_RANGES - 1);
        self.recent.insert(0, place);
    }

    /// Remembers the ranges touched last anew.
    #[cold]
    fn recollect(&mut self) {
        let mut recent: ArrayVec<(u32, SequenceNumber), REMEMBERED_RANGES> = ArrayVec::new();
        for range in &self.ranges {
            let age = self.insertions.wrapping_sub(range.touched);
            let place = recent.partition_point(|(other, _)| *other <= age);
            if place < REMEMBERED_RANGES {
                recent.truncate(REMEMBERED_RANGES - 1);
                recent.insert(place, (age, range.start));
            }
        }
        self.recent = recent.into_iter().map(|(_, place)| place).collect();
    }

    /// The first part of `start..end` that is stored.
    #[must_use]
    pub fn overlap(
        &self,
        start: SequenceNumber,
        end: SequenceNumber,
    ) -> Option<(SequenceNumber, SequenceNumber)> {
        let range = self.ranges.get(self.ranges.partition_point(|range| range.end.at_or_before(start)))?;
        range.start.before(end).then(|| (range.start.max(start), range.end.min(end)))
    }

    /// The first range that ends at or behind `sequence`: the one to grow or to look into.
    #[inline]
    fn first_ending_at_or_after(&self, sequence: SequenceNumber) -> usize {
        match self.ranges.back() {
            Some(last) if last.start.at_or_before(sequence) => {
                self.ranges.len() - usize::from(last.end.at_or_after(sequence))
            }
            Some(_) | None => self.ranges.partition_point(|range| range.end.before(sequence)),
        }
    }

    /// Bytes from the end of a range to the start of the next.
    fn gap_behind(&self, index: usize) -> usize {
        match (self.ranges.get(index), self.ranges.get(index + 1)) {
            (Some(range), Some(next)) => next.start.distance_from(range.end) as usize,
            (Some(_) | None, Some(_) | None) => usize::MAX,
        }
    }

    fn open_range(
        &mut self,
        index: usize,
        start: SequenceNumber,
        data: Buffer,
        rcv_nxt: SequenceNumber,
    ) -> Insertion {
        let end = start + data.len() as u32;
        if (self.ranges.len() >= MAX_RANGES || !self.has_room_for(&data)) && start != rcv_nxt {
            return Insertion::Refused;
        }
        let key = self.store(data, NONE);
        let range = Range { start, end, first: key, last: key, touched: self.insertions };
        self.ranges.insert(index, range);
        Insertion::Stored
    }

    /// Stores data that ends where a range starts.
    fn prepend(
        &mut self,
        index: usize,
        start: SequenceNumber,
        data: Buffer,
        rcv_nxt: SequenceNumber,
    ) -> bool {
        if !self.has_room_for(&data) && start != rcv_nxt {
            return false;
        }
        let next = self.ranges.get(index).map_or(NONE, |range| range.first);
        let key = self.store(data, next);
        if let Some(range) = self.ranges.get_mut(index) {
            range.first = key;
            range.start = start;
            range.touched = self.insertions;
        }
        true
    }

    /// Stores data that starts where a range ends.
    fn append(&mut self, index: usize, data: Buffer, rcv_nxt: SequenceNumber) -> bool {
        let Some(&Range { end, last, .. }) = self.ranges.get(index) else {
            return false;
        };
        if !self.has_room_for(&data) && end != rcv_nxt {
            return false;
        }
        let end = end + data.len() as u32;
        let key = self.store(data, NONE);
        if let Some(piece) = self.pieces.get_mut(last as usize) {
            piece.next = key;
        }
        if let Some(range) = self.ranges.get_mut(index) {
            range.last = key;
            range.end = end;
        }
        true
    }

    fn join_with_next(&mut self, index: usize) {
        if self.gap_behind(index) > 0 {
            return;
        }
        let Some(next) = self.ranges.remove(index + 1) else {
            return;
        };
        let Some(range) = self.ranges.get_mut(index) else {
            return;
        };
        if let Some(piece) = self.pieces.get_mut(range.last as usize) {
            piece.next = next.first;
        }
        range.last = next.last;
        range.end = next.end;
    }

    fn has_room_for(&self, data: &Buffer) -> bool {
        self.held_bytes + data.held_bytes() <= self.held_limit_bytes
    }

    fn store(&mut self, data: Buffer, next: u32) -> u32 {
        self.len_bytes += data.len();
        self.held_bytes += data.held_bytes();
        let piece = Piece { data: Some(data), next };
        let key = self.free;
        if let Some(place) = self.pieces.get_mut(key as usize) {
            self.free = std::mem::replace(place, piece).next;
            return key;
        }
        self.pieces.push(piece);
        // The memory held bounds the number of pieces far below 2^32.
        (self.pieces.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::Arena;
    use libos::memory::ArenaConfig;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Where the stream starts: close to the wrap.
    const BASE: u32 = u32::MAX - 20;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 4 << 20, hugepages: false }).unwrap()
    }

    fn at(offset: u32) -> SequenceNumber {
        SequenceNumber::new(BASE) + offset
    }

    struct Harness {
        arena: Arena,
        queue: Reassembly,
        next: u32,
        delivered: Vec<u8>,
    }

    impl Harness {
        fn new() -> Self {
            Self { arena: arena(), queue: Reassembly::new(1 << 20), next: 0, delivered: Vec::new() }
        }

        fn insert(&mut self, offset: u32, bytes: &[u8]) -> Insertion {
            let data = self.arena.copy_from(bytes).unwrap().freeze();
            self.queue.insert(at(offset), data, at(self.next))
        }

        fn drain(&mut self) {
            while let Some(data) = self.queue.take_ready(at(self.next)) {
                self.delivered.extend_from_slice(&data);
                self.next += data.len() as u32;
            }
        }

        fn ranges(&self) -> Vec<(u32, u32)> {
            let offset = |number: SequenceNumber| number.distance_from(at(0));
            self.queue.ranges.iter().map(|range| (offset(range.start), offset(range.end))).collect()
        }

        /// What [`Self::recent`] has to be, by a look at all ranges.
        fn newest(&self) -> Vec<(u32, u32)> {
            let offset = |number: SequenceNumber| number.distance_from(at(0));
            let mut ranges: Vec<_> = self.queue.ranges.iter().collect();
            ranges.sort_by_key(|range| self.queue.insertions.wrapping_sub(range.touched));
            ranges.truncate(REPORTED_RANGES);
            ranges.iter().map(|range| (offset(range.start), offset(range.end))).collect()
        }

        fn recent(&mut self) -> Vec<(u32, u32)> {
            let offset = |number: SequenceNumber| number.distance_from(at(0));
            self.queue.recent_ranges().iter().map(|&(start, end)| (offset(start), offset(end))).collect()
        }
    }

    #[test]
    fn bytes_that_came_first_win_in_every_overlap() {
        use Insertion::{Duplicate, Stored};
        // Stored before, then the segment, what becomes of it, and what all of it reads as.
        type Case =
            (&'static str, &'static [(u32, &'static str)], (u32, &'static str), Insertion, &'static str);
        let cases: [Case; 12] = [
            ("apart, behind", &[(2, "bb")], (6, "nn"), Stored, "..bb..nn"),
            ("apart, in front", &[(6, "bb")], (2, "nn"), Stored, "..nn..bb"),
            ("touching behind", &[(2, "bb")], (4, "nn"), Stored, "..bbnn"),
            ("touching in front", &[(4, "bb")], (2, "nn"), Stored, "..nnbb"),
            ("overlapping the end", &[(2, "bbb")], (4, "nnn"), Stored, "..bbbnn"),
            ("overlapping the start", &[(4, "bbb")], (2, "nnn"), Stored, "..nnbbb"),
            ("inside", &[(2, "bbbb")], (3, "nn"), Duplicate, "..bbbb"),
            ("the same", &[(2, "bbbb")], (2, "nnnn"), Duplicate, "..bbbb"),
            ("around", &[(3, "bb")], (2, "nnnn"), Stored, "..nbbn"),
            ("filling a gap exactly", &[(2, "bb"), (6, "cc")], (4, "nn"), Stored, "..bbnncc"),
            ("across several", &[(2, "b"), (5, "c"), (8, "d")], (1, "nnnnnnnnn"), Stored, ".nbnncnndn"),
            ("from inside to inside", &[(2, "bb"), (6, "cc")], (3, "nnnn"), Stored, "..bbnncc"),
        ];
        for (name, before, (offset, segment), insertion, expected) in cases {
            let mut harness = Harness::new();
            for &(offset, bytes) in before {
                assert_eq!(harness.insert(offset, bytes.as_bytes()), Stored, "{name}");
            }
            assert_eq!(harness.insert(offset, segment.as_bytes()), insertion, "{name}");
            let dots = expected.bytes().filter(|&byte| byte == b'.').count();
            assert_eq!(harness.queue.len_bytes(), expected.len() - dots, "{name}");
            // Fill what is still missing and read everything.
            for (offset, byte) in (0..).zip(expected.bytes()) {
                if byte == b'.' {
                    assert_eq!(harness.insert(offset, b"."), Stored, "{name}");
                }
            }
            harness.drain();
            assert_eq!(String::from_utf8_lossy(&harness.delivered), expected, "{name}");
            assert!(harness.queue.is_empty() && harness.queue.held_bytes() == 0, "{name}");
            assert_eq!(harness.arena.stats().live_buffers, 0, "{name}");
        }
    }

    #[test]
    fn what_was_delivered_meanwhile_is_not_delivered_again() {
        let mut harness = Harness::new();
        let _ = harness.insert(2, b"cd");
        let _ = harness.insert(4, b"ef");
        // In-order data took another way and covers the first buffer and half of the second.
        harness.next = 5;
        harness.drain();
        assert_eq!(harness.delivered, b"f");
        assert_eq!(harness.insert(0, b"abc"), Insertion::Duplicate);
        assert_eq!(harness.insert(4, b"xyz"), Insertion::Stored);
        harness.drain();
        assert_eq!(harness.delivered, b"fz");
    }

    #[test]
    fn ranges_are_reported_newest_first() {
        let mut harness = Harness::new();
        for offset in [10, 20, 30, 40, 50] {
            let _ = harness.insert(offset, b"xy");
        }
        assert_eq!(harness.recent(), [(50, 52), (40, 42), (30, 32), (20, 22)]);
        let _ = harness.insert(12, b"z");
        assert_eq!(harness.recent(), [(10, 13), (50, 52), (40, 42), (30, 32)]);
        // A duplicate is news about its range too.
        let _ = harness.insert(30, b"x");
        assert_eq!(harness.recent()[..2], [(30, 32), (10, 13)]);
        let _ = harness.insert(13, b"1234567");
        assert_eq!(harness.recent()[..2], [(10, 22), (30, 32)]);
        let _ = harness.insert(38, b"vw");
        assert_eq!(harness.recent()[..2], [(38, 42), (10, 22)]);
    }

    #[test]
    fn after_many_gaps_were_filled_what_is_left_is_reported_all_the_same() {
        let mut harness = Harness::new();
        for offset in (10..400).step_by(10) {
            let _ = harness.insert(offset, b"xy");
        }
        // All but the first few become one range.
        for offset in (52..390).step_by(10) {
            let _ = harness.insert(offset, b"12345678");
            let expected = harness.newest();
            assert_eq!(harness.recent(), expected);
        }
        assert_eq!(harness.recent(), [(50, 392), (40, 42), (30, 32), (20, 22)]);
    }

    #[test]
    fn too_many_ranges_are_refused_but_not_what_fills_a_gap() {
        let mut harness = Harness::new();
        for offset in 0..MAX_RANGES as u32 {
            assert_eq!(harness.insert(offset * 2 + 1, b"x"), Insertion::Stored);
        }
        assert_eq!(harness.insert(MAX_RANGES as u32 * 2 + 1, b"x"), Insertion::Refused);
        assert_eq!(harness.insert(2, b"y"), Insertion::Stored);
        assert_eq!(harness.insert(MAX_RANGES as u32 * 2 + 1, b"x"), Insertion::Stored);
        assert_eq!(harness.insert(0, b"z"), Insertion::Stored);
        harness.drain();
        assert_eq!(harness.delivered, b"zxyx");
    }

    #[test]
    fn tiny_segments_cannot_hold_more_memory_than_the_limit_and_the_gap_can_still_be_filled() {
        let mut harness = Harness::new();
        harness.queue = Reassembly::new(4_096);
        let mut refused = 0;
        for offset in 1..2_000 {
            refused += u32::from(harness.insert(offset, b"x") == Insertion::Refused);
            assert!(harness.queue.held_bytes() <= 4_096 * HELD_FACTOR);
        }
        assert!(refused > 0);
        assert_eq!(harness.insert(0, b"x"), Insertion::Stored);
        harness.drain();
        assert_eq!(harness.delivered.len() as u32, 2_000 - refused);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u32, usize),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0_u32..80, 0_usize..20).prop_map(|(ahead, len)| Step::Insert(ahead, len)),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_map_of_bytes(steps in prop::collection::vec(step(), 1..150)) {
            let mut harness = Harness::new();
            let mut model: BTreeMap<u32, u8> = BTreeMap::new();
            let mut delivered = Vec::new();
            for (number, step) in (0_u32..).zip(steps) {
                match step {
                    Step::Insert(ahead, len) => {
                        // From a little in front of what is next to well ahead.
                        let offset = (harness.next + ahead).saturating_sub(10);
                        let byte = number as u8;
                        let mut new = 0;
                        for place in (offset..offset + len as u32).filter(|&place| place >= harness.next) {
                            model.entry(place).or_insert_with(|| { new += 1; byte });
                        }
                        let insertion = harness.insert(offset, &vec![byte; len]);
                        let expected = if new > 0 { Insertion::Stored } else { Insertion::Duplicate };
                        prop_assert_eq!(insertion, expected);
                        let expected = harness.newest();
                        prop_assert_eq!(harness.recent(), expected);
                    }
                    Step::Drain => {
                        while let Some(byte) = model.remove(&(delivered.len() as u32)) {
                            delivered.push(byte);
                        }
                        harness.drain();
                        prop_assert_eq!(&harness.delivered, &delivered);
                    }
                }
                prop_assert_eq!(harness.queue.len_bytes(), model.len());
                let ranges = harness.ranges();
                prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", ranges);
                prop_assert!(ranges.iter().all(|&(start, end)| (start..end).all(|place| model.contains_key(&place))));
                if model.is_empty() {
                    prop_assert_eq!((harness.queue.held_bytes(), harness.arena.stats().live_buffers), (0, 0));
                }
            }
        }
    }
}
