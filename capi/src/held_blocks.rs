//! The blocks of memory that the program's arrays lie in: for addresses that come without a mark.

use std::collections::HashMap;

use catnip_os::libos::Buffer;
use catnip_os::libos::memory::RawBlock;

/// How many of the program's arrays lie in each block. Kept only by programs that ask for addresses.
#[derive(Debug, Default)]
pub struct HeldBlocks(HashMap<RawBlock, u32>);

impl HeldBlocks {
    /// The blocks of these arrays.
    pub fn of<'a>(buffers: impl Iterator<Item = &'a Buffer>) -> Self {
        let mut blocks = Self::default();
        buffers.for_each(|buffer| blocks.add(buffer));
        blocks
    }

    /// The program got an array.
    pub fn add(&mut self, buffer: &Buffer) {
        *self.0.entry(buffer.raw_block()).or_default() += 1;
    }

    /// The program gave an array back.
    pub fn take_away(&mut self, buffer: &Buffer) {
        let block = buffer.raw_block();
        if let Some(count) = self.0.get_mut(&block) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&block);
            }
        }
    }

    /// Arrays of the program in the block, 0 when it holds none of it.
    pub fn arrays_in(&self, block: RawBlock) -> u32 {
        self.0.get(&block).copied().unwrap_or(0)
    }
}
