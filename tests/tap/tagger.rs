//! A switch's port between the library OS, which is in a VLAN, and the kernel, which is not: takes the tags off what
//! comes from the one and puts them onto what comes from the other.

use std::os::fd::RawFd;

use catnip_os::libos::metrics::MetricsSink;
use catnip_os::libos::runtime::{Capabilities, FrameBatch, Runtime, RxBatch, RxFrame};
use catnip_os::libos::{Arena, Error, Instant};

/// Bytes of both addresses, behind which the tag is.
const ADDRESSES_BYTES: usize = 12;
const TAG_BYTES: usize = 4;
const TAG_PROTOCOL: [u8; 2] = [0x81, 0x00];

/// A device whose frames are tagged.
pub struct Tagger<R> {
    inner: R,
    arena: Arena,
    tag: [u8; TAG_BYTES],
    arrived: RxBatch,
    leaving: FrameBatch,
}

impl<R: Runtime> Tagger<R> {
    pub fn new(inner: R, arena: Arena, vlan: u16) -> Self {
        let [high, low] = vlan.to_be_bytes();
        let tag = [TAG_PROTOCOL[0], TAG_PROTOCOL[1], high, low];
        Self { inner, arena, tag, arrived: RxBatch::new(), leaving: FrameBatch::new() }
    }
}

impl<R: Runtime> Runtime for Tagger<R> {
    fn name(&self) -> &str {
        "tagger"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let mut arrived = std::mem::take(&mut self.arrived);
        let outcome = self.inner.receive(now, &mut arrived);
        for frame in arrived.drain(..) {
            let parts = std::iter::once(&frame.head).chain(&frame.rest);
            let mut bytes: Vec<u8> = parts.flat_map(|part| part.to_vec()).collect();
            bytes.splice(ADDRESSES_BYTES..ADDRESSES_BYTES, self.tag);
            if let Some(buffer) = self.arena.copy_from(&bytes).filter(|_| !batch.is_full()) {
                batch.push(RxFrame::from(buffer.freeze()));
            }
        }
        self.arrived = arrived;
        outcome
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        while let Some(frame) = batch.front() {
            let mut bytes: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
            batch.pop_front();
            let tag: Vec<u8> = bytes.drain(ADDRESSES_BYTES..ADDRESSES_BYTES + TAG_BYTES).collect();
            assert_eq!(tag, self.tag, "the tag of a frame that the stack sent");
            if let Some(buffer) = self.arena.copy_from(&bytes) {
                self.leaving.push(buffer.freeze());
                self.leaving.finish(Default::default());
            }
        }
        self.inner.transmit(now, &mut self.leaving)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        self.inner.wake_fd()
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.inner.metrics(sink);
    }
}
