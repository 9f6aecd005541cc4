//! A program whose global allocator is registered memory: what it pushes reaches the device where it is, and stays
//! there, unchanged, until the device and the retransmission queue are done with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "common/virtual_time.rs"]
mod virtual_time;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use catnip::{Stack, StackConfig, StackModule};
use libos::memory::registry::region_of;
use libos::memory::{ArenaConfig, CopiedBytes, DeviceRegions, GlobalAllocator};
use libos::metrics::MetricsSink;
use libos::runtime::{Medium, RxBatch};
use libos::time::ManualClock;
use libos::{
    Arena, Buffer, Capabilities, Clock, Domain, Error, FrameBatch, Instant, LibOs, Outcome, QueueDescriptor,
    Runtime, SocketKind,
};
use runtime_sim::{Fabric, Faults, PathConfig, PortConfig, Ppm, SimRuntime};

#[global_allocator]
static MEMORY: GlobalAllocator = GlobalAllocator::new();

const SERVER: &str = "10.0.0.2:80";
/// Slow enough that frames wait in the device: 12 us for a frame of 1500 bytes.
const LINE_BITS_PER_S: u64 = 1_000_000_000;
const MESSAGES: usize = 400;

/// What a device was given to send.
#[derive(Default)]
struct Seen {
    /// Where segments begin.
    starts: BTreeSet<usize>,
    /// Segments that a device which reads registered memory alone would have had to copy.
    out_of_reach: usize,
}

/// A device that sends from registered memory, and writes down what it is given.
struct DmaDevice {
    device: SimRuntime,
    regions: DeviceRegions<()>,
    seen: Rc<RefCell<Seen>>,
}

impl Runtime for DmaDevice {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.device.capabilities()
    }

    fn receive(&mut self, now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        self.device.receive(now, batch)
    }

    fn transmit(&mut self, now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        self.regions.refresh(|_| Some(()), |_, ()| {});
        let mut seen = self.seen.borrow_mut();
        for segment in (0..).map_while(|index| batch.get(index)).flat_map(|frame| frame.segments) {
            seen.starts.insert(segment.as_ptr() as usize);
            seen.out_of_reach += usize::from(self.regions.find(segment).is_none());
        }
        self.device.transmit(now, batch)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.device.next_deadline()
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.device.metrics(sink);
    }
}

struct Pair {
    client: LibOs,
    server: LibOs,
    clock: ManualClock,
    /// What the client's device was given.
    seen: Rc<RefCell<Seen>>,
}

impl Pair {
    fn new(loss: Ppm) -> Self {
        let clock = ManualClock::new();
        let fabric = Fabric::new(clock.clone(), Medium::Ethernet, 7);
        let seen = Rc::new(RefCell::new(Seen::default()));
        let library = |number: u8, seen: Rc<RefCell<Seen>>| {
            let arena = Arena::new(&ArenaConfig { region_bytes: 32 << 20, hugepages: false }).unwrap();
            let mut port = PortConfig::new("sim", [2, 0, 0, 0, 0, number], arena.clone());
            port.transmitting.line_bits_per_s = Some(LINE_BITS_PER_S);
            let faults = Faults { loss, ..Faults::default() };
            let device = fabric.add_port(port, PathConfig { faults, ..PathConfig::default() });
            let address = format!("10.0.0.{number}/24").parse().unwrap();
            let config = StackConfig::new(device.capabilities()).with_address(address);
            let stack = Stack::new(&config, arena.clone(), 1, clock.now()).unwrap();
            let library = LibOs::builder().clock(clock.clone()).arena(arena).build().unwrap();
            library
                .install(StackModule::new(stack, DmaDevice { device, regions: DeviceRegions::new(), seen }))
                .unwrap();
            library
        };
        let client = library(1, seen.clone());
        let server = library(2, Rc::default());
        Self { client, server, clock, seen }
    }

    fn pass(&self, duration: Duration) {
        virtual_time::pass(&self.clock, &[&self.client, &self.server], duration);
    }

    fn connection(&self) -> (QueueDescriptor, QueueDescriptor) {
        let listener = self.server.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        self.server.bind(listener, server()).unwrap();
        self.server.listen(listener, 4).unwrap();
        let accept = self.server.accept(listener).unwrap();
        let client = self.client.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        let connect = self.client.connect(client, server()).unwrap();
        self.pass(Duration::from_secs(10));
        assert!(matches!(self.client.try_take(connect).unwrap().unwrap().outcome, Outcome::Connected));
        match self.server.try_take(accept).unwrap().unwrap().outcome {
            Outcome::Accepted { queue, .. } => (client, queue),
            other => panic!("{other:?}"),
        }
    }

    /// Neither library OS copied payload, nor would a device have had to.
    fn assert_no_copies(&self) {
        assert_eq!(self.seen.borrow().out_of_reach, 0);
        for side in [&self.client, &self.server] {
            assert_eq!(side.arena().stats().copied_bytes, CopiedBytes::default());
        }
    }

    /// What the server reads of the stream until it has `most` bytes, or a second passes without any.
    fn read(&self, queue: QueueDescriptor, most: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < most {
            let pop = self.server.pop(queue).unwrap();
            self.pass(Duration::from_millis(1));
            match self.server.try_take(pop).unwrap().map(|completion| completion.outcome) {
                Some(Outcome::Popped { data, .. }) => bytes.extend(data.to_vec()),
                Some(other) => panic!("{other:?}"),
                None => {
                    self.server.discard(pop).unwrap();
                    return bytes;
                }
            }
        }
        bytes
    }
}

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

/// Bytes that differ from one message and one place to the next.
fn pattern(message: usize, len: usize) -> Vec<u8> {
    (0..len).map(|index| (message.wrapping_mul(131) ^ index.wrapping_mul(31) ^ (index >> 8)) as u8).collect()
}

#[test]
fn vectors_bytes_and_the_arenas_buffers_reach_the_device_where_they_are() {
    let pair = Pair::new(Ppm::ZERO);
    let (client, queue) = pair.connection();
    for len in [1, 64, 200, 1_000, 1_460, 3_000, 60_000] {
        let vector = pattern(len, len);
        let shared = bytes_of(pattern(len, len));
        let mut own = pair.client.arena().allocate(len).unwrap();
        own.extend_from_slice(&vector);
        for data in [Buffer::from(vector), Buffer::from(shared), own.freeze()] {
            let start = data.as_ptr() as usize;
            assert!(region_of(&data).is_some(), "{len} bytes in registered memory");
            pair.client.push(client, data).unwrap();
            // Nagle's algorithm waits for the last message's acknowledgment.
            pair.pass(Duration::from_millis(100));
            assert_eq!(pair.read(queue, len), pattern(len, len));
            let starts = &pair.seen.borrow().starts;
            // A header goes in front of the arena's buffers, else into a segment of its own.
            let is_there = starts.range(..=start).next_back().is_some_and(|&first| start - first < 128);
            assert!(is_there, "the device read {len} bytes elsewhere");
        }
    }
    pair.assert_no_copies();
}

#[test]
fn datagrams_of_vectors_reach_the_device_where_they_are() {
    let pair = Pair::new(Ppm::ZERO);
    let receiver = pair.server.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
    pair.server.bind(receiver, server()).unwrap();
    let sender = pair.client.socket(Domain::Ipv4, SocketKind::Datagram).unwrap();
    for len in [1, 18, 512, 1_472] {
        let vector = pattern(len, len);
        let start = vector.as_ptr() as usize;
        pair.client.pushto(sender, vector, server()).unwrap();
        assert_eq!(pair.read(receiver, len), pattern(len, len));
        assert!(pair.seen.borrow().starts.contains(&start), "{len}");
    }
    pair.assert_no_copies();
}

/// Each message is let go the moment its push returns, and the program writes over all memory it then gets, while frames
/// wait in the device and losses are repaired.
#[test]
fn memory_that_was_let_go_is_not_reused_before_it_is_acknowledged() {
    let pair = Pair::new(Ppm::percent(5));
    let (client, queue) = pair.connection();
    let arena = pair.client.arena();
    let used_before = arena.stats().used_bytes;
    let mut lens = Vec::new();
    let mut received = Vec::new();
    for message in 0..MESSAGES {
        let len = [900, 1_460, 2_900, 8_000, 40][message % 5];
        lens.push(len);
        let content = pattern(message, len);
        let data = match message % 3 {
            0 => Buffer::from(content),
            1 => Buffer::from(bytes_of(content)),
            _ => arena.copy_from(&content).expect("room in the region").freeze(),
        };
        pair.client.push(client, data).unwrap();
        scribble(arena, len);
        if message % 8 == 0 {
            received.extend(pair.read(queue, 40_000));
        }
    }
    for _ in 0..200 {
        received.extend(pair.read(queue, usize::MAX));
        pair.pass(Duration::from_millis(20));
    }
    let expected: Vec<u8> =
        lens.iter().enumerate().flat_map(|(message, &len)| pattern(message, len)).collect();
    assert_eq!(received.len(), expected.len());
    let wrong = received.iter().zip(&expected).position(|(got, sent)| got != sent);
    assert_eq!(wrong, None, "bytes that were let go were sent as somebody else's");
    let metrics = pair.client.metrics().unwrap();
    let retransmitted = metrics.value("catnip.tcp.retransmitted_segments");
    assert!(retransmitted > 20, "{retransmitted} segments were sent again");
    assert_eq!(pair.seen.borrow().out_of_reach, 0);
    pair.pass(Duration::from_secs(1));
    assert_eq!(arena.stats().used_bytes, used_before, "acknowledged memory is given back");
}

/// Writes over memory of about the size that was just let go, from the program's allocator and from the arena.
fn scribble(arena: &Arena, len: usize) {
    let vectors: Vec<Vec<u8>> = (0..8).map(|_| vec![0xee; len]).collect();
    assert!(std::hint::black_box(&vectors).iter().all(|vector| vector.len() == len));
    for _ in 0..8 {
        if let Some(mut buffer) = arena.allocate(len) {
            buffer.set_len(len);
            buffer.fill(0xee);
        }
    }
}

/// The vector's bytes in the ecosystem's shared form, in the middle of larger ones.
fn bytes_of(vector: Vec<u8>) -> bytes::Bytes {
    let len = vector.len();
    let mut larger = vec![0; 100];
    larger.extend(vector);
    larger.extend([0; 50]);
    bytes::Bytes::from(larger).slice(100..100 + len)
}
