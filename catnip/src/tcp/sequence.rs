//! Sequence numbers: serial arithmetic modulo 2^32 (RFC 9293 §3.4), kept in this one place.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A position in one direction's sequence space.
///
/// There is no `Ord`: "less" is not transitive on a circle. The comparisons here are right for
/// numbers less than 2^31 apart, which all numbers of one connection are, since a window is at most
/// 2^30 bytes (RFC 7323 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SequenceNumber(u32);

impl SequenceNumber {
    /// The sequence number as it stands in a header.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it stands in a header.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Bytes from `earlier` up to this number, going forward: never negative.
    #[must_use]
    pub const fn distance_from(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// Bytes from `other` to this number, negative when this one comes first.
    #[must_use]
    pub const fn signed_distance_from(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0).cast_signed()
    }

    /// True when this number comes before `other`: `SEG < SND` in the words of the RFC.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.signed_distance_from(other) < 0
    }

    /// True when this number comes before `other` or is the same.
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        self.signed_distance_from(other) <= 0
    }

    /// True when this number comes after `other`.
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        self.signed_distance_from(other) > 0
    }

    /// True when this number comes after `other` or is the same.
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        self.signed_distance_from(other) >= 0
    }

    /// True when `start <= self < start + len`. Right for any `len`; an empty window holds nothing.
    #[must_use]
    pub const fn in_window(self, start: Self, len: u32) -> bool {
        self.distance_from(start) < len
    }

    /// The later of the two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn min(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }
}

impl SequenceNumber {
    /// True from `first` to `last`, both included. Unlike [`Self::before`] right for numbers of long ago too, which are
    /// in front or behind by chance, half of the time.
    #[inline]
    #[must_use]
    pub const fn is_within(self, first: Self, last: Self) -> bool {
        self.distance_from(first) <= last.distance_from(first)
    }
}

impl Add<u32> for SequenceNumber {
    type Output = Self;
    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for SequenceNumber {
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for SequenceNumber {
    type Output = Self;
    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(raw: u32) -> SequenceNumber {
        SequenceNumber::new(raw)
    }

    #[test]
    fn order_is_kept_across_the_wrap() {
        for (earlier, later) in
            [(0, 1), (u32::MAX, 0), (u32::MAX - 10, 20), (0, 0x7fff_ffff), (7, 0x8000_0006)]
        {
            let (earlier, later) = (at(earlier), at(later));
            assert!(earlier.before(later) && earlier.at_or_before(later), "{earlier} {later}");
            assert!(later.after(earlier) && later.at_or_after(earlier), "{earlier} {later}");
            assert!(!later.before(earlier) && !earlier.after(later), "{earlier} {later}");
            assert!(!later.at_or_before(earlier) && !earlier.at_or_after(later), "{earlier} {later}");
            assert_eq!((earlier.max(later), later.max(earlier)), (later, later));
            assert_eq!((earlier.min(later), later.min(earlier)), (earlier, earlier));
        }
    }

    #[test]
    fn a_number_is_neither_before_nor_after_itself() {
        let number = at(0xffff_ffff);
        assert!(!number.before(number) && !number.after(number));
        assert!(number.at_or_before(number) && number.at_or_after(number));
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        for (start, len, number, inside) in [
            (100, 10, 99, false),
            (100, 10, 100, true),
            (100, 10, 109, true),
            (100, 10, 110, false),
            (100, 0, 100, false),
            (u32::MAX - 1, 4, u32::MAX - 2, false),
            (u32::MAX - 1, 4, u32::MAX, true),
            (u32::MAX - 1, 4, 1, true),
            (u32::MAX - 1, 4, 2, false),
            (5, u32::MAX, 3, true),
            (5, u32::MAX, 4, false),
        ] {
            assert_eq!(at(number).in_window(at(start), len), inside, "{number} in [{start}, +{len})");
        }
    }

    #[test]
    fn a_range_holds_both_its_ends_and_nothing_of_long_ago() {
        for (first, last, number, inside) in [
            (10, 20, 10, true),
            (10, 20, 20, true),
            (10, 20, 21, false),
            (10, 20, 9, false),
            (10, 20, 0x8000_000f, false),
            (u32::MAX - 1, 1, 0, true),
            (u32::MAX - 1, 1, 2, false),
            (7, 7, 7, true),
        ] {
            assert_eq!(at(number).is_within(at(first), at(last)), inside, "{number} in [{first}, {last}]");
        }
    }

    proptest! {
        #[test]
        fn going_forward_and_back_returns(start: u32, bytes: u32) {
            prop_assert_eq!(at(start) + bytes - bytes, at(start));
            prop_assert_eq!((at(start) + bytes).distance_from(at(start)), bytes);
            let mut moved = at(start);
            moved += bytes;
            prop_assert_eq!(moved, at(start) + bytes);
        }

        #[test]
        fn the_signed_distance_agrees_with_the_comparisons(start: u32, distance in -0x7fff_ffff_i32..) {
            let there = at(start.wrapping_add_signed(distance));
            prop_assert_eq!(there.signed_distance_from(at(start)), distance);
            prop_assert_eq!(there.before(at(start)), distance < 0);
            prop_assert_eq!(there.after(at(start)), distance > 0);
        }
    }
}
