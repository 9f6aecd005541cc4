//! TCP's reassembly against a plain model: the stream's bytes as they came first, and which ranges of it are there.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use catnip::tcp::reassembly::{Insertion, MAX_RANGES, REPORTED_RANGES, Reassembly};
use catnip::tcp::sequence::SequenceNumber;

/// Where the stream starts: close to the wrap.
const BASE: u32 = u32::MAX - 300;
/// Most insertions of one run: more than there may be ranges.
const MAX_INSERTS: usize = 600;
/// How much the queue may hold, as a receive buffer.
const LIMIT_BYTES: usize = 64 << 10;
/// Bytes of one insertion are fewer.
const MAX_INSERT_BYTES: usize = 1_500;

/// What is inserted: bytes that count up, so that a piece of them tells its place. Ready made, since the fuzzer watches
/// every step that is taken for a byte.
static COUNTED: [u8; 256 + MAX_INSERT_BYTES] = {
    let mut bytes = [0; 256 + MAX_INSERT_BYTES];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// One segment that arrives.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub struct Insert {
    /// Where it begins, from RCV.NXT; may lie before it.
    offset: i16,
    len: u16,
    /// What its bytes are.
    fill: u8,
    /// The program takes what is in order.
    drain: bool,
}

/// The stream as it must be read.
#[derive(Default)]
struct Model {
    /// By their offset; whatever lies outside the ranges has not come.
    bytes: Vec<u8>,
    /// Start and end, with a gap between any two.
    ranges: BTreeMap<u32, u32>,
    len_bytes: usize,
    /// Everything in front of this was read.
    next: u32,
}

/// Runs the insertions and compares after each.
pub fn run(inserts: &[Insert]) {
    let arena = super::arena();
    let base = SequenceNumber::new(BASE);
    let mut queue = Reassembly::new(LIMIT_BYTES);
    let mut model = Model::default();
    for (index, insert) in inserts.iter().take(MAX_INSERTS).enumerate() {
        let offset = model.next.saturating_add_signed(i32::from(insert.offset));
        let len = usize::from(insert.len) % MAX_INSERT_BYTES;
        let bytes = &COUNTED[usize::from(insert.fill.wrapping_add(index as u8))..][..len];
        let data = arena.copy_from(bytes).expect("the limit keeps memory free").freeze();
        let insertion = queue.insert(base + offset, data, base + model.next);
        let mut new = model.gaps(offset.max(model.next), offset + len as u32);
        match insertion {
            Insertion::Stored => assert!(!new.is_empty(), "stored though nothing was new"),
            Insertion::Duplicate => assert!(new.is_empty(), "{new:?} was called a duplicate"),
            // The front part may have been stored: what of it was, is found out by its place.
            Insertion::Refused => {
                assert!(!new.is_empty());
                let mut stored = (queue.len_bytes() - model.len_bytes) as u32;
                for (start, end) in &mut new {
                    *end = (*end).min(*start + stored);
                    stored -= *end - *start;
                }
            }
        }
        for (start, end) in new {
            model.take(start, &bytes[(start - offset) as usize..(end - offset) as usize]);
        }
        assert_eq!(queue.len_bytes(), model.len_bytes);
        compare_ranges(&mut queue, &model, base);
        if insert.drain {
            drain(&mut queue, &mut model, base);
        }
    }
    drain(&mut queue, &mut model, base);
    drop(queue);
    assert_eq!(arena.stats().live_buffers, 0, "a buffer leaked");
}

impl Model {
    /// What of `start..end` has not come.
    fn gaps(&self, start: u32, end: u32) -> Vec<(u32, u32)> {
        let mut gaps = Vec::new();
        let mut at = start;
        let first = self.ranges.range(..=start).next_back().map_or(start, |(from, _)| *from);
        for (&from, &to) in self.ranges.range(first..).take_while(|(from, _)| **from < end) {
            if at < from {
                gaps.push((at, from));
            }
            at = at.max(to);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }

    /// Takes what fills a gap, or a part of one.
    fn take(&mut self, start: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let (mut from, mut to) = (start, start + bytes.len() as u32);
        self.bytes.resize(self.bytes.len().max(to as usize), 0);
        self.bytes[start as usize..to as usize].copy_from_slice(bytes);
        self.len_bytes += bytes.len();
        if let Some(behind) = self.ranges.remove(&to) {
            to = behind;
        }
        if let Some((&in_front, _)) = self.ranges.range(..from).next_back().filter(|(_, end)| **end == from) {
            from = in_front;
        }
        self.ranges.insert(from, to);
    }
}

fn drain(queue: &mut Reassembly, model: &mut Model, base: SequenceNumber) {
    let start = model.next;
    while let Some(data) = queue.take_ready(base + model.next) {
        let end = model.next + data.len() as u32;
        let expected = model.bytes.get(model.next as usize..end as usize);
        assert!(expected == Some(&data[..]), "the bytes from {} to {end}", model.next);
        model.next = end;
    }
    model.len_bytes -= (model.next - start) as usize;
    let ready = model.ranges.remove(&start).unwrap_or(start);
    assert_eq!(model.next, ready, "all that is in order is handed out, and nothing else");
}

/// The ranges reported are ranges of the model, each once, and as many as fit.
fn compare_ranges(queue: &mut Reassembly, model: &Model, base: SequenceNumber) {
    assert!(model.ranges.len() <= MAX_RANGES + 1, "{} ranges", model.ranges.len());
    let reported = queue.recent_ranges();
    assert_eq!(reported.len(), model.ranges.len().min(REPORTED_RANGES));
    for (index, &(start, end)) in reported.iter().enumerate() {
        let range = (start.distance_from(base), end.distance_from(base));
        assert_eq!(model.ranges.get(&range.0), Some(&range.1), "{range:?} is reported");
        assert!(!reported[..index].contains(&(start, end)), "{range:?} is reported twice");
    }
}
