//! A forwarder between the library OS and the kernel: loses, doubles, delays, reorders and damages frames both ways.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::Duration;

use catnip_os::libos::metrics::MetricsSink;
use catnip_os::libos::runtime::{Capabilities, FrameBatch, Runtime, RxBatch, RxFrame};
use catnip_os::libos::{Arena, Buffer, Error, Instant};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of an Ethernet header. What it carries is protected by checksums, it is not.
const ETHERNET_BYTES: usize = 14;
/// ARP has no checksum of its own either.
const ETHER_TYPE_ARP: [u8; 2] = [8, 6];

/// What happens to frames, in each direction, in parts of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub lost: u32,
    pub doubled: u32,
    pub damaged: u32,
    /// Held back by `delay`, so that others overtake.
    pub delayed: u32,
    pub delay: Duration,
}

/// Frames of one direction that are held back.
#[derive(Default)]
struct Held(VecDeque<(Instant, Vec<u8>)>);

impl Held {
    fn due(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.0.pop_front_if(|(due, _)| *due <= now).map(|(_, frame)| frame)
    }
}

/// A device behind the forwarder.
pub struct Forwarder<R> {
    inner: R,
    arena: Arena,
    faults: Faults,
    dice: StdRng,
    to_us: Held,
    from_us: Held,
    arrived: RxBatch,
    leaving: FrameBatch,
}

impl<R: Runtime> Forwarder<R> {
    pub fn new(inner: R, arena: Arena, faults: Faults, seed: u64) -> Self {
        Self {
            inner,
            arena,
            faults,
            dice: StdRng::seed_from_u64(seed),
            to_us: Held::default(),
            from_us: Held::default(),
            arrived: RxBatch::new(),
            leaving: FrameBatch::new(),
        }
    }

    fn happens(&mut self, per_thousand: u32) -> bool {
        self.dice.random_range(0..1000) < per_thousand
    }

    /// What becomes of a frame: the copies that go on at once. Others are held.
    fn pass(&mut self, now: Instant, mut frame: Vec<u8>, outward: bool) -> Vec<Vec<u8>> {
        let faults = self.faults;
        if self.happens(faults.lost) {
            return Vec::new();
        }
        let has_checksum = frame.len() > ETHERNET_BYTES && frame[12..14] != ETHER_TYPE_ARP;
        if has_checksum && self.happens(faults.damaged) {
            let bit = self.dice.random_range(ETHERNET_BYTES * 8..frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        let copies = if self.happens(faults.doubled) { 2 } else { 1 };
        if self.happens(faults.delayed) {
            let held = if outward { &mut self.from_us } else { &mut self.to_us };
            held.0.push_back((now + faults.delay, frame));
            return Vec::new();
        }
        vec![frame; copies]
    }

    fn buffer(&self, frame: &[u8]) -> Option<Buffer> {
        self.arena.copy_from(frame).map(|buffer| buffer.freeze())
    }

    fn take(&mut self, frame: &[u8], batch: &mut RxBatch) {
        // A full burst loses what comes on top, as a ring would.
        if let Some(buffer) = self.buffer(frame).filter(|_| !batch.is_full()) {
            batch.push(RxFrame::from(buffer));
        }
    }

    fn send(&mut self, frame: &[u8]) {
        if let Some(buffer) = self.buffer(frame) {
            self.leaving.push(buffer);
            self.leaving.finish(Default::default());
        }
    }
}

impl<R: Runtime> Runtime for Forwarder<R> {
    fn name(&self) -> &str {
        "forwarder"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        while let Some(frame) = self.to_us.due(now) {
            self.take(&frame, batch);
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        let outcome = self.inner.receive(now, &mut arrived);
        for frame in arrived.drain(..) {
            let parts = std::iter::once(&frame.head).chain(&frame.rest);
            let bytes = parts.flat_map(|part| part.to_vec()).collect();
            for copy in self.pass(now, bytes, false) {
                self.take(&copy, batch);
            }
        }
        self.arrived = arrived;
        outcome
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        while let Some(frame) = self.from_us.due(now) {
            self.send(&frame);
        }
        while let Some(frame) = batch.front() {
            let bytes = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
            batch.pop_front();
            for copy in self.pass(now, bytes, true) {
                self.send(&copy);
            }
        }
        self.inner.transmit(now, &mut self.leaving)
    }

    fn next_deadline(&self) -> Option<Instant> {
        let held = [&self.to_us, &self.from_us].map(|held| held.0.front().map(|(due, _)| *due));
        held.into_iter().flatten().chain(self.inner.next_deadline()).min()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.inner.metrics(sink);
    }
}
