//! A port of a fabric: how its device is configured, and the device itself.

use libos::memory::Arena;
use libos::metrics::MetricsSink;
use libos::runtime::{Medium, RxBatch, TxChecksum};
use libos::{Capabilities, Error, FrameBatch, Instant, Runtime};

use crate::Fabric;

/// Names a port of a fabric: the number of ports that were added before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(usize);

impl PortId {
    /// The port that was added after `index` others.
    #[must_use]
    pub const fn from_index(index: usize) -> Self {
        Self(index)
    }

    /// How many ports were added before.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0
    }
}

/// The sending half of a port's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transmitting {
    /// Who computes transport checksums.
    pub checksum: TxChecksum,
    /// Largest TCP payload that the device takes in one frame, in bytes; 0 for no segmentation.
    pub tcp_segmentation_bytes: usize,
    /// True when the device cuts such a frame into segments; false when it goes over the fabric in
    /// one piece and is received as one, as between two virtual machines.
    pub cuts_segments: bool,
    /// Bits a second of the device itself, `None` for no limit. While a frame waits for the device,
    /// its sender's memory is in use, and a full ring leaves frames with the sender.
    pub line_bits_per_s: Option<u64>,
    /// Most frames that wait for the device.
    pub ring_frames: usize,
}

impl Default for Transmitting {
    /// No offloads, no limit to the rate.
    fn default() -> Self {
        Self {
            checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            cuts_segments: true,
            line_bits_per_s: None,
            ring_frames: 256,
        }
    }
}

/// The receiving half of a port's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receiving {
    /// True when the device checks transport checksums and says so.
    pub verifies_checksums: bool,
    /// Bytes of a frame that go into its first buffer. What is beyond goes into further ones of 4 KiB,
    /// so this has to be enough for all headers.
    pub head_bytes: usize,
    /// Most frames that wait to be taken; what comes then is lost.
    pub ring_frames: usize,
}

impl Default for Receiving {
    /// Nothing checked, each frame in one buffer, room for 1024.
    fn default() -> Self {
        Self { verifies_checksums: false, head_bytes: usize::MAX, ring_frames: 1024 }
    }
}

/// How a port is made.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// The device's name.
    pub name: String,
    /// Its Ethernet address; the fabric delivers by it.
    pub hardware_address: [u8; 6],
    /// Largest IP packet, in bytes.
    pub mtu: usize,
    /// Most segments of memory in one frame, headers included.
    pub max_segments: usize,
    /// Where received frames are put.
    pub arena: Arena,
    /// The sending half.
    pub transmitting: Transmitting,
    /// The receiving half.
    pub receiving: Receiving,
}

impl PortConfig {
    /// A plain port: MTU 1500, no offloads.
    #[must_use]
    pub fn new(name: &str, hardware_address: [u8; 6], arena: Arena) -> Self {
        Self {
            name: name.to_owned(),
            hardware_address,
            mtu: 1500,
            max_segments: 16,
            arena,
            transmitting: Transmitting::default(),
            receiving: Receiving::default(),
        }
    }

    pub(crate) fn capabilities(&self, medium: Medium) -> Capabilities {
        Capabilities {
            medium,
            hardware_address: match medium {
                Medium::Ethernet => self.hardware_address,
                Medium::Ip => [0; 6],
            },
            mtu: self.mtu,
            tx_checksum: self.transmitting.checksum,
            tcp_segmentation_bytes: self.transmitting.tcp_segmentation_bytes,
            max_segments: self.max_segments.max(2),
        }
    }
}

libos::counters! {
    /// What a port has counted.
    pub struct PortCounters {
        /// Frames put on the wire.
        sent_frames,
        /// Bytes put on the wire.
        sent_bytes,
        /// Frames put on the receive ring.
        received_frames,
        /// Bytes put on the receive ring.
        received_bytes,
        /// Frames lost on the way here, for whatever reason.
        lost_frames,
        /// Frames not sent because the device could not do what was asked for.
        refused_frames,
    }
}

/// One port of a [`Fabric`] as a device.
#[derive(Debug)]
pub struct SimRuntime {
    fabric: Fabric,
    port: PortId,
    name: String,
    capabilities: Capabilities,
}

impl SimRuntime {
    pub(crate) fn new(fabric: Fabric, port: PortId, name: String, capabilities: Capabilities) -> Self {
        Self { fabric, port, name, capabilities }
    }

    /// The port's name within its fabric.
    #[must_use]
    pub fn port(&self) -> PortId {
        self.port
    }
}

impl Runtime for SimRuntime {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// The fabric goes by its own clock: `now` may come from a coarse one.
    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        self.fabric.receive(self.port, batch);
        Ok(())
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.fabric.transmit(self.port, batch);
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.fabric.next_deadline_of(self.port)
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.fabric.counters(self.port).write(sink);
    }
}
