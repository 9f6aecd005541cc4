//! Who watches the wire, and what there is to see.

use libos::Instant;
use libos::runtime::{Medium, RxChecksum};

use crate::PortId;

/// Why a frame did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Loss {
    /// It was sent while the path was cut.
    Partition,
    /// The seeded loss took it.
    Random,
    /// The path's queue was full.
    QueueFull,
    /// The path's script dropped it.
    Script,
    /// It was damaged where only the link's own check sequence protects it.
    FrameCheck,
    /// The receiving device's ring was full.
    RingFull,
    /// The receiving device's arena had no buffer.
    NoBuffer,
    /// The sender asked for an offload that the frame's bytes do not allow.
    BadOffload,
    /// The frame was larger than the sending port's MTU allows.
    TooLong,
}

/// Where on its way a frame is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Leaving the port; once a frame, after the device's offloads.
    Sent(PortId),
    /// Put on the port's receive ring, for the device's owner to take. Once for each port and copy.
    Delivered(PortId),
    /// Lost on the way to the port, or in it.
    Lost(PortId, Loss),
}

/// A frame, seen.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// When.
    pub time: Instant,
    /// Where on its way.
    pub stage: Stage,
    /// What the frame begins with.
    pub medium: Medium,
    /// The frame as it is at this stage, damage included.
    pub bytes: &'a [u8],
    /// `Verified` when the sending device left its transport checksum open or incomplete because
    /// the path needs none.
    pub checksum: RxChecksum,
}

/// Sees every frame of a fabric at every stage of its way.
///
/// An observer is called from inside the fabric and must not call back into it.
pub trait Observer {
    /// A frame was seen.
    fn frame(&mut self, sighting: &Sighting<'_>);
}

impl<F: FnMut(&Sighting<'_>)> Observer for F {
    fn frame(&mut self, sighting: &Sighting<'_>) {
        self(sighting);
    }
}
