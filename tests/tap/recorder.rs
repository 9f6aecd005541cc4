//! A device that writes down everything that goes through it.

use std::fs::File;
use std::io::BufWriter;
use std::os::fd::RawFd;
use std::path::Path;

use catnip_os::libos::metrics::MetricsSink;
use catnip_os::libos::runtime::{Capabilities, FrameBatch, MemoryAccess, Runtime, RxBatch};
use catnip_os::libos::{Error, Instant};
use runtime_sim::PcapWriter;

/// A device whose frames, both ways, are written to a capture: the stack's own as they leave it.
pub struct Recorder<R> {
    inner: R,
    capture: PcapWriter<BufWriter<File>>,
}

impl<R: Runtime> Recorder<R> {
    pub fn new(inner: R, path: &Path) -> Self {
        let medium = inner.capabilities().medium;
        let capture = PcapWriter::new(medium, BufWriter::new(File::create(path).unwrap())).unwrap();
        Self { inner, capture }
    }
}

impl<R: Runtime> Runtime for Recorder<R> {
    fn name(&self) -> &str {
        "recorder"
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn memory_access(&self) -> MemoryAccess {
        self.inner.memory_access()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        let before = batch.len();
        let outcome = self.inner.receive(now, batch);
        for frame in &batch[before..] {
            let parts = std::iter::once(&frame.head).chain(&frame.rest);
            let bytes: Vec<u8> = parts.flat_map(|part| part.to_vec()).collect();
            self.capture.write(now, &bytes).unwrap();
        }
        outcome
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        let frames: Vec<Vec<u8>> = (0..batch.len())
            .filter_map(|at| batch.get(at))
            .map(|frame| frame.segments.iter().flat_map(|segment| segment.to_vec()).collect())
            .collect();
        let outcome = self.inner.transmit(now, batch);
        // What the device did not take comes again.
        for frame in &frames[..frames.len() - batch.len()] {
            self.capture.write(now, frame).unwrap();
        }
        outcome
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
