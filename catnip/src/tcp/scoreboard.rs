//! What the peer has selectively acknowledged, and what is to be sent again (RFC 2018, RFC 6675).
//!
//! The fate of each transmission stands in its record ([`Transmissions`]); this part knows where to look. An
//! acknowledgment costs what is new in it, and finding places among the records, which is logarithmic; never a walk
//! over all that is outstanding.

use std::collections::VecDeque;

use super::selective::Block;
use super::sequence::SequenceNumber;
use super::transmissions::{Delivered, Fate, Transmission, Transmissions};

/// Most separate ranges that are remembered. What a peer reports beyond them is not believed, and so sent again.
const MAX_RANGES: usize = 8_192;

/// A retransmission that is under way.
#[derive(Debug, Clone, Copy)]
struct Resent {
    start: SequenceNumber,
    order: u32,
}

/// What an acknowledgment's blocks turned out to be.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// What arrived twice (RFC 2883).
    pub duplicate: Option<Block>,
    /// Some block told something new.
    pub news: bool,
}

/// The scoreboard of one connection.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    /// Ranges selectively acknowledged, in order, with gaps between them.
    ranges: VecDeque<Block>,
    /// Where records begin that are lost, in order. Some may have met another fate since.
    lost: VecDeque<SequenceNumber>,
    /// Retransmissions in the order they left. Some may have met their fate since.
    resent: VecDeque<Resent>,
    /// Nothing in front of it that was sent once only is still in flight.
    frontier: SequenceNumber,
}

impl Scoreboard {
    pub(super) fn new(una: SequenceNumber) -> Self {
        Self { frontier: una, ..Self::default() }
    }

    /// The sequence number after the highest one reported.
    pub(super) fn highest(&self, una: SequenceNumber) -> SequenceNumber {
        self.ranges.back().map_or(una, |&(_, end)| end)
    }

    /// Everything before `una` is acknowledged. True when that ends where the peer had said to have more: it has
    /// dropped what it had (RFC 2018, section 8).
    pub(super) fn on_acknowledged(&mut self, una: SequenceNumber, sent: &Transmissions) -> bool {
        while self.ranges.front().is_some_and(|&(_, end)| end.at_or_before(una)) {
            self.ranges.pop_front();
        }
        while self.lost.front().is_some_and(|start| start.before(una)) {
            self.lost.pop_front();
        }
        self.find_lost_at(una, sent);
        let end = sent.span().map_or(una, |(_, end)| end);
        if !self.frontier.is_within(una, end) {
            // Behind what is acknowledged, perhaps by gigabytes in which nothing was lost.
            self.frontier = una;
        }
        self.ranges.front().is_some_and(|&(start, _)| start.at_or_before(una))
    }

    /// Takes an acknowledgment's blocks. `una..max` is what is outstanding; blocks elsewhere are about what came
    /// twice, or false.
    pub(super) fn take(
        &mut self,
        blocks: &[Block],
        una: SequenceNumber,
        max: SequenceNumber,
        sent: &mut Transmissions,
        delivered: &mut Delivered,
    ) -> Reported {
        let mut reported = Reported { duplicate: duplicate_of(blocks, una), news: false };
        let highest_before = self.highest(una);
        for &(start, end) in blocks {
            if start.before(end) && start.after(una) && end.at_or_before(max) {
                reported.news |= self.take_block(start, end, highest_before, sent, delivered);
            }
        }
        reported
    }

    /// Marks the parts of a block that are new.
    fn take_block(
        &mut self,
        start: SequenceNumber,
        end: SequenceNumber,
        highest_before: SequenceNumber,
        sent: &mut Transmissions,
        delivered: &mut Delivered,
    ) -> bool {
        let mut news = false;
        let mut at = start;
        // The first range that ends behind the block's start.
        let mut index = self.ranges.partition_point(|range| range.1.before(at));
        while at.before(end) {
            let gap_end = match self.ranges.get(index) {
                Some(&(known, known_end)) if known.at_or_before(at) => {
                    at = at.max(known_end);
                    index += 1;
                    continue;
                }
                Some(&(known, _)) => known.min(end),
                None => end,
            };
            if self.ranges.len() >= MAX_RANGES {
                break;
            }
            if let Some((from, until)) = sent.on_sacked(at, gap_end, highest_before, delivered) {
                news = true;
                self.find_lost_at(until, sent);
                index = self.insert(from, until, index);
                // What was joined on behind it is known.
                let joined = index.checked_sub(1).and_then(|joined| self.ranges.get(joined));
                at = joined.map_or(gap_end, |&(_, joined_end)| joined_end.max(gap_end));
            } else {
                at = gap_end;
            }
        }
        news
    }

    /// Adds a range in front of the one at `index`, joined with its neighbours where they touch. Returns the place
    /// behind it.
    fn insert(&mut self, start: SequenceNumber, end: SequenceNumber, index: usize) -> usize {
        let touches_next = self.ranges.get(index).is_some_and(|&(next, _)| next == end);
        let previous =
            index.checked_sub(1).filter(|&at| self.ranges.get(at).is_some_and(|range| range.1 == start));
        match (previous, touches_next) {
            (Some(previous), true) => {
                let next_end = self.ranges.remove(index).map_or(end, |(_, next_end)| next_end);
                if let Some(range) = self.ranges.get_mut(previous) {
                    range.1 = next_end;
                }
                index
            }
            (Some(previous), false) => {
                if let Some(range) = self.ranges.get_mut(previous) {
                    range.1 = end;
                }
                index
            }
            (None, true) => {
                if let Some(range) = self.ranges.get_mut(index) {
                    range.0 = start;
                }
                index + 1
            }
            (None, false) => {
                self.ranges.insert(index, (start, end));
                index + 1
            }
        }
    }

    /// Gives up what `judge` finds lost of what is in flight, in the order in which it left, up to the first that is
    /// not. Returns after how many nanoseconds that one will be.
    pub(super) fn detect(
        &mut self,
        sent: &mut Transmissions,
        mut judge: impl FnMut(&Transmission) -> Judgement,
    ) -> Option<u64> {
        let mut wait_ns: Option<u64> = None;
        let mut index = sent.index_of(self.frontier);
        while let Some(&record) = sent.get(index) {
            if record.fate == Fate::InFlight && !record.retransmitted {
                match judge(&record) {
                    Judgement::Lost => self.give_up(index, record.start, sent),
                    Judgement::Wait(ns) => {
                        wait_ns = Some(ns);
                        break;
                    }
                    Judgement::Newer => break,
                }
            }
            index += 1;
            self.frontier = record.end;
        }
        while let Some(&Resent { start, order }) = self.resent.front() {
            let index = sent.index_of(start);
            let current =
                sent.get(index).filter(|record| record.order == order && record.fate == Fate::InFlight);
            if let Some(&record) = current {
                match judge(&record) {
                    Judgement::Lost => self.give_up(index, record.start, sent),
                    Judgement::Wait(ns) => {
                        wait_ns = Some(wait_ns.map_or(ns, |other| other.min(ns)));
                        break;
                    }
                    Judgement::Newer => break,
                }
            }
            self.resent.pop_front();
        }
        wait_ns
    }

    fn give_up(&mut self, index: usize, start: SequenceNumber, sent: &mut Transmissions) {
        sent.set_fate(index, Fate::Lost);
        self.remember_lost(start);
    }

    /// A lost record was divided: its rest, if it begins at `at`, is found from now on.
    fn find_lost_at(&mut self, at: SequenceNumber, sent: &Transmissions) {
        if sent.lost_bytes() > 0
            && sent.get(sent.index_of(at)).is_some_and(|rest| rest.start == at && rest.fate == Fate::Lost)
        {
            self.remember_lost(at);
        }
    }

    fn remember_lost(&mut self, start: SequenceNumber) {
        match self.lost.back() {
            Some(last) if last.at_or_after(start) => {
                let place = self.lost.partition_point(|other| other.before(start));
                if self.lost.get(place) != Some(&start) {
                    self.lost.insert(place, start);
                }
            }
            Some(_) | None => self.lost.push_back(start),
        }
    }

    /// Everything outstanding is given up (RFC 2018, section 8; RFC 6298, section 5.4).
    pub(super) fn give_up_all(&mut self, max: SequenceNumber, sent: &mut Transmissions) {
        sent.give_up_all();
        self.ranges.clear();
        self.resent.clear();
        self.lost.clear();
        self.lost.extend((0..sent.len()).filter_map(|index| sent.get(index)).map(|record| record.start));
        self.frontier = max;
    }

    /// What is in flight in segments of more than `most_bytes` does not get there. False when there is nothing of it.
    pub(super) fn give_up_larger(&mut self, most_bytes: u16, sent: &mut Transmissions) -> bool {
        let mut any = false;
        for index in 0..sent.len() {
            let too_large = |record: &&Transmission| {
                let largest = u32::from(record.segment_bytes).min(record.len());
                record.fate == Fate::InFlight && largest > u32::from(most_bytes)
            };
            if let Some(start) = sent.get(index).filter(too_large).map(|record| record.start) {
                self.give_up(index, start, sent);
                any = true;
            }
        }
        any
    }

    /// What was given up was not lost after all.
    pub(super) fn take_back_losses(&mut self, una: SequenceNumber, sent: &mut Transmissions) {
        sent.take_back_losses();
        self.lost.clear();
        self.frontier = una;
    }

    /// What is lost and comes first (RFC 6675, section 4, NextSeg, rule 1).
    pub(super) fn next_lost(&mut self, sent: &Transmissions) -> Option<Transmission> {
        while let Some(&start) = self.lost.front() {
            let record = sent.get(sent.index_of(start)).copied();
            if let Some(record) = record.filter(|record| record.start == start && record.fate == Fate::Lost) {
                return Some(record);
            }
            self.lost.pop_front();
        }
        None
    }

    /// `start..end` was sent again; it begins with what [`Self::next_lost`] named, or ends all that was sent.
    pub(super) fn on_resent(&mut self, start: SequenceNumber, end: SequenceNumber, sent: &Transmissions) {
        if self.lost.front() == Some(&start) {
            self.lost.pop_front();
            self.find_lost_at(end, sent);
        }
        if let Some(record) = sent.get(sent.index_of(start)) {
            self.resent.push_back(Resent { start, order: record.order });
        }
    }
}

/// What becomes of a transmission in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is lost.
    Lost,
    /// It will be in so many nanoseconds.
    Wait(u64),
    /// Nothing that left after it has arrived.
    Newer,
}

/// The first block when it reports what came twice: it lies in front of what is acknowledged, or within the second
/// one (RFC 2883, section 4).
fn duplicate_of(blocks: &[Block], una: SequenceNumber) -> Option<Block> {
    let (&(start, end), rest) = blocks.split_first()?;
    let within_next = rest.first().is_some_and(|next| start.at_or_after(next.0) && end.at_or_before(next.1));
    (start.before(end) && (end.at_or_before(una) || within_next)).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::Instant;
    use proptest::prelude::*;

    const MSS: u32 = 100;
    /// Where the connection begins: the numbers wrap.
    const BASE: u32 = u32::MAX - 2_000;

    fn at(segment: u32) -> SequenceNumber {
        SequenceNumber::new(BASE) + segment * MSS
    }

    /// A scoreboard, with so many segments sent in bursts of `burst`.
    fn sent(segments: u32, burst: u32) -> (Scoreboard, Transmissions) {
        let mut sent = Transmissions::new(Instant::ZERO);
        for start in (0..segments).step_by(burst as usize) {
            let now = Instant::from_millis(u64::from(start));
            sent.on_sent(at(start), at(segments.min(start + burst)), MSS as u16, now);
        }
        (Scoreboard::new(at(0)), sent)
    }

    fn take(board: &mut Scoreboard, sent: &mut Transmissions, una: u32, blocks: &[(u32, u32)]) -> Delivered {
        let blocks: Vec<Block> = blocks.iter().map(|&(start, end)| (at(start), at(end))).collect();
        let mut delivered = Delivered::default();
        let (_, max) = sent.span().unwrap();
        let _ = board.take(&blocks, at(una), max, sent, &mut delivered);
        delivered
    }

    /// Gives up everything in front of the highest number reported that was sent once.
    fn detect(board: &mut Scoreboard, sent: &mut Transmissions) {
        let highest = board.highest(at(0));
        let _ = board.detect(sent, |record| {
            if record.end.at_or_before(highest) && !record.retransmitted {
                Judgement::Lost
            } else {
                Judgement::Newer
            }
        });
    }

    /// Sends everything lost again, a segment at a time; returns which.
    fn resend(board: &mut Scoreboard, sent: &mut Transmissions) -> Vec<u32> {
        let mut resent = Vec::new();
        while let Some(lost) = board.next_lost(sent) {
            let end = (lost.start + MSS).min(lost.end);
            sent.on_sent(lost.start, end, MSS as u16, Instant::from_millis(10_000));
            board.on_resent(lost.start, end, sent);
            resent.push(lost.start.distance_from(at(0)) / MSS);
        }
        resent
    }

    #[test]
    fn holes_within_one_burst_are_found_and_sent_again_in_order() {
        let (mut board, mut sent) = sent(20, 20);
        let delivered = take(&mut board, &mut sent, 0, &[(5, 7), (1, 3), (9, 12)]);
        assert_eq!((delivered.bytes, sent.sacked_bytes(), sent.sacked_segments()), (700, 700, 7));
        detect(&mut board, &mut sent);
        assert_eq!(sent.lost_bytes(), 500);
        assert_eq!(resend(&mut board, &mut sent), [0, 3, 4, 7, 8]);
        assert_eq!((sent.lost_bytes(), sent.left_bytes()), (0, 700));
    }

    #[test]
    fn losses_are_found_gigabytes_after_the_last_ones() {
        for gigabytes in 0..4 {
            let (mut board, mut sent) = (Scoreboard::new(at(0)), Transmissions::new(Instant::ZERO));
            let una = at(0) + (gigabytes << 30);
            sent.on_sent(una, una + 10 * MSS, MSS as u16, Instant::ZERO);
            assert!(!board.on_acknowledged(una, &sent));
            let mut delivered = Delivered::default();
            let (_, max) = sent.span().unwrap();
            let _ = board.take(&[(una + 5 * MSS, max)], una, max, &mut sent, &mut delivered);
            let _ = board.detect(&mut sent, |record| match record.fate {
                Fate::InFlight => Judgement::Lost,
                Fate::Sacked | Fate::Lost => Judgement::Newer,
            });
            assert_eq!(sent.lost_bytes(), 5 * MSS, "{gigabytes}");
        }
    }

    #[test]
    fn what_is_reported_again_is_no_news() {
        let (mut board, mut sent) = sent(20, 4);
        assert_eq!(take(&mut board, &mut sent, 0, &[(2, 9)]).bytes, 700);
        assert_eq!(take(&mut board, &mut sent, 0, &[(2, 9), (4, 6)]).bytes, 0);
        assert_eq!(take(&mut board, &mut sent, 0, &[(1, 11)]).bytes, 300);
        assert_eq!(board.ranges.len(), 1);
    }

    #[test]
    fn a_lost_record_that_is_divided_is_sent_again_in_all_its_parts() {
        let (mut board, mut sent) = sent(20, 20);
        let _ = take(&mut board, &mut sent, 0, &[(10, 12)]);
        detect(&mut board, &mut sent);
        // A part of what was given up arrives after all, and another is acknowledged.
        let delivered = take(&mut board, &mut sent, 0, &[(4, 6)]);
        assert!(delivered.was_not_lost && delivered.reordered);
        let _ = sent.on_acknowledged(at(2), Instant::from_millis(1));
        assert!(!board.on_acknowledged(at(2), &sent));
        assert_eq!(resend(&mut board, &mut sent), [2, 3, 6, 7, 8, 9]);
    }

    #[test]
    fn an_acknowledgment_that_ends_where_more_was_reported_shows_that_it_was_taken_back() {
        let (mut board, mut sent) = sent(20, 20);
        let _ = take(&mut board, &mut sent, 0, &[(4, 6)]);
        for (una, reneged) in [(3, false), (4, true), (5, true), (6, false)] {
            let _ = sent.on_acknowledged(at(una), Instant::from_millis(1));
            assert_eq!(board.on_acknowledged(at(una), &sent), reneged, "{una}");
        }
    }

    #[test]
    fn more_ranges_than_are_remembered_are_not_believed() {
        let segments = 2 * MAX_RANGES as u32 + 100;
        let mut sent = Transmissions::new(Instant::ZERO);
        sent.on_sent(at(0), at(segments), MSS as u16, Instant::ZERO);
        let mut board = Scoreboard::new(at(0));
        for segment in (1..segments - 1).step_by(2) {
            let _ = take(&mut board, &mut sent, 0, &[(segment, segment + 1)]);
        }
        assert_eq!(board.ranges.len(), MAX_RANGES);
        assert_eq!(sent.sacked_bytes(), MAX_RANGES as u32 * MSS);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Report(u32, u32),
        Acknowledge(u32),
        Detect,
        Resend,
        Timeout,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0_u32..60, 1_u32..12).prop_map(|(start, len)| Event::Report(start, len)),
            2 => (0_u32..6).prop_map(Event::Acknowledge),
            2 => Just(Event::Detect),
            2 => Just(Event::Resend),
            1 => Just(Event::Timeout),
        ]
    }

    proptest! {
        /// Each segment on its own, in a plain list.
        #[test]
        fn behaves_like_a_list_of_segments(
            burst in 1_u32..40,
            events in prop::collection::vec(event(), 1..80),
        ) {
            let total = 64;
            let (mut board, mut sent) = sent(total, burst);
            let mut model: Vec<(Fate, bool)> = vec![(Fate::InFlight, false); total as usize];
            let mut una = 0;
            for event in events {
                match event {
                    Event::Report(start, len) => {
                        let (start, end) = (una + 1 + start, (una + 1 + start + len).min(total));
                        if start < end {
                            let _ = take(&mut board, &mut sent, una, &[(start, end)]);
                            for segment in &mut model[start as usize..end as usize] {
                                segment.0 = Fate::Sacked;
                            }
                        }
                    }
                    Event::Acknowledge(segments) => {
                        una = (una + segments).min(total - 1);
                        let _ = sent.on_acknowledged(at(una), Instant::from_millis(5));
                        let _ = board.on_acknowledged(at(una), &sent);
                    }
                    Event::Detect => {
                        let highest = board.highest(at(una));
                        detect(&mut board, &mut sent);
                        let highest = highest.distance_from(at(0)) / MSS;
                        for segment in &mut model[una as usize..(highest.max(una)) as usize] {
                            if *segment == (Fate::InFlight, false) {
                                segment.0 = Fate::Lost;
                            }
                        }
                    }
                    Event::Resend => {
                        let expected: Vec<u32> =
                            (una..total).filter(|&at| model[at as usize].0 == Fate::Lost).collect();
                        prop_assert_eq!(&resend(&mut board, &mut sent), &expected);
                        for at in expected {
                            model[at as usize] = (Fate::InFlight, true);
                        }
                    }
                    Event::Timeout => {
                        board.give_up_all(at(total), &mut sent);
                        for segment in &mut model[una as usize..] {
                            segment.0 = Fate::Lost;
                        }
                    }
                }
                let outstanding = &model[una as usize..];
                let bytes = |fate| outstanding.iter().filter(|segment| segment.0 == fate).count() as u32 * MSS;
                prop_assert_eq!((sent.sacked_bytes(), sent.lost_bytes()), (bytes(Fate::Sacked), bytes(Fate::Lost)));
                prop_assert_eq!(sent.sacked_segments() * MSS, sent.sacked_bytes());
                let ordered = board.ranges.iter().zip(board.ranges.iter().skip(1)).all(|(a, b)| a.1.before(b.0));
                prop_assert!(ordered, "{:?}", board.ranges);
            }
        }
    }
}
