//! What reached one host of one stream, and what the host owes its peer for it.

use std::collections::BTreeSet;
use std::time::Duration;

use libos::Instant;
use smoltcp::wire::TcpSeqNumber;

use super::Segment;

/// Data in order is acknowledged within half a second (RFC 1122, section 4.2.3.2).
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// What a host's clock, its line and what waits there before an acknowledgment may take besides.
const SLACK: Duration = Duration::from_millis(200);

/// Bytes of a stream by their distance from its initial sequence number, as disjoint ranges in order.
#[derive(Debug, Clone, Default)]
struct Ranges(Vec<(i32, i32)>);

impl Ranges {
    fn add(&mut self, mut start: i32, mut end: i32) {
        self.0.retain(|&(other_start, other_end)| {
            let apart = other_end < start || end < other_start;
            if !apart {
                start = start.min(other_start);
                end = end.max(other_end);
            }
            apart
        });
        let at = self.0.partition_point(|range| range.0 < start);
        self.0.insert(at, (start, end));
    }

    /// Where the bytes end that follow `place` without a gap.
    fn end_from(&self, place: i32) -> i32 {
        let range = self.0.iter().find(|&&(start, end)| start <= place && place <= end);
        range.map_or(place, |&(_, end)| end)
    }

    fn contain(&self, start: i32, end: i32) -> bool {
        self.0.iter().any(|&(other_start, other_end)| other_start <= start && end <= other_end)
    }
}

/// The part of a stream that reached its receiver, one of our hosts.
#[derive(Debug, Clone)]
pub struct Arrivals {
    initial: TcpSeqNumber,
    /// All that arrived.
    all: Ranges,
    /// What the host had to take and has had the time for.
    taken: Ranges,
    /// What it has to take, and arrived at this moment.
    fresh: Vec<(i32, i32)>,
    fresh_at: Instant,
    /// Timestamps that arrived, of earlier connections of the same ports as well.
    stamps: BTreeSet<u32>,
    /// When the host is to have acknowledged something at the latest.
    due_at: Option<Instant>,
}

impl Arrivals {
    pub fn new(initial: TcpSeqNumber) -> Self {
        Self {
            initial,
            all: Ranges::default(),
            taken: Ranges::default(),
            fresh: Vec::new(),
            fresh_at: Instant::ZERO,
            stamps: BTreeSet::new(),
            due_at: None,
        }
    }

    /// Another connection of the same ports begins.
    pub fn restart(&mut self, initial: TcpSeqNumber) {
        *self = Self { stamps: std::mem::take(&mut self.stamps), ..Self::new(initial) };
    }

    /// A segment arrived.
    pub fn note(&mut self, segment: &Segment) {
        self.stamps.extend(segment.stamps.map(|(stamp, _)| stamp));
        let start = self.offset(segment.sequence) + i32::from(segment.syn);
        // A FIN has a place among the numbers, too.
        let bytes = segment.payload_bytes + usize::from(segment.fin);
        if bytes > 0 {
            self.all.add(start, start + bytes as i32);
        }
    }

    /// A segment arrives at a host that knows its peer, has acknowledged up to `acknowledged_to` and takes data up to `edge`.
    /// [`Self::note`] follows.
    pub fn expect(
        &mut self,
        segment: &Segment,
        acknowledged_to: TcpSeqNumber,
        edge: TcpSeqNumber,
        now: Instant,
    ) {
        self.settle(now);
        let start = segment.sequence + usize::from(segment.syn);
        let end = start + segment.payload_bytes;
        let end = if end < edge { end } else { edge };
        if start >= end || end <= acknowledged_to {
            return;
        }
        let (start, end) = (self.offset(start), self.offset(end));
        let has_gap = start > self.all.end_from(self.offset(acknowledged_to));
        let is_next = !has_gap && self.all.0.last().is_none_or(|last| last.1 <= end);
        let delay = if is_next { LONGEST_DELAY } else { Duration::ZERO };
        let due_at = now + delay + SLACK;
        self.due_at = Some(self.due_at.map_or(due_at, |before| before.min(due_at)));
        self.fresh.push((start, end));
    }

    /// When the host is to have acknowledged something at the latest.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    /// The host sent an acknowledgment, or is not to send any more.
    pub fn acknowledged(&mut self) {
        self.due_at = None;
    }

    /// What arrived need not be acknowledged any more.
    pub fn forget(&mut self) {
        self.taken.0.clear();
        self.fresh.clear();
        self.due_at = None;
    }

    fn offset(&self, number: TcpSeqNumber) -> i32 {
        number.0.wrapping_sub(self.initial.0)
    }

    /// Takes what arrived before `now` among what the host has had the time for.
    fn settle(&mut self, now: Instant) {
        if self.fresh_at < now {
            self.fresh.drain(..).for_each(|(start, end)| self.taken.add(start, end));
            self.fresh_at = now;
        }
    }

    /// What an acknowledgment of the host breaks.
    pub fn broken_by(&self, segment: &Segment) -> Option<&'static str> {
        let acknowledged_to = self.offset(segment.acknowledgement?);
        if acknowledged_to < 1 {
            // Of an earlier connection.
            return None;
        }
        if segment.stamps.is_some_and(|(_, echo)| !self.stamps.contains(&echo)) {
            return Some("echoed a timestamp that never arrived");
        }
        let arrived = |(start, end)| {
            let (start, end) = (self.offset(start), self.offset(end));
            end <= acknowledged_to || self.all.contain(start, end)
        };
        let mut blocks = segment.blocks.into_iter().flatten();
        (!blocks.all(arrived)).then_some("reported data that never arrived")
    }

    /// True when an acknowledgment of the host, sent at `now`, leaves out what arrived before, without a gap.
    pub fn leaves_out(&mut self, segment: &Segment, now: Instant) -> bool {
        self.settle(now);
        let Some(acknowledgement) = segment.acknowledgement else { return false };
        let acknowledged_to = self.offset(acknowledgement);
        let left_out = |&(start, end): &(i32, i32)| start <= acknowledged_to && acknowledged_to < end;
        acknowledged_to >= 1 && self.taken.0.iter().any(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Flow;

    const START: i32 = -100;

    fn at(offset: i32) -> TcpSeqNumber {
        TcpSeqNumber(START + offset)
    }

    fn segment() -> Segment {
        let [from, to] = ["10.0.0.1:1000", "10.0.0.2:2000"].map(|address| address.parse().unwrap());
        Segment {
            flow: Flow { from, to },
            sequence: at(1),
            acknowledgement: None,
            window: 0,
            window_scale: None,
            max_segment: None,
            stamps: None,
            blocks: [None; 3],
            syn: false,
            fin: false,
            rst: false,
            payload_bytes: 0,
        }
    }

    /// Data with the timestamp 7, of these offsets, at a host that has acknowledged the SYN and has room up to 1000.
    fn arrive(arrivals: &mut Arrivals, (start, end): (i32, i32), now: Instant) {
        let payload_bytes = (end - start) as usize;
        let data = Segment { sequence: at(start), payload_bytes, stamps: Some((7, 0)), ..segment() };
        arrivals.expect(&data, at(1), at(1000), now);
        arrivals.note(&data);
    }

    #[test]
    fn an_answer_says_of_what_arrived_what_is_so() {
        const LIES: Option<&str> = Some("reported data that never arrived");
        // What arrived, what is acknowledged, the block, the timestamp that is echoed; what is broken, what left out.
        type Case = (&'static str, &'static [(i32, i32)], i32, (i32, i32), u32, Option<&'static str>, bool);
        let cases: [Case; 9] = [
            ("all of it", &[(1, 50)], 50, (1, 2), 7, None, false),
            ("less than all", &[(1, 50), (50, 60)], 50, (1, 2), 7, None, true),
            ("up to a gap", &[(1, 50), (60, 70)], 50, (60, 70), 7, None, false),
            ("across a filled gap", &[(1, 50), (60, 70), (50, 60)], 50, (60, 70), 7, None, true),
            ("what is beyond the window", &[(1, 1000), (1000, 1100)], 1000, (1, 2), 7, None, false),
            ("a block that is too long", &[(1, 50), (60, 70)], 50, (60, 71), 7, LIES, false),
            ("a block of nothing", &[(1, 50)], 50, (80, 90), 7, LIES, false),
            (
                "another timestamp",
                &[(1, 50)],
                50,
                (1, 2),
                8,
                Some("echoed a timestamp that never arrived"),
                false,
            ),
            ("an earlier connection", &[(1, 50)], -20, (80, 90), 8, None, false),
        ];
        for (name, arrived, acknowledged_to, (start, end), echo, broken, left_out) in cases {
            let mut arrivals = Arrivals::new(at(0));
            for &range in arrived {
                arrive(&mut arrivals, range, Instant::from_millis(1));
            }
            let answer = Segment {
                acknowledgement: Some(at(acknowledged_to)),
                blocks: [Some((at(start), at(end))), None, None],
                stamps: Some((0, echo)),
                ..segment()
            };
            assert!(!arrivals.leaves_out(&answer, Instant::from_millis(1)), "{name}: it had no time for it");
            assert_eq!(arrivals.broken_by(&answer), broken, "{name}");
            assert_eq!(arrivals.leaves_out(&answer, Instant::from_millis(2)), left_out, "{name}");
        }
    }

    #[test]
    fn data_in_order_may_wait_half_a_second_and_other_data_not() {
        let now = Instant::from_millis(10);
        let later = now + LONGEST_DELAY + SLACK;
        type Case = (&'static str, &'static [(i32, i32)], Option<Instant>);
        let cases: [Case; 4] = [
            ("nothing", &[], None),
            ("in order", &[(1, 50), (50, 60)], Some(later)),
            ("behind a gap", &[(1, 50), (60, 70)], Some(now + SLACK)),
            ("filling a gap", &[(60, 70), (1, 60)], Some(now + SLACK)),
        ];
        for (name, arrived, due_at) in cases {
            let mut arrivals = Arrivals::new(at(0));
            for &range in arrived {
                arrive(&mut arrivals, range, now);
            }
            assert_eq!(arrivals.due_at(), due_at, "{name}");
            arrivals.acknowledged();
            assert_eq!(arrivals.due_at(), None, "{name}");
        }
    }
}
