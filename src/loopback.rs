//! A device that leads nowhere, for a stack whose sockets only reach each other.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use libos::metrics::MetricsSink;
use libos::runtime::{Medium, RxBatch, TxChecksum};
use libos::{Capabilities, Error, FrameBatch, Instant, Runtime};

/// The largest packet that IP can express: what is sent to oneself is never cut smaller.
const MTU: usize = 65_535;

/// What is sent is lost, and nothing ever arrives. A stack's packets to its own addresses do not come here.
pub struct Loopback {
    /// Never readable: so that a library OS with nothing to do can sleep until its next deadline.
    quiet: UnixStream,
    /// Keeps `quiet` from being at its end.
    _other_end: UnixStream,
    lost_frames: u64,
}

impl Loopback {
    pub fn new() -> io::Result<Self> {
        let (quiet, other_end) = UnixStream::pair()?;
        Ok(Self { quiet, _other_end: other_end, lost_frames: 0 })
    }
}

impl Runtime for Loopback {
    fn name(&self) -> &str {
        "loopback"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            medium: Medium::Ip,
            hardware_address: [0; 6],
            mtu: MTU,
            tx_checksum: TxChecksum::Unneeded,
            tcp_segmentation_bytes: 0,
            max_segments: 16,
        }
    }

    fn receive(&mut self, _now: Instant, _batch: &mut RxBatch) -> Result<(), Error> {
        Ok(())
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.lost_frames += batch.len() as u64;
        batch.clear();
        Ok(())
    }

    fn wake_fd(&self) -> Option<RawFd> {
        Some(self.quiet.as_raw_fd())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        sink.counter("lost_frames", self.lost_frames);
    }
}
