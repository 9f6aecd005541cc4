//! Random programs on buffers, compared with plain vectors.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::Buffer;
use super::{arena, holdings, pattern};

const REGION_BYTES: usize = 2 << 20;

#[derive(Debug, Clone)]
enum Step {
    Allocate { len: usize },
    Adopt { len: usize },
    Clone(Index),
    Slice(Index, Index, Index),
    SplitTo(Index, Index),
    Advance(Index, Index),
    Truncate(Index, Index),
    Header { of: Index, len: usize },
    Write { to: Index, more: usize },
    Lend(Index),
    DropLent(Index),
    Drop(Index),
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0_usize..300, 8 => 1000_usize..3000, 3 => 3000_usize..40_000, 2 => 40_000_usize..400_000]
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        6 => len().prop_map(|len| Step::Allocate { len }),
        1 => len().prop_map(|len| Step::Adopt { len }),
        3 => index().prop_map(Step::Clone),
        3 => (index(), index(), index()).prop_map(|(of, from, to)| Step::Slice(of, from, to)),
        2 => (index(), index()).prop_map(|(of, at)| Step::SplitTo(of, at)),
        1 => (index(), index()).prop_map(|(of, by)| Step::Advance(of, by)),
        1 => (index(), index()).prop_map(|(of, to)| Step::Truncate(of, to)),
        3 => (index(), 0_usize..400).prop_map(|(of, len)| Step::Header { of, len }),
        3 => (index(), 0_usize..3000).prop_map(|(to, more)| Step::Write { to, more }),
        1 => index().prop_map(Step::Lend),
        1 => index().prop_map(Step::DropLent),
        6 => index().prop_map(Step::Drop),
    ]
}

/// A view and what it must show. Views of one allocation have the same `origin`.
struct Held {
    view: Buffer,
    shows: Vec<u8>,
    origin: usize,
    /// Outside the arena.
    adopted: bool,
}

impl Held {
    fn derived(&self, view: Buffer, shows: Vec<u8>) -> Self {
        Self { view, shows, origin: self.origin, adopted: self.adopted }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 96 }, ..ProptestConfig::default() })]

    #[test]
    fn buffers_show_what_vectors_show(steps in prop::collection::vec(step(), 1..250)) {
        let arena = arena(REGION_BYTES);
        let mut held: Vec<Held> = Vec::new();
        let mut lent: Vec<(Bytes, Vec<u8>, usize)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            if held.is_empty() && !matches!(step, Step::Allocate { .. } | Step::Adopt { .. } | Step::DropLent(_)) {
                continue;
            }
            match step {
                Step::Allocate { len } => {
                    let shows = pattern(number, len);
                    if let Some(buffer) = arena.copy_from(&shows) {
                        held.push(Held { view: buffer.freeze(), shows, origin: number, adopted: false });
                    } else {
                        prop_assert!(arena.stats().used_bytes > REGION_BYTES / 4, "full too early");
                    }
                }
                Step::Adopt { len } => {
                    let shows = pattern(number, len);
                    held.push(Held { view: shows.clone().into(), shows, origin: number, adopted: true });
                }
                Step::Clone(of) => {
                    let of = &held[of.index(held.len())];
                    let copy = of.derived(of.view.clone(), of.shows.clone());
                    held.push(copy);
                }
                Step::Slice(of, from, to) => {
                    let of = &held[of.index(held.len())];
                    let (from, to) = (from.index(of.shows.len() + 1), to.index(of.shows.len() + 1));
                    let range = from.min(to)..from.max(to);
                    let slice = of.derived(of.view.slice(range.clone()), of.shows[range].to_vec());
                    held.push(slice);
                }
                Step::SplitTo(of, at) => {
                    let of = of.index(held.len());
                    let of = &mut held[of];
                    let at = at.index(of.shows.len() + 1);
                    let tail = of.shows.split_off(at);
                    let front = std::mem::replace(&mut of.shows, tail);
                    let view = of.view.split_to(at);
                    let front = of.derived(view, front);
                    held.push(front);
                }
                Step::Advance(of, by) => {
                    let of = of.index(held.len());
                    let by = by.index(held[of].shows.len() + 1);
                    held[of].view.advance(by);
                    held[of].shows.drain(..by);
                }
                Step::Truncate(of, to) => {
                    let of = of.index(held.len());
                    let to = to.index(held[of].shows.len() + 1);
                    held[of].view.truncate(to);
                    held[of].shows.truncate(to);
                }
                Step::Header { of, len } => {
                    let of = of.index(held.len());
                    let alone = alone(&held, &lent, of);
                    prop_assert_eq!(held[of].view.is_unique(), alone);
                    let header = pattern(number, len);
                    let room = held[of].view.headroom();
                    let framed = held[of].view.with_header(&header);
                    prop_assert_eq!(framed.is_some(), alone && len <= room);
                    if let Some(framed) = framed {
                        let shows = [&header[..], &held[of].shows].concat();
                        let framed = held[of].derived(framed, shows);
                        held.push(framed);
                    }
                }
                Step::Write { to, more } => {
                    let to = to.index(held.len());
                    let alone = alone(&held, &lent, to);
                    let of = held.swap_remove(to);
                    match of.view.try_into_mut() {
                        Ok(mut writable) => {
                            prop_assert!(alone);
                            let mut shows = of.shows;
                            if let Some(first) = writable.first_mut() {
                                *first ^= 0xff;
                                shows[0] ^= 0xff;
                            }
                            let more = pattern(number, more);
                            let taken = writable.extend_from_slice(&more);
                            prop_assert!(taken == more.len() || writable.len() == writable.capacity());
                            shows.extend_from_slice(&more[..taken]);
                            held.push(Held { view: writable.freeze(), shows, ..of });
                        }
                        Err(view) => {
                            prop_assert!(!alone);
                            held.push(Held { view, ..of });
                        }
                    }
                }
                Step::Lend(of) => {
                    let of = held.swap_remove(of.index(held.len()));
                    let origin = if of.adopted || of.shows.is_empty() { usize::MAX } else { of.origin };
                    lent.push((of.view.into(), of.shows, origin));
                }
                Step::DropLent(of) => {
                    if !lent.is_empty() {
                        lent.swap_remove(of.index(lent.len()));
                    }
                }
                Step::Drop(of) => {
                    held.swap_remove(of.index(held.len()));
                }
            }
            for of in &held {
                prop_assert_eq!(&of.view[..], &of.shows[..]);
                prop_assert!(of.view.held_bytes() >= of.view.len());
                prop_assert_eq!(arena.contains(of.view.as_ptr()), !of.adopted);
            }
            for (bytes, shows, _) in &lent {
                prop_assert_eq!(&bytes[..], &shows[..]);
            }
            let mut origins: Vec<usize> = held.iter().filter(|of| !of.adopted).map(|of| of.origin).collect();
            origins.extend(lent.iter().filter(|(bytes, ..)| arena.contains(bytes.as_ptr())).map(|lent| lent.2));
            origins.sort_unstable();
            origins.dedup();
            prop_assert_eq!(arena.stats().live_buffers, origins.len());
        }
        drop((held, lent));
        prop_assert_eq!(holdings(arena.stats()), (0, 0, 0));
        prop_assert!(arena.allocate(REGION_BYTES - 192).is_some(), "one piece again");
    }
}

/// True when the view may be written to: an arena's, and the only one of its memory anywhere.
fn alone(held: &[Held], lent: &[(Bytes, Vec<u8>, usize)], of: usize) -> bool {
    let origin = held[of].origin;
    !held[of].adopted
        && held.iter().filter(|other| other.origin == origin).count() == 1
        && lent.iter().all(|(.., lent_origin)| *lent_origin != origin)
}
