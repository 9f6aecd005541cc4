//! The room in front of a payload, for a header that is written in place.

use std::marker::PhantomData;
use std::ptr::NonNull;

use super::block::Block;
use super::buffer::Buffer;

/// A segment that stays where it is until it is taken together with a header of `N` bytes in front of it. That it can be is
/// known: this is the only view of the memory, and there is room.
#[derive(Debug)]
pub struct WithRoom<'a, const N: usize> {
    place: NonNull<Option<Buffer>>,
    /// What the view in `place` consists of, which is not looked at again.
    data: NonNull<u8>,
    len: usize,
    block: NonNull<Block>,
    borrowed: PhantomData<&'a mut Option<Buffer>>,
}

impl<'a, const N: usize> WithRoom<'a, N> {
    #[inline(always)]
    pub(crate) fn of(place: &'a mut Option<Buffer>) -> Option<Self> {
        let Buffer { data, len, block } = *place.as_ref().filter(|buffer| buffer.takes_header(N))?;
        Some(Self { place: place.into(), data, len, block, borrowed: PhantomData })
    }

    /// Bytes of the segment.
    #[inline(always)]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when the segment has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The header's place, which holds whatever the memory held before, and the segment's bytes.
    #[inline(always)]
    pub const fn parts(&mut self) -> (&mut [u8; N], &[u8]) {
        // SAFETY: the bytes in front are within the block, whose bytes are initialised, and nobody else's; those of the view
        // are the view's.
        unsafe {
            (self.data.sub(N).cast().as_mut(), std::slice::from_raw_parts(self.data.as_ptr(), self.len))
        }
    }

    /// Takes the segment out, with the header in front.
    #[inline(always)]
    #[must_use]
    pub fn take(self) -> Buffer {
        // SAFETY: the place is borrowed, and there are as many bytes in front. What is in it is moved out by its parts.
        unsafe {
            self.place.write(None);
            Buffer { data: self.data.sub(N), len: self.len + N, block: self.block }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::{Arena, ArenaConfig};
    use crate::{Buffer, ScatterGather};

    #[test]
    fn a_header_goes_in_front_of_what_is_alone_and_has_room_and_of_nothing_else() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        let buffer = || arena.copy_from(b"payload").unwrap().freeze();
        let mut data = ScatterGather::from(buffer());
        let mut room = data.single_with_room::<4>().unwrap();
        assert_eq!((room.len(), room.is_empty()), (7, false));
        let (header, payload) = room.parts();
        assert_eq!(payload, b"payload");
        header.copy_from_slice(b"head");
        let framed = room.take();
        assert_eq!(&framed[..], b"headpayload");
        assert!(data.is_empty() && framed.is_unique());
        drop(framed);

        let shared = buffer();
        let headroom = shared.headroom();
        let mut data = ScatterGather::from(shared.clone());
        assert!(data.single_with_room::<4>().is_none(), "somebody else has it too");
        drop(shared);
        assert!(data.single_with_room::<4>().is_some());
        assert_eq!(data.to_vec(), b"payload", "what is not taken stays");
        assert!(data.single_with_room::<4096>().is_none() && headroom < 4096, "no room");
        data.push(buffer());
        assert!(data.single_with_room::<4>().is_none(), "two segments");
        assert!(ScatterGather::new().single_with_room::<4>().is_none());
        assert!(ScatterGather::from(Buffer::from(&b"static"[..])).single_with_room::<4>().is_none());
        drop(data);
        assert_eq!(arena.stats().live_buffers, 0);
    }
}
