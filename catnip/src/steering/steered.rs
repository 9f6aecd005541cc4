//! A device queue with steering: the runtime of one of several cores that share a device.

use std::collections::VecDeque;
use std::os::fd::RawFd;

use libos::metrics::MetricsSink;
use libos::runtime::{BURST, Doubt, MemoryAccess, RxBatch};
use libos::{Arena, Capabilities, Error, FrameBatch, Instant, Runtime, RxFrame};

use super::counters::SteeringCounters;
use super::exchange::{Crossing, Departure, ExchangeSeat, Parcel, Reason};
use super::flow::{Class, Flow, classify};
use super::plain::plain_flow;
use super::share::{CoreShare, PortUse, Transport, bits};

/// Most frames from other cores in one poll: a core that is flooded by others still receives its own.
const MAX_CROSSINGS: usize = BURST / 2;

/// Most frames of other cores that wait for the device. Further ones are dropped.
const MAX_DEPARTURES: usize = 1024;

/// How a core gets at the device.
#[derive(Debug)]
pub enum Link<R> {
    /// Through a queue of its own.
    Queue(R),
    /// Through the queue of another core.
    Through {
        /// That core.
        core: usize,
        /// The device's name.
        name: String,
        /// What the device can do.
        capabilities: Capabilities,
    },
}

/// A [`Runtime`] for one of several cores that share a device.
///
/// It hands up the frames of this core's flows, whichever core received them, and hands those of other cores' flows over.
/// What is at the right core already costs a look at its headers and a hash.
#[derive(Debug)]
pub struct Steered<R> {
    link: Link<R>,
    capabilities: Capabilities,
    share: CoreShare,
    seat: ExchangeSeat,
    arena: Arena,
    /// Frames that the stack has to be asked about.
    doubts: VecDeque<Doubt>,
    /// Other cores' frames that wait for the device.
    departures: FrameBatch,
    counters: SteeringCounters,
}

/// What to do with a frame that the device or another core brought.
enum Verdict {
    Ours,
    Elsewhere(usize),
    AskTheStack,
    /// For the cores of the set, a bit for each, and for this one too if true.
    Copies(u64, bool),
}

impl<R: Runtime> Steered<R> {
    /// The runtime of the core that `share` and `seat` belong to. Frames from other cores are copied into memory of
    /// `arena`.
    #[must_use]
    pub fn new(link: Link<R>, share: CoreShare, seat: ExchangeSeat, arena: &Arena) -> Self {
        let capabilities = match &link {
            Link::Queue(queue) => queue.capabilities(),
            Link::Through { capabilities, .. } => *capabilities,
        };
        Self {
            link,
            capabilities,
            share,
            seat,
            arena: arena.clone(),
            doubts: VecDeque::new(),
            departures: FrameBatch::new(),
            counters: SteeringCounters::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub const fn counters(&self) -> SteeringCounters {
        self.counters
    }

    #[inline]
    fn verdict(&self, frame: &RxFrame) -> Verdict {
        match plain_flow(self.capabilities.medium, &frame.head) {
            Some(flow) => self.flow_verdict(self.share.hash().ends(flow.ends), flow.transport, flow.port),
            None => self.rare_verdict(classify(self.capabilities.medium, &frame.head)),
        }
    }

    #[inline]
    fn flow_verdict(&self, hash: u32, transport: Transport, port: u16) -> Verdict {
        let home = self.share.core_of_hash(hash);
        if home != self.share.core() {
            return Verdict::Elsewhere(home);
        }
        match self.share.port_use(transport, port) {
            PortUse::Ours => Verdict::Ours,
            PortUse::Doubtful => Verdict::AskTheStack,
        }
    }

    #[inline(never)]
    fn rare_verdict(&self, class: Class) -> Verdict {
        let home = match class {
            Class::Anyone => return Verdict::Ours,
            Class::Flow(Flow { transport, local, remote, .. }) => {
                let hash = self.share.hash().flow(remote.ip(), remote.port(), local.ip(), local.port());
                return self.flow_verdict(hash, transport, local.port());
            }
            Class::Everyone => return Verdict::Copies(self.others(), true),
            Class::Group { port } => {
                let users = self.share.users(Transport::Udp, port);
                let own = 1 << self.share.core();
                return Verdict::Copies(users & !own, users & own != 0 || users == 0);
            }
            Class::Error(Flow { local, remote, .. }) => self.share.core_of_flow(local, remote),
            Class::Part(source, destination) => {
                self.share.core_of_hash(self.share.hash().addresses(source, destination))
            }
        };
        if home == self.share.core() { Verdict::Ours } else { Verdict::Elsewhere(home) }
    }

    /// All cores but this one, a bit for each.
    fn others(&self) -> u64 {
        let all = (1_u64 << self.share.cores()) - 1;
        all & !(1 << self.share.core())
    }

    /// Deals with a frame; true when it stays here and now.
    #[inline]
    fn admit(&mut self, frame: &RxFrame) -> bool {
        match self.verdict(frame) {
            Verdict::Ours => true,
            other => self.redirect(frame, &other),
        }
    }

    #[cold]
    #[inline(never)]
    fn redirect(&mut self, frame: &RxFrame, verdict: &Verdict) -> bool {
        match *verdict {
            Verdict::Ours => true,
            Verdict::Elsewhere(core) => {
                if self.hand(core, frame, Reason::Home) {
                    self.counters.handed_over += 1;
                }
                false
            }
            Verdict::AskTheStack => {
                self.doubts.push_back(Doubt { frame: share(frame), refused: 0 });
                false
            }
            Verdict::Copies(cores, stays) => {
                for core in bits(cores) {
                    if self.hand(core, frame, Reason::Copy) {
                        self.counters.copies_out += 1;
                    }
                }
                stays
            }
        }
    }

    /// Hands a frame to another core; false when it was dropped because that one does not keep up.
    fn hand(&mut self, core: usize, frame: &RxFrame, reason: Reason) -> bool {
        // Lending takes the memory apart for other threads: not for nothing.
        let sent = !self.seat.is_full(core)
            && self.seat.send(core, Parcel::Received(Crossing::lend(share(frame), reason))).is_ok();
        self.counters.dropped_ring_full += u64::from(!sent);
        sent
    }

    /// Takes what other cores have for this one.
    #[cold]
    #[inline(never)]
    fn receive_crossings(&mut self, batch: &mut RxBatch) {
        for _ in 0..MAX_CROSSINGS.min(batch.remaining_capacity()) {
            match self.seat.receive() {
                Some(Parcel::Received(crossing)) => self.land(&crossing, batch),
                Some(Parcel::ToSend(departure)) if self.departures.len() < MAX_DEPARTURES => {
                    self.counters.sent_for += 1;
                    departure.queue(&mut self.departures);
                }
                Some(Parcel::ToSend(_)) => self.counters.dropped_device_full += 1,
                None => break,
            }
        }
    }

    fn land(&mut self, crossing: &Crossing, batch: &mut RxBatch) {
        let Some(frame) = crossing.land(&self.arena) else {
            self.counters.dropped_no_memory += 1;
            return;
        };
        match crossing.reason {
            Reason::Home => {
                self.counters.taken_over += 1;
                // Whose it is was decided; whether another core has the connection all the same was not.
                if let Verdict::AskTheStack = self.verdict(&frame) {
                    self.doubts.push_back(Doubt { frame, refused: 0 });
                    return;
                }
            }
            Reason::Copy => self.counters.copies_in += 1,
            Reason::Doubt(refused) => {
                self.doubts.push_back(Doubt { frame, refused });
                return;
            }
            Reason::Unclaimed => {}
        }
        batch.push(frame);
    }

    /// Sends other cores' frames.
    #[cold]
    fn send_departures(&mut self, now: Instant) -> Result<(), Error> {
        match &mut self.link {
            Link::Queue(queue) => queue.transmit(now, &mut self.departures),
            Link::Through { .. } => {
                self.departures.clear();
                Ok(())
            }
        }
    }
}

/// The same frame once more: the buffers are shared.
fn share(frame: &RxFrame) -> RxFrame {
    RxFrame {
        head: frame.head.clone(),
        rest: frame.rest.clone(),
        checksum: frame.checksum,
        segment_bytes: frame.segment_bytes,
    }
}

impl<R: Runtime> Runtime for Steered<R> {
    fn name(&self) -> &str {
        match &self.link {
            Link::Queue(queue) => queue.name(),
            Link::Through { name, .. } => name,
        }
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn memory_access(&self) -> MemoryAccess {
        match &self.link {
            Link::Queue(queue) => queue.memory_access(),
            Link::Through { .. } => MemoryAccess::Copy,
        }
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        self.seat.sleeper().wake_up();
        if !self.seat.is_empty() {
            self.receive_crossings(batch);
        }
        if !self.departures.is_empty() {
            self.send_departures(now)?;
        }
        let Link::Queue(queue) = &mut self.link else { return Ok(()) };
        let crossed = batch.len();
        queue.receive(now, batch)?;
        let mut index = 0;
        batch.retain(|frame| {
            index += 1;
            index <= crossed || self.admit(frame)
        });
        Ok(())
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        let core = match &mut self.link {
            Link::Queue(queue) => return queue.transmit(now, batch),
            Link::Through { core, .. } => *core,
        };
        if self.seat.is_gone(core) {
            return Err(Error::DeviceFailed);
        }
        while let Some(frame) = batch.front()
            && !self.seat.is_full(core)
            && self.seat.send(core, Parcel::ToSend(Departure::lend(&frame))).is_ok()
        {
            self.counters.sent_through += 1;
            batch.pop_front();
        }
        Ok(())
    }

    fn next_doubt(&mut self) -> Option<Doubt> {
        self.doubts.pop_front()
    }

    fn pass_on(&mut self, doubt: Doubt) -> Option<RxFrame> {
        let Doubt { frame, refused } = doubt;
        let Class::Flow(flow) = classify(self.capabilities.medium, &frame.head) else { return Some(frame) };
        let (transport, port) = (flow.transport, flow.local.port());
        let hash =
            self.share.hash().flow(flow.remote.ip(), flow.remote.port(), flow.local.ip(), flow.local.port());
        let home = self.share.core_of_hash(hash);
        let (core, reason) = match self.share.next_user(transport, port, hash, refused | 1 << home) {
            Some(core) => (core, Reason::Doubt(refused | 1 << self.share.core())),
            None if home == self.share.core() => return Some(frame),
            None => (home, Reason::Unclaimed),
        };
        if self.hand(core, &frame, reason) {
            self.counters.passed_on += 1;
        }
        None
    }

    fn next_deadline(&self) -> Option<Instant> {
        // What waits in a ring is due at once.
        if !self.seat.is_empty() || !self.departures.is_empty() {
            return Some(Instant::ZERO);
        }
        match &self.link {
            Link::Queue(queue) => queue.next_deadline(),
            Link::Through { .. } => None,
        }
    }

    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        fds.push(self.seat.sleeper().prepare_sleep());
        // What came before the announcement rang nobody.
        if !self.seat.is_empty() || !self.departures.is_empty() {
            return false;
        }
        match &self.link {
            Link::Queue(queue) => queue.wake_fds(fds),
            Link::Through { .. } => true,
        }
    }

    fn failure(&self) -> Option<String> {
        match &self.link {
            Link::Queue(queue) => queue.failure(),
            Link::Through { core, name, .. } => self
                .seat
                .is_gone(*core)
                .then(|| format!("{name}: core {core}, which sent for this one, is gone")),
        }
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        if let Link::Queue(queue) = &self.link {
            queue.metrics(sink);
        }
        sink.enter("steering");
        sink.gauge("core", self.share.core() as u64);
        self.counters.write(sink);
        sink.leave();
    }
}

impl<R> Drop for Steered<R> {
    fn drop(&mut self) {
        // Nobody is to ask this core any more.
        self.share.leave_all_ports();
    }
}
