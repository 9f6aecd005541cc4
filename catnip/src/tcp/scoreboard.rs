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
        self.frontier = self.frontier.max(una);
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
            }
            at = gap_end;
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
