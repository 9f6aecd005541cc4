//! What a peer has received of the stack's stream, as an honest one keeps account of it.

/// Most ranges ahead of gaps; what would be one more is not received.
const MAX_RANGES: usize = 6;

/// A range of sequence numbers: its first, and the one behind its last.
type Range = (u32, u32);

/// The sequence numbers that arrived.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received {
    /// Everything before this one has.
    pub next: u32,
    /// Ranges ahead of gaps, that which grew last in front.
    ahead: [Option<Range>; MAX_RANGES],
    /// What came again last.
    doubled: Option<Range>,
}

/// True when `a` comes before `b`.
fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Received {
    /// Nothing but the SYN.
    pub fn after(syn: u32) -> Self {
        Self { next: syn.wrapping_add(1), ..Self::default() }
    }

    /// A segment arrived.
    pub fn take(&mut self, start: u32, behind: u32) {
        let is_known = |&(from, to): &Range| !before(start, from) && !before(to, behind);
        if !before(self.next, behind) || self.ahead.iter().flatten().any(is_known) {
            self.doubled = Some((start, behind));
            return;
        }
        let mut grown = (start, behind);
        let mut others = Vec::new();
        for range in self.ahead.into_iter().flatten() {
            if before(range.1, grown.0) || before(grown.1, range.0) {
                others.push(range);
            } else {
                grown.0 = if before(range.0, grown.0) { range.0 } else { grown.0 };
                grown.1 = if before(grown.1, range.1) { range.1 } else { grown.1 };
            }
        }
        if !before(self.next, grown.0) {
            self.next = grown.1;
        } else if others.len() < MAX_RANGES {
            others.insert(0, grown);
        }
        self.ahead = std::array::from_fn(|at| others.get(at).copied());
    }

    /// The blocks of a selective acknowledgment, with what came twice in front if that is to be told.
    pub fn blocks(&self, doubled: bool) -> impl Iterator<Item = Range> {
        self.doubled.filter(|_| doubled).into_iter().chain(self.ahead.into_iter().flatten())
    }
}
