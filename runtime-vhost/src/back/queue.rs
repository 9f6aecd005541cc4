//! A back end's queue pair: it serves the rings that the control thread tells it of.

use std::sync::Arc;

use libos::runtime::RxBatch;
use libos::{Arena, Error, FrameBatch};
use vmm_sys_util::eventfd::EventFd;

use super::bell::Bell;
use super::frames::{self, Copied};
use crate::MAX_FRAME_BYTES;
use crate::counters::VhostCounters;
use crate::header::HEADER_BYTES;
use crate::link::{LinkHandle, lock};
use crate::peer_memory::PeerMemory;
use crate::ring::{Access, Chain, DeviceRing, Piece, RingError};
use crate::system::Watch;

/// A queue pair of a back end.
#[derive(Debug)]
pub(crate) struct Back {
    handle: Arc<LinkHandle>,
    index: usize,
    arena: Arena,
    bell: Bell,
    mergeable: bool,
    /// The front end's to receive with.
    to_front: Option<Served>,
    /// The front end's to send with.
    from_front: Option<Served>,
    /// Memory of the chain at hand.
    pieces: Vec<Piece>,
    /// The chains of the frame at hand, and the room in each.
    chains: Vec<(Chain, u64)>,
}

/// A ring that is served.
#[derive(Debug)]
struct Served {
    ring: DeviceRing,
    memory: Arc<PeerMemory>,
    kick: Option<Arc<EventFd>>,
    call: Option<Arc<EventFd>>,
    /// Some were given back, and the front end does not see it yet.
    unpublished: bool,
}

/// Chains taken at once from which on they are returned at once too: then the front end may be waiting for them.
const PROMPT_CHAINS: usize = 8;

/// What became of a frame that was to be sent.
enum Sent {
    Copied(u64),
    Refused,
    NoRoom,
}

impl Back {
    pub fn new(handle: Arc<LinkHandle>, index: usize, arena: &Arena) -> Self {
        Self {
            handle,
            index,
            arena: arena.clone(),
            bell: Bell::new(),
            mergeable: false,
            to_front: None,
            from_front: None,
            pieces: Vec::new(),
            chains: Vec::new(),
        }
    }

    /// Takes what the control thread has left in the mailbox. Positions in rings that run on are kept, and told.
    pub fn refresh(&mut self) {
        let mut cell = lock(&self.handle.link.pairs[self.index].back);
        self.mergeable = cell.mergeable;
        let cell = &mut *cell;
        cell.in_use = cell.setups.iter().any(Option::is_some);
        let served = [&mut self.to_front, &mut self.from_front];
        for ((served, setup), position) in served.into_iter().zip(&cell.setups).zip(&mut cell.positions) {
            if let Some(served) = served {
                // What was given back is the front end's before the ring is.
                served.ring.publish();
            }
            let current = served.take().map(|served| served.ring.position());
            *position = current;
            *served = setup.as_ref().and_then(|setup| {
                let mut setup = setup.clone();
                setup.start = current.unwrap_or(setup.start);
                let ring = setup.ring()?;
                Some(Served {
                    ring,
                    memory: setup.memory,
                    kick: setup.kick,
                    call: setup.call,
                    unpublished: false,
                })
            });
        }
    }

    /// What wakes this queue: what the front end offers, and the control thread.
    pub fn watch(&self) -> std::io::Result<Watch> {
        let watch = Watch::new()?;
        watch.add(&self.handle.link.pairs[self.index].wake)?;
        if let Some(kick) = self.from_front.as_ref().and_then(|served| served.kick.as_deref()) {
            watch.add(kick)?;
        }
        Ok(watch)
    }

    /// True when nothing would tell us of a frame.
    pub fn has_to_poll(&self) -> bool {
        self.from_front.as_ref().is_some_and(|served| served.kick.is_none())
    }

    /// Asks to be woken by what is received, or not. True when something is there already.
    pub fn set_notified(&mut self, wanted: bool, counters: &mut VhostCounters) -> bool {
        if let Some(served) = &mut self.from_front
            && served.unpublished
        {
            served.publish(&mut self.bell, counters);
        }
        self.from_front.as_mut().is_some_and(|served| served.ring.set_kicks(wanted))
    }

    /// Has done with a front end that wrote garbage: for good, or until the next one comes.
    #[cold]
    fn broken(&mut self, error: RingError) -> Result<(), Error> {
        let reason = format!("the front end wrote {error} into a ring");
        if self.handle.config.reconnect {
            self.to_front = None;
            self.from_front = None;
            self.handle.link.give_up_peer(reason);
            return Ok(());
        }
        self.handle.link.fail(reason, false);
        Err(Error::DeviceFailed)
    }

    #[inline]
    pub fn receive(&mut self, batch: &mut RxBatch, counters: &mut VhostCounters) -> Result<(), Error> {
        let Some(served) = &mut self.from_front else { return Ok(()) };
        if served.unpublished {
            served.publish(&mut self.bell, counters);
        }
        let mut done = 0;
        // Of a split ring, many chains may have the same descriptors: no poll looks at more than the ring has.
        let mut descriptors = 0;
        for _ in 0..batch.remaining_capacity() {
            if descriptors >= usize::from(served.ring.size()) {
                break;
            }
            let before = served.ring.position();
            self.pieces.clear();
            let chain = match served.ring.next(Access::DeviceReads, &mut self.pieces) {
                Ok(Some(chain)) => chain,
                Ok(None) => break,
                Err(error) => return self.broken(error),
            };
            descriptors += usize::from(chain.count);
            match frames::read(&served.memory, &self.pieces, &self.arena) {
                Copied::Frame(frame) => {
                    let bytes = frame.rest.iter().fold(frame.head.len(), |sum, rest| sum + rest.len());
                    counters.rx_frames += 1;
                    counters.rx_bytes += bytes as u64;
                    counters.rx_copied_frames += 1;
                    counters.rx_copied_bytes += bytes as u64;
                    counters.rx_joined_frames += u64::from(frame.segment_bytes != 0);
                    batch.push(frame);
                }
                Copied::Malformed => counters.rx_malformed += 1,
                Copied::NoBuffers => {
                    counters.rx_no_buffers += 1;
                    served.ring.rewind(before);
                    break;
                }
            }
            served.ring.give_back(chain, 0);
            done += 1;
        }
        // The front end reads the same cache line, and waits for the answer rather than for its buffer: a few go
        // back with the next poll, when the answer is on its way.
        served.unpublished = done > 0;
        if done >= PROMPT_CHAINS {
            served.publish(&mut self.bell, counters);
        }
        Ok(())
    }

    #[inline]
    pub fn transmit(&mut self, batch: &mut FrameBatch, counters: &mut VhostCounters) -> Result<(), Error> {
        let Some(served) = &mut self.to_front else { return Ok(()) };
        let mut done = false;
        while let Some(frame) = batch.front() {
            let sent = match served.send(&frame, self.mergeable, &mut self.pieces, &mut self.chains) {
                Ok(sent) => sent,
                Err(error) => return self.broken(error),
            };
            match sent {
                Sent::Copied(bytes) => {
                    counters.tx_frames += 1;
                    counters.tx_bytes += bytes;
                    counters.tx_copied_frames += 1;
                    counters.tx_copied_bytes += bytes;
                    counters.tx_segmented_frames += u64::from(frame.offload.segmentation().is_some());
                }
                Sent::Refused => counters.tx_refused += 1,
                Sent::NoRoom => {
                    counters.tx_would_block += 1;
                    break;
                }
            }
            done = true;
            batch.pop_front();
        }
        if done {
            served.publish(&mut self.bell, counters);
        }
        Ok(())
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.to_front = None;
        self.from_front = None;
        self.handle.link.pairs[self.index].set_gone();
    }
}

impl Served {
    /// Shows the front end what was returned, and tells it if it sleeps.
    #[inline]
    fn publish(&mut self, bell: &mut Bell, counters: &mut VhostCounters) {
        self.unpublished = false;
        self.ring.publish();
        if self.ring.wants_call()
            && let Some(call) = &self.call
        {
            counters.notifications += 1;
            bell.ring(call);
        }
    }

    /// Copies a frame into as many of the front end's buffers as it takes.
    #[inline]
    fn send(
        &mut self,
        frame: &libos::runtime::TxFrame<'_>,
        mergeable: bool,
        pieces: &mut Vec<Piece>,
        chains: &mut Vec<(Chain, u64)>,
    ) -> Result<Sent, RingError> {
        let bytes = frame.len();
        if bytes > MAX_FRAME_BYTES {
            return Ok(Sent::Refused);
        }
        let needed = (HEADER_BYTES + bytes) as u64;
        pieces.clear();
        chains.clear();
        let before = self.ring.position();
        let mut room = 0;
        let mut descriptors = 0;
        while room < needed && (mergeable || chains.is_empty()) && descriptors < self.ring.size() {
            let known = pieces.len();
            let Some(chain) = self.ring.next(Access::DeviceWrites, pieces)? else {
                self.ring.rewind(before);
                return Ok(Sent::NoRoom);
            };
            let bytes = frames::bytes_of(&pieces[known..]);
            descriptors += chain.count;
            room += bytes;
            chains.push((chain, bytes));
        }
        let fits = room >= needed && frames::write(&self.memory, pieces, chains.len() as u16, frame);
        let mut left = if fits { needed } else { 0 };
        for (chain, room) in chains.drain(..) {
            let written = left.min(room);
            left -= written;
            self.ring.give_back(chain, written as u32);
        }
        Ok(if fits { Sent::Copied(bytes as u64) } else { Sent::Refused })
    }
}
