//! Virtqueues (virtio 1.2, section 2.6 to 2.8): rings of descriptors in shared memory, each of which passes buffers
//! from a driver to a device and back.
//!
//! A ring is split or packed, and has two ends: [`DriverRing`] owns the buffers and offers them, [`DeviceRing`]
//! takes, uses and returns them. Neither end believes the other: every index, count and flag is read once
//! into private memory and checked there, and what no correct peer writes is a [`RingError`].

mod layout;
mod packed_device;
mod packed_driver;
mod slots;
mod split_device;
mod split_driver;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::fmt;
use std::sync::atomic::{Ordering, fence};

pub use layout::RingKind;
pub(crate) use layout::RingMemory;
use packed_device::PackedDevice;
use packed_driver::PackedDriver;
use split_device::SplitDevice;
use split_driver::SplitDriver;

/// Fewest descriptors of a ring.
pub const MIN_RING_SIZE: u16 = 16;
/// Most descriptors of a ring.
pub const MAX_RING_SIZE: u16 = 4096;

/// Memory that a descriptor stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// As the driver knows it.
    pub address: u64,
    pub len: u32,
}

/// Who writes to the memory of a chain of descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    DeviceReads,
    DeviceWrites,
}

/// The peer wrote something into the ring that no correct peer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RingError {
    /// More entries than the ring has.
    TooManyEntries,
    /// A descriptor that does not exist, or is not the peer's to return.
    NoSuchDescriptor,
    /// A chain longer than the ring, or one that never ends.
    EndlessChain,
    /// Something that was not negotiated.
    NotNegotiated,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyEntries => "more entries than the ring has",
            Self::NoSuchDescriptor => "a descriptor that does not exist",
            Self::EndlessChain => "a chain of descriptors without an end",
            Self::NotNegotiated => "a descriptor of a kind that was not negotiated",
        })
    }
}

/// What is known of a ring besides its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RingOptions {
    pub kind: RingKind,
    /// Descriptors: a power of two.
    pub size: u16,
    /// Notifications are suppressed by index (`VIRTIO_F_EVENT_IDX`).
    pub event_index: bool,
}

/// A buffer that the device is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Used {
    /// The first slot of the chain.
    pub head: u16,
    /// Bytes that the device wrote.
    pub len: u32,
}

/// True when an event at index `event` is among those that moved an index from `old` to `new`
/// (virtio 1.2, section 2.7.10.1).
#[inline]
pub(crate) fn passes(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Between what this end wrote for the other to see and its look at whether the other wants to be notified, and the
/// other way round: without it each could miss the other's store, and both would sleep.
#[inline]
fn order_store_before_load() {
    fence(Ordering::SeqCst);
}

/// The end that owns the buffers.
#[derive(Debug)]
pub(crate) enum DriverRing {
    Split(SplitDriver),
    Packed(PackedDriver),
}

macro_rules! either {
    ($this:expr, $ring:ident => $call:expr) => {
        match $this {
            Self::Split($ring) => $call,
            Self::Packed($ring) => $call,
        }
    };
}

impl DriverRing {
    /// A ring in zeroed memory.
    pub fn new(memory: RingMemory, options: &RingOptions) -> Self {
        match options.kind {
            RingKind::Split => Self::Split(SplitDriver::new(memory, options)),
            RingKind::Packed => Self::Packed(PackedDriver::new(memory, options)),
        }
    }

    /// Descriptors that can be offered now.
    #[inline]
    pub fn free(&self) -> usize {
        usize::from(either!(self, ring => ring.slots.free()))
    }

    /// Descriptors that the device has.
    #[inline]
    pub fn offered(&self) -> usize {
        usize::from(either!(self, ring => ring.slots.taken()))
    }

    /// Offers a chain of `count` descriptors, at least one and not more than are free; `piece` says for each slot which
    /// memory it stands for. The device sees it after [`Self::publish`] at the latest.
    #[inline]
    pub fn offer(&mut self, count: u16, access: Access, piece: impl FnMut(u16) -> Piece) {
        either!(self, ring => ring.offer(count, access, piece));
    }

    /// Shows the device what was offered.
    #[inline]
    pub fn publish(&mut self) {
        match self {
            Self::Split(ring) => ring.publish(),
            Self::Packed(_) => {}
        }
    }

    /// True when the device wants to be told of what was published since the last time this was asked.
    #[inline]
    pub fn wants_kick(&mut self) -> bool {
        order_store_before_load();
        either!(self, ring => ring.wants_kick())
    }

    /// The next buffer that the device is done with. Its slots stay taken until [`Self::release`].
    #[inline]
    pub fn next_used(&mut self) -> Result<Option<Used>, RingError> {
        either!(self, ring => ring.next_used())
    }

    /// Takes the slots of a used chain back, each of which is shown to `slot`.
    #[inline]
    pub fn release(&mut self, head: u16, slot: impl FnMut(u16)) {
        either!(self, ring => ring.slots.release(head, slot));
    }

    /// Asks the device for a notification when it is done with something, or for none.
    /// After asking, true means that something is there already.
    pub fn set_calls(&mut self, wanted: bool) -> bool {
        either!(self, ring => ring.set_calls(wanted));
        order_store_before_load();
        wanted && either!(self, ring => ring.has_used())
    }
}

/// A chain that a device took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain {
    /// By which the driver knows it.
    pub id: u16,
    /// Its descriptors.
    pub count: u16,
}

/// Where a device is in a ring: what it takes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub index: u16,
    /// Of a packed ring: which pass this is.
    pub wrap: bool,
}

impl Position {
    /// As vhost-user writes it into `SET_VRING_BASE` and `GET_VRING_BASE`.
    pub fn to_base(self, kind: RingKind) -> u32 {
        match kind {
            RingKind::Split => u32::from(self.index),
            // What is available and what is used: no chain is in between when a ring is stopped.
            RingKind::Packed => {
                let one = u32::from(self.index & 0x7fff) | u32::from(self.wrap) << 15;
                one | one << 16
            }
        }
    }

    pub fn from_base(base: u32, kind: RingKind, size: u16) -> Self {
        match kind {
            RingKind::Split => Self { index: base as u16, wrap: false },
            RingKind::Packed => {
                Self { index: base as u16 & 0x7fff & size.wrapping_sub(1), wrap: base & 0x8000 != 0 }
            }
        }
    }
}

/// The end that uses the buffers.
#[derive(Debug)]
pub(crate) enum DeviceRing {
    Split(SplitDevice),
    Packed(PackedDevice),
}

impl DeviceRing {
    pub fn new(memory: RingMemory, options: &RingOptions, start: Position) -> Self {
        match options.kind {
            RingKind::Split => Self::Split(SplitDevice::new(memory, options, start)),
            RingKind::Packed => Self::Packed(PackedDevice::new(memory, options, start)),
        }
    }

    /// Takes the next chain and appends its memory, in order, to `pieces`: what the device reads, or what it writes,
    /// whichever `access` says.
    #[inline]
    pub fn next(&mut self, access: Access, pieces: &mut Vec<Piece>) -> Result<Option<Chain>, RingError> {
        either!(self, ring => ring.next(access, pieces))
    }

    /// Descriptors of the ring.
    #[inline]
    pub fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    pub fn position(&self) -> Position {
        either!(self, ring => ring.position())
    }

    /// Takes nothing of what was taken since this was the position, and not yet returned.
    pub fn rewind(&mut self, position: Position) {
        either!(self, ring => ring.rewind(position));
    }

    /// Returns a chain, into which `len` bytes were written. The driver sees it after [`Self::publish`].
    #[inline]
    pub fn give_back(&mut self, chain: Chain, len: u32) {
        either!(self, ring => ring.give_back(chain, len));
    }

    /// Shows the driver all that was returned, at one moment.
    #[inline]
    pub fn publish(&mut self) {
        either!(self, ring => ring.publish());
    }

    /// True when the driver wants to be told of what was published since the last time this was asked.
    #[inline]
    pub fn wants_call(&mut self) -> bool {
        order_store_before_load();
        either!(self, ring => ring.wants_call())
    }

    /// Asks the driver for a notification when it offers something, or for none. After asking,
    /// true means that something is there already.
    pub fn set_kicks(&mut self, wanted: bool) -> bool {
        either!(self, ring => ring.set_kicks(wanted));
        order_store_before_load();
        wanted && either!(self, ring => ring.has_next())
    }
}

/// What keeps a ring's memory where it is.
pub(crate) type Keeper = Box<dyn Any>;
