//! A front end's queue pair: frames go out as the buffers that they are in, and come in as the buffers that were posted
//! for them.

use std::fmt;
use std::mem::{self, ManuallyDrop};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libos::runtime::{RxBatch, Segments, TxOffload};
use libos::{Arena, Buffer, BufferList, BufferMut, Error, FrameBatch, RxFrame, SetupError};
use vmm_sys_util::eventfd::EventFd;

use super::memory::ring_memory;
use super::reach::Reach;
use super::{FrontRing, FrontSetup, Stop};
use crate::counters::VhostCounters;
use crate::features::{Features, MAX_SEGMENTS};
use crate::header::{self, HEADER_BYTES, Received};
use crate::link::{LinkHandle, Phase, event_fd, lock};
use crate::ring::{Access, DriverRing, Piece, RingError, RingOptions};
use crate::system::Watch;
use crate::{ETHERNET_BYTES, LINK_HEADER_BYTES, MAX_FRAME_BYTES};

/// Where a frame's header goes when it cannot go in front of the frame: as far apart.
const HEADER_STRIDE_BYTES: usize = 16;
/// A posted buffer is at least this large when frames may come in several: one for most frames, and few for the
/// largest.
const MERGEABLE_BYTES: usize = 4160;
/// As large when frames come whole and are small.
const WHOLE_BYTES: usize = 1536;
/// At most this large unless a frame has to fit into one.
const MAX_MERGEABLE_BYTES: usize = 9152;
/// One part in so many of the ring is missing before it is filled up.
const REFILL_PART: usize = 8;
/// While nothing is received, one poll in so many looks for buffers that the other end is done with: each look takes the
/// cache line away from it.
const RECLAIM_POLLS: u32 = 64;
/// How long a dropped queue waits for the other end to let go of its buffers.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A queue pair of a front end.
pub(crate) struct Front {
    handle: Arc<LinkHandle>,
    index: usize,
    arena: Arena,
    mergeable: bool,
    /// Polls since the last look for buffers that the other end is done with.
    polls: u32,
    rx: ManuallyDrop<Posted>,
    tx: ManuallyDrop<Sent>,
    reach: Reach,
}

/// The ring to receive with, and the buffers posted there.
struct Posted {
    ring: DriverRing,
    kick: EventFd,
    call: EventFd,
    /// By slot.
    buffers: Box<[Option<BufferMut>]>,
    buffer_bytes: usize,
    refill_at: usize,
}

/// The ring to send with, and the buffers that the other end reads.
struct Sent {
    ring: DriverRing,
    kick: EventFd,
    call: EventFd,
    /// By slot.
    buffers: Box<[Option<Buffer>]>,
    headers: BufferMut,
}

impl Front {
    pub fn new(
        handle: Arc<LinkHandle>,
        features: Features,
        index: usize,
        arena: &Arena,
    ) -> Result<Self, SetupError> {
        let config = &handle.config;
        let refuse = |call, reason: String| SetupError::Device { device: config.name(), call, reason };
        let region = arena.region();
        let Some(file) = region.shared_fd() else {
            let reason = "a front end needs an arena whose memory can be shared (Region::map_shared)";
            return Err(refuse("share memory", reason.to_owned()));
        };
        let file = file.try_clone_to_owned().map_err(|error| refuse("dup", error.to_string()))?;
        let options = RingOptions {
            kind: features.ring_kind(),
            size: config.queue_size,
            event_index: features.has_event_index(),
        };
        let events = || event_fd().map_err(|error| refuse("eventfd", error.to_string()));
        let copy = |event: &EventFd| event.try_clone().map_err(|error| refuse("dup", error.to_string()));
        let full = |bytes| SetupError::Memory { bytes, reason: "no room in the region".to_owned() };

        let size = usize::from(options.size);
        let (rx_memory, rx_areas) = ring_memory(arena, options.kind, options.size)?;
        let (tx_memory, tx_areas) = ring_memory(arena, options.kind, options.size)?;
        let mut headers =
            arena.allocate(size * HEADER_STRIDE_BYTES).ok_or_else(|| full(size * HEADER_STRIDE_BYTES))?;
        headers.set_len(size * HEADER_STRIDE_BYTES);
        let mergeable = features.has_mergeable_buffers();
        let rx = Posted {
            ring: DriverRing::new(rx_memory, &options),
            kick: events()?,
            call: events()?,
            buffers: (0..size).map(|_| None).collect(),
            buffer_bytes: buffer_bytes(config.mtu, mergeable, features.joins_to_driver()),
            refill_at: size / REFILL_PART,
        };
        let tx = Sent {
            ring: DriverRing::new(tx_memory, &options),
            kick: events()?,
            call: events()?,
            buffers: (0..size).map(|_| None).collect(),
            headers,
        };
        let setup = FrontSetup {
            region: file,
            region_address: region.base().as_ptr() as u64,
            region_bytes: region.len() as u64,
            rings: [
                FrontRing { areas: rx_areas, kick: copy(&rx.kick)?, call: copy(&rx.call)? },
                FrontRing { areas: tx_areas, kick: copy(&tx.kick)?, call: copy(&tx.call)? },
            ],
        };
        let reach = Reach::default();
        let (rx, tx) = (ManuallyDrop::new(rx), ManuallyDrop::new(tx));
        let mut front = Self { index, arena: arena.clone(), mergeable, polls: 0, rx, tx, reach, handle };
        front.rx.fill(&front.arena);
        front.rx.ring.publish();
        {
            let mut cell = lock(&front.handle.link.pairs[index].front);
            cell.attached = true;
            cell.setup = Some(setup);
        }
        front.handle.link.announce();
        Ok(front)
    }

    /// Takes what the control thread has left in the mailbox.
    pub fn refresh(&mut self) {
        self.reach = Reach::new(lock(&self.handle.link.pairs[self.index].front).shared.clone());
    }

    /// What wakes this queue: what the other end used, and the control thread.
    pub fn watch(&self) -> std::io::Result<Watch> {
        let watch = Watch::new()?;
        watch.add(&self.rx.call)?;
        watch.add(&self.tx.call)?;
        watch.add(&self.handle.link.pairs[self.index].wake)?;
        Ok(watch)
    }

    /// Asks to be woken by what is received, or not. True when something is there already.
    pub fn set_notified(&mut self, wanted: bool) -> bool {
        // What was sent and used frees memory, which can wait; but not for as long as the thread sleeps. An
        // error there is found again by the next poll.
        let _ = self.tx.reclaim();
        self.rx.ring.set_calls(wanted)
    }

    fn broken(&self, error: RingError) -> Error {
        self.handle.link.fail(format!("the back end wrote {error} into a ring"), false);
        Error::DeviceFailed
    }

    #[inline]
    pub fn receive(&mut self, batch: &mut RxBatch, counters: &mut VhostCounters) -> Result<(), Error> {
        self.polls = self.polls.wrapping_add(1);
        if self.polls.is_multiple_of(RECLAIM_POLLS) && self.tx.ring.offered() > 0 {
            self.tx.reclaim().map_err(|error| self.broken(error))?;
        }
        for _ in 0..batch.remaining_capacity() {
            match self.rx.take(self.mergeable, counters) {
                Ok(Some(frame)) => batch.extend(frame),
                Ok(None) => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        if self.rx.ring.free() >= self.rx.refill_at {
            self.refill(counters);
        }
        Ok(())
    }

    fn refill(&mut self, counters: &mut VhostCounters) {
        if !self.rx.fill(&self.arena) {
            counters.rx_no_buffers += 1;
        }
        self.rx.ring.publish();
        if self.rx.ring.wants_kick() {
            counters.notifications += 1;
            ring_bell(&self.rx.kick);
        }
    }

    #[inline]
    pub fn transmit(&mut self, batch: &mut FrameBatch, counters: &mut VhostCounters) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.tx.ring.offered() > 0 {
            self.tx.reclaim().map_err(|error| self.broken(error))?;
        }
        let fitting = self.tx.fitting(batch);
        if fitting > 0 {
            let copied_frames = counters.tx_copied_frames;
            let (tx, reach, arena) = (&mut *self.tx, &mut self.reach, &self.arena);
            batch.take_frames(fitting, |first, rest, offload| {
                tx.offer(arena, reach, first, rest, offload, counters);
            });
            tx.ring.publish();
            if tx.ring.wants_kick() {
                counters.notifications += 1;
                ring_bell(&tx.kick);
            }
            if counters.tx_copied_frames != copied_frames && self.reach.asks_for_more() {
                ring_bell(&self.handle.link.control);
            }
        }
        counters.tx_would_block += u64::from(!batch.is_empty());
        Ok(())
    }

    /// Asks the other end to let go of all buffers. True when it has, or is gone.
    fn stop(&self) -> bool {
        let link = &self.handle.link;
        let cell = &link.pairs[self.index].front;
        {
            let mut cell = lock(cell);
            if cell.setup.take().is_some() {
                // The other end never heard of them.
                return true;
            }
            cell.stop = Stop::Asked;
        }
        ring_bell(&link.control);
        let stopped = link.wait(Instant::now() + STOP_TIMEOUT, |phase| match phase {
            Phase::Failed { left, .. } => Some(*left),
            Phase::Connecting | Phase::Agreed(_) | Phase::Up(_) => {
                (lock(cell).stop == Stop::Done).then_some(true)
            }
        });
        stopped.unwrap_or(false)
    }
}

impl Drop for Front {
    #[allow(unsafe_code, reason = "what is not dropped is chosen here")]
    fn drop(&mut self) {
        if self.stop() {
            // SAFETY: dropped once, here.
            unsafe {
                ManuallyDrop::drop(&mut self.rx);
                ManuallyDrop::drop(&mut self.tx);
            }
        } else {
            // The other end may write to buffers and rings at any time, so nobody else may ever have their memory.
            mem::forget(self.arena.clone());
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Bytes of each posted buffer, header included.
fn buffer_bytes(mtu: usize, mergeable: bool, joined: bool) -> usize {
    let frame_bytes = HEADER_BYTES + LINK_HEADER_BYTES + mtu;
    match (mergeable, joined) {
        (true, true) => frame_bytes.clamp(MERGEABLE_BYTES, MAX_MERGEABLE_BYTES),
        (true, false) => frame_bytes.clamp(WHOLE_BYTES, MAX_MERGEABLE_BYTES),
        (false, _) => frame_bytes.max(WHOLE_BYTES),
    }
}

/// Tells the other end, or another thread. A full counter wakes it as well, so nothing can go wrong.
pub(crate) fn ring_bell(event: &EventFd) {
    let _ = event.write(1);
}

impl Posted {
    /// Posts buffers for all free slots; false when memory ran out first.
    fn fill(&mut self, arena: &Arena) -> bool {
        for _ in 0..self.ring.free() {
            let Some(mut buffer) = arena.allocate(self.buffer_bytes) else { return false };
            buffer.set_len(self.buffer_bytes);
            let piece = Piece { address: buffer.as_ptr() as u64, len: self.buffer_bytes as u32 };
            let (buffers, mut buffer) = (&mut self.buffers, Some(buffer));
            self.ring.offer(1, Access::DeviceWrites, |slot| {
                buffers[usize::from(slot)] = buffer.take();
                piece
            });
        }
        true
    }

    /// The next buffer that was written to.
    #[inline]
    fn next(&mut self) -> Result<Option<BufferMut>, RingError> {
        let Some(used) = self.ring.next_used()? else { return Ok(None) };
        let mut taken = None;
        let buffers = &mut self.buffers;
        self.ring.release(used.head, |slot| taken = buffers[usize::from(slot)].take());
        let len = used.len as usize;
        if len > self.buffer_bytes {
            return Err(RingError::TooManyEntries);
        }
        Ok(taken.map(|mut buffer| {
            buffer.set_len(len);
            buffer
        }))
    }

    /// The next frame. None when there is none; an inner None for one that was dropped.
    #[inline]
    fn take(
        &mut self,
        mergeable: bool,
        counters: &mut VhostCounters,
    ) -> Result<Option<Option<RxFrame>>, RingError> {
        let Some(first) = self.next()? else { return Ok(None) };
        let Some(received) = first.first_chunk().and_then(header::decode) else {
            // What follows is skipped as frames with headers that say nothing.
            counters.rx_malformed += 1;
            return Ok(Some(None));
        };
        let mut head = first.freeze();
        head.advance(HEADER_BYTES);
        let rest = if mergeable && received.buffers != 1 {
            match self.take_rest(received.buffers)? {
                Some(rest) => rest,
                None => {
                    counters.rx_malformed += 1;
                    return Ok(Some(None));
                }
            }
        } else {
            BufferList::new()
        };
        let bytes = head.len() + rest.bytes();
        if head.len() < ETHERNET_BYTES || bytes > MAX_FRAME_BYTES {
            counters.rx_malformed += 1;
            return Ok(Some(None));
        }
        let Received { checksum, segment_bytes, .. } = received;
        counters.rx_frames += 1;
        counters.rx_bytes += bytes as u64;
        counters.rx_joined_frames += u64::from(segment_bytes != 0);
        Ok(Some(Some(RxFrame { head, rest, checksum, segment_bytes })))
    }

    /// The further buffers of a frame in `count`. None when no frame is spread over so many.
    #[cold]
    #[inline(never)]
    fn take_rest(&mut self, count: u16) -> Result<Option<BufferList>, RingError> {
        let Some(count) = count.checked_sub(1) else { return Ok(None) };
        if usize::from(count) > self.ring.offered() {
            return Err(RingError::TooManyEntries);
        }
        let mut rest = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            // All buffers of a frame are returned at one moment (virtio 1.2, section 5.1.6.4).
            let buffer = self.next()?.ok_or(RingError::NoSuchDescriptor)?;
            rest.push(buffer.freeze());
        }
        Ok(Some(rest.into()))
    }
}

impl Sent {
    /// Lets go of what the other end is done with.
    #[inline]
    fn reclaim(&mut self) -> Result<(), RingError> {
        while let Some(used) = self.ring.next_used()? {
            let buffers = &mut self.buffers;
            self.ring.release(used.head, |slot| drop(buffers[usize::from(slot)].take()));
        }
        Ok(())
    }

    /// How many frames at the front of `batch` there are descriptors for.
    #[inline]
    fn fitting(&self, batch: &FrameBatch) -> usize {
        let mut free = self.ring.free();
        let mut fitting = 0;
        while let Some(frame) = batch.get(fitting) {
            // One that is too long is dropped, for which no descriptor is needed.
            let needed = if frame.segments.len() > MAX_SEGMENTS { 0 } else { frame.segments.len() + 1 };
            if needed > free {
                break;
            }
            free -= needed;
            fitting += 1;
        }
        fitting
    }

    /// Offers a frame, for which there are descriptors.
    #[inline]
    fn offer(
        &mut self,
        arena: &Arena,
        reach: &mut Reach,
        mut first: Buffer,
        mut rest: Segments<'_, '_>,
        offload: TxOffload,
        counters: &mut VhostCounters,
    ) {
        let further = rest.as_slice();
        let bytes = first.len() + further.iter().map(|segment| segment.len()).sum::<usize>();
        let outside = |segment: &Buffer| !segment.is_empty() && !arena.contains(segment.as_ptr());
        if further.len() >= MAX_SEGMENTS || bytes > MAX_FRAME_BYTES {
            counters.tx_refused += 1;
            return;
        }
        if (outside(&first) || further.iter().any(outside)) && !reach.covers(arena, &first, further) {
            let Some(copy) = copied(arena, &first, further, bytes) else {
                counters.tx_refused += 1;
                return;
            };
            counters.tx_copied_frames += 1;
            counters.tx_copied_bytes += bytes as u64;
            rest.by_ref().for_each(drop);
            first = copy;
        }
        counters.tx_frames += 1;
        counters.tx_bytes += bytes as u64;
        counters.tx_segmented_frames += u64::from(offload.segmentation().is_some());
        let header = header::encode(&offload, 0);
        let in_front = first.prepend_by(HEADER_BYTES, |room| room.copy_from_slice(&header));
        let further = rest.as_slice().iter().filter(|segment| !segment.is_empty()).count();
        let count = further + 1 + usize::from(!in_front);
        let mut header_left = !in_front;
        let mut segments = std::iter::once(first).chain(rest.filter(|segment| !segment.is_empty()));
        let (buffers, headers) = (&mut self.buffers, &mut self.headers);
        self.ring.offer(count as u16, Access::DeviceReads, |slot| {
            if header_left {
                header_left = false;
                let room = &mut headers[usize::from(slot) * HEADER_STRIDE_BYTES..][..HEADER_BYTES];
                room.copy_from_slice(&header);
                return Piece { address: room.as_ptr() as u64, len: HEADER_BYTES as u32 };
            }
            let Some(segment) = segments.next() else { return Piece { address: 0, len: 0 } };
            let piece = Piece { address: segment.as_ptr() as u64, len: segment.len() as u32 };
            buffers[usize::from(slot)] = Some(segment);
            piece
        });
    }
}

/// A frame's bytes in one buffer of `arena`.
#[cold]
#[inline(never)]
fn copied(arena: &Arena, first: &Buffer, rest: &[Buffer], bytes: usize) -> Option<Buffer> {
    let mut copy = arena.allocate(bytes)?;
    copy.extend_from_slice(first);
    rest.iter().for_each(|segment| {
        copy.extend_from_slice(segment);
    });
    Some(copy.freeze())
}
