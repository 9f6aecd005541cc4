//! Scatter-gather arrays: what is pushed and popped.

use bytes::Bytes;

use crate::memory::WithRoom;
use crate::{Buffer, BufferList};

/// A list of buffers that is sent or received as one. One buffer costs no allocation.
#[derive(Debug, Clone, Default)]
pub struct ScatterGather {
    /// `None` only when there is no `rest` either.
    first: Option<Buffer>,
    rest: BufferList,
}

impl ScatterGather {
    /// An array of no segments.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: None, rest: BufferList::new() }
    }

    /// The same array, moved as [`Buffer::by_fields`].
    #[inline(always)]
    pub(crate) fn by_fields(self) -> Self {
        let Self { first, rest } = self;
        Self { first: first.map(Buffer::by_fields), rest }
    }

    /// Appends a segment. Empty buffers are left out.
    pub fn push(&mut self, buffer: Buffer) {
        if buffer.is_empty() {
            return;
        }
        if self.first.is_none() {
            self.first = Some(buffer);
        } else {
            self.rest.push(buffer);
        }
    }

    /// Bytes in all segments.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.first.as_ref().map_or(0, |first| first.len()) + self.rest.bytes()
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
    pub fn iter(&self) -> impl Iterator<Item = &Buffer> + Clone {
        self.first.iter().chain(&self.rest)
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

    /// The only segment, if there is exactly one.
    #[inline]
    pub fn single_mut(&mut self) -> Option<&mut Buffer> {
        if self.rest.is_untouched() { self.first.as_mut() } else { None }
    }

    /// Takes the only segment out, if there is exactly one; else nothing.
    #[inline]
    pub fn take_single(&mut self) -> Option<Buffer> {
        if self.rest.is_untouched() { self.first.take() } else { None }
    }

    /// The only segment, and room for a header of `N` bytes in front of it, if there is exactly one segment, this is the
    /// only view of its memory, and there is so much in front.
    #[inline(always)]
    pub fn single_with_room<const N: usize>(&mut self) -> Option<WithRoom<'_, N>> {
        if self.rest.is_untouched() { WithRoom::of(&mut self.first) } else { None }
    }

    /// The array of a first segment and further ones. Empty buffers are left out.
    #[inline(always)]
    #[must_use]
    pub fn from_parts(first: Buffer, rest: BufferList) -> Self {
        if first.is_empty() || !rest.is_untouched() {
            return Self::from_any_parts(first, rest);
        }
        Self { first: Some(first), rest: BufferList::new() }
    }

    #[inline(never)]
    fn from_any_parts(first: Buffer, rest: BufferList) -> Self {
        std::iter::once(first).chain(rest).collect()
    }

    /// Drops all segments.
    #[inline]
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Takes the only segment out, if there is exactly one.
    pub fn into_single(mut self) -> Result<Buffer, Self> {
        if self.segments() > 1 {
            return Err(self);
        }
        self.first.take().ok_or(self)
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
    #[inline]
    fn from(buffer: Buffer) -> Self {
        Self { first: (!buffer.is_empty()).then_some(buffer), rest: BufferList::new() }
    }
}

impl From<Vec<u8>> for ScatterGather {
    /// The same bytes; not copied. Devices send them without a copy when they are in registered memory, see
    /// [`crate::memory`].
    fn from(bytes: Vec<u8>) -> Self {
        Buffer::from(bytes).into()
    }
}

impl From<Bytes> for ScatterGather {
    /// The same bytes; not copied. See `From<Vec<u8>>`.
    fn from(bytes: Bytes) -> Self {
        Buffer::from(bytes).into()
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
    type IntoIter = Segments;

    fn into_iter(self) -> Segments {
        Segments(self)
    }
}

/// The segments of a [`ScatterGather`], taken out in order.
#[derive(Debug)]
pub struct Segments(ScatterGather);

impl Iterator for Segments {
    type Item = Buffer;

    fn next(&mut self) -> Option<Buffer> {
        self.0.pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.segments(), Some(self.0.segments()))
    }
}

impl ExactSizeIterator for Segments {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library_os::test_support::arena;

    fn array(texts: &[&str]) -> ScatterGather {
        let arena = arena();
        texts.iter().map(|text| arena.copy_from(text.as_bytes()).unwrap().freeze()).collect()
    }

    #[test]
    fn segments_keep_their_order_and_empty_ones_are_left_out() {
        let mut array = array(&["", "one", "", "two", "three"]);
        assert_eq!((array.segments(), array.len()), (3, 11));
        let front = array.pop_front().unwrap();
        assert_eq!((&front[..], array.to_vec()), (&b"one"[..], b"twothree".to_vec()));
        array.push_front(front.slice(2..));
        assert_eq!(array.to_vec(), b"etwothree");
        let segments = array.into_iter();
        assert_eq!(segments.len(), 3);
        assert_eq!(segments.map(|segment| segment.len()).collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn only_one_segment_is_a_single_one() {
        let cases: [(&[&str], Option<&[u8]>); 3] =
            [(&[], None), (&["one"], Some(b"one")), (&["one", "two"], None)];
        for (texts, single) in cases {
            let result = array(texts).into_single();
            assert_eq!(result.as_deref().ok(), single);
            if let Err(array) = result {
                assert_eq!(array.to_vec(), texts.concat().as_bytes(), "nothing is lost");
            }
        }
    }

    #[test]
    fn reading_takes_bytes_off_the_front_across_segments() {
        let mut array = array(&["abc", "defg", "h"]);
        let mut bytes = [0; 5];
        assert_eq!(array.read_into(&mut bytes), 5);
        assert_eq!((&bytes, array.segments()), (b"abcde", 2));
        assert_eq!(array.read_into(&mut bytes), 3);
        assert_eq!((&bytes[..3], array.is_empty()), (&b"fgh"[..], true));
        assert_eq!(array.read_into(&mut bytes), 0);
    }
}
