//! Records of what was sent and is not acknowledged: when, how often, and how much had been delivered by then.
//!
//! Round-trip times, loss detection by time (RFC 8985) and delivery rates (draft-ietf-ccwg-bbr, section 4.1)
//! are all made from them. Full segments that leave at the same instant share one record, so that a burst costs
//! one, however long it is; a record is divided when its parts meet different fates.

use std::collections::VecDeque;

use libos::Instant;

use super::sequence::SequenceNumber;

/// What is known of where a transmission is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// In the network, for all that is known.
    InFlight,
    /// Arrived, by a selective acknowledgment, which may still be taken back (RFC 2018, section 8).
    Sacked,
    /// Given up for lost, and not sent again.
    Lost,
}

/// One range of sequence numbers, as it was last sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmission {
    /// The first sequence number.
    pub start: SequenceNumber,
    /// The sequence number after the last.
    pub end: SequenceNumber,
    /// Counts transmissions, so that those of one instant have an order too: clocks may be coarse. Wraps, and so tells
    /// nothing of transmissions that are far apart: see [`Self::sent_after`].
    pub order: u32,
    /// Payload bytes of the segments it went in; the last one may have fewer, and a FIN.
    pub segment_bytes: u16,
    /// Where it is.
    pub fate: Fate,
    /// True when it was sent more than once.
    pub retransmitted: bool,
    /// True when it was said to have arrived before a timeout made us forget that.
    pub was_sacked: bool,
    /// P.lost: bytes that had been given up for lost in all when it was sent; wraps.
    pub given_up_bytes: u32,
    /// P.is_app_limited: the program gave too little to fill the path when it was sent.
    pub app_limited: bool,
    /// When it was last sent.
    pub sent_at: Instant,
    /// P.delivered: bytes that had been delivered when it was sent.
    pub delivered_bytes: u64,
    /// P.delivered_time: when the last of those were known to be delivered.
    pub delivered_at: Instant,
    /// P.first_sent_time: when the first segment of the flight it belongs to was sent.
    pub first_sent_at: Instant,
}

impl Transmission {
    /// Its sequence numbers.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.end.distance_from(self.start)
    }

    /// True when it has no sequence number.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its segments.
    #[must_use]
    pub const fn segments(&self) -> u32 {
        let segment_bytes = if self.segment_bytes == 0 { 1 } else { self.segment_bytes as u32 };
        self.len().div_ceil(segment_bytes)
    }

    /// Its part within `start..end` that has whole segments; empty, or turned around, when there is none.
    fn whole_segments(&self, start: SequenceNumber, end: SequenceNumber) -> (SequenceNumber, SequenceNumber) {
        let segment_bytes = u32::from(self.segment_bytes).max(1);
        let skipped = if start.after(self.start) { start.distance_from(self.start) } else { 0 };
        let from = self.start + skipped.next_multiple_of(segment_bytes);
        let covered = end.min(self.end).distance_from(self.start);
        let until = if end.at_or_after(self.end) { covered } else { covered - covered % segment_bytes };
        (from, self.start + until)
    }

    /// True when it left after `other` did, however long ago that was: time decides, and among those of one instant
    /// their count.
    #[must_use]
    pub fn sent_after(&self, other: &Self) -> bool {
        if self.sent_at != other.sent_at {
            return self.sent_at > other.sent_at;
        }
        let order = self.order.wrapping_sub(other.order).cast_signed();
        order > 0 || (order == 0 && self.end.after(other.end))
    }
}

/// What one acknowledgment told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Delivered {
    /// Bytes that were not known to be delivered before.
    pub bytes: u32,
    /// Of what was delivered, the transmission that left last.
    pub newest: Option<Transmission>,
    /// Some of it was sent more than once.
    pub retransmitted: bool,
    /// [`Self::newest`] was. Beside it, so that nobody looks into a newest one that is not there.
    newest_retransmitted: bool,
    /// Beside a newest one that was sent more than once: the newest that was sent once.
    newest_once: Option<Transmission>,
    /// Something arrived after what was sent behind it.
    pub reordered: bool,
    /// Something arrived that had been given up for lost and was not sent again.
    pub was_not_lost: bool,
}

impl Delivered {
    /// When what times a round trip was sent; `None` when something was sent more than once, for which of the
    /// copies arrived is not known, and the rest may have waited for it (Karn: RFC 6298, section 3).
    #[inline]
    #[must_use]
    pub fn timed_from(&self) -> Option<Instant> {
        if self.retransmitted { None } else { self.newest.map(|newest| newest.sent_at) }
    }

    /// Of what was sent once only, the transmission that left last.
    #[must_use]
    pub fn newest_once(&self) -> Option<Transmission> {
        if self.newest_retransmitted { self.newest_once } else { self.newest.or(self.newest_once) }
    }

    #[inline]
    fn note(&mut self, record: &Transmission, bytes: u32) {
        self.bytes += bytes;
        if record.retransmitted || record.fate != Fate::InFlight || self.retransmitted {
            self.note_rare(record, bytes);
        }
        self.note_newest(record);
    }

    #[inline]
    fn note_newest(&mut self, record: &Transmission) {
        if self.newest.is_none_or(|newest| record.sent_after(&newest)) {
            self.newest = Some(*record);
            self.newest_retransmitted = record.retransmitted;
        }
    }

    #[cold]
    fn note_rare(&mut self, record: &Transmission, bytes: u32) {
        if record.fate == Fate::Lost && record.was_sacked {
            // It was counted when it was first reported; a timeout only made us forget that.
            self.bytes -= bytes;
        }
        if record.retransmitted {
            self.newest_once = self.newest_once();
        } else {
            self.was_not_lost |= record.fate == Fate::Lost && !record.was_sacked;
            if self.newest_once.is_none_or(|newest| record.sent_after(&newest)) {
                self.newest_once = Some(*record);
            }
        }
        self.retransmitted |= record.retransmitted;
    }

    /// Adds what else the same acknowledgment told of.
    pub(super) fn merge(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.retransmitted |= other.retransmitted;
        self.reordered |= other.reordered;
        self.was_not_lost |= other.was_not_lost;
        for newest in [other.newest_once(), other.newest].into_iter().flatten() {
            if newest.retransmitted {
                self.newest_once = self.newest_once();
            } else if self.newest_once().is_none_or(|known| newest.sent_after(&known)) {
                self.newest_once = Some(newest);
            }
            self.note_newest(&newest);
        }
    }
}

/// The records of one connection, in the order of their sequence numbers and without gaps.
#[derive(Debug)]
pub struct Transmissions {
    records: VecDeque<Transmission>,
    /// Bytes of [`Fate::Sacked`] and of [`Fate::Lost`].
    sacked_bytes: u32,
    lost_bytes: u32,
    /// C.lost: bytes given up for lost in all, those that were not lost after all included; wraps.
    given_up_bytes: u32,
    /// Segments of [`Fate::Sacked`].
    sacked_segments: u32,
    /// The order of the last transmission.
    order: u32,
    /// C.delivered: bytes delivered in all.
    delivered_bytes: u64,
    /// C.delivered_time: when the last delivery was noticed.
    delivered_at: Instant,
    /// C.first_sent_time: when the transmission delivered last was sent, or the first of a new flight.
    first_sent_at: Instant,
    /// C.app_limited: until so many bytes are delivered, samples tell what the program gave, not what the
    /// path carries. 0 when the path is the limit.
    app_limited_until_bytes: u64,
    /// Segments and bytes sent again.
    resent_segments: u32,
    resent_bytes: u64,
}

impl Transmissions {
    /// Nothing sent, which holds no memory.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            records: VecDeque::new(),
            sacked_bytes: 0,
            lost_bytes: 0,
            given_up_bytes: 0,
            sacked_segments: 0,
            order: 0,
            delivered_bytes: 0,
            delivered_at: now,
            first_sent_at: now,
            app_limited_until_bytes: 0,
            resent_segments: 0,
            resent_bytes: 0,
        }
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// True when nothing sent is unacknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// C.delivered: bytes delivered in all.
    #[must_use]
    pub const fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }

    /// Segments and bytes that were sent again, in all.
    #[must_use]
    pub const fn resent(&self) -> (u32, u64) {
        (self.resent_segments, self.resent_bytes)
    }

    /// Bytes a second delivered since the oldest of what is in flight was sent; `None` when nothing is.
    #[must_use]
    pub fn delivery_rate(&self) -> Option<u64> {
        let oldest = self.records.front()?;
        let bytes = self.delivered_bytes.saturating_sub(oldest.delivered_bytes);
        let nanos = self.delivered_at.nanos_since(oldest.delivered_at);
        bytes.saturating_mul(1_000_000_000).checked_div(nanos)
    }

    /// The sequence numbers from the first record's to behind the last one's.
    #[must_use]
    pub fn span(&self) -> Option<(SequenceNumber, SequenceNumber)> {
        Some((self.records.front()?.start, self.records.back()?.end))
    }

    /// Bytes known to be no longer in the network: they arrived, or are given up for lost.
    #[must_use]
    pub const fn left_bytes(&self) -> u32 {
        self.sacked_bytes + self.lost_bytes
    }

    /// Bytes selectively acknowledged.
    #[must_use]
    pub const fn sacked_bytes(&self) -> u32 {
        self.sacked_bytes
    }

    /// Segments selectively acknowledged.
    #[must_use]
    pub const fn sacked_segments(&self) -> u32 {
        self.sacked_segments
    }

    /// Segments of the records that `is_meant` picks. Looks at all of them: not for the path of a segment.
    #[must_use]
    pub fn count_segments(&self, is_meant: impl Fn(&Transmission) -> bool) -> u32 {
        self.records.iter().filter(|record| is_meant(record)).map(Transmission::segments).sum()
    }

    /// Bytes given up for lost and not sent again.
    #[must_use]
    pub const fn lost_bytes(&self) -> u32 {
        self.lost_bytes
    }

    /// C.lost: bytes given up for lost in all; wraps.
    #[must_use]
    pub const fn given_up_bytes(&self) -> u32 {
        self.given_up_bytes
    }

    /// The segment in front was lost, which duplicate acknowledgments told: its record tells nothing of it.
    pub(super) const fn note_unselective_loss(&mut self, bytes: u32) {
        self.given_up_bytes = self.given_up_bytes.wrapping_add(bytes);
    }

    /// True until all is delivered that was sent when [`Self::mark_app_limited`] was called.
    #[must_use]
    pub const fn is_app_limited(&self) -> bool {
        self.app_limited_until_bytes != 0
    }

    /// The record at a place.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Transmission> {
        self.records.get(index)
    }

    /// The place of the first record that ends behind `at`: the one that covers it, if any does.
    #[must_use]
    pub fn index_of(&self, at: SequenceNumber) -> usize {
        match self.records.front() {
            Some(first) if first.end.after(at) => 0,
            Some(_) | None => self.records.partition_point(|record| record.end.at_or_before(at)),
        }
    }

    /// Forgets all records, and gives their memory back.
    pub fn clear(&mut self) {
        self.records = VecDeque::new();
        (self.sacked_bytes, self.lost_bytes, self.sacked_segments) = (0, 0, 0);
    }

    /// Changes what is known of a record.
    pub(super) fn set_fate(&mut self, index: usize, fate: Fate) {
        if let Some(record) = self.records.get_mut(index) {
            let (before, bytes, segments) = (record.fate, record.len(), record.segments());
            record.fate = fate;
            self.uncount(before, bytes, segments);
            match fate {
                Fate::InFlight => {}
                Fate::Sacked => {
                    self.sacked_bytes += bytes;
                    self.sacked_segments += segments;
                }
                Fate::Lost => {
                    self.lost_bytes += bytes;
                    self.given_up_bytes = self.given_up_bytes.wrapping_add(bytes);
                }
            }
        }
    }

    fn uncount(&mut self, fate: Fate, bytes: u32, segments: u32) {
        match fate {
            Fate::InFlight => {}
            Fate::Sacked => {
                self.sacked_bytes = self.sacked_bytes.saturating_sub(bytes);
                self.sacked_segments = self.sacked_segments.saturating_sub(segments);
            }
            Fate::Lost => self.lost_bytes = self.lost_bytes.saturating_sub(bytes),
        }
    }

    /// Gives up all that is not acknowledged, what was selectively so included: the receiver may have dropped it
    /// (RFC 2018, section 8).
    pub(super) fn give_up_all(&mut self) {
        let mut lost_bytes = 0;
        for record in &mut self.records {
            record.was_sacked |= record.fate == Fate::Sacked;
            record.fate = Fate::Lost;
            lost_bytes += record.len();
        }
        let newly = lost_bytes.saturating_sub(self.lost_bytes);
        self.given_up_bytes = self.given_up_bytes.wrapping_add(newly);
        (self.sacked_bytes, self.lost_bytes, self.sacked_segments) = (0, lost_bytes, 0);
    }

    /// What was given up was not lost after all, but for what is under way again.
    pub(super) fn take_back_losses(&mut self) {
        for record in &mut self.records {
            if record.fate == Fate::Lost {
                record.fate = Fate::InFlight;
            }
        }
        self.lost_bytes = 0;
    }

    /// All whole segments within `start..end` arrived; they are not yet known to have. A segment of which only a
    /// part is covered waits for the rest. Returns the range that was marked.
    pub(super) fn on_sacked(
        &mut self,
        start: SequenceNumber,
        end: SequenceNumber,
        highest_before: SequenceNumber,
        delivered: &mut Delivered,
    ) -> Option<(SequenceNumber, SequenceNumber)> {
        let mut index = self.index_of(start);
        let mut marked: Option<(SequenceNumber, SequenceNumber)> = None;
        while let Some(&record) = self.records.get(index).filter(|record| record.start.before(end)) {
            let (from, until) = record.whole_segments(start, end);
            if from.before(until) {
                if from.after(record.start) {
                    self.divide(from);
                    index += 1;
                }
                self.divide(until);
                let part = Transmission { start: from, end: until, ..record };
                delivered.note(&part, part.len());
                delivered.reordered |= !part.retransmitted && until.before(highest_before);
                self.set_fate(index, Fate::Sacked);
                marked = Some((marked.map_or(from, |(first, _)| first), until));
            }
            index += 1;
        }
        marked
    }

    /// Counts what [`Self::on_sacked`] noted as delivered.
    pub(super) fn count_sacked(&mut self, delivered: &Delivered, now: Instant) {
        self.on_delivered(delivered, now);
    }

    /// The program has given less than the path would carry: what is sent until all of it is delivered,
    /// `bytes_in_flight` from here, measures no bandwidth (draft-ietf-ccwg-bbr, section 4.1.2.4).
    pub fn mark_app_limited(&mut self, bytes_in_flight: u32) {
        self.app_limited_until_bytes = (self.delivered_bytes + u64::from(bytes_in_flight)).max(1);
    }

    /// `start..end` was sent in segments of `segment_bytes`: something new, something again, or both.
    #[inline(always)]
    pub fn on_sent(&mut self, start: SequenceNumber, end: SequenceNumber, segment_bytes: u16, now: Instant) {
        if self.records.is_empty() {
            // Nothing is in flight: a new flight begins.
            self.first_sent_at = now;
            self.delivered_at = now;
            let record = self.stamped(start, end, segment_bytes, now);
            self.records.push_back(record);
        } else {
            self.on_sent_behind(start, end, segment_bytes, now);
        }
    }

    #[inline(never)]
    fn on_sent_behind(
        &mut self,
        mut start: SequenceNumber,
        end: SequenceNumber,
        segment_bytes: u16,
        now: Instant,
    ) {
        if let Some(last) = self.records.back_mut() {
            if start.before(last.end) {
                let known_end = end.min(last.end);
                self.on_resent(start, known_end, now);
                if known_end == end {
                    return;
                }
                start = known_end;
            } else if last.sent_at == now
                && last.delivered_bytes == self.delivered_bytes
                && last.segment_bytes == segment_bytes
                && !last.retransmitted
                && last.fate == Fate::InFlight
                && last.end.distance_from(last.start).is_multiple_of(u32::from(segment_bytes).max(1))
            {
                last.end = end;
                return;
            }
        }
        let record = self.stamped(start, end, segment_bytes, now);
        self.records.push_back(record);
    }

    /// A record of what is sent now.
    #[inline]
    fn stamped(
        &mut self,
        start: SequenceNumber,
        end: SequenceNumber,
        segment_bytes: u16,
        now: Instant,
    ) -> Transmission {
        self.order = self.order.wrapping_add(1);
        Transmission {
            start,
            end,
            order: self.order,
            segment_bytes,
            fate: Fate::InFlight,
            retransmitted: false,
            was_sacked: false,
            given_up_bytes: self.given_up_bytes,
            app_limited: self.app_limited_until_bytes != 0,
            sent_at: now,
            delivered_bytes: self.delivered_bytes,
            delivered_at: self.delivered_at,
            first_sent_at: self.first_sent_at,
        }
    }

    /// `start..end` was sent again, all of it known.
    #[inline(never)]
    fn on_resent(&mut self, start: SequenceNumber, end: SequenceNumber, now: Instant) {
        self.divide(start);
        self.divide(end);
        let first = self.records.partition_point(|record| record.start.before(start));
        let mut at = first;
        while let Some(&record) = self.records.get(at) {
            let Transmission { start, end: record_end, segment_bytes, .. } = record;
            if record_end.after(end) {
                break;
            }
            self.uncount(record.fate, record.len(), record.segments());
            self.resent_bytes += u64::from(record.len());
            self.resent_segments = self.resent_segments.wrapping_add(record.segments());
            let record =
                Transmission { retransmitted: true, ..self.stamped(start, record_end, segment_bytes, now) };
            if let Some(place) = self.records.get_mut(at) {
                *place = record;
            }
            at += 1;
        }
    }

    /// Makes sure that a record begins at `at`, if any covers it.
    pub(super) fn divide(&mut self, at: SequenceNumber) {
        let index = self.records.partition_point(|record| record.end.at_or_before(at));
        if let Some(record) = self.records.get_mut(index)
            && record.start.before(at)
        {
            let segments = record.segments();
            let behind = Transmission { start: at, ..*record };
            record.end = at;
            if record.fate == Fate::Sacked {
                self.sacked_segments += record.segments() + behind.segments() - segments;
            }
            self.records.insert(index + 1, behind);
        }
    }

    /// Everything before `una` is acknowledged.
    #[inline]
    pub fn on_acknowledged(&mut self, una: SequenceNumber, now: Instant) -> Delivered {
        let mut delivered = Delivered::default();
        while let Some(record) = self.records.front_mut() {
            if record.end.after(una) {
                if record.start.before(una) {
                    if record.fate == Fate::InFlight {
                        delivered.note(record, una.distance_from(record.start));
                        record.start = una;
                    } else {
                        self.divide(una);
                        continue;
                    }
                }
                break;
            }
            if record.fate == Fate::InFlight {
                delivered.note(record, record.len());
                delivered.reordered |= self.sacked_bytes > 0 && !record.retransmitted;
            } else {
                let record = *record;
                self.on_rare_acknowledged(&record, &mut delivered);
            }
            self.records.pop_front();
        }
        self.on_delivered(&delivered, now);
        delivered
    }

    /// As [`Self::on_acknowledged`], for a connection without losses: what [`Delivered::timed_from`] says.
    #[inline]
    pub fn on_plain_acknowledged(&mut self, una: SequenceNumber, now: Instant) -> Option<Instant> {
        let lone = match self.records.front() {
            Some(record) if self.records.len() == 1 && record.end == una => *record,
            Some(_) | None => return self.on_acknowledged(una, now).timed_from(),
        };
        if lone.retransmitted || lone.fate != Fate::InFlight {
            return self.on_acknowledged(una, now).timed_from();
        }
        // All that is in flight, sent once, and nothing beside it that could be missing.
        self.records.clear();
        self.count_delivered(lone.len(), lone.sent_at, now);
        Some(lone.sent_at)
    }

    /// Bytes were sent, alone, and acknowledged, without a record in between: of those that are kept, none would have
    /// said anything else for it.
    #[inline(always)]
    pub(super) const fn count_lone(&mut self, bytes: u32) {
        self.delivered_bytes += bytes as u64;
    }

    #[cold]
    fn on_rare_acknowledged(&mut self, record: &Transmission, delivered: &mut Delivered) {
        self.uncount(record.fate, record.len(), record.segments());
        if record.fate == Fate::Lost {
            delivered.note(record, record.len());
            delivered.reordered |= self.sacked_bytes > 0 && !record.retransmitted;
        }
    }

    #[inline]
    fn on_delivered(&mut self, delivered: &Delivered, now: Instant) {
        if let Some(newest) = &delivered.newest {
            self.count_delivered(delivered.bytes, newest.sent_at, now);
        }
    }

    #[inline]
    fn count_delivered(&mut self, bytes: u32, newest_sent_at: Instant, now: Instant) {
        self.delivered_bytes += u64::from(bytes);
        self.delivered_at = now;
        self.first_sent_at = newest_sent_at;
        if self.delivered_bytes > self.app_limited_until_bytes {
            self.app_limited_until_bytes = 0;
        }
    }
}

#[cfg(test)]
#[path = "transmissions_tests.rs"]
mod tests;
