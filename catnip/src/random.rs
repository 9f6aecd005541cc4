//! The stack's only source of randomness: a generator that a seed determines.

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// A seeded cryptographic generator. The same seed gives the same numbers, so a run can be replayed;
/// a peer that sees some of the numbers cannot tell the others.
#[derive(Debug)]
pub struct Random(StdRng);

impl Random {
    /// A generator that `seed` determines.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A generator of its own for one part of the stack, so that what one part draws does not change
    /// what another gets.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self(StdRng::from_rng(&mut self.0))
    }

    /// 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number from `low` to `high`, both included; `low` when the range is empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        if low >= high { low } else { self.0.random_range(low..=high) }
    }

    /// Fills `bytes` with random bits.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_determines_the_numbers() {
        let (mut a, mut b, mut c) = (Random::new(7), Random::new(7), Random::new(8));
        let first = a.next_u64();
        assert_eq!(first, b.next_u64());
        assert_ne!(first, c.next_u64());
        assert_eq!(a.fork().next_u32(), b.fork().next_u32());
    }

    #[test]
    fn a_range_includes_both_ends_and_nothing_else() {
        let mut random = Random::new(1);
        let mut seen = [false; 3];
        for _ in 0..200 {
            seen[usize::try_from(random.range(5, 7) - 5).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
        assert_eq!(random.range(9, 9), 9);
        assert_eq!(random.range(9, 3), 9);
    }
}
