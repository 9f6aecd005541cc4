//! Generational slots: O(1) insertion and removal, and keys that go stale instead of naming a successor.

/// Names one value in a [`Slab`], until that value is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The slot.
    pub index: u32,
    /// Which of the slot's successive values. Odd while the slot is taken.
    pub generation: u32,
}

impl Key {
    /// A key that no slab gives out.
    pub const DANGLING: Self = Self { index: u32::MAX, generation: 0 };

    /// Both halves in one integer, generation above index.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The key that [`Self::to_bits`] was made from.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "each half is cut out on purpose")]
    pub const fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

#[derive(Debug, Clone)]
struct Slot<T> {
    generation: u32,
    content: Content<T>,
}

#[derive(Debug, Clone)]
enum Content<T> {
    Taken(T),
    Free { next: u32 },
}

/// The end of the list of free slots.
const NONE: u32 = u32::MAX;

/// Values in numbered slots, at most a given number of them.
///
/// Memory grows with the largest number of values held at one time and is kept for reuse.
#[derive(Debug, Clone)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
    capacity: usize,
}

impl<T> Slab<T> {
    /// An empty slab for at most `capacity` values, itself at most 2³² - 1.
    #[must_use]
    pub fn with_capacity_limit(capacity: usize) -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0, capacity: capacity.min(NONE as usize) }
    }

    /// Puts a value in. `None`, and the value dropped, when the slab is full.
    pub fn insert(&mut self, value: T) -> Option<Key> {
        self.insert_with(|_| value)
    }

    /// Puts in the value that `make` makes for the key it is going to have. `None` when the slab is full.
    pub fn insert_with(&mut self, make: impl FnOnce(Key) -> T) -> Option<Key> {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let key = Key { index: self.free, generation: slot.generation.wrapping_add(1) };
            if let Content::Free { next } = slot.content {
                self.free = next;
            }
            slot.generation = key.generation;
            slot.content = Content::Taken(make(key));
            self.len += 1;
            return Some(key);
        }
        if self.slots.len() >= self.capacity {
            return None;
        }
        let key = Key { index: u32::try_from(self.slots.len()).ok()?, generation: 1 };
        self.slots.push(Slot { generation: 1, content: Content::Taken(make(key)) });
        self.len += 1;
        Some(key)
    }

    /// The value that `key` names.
    #[must_use]
    #[inline]
    pub fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        match &slot.content {
            Content::Taken(value) => Some(value),
            Content::Free { .. } => None,
        }
    }

    /// The value that `key` names, to be changed.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        match &mut slot.content {
            Content::Taken(value) => Some(value),
            Content::Free { .. } => None,
        }
    }

    /// The value in slot `index`, whatever its generation.
    #[must_use]
    #[inline]
    pub fn get_index(&self, index: u32) -> Option<&T> {
        match &self.slots.get(index as usize)?.content {
            Content::Taken(value) => Some(value),
            Content::Free { .. } => None,
        }
    }

    /// The value in slot `index`, whatever its generation, to be changed.
    #[must_use]
    #[inline]
    pub fn get_index_mut(&mut self, index: u32) -> Option<&mut T> {
        match &mut self.slots.get_mut(index as usize)?.content {
            Content::Taken(value) => Some(value),
            Content::Free { .. } => None,
        }
    }

    /// The value in slot `index`, to be changed, with its key.
    #[must_use]
    #[inline]
    pub fn entry_mut(&mut self, index: u32) -> Option<(Key, &mut T)> {
        match self.slots.get_mut(index as usize) {
            Some(Slot { generation, content: Content::Taken(value) }) => {
                Some((Key { index, generation: *generation }, value))
            }
            _ => None,
        }
    }

    /// The key of the value in slot `index`.
    #[must_use]
    #[inline]
    pub fn key_of(&self, index: u32) -> Option<Key> {
        match self.slots.get(index as usize) {
            Some(Slot { generation, content: Content::Taken(_) }) => {
                Some(Key { index, generation: *generation })
            }
            _ => None,
        }
    }

    /// True when `key` names a value.
    #[must_use]
    #[inline]
    pub fn contains(&self, key: Key) -> bool {
        self.get(key).is_some()
    }

    /// Takes the value out; `key` names nothing from here on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        if !self.contains(key) {
            return None;
        }
        let slot = self.slots.get_mut(key.index as usize)?;
        // A slot whose generations are used up stays empty, so that no old key can come back to life.
        let exhausted = slot.generation == u32::MAX;
        let next = if exhausted { NONE } else { self.free };
        let content = std::mem::replace(&mut slot.content, Content::Free { next });
        slot.generation = slot.generation.wrapping_add(1);
        if !exhausted {
            self.free = key.index;
        }
        self.len -= 1;
        match content {
            Content::Taken(value) => Some(value),
            Content::Free { .. } => None,
        }
    }

    /// Number of values.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is no value.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when the next insertion fails.
    #[must_use]
    #[inline]
    pub fn is_full(&self) -> bool {
        self.free == NONE && self.slots.len() >= self.capacity
    }

    /// Most values it holds.
    #[must_use]
    pub fn capacity_limit(&self) -> usize {
        self.capacity
    }

    /// All values with their keys, by slot. O(slots ever used).
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0_u32..).zip(&self.slots).filter_map(|(index, slot)| match &slot.content {
            Content::Taken(value) => Some((Key { index, generation: slot.generation }, value)),
            Content::Free { .. } => None,
        })
    }

    /// All values with their keys, by slot, to be changed. O(slots ever used).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        (0_u32..).zip(&mut self.slots).filter_map(|(index, slot)| match &mut slot.content {
            Content::Taken(value) => Some((Key { index, generation: slot.generation }, value)),
            Content::Free { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_never_names_the_slots_next_value() {
        let mut slab = Slab::with_capacity_limit(4);
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.get_index(second.index), Some(&"second"));
        assert_eq!(slab.key_of(second.index), Some(second));
    }

    #[test]
    fn a_full_slab_refuses_and_takes_again_after_a_removal() {
        let mut slab = Slab::with_capacity_limit(2);
        let first = slab.insert(1).unwrap();
        slab.insert(2).unwrap();
        assert!(slab.is_full());
        assert_eq!(slab.insert(3), None);
        assert_eq!(slab.len(), 2);
        slab.remove(first);
        assert!(!slab.is_full());
        assert!(slab.insert(4).is_some());
        let values: Vec<_> = slab.iter().map(|(_, value)| *value).collect();
        assert_eq!(values, [4, 2]);
    }

    #[test]
    fn a_slot_without_generations_left_is_not_used_again() {
        let mut slab = Slab::with_capacity_limit(1);
        slab.insert(1).unwrap();
        slab.slots[0].generation = u32::MAX;
        let last = slab.key_of(0).unwrap();
        assert_eq!(slab.remove(last), Some(1));
        assert_eq!(slab.insert(2), None);
    }

    #[test]
    fn dangling_and_never_given_keys_name_nothing() {
        let mut slab = Slab::with_capacity_limit(4);
        let key = slab.insert(()).unwrap();
        assert!(!slab.contains(Key::DANGLING));
        assert!(!slab.contains(Key { index: 0, generation: 0 }));
        assert!(!slab.contains(Key { index: 1, generation: 1 }));
        assert_eq!(Key::from_bits(key.to_bits()), key);
    }

    #[test]
    fn a_value_can_know_its_own_key() {
        let mut slab = Slab::with_capacity_limit(4);
        let stale = slab.insert(Key::DANGLING).unwrap();
        slab.remove(stale);
        let key = slab.insert_with(|key| key).unwrap();
        assert_eq!(slab.get(key), Some(&key));
    }
}
