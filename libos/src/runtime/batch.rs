//! Frames on their way to a device.

use super::TxOffload;
use crate::Buffer;

#[derive(Debug, Clone, Copy)]
struct FrameEnd {
    end: usize,
    offload: TxOffload,
}

/// A frame to be sent, as the runtime sees it.
#[derive(Debug)]
pub struct TxFrame<'a> {
    /// The frame's bytes, in order.
    pub segments: &'a [Buffer],
    /// What the device has to do.
    pub offload: TxOffload,
}

impl TxFrame<'_> {
    /// Bytes of all segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    /// True when the frame has no bytes, which no stack sends.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Frames that were sent and are kept in front of those that were not, at most.
const MAX_SENT_FRAMES: usize = 256;

/// Frames to be sent, oldest first. Flat: pushing a frame moves buffers, never frames.
#[derive(Debug, Default)]
pub struct FrameBatch {
    /// The only frame, while it is alone and one segment: what a lone message is. All else is empty then.
    lone: Option<Buffer>,
    lone_offload: TxOffload,
    segments: Vec<Buffer>,
    frames: Vec<FrameEnd>,
    sent_frames: usize,
    sent_segments: usize,
}

impl FrameBatch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame of one segment.
    #[inline(always)]
    pub fn push_frame(&mut self, frame: Buffer, offload: TxOffload) {
        if self.lone.is_none() && self.segments.is_empty() {
            // There is nothing in its place to be dropped.
            std::mem::forget(self.lone.replace(frame));
            self.lone_offload = offload;
        } else {
            // Out of line without the frame, which so need not be in memory for the lone one either.
            self.make_room_behind();
            self.segments.push(frame);
            self.finish(offload);
        }
    }

    #[cold]
    #[inline(never)]
    fn make_room_behind(&mut self) {
        self.end_loneliness();
        self.segments.reserve(1);
        self.frames.reserve(1);
    }

    /// Appends a segment to the frame that [`Self::finish`] will end.
    #[inline]
    pub fn push(&mut self, segment: Buffer) {
        if self.lone.is_some() {
            self.end_loneliness();
        }
        self.segments.push(segment);
    }

    /// Puts the lone frame where others can follow it.
    #[inline(never)]
    fn end_loneliness(&mut self) {
        if let Some(lone) = self.lone.take() {
            self.segments.push(lone);
            self.finish(self.lone_offload);
        }
    }

    /// Ends the frame made of all segments pushed since the last one.
    #[inline]
    pub fn finish(&mut self, offload: TxOffload) {
        self.frames.push(FrameEnd { end: self.segments.len(), offload });
    }

    /// Number of finished frames that were not taken yet.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.frames.len() - self.sent_frames + usize::from(self.lone.is_some())
    }

    /// True when there is no frame to send.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lone.is_none() && self.frames.len() == self.sent_frames
    }

    /// The oldest frame.
    #[must_use]
    #[inline]
    pub fn front(&self) -> Option<TxFrame<'_>> {
        if let Some(lone) = &self.lone {
            return Some(TxFrame { segments: std::slice::from_ref(lone), offload: self.lone_offload });
        }
        let frame = self.frames.get(self.sent_frames)?;
        let segments = self.segments.get(self.sent_segments..frame.end)?;
        Some(TxFrame { segments, offload: frame.offload })
    }

    /// The frame `index` places behind the oldest.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<TxFrame<'_>> {
        if index == 0 {
            return self.front();
        }
        let at = self.sent_frames + index;
        let frame = self.frames.get(at)?;
        let start = self.frames.get(at - 1)?.end;
        Some(TxFrame { segments: self.segments.get(start..frame.end)?, offload: frame.offload })
    }

    /// Marks the oldest frame as sent. Its memory is let go when the batch next runs empty, or at the
    /// latest 256 frames later.
    #[inline]
    pub fn pop_front(&mut self) {
        if self.lone.is_some() {
            self.lone = None;
        } else if let Some(frame) = self.frames.get(self.sent_frames) {
            self.sent_segments = frame.end;
            self.sent_frames += 1;
            self.reclaim();
        }
    }

    #[inline]
    fn reclaim(&mut self) {
        if self.sent_frames == self.frames.len() && self.sent_segments == self.segments.len() {
            self.clear();
        } else if self.sent_frames >= MAX_SENT_FRAMES {
            self.drop_sent();
        }
    }

    /// Lets go of what was sent though there is more: a device that is always behind must not make the
    /// batch grow for ever.
    #[cold]
    fn drop_sent(&mut self) {
        self.segments.drain(..self.sent_segments);
        self.frames.drain(..self.sent_frames);
        self.frames.iter_mut().for_each(|frame| frame.end -= self.sent_segments);
        self.sent_frames = 0;
        self.sent_segments = 0;
    }

    /// Takes out the only frame, if there is one alone, it has one segment and came by [`Self::push_frame`]: what a lone
    /// message is.
    #[inline(always)]
    pub fn take_lone(&mut self) -> Option<(Buffer, TxOffload)> {
        self.lone.take().map(|lone| (lone.by_fields(), self.lone_offload))
    }

    /// Takes the oldest frames out, at most `limit`, and hands over each one's segments by value: the first,
    /// and the others.
    pub fn take_frames(&mut self, limit: usize, mut take: impl FnMut(Buffer, Segments<'_, '_>, TxOffload)) {
        self.end_loneliness();
        let last = self.frames.len().min(self.sent_frames.saturating_add(limit));
        let Some(taken) = self.frames.get(self.sent_frames..last) else { return };
        let start = self.sent_segments;
        let Some(end) = taken.last().map(|frame| frame.end) else { return };
        let mut from = start;
        let mut segments = self.segments.drain(start..end);
        for frame in taken {
            let left = frame.end - from;
            from = frame.end;
            if let Some(first) = segments.next() {
                take(first, Segments { left: left - 1, segments: &mut segments }, frame.offload);
            }
        }
        drop(segments);
        self.sent_frames = last;
        self.frames[last..].iter_mut().for_each(|frame| frame.end -= end - start);
        self.reclaim();
    }

    /// Appends all frames of `other`, which is left empty. Without a look at any of them when this batch is empty.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            self.clear();
            std::mem::swap(self, other);
            return;
        }
        self.end_loneliness();
        other.end_loneliness();
        let (before, sent) = (self.segments.len(), other.sent_segments);
        self.segments.extend(other.segments.drain(sent..));
        let frames = other.frames.drain(other.sent_frames..);
        self.frames.extend(frames.map(|frame| FrameEnd { end: frame.end - sent + before, ..frame }));
        other.clear();
    }

    /// Drops all frames, sent or not.
    pub fn clear(&mut self) {
        self.lone = None;
        self.segments.clear();
        self.frames.clear();
        self.sent_frames = 0;
        self.sent_segments = 0;
    }
}

/// The segments behind the first of a frame that is taken out of a [`FrameBatch`]. What is not taken is
/// dropped.
#[derive(Debug)]
pub struct Segments<'a, 'batch> {
    segments: &'a mut std::vec::Drain<'batch, Buffer>,
    left: usize,
}

impl Segments<'_, '_> {
    /// The segments that were not taken yet.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Buffer] {
        &self.segments.as_slice()[..self.left]
    }
}

impl Iterator for Segments<'_, '_> {
    type Item = Buffer;

    #[inline]
    fn next(&mut self) -> Option<Buffer> {
        self.left = self.left.checked_sub(1)?;
        self.segments.next()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Segments<'_, '_> {}

impl Drop for Segments<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::super::PartialChecksum;
    use super::*;
    use crate::memory::{Arena, ArenaConfig};

    #[test]
    fn frames_are_taken_in_any_portions_with_their_own_segments() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        let mut batch = FrameBatch::new();
        let fill = |batch: &mut FrameBatch, first: u8| {
            for frame in first..first + 4 {
                for segment in 0..=frame % 3 {
                    batch.push(arena.copy_from(&[frame, segment]).unwrap().freeze());
                }
                batch.finish(TxOffload::default());
            }
        };
        fill(&mut batch, 0);
        batch.pop_front();
        let mut frames = Vec::new();
        for (limit, left) in [(0, 3), (1, 2), (1, 1), (9, 0)] {
            batch.take_frames(limit, |first, rest, _| {
                let segments = std::iter::once(first).chain(rest);
                frames.push(segments.map(|segment| segment.to_vec()).collect::<Vec<_>>());
            });
            assert_eq!(batch.len(), left);
            if limit == 1 {
                assert_eq!(batch.front().unwrap().segments[0][0] as usize, frames.len() + 1);
            }
        }
        assert_eq!(frames, [vec![[1, 0], [1, 1]], vec![[2, 0], [2, 1], [2, 2]], vec![[3, 0]]]);
        fill(&mut batch, 4);
        batch.take_frames(3, |_, mut rest, _| drop(rest.next()));
        assert_eq!((batch.len(), batch.front().unwrap().segments.len()), (1, 2));
        batch.take_frames(9, |_, _, _| {});
        fill(&mut batch, 0);
        batch.take_frames(3, |_, _, _| {});
        batch.take_frames(0, |_, _, _| unreachable!("nothing was asked for"));
        let mut last = Vec::new();
        batch.take_frames(1, |first, rest, _| last.push((first.to_vec(), rest.len())));
        assert_eq!((batch.len(), last), (0, vec![(vec![3, 0], 0)]));
        fill(&mut batch, 4);
        batch.clear();
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn a_batch_is_appended_to_another_whatever_of_either_was_sent() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        for (here, sent_here, there, sent_there) in
            [(0, 0, 3, 0), (1, 0, 1, 0), (1, 1, 1, 0), (3, 1, 1, 0), (1, 0, 4, 2), (3, 2, 3, 1), (2, 0, 0, 0)]
        {
            let fill = |first: u8, count: u8, sent: u8| {
                let mut batch = FrameBatch::new();
                for byte in first..first + count {
                    if byte % 2 == 0 {
                        batch.push(arena.copy_from(&[0]).unwrap().freeze());
                        batch.push(arena.copy_from(&[byte]).unwrap().freeze());
                        batch.finish(TxOffload::default());
                    } else {
                        batch.push_frame(arena.copy_from(&[0, byte]).unwrap().freeze(), TxOffload::default());
                    }
                }
                (0..sent).for_each(|_| batch.pop_front());
                batch
            };
            let (mut batch, mut other) = (fill(1, here, sent_here), fill(11, there, sent_there));
            batch.append(&mut other);
            assert!(other.is_empty());
            let expected: Vec<u8> = (1 + sent_here..1 + here).chain(11 + sent_there..11 + there).collect();
            let mut bytes: Vec<u8> = Vec::new();
            while let Some(frame) = batch.front() {
                assert_eq!(frame.len(), 2);
                bytes.extend(frame.segments.last().and_then(|segment| segment.last()));
                batch.pop_front();
            }
            assert_eq!(bytes, expected);
        }
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn a_frame_is_lone_only_when_it_is_alone_and_whole() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        let segment = |byte: u8| arena.copy_from(&[byte]).unwrap().freeze();
        let mut batch = FrameBatch::new();
        assert!(batch.take_lone().is_none());
        let checksum = Some(PartialChecksum { start: 34, offset: 16 });
        let offload = TxOffload::new(checksum, None);
        batch.push_frame(segment(1), offload);
        let front = batch.front().unwrap();
        assert_eq!((batch.len(), front.segments[0].to_vec(), front.offload), (1, vec![1], offload));
        assert!(batch.get(0).is_some() && batch.get(1).is_none());
        assert_eq!(
            batch.take_lone().map(|(head, offload)| (head.to_vec(), offload)),
            Some((vec![1], offload))
        );
        assert!(batch.is_empty());
        batch.push_frame(segment(1), offload);
        batch.push_frame(segment(2), TxOffload::default());
        assert_eq!(batch.len(), 2);
        assert!(batch.take_lone().is_none(), "two frames");
        assert_eq!(batch.front().unwrap().offload, offload);
        batch.pop_front();
        assert_eq!(batch.front().unwrap().segments[0].to_vec(), [2]);
        batch.pop_front();
        batch.push_frame(segment(1), offload);
        batch.pop_front();
        assert!(batch.is_empty() && batch.front().is_none());
        batch.push_frame(segment(2), offload);
        let mut taken = Vec::new();
        batch.take_frames(9, |first, rest, offload| taken.push((first.to_vec(), rest.len(), offload)));
        assert_eq!((taken, batch.len()), (vec![(vec![2], 0, offload)], 0));
        batch.push(segment(3));
        batch.push(segment(4));
        batch.finish(TxOffload::default());
        assert!(batch.take_lone().is_none(), "two segments");
        assert_eq!(batch.front().map(|frame| frame.len()), Some(2));
    }

    #[test]
    fn a_device_that_is_always_behind_does_not_make_the_batch_grow() {
        for by_value in [false, true] {
            let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
            let mut batch = FrameBatch::new();
            let push = |batch: &mut FrameBatch, frame: u32| {
                batch.push(arena.copy_from(&frame.to_be_bytes()).unwrap().freeze());
                batch.push(arena.copy_from(&[1]).unwrap().freeze());
                batch.finish(TxOffload::default());
            };
            push(&mut batch, 0);
            for frame in 1..10_000_u32 {
                push(&mut batch, frame);
                let front = batch.front().unwrap();
                assert_eq!((&front.segments[0][..], front.len()), (&(frame - 1).to_be_bytes()[..], 5));
                if by_value {
                    batch.take_frames(1, |_, _, _| {});
                } else {
                    batch.pop_front();
                }
                assert_eq!(batch.len(), 1);
                assert!(arena.stats().live_buffers <= 2 * (MAX_SENT_FRAMES + 2));
                assert!(batch.frames.len() <= MAX_SENT_FRAMES + 2);
            }
        }
    }
}
