//! Buffers beyond the first of a frame or an array: hardly ever any, so nearly always one empty word.

use std::collections::VecDeque;
use std::collections::vec_deque::{IntoIter, Iter};

use crate::Buffer;

/// A list of buffers that is one word and nothing to drop while it is empty.
#[derive(Debug, Clone, Default)]
#[allow(
    clippy::box_collection,
    reason = "frames, operations and completions carry a list by value, nearly always an empty one"
)]
pub struct BufferList(Option<Box<VecDeque<Buffer>>>);

impl BufferList {
    /// A list of no buffers.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self(None)
    }

    /// True when nothing was ever put in, and so nothing needs to be dropped: what it nearly always is.
    #[must_use]
    #[inline(always)]
    pub const fn is_untouched(&self) -> bool {
        self.0.is_none()
    }

    /// True when there is no buffer.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|list| list.is_empty())
    }

    /// Number of buffers.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.len())
    }

    /// Bytes in all buffers.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        match &self.0 {
            None => 0,
            Some(list) => sum_of(list),
        }
    }

    /// The buffers in order.
    #[inline]
    pub fn iter(&self) -> Iter<'_, Buffer> {
        self.0.as_ref().map_or_else(Iter::default, |list| list.iter())
    }

    /// Appends a buffer.
    pub fn push(&mut self, buffer: Buffer) {
        self.0.get_or_insert_default().push_back(buffer);
    }

    /// Puts a buffer in front of all others.
    pub fn push_front(&mut self, buffer: Buffer) {
        self.0.get_or_insert_default().push_front(buffer);
    }

    /// Takes the first buffer out.
    #[inline]
    pub fn pop_front(&mut self) -> Option<Buffer> {
        self.0.as_mut().and_then(|list| list.pop_front())
    }

    /// Keeps those buffers for which `keep` says so.
    pub fn retain_mut(&mut self, keep: impl FnMut(&mut Buffer) -> bool) {
        if let Some(list) = &mut self.0 {
            list.retain_mut(keep);
        }
    }

    /// Drops all buffers.
    #[inline]
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

/// Out of line, so that it does not crowd the usual case.
#[inline(never)]
fn sum_of(list: &VecDeque<Buffer>) -> usize {
    list.iter().map(|buffer| buffer.len()).sum()
}

impl From<Vec<Buffer>> for BufferList {
    fn from(buffers: Vec<Buffer>) -> Self {
        Self((!buffers.is_empty()).then(|| Box::new(buffers.into())))
    }
}

impl FromIterator<Buffer> for BufferList {
    fn from_iter<I: IntoIterator<Item = Buffer>>(buffers: I) -> Self {
        let mut list = Self::new();
        list.extend(buffers);
        list
    }
}

impl Extend<Buffer> for BufferList {
    fn extend<I: IntoIterator<Item = Buffer>>(&mut self, buffers: I) {
        buffers.into_iter().for_each(|buffer| self.push(buffer));
    }
}

impl IntoIterator for BufferList {
    type Item = Buffer;
    type IntoIter = IntoIter<Buffer>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map_or_else(VecDeque::new, |list| *list).into_iter()
    }
}

impl<'a> IntoIterator for &'a BufferList {
    type Item = &'a Buffer;
    type IntoIter = Iter<'a, Buffer>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library_os::test_support::arena;

    #[test]
    fn buffers_keep_their_order_and_an_emptied_list_is_empty() {
        let arena = arena();
        let buffer = |text: &str| arena.copy_from(text.as_bytes()).unwrap().freeze();
        let texts = |list: &BufferList| list.iter().map(|buffer| buffer.to_vec()).collect::<Vec<_>>();
        let mut list: BufferList = ["b", "cc"].map(buffer).into_iter().collect();
        list.push_front(buffer("a"));
        list.push(buffer("dd"));
        assert_eq!((list.len(), list.bytes()), (4, 6));
        assert_eq!(texts(&list), [&b"a"[..], b"b", b"cc", b"dd"]);
        list.retain_mut(|buffer| buffer.len() == 2);
        assert_eq!(list.pop_front().unwrap().to_vec(), b"cc");
        assert_eq!(texts(&list), [b"dd"]);
        assert_eq!(list.clone().into_iter().count(), 1);
        list.clear();
        assert!(list.is_empty() && list.pop_front().is_none() && list.into_iter().next().is_none());
        assert!(BufferList::from(Vec::new()).is_untouched());
        assert_eq!(size_of::<BufferList>(), size_of::<usize>());
    }
}
