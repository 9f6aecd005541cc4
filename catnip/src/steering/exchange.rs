//! Between the cores of one device: a ring from each to each other, and a doorbell for each.

use bytes::Bytes;
use libos::doorbell::{Doorbell, Sleeper};
use libos::ring::{Consumer, Producer, ring};
use libos::runtime::{RxChecksum, TxFrame, TxOffload};
use libos::{Arena, Buffer, BufferList, FrameBatch, RxFrame, SetupError};

/// Why a frame is handed to another core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// It is of a flow of that core.
    Home,
    /// Every core gets it.
    Copy,
    /// The cores in the set, a bit for each, know nothing of it.
    Doubt(u64),
    /// No core knows anything of it: the flow's own core has the last word.
    Unclaimed,
}

/// A received frame on its way to another core. The memory is the sending core's until it was copied there.
#[derive(Debug)]
pub(super) struct Crossing {
    pub(super) reason: Reason,
    head: Bytes,
    rest: Vec<Bytes>,
    checksum: RxChecksum,
    segment_bytes: u16,
}

impl Crossing {
    /// Lends the frame's memory.
    pub(super) fn lend(frame: RxFrame, reason: Reason) -> Self {
        let RxFrame { head, rest, checksum, segment_bytes } = frame;
        let rest = rest.into_iter().map(Bytes::from).collect();
        Self { reason, head: head.into(), rest, checksum, segment_bytes }
    }

    /// Copies the frame into memory of `arena`, in one piece. `None` when there is no room.
    pub(super) fn land(&self, arena: &Arena) -> Option<RxFrame> {
        let len = self.rest.iter().fold(self.head.len(), |len, piece| len.saturating_add(piece.len()));
        let mut copy = arena.allocate(len)?;
        copy.extend_from_slice(&self.head);
        for piece in &self.rest {
            copy.extend_from_slice(piece);
        }
        Some(RxFrame {
            head: copy.freeze(),
            rest: BufferList::new(),
            checksum: self.checksum,
            segment_bytes: self.segment_bytes,
        })
    }
}

/// A frame that a core without a device queue of its own sends through another one.
#[derive(Debug)]
pub(super) struct Departure {
    segments: Vec<Bytes>,
    offload: TxOffload,
}

impl Departure {
    /// Lends the frame's memory.
    pub(super) fn lend(frame: &TxFrame<'_>) -> Self {
        Self { segments: frame.segments.iter().cloned().map(Bytes::from).collect(), offload: frame.offload }
    }

    /// Puts the frame behind those that wait for the device. It is sent from where it is, or, by a device that takes its own
    /// memory alone, copied there.
    pub(super) fn queue(self, batch: &mut FrameBatch) {
        self.segments.into_iter().for_each(|segment| batch.push(Buffer::from(segment)));
        batch.finish(self.offload);
    }
}

/// What lies in a ring.
#[derive(Debug)]
pub(super) enum Parcel {
    Received(Crossing),
    ToSend(Departure),
}

/// The way to another core.
#[derive(Debug)]
struct Way {
    out: Producer<Parcel>,
    bell: Doorbell,
}

/// One core's place in the exchange. Made for all cores at once, and sent to the thread of its core.
#[derive(Debug)]
pub struct ExchangeSeat {
    /// By core; none to oneself.
    ways: Vec<Option<Way>>,
    inboxes: Vec<Option<Consumer<Parcel>>>,
    sleeper: Sleeper,
    /// The inbox that is looked at first: each in turn.
    next: usize,
}

/// The places of so many cores, with rings of at most `ring_frames` frames from each to each other.
///
/// # Errors
/// [`SetupError::Device`] when the system has no event descriptor left.
pub fn exchange(cores: usize, ring_frames: usize) -> Result<Vec<ExchangeSeat>, SetupError> {
    let sleepers = (0..cores).map(|_| Sleeper::new()).collect::<Result<Vec<_>, _>>()?;
    let bells: Vec<Doorbell> = sleepers.iter().map(Sleeper::doorbell).collect();
    let mut seats: Vec<ExchangeSeat> = sleepers
        .into_iter()
        .map(|sleeper| ExchangeSeat { ways: Vec::new(), inboxes: Vec::new(), sleeper, next: 0 })
        .collect();
    for from in 0..cores {
        for (to, bell) in bells.iter().enumerate() {
            let (way, inbox) = if from == to {
                (None, None)
            } else {
                let (out, inbox) = ring(ring_frames);
                (Some(Way { out, bell: bell.clone() }), Some(inbox))
            };
            seats[from].ways.push(way);
            seats[to].inboxes.push(inbox);
        }
    }
    Ok(seats)
}

impl ExchangeSeat {
    /// Hands a parcel to another core; gives it back when that one's ring is full, or it is gone.
    pub(super) fn send(&mut self, core: usize, parcel: Parcel) -> Result<(), Parcel> {
        match self.ways.get_mut(core) {
            Some(Some(way)) if !way.out.is_abandoned() => {
                way.out.push(parcel)?;
                way.bell.ring();
                Ok(())
            }
            Some(Some(_) | None) | None => Err(parcel),
        }
    }

    /// True when a parcel for the core would be given back.
    pub(super) fn is_full(&self, core: usize) -> bool {
        match self.ways.get(core) {
            Some(Some(way)) => way.out.is_full() || way.out.is_abandoned(),
            Some(None) | None => true,
        }
    }

    /// True when the core has gone and takes nothing any more.
    pub(super) fn is_gone(&self, core: usize) -> bool {
        matches!(self.ways.get(core), Some(Some(way)) if way.out.is_abandoned())
    }

    /// Takes the oldest parcel of the next core that has one for us.
    pub(super) fn receive(&mut self) -> Option<Parcel> {
        let cores = self.inboxes.len();
        for index in (self.next..cores).chain(0..self.next) {
            if let Some(Some(inbox)) = self.inboxes.get_mut(index)
                && let Some(parcel) = inbox.pop()
            {
                self.next = (index + 1) % cores;
                return Some(parcel);
            }
        }
        None
    }

    /// True when no core has anything for us.
    pub(super) fn is_empty(&self) -> bool {
        self.inboxes.iter().flatten().all(Consumer::is_empty)
    }

    /// What wakes this core.
    pub(super) const fn sleeper(&self) -> &Sleeper {
        &self.sleeper
    }
}
