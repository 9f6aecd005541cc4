//! The memory that the next frame is read into.
//!
//! A frame's length is not known before it is read, and with segmentation offload it may be 64 KiB.
//! So each read scatters into a small buffer that takes a frame of the MTU and then into a row of
//! large ones. Only those that the frame reached are handed up with it; the others wait for the next
//! read. A small packet thus keeps one small buffer from reuse, and nothing is ever copied.

use std::io::IoSliceMut;

use arrayvec::ArrayVec;
use libos::memory::HEADROOM_BYTES;
use libos::{Arena, Buffer, BufferList, BufferMut};

/// Ethernet header and one VLAN tag.
const LINK_HEADER_BYTES: usize = 18;
/// Largest IP packet that the kernel hands over with segmentation offload, in bytes.
const MAX_JOINED_BYTES: usize = 65_535;
/// Smallest first buffer: with the further ones room for the largest frame, and for all headers of any.
const MIN_HEAD_BYTES: usize = 1536;
/// Largest first buffer: a frame with an MTU of 9000.
const MAX_HEAD_BYTES: usize = 9000 + LINK_HEADER_BYTES + 1;
/// Each further buffer: 16 KiB with what the arena puts in front of the data.
const REST_BYTES: usize = 16_384 - 2 * HEADROOM_BYTES;
/// Further buffers that a frame of the largest size reaches.
const MAX_REST: usize = 4;

const _: () = assert!(MIN_HEAD_BYTES + MAX_REST * REST_BYTES > MAX_JOINED_BYTES + LINK_HEADER_BYTES);

/// Buffers for one frame, sized for the device. TAP devices and packet sockets without a ring read into them.
#[derive(Debug)]
pub(crate) struct ReceiveBuffers {
    head: Option<BufferMut>,
    rest: ArrayVec<BufferMut, MAX_REST>,
    head_bytes: usize,
    rest_count: usize,
}

impl ReceiveBuffers {
    /// None yet, for a device with this MTU, which hands over joined segments when `joined` is true.
    pub fn new(mtu: usize, joined: bool) -> Self {
        let packet_bytes = if joined { mtu.max(MAX_JOINED_BYTES) } else { mtu };
        // One byte more than the largest frame: a read that fills all buffers has lost a frame's end.
        let capacity_bytes = packet_bytes + LINK_HEADER_BYTES + 1;
        let head_bytes = (mtu + LINK_HEADER_BYTES + 1).clamp(MIN_HEAD_BYTES, MAX_HEAD_BYTES);
        let rest_count = capacity_bytes.saturating_sub(head_bytes).div_ceil(REST_BYTES);
        Self { head: None, rest: ArrayVec::new(), head_bytes, rest_count }
    }

    /// Allocates what is missing; false when memory ran out. With less than all of it nothing may be
    /// read, because the kernel would cut a long frame off without a word.
    #[inline]
    pub fn fill(&mut self, arena: &Arena) -> bool {
        if self.head.is_none() {
            self.head = allocate(arena, self.head_bytes);
        }
        while self.rest.len() < self.rest_count {
            match allocate(arena, REST_BYTES) {
                Some(buffer) => self.rest.push(buffer),
                None => return false,
            }
        }
        self.head.is_some()
    }

    /// Where the next frame is read to: its virtio header, and its bytes.
    #[inline]
    pub fn parts<'a>(&'a mut self, header: &'a mut [u8]) -> ArrayVec<IoSliceMut<'a>, { MAX_REST + 2 }> {
        let mut parts = ArrayVec::new();
        parts.push(IoSliceMut::new(header));
        for buffer in self.head.iter_mut().chain(&mut self.rest) {
            parts.push(IoSliceMut::new(buffer));
        }
        parts
    }

    /// The buffers that a frame of this length reached; `None` when its end was lost.
    #[inline]
    pub fn take(&mut self, frame_bytes: usize) -> Option<(Buffer, BufferList)> {
        if frame_bytes >= self.head_bytes + self.rest_count * REST_BYTES {
            return None;
        }
        let mut head = self.head.take()?;
        head.set_len(frame_bytes.min(self.head_bytes));
        let mut left_bytes = frame_bytes - head.len();
        if left_bytes == 0 {
            return Some((head.freeze(), BufferList::new()));
        }
        let rest: Vec<_> = self
            .rest
            .drain(..left_bytes.div_ceil(REST_BYTES))
            .map(|mut buffer| {
                buffer.set_len(left_bytes.min(REST_BYTES));
                left_bytes -= buffer.len();
                buffer.freeze()
            })
            .collect();
        Some((head.freeze(), rest.into()))
    }
}

fn allocate(arena: &Arena, bytes: usize) -> Option<BufferMut> {
    let mut buffer = arena.allocate(bytes)?;
    buffer.set_len(bytes);
    Some(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arena() -> Arena {
        Arena::new(&libos::memory::ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap()
    }

    #[test]
    fn a_frame_takes_only_the_buffers_it_reached() {
        const HEAD_BYTES: usize = MIN_HEAD_BYTES;
        let arena = arena();
        let mut buffers = ReceiveBuffers::new(1500, true);
        for (frame_bytes, rest) in [
            (60, vec![]),
            (1514, vec![]),
            (HEAD_BYTES, vec![]),
            (HEAD_BYTES + 1, vec![1]),
            (HEAD_BYTES + REST_BYTES, vec![REST_BYTES]),
            (65_549, vec![REST_BYTES, REST_BYTES, REST_BYTES, 65_549 - HEAD_BYTES - 3 * REST_BYTES]),
        ] {
            assert!(buffers.fill(&arena));
            let (head, tail) = buffers.take(frame_bytes).unwrap();
            assert_eq!(head.len(), frame_bytes.min(HEAD_BYTES));
            assert_eq!(tail.iter().map(|buffer| buffer.len()).collect::<Vec<_>>(), rest, "{frame_bytes}");
        }
    }

    #[test]
    fn every_mtu_leaves_room_to_notice_a_frame_that_is_too_long() {
        let arena = arena();
        for joined in [false, true] {
            for mtu in [68, 1500, 1517, 1518, 9000, 9001, 65_521] {
                let mut buffers = ReceiveBuffers::new(mtu, joined);
                assert!(buffers.fill(&arena));
                let room = buffers.head_bytes + buffers.rest.iter().map(|b| b.len()).sum::<usize>();
                assert!(buffers.take(room).is_none(), "mtu {mtu}");
                assert!(buffers.take(mtu + LINK_HEADER_BYTES).is_some(), "mtu {mtu}");
            }
        }
    }

    #[test]
    fn a_device_that_joins_nothing_needs_one_buffer() {
        assert_eq!(ReceiveBuffers::new(1500, false).rest_count, 0);
        assert_eq!(ReceiveBuffers::new(9000, false).rest_count, 0);
    }
}
