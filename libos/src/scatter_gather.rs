//! Scatter-gather arrays: what is pushed and popped.

use std::collections::VecDeque;

use crate::Buffer;

/// A list of buffers that is sent or received as one. One buffer costs no allocation.
#[derive(Debug, Clone, Default)]
pub struct ScatterGather {
    first: Option<Buffer>,
    rest: VecDeque<Buffer>,
}

impl ScatterGather {
    /// An array of no segments.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: None, rest: VecDeque::new() }
    }

    /// Appends a segment. Empty buffers are left out.
    pub fn push(&mut self, buffer: Buffer) {
        if buffer.is_empty() {
            return;
        }
        if self.first.is_none() {
            self.first = Some(buffer);
        } else {
            self.rest.push_back(buffer);
        }
    }

    /// Bytes in all segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().map(|segment| segment.len()).sum()
    }

    /// True when there is no byte in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Number of segments.
    #[must_use]
    pub fn segments(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    /// The segments in order.
    pub fn iter(&self) -> impl Iterator<Item = &Buffer> {
        self.first.iter().chain(self.rest.iter())
    }

    /// Takes the first segment out.
    pub fn pop_front(&mut self) -> Option<Buffer> {
        let front = self.first.take()?;
        self.first = self.rest.pop_front();
        Some(front)
    }

    /// Puts a segment in front of all others. An empty buffer is left out.
    pub fn push_front(&mut self, buffer: Buffer) {
        if buffer.is_empty() {
            return;
        }
        if let Some(second) = self.first.replace(buffer) {
            self.rest.push_front(second);
        }
    }

    /// Takes the only segment out, if there is exactly one.
    pub fn into_single(mut self) -> Result<Buffer, Self> {
        match (self.first.take(), self.rest.is_empty()) {
            (Some(buffer), true) => Ok(buffer),
            (first, _) => {
                self.first = first;
                Err(self)
            }
        }
    }

    /// Copies bytes off the front into `bytes`, as many as both have, and drops them from the array.
    /// Returns how many.
    pub fn read_into(&mut self, bytes: &mut [u8]) -> usize {
        let mut copied = 0;
        while let Some(front) = self.first.as_mut()
            && copied < bytes.len()
        {
            let count = front.len().min(bytes.len() - copied);
            bytes[copied..copied + count].copy_from_slice(&front[..count]);
            copied += count;
            front.advance(count);
            if front.is_empty() {
                drop(self.pop_front());
            }
        }
        copied
    }

    /// Copies all bytes into one vector.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len());
        for buffer in self.iter() {
            bytes.extend_from_slice(buffer);
        }
        bytes
    }
}

impl From<Buffer> for ScatterGather {
    fn from(buffer: Buffer) -> Self {
        let mut array = Self::new();
        array.push(buffer);
        array
    }
}

impl FromIterator<Buffer> for ScatterGather {
    fn from_iter<I: IntoIterator<Item = Buffer>>(buffers: I) -> Self {
        let mut array = Self::new();
        buffers.into_iter().for_each(|buffer| array.push(buffer));
        array
    }
}

impl IntoIterator for ScatterGather {
    type Item = Buffer;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<Buffer>, std::collections::vec_deque::IntoIter<Buffer>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.rest)
    }
}
