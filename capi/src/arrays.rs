//! Who owns which memory: the table behind `sga_buf` and `seg_owner`.
//!
//! A program holds a mark, never an address of ours. A mark names a slot and the slot's generation, so a
//! second free, a made-up pointer or another thread's array is told apart from live memory by two
//! comparisons, and can do no harm. Every operation is O(1).

use std::ffi::c_void;
use std::mem;
use std::ptr;

use catnip_os::libos::{Arena, Buffer};

use crate::held_blocks::HeldBlocks;

/// Most arrays that one thread's program can hold at once. An allocation beyond it fails.
pub const MAX_LIVE: usize = 1 << (INDEX_BITS - 1);

/// Live arrays from which on `demi_pop` refuses to start: the other half of the places is for the pops under way, of which
/// there are fewer than operations (2^24).
pub const POP_LIMIT: usize = MAX_LIVE / 2;

const INDEX_BITS: u32 = 26;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;
const GENERATION_BITS: u32 = 30;
const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;
const NO_SLOT: u32 = u32::MAX;

/// Slots made at the start, so that the table of a usual program never grows.
const INITIAL_SLOTS: usize = 256;

/// What `sga_buf` holds: 8 bits of the instance, 30 of the generation, 26 of the index. The instance is
/// never zero, so no mark is null or an address of a program (those have their upper bits clear).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// `DEMI_EXT_REGION`: stands for whatever memory of the program's an address is in. No slot has this index.
    pub const REGION: Self = Self(u64::MAX);

    /// The mark that a program handed in, whatever it is.
    pub fn from_pointer(pointer: *mut c_void) -> Self {
        Self(pointer.addr() as u64)
    }

    /// The mark for a program to keep.
    pub fn to_pointer(self) -> *mut c_void {
        ptr::without_provenance_mut(self.0 as usize)
    }
}

const _: () = assert!(size_of::<usize>() == 8, "marks need pointers of 64 bits");

/// The memory named by a mark is not the program's, or the segment does not lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOwned;

enum Slot {
    Live { generation: u32, buffer: Buffer },
    Free { generation: u32, next: u32 },
}

/// The memory that the program of one thread holds.
pub struct Arrays {
    slots: Vec<Slot>,
    first_free: u32,
    live: usize,
    instance: u8,
    /// None until the program asks for an address without a mark.
    blocks: Option<HeldBlocks>,
}

impl Arrays {
    /// An empty table. Marks of tables with different `instance` are never mistaken for each other.
    pub fn new(instance: u8) -> Self {
        Self {
            slots: Vec::with_capacity(INITIAL_SLOTS),
            first_free: NO_SLOT,
            live: 0,
            instance: instance.max(1),
            blocks: None,
        }
    }

    /// Arrays that the program holds.
    pub fn live(&self) -> usize {
        self.live
    }

    /// The mark of memory without bytes, such as the end of a stream. It may be given back any number of
    /// times: a program that does not free it leaks nothing.
    pub fn empty_mark(&self) -> Mark {
        self.mark(INDEX_MASK as u32, 0)
    }

    /// Takes in memory that the program is to hold. Gives the buffer back when the table is full.
    pub fn insert(&mut self, buffer: Buffer) -> Result<Mark, Buffer> {
        if buffer.is_empty() {
            return Ok(self.empty_mark());
        }
        let index = self.first_free;
        if self.slots.len() >= MAX_LIVE && index == NO_SLOT {
            return Err(buffer);
        }
        if let Some(blocks) = &mut self.blocks {
            blocks.add(&buffer);
        }
        if let Some(slot) = self.slots.get_mut(index as usize) {
            let Slot::Free { generation, next } = *slot else { return Err(buffer) };
            self.first_free = next;
            self.live += 1;
            *slot = Slot::Live { generation, buffer };
            return Ok(self.mark(index, generation));
        }
        let index = self.slots.len() as u32;
        self.slots.push(Slot::Live { generation: 1, buffer });
        self.live += 1;
        Ok(self.mark(index, 1))
    }

    /// Takes memory back from the program.
    ///
    /// # Errors
    /// [`NotOwned`], and nothing has changed.
    pub fn remove(&mut self, mark: Mark) -> Result<(), NotOwned> {
        if mark == self.empty_mark() {
            return Ok(());
        }
        let (index, generation) = self.slot_of(mark)?;
        let slot = self.slots.get_mut(index as usize).ok_or(NotOwned)?;
        // A slot whose generations are used up is given out no more: no mark ever means two things.
        let freed = if generation < LAST_GENERATION {
            let next = mem::replace(&mut self.first_free, index);
            Slot::Free { generation: generation + 1, next }
        } else {
            Slot::Free { generation: 0, next: NO_SLOT }
        };
        if let (Some(blocks), Slot::Live { buffer, .. }) = (&mut self.blocks, &*slot) {
            blocks.take_away(buffer);
        }
        *slot = freed;
        self.live -= 1;
        Ok(())
    }

    /// The memory behind a mark.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn get(&self, mark: Mark) -> Result<&Buffer, NotOwned> {
        let (index, _) = self.slot_of(mark)?;
        match self.slots.get(index as usize) {
            Some(Slot::Live { buffer, .. }) => Ok(buffer),
            Some(Slot::Free { .. }) | None => Err(NotOwned),
        }
    }

    /// Puts other memory behind a mark; what was there is let go.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn replace(&mut self, mark: Mark, with: Buffer) -> Result<(), NotOwned> {
        let (index, _) = self.slot_of(mark)?;
        match self.slots.get_mut(index as usize) {
            Some(Slot::Live { buffer, .. }) => {
                if let Some(blocks) = &mut self.blocks {
                    blocks.take_away(buffer);
                    blocks.add(&with);
                }
                *buffer = with;
                Ok(())
            }
            Some(Slot::Free { .. }) | None => Err(NotOwned),
        }
    }

    /// A view of the `len` bytes at `start`, which must lie in the memory behind the mark; `None` for memory
    /// without bytes.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn share(&self, mark: Mark, start: *const c_void, len: usize) -> Result<Option<Buffer>, NotOwned> {
        if mark == self.empty_mark() {
            return if len == 0 { Ok(None) } else { Err(NotOwned) };
        }
        let buffer = self.get(mark)?;
        let offset = start.addr().checked_sub(buffer.as_ptr().addr()).ok_or(NotOwned)?;
        let end = offset.checked_add(len).ok_or(NotOwned)?;
        buffer.try_slice(offset..end).map(Some).ok_or(NotOwned)
    }

    /// A view of the `len` bytes at `start`, which must lie in one block of `arena` that the program holds an array in;
    /// `None` for no bytes.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn share_at(
        &mut self,
        arena: &Arena,
        start: *const c_void,
        len: usize,
    ) -> Result<Option<Buffer>, NotOwned> {
        if len == 0 {
            return Ok(None);
        }
        self.view_at(arena, start, len).map(|(view, _)| Some(view))
    }

    /// True when anybody but the program itself has views of the block that `start` is in.
    ///
    /// # Errors
    /// [`NotOwned`].
    pub fn is_shared_at(&mut self, arena: &Arena, start: *const c_void) -> Result<bool, NotOwned> {
        let (view, arrays) = self.view_at(arena, start, 0)?;
        Ok(view.has_views_besides(arrays as usize + 1))
    }

    /// A view of bytes in a block that the program holds arrays in, and how many.
    fn view_at(
        &mut self,
        arena: &Arena,
        start: *const c_void,
        len: usize,
    ) -> Result<(Buffer, u32), NotOwned> {
        let block = arena.live_block(start.cast()).ok_or(NotOwned)?;
        let slots = &self.slots;
        let blocks = self.blocks.get_or_insert_with(|| {
            HeldBlocks::of(slots.iter().filter_map(|slot| match slot {
                Slot::Live { buffer, .. } => Some(buffer),
                Slot::Free { .. } => None,
            }))
        });
        let arrays = blocks.arrays_in(block);
        if arrays == 0 {
            return Err(NotOwned);
        }
        // SAFETY: an array of the program is a view of the block, and so nobody has it to write to.
        let view = unsafe { Buffer::view_raw(block, start.cast(), len) };
        Ok((view.ok_or(NotOwned)?, arrays))
    }

    fn mark(&self, index: u32, generation: u32) -> Mark {
        let instance = u64::from(self.instance) << (INDEX_BITS + GENERATION_BITS);
        Mark(instance | u64::from(generation) << INDEX_BITS | u64::from(index))
    }

    /// The live slot that the mark names, and its generation.
    fn slot_of(&self, mark: Mark) -> Result<(u32, u32), NotOwned> {
        let index = (mark.0 & INDEX_MASK) as u32;
        match self.slots.get(index as usize) {
            Some(&Slot::Live { generation, .. }) if self.mark(index, generation) == mark => {
                Ok((index, generation))
            }
            _ => Err(NotOwned),
        }
    }
}

#[cfg(test)]
mod tests {
    use catnip_os::libos::Arena;
    use catnip_os::libos::memory::ArenaConfig;

    use super::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 4 << 20, hugepages: false }).unwrap()
    }

    fn buffer(arena: &Arena, bytes: &[u8]) -> Buffer {
        arena.copy_from(bytes).unwrap().freeze()
    }

    #[test]
    fn a_second_free_is_refused_and_harms_nobody() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        let first = arrays.insert(buffer(&arena, b"first")).unwrap();
        assert_eq!(arrays.remove(first), Ok(()));
        assert_eq!(arrays.remove(first), Err(NotOwned));
        let second = arrays.insert(buffer(&arena, b"second")).unwrap();
        assert_ne!(first, second);
        assert_eq!(arrays.remove(first), Err(NotOwned));
        assert_eq!(arrays.live(), 1);
        assert_eq!(&arrays.get(second).unwrap()[..], b"second");
    }

    #[test]
    fn made_up_marks_and_those_of_other_tables_are_refused() {
        let (arena, mut mine, mut other) = (arena(), Arrays::new(1), Arrays::new(2));
        let live = mine.insert(buffer(&arena, b"mine")).unwrap();
        let foreign = other.insert(buffer(&arena, b"other")).unwrap();
        let local = 7_u64;
        let addresses = [0, 1, usize::MAX, ptr::from_ref(&local).addr(), live.0 as usize ^ (1 << INDEX_BITS)];
        for address in addresses {
            assert_eq!(mine.remove(Mark::from_pointer(ptr::without_provenance_mut(address))), Err(NotOwned));
        }
        assert_eq!(mine.remove(foreign), Err(NotOwned));
        assert_eq!(mine.remove(Mark::from_pointer(live.to_pointer())), Ok(()));
    }

    #[test]
    fn memory_without_bytes_needs_no_slot_and_may_be_freed_often() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        let mark = arrays.insert(arena.allocate(1).unwrap().freeze()).unwrap();
        assert_eq!(arrays.live(), 0);
        assert_eq!(arrays.remove(mark), Ok(()));
        assert_eq!(arrays.remove(mark), Ok(()));
        assert!(matches!(arrays.share(mark, ptr::null(), 0), Ok(None)));
        assert!(arrays.share(mark, ptr::null(), 1).is_err());
    }

    #[test]
    fn a_segment_is_shared_only_within_its_memory() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        let owned = buffer(&arena, b"0123456789");
        let start = owned.as_ptr().cast::<c_void>();
        let mark = arrays.insert(owned).unwrap();
        let at =
            |offset: usize, len| arrays.share(mark, start.wrapping_byte_add(offset), len).map(Option::unwrap);
        assert_eq!(&at(0, 10).unwrap()[..], b"0123456789");
        assert_eq!(&at(3, 4).unwrap()[..], b"3456");
        assert_eq!(at(10, 0).unwrap().len(), 0);
        assert!(at(0, 11).is_err());
        assert!(at(10, 1).is_err());
        assert!(at(usize::MAX, 1).is_err());
        assert!(at(5, usize::MAX).is_err());
    }

    #[test]
    fn the_memory_lives_on_while_a_share_of_it_does() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        let owned = buffer(&arena, b"kept");
        let start = owned.as_ptr().cast();
        let mark = arrays.insert(owned).unwrap();
        let shared = arrays.share(mark, start, 4).unwrap().unwrap();
        arrays.remove(mark).unwrap();
        assert_eq!(&shared[..], b"kept");
        assert_eq!(arena.stats().live_buffers, 1);
        drop(shared);
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn an_address_is_found_in_memory_that_the_program_holds_and_nowhere_else() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        let early = arrays.insert(buffer(&arena, b"held before anybody asked")).unwrap();
        let start = arrays.get(early).unwrap().as_ptr().cast::<c_void>();
        let stranger = buffer(&arena, b"the library's own");
        let at = |arrays: &mut Arrays, start: *const c_void, len| arrays.share_at(&arena, start, len);
        let found = at(&mut arrays, start.wrapping_byte_add(5), 6).unwrap().unwrap();
        assert_eq!(&found[..], b"before");
        assert!(at(&mut arrays, stranger.as_ptr().cast(), 3).is_err());
        assert!(at(&mut arrays, start, 5_000).is_err(), "beyond the block");
        assert!(at(&mut arrays, ptr::null(), 1).is_err());
        assert!(matches!(at(&mut arrays, ptr::null(), 0), Ok(None)));
        assert_eq!(arrays.is_shared_at(&arena, start), Ok(true));
        drop(found);
        assert_eq!(arrays.is_shared_at(&arena, start), Ok(false));
        let again = arrays.insert(arrays.get(early).unwrap().slice(3..)).unwrap();
        assert_eq!(arrays.is_shared_at(&arena, start), Ok(false), "both are the program's");
        arrays.remove(early).unwrap();
        assert!(at(&mut arrays, start, 4).is_ok());
        arrays.replace(again, stranger).unwrap();
        assert!(at(&mut arrays, start, 4).is_err(), "nothing of it is held any more");
        arrays.remove(again).unwrap();
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_given_out_no_more() {
        let (arena, mut arrays) = (arena(), Arrays::new(1));
        arrays.slots.push(Slot::Live { generation: LAST_GENERATION, buffer: buffer(&arena, b"last") });
        arrays.live = 1;
        let last = arrays.mark(0, LAST_GENERATION);
        assert_eq!(arrays.remove(last), Ok(()));
        let next = arrays.insert(buffer(&arena, b"next")).unwrap();
        assert_eq!(next, arrays.mark(1, 1));
        assert_eq!(arrays.remove(last), Err(NotOwned));
    }
}
