//! Size classes: which slot a small buffer gets.
//!
//! A slab of [`SLAB_BYTES`] is cut into equal slots. The classes are chosen by how many slots make a
//! slab, about four to a doubling, so that what is left over at a slab's end is small, and so that
//! the common sizes (64, 256, 512, 1024, 1536, 2048, 4096 and a jumbo frame's 9018) fit closely.

use super::block::DATA_OFFSET_BYTES;

/// Bytes of a slab.
pub(super) const SLAB_BYTES: usize = 64 << 10;

/// Slots and capacities are multiples of this: a cache line.
pub(super) const GRAIN_BYTES: usize = 64;

/// Slots of a slab, for each class.
const SLOTS: [usize; CLASSES] = [
    256, 204, 170, 146, 128, 102, 93, 73, 64, 53, 46, 37, 32, 29, 24, 21, 18, 15, 12, 10, 9, 8, 7, 6, 5, 4,
    3, 2,
];

/// How many classes there are.
pub(super) const CLASSES: usize = 28;

/// Length of a table that any [`Class`] may index without a check.
pub(super) const CLASS_TABLE: usize = CLASSES.next_power_of_two();

/// A size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u8);

impl Class {
    /// All classes, smallest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..CLASSES).map(|class| Self(class as u8))
    }

    /// The smallest class whose slots have room for `capacity` bytes of data; `None` when such a
    /// buffer gets a span of its own.
    #[inline]
    pub(super) fn of(capacity: usize) -> Option<Self> {
        if capacity > LARGEST_SMALL_BYTES {
            return None;
        }
        Some(CLASS_OF_GRAINS[capacity.div_ceil(GRAIN_BYTES)])
    }

    /// The class's place in a table of [`CLASS_TABLE`] entries.
    #[inline]
    pub(super) const fn index(self) -> usize {
        self.0 as usize % CLASS_TABLE
    }

    /// Slots of a slab.
    pub(super) const fn slots(self) -> usize {
        SLOTS[self.0 as usize]
    }

    /// Bytes of a slot, block header and headroom included.
    pub(super) const fn slot_bytes(self) -> usize {
        SLAB_BYTES / self.slots() / GRAIN_BYTES * GRAIN_BYTES
    }

    /// Bytes of data that a slot has room for.
    pub(super) const fn capacity_bytes(self) -> usize {
        self.slot_bytes() - DATA_OFFSET_BYTES
    }
}

/// Largest capacity that comes from a slab, in bytes.
pub(super) const LARGEST_SMALL_BYTES: usize = Class(CLASSES as u8 - 1).capacity_bytes();

/// The class for each capacity, in grains rounded up.
static CLASS_OF_GRAINS: [Class; LARGEST_SMALL_BYTES / GRAIN_BYTES + 1] = {
    let mut table = [Class(0); LARGEST_SMALL_BYTES / GRAIN_BYTES + 1];
    let mut class = 0;
    let mut grains = 0;
    while grains < table.len() {
        if grains * GRAIN_BYTES > Class(class).capacity_bytes() {
            class += 1;
        }
        table[grains] = Class(class);
        grains += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capacity_gets_the_smallest_slot_that_holds_it() {
        for capacity in 0..=LARGEST_SMALL_BYTES {
            let class = Class::of(capacity).unwrap();
            assert!(class.capacity_bytes() >= capacity, "{capacity}");
            let smaller = Class::all().take_while(|&other| other != class).last();
            assert!(smaller.is_none_or(|smaller| smaller.capacity_bytes() < capacity), "{capacity}");
        }
        for capacity in [LARGEST_SMALL_BYTES + 1, 1 << 40, usize::MAX] {
            assert_eq!(Class::of(capacity), None);
        }
    }

    #[test]
    fn slots_fill_their_slab_but_for_a_tenth() {
        let mut previous = 0;
        for class in Class::all() {
            assert!(class.slot_bytes() > previous, "classes grow");
            previous = class.slot_bytes();
            assert_eq!(class.slot_bytes() % GRAIN_BYTES, 0);
            assert!(class.slots() >= 2);
            let used = class.slots() * class.slot_bytes();
            assert!((SLAB_BYTES * 9 / 10..=SLAB_BYTES).contains(&used), "{class:?}");
        }
    }

    #[test]
    fn common_sizes_fit_closely() {
        let table = [
            (64, 64),
            (256, 256),
            (512, 512),
            (1024, 1024),
            (1514, 1536),
            (2048, 2048),
            (4096, 4160),
            (9018, 9152),
        ];
        for (capacity, fits) in table {
            assert_eq!(Class::of(capacity).unwrap().capacity_bytes(), fits, "{capacity}");
        }
    }
}
