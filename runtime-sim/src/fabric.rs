//! The fabric: ports, the paths to them, and what is on its way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use libos::runtime::{Medium, RxBatch, RxChecksum, RxFrame, TxChecksum, TxOffload};
use libos::time::ManualClock;
use libos::{Arena, Buffer, Clock, FrameBatch, Instant};

use crate::event_queue::EventQueue;
use crate::path::{ETHERNET_HEADER_BYTES, Entering, Path, QueueCounters, serialisation_nanos};
use crate::{
    Loss, Observer, PathConfig, PortConfig, PortCounters, PortId, Sighting, SimRuntime, Stage, Verdict,
    offload,
};

/// Bytes of each buffer behind a received frame's first.
const REST_BUFFER_BYTES: usize = 4096;
/// Spreads the fabric's seed over its paths.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A frame on its way, in memory that belongs to the wire.
#[derive(Clone)]
struct WireFrame {
    bytes: Vec<u8>,
    checksum: RxChecksum,
    segment_bytes: u16,
}

enum Event {
    /// The device has sent the frame at the front of its ring.
    Departed(PortId),
    /// The frame has come to the port.
    Arrived(PortId, WireFrame),
}

struct Port {
    config: PortConfig,
    path: Path,
    transmit_ring: VecDeque<(Vec<Buffer>, TxOffload)>,
    receive_ring: VecDeque<RxFrame>,
    counters: PortCounters,
}

struct Switch {
    medium: Medium,
    seed: u64,
    floods: bool,
    ports: Vec<Port>,
    events: EventQueue<Event>,
    observers: Vec<Box<dyn Observer>>,
}

/// A simulated Ethernet switch, or a bare IP link, on a virtual clock. A handle: clones share it.
///
/// A frame goes from its sender's device (offloads, line rate, a ring that pushes back) over the
/// path to each port it is for (latency, bandwidth, a queue that drops, faults) into the receiving
/// device's ring, where it gets memory of that port's arena. Frames are delivered to the port whose
/// address they carry; broadcasts, multicasts, unknown addresses and everything on a bare IP link go
/// to all other ports.
#[derive(Clone)]
pub struct Fabric {
    clock: ManualClock,
    switch: Rc<RefCell<Switch>>,
}

impl Fabric {
    /// A fabric without ports, on `clock`. Everything drawn by chance comes from `seed`.
    #[must_use]
    pub fn new(clock: ManualClock, medium: Medium, seed: u64) -> Self {
        let switch = Switch {
            medium,
            seed,
            floods: false,
            ports: Vec::new(),
            events: EventQueue::new(),
            observers: Vec::new(),
        };
        Self { clock, switch: Rc::new(RefCell::new(switch)) }
    }

    /// The virtual clock.
    #[must_use]
    pub fn clock(&self) -> &ManualClock {
        &self.clock
    }

    /// Adds a port and returns its device. `path` is the way to it.
    #[must_use]
    pub fn add_port(&self, config: PortConfig, path: PathConfig) -> SimRuntime {
        let mut switch = self.switch.borrow_mut();
        let port = PortId::from_index(switch.ports.len());
        let seed = switch.seed ^ SEED_STEP.wrapping_mul(port.index() as u64 + 1);
        let capabilities = config.capabilities(switch.medium);
        let name = config.name.clone();
        switch.ports.push(Port {
            config,
            path: Path::new(path, seed),
            transmit_ring: VecDeque::new(),
            receive_ring: VecDeque::new(),
            counters: PortCounters::default(),
        });
        SimRuntime::new(self.clone(), port, name, capabilities)
    }

    /// Adds someone who sees every frame from now on.
    pub fn observe(&self, observer: impl Observer + 'static) {
        self.switch.borrow_mut().observers.push(Box::new(observer));
    }

    /// Delivers every frame to all other ports, as a hub does, or again to the addressed ones only.
    pub fn set_floods(&self, floods: bool) {
        self.switch.borrow_mut().floods = floods;
    }

    /// Changes what the path to `port` is like for frames that enter it from now on.
    pub fn set_path(&self, port: PortId, config: PathConfig) {
        if let Some(port) = self.switch.borrow_mut().ports.get_mut(port.index()) {
            port.path.config = config;
        }
    }

    /// Decides frame by frame what becomes of what enters the path to `port`. The script must not
    /// call back into the fabric.
    pub fn set_script(&self, port: PortId, script: impl FnMut(Instant, &[u8]) -> Verdict + 'static) {
        if let Some(port) = self.switch.borrow_mut().ports.get_mut(port.index()) {
            port.path.script = Some(Box::new(script));
        }
    }

    /// Ends all faults and scripts on all paths. Latency, bandwidth and queues stay.
    pub fn heal(&self) {
        for port in &mut self.switch.borrow_mut().ports {
            port.path.heal();
        }
    }

    /// Sends bytes as they are from `port`, past its device.
    pub fn inject(&self, port: PortId, bytes: &[u8]) {
        let frame = WireFrame { bytes: bytes.to_vec(), checksum: RxChecksum::Unknown, segment_bytes: 0 };
        let now = self.clock.now();
        let mut switch = self.switch.borrow_mut();
        switch.run(now);
        if port.index() < switch.ports.len() {
            switch.send(now, port, &frame);
        }
    }

    /// Does everything whose time has come. Receiving and transmitting do so by themselves.
    pub fn run(&self) {
        self.switch.borrow_mut().run(self.clock.now());
    }

    /// When something next happens on the way between two ports.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.switch.borrow().events.next_time()
    }

    /// Frames that wait in the port's device, or are on their way to it.
    #[must_use]
    pub fn frames_under_way(&self, port: PortId) -> usize {
        let switch = self.switch.borrow();
        let Some(Port { transmit_ring, receive_ring, .. }) = switch.ports.get(port.index()) else { return 0 };
        let arriving = switch.events.iter().filter(|event| match event {
            Event::Departed(_) => false,
            Event::Arrived(to, _) => *to == port,
        });
        arriving.count() + transmit_ring.len() + receive_ring.len()
    }

    /// What a port has counted; zeros for one that does not exist.
    #[must_use]
    pub fn counters(&self, port: PortId) -> PortCounters {
        self.switch.borrow().ports.get(port.index()).map(|port| port.counters).unwrap_or_default()
    }

    /// What the queue of the path to a port has counted; zeros for a port that does not exist.
    #[must_use]
    pub fn queue_counters(&self, port: PortId) -> QueueCounters {
        let switch = self.switch.borrow();
        switch.ports.get(port.index()).map(|port| port.path.queue_counters).unwrap_or_default()
    }

    pub(crate) fn receive(&self, port: PortId, batch: &mut RxBatch) {
        let mut switch = self.switch.borrow_mut();
        switch.run(self.clock.now());
        if let Some(port) = switch.ports.get_mut(port.index()) {
            let count = port.receive_ring.len().min(batch.remaining_capacity());
            batch.extend(port.receive_ring.drain(..count));
        }
    }

    pub(crate) fn transmit(&self, port: PortId, batch: &mut FrameBatch) {
        let now = self.clock.now();
        let mut switch = self.switch.borrow_mut();
        switch.run(now);
        while let Some(frame) = batch.front() {
            if !switch.take(now, port, frame.segments, frame.offload) {
                break;
            }
            batch.pop_front();
        }
    }

    pub(crate) fn next_deadline_of(&self, port: PortId) -> Option<Instant> {
        let switch = self.switch.borrow();
        match switch.ports.get(port.index()) {
            Some(port) if !port.receive_ring.is_empty() => Some(self.clock.now()),
            _ => switch.events.next_time(),
        }
    }
}

impl fmt::Debug for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fabric").field("now", &self.clock.now()).finish_non_exhaustive()
    }
}

impl Switch {
    fn run(&mut self, now: Instant) {
        while let Some((time, event)) = self.events.take_due(now) {
            match event {
                Event::Departed(port) => self.depart(time, port),
                Event::Arrived(port, frame) => self.deliver(time, port, &frame),
            }
        }
    }

    /// Takes a frame from its sender; false when the device's ring is full.
    fn take(&mut self, now: Instant, from: PortId, segments: &[Buffer], offload: TxOffload) -> bool {
        let Some(port) = self.ports.get_mut(from.index()) else { return true };
        if port.config.transmitting.line_bits_per_s.is_none() {
            self.put_on_wire(now, from, segments, offload);
            return true;
        }
        if port.transmit_ring.len() >= port.config.transmitting.ring_frames.max(1) {
            return false;
        }
        port.transmit_ring.push_back((segments.to_vec(), offload));
        if port.transmit_ring.len() == 1 {
            self.start_sending(now, from);
        }
        true
    }

    fn start_sending(&mut self, now: Instant, from: PortId) {
        let Some(port) = self.ports.get(from.index()) else { return };
        let Some((segments, _)) = port.transmit_ring.front() else { return };
        let bytes = segments.iter().map(|segment| segment.len()).sum();
        let rate = port.config.transmitting.line_bits_per_s;
        let nanos = rate.map_or(0, |bits_per_s| serialisation_nanos(bytes, bits_per_s));
        self.events.schedule(now.plus_nanos(nanos), Event::Departed(from));
    }

    fn depart(&mut self, now: Instant, from: PortId) {
        let front = self.ports.get_mut(from.index()).and_then(|port| port.transmit_ring.pop_front());
        if let Some((segments, offload)) = front {
            self.put_on_wire(now, from, &segments, offload);
            self.start_sending(now, from);
        }
    }

    /// The device reads the frame from its sender's memory and does its offloads.
    fn put_on_wire(&mut self, now: Instant, from: PortId, segments: &[Buffer], mut offload: TxOffload) {
        let Some(port) = self.ports.get_mut(from.index()) else { return };
        let transmitting = port.config.transmitting;
        let mut checksum = match transmitting.checksum {
            TxChecksum::Unneeded => RxChecksum::Verified,
            TxChecksum::Software | TxChecksum::Partial => RxChecksum::Unknown,
        };
        let mut segment_bytes = 0;
        if !transmitting.cuts_segments
            && let Some(segmentation) = offload.segmentation()
        {
            segment_bytes = segmentation.segment_bytes;
            checksum = RxChecksum::Verified;
            offload = TxOffload::default();
        }
        let mut bytes: Vec<u8> = segments.iter().flat_map(|segment| segment.iter().copied()).collect();
        let mut frames = Vec::with_capacity(1);
        let done =
            offload::apply(&mut bytes, self.medium, offload, |frame| frames.push(std::mem::take(frame)));
        if done.is_none() {
            port.counters.refused_frames += 1;
            self.show(now, Stage::Lost(from, Loss::BadOffload), &bytes, checksum);
            return;
        }
        let link_bytes = match self.medium {
            Medium::Ethernet => ETHERNET_HEADER_BYTES,
            Medium::Ip => 0,
        };
        let most_bytes = port.config.mtu + link_bytes;
        for bytes in frames {
            if segment_bytes == 0 && bytes.len() > most_bytes {
                self.ports[from.index()].counters.refused_frames += 1;
                self.show(now, Stage::Lost(from, Loss::TooLong), &bytes, checksum);
            } else {
                self.send(now, from, &WireFrame { bytes, checksum, segment_bytes });
            }
        }
    }

    fn send(&mut self, now: Instant, from: PortId, frame: &WireFrame) {
        let counters = &mut self.ports[from.index()].counters;
        counters.sent_frames += 1;
        counters.sent_bytes += frame.bytes.len() as u64;
        self.show(now, Stage::Sent(from), &frame.bytes, frame.checksum);
        let addressed = self.addressed_port(&frame.bytes);
        for index in 0..self.ports.len() {
            let is_for = addressed.is_none_or(|addressed| addressed == index);
            if is_for && index != from.index() {
                self.enter_path(now, PortId::from_index(index), frame.clone());
            }
        }
    }

    /// The port whose address the frame carries, `None` when it goes to all.
    fn addressed_port(&self, bytes: &[u8]) -> Option<usize> {
        if self.floods || self.medium == Medium::Ip {
            return None;
        }
        let destination = bytes.first_chunk::<6>()?;
        self.ports.iter().position(|port| port.config.hardware_address == *destination)
    }

    fn enter_path(&mut self, now: Instant, to: PortId, mut frame: WireFrame) {
        let entering = Entering {
            time: now,
            medium: self.medium,
            bytes: &mut frame.bytes,
            protected: frame.checksum == RxChecksum::Unknown,
        };
        let port = &mut self.ports[to.index()];
        match port.path.enter(entering) {
            Ok(arrival) => {
                if !arrival.damaged && port.config.receiving.verifies_checksums {
                    frame.checksum = RxChecksum::Verified;
                }
                if let Some(again) = arrival.again {
                    self.events.schedule(again, Event::Arrived(to, frame.clone()));
                }
                self.events.schedule(arrival.time, Event::Arrived(to, frame));
            }
            Err(loss) => {
                port.counters.lost_frames += 1;
                self.show(now, Stage::Lost(to, loss), &frame.bytes, frame.checksum);
            }
        }
    }

    fn deliver(&mut self, now: Instant, to: PortId, frame: &WireFrame) {
        let port = &mut self.ports[to.index()];
        let received = if port.receive_ring.len() >= port.config.receiving.ring_frames {
            Err(Loss::RingFull)
        } else {
            into_buffers(&port.config.arena, frame, port.config.receiving.head_bytes).ok_or(Loss::NoBuffer)
        };
        let stage = match received {
            Ok(received) => {
                port.counters.received_frames += 1;
                port.counters.received_bytes += frame.bytes.len() as u64;
                port.receive_ring.push_back(received);
                Stage::Delivered(to)
            }
            Err(loss) => {
                port.counters.lost_frames += 1;
                Stage::Lost(to, loss)
            }
        };
        self.show(now, stage, &frame.bytes, frame.checksum);
    }

    fn show(&mut self, time: Instant, stage: Stage, bytes: &[u8], checksum: RxChecksum) {
        for observer in &mut self.observers {
            observer.frame(&Sighting { time, stage, medium: self.medium, bytes, checksum });
        }
    }
}

fn into_buffers(arena: &Arena, frame: &WireFrame, head_bytes: usize) -> Option<RxFrame> {
    let (head, rest) = frame.bytes.split_at(frame.bytes.len().min(head_bytes));
    let head = arena.copy_from(head)?.freeze();
    let rest = rest.chunks(REST_BUFFER_BYTES).map(|chunk| Some(arena.copy_from(chunk)?.freeze()));
    let rest = rest.collect::<Option<Vec<_>>>()?;
    Some(RxFrame { head, rest: rest.into(), checksum: frame.checksum, segment_bytes: frame.segment_bytes })
}

#[cfg(test)]
mod tests;
