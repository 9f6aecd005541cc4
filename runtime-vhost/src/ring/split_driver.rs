//! The driver's end of a split ring (virtio 1.2, section 2.7).

use std::sync::atomic::Ordering;

use super::layout::{FLAG_NEXT, FLAG_WRITE, RingMemory, Word};
use super::slots::Slots;
use super::{Access, Piece, RingError, RingOptions, Used, passes};

/// In the available ring's flags: no notification is needed.
const NO_INTERRUPT: u16 = 1;
/// In the used ring's flags: no notification is needed.
const NO_NOTIFY: u16 = 1;

#[derive(Debug)]
pub(crate) struct SplitDriver {
    memory: RingMemory,
    pub(super) slots: Slots,
    event_index: bool,
    /// Chains ever offered.
    available: u16,
    /// Of these, those that the device was told of.
    told: u16,
    /// Used chains ever taken.
    used: u16,
}

impl SplitDriver {
    pub fn new(memory: RingMemory, options: &RingOptions) -> Self {
        let slots = Slots::new(memory.size());
        let event_index = options.event_index;
        let mut ring = Self { memory, slots, event_index, available: 0, told: 0, used: 0 };
        ring.set_calls(false);
        ring
    }

    #[inline]
    pub fn offer(&mut self, count: u16, access: Access, mut piece: impl FnMut(u16) -> Piece) {
        let access = if access == Access::DeviceWrites { FLAG_WRITE } else { 0 };
        let memory = &self.memory;
        let mut left = count;
        let head = self.slots.take(count, |slot, next| {
            left -= 1;
            let Piece { address, len } = piece(slot);
            let low = if left > 0 { access | FLAG_NEXT } else { access };
            let descriptor = memory.descriptor(slot);
            descriptor.address.store(address, Ordering::Relaxed);
            descriptor.word.store(Word { len, low, high: next }.to_bits(), Ordering::Relaxed);
        });
        self.memory.available_entry(self.available).store(head, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
    }

    #[inline]
    pub fn publish(&mut self) {
        self.memory.available_index().store(self.available, Ordering::Release);
    }

    #[inline]
    pub fn wants_kick(&mut self) -> bool {
        let told = std::mem::replace(&mut self.told, self.available);
        if self.event_index {
            passes(self.memory.available_event().load(Ordering::Relaxed), self.available, told)
        } else {
            self.memory.used_flags().load(Ordering::Relaxed) & NO_NOTIFY == 0
        }
    }

    #[inline]
    pub fn has_used(&self) -> bool {
        self.memory.used_index().load(Ordering::Acquire) != self.used
    }

    #[inline]
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        if !self.has_used() {
            return Ok(None);
        }
        let (id, len) = self.memory.used_entry(self.used);
        let (id, len) = (id.load(Ordering::Relaxed), len.load(Ordering::Relaxed));
        let head = u16::try_from(id).map_err(|_| RingError::NoSuchDescriptor)?;
        if self.slots.chain_len(head) == 0 {
            return Err(RingError::NoSuchDescriptor);
        }
        self.used = self.used.wrapping_add(1);
        Ok(Some(Used { head, len }))
    }

    pub fn set_calls(&mut self, wanted: bool) {
        if self.event_index {
            // An index just passed is not passed again before 65,535 others.
            let event = if wanted { self.used } else { self.used.wrapping_sub(1) };
            self.memory.used_event().store(event, Ordering::Relaxed);
        } else {
            let flags = if wanted { 0 } else { NO_INTERRUPT };
            self.memory.available_flags().store(flags, Ordering::Relaxed);
        }
    }
}
