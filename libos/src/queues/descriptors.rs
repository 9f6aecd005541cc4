//! The descriptor table: which module serves a descriptor, and under which handle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slot::List;
use crate::{Error, Handle, QueueDescriptor};

/// A module's place in the list of installed modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModuleIndex(u32);

impl ModuleIndex {
    /// The place `index`, if there are that many modules.
    pub(crate) fn new(index: usize) -> Option<Self> {
        u32::try_from(index).ok().map(Self)
    }

    #[inline(always)]
    pub(crate) const fn get(self) -> usize {
        self.0 as usize
    }
}

/// A descriptor as the library OS itself remembers it: it does not hit another queue that got the
/// same number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueReference {
    pub(crate) queue: QueueDescriptor,
    generation: u32,
}

/// An open queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) module: ModuleIndex,
    pub(crate) handle: Handle,
    /// Outstanding operations other than pops, in the order of their submission.
    pub(crate) outstanding: List,
    /// Pops that wait, in the order of their submission.
    pub(crate) pops: List,
    /// The module had nothing for a pop, and has not looked in vain for one since: the next one need not ask it.
    pub(crate) is_dry: bool,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    open: Option<Queue>,
}

/// Open queues by descriptor. The lowest free descriptor is given out first, as POSIX does, in
/// O(log(closed descriptors)).
#[derive(Debug)]
pub(crate) struct DescriptorTable {
    entries: Vec<Entry>,
    free: BinaryHeap<Reverse<u32>>,
    limit: usize,
}

impl DescriptorTable {
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: Vec::new(), free: BinaryHeap::new(), limit }
    }

    pub(crate) fn open_queues(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Every open descriptor.
    pub(crate) fn all_open(&self) -> Vec<QueueDescriptor> {
        let open = |(index, entry): (usize, &Entry)| entry.open.as_ref().map(|_| index as u32);
        self.entries.iter().enumerate().filter_map(open).map(QueueDescriptor::from_raw).collect()
    }

    /// Fails with [`Error::TooManyDescriptors`] when no descriptor is left.
    pub(crate) fn check_room(&self) -> Result<(), Error> {
        if self.open_queues() < self.limit { Ok(()) } else { Err(Error::TooManyDescriptors) }
    }

    pub(crate) fn open(&mut self, module: ModuleIndex, handle: Handle) -> Result<QueueDescriptor, Error> {
        self.check_room()?;
        let queue = Queue { module, handle, outstanding: List::EMPTY, pops: List::EMPTY, is_dry: false };
        // Every entry below the table's end is either open or in the heap, so with an empty heap the
        // end is the lowest free descriptor.
        if let Some(Reverse(index)) = self.free.pop()
            && let Some(entry) = self.entries.get_mut(index as usize)
        {
            entry.generation = entry.generation.wrapping_add(1);
            entry.open = Some(queue);
            return Ok(QueueDescriptor::from_raw(index));
        }
        let index = u32::try_from(self.entries.len()).map_err(|_| Error::TooManyDescriptors)?;
        self.entries.push(Entry { generation: 0, open: Some(queue) });
        Ok(QueueDescriptor::from_raw(index))
    }

    #[inline(always)]
    pub(crate) fn get(&self, queue: QueueDescriptor) -> Result<&Queue, Error> {
        let entry = self.entries.get(queue.raw() as usize);
        entry.and_then(|entry| entry.open.as_ref()).ok_or(Error::BadDescriptor)
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, queue: QueueDescriptor) -> Result<&mut Queue, Error> {
        let entry = self.entries.get_mut(queue.raw() as usize);
        entry.and_then(|entry| entry.open.as_mut()).ok_or(Error::BadDescriptor)
    }

    /// Frees the descriptor. Its outstanding operations are no longer listed anywhere afterwards.
    pub(crate) fn close(&mut self, queue: QueueDescriptor) -> Result<Queue, Error> {
        let entry = self.entries.get_mut(queue.raw() as usize).ok_or(Error::BadDescriptor)?;
        let closed = entry.open.take().ok_or(Error::BadDescriptor)?;
        self.free.push(Reverse(queue.raw()));
        Ok(closed)
    }

    pub(crate) fn reference(&self, queue: QueueDescriptor) -> Result<QueueReference, Error> {
        match self.entries.get(queue.raw() as usize) {
            Some(Entry { generation, open: Some(_) }) => {
                Ok(QueueReference { queue, generation: *generation })
            }
            _ => Err(Error::BadDescriptor),
        }
    }

    /// The descriptor, if it still is the queue it was when the reference was made.
    pub(crate) fn resolve(&self, reference: QueueReference) -> Result<QueueDescriptor, Error> {
        if self.reference(reference.queue)? == reference {
            Ok(reference.queue)
        } else {
            Err(Error::BadDescriptor)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(table: &mut DescriptorTable) -> u32 {
        table.open(ModuleIndex::new(0).unwrap(), Handle(0)).unwrap().raw()
    }

    #[test]
    fn the_lowest_free_descriptor_is_given_out_first() {
        let mut table = DescriptorTable::new(100);
        assert_eq!((0..5).map(|_| open(&mut table)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        for closed in [3, 1, 4] {
            table.close(QueueDescriptor::from_raw(closed)).unwrap();
        }
        assert_eq!((0..4).map(|_| open(&mut table)).collect::<Vec<_>>(), [1, 3, 4, 5]);
    }

    #[test]
    fn a_full_table_refuses_and_takes_again_after_a_close() {
        let mut table = DescriptorTable::new(2);
        assert_eq!((open(&mut table), open(&mut table)), (0, 1));
        assert_eq!(table.open(ModuleIndex::new(0).unwrap(), Handle(0)), Err(Error::TooManyDescriptors));
        table.close(QueueDescriptor::from_raw(0)).unwrap();
        assert_eq!(open(&mut table), 0);
    }

    #[test]
    fn a_reference_to_a_closed_queue_does_not_hit_its_successor() {
        let mut table = DescriptorTable::new(2);
        let queue = QueueDescriptor::from_raw(open(&mut table));
        let reference = table.reference(queue).unwrap();
        assert_eq!(table.resolve(reference), Ok(queue));
        table.close(queue).unwrap();
        assert_eq!(table.resolve(reference), Err(Error::BadDescriptor));
        assert_eq!(open(&mut table), queue.raw());
        assert_eq!(table.resolve(reference), Err(Error::BadDescriptor));
    }

    #[test]
    fn closing_twice_is_an_error() {
        let mut table = DescriptorTable::new(2);
        let queue = QueueDescriptor::from_raw(open(&mut table));
        assert!(table.close(queue).is_ok());
        assert_eq!(table.close(queue).unwrap_err(), Error::BadDescriptor);
        assert_eq!(table.get(QueueDescriptor::from_raw(77)).unwrap_err(), Error::BadDescriptor);
    }
}
