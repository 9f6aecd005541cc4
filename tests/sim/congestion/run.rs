//! One run: senders with endless data behind one bottleneck, and what came of it.

use std::time::Duration;

use catnip::tcp::EcnMode;
use catnip::tcp::congestion::Algorithm;
use libos::runtime::Medium;
use runtime_sim::{Faults, PathConfig, Ppm};

use crate::host::{HostConfig, Kind, Received, Socket};
use crate::world::World;

const PORT: u16 = 7000;
/// Bytes offered to a sender at a time.
static CHUNK: [u8; 32 << 10] = [0x5a; 32 << 10];
/// Shortest run, and round trips of the shortest.
const SHORTEST: Duration = Duration::from_secs(6);
const ROUND_TRIPS: u32 = 120;

/// The way from the senders to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    pub mbit_per_s: u64,
    pub round_trip_ms: u64,
    pub loss_ppm: u32,
    /// The buffer, in hundredths of what the path holds.
    pub buffer_percent: u64,
    pub mark_above_bytes: Option<usize>,
    pub ecn: EcnMode,
}

impl Path {
    pub fn new(mbit_per_s: u64, round_trip_ms: u64, loss_ppm: u32, buffer_percent: u64) -> Self {
        Self {
            mbit_per_s,
            round_trip_ms,
            loss_ppm,
            buffer_percent,
            mark_above_bytes: None,
            ecn: EcnMode::Passive,
        }
    }

    /// Bytes that the path holds.
    fn bdp_bytes(&self) -> usize {
        (self.mbit_per_s * self.round_trip_ms * 1_000 / 8) as usize
    }

    fn buffer_bytes(&self) -> usize {
        // No router has room for less than a burst of the initial window.
        (self.bdp_bytes() * self.buffer_percent as usize / 100).max(15 * 1514)
    }
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub kilobits_per_s: u64,
    /// Payload delivered, against what the path could carry.
    pub utilisation_percent: u64,
    /// How long a frame waited in the bottleneck's queue, on average.
    pub queue_us: u64,
    /// Jain's index of the flows' shares, in hundredths.
    pub fairness_percent: u64,
    pub dropped_frames: u64,
    pub marked_frames: u64,
}

/// Runs `flows` senders on a path. The first quarter of the run is not measured.
pub fn measure(kind: Kind, algorithm: Algorithm, path: &Path, flows: usize) -> Outcome {
    measure_each(kind, &vec![algorithm; flows], path).0
}

/// As [`measure`], with an algorithm for each sender, and what each of them had in hundredths of all.
pub fn measure_each(kind: Kind, algorithms: &[Algorithm], path: &Path) -> (Outcome, Vec<u64>) {
    let flows = algorithms.len();
    let half = Duration::from_micros(path.round_trip_ms * 500);
    let window_bytes = ((path.bdp_bytes() + path.buffer_bytes()) * 2).max(256 << 10);
    let sender = |number| {
        let mut host = HostConfig::new(kind, number);
        host.path.latency = half;
        host
    };
    let mut receiver = HostConfig::new(Kind::Catnip, 9);
    receiver.path = PathConfig {
        latency: half,
        bandwidth_bits_per_s: Some(path.mbit_per_s * 1_000_000),
        queue_bytes: path.buffer_bytes(),
        mark_above_bytes: path.mark_above_bytes.unwrap_or(usize::MAX),
        faults: Faults { loss: Ppm(path.loss_ppm), ..Faults::default() },
        ..PathConfig::default()
    };
    let mut configs: Vec<_> = (1..=flows).map(|number| sender(number as u8)).collect();
    configs.push(receiver);
    for (number, host) in configs.iter_mut().enumerate() {
        // The receiver sends nothing but acknowledgments.
        host.congestion = algorithms[number % flows];
        host.ecn = path.ecn;
        host.send_buffer_bytes = window_bytes;
        host.receive_buffer_bytes = window_bytes;
        host.arena_bytes = 512 << 20;
    }
    let mut run = Run::new(World::new(Medium::Ethernet, 1, &configs), flows);
    let time = SHORTEST.max(half * 2 * ROUND_TRIPS);
    run.go(time / 4);
    let before = run.world.fabric.queue_counters(run.world.port(flows));
    run.received.fill(0);
    run.go(time / 4 * 3);
    let after = run.world.fabric.queue_counters(run.world.port(flows));
    let outcome = run.outcome(path, time / 4 * 3, after.since(&before));
    let total: u64 = run.received.iter().sum();
    (outcome, run.received.iter().map(|bytes| bytes * 100 / total.max(1)).collect())
}

struct Run {
    world: World,
    senders: Vec<Socket>,
    receivers: Vec<Socket>,
    received: Vec<u64>,
}

impl Run {
    fn new(mut world: World, flows: usize) -> Self {
        let receiver = flows;
        let listener = world.hosts[receiver].listen(PORT, 4);
        let address = std::net::SocketAddr::new(world.hosts[receiver].address(), PORT);
        let mut receivers = Vec::new();
        // One after the other, so that their order is known.
        let senders = (0..flows)
            .map(|sender| {
                let socket = world.hosts[sender].connect_from(None, address);
                world.run_until(Duration::from_secs(30), |world| {
                    receivers.extend(world.hosts[receiver].accept(listener));
                    receivers.len() > sender
                });
                socket
            })
            .collect();
        Self { world, senders, receivers, received: vec![0; flows] }
    }

    /// Sends and receives for so long.
    fn go(&mut self, time: Duration) {
        let Self { world, senders, receivers, received } = self;
        let end = world.now() + time;
        world.run_until(time + Duration::from_secs(60), |world| {
            let receiver = world.hosts.len() - 1;
            for (sender, &socket) in senders.iter().enumerate() {
                while world.hosts[sender].send(socket, &CHUNK).expect("an open connection") > 0 {}
            }
            for (&socket, received) in receivers.iter().zip(received.iter_mut()) {
                while let Received::Data(data) =
                    world.hosts[receiver].receive(socket, CHUNK.len()).expect("an open connection")
                {
                    *received += data.len() as u64;
                }
            }
            world.now() >= end
        });
    }

    fn outcome(&self, path: &Path, time: Duration, queue: runtime_sim::QueueCounters) -> Outcome {
        let total: u64 = self.received.iter().sum();
        let kilobits_per_s = total * 8 / (time.as_millis() as u64).max(1);
        let squares: u64 = self.received.iter().map(|&bytes| (bytes / 1_000).pow(2)).sum();
        let flows = self.received.len() as u64;
        Outcome {
            kilobits_per_s,
            utilisation_percent: kilobits_per_s / (path.mbit_per_s * 10),
            queue_us: queue.waited_ns / queue.frames.max(1) / 1_000,
            fairness_percent: (total / 1_000).pow(2) * 100 / (flows * squares).max(1),
            dropped_frames: queue.dropped_frames,
            marked_frames: queue.marked_frames,
        }
    }
}
