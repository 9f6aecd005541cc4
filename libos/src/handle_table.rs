//! A module's queues by the handles that it gave them.

use crate::{Error, Handle};

/// Values by handle. The handles of values that are gone are given out again.
#[derive(Debug)]
pub(crate) struct HandleTable<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for HandleTable<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> HandleTable<T> {
    pub fn insert(&mut self, value: T) -> Handle {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[index] = Some(value);
        Handle(index as u64)
    }

    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    #[inline]
    pub fn get(&self, handle: Handle) -> Result<&T, Error> {
        let place = usize::try_from(handle.0).ok().and_then(|index| self.places.get(index));
        place.and_then(Option::as_ref).ok_or(Error::BadDescriptor)
    }

    /// # Errors
    /// [`Error::BadDescriptor`] when there is none.
    #[inline]
    pub fn get_mut(&mut self, handle: Handle) -> Result<&mut T, Error> {
        let place = usize::try_from(handle.0).ok().and_then(|index| self.places.get_mut(index));
        place.and_then(Option::as_mut).ok_or(Error::BadDescriptor)
    }

    /// Takes a value out, if it is there.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let index = usize::try_from(handle.0).ok()?;
        let value = self.places.get_mut(index)?.take()?;
        self.free.push(index);
        Some(value)
    }

    /// Values in the table.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_found_by_its_handle_until_it_is_taken_out() {
        const NONE: Error = Error::BadDescriptor;
        let mut table = HandleTable::default();
        let [a, b] = ["a", "b"].map(|value| table.insert(value));
        assert_eq!(table.get(a), Ok(&"a"));
        assert_eq!(table.get_mut(b), Ok(&mut "b"));
        assert_eq!(table.len(), 2);
        assert_eq!([table.remove(a), table.remove(a)], [Some("a"), None]);
        assert_eq!(table.get(a), Err(NONE));
        assert_eq!(table.get_mut(a), Err(NONE));
        assert_eq!((table.insert("c"), table.len()), (a, 2));
        for unknown in [Handle(2), Handle(u64::MAX)] {
            assert_eq!(table.get(unknown), Err(NONE));
            assert_eq!(table.remove(unknown), None);
        }
    }
}
