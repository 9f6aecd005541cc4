//! The span pool: which runs of chunks of a region are free.
//!
//! Free spans are kept in bins by size, four to a doubling, with a bitmap of the bins that have any.
//! A span that is given back joins the free spans on both sides at once, so when everything was
//! given back there is one span again. Plain bookkeeping on indices: nothing here touches the region.

/// Bytes of a chunk, the unit that spans are made of.
pub(super) const CHUNK_BYTES: usize = 16 << 10;

/// No chunk.
const NONE: u32 = u32::MAX;

/// Bins for spans of up to `u32::MAX` chunks.
const BINS: usize = 3 + 30 * 4;

/// What is known about a chunk. Which fields mean something depends on where in a span it is.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    /// In each chunk of a used span, and in the last chunk of a free one: the span's first chunk.
    head: u32,
    /// In the first chunk of a span: its length. In other chunks, what it was when they were first.
    len: u32,
    /// In the first chunk of a span: whether it is handed out. False in all other chunks.
    used: bool,
    /// In the first chunk of a free span: its neighbours in the bin.
    previous: u32,
    next: u32,
}

/// The free and used spans of a region.
#[derive(Debug)]
pub(super) struct Spans {
    chunks: Box<[Chunk]>,
    /// First free span of each bin.
    bins: [u32; BINS],
    /// A bit for each bin that has a span.
    occupied: u128,
}

/// The bin for spans of `len` chunks: each length up to 7 has its own.
fn bin_of(len: u32) -> usize {
    if len < 4 {
        return len.saturating_sub(1) as usize;
    }
    let doubling = len.ilog2() - 2;
    (3 + doubling * 4 + (len >> doubling & 3)) as usize
}

impl Spans {
    /// A pool of `count` chunks, all free.
    pub(super) fn new(count: u32) -> Self {
        let chunks = Box::<[Chunk]>::new_zeroed_slice(count as usize);
        // SAFETY: zeros are a `Chunk`. Asked for as zeros, the pages of a large region's table are only
        // used once they are written to.
        let chunks = unsafe { chunks.assume_init() };
        let mut spans = Self { chunks, bins: [NONE; BINS], occupied: 0 };
        if count > 0 {
            spans.insert(0, count);
        }
        spans
    }

    /// Takes `len` chunks that lie beside each other; the first one's index, `None` when there are no
    /// such.
    pub(super) fn allocate(&mut self, len: u32) -> Option<u32> {
        let head = self.find(len)?;
        let found = self.chunks[head as usize].len;
        self.remove(head);
        if found > len {
            self.insert(head + len, found - len);
        }
        for chunk in &mut self.chunks[head as usize..(head + len) as usize] {
            chunk.head = head;
        }
        let first = &mut self.chunks[head as usize];
        first.len = len;
        first.used = true;
        Some(head)
    }

    /// Gives the used span that begins at `head` back.
    pub(super) fn free(&mut self, mut head: u32) {
        let first = &mut self.chunks[head as usize];
        debug_assert!(first.used, "only used spans are given back");
        first.used = false;
        let mut len = first.len;
        let after = head + len;
        if let Some(right) = self.chunks.get(after as usize)
            && !right.used
        {
            len += right.len;
            self.remove(after);
        }
        if head > 0 {
            let left = self.chunks[head as usize - 1].head;
            if !self.chunks[left as usize].used {
                len += self.chunks[left as usize].len;
                self.remove(left);
                head = left;
            }
        }
        self.insert(head, len);
    }

    /// The used span that `chunk` belongs to: its first chunk and length.
    ///
    /// A chunk inside a free span may name any chunk as its first, as that is not kept up to date
    /// there; but a used span's range has only chunks whose `head` is right.
    pub(super) fn used_span_of(&self, chunk: u32) -> Option<(u32, u32)> {
        let head = self.chunks.get(chunk as usize)?.head;
        let first = self.chunks.get(head as usize)?;
        let used = first.used && (head..head + first.len).contains(&chunk);
        used.then_some((head, first.len))
    }

    /// A free span of at least `len` chunks.
    fn find(&self, len: u32) -> Option<u32> {
        let bin = bin_of(len);
        let fitting = self.bins[bin];
        if fitting != NONE && self.chunks[fitting as usize].len >= len {
            return Some(fitting);
        }
        // All spans of the larger bins fit.
        let larger = self.occupied & !(u128::MAX >> (127 - bin));
        if larger != 0 {
            return Some(self.bins[larger.trailing_zeros() as usize]);
        }
        let mut candidate = fitting;
        while candidate != NONE && self.chunks[candidate as usize].len < len {
            candidate = self.chunks[candidate as usize].next;
        }
        (candidate != NONE).then_some(candidate)
    }

    /// Enters a free span.
    fn insert(&mut self, head: u32, len: u32) {
        let bin = bin_of(len);
        let next = self.bins[bin];
        self.chunks[(head + len - 1) as usize].head = head;
        let first = &mut self.chunks[head as usize];
        first.len = len;
        first.previous = NONE;
        first.next = next;
        if next != NONE {
            self.chunks[next as usize].previous = head;
        }
        self.bins[bin] = head;
        self.occupied |= 1 << bin;
    }

    /// Takes a free span out of its bin.
    fn remove(&mut self, head: u32) {
        let Chunk { len, previous, next, .. } = self.chunks[head as usize];
        if next != NONE {
            self.chunks[next as usize].previous = previous;
        }
        if previous != NONE {
            self.chunks[previous as usize].next = next;
            return;
        }
        let bin = bin_of(len);
        self.bins[bin] = next;
        if next == NONE {
            self.occupied &= !(1 << bin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bins_are_in_order_and_within_the_table() {
        let mut previous = 0;
        for len in 1..100_000 {
            let bin = bin_of(len);
            assert!(bin == previous || bin == previous + 1, "{len}");
            previous = bin;
        }
        assert_eq!(bin_of(u32::MAX), BINS - 1);
    }

    #[test]
    fn the_whole_pool_is_one_span() {
        let mut spans = Spans::new(1000);
        assert_eq!(spans.allocate(1001), None);
        assert_eq!(spans.allocate(1000), Some(0));
        assert_eq!(spans.allocate(1), None);
        spans.free(0);
        assert_eq!(spans.allocate(1000), Some(0));
    }

    #[test]
    fn an_empty_pool_has_nothing() {
        let mut spans = Spans::new(0);
        assert_eq!(spans.allocate(1), None);
        assert_eq!(spans.used_span_of(0), None);
    }

    #[test]
    fn a_gap_closes_whichever_side_is_freed_last() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut spans = Spans::new(30);
            let heads: Vec<u32> = (0..3).map(|_| spans.allocate(10).unwrap()).collect();
            assert_eq!(spans.allocate(1), None);
            for index in order {
                spans.free(heads[index]);
            }
            assert_eq!(spans.allocate(30), Some(0), "{order:?}");
        }
    }

    proptest! {
        /// Spans never overlap, an allocation fails only when no gap is large enough, look-ups agree
        /// with what was handed out, and everything joins again.
        #[test]
        fn agrees_with_a_map_of_chunks(steps in prop::collection::vec((any::<bool>(), 1_u32..40, any::<prop::sample::Index>()), 1..200)) {
            const COUNT: u32 = 128;
            let mut spans = Spans::new(COUNT);
            let mut map = [None; COUNT as usize];
            let mut used: Vec<(u32, u32)> = Vec::new();
            for (allocate, len, pick) in steps {
                if allocate {
                    let gap = map.chunk_by(|a: &Option<u32>, b| a.is_none() == b.is_none())
                        .filter(|run| run[0].is_none()).map(<[_]>::len).max().unwrap_or(0);
                    let head = spans.allocate(len);
                    prop_assert_eq!(head.is_some(), gap >= len as usize);
                    if let Some(head) = head {
                        for chunk in &mut map[head as usize..(head + len) as usize] {
                            prop_assert!(chunk.is_none());
                            *chunk = Some(head);
                        }
                        used.push((head, len));
                    }
                } else if !used.is_empty() {
                    let (head, len) = used.swap_remove(pick.index(used.len()));
                    spans.free(head);
                    map[head as usize..(head + len) as usize].fill(None);
                }
                for chunk in 0..COUNT {
                    prop_assert_eq!(spans.used_span_of(chunk).map(|(head, _)| head), map[chunk as usize]);
                }
            }
            for (head, _) in used {
                spans.free(head);
            }
            prop_assert_eq!(spans.allocate(COUNT), Some(0));
        }
    }
}
