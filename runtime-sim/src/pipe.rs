//! Two devices joined back to back: frames are handed over by reference, at once and without loss.
//!
//! For measuring what is above a device. Sending swaps two batches however many frames there are,
//! and receiving moves each frame's buffers; no byte is copied, except where that is cheaper than
//! not copying (see [`PipeConfig::join_bytes`]).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use libos::metrics::MetricsSink;
use libos::runtime::{Arrival, Medium, RxBatch, RxChecksum, RxFrame, Segments, TxChecksum, TxOffload};
use libos::{Arena, Buffer, BufferList, Capabilities, Error, FrameBatch, Instant, Runtime};

/// Most frames under way in one direction; more are left with their sender.
const MAX_FRAMES: usize = 4096;

/// What a pipe is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipeConfig {
    /// What frames begin with.
    pub medium: Medium,
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// Who computes transport checksums; with `Unneeded`, nobody checks them either.
    pub checksum: TxChecksum,
    /// Largest TCP payload of one frame, in bytes, which is received in one piece; 0 for one segment.
    pub tcp_segmentation_bytes: usize,
    /// A frame of several segments, or one that its sender keeps, of at most so many bytes is copied into one buffer,
    /// as a network card does with every frame it receives. The receiver then has one buffer with no other
    /// owner, so that an answer's headers fit in front of it, instead of a list with an allocation of its own.
    pub join_bytes: usize,
}

impl Default for PipeConfig {
    /// Ethernet, MTU 1500, no checksums, no segmentation.
    fn default() -> Self {
        Self {
            medium: Medium::Ethernet,
            mtu: 1500,
            checksum: TxChecksum::Unneeded,
            tcp_segmentation_bytes: 0,
            join_bytes: 2048,
        }
    }
}

/// Frames under way in one direction.
struct Wire {
    /// There is none at all.
    is_empty: Cell<bool>,
    /// The only one, if it is one segment with which nothing is to be done.
    lone: Cell<Option<Buffer>>,
    /// All, unless one is alone.
    frames: RefCell<FrameBatch>,
}

impl Wire {
    fn new() -> Self {
        Self { is_empty: Cell::new(true), lone: Cell::new(None), frames: RefCell::default() }
    }

    /// Puts a frame onto an empty wire.
    #[inline(always)]
    fn put_lone(&self, frame: Buffer) {
        debug_assert!(self.is_empty.get(), "a lone frame is alone");
        self.is_empty.set(false);
        // There is nothing in its place to be dropped.
        std::mem::forget(self.lone.replace(Some(frame)));
    }

    /// Takes the frame off that is alone.
    #[inline(always)]
    fn take_lone(&self) -> Option<Buffer> {
        let lone = self.lone.take()?;
        self.is_empty.set(true);
        Some(lone)
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("is_empty", &self.is_empty)
            .field("frames", &self.frames)
            .finish_non_exhaustive()
    }
}

/// One end of a pipe.
#[derive(Debug)]
pub struct PipeEnd {
    capabilities: Capabilities,
    rx_checksum: RxChecksum,
    join_bytes: usize,
    arena: Arena,
    /// From the other end.
    incoming: Rc<Wire>,
    /// To the other end.
    outgoing: Rc<Wire>,
    sent_frames: u64,
    received_frames: u64,
}

/// Makes a pipe. Each end has its arena, for frames that are joined; both may be the same. The ends'
/// Ethernet addresses are `02:00:00:00:00:01` and `02:00:00:00:00:02`.
#[must_use]
pub fn pipe(config: PipeConfig, arenas: [&Arena; 2]) -> (PipeEnd, PipeEnd) {
    let wires = [(); 2].map(|()| Rc::new(Wire::new()));
    let end = |side: usize| PipeEnd {
        capabilities: Capabilities {
            medium: config.medium,
            hardware_address: match config.medium {
                Medium::Ethernet => [2, 0, 0, 0, 0, side as u8 + 1],
                Medium::Ip => [0; 6],
            },
            mtu: config.mtu,
            tx_checksum: config.checksum,
            tcp_segmentation_bytes: config.tcp_segmentation_bytes,
            max_segments: 16,
        },
        // A partial checksum is as good as a verified one: the bytes never left memory.
        rx_checksum: match config.checksum {
            TxChecksum::Software => RxChecksum::Unknown,
            TxChecksum::Partial | TxChecksum::Unneeded => RxChecksum::Verified,
        },
        join_bytes: config.join_bytes,
        arena: arenas[side].clone(),
        incoming: Rc::clone(&wires[1 - side]),
        outgoing: Rc::clone(&wires[side]),
        sent_frames: 0,
        received_frames: 0,
    };
    (end(0), end(1))
}

impl PipeEnd {
    /// The received form of a frame in one segment.
    #[inline(always)]
    fn received(&self, head: Buffer, offload: TxOffload) -> RxFrame {
        let head = if head.is_unique() { head } else { self.own(head) };
        self.frame(head, BufferList::new(), offload)
    }

    /// A copy of a frame that its sender keeps, if it is small enough and there is memory.
    #[inline(never)]
    fn own(&self, head: Buffer) -> Buffer {
        let copy = if head.len() <= self.join_bytes { self.arena.copy_from(&head) } else { None };
        copy.map_or(head, |copy| copy.freeze().by_fields())
    }

    /// The received form of a frame in several segments: in one buffer, if it is small enough and there is memory.
    #[inline(never)]
    fn join(&self, head: Buffer, rest: Segments<'_, '_>, offload: TxOffload) -> RxFrame {
        let frame_bytes = head.len() + rest.as_slice().iter().map(|segment| segment.len()).sum::<usize>();
        let joined = if frame_bytes <= self.join_bytes { self.arena.allocate(frame_bytes) } else { None };
        let Some(mut joined) = joined else { return self.frame(head, rest.collect(), offload) };
        joined.extend_from_slice(&head);
        for segment in rest {
            joined.extend_from_slice(&segment);
        }
        self.frame(joined.freeze(), BufferList::new(), offload)
    }

    #[inline(always)]
    fn frame(&self, head: Buffer, rest: BufferList, offload: TxOffload) -> RxFrame {
        RxFrame { head, rest, checksum: self.rx_checksum, segment_bytes: offload.segment_bytes() }
    }

    /// Takes what there is room for off the wire; returns how many frames.
    #[inline(never)]
    fn receive_burst(&self, wire: &mut FrameBatch, batch: &mut RxBatch) -> u64 {
        let before = batch.len();
        wire.take_frames(batch.remaining_capacity(), |head, rest, offload| {
            batch.push(match rest.len() {
                0 => self.received(head, offload),
                _ => self.join(head, rest, offload),
            });
        });
        (batch.len() - before) as u64
    }
}

/// Puts what there is room for onto the wire; returns how many frames.
#[inline(never)]
fn send_burst(wire: &Wire, batch: &mut FrameBatch) -> u64 {
    let lone = wire.take_lone();
    wire.is_empty.set(false);
    let mut wire = wire.frames.borrow_mut();
    if let Some(lone) = lone {
        wire.push_frame(lone, TxOffload::default());
    }
    let before = batch.len();
    let room = MAX_FRAMES.saturating_sub(wire.len());
    if before <= room || wire.is_empty() {
        wire.append(batch);
    } else {
        batch.take_frames(room, |head, rest, offload| {
            wire.push(head);
            rest.for_each(|segment| wire.push(segment));
            wire.finish(offload);
        });
    }
    (before - batch.len()) as u64
}

impl Runtime for PipeEnd {
    fn name(&self) -> &str {
        "pipe"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let wire = Rc::clone(&self.incoming);
        if wire.is_empty.get() || batch.is_full() {
            return Ok(());
        }
        if let Some(head) = wire.take_lone() {
            self.received_frames += 1;
            batch.push(self.received(head, TxOffload::default()));
            return Ok(());
        }
        let mut frames = wire.frames.borrow_mut();
        self.received_frames += self.receive_burst(&mut frames, batch);
        wire.is_empty.set(frames.is_empty());
        Ok(())
    }

    #[inline(always)]
    fn receive_lone(&mut self, _now: Instant) -> Arrival {
        if self.incoming.is_empty.get() {
            return Arrival::Nothing;
        }
        match self.incoming.take_lone() {
            Some(head) => {
                self.received_frames += 1;
                Arrival::Lone(self.frame(head, BufferList::new(), TxOffload::default()))
            }
            None => Arrival::Batch,
        }
    }

    #[inline(always)]
    fn takes_lone(&self) -> bool {
        self.outgoing.is_empty.get()
    }

    #[inline(always)]
    fn transmit_lone(&mut self, _now: Instant, frame: Buffer) {
        self.outgoing.put_lone(frame);
        self.sent_frames += 1;
    }

    #[inline(always)]
    fn transmit_kept(&mut self, now: Instant, frame: Buffer) {
        let frame = self.own(frame);
        self.transmit_lone(now, frame);
    }

    #[inline(always)]
    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        if self.outgoing.is_empty.get()
            && let Some((frame, offload)) = batch.take_lone()
        {
            let frame = if frame.is_unique() { frame } else { self.own(frame) };
            if offload == TxOffload::default() {
                self.outgoing.put_lone(frame);
            } else {
                self.outgoing.frames.borrow_mut().push_frame(frame, offload);
                self.outgoing.is_empty.set(false);
            }
            self.sent_frames += 1;
            return Ok(());
        }
        if !batch.is_empty() {
            self.sent_frames += send_burst(&self.outgoing, batch);
        }
        Ok(())
    }

    /// The clock's start while frames wait here: whenever it is now, they are due.
    fn next_deadline(&self) -> Option<Instant> {
        (!self.incoming.is_empty.get()).then_some(Instant::ZERO)
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.counter("sent_frames", self.sent_frames);
        sink.counter("received_frames", self.received_frames);
    }
}

#[cfg(test)]
mod tests {
    use libos::memory::ArenaConfig;
    use libos::runtime::Segmentation;

    use super::*;

    fn arena() -> Arena {
        Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap()
    }

    fn send(end: &mut PipeEnd, frames: &[&[&[u8]]], offload: TxOffload) {
        let mut batch = FrameBatch::new();
        for segments in frames {
            segments.iter().for_each(|segment| batch.push(end.arena.copy_from(segment).unwrap().freeze()));
            batch.finish(offload);
        }
        end.transmit(Instant::ZERO, &mut batch).unwrap();
        assert!(batch.is_empty());
    }

    fn receive(end: &mut PipeEnd) -> Vec<RxFrame> {
        let mut batch = RxBatch::new();
        end.receive(Instant::ZERO, &mut batch).unwrap();
        batch.into_iter().collect()
    }

    fn bytes(frame: &RxFrame) -> Vec<u8> {
        frame.rest.iter().fold(frame.head.to_vec(), |bytes, buffer| [&bytes, &buffer[..]].concat())
    }

    #[test]
    fn frames_come_out_of_the_other_end_in_order_and_only_there() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig::default(), [&arena, &arena]);
        send(&mut a, &[&[b"one"], &[b"two"]], TxOffload::default());
        send(&mut a, &[&[b"three"]], TxOffload::default());
        assert_eq!((a.next_deadline(), b.next_deadline()), (None, Some(Instant::ZERO)));
        assert!(receive(&mut a).is_empty());
        let frames = receive(&mut b);
        assert_eq!(frames.iter().map(bytes).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert!(frames.iter().all(|frame| frame.checksum == RxChecksum::Verified));
        drop(frames);
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn a_burst_is_received_in_bounded_batches_without_loss() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig::default(), [&arena, &arena]);
        let sent: Vec<[u8; 1]> = (0..150).map(|index| [index]).collect();
        for frames in sent.chunks(50) {
            let frames: Vec<[&[u8]; 1]> = frames.iter().map(|frame| [&frame[..]]).collect();
            let frames: Vec<&[&[u8]]> = frames.iter().map(|frame| &frame[..]).collect();
            send(&mut a, &frames, TxOffload::default());
        }
        let mut received = Vec::new();
        for expected in [64, 64, 22, 0] {
            let frames = receive(&mut b);
            assert_eq!(frames.len(), expected);
            received.extend(frames.iter().map(bytes));
        }
        assert_eq!(received, sent.iter().map(|frame| frame.to_vec()).collect::<Vec<_>>());
    }

    /// What comes without a batch.
    fn receive_lone(end: &mut PipeEnd) -> Result<Vec<u8>, &'static str> {
        match end.receive_lone(Instant::ZERO) {
            Arrival::Nothing => Err("nothing"),
            Arrival::Lone(frame) => {
                assert!(frame.head.is_unique() && frame.rest.is_empty());
                Ok(bytes(&frame))
            }
            Arrival::Batch => Err("batch"),
        }
    }

    #[test]
    fn a_frame_is_lone_while_it_is_alone_whole_and_leaves_nothing_to_be_done_for_it() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig::default(), [&arena, &arena]);
        let frame = |bytes: &[u8]| arena.copy_from(bytes).unwrap().freeze();
        assert_eq!(receive_lone(&mut b), Err("nothing"));
        assert!(a.takes_lone());
        a.transmit_lone(Instant::ZERO, frame(b"lone"));
        assert!(!a.takes_lone() && b.takes_lone(), "the wire of one direction is taken");
        assert_eq!(b.next_deadline(), Some(Instant::ZERO));
        assert_eq!(receive_lone(&mut b), Ok(b"lone".to_vec()));
        assert_eq!((receive_lone(&mut b), a.takes_lone(), b.next_deadline()), (Err("nothing"), true, None));

        a.transmit_lone(Instant::ZERO, frame(b"one"));
        send(&mut a, &[&[b"two"], &[b"three"]], TxOffload::default());
        assert_eq!((receive_lone(&mut b), a.takes_lone()), (Err("batch"), false), "others are behind it");
        assert_eq!(receive(&mut b).iter().map(bytes).collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert!(a.takes_lone());

        a.transmit_lone(Instant::ZERO, frame(b"by batch"));
        assert_eq!(receive(&mut b).iter().map(bytes).collect::<Vec<_>>(), [b"by batch"]);

        let mut batch = FrameBatch::new();
        batch.push_frame(frame(b"from a batch"), TxOffload::default());
        a.transmit(Instant::ZERO, &mut batch).unwrap();
        assert_eq!((batch.len(), receive_lone(&mut b)), (0, Ok(b"from a batch".to_vec())));
        let segmentation = Segmentation { segment_bytes: 2, header_bytes: 2, ipv6: false };
        batch.push_frame(frame(b"segments"), TxOffload::new(None, Some(segmentation)));
        a.transmit(Instant::ZERO, &mut batch).unwrap();
        assert_eq!((receive_lone(&mut b), a.takes_lone()), (Err("batch"), false));
        assert_eq!(receive(&mut b)[0].segment_bytes, 2);
        send(&mut a, &[&[b"two", b"pieces"]], TxOffload::default());
        assert_eq!((receive_lone(&mut b), receive(&mut b).len()), (Err("batch"), 1));
        assert_eq!((a.sent_frames, b.received_frames), (8, 8));
        assert_eq!(arena.stats().live_buffers, 0);
    }

    #[test]
    fn a_frame_that_its_sender_keeps_is_the_receivers_own_copy() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig::default(), [&arena, &arena]);
        let kept = arena.copy_from(b"kept").unwrap().freeze();
        a.transmit_kept(Instant::ZERO, kept.clone());
        assert!(kept.is_unique());
        assert_eq!(receive_lone(&mut b), Ok(b"kept".to_vec()));
        let mut batch = FrameBatch::new();
        batch.push_frame(kept.clone(), TxOffload::default());
        a.transmit(Instant::ZERO, &mut batch).unwrap();
        assert!(kept.is_unique());
        assert_eq!(receive_lone(&mut b), Ok(b"kept".to_vec()));
        assert_eq!(&kept[..], b"kept");
    }

    #[test]
    fn a_receiver_whose_batch_is_full_leaves_a_lone_frame_where_it_is() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig::default(), [&arena, &arena]);
        let frame = || arena.copy_from(b"frame").unwrap().freeze();
        let mut batch = RxBatch::new();
        while !batch.is_full() {
            batch.push(frame().into());
        }
        a.transmit_lone(Instant::ZERO, frame());
        let before = batch.len();
        b.receive(Instant::ZERO, &mut batch).unwrap();
        assert_eq!(batch.len(), before);
        assert_eq!(receive_lone(&mut b), Ok(b"frame".to_vec()));
    }

    #[test]
    fn small_frames_are_joined_and_large_ones_are_handed_over_as_they_are() {
        let arena = arena();
        let (mut a, mut b) = pipe(PipeConfig { join_bytes: 100, ..PipeConfig::default() }, [&arena, &arena]);
        let segmentation = Segmentation { segment_bytes: 40, header_bytes: 2, ipv6: false };
        let offload = TxOffload::new(None, Some(segmentation));
        send(&mut a, &[&[b"headers", b" and payload"], &[b"headers", &[7; 100]]], offload);
        let frames = receive(&mut b);
        assert_eq!((bytes(&frames[0]), frames[0].rest.len()), (b"headers and payload".to_vec(), 0));
        assert_eq!((bytes(&frames[1]).len(), frames[1].rest.len()), (107, 1));
        assert!(frames[0].head.is_unique());
        assert_eq!(frames[1].segment_bytes, 40);
    }
}
