//! Payload that was copied although memory is shared by reference: how much, and why.
//!
//! A program sees by these counts whether its path is without copies. They are bytes, not times, and come beside what the device
//! runtime counts of its own.

use std::cell::Cell;

use crate::metrics::MetricsSink;

/// Why payload was copied from one buffer to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyCause {
    /// It came in memory that only the program knows, or went into such memory: calls that take or fill the program's own bytes.
    Program,
    /// Small pieces were put together, so that they take less memory or fewer packets.
    Joined,
    /// There were more pieces than the device, or the caller, takes at a time.
    Gathered,
    /// The parts of a packet that had been cut on the way were put together.
    Reassembled,
}

/// Bytes of payload that were copied, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopiedBytes {
    /// See [`CopyCause::Program`].
    pub program: u64,
    /// See [`CopyCause::Joined`].
    pub joined: u64,
    /// See [`CopyCause::Gathered`].
    pub gathered: u64,
    /// See [`CopyCause::Reassembled`].
    pub reassembled: u64,
}

impl CopiedBytes {
    pub(crate) fn write(self, sink: &mut dyn MetricsSink) {
        let Self { program, joined, gathered, reassembled } = self;
        sink.counter("copied_program_bytes", program);
        sink.counter("copied_joined_bytes", joined);
        sink.counter("copied_gathered_bytes", gathered);
        sink.counter("copied_reassembled_bytes", reassembled);
    }
}

/// What an arena counts.
#[derive(Debug, Default)]
pub(super) struct CopyCounter(Cell<CopiedBytes>);

impl CopyCounter {
    pub(super) fn count(&self, cause: CopyCause, bytes: usize) {
        let mut counts = self.0.get();
        let count = match cause {
            CopyCause::Program => &mut counts.program,
            CopyCause::Joined => &mut counts.joined,
            CopyCause::Gathered => &mut counts.gathered,
            CopyCause::Reassembled => &mut counts.reassembled,
        };
        *count += bytes as u64;
        self.0.set(counts);
    }

    pub(super) fn get(&self) -> CopiedBytes {
        self.0.get()
    }
}
