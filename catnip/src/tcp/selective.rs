//! Selective acknowledgments for the peer: what waits behind a gap (RFC 2018), and what came twice (RFC 2883).

use arrayvec::ArrayVec;

use super::connection::Connection;
use super::options::MAX_SACK_BLOCKS;
use super::sequence::SequenceNumber;

/// A range of sequence numbers: the first, and the one after the last.
pub(super) type Block = (SequenceNumber, SequenceNumber);

/// Blocks that fit beside timestamps (RFC 2018, section 3).
const BLOCKS_BESIDE_TIMESTAMPS: usize = 3;

/// What is to be reported besides what waits behind a gap.
#[derive(Debug)]
pub(super) struct SelectiveReport {
    /// True while nobody was told of what came out of order or twice.
    pub due: bool,
    /// What came twice since the last acknowledgment; empty when nothing did.
    duplicate: Block,
}

const NOTHING: Block = (SequenceNumber::new(0), SequenceNumber::new(0));

impl Default for SelectiveReport {
    fn default() -> Self {
        Self { due: false, duplicate: NOTHING }
    }
}

impl SelectiveReport {
    fn note_duplicate(&mut self, block: Block) {
        self.due = true;
        let (start, end) = self.duplicate;
        // A burst that came twice is one range.
        let goes_on = start != end && end == block.0;
        self.duplicate = if goes_on { (start, block.1) } else { block };
    }

    fn take_duplicate(&mut self) -> Option<Block> {
        let block = std::mem::replace(&mut self.duplicate, NOTHING);
        (block.0 != block.1).then_some(block)
    }
}

impl Connection {
    /// Text came out of order or twice: the acknowledgment of it is to say so.
    #[cold]
    pub(super) fn note_selectively(&mut self, start: SequenceNumber, len: u32) {
        if !self.sack_permitted || len == 0 {
            return;
        }
        self.rcv.report.due = true;
        let end = start + len;
        if start.before(self.rcv.nxt) {
            // RFC 2883, section 4: the part that was received before, even when the rest is new.
            self.rcv.report.note_duplicate((start, end.min(self.rcv.nxt)));
        } else if let Some(known) = self.rcv.reassembly.as_ref().and_then(|queue| queue.overlap(start, end)) {
            self.rcv.report.note_duplicate(known);
        }
    }

    /// True when an acknowledgment has something to say beside its number.
    #[inline]
    pub(super) fn has_report(&self) -> bool {
        self.rcv.report.due || (self.rcv.reassembly.is_some() && self.sack_permitted)
    }

    /// Most option bytes that the next report takes.
    pub(super) fn report_bytes(&self) -> u32 {
        let waiting = self.rcv.reassembly.as_ref().map_or(0, |queue| queue.reported_ranges());
        let limit = if self.timestamps.is_some() { BLOCKS_BESIDE_TIMESTAMPS } else { MAX_SACK_BLOCKS };
        // At most four blocks.
        4 + 8 * (waiting + 1).min(limit) as u32
    }

    /// The blocks of the next acknowledgment: what came twice first (RFC 2883, section 4), then what waits,
    /// newest first (RFC 2018, section 4).
    pub(super) fn take_sack_blocks(&mut self) -> ArrayVec<Block, MAX_SACK_BLOCKS> {
        let mut blocks = ArrayVec::new();
        self.rcv.report.due = false;
        if !self.sack_permitted {
            return blocks;
        }
        let limit = if self.timestamps.is_some() { BLOCKS_BESIDE_TIMESTAMPS } else { MAX_SACK_BLOCKS };
        blocks.extend(self.rcv.report.take_duplicate());
        if let Some(reassembly) = &mut self.rcv.reassembly {
            blocks.extend(reassembly.recent_ranges().into_iter().take(limit - blocks.len()));
        }
        blocks
    }
}
