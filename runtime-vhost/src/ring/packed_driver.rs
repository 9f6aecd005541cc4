//! The driver's end of a packed ring (virtio 1.2, section 2.8).

use std::sync::atomic::Ordering;

use super::layout::{Events, FLAG_AVAILABLE, FLAG_NEXT, FLAG_USED, FLAG_WRITE, RingMemory, Word};
use super::slots::Slots;
use super::{Access, Piece, RingError, RingOptions, Used};

#[derive(Debug)]
pub(crate) struct PackedDriver {
    memory: RingMemory,
    /// Each chain's buffer id is its first slot; the other slots of a chain only hold what belongs to it.
    pub(super) slots: Slots,
    event_index: bool,
    /// Where the next descriptor is offered, and in which pass.
    available: u16,
    available_wrap: bool,
    /// Descriptors offered since the device was last told.
    untold: u16,
    /// Where the next used chain is looked for, and in which pass.
    used: u16,
    used_wrap: bool,
}

impl PackedDriver {
    pub fn new(memory: RingMemory, options: &RingOptions) -> Self {
        let slots = Slots::new(memory.size());
        let mut ring = Self {
            memory,
            slots,
            event_index: options.event_index,
            available: 0,
            available_wrap: true,
            untold: 0,
            used: 0,
            used_wrap: true,
        };
        ring.set_calls(false);
        ring
    }

    /// The flags that say that a descriptor is available in the pass `wrap`.
    #[inline]
    fn available_flags(wrap: bool) -> u16 {
        if wrap { FLAG_AVAILABLE } else { FLAG_USED }
    }

    #[inline]
    pub fn offer(&mut self, count: u16, access: Access, mut piece: impl FnMut(u16) -> Piece) {
        let access = if access == Access::DeviceWrites { FLAG_WRITE } else { 0 };
        let first = self.available;
        let memory = &self.memory;
        let (mut at, mut wrap) = (self.available, self.available_wrap);
        let mut left = count;
        let mut head = None;
        let mut first_word = 0;
        self.slots.take(count, |slot, _| {
            left -= 1;
            let id = *head.get_or_insert(slot);
            let Piece { address, len } = piece(slot);
            let next = if left > 0 { FLAG_NEXT } else { 0 };
            let word = Word { len, low: id, high: access | next | Self::available_flags(wrap) }.to_bits();
            let descriptor = memory.descriptor(at);
            descriptor.address.store(address, Ordering::Relaxed);
            if at == first {
                first_word = word;
            } else {
                descriptor.word.store(word, Ordering::Relaxed);
            }
            at += 1;
            if at == memory.size() {
                (at, wrap) = (0, !wrap);
            }
        });
        // Last of all: with it the device may take the whole chain.
        memory.descriptor(first).word.store(first_word, Ordering::Release);
        (self.available, self.available_wrap) = (at, wrap);
        self.untold = self.untold.wrapping_add(count);
    }

    #[inline]
    pub fn wants_kick(&mut self) -> bool {
        let count = std::mem::take(&mut self.untold);
        let events = Events::from_bits(self.memory.device_events().load(Ordering::Relaxed));
        count > 0
            && events.wants(self.event_index, self.available, self.available_wrap, count, self.memory.size())
    }

    #[inline]
    fn used_word(&self) -> Option<Word> {
        let word = Word::from_bits(self.memory.descriptor(self.used).word.load(Ordering::Acquire));
        let available = word.high & FLAG_AVAILABLE != 0;
        let used = word.high & FLAG_USED != 0;
        (available == used && used == self.used_wrap).then_some(word)
    }

    #[inline]
    pub fn has_used(&self) -> bool {
        self.used_word().is_some()
    }

    #[inline]
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        let Some(word) = self.used_word() else { return Ok(None) };
        let count = self.slots.chain_len(word.low);
        if count == 0 {
            return Err(RingError::NoSuchDescriptor);
        }
        self.used += count;
        if self.used >= self.memory.size() {
            self.used -= self.memory.size();
            self.used_wrap = !self.used_wrap;
        }
        Ok(Some(Used { head: word.low, len: word.len }))
    }

    pub fn set_calls(&mut self, wanted: bool) {
        self.memory.driver_events().store(Events::all(wanted), Ordering::Relaxed);
    }
}
