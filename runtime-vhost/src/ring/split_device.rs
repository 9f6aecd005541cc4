//! The device's end of a split ring (virtio 1.2, section 2.7).

use std::sync::atomic::Ordering;

use super::layout::{FLAG_INDIRECT, FLAG_NEXT, FLAG_WRITE, RingMemory, Word};
use super::{Access, Chain, Piece, Position, RingError, RingOptions, passes};

const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;

#[derive(Debug)]
pub(crate) struct SplitDevice {
    memory: RingMemory,
    event_index: bool,
    /// Chains ever taken.
    available: u16,
    /// What the driver's index was when it was last read: up to there nothing needs to be read again.
    seen: u16,
    /// Chains ever returned.
    used: u16,
    /// Of these, those that the driver was told of.
    told: u16,
}

impl SplitDevice {
    pub fn new(memory: RingMemory, options: &RingOptions, start: Position) -> Self {
        let index = start.index;
        let event_index = options.event_index;
        let mut ring = Self { memory, event_index, available: index, seen: index, used: index, told: index };
        ring.set_kicks(false);
        ring
    }

    #[inline]
    pub fn has_next(&self) -> bool {
        self.memory.available_index().load(Ordering::Acquire) != self.available
    }

    #[inline]
    pub fn next(&mut self, access: Access, pieces: &mut Vec<Piece>) -> Result<Option<Chain>, RingError> {
        if self.seen == self.available {
            self.seen = self.memory.available_index().load(Ordering::Acquire);
            if self.seen == self.available {
                return Ok(None);
            }
            if self.seen.wrapping_sub(self.available) > self.memory.size() {
                self.seen = self.available;
                return Err(RingError::TooManyEntries);
            }
        }
        let size = self.memory.size();
        let id = self.memory.available_entry(self.available).load(Ordering::Relaxed);
        let mut at = id;
        let mut count = 0;
        loop {
            if at >= size {
                return Err(RingError::NoSuchDescriptor);
            }
            let descriptor = self.memory.descriptor(at);
            let address = descriptor.address.load(Ordering::Relaxed);
            let Word { len, low: flags, high: next } =
                Word::from_bits(descriptor.word.load(Ordering::Relaxed));
            if flags & FLAG_INDIRECT != 0 {
                return Err(RingError::NotNegotiated);
            }
            if (flags & FLAG_WRITE != 0) == (access == Access::DeviceWrites) {
                pieces.push(Piece { address, len });
            }
            count += 1;
            if flags & FLAG_NEXT == 0 {
                break;
            }
            if count == size {
                return Err(RingError::EndlessChain);
            }
            at = next;
        }
        self.available = self.available.wrapping_add(1);
        Ok(Some(Chain { id, count }))
    }

    #[inline]
    pub fn size(&self) -> u16 {
        self.memory.size()
    }

    pub fn position(&self) -> Position {
        Position { index: self.available, wrap: false }
    }

    pub fn rewind(&mut self, position: Position) {
        self.available = position.index;
    }

    #[inline]
    pub fn give_back(&mut self, chain: Chain, bytes: u32) {
        let (id, len) = self.memory.used_entry(self.used);
        id.store(u32::from(chain.id), Ordering::Relaxed);
        len.store(bytes, Ordering::Relaxed);
        self.used = self.used.wrapping_add(1);
    }

    #[inline]
    pub fn publish(&mut self) {
        self.memory.used_index().store(self.used, Ordering::Release);
    }

    #[inline]
    pub fn wants_call(&mut self) -> bool {
        let told = std::mem::replace(&mut self.told, self.used);
        if self.event_index {
            passes(self.memory.used_event().load(Ordering::Relaxed), self.used, told)
        } else {
            self.memory.available_flags().load(Ordering::Relaxed) & NO_INTERRUPT == 0
        }
    }

    pub fn set_kicks(&mut self, wanted: bool) {
        if self.event_index {
            // An index just passed is not passed again before 65,535 others.
            let event = if wanted { self.available } else { self.available.wrapping_sub(1) };
            self.memory.available_event().store(event, Ordering::Relaxed);
        } else {
            let flags = if wanted { 0 } else { NO_NOTIFY };
            self.memory.used_flags().store(flags, Ordering::Relaxed);
        }
    }
}
