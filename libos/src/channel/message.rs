//! What crosses between cores: bytes that any thread may hold.

use bytes::Bytes;

use super::COPIED_BYTES;
use crate::{Arena, Buffer, ScatterGather};

/// A scatter-gather array on its way to another core. One segment costs no list.
#[derive(Debug)]
pub(crate) enum Message {
    One(Bytes),
    Many(Vec<Bytes>),
}

impl Message {
    /// Lends the array's memory to other threads; beyond the arena's limit it is copied to the heap.
    pub(crate) fn lend(mut data: ScatterGather) -> Self {
        if let Some(single) = data.take_single() {
            return Self::One(single.into());
        }
        let mut segments = Vec::with_capacity(data.segments());
        while let Some(segment) = data.pop_front() {
            segments.push(segment.into());
        }
        Self::Many(segments)
    }

    /// The array for the core that `arena` belongs to: a small message in its own memory, a large one where it is.
    pub(crate) fn land(self, arena: &Arena) -> ScatterGather {
        let segment = |bytes: Bytes| {
            let copy = if bytes.len() <= COPIED_BYTES { arena.copy_from(&bytes) } else { None };
            copy.map_or_else(|| Buffer::from(bytes), Buffer::from)
        };
        let mut data = ScatterGather::new();
        match self {
            Self::One(bytes) => data.push(segment(bytes)),
            Self::Many(segments) => segments.into_iter().for_each(|bytes| data.push(segment(bytes))),
        }
        data
    }
}
