//! TCP's reassembly against a plain model: a map from stream offset to the byte that came first.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use catnip::tcp::reassembly::{Insertion, MAX_RANGES, REPORTED_RANGES, Reassembly};
use catnip::tcp::sequence::SequenceNumber;

/// Where the stream starts: close to the wrap.
const BASE: u32 = u32::MAX - 300;
/// Most insertions of one run.
const MAX_INSERTS: usize = 600;
/// How much the queue may hold, as a receive buffer.
const LIMIT_BYTES: usize = 64 << 10;

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

/// Runs the insertions and compares after each.
pub fn run(inserts: &[Insert]) {
    let arena = super::arena();
    let base = SequenceNumber::new(BASE);
    let mut queue = Reassembly::new(LIMIT_BYTES);
    let mut model: BTreeMap<u32, u8> = BTreeMap::new();
    let mut next = 0_u32;
    for (index, insert) in inserts.iter().take(MAX_INSERTS).enumerate() {
        let offset = next.saturating_add_signed(i32::from(insert.offset));
        let len = usize::from(insert.len) % 1_500;
        let bytes: Vec<u8> = (0..len).map(|at| insert.fill.wrapping_add((index + at) as u8)).collect();
        let data = arena.copy_from(&bytes).expect("the limit keeps memory free").freeze();
        let insertion = queue.insert(base + offset, data, base + next);
        let new: Vec<(u32, u8)> =
            (offset..).zip(bytes).filter(|(at, _)| *at >= next && !model.contains_key(at)).collect();
        match insertion {
            Insertion::Stored => {
                assert!(!new.is_empty(), "stored though nothing was new");
                model.extend(new);
            }
            Insertion::Duplicate => assert!(new.is_empty(), "{} new bytes were called duplicates", new.len()),
            // The front part may have been stored: what of it was, is found out by its place.
            Insertion::Refused => {
                assert!(!new.is_empty());
                let stored = queue.len_bytes() - model.len();
                model.extend(new.into_iter().take(stored));
            }
        }
        assert_eq!(queue.len_bytes(), model.len());
        compare_ranges(&queue, &model, base);
        if insert.drain {
            next = drain(&mut queue, &mut model, base, next);
        }
    }
    drain(&mut queue, &mut model, base, next);
    drop(queue);
    assert_eq!(arena.stats().live_buffers, 0, "a buffer leaked");
}

fn drain(queue: &mut Reassembly, model: &mut BTreeMap<u32, u8>, base: SequenceNumber, mut next: u32) -> u32 {
    while let Some(data) = queue.take_ready(base + next) {
        for &byte in &data[..] {
            assert_eq!(model.remove(&next), Some(byte), "the byte at {next}");
            next += 1;
        }
    }
    assert!(!model.contains_key(&next), "what is in order was not handed out");
    next
}

/// The ranges reported are ranges of the model, each once, and as many as fit.
fn compare_ranges(queue: &Reassembly, model: &BTreeMap<u32, u8>, base: SequenceNumber) {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &at in model.keys() {
        match ranges.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            _ => ranges.push((at, at + 1)),
        }
    }
    assert!(ranges.len() <= MAX_RANGES);
    let reported = queue.recent_ranges();
    assert_eq!(reported.len(), ranges.len().min(REPORTED_RANGES));
    for (index, &(start, end)) in reported.iter().enumerate() {
        let range = (start.distance_from(base), end.distance_from(base));
        assert!(ranges.contains(&range), "{range:?} is not among {ranges:?}");
        assert!(!reported[..index].contains(&(start, end)), "{range:?} is reported twice");
    }
}
