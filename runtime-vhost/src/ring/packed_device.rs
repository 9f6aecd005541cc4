//! The device's end of a packed ring (virtio 1.2, section 2.8).

use std::sync::atomic::Ordering;

use super::layout::{
    Events, FLAG_AVAILABLE, FLAG_INDIRECT, FLAG_NEXT, FLAG_USED, FLAG_WRITE, RingMemory, Word,
};
use super::{Access, Chain, Piece, Position, RingError, RingOptions};

#[derive(Debug)]
pub(crate) struct PackedDevice {
    memory: RingMemory,
    event_index: bool,
    available: Position,
    used: Position,
    /// The first of the returned chains that the driver does not see yet: where it goes, and its descriptor.
    hidden: Option<(u16, u64)>,
    /// Descriptors returned since the driver was last told.
    untold: u16,
}

impl PackedDevice {
    pub fn new(memory: RingMemory, options: &RingOptions, start: Position) -> Self {
        let event_index = options.event_index;
        let mut ring = Self { memory, event_index, available: start, used: start, hidden: None, untold: 0 };
        ring.set_kicks(false);
        ring
    }

    #[inline]
    fn is_available(word: Word, wrap: bool) -> bool {
        (word.high & FLAG_AVAILABLE != 0) == wrap && (word.high & FLAG_USED != 0) != wrap
    }

    #[inline]
    fn word(&self, at: u16) -> Word {
        Word::from_bits(self.memory.descriptor(at).word.load(Ordering::Acquire))
    }

    #[inline]
    pub fn has_next(&self) -> bool {
        Self::is_available(self.word(self.available.index), self.available.wrap)
    }

    #[inline]
    fn advance(&self, position: Position, count: u16) -> Position {
        let size = self.memory.size();
        let index = position.index + count;
        if index >= size {
            Position { index: index - size, wrap: !position.wrap }
        } else {
            Position { index, wrap: position.wrap }
        }
    }

    #[inline]
    pub fn next(&mut self, access: Access, pieces: &mut Vec<Piece>) -> Result<Option<Chain>, RingError> {
        let mut word = self.word(self.available.index);
        if !Self::is_available(word, self.available.wrap) {
            return Ok(None);
        }
        let size = self.memory.size();
        let mut at = self.available.index;
        let mut count = 1;
        loop {
            if word.high & FLAG_INDIRECT != 0 {
                return Err(RingError::NotNegotiated);
            }
            if (word.high & FLAG_WRITE != 0) == (access == Access::DeviceWrites) {
                let address = self.memory.descriptor(at).address.load(Ordering::Relaxed);
                pieces.push(Piece { address, len: word.len });
            }
            if word.high & FLAG_NEXT == 0 {
                break;
            }
            if count == size {
                return Err(RingError::EndlessChain);
            }
            count += 1;
            at = if at + 1 == size { 0 } else { at + 1 };
            word = self.word(at);
        }
        self.available = self.advance(self.available, count);
        // The id is in the chain's last descriptor.
        Ok(Some(Chain { id: word.low, count }))
    }

    #[inline]
    pub fn size(&self) -> u16 {
        self.memory.size()
    }

    pub fn position(&self) -> Position {
        self.available
    }

    pub fn rewind(&mut self, position: Position) {
        self.available = position;
    }

    #[inline]
    pub fn give_back(&mut self, chain: Chain, len: u32) {
        let flags = if self.used.wrap { FLAG_AVAILABLE | FLAG_USED } else { 0 };
        let word = Word { len, low: chain.id, high: flags }.to_bits();
        if self.hidden.is_none() {
            self.hidden = Some((self.used.index, word));
        } else {
            self.memory.descriptor(self.used.index).word.store(word, Ordering::Relaxed);
        }
        self.used = self.advance(self.used, chain.count);
        self.untold = self.untold.wrapping_add(chain.count);
    }

    #[inline]
    pub fn publish(&mut self) {
        // The driver goes from one used chain to the next, so it sees none of them before the first.
        if let Some((at, word)) = self.hidden.take() {
            self.memory.descriptor(at).word.store(word, Ordering::Release);
        }
    }

    #[inline]
    pub fn wants_call(&mut self) -> bool {
        let count = std::mem::take(&mut self.untold);
        let events = Events::from_bits(self.memory.driver_events().load(Ordering::Relaxed));
        count > 0
            && events.wants(self.event_index, self.used.index, self.used.wrap, count, self.memory.size())
    }

    pub fn set_kicks(&mut self, wanted: bool) {
        self.memory.device_events().store(Events::all(wanted), Ordering::Relaxed);
    }
}
