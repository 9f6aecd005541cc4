//! What a seed stands for.

use std::path::Path;
use std::time::Duration;

use libos::Instant;
use libos::runtime::{Medium, TxChecksum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime_sim::{Faults, PathConfig, Ppm, Receiving, Transmitting};

use crate::app::{Ending, Plan, Silence, Workload};
use crate::coverage::Coverage;
use crate::host::{HostConfig, Kind, Switches};
use crate::world::World;

const FIRST_PORT: u16 = 7000;
/// Virtual time within which everything has to be delivered once faults are over and the link had time
/// to carry it: twice the longest retransmission timeout, and some.
const RECOVERY_TIME: Duration = Duration::from_secs(300);
/// The same with smoltcp, which after a timeout may repeat a window segment by segment, a minute each.
const SMOLTCP_RECOVERY_TIME: Duration = Duration::from_secs(10_000);

/// The same where nothing is lost but what finds a queue full.
const QUEUE_RECOVERY_TIME: Duration = Duration::from_secs(10);

/// How long a queue takes to run empty at most: datagrams would fill one without limit with more than a slow path carries while
/// a run waits for its end.
const LONGEST_QUEUE_S: u64 = 60;

/// The slowest line of all.
const SLOW_BITS_PER_S: u64 = 200_000;

#[derive(Debug, Clone, Copy)]
#[allow(clippy::large_enum_variant, reason = "a setup has a few")]
enum Load {
    Tcp { workload: Workload, client: usize, server: usize },
    Udp { port: u16, client: usize, server: usize, wanted: usize, most_bytes: usize },
}

/// A configuration.
#[derive(Debug, Clone)]
pub struct Setup {
    seed: u64,
    medium: Medium,
    hosts: Vec<HostConfig>,
    loads: Vec<Load>,
    heal_at: Instant,
    limit: Duration,
    faulty: bool,
}

/// Draws by chance.
struct Dice(StdRng);

impl Dice {
    fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.0.random_range(0..choices.len())]
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.random_range(least..=most)
    }

    /// Small values as likely as large ones.
    fn spread(&mut self, least: u64, most: u64) -> u64 {
        let exponent = self.0.random_range((least as f64).ln()..=(most as f64).ln());
        (exponent.exp() as u64).clamp(least, most)
    }

    fn micros(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.spread(least, most))
    }

    fn ppm(&mut self, percent: u32, least: u64, most: u64) -> Ppm {
        if self.chance(percent) { Ppm(self.spread(least, most) as u32) } else { Ppm::ZERO }
    }

    fn faults(&mut self, latency: Duration, start: Instant) -> Faults {
        let mut partition = || {
            let from = start + self.micros(1, 5_000_000);
            from..from + self.micros(10_000, 3_000_000)
        };
        let partitions = (0..2).map(|_| partition()).collect();
        Faults {
            loss: self.ppm(60, 1_000, 150_000),
            loss_burst: if self.chance(40) { self.micros(10, 100_000) } else { Duration::ZERO },
            duplication: self.ppm(50, 1_000, 100_000),
            reordering: self.ppm(50, 1_000, 200_000),
            reordering_delay: latency * 5 + Duration::from_micros(100),
            corruption: self.ppm(40, 1_000, 50_000),
            spike: self.ppm(30, 100, 5_000),
            spike_delay: self.micros(1_000, 1_000_000),
            partitions: if self.chance(25) { partitions } else { Vec::new() },
        }
    }

    fn path(&mut self, faulty: bool, start: Instant) -> PathConfig {
        let latency = if self.chance(5) { self.micros(100_000, 1_000_000) } else { self.micros(1, 100_000) };
        let limited = self.chance(50);
        let least_bits_per_s = if self.chance(10) { SLOW_BITS_PER_S } else { 2_000_000 };
        let bandwidth_bits_per_s = limited.then(|| self.spread(least_bits_per_s, 10_000_000_000));
        let queue_bytes = if self.chance(50) { self.spread(20_000, 1 << 20) as usize } else { usize::MAX };
        let most_bytes =
            bandwidth_bits_per_s.map_or(usize::MAX, |bits| (bits / 8 * LONGEST_QUEUE_S) as usize);
        PathConfig {
            latency,
            bandwidth_bits_per_s,
            queue_bytes: queue_bytes.min(most_bytes),
            queue_frames: if self.chance(30) { self.spread(8, 1000) as usize } else { usize::MAX },
            mark_above_bytes: if self.chance(50) { self.spread(3_000, 1 << 18) as usize } else { usize::MAX },
            faults: if faulty { self.faults(latency, start) } else { Faults::default() },
        }
    }

    fn transmitting(&mut self, kinds: [Kind; 2], own: Kind) -> Transmitting {
        let line_bits_per_s = self.chance(30).then(|| self.spread(10_000_000, 10_000_000_000));
        let ring_frames = if self.chance(30) { self.between(1, 16) as usize } else { 256 };
        let plain = Transmitting { line_bits_per_s, ring_frames, ..Transmitting::default() };
        if own == Kind::Smoltcp {
            return plain;
        }
        // smoltcp can be told neither that a checksum is missing nor that segments were joined.
        let both_ours = kinds == [Kind::Catnip; 2];
        let checksum = match both_ours {
            true => self.pick(&[TxChecksum::Software, TxChecksum::Partial, TxChecksum::Unneeded]),
            false => self.pick(&[TxChecksum::Software, TxChecksum::Partial]),
        };
        let segments = checksum == TxChecksum::Partial && self.chance(50);
        Transmitting {
            checksum,
            tcp_segmentation_bytes: if segments { self.pick(&[8_000, 64_000]) } else { 0 },
            cuts_segments: !both_ours || self.chance(70),
            ..plain
        }
    }

    fn host(&mut self, number: u8, ipv6: bool, faulty: bool, kinds: [Kind; 2], start: Instant) -> HostConfig {
        let kind = kinds[usize::from(number - 1).min(1)];
        HostConfig {
            ipv6,
            send_buffer_bytes: self.spread(4 << 10, 256 << 10) as usize,
            receive_buffer_bytes: self.spread(4 << 10, 256 << 10) as usize,
            nagle: self.chance(50),
            acknowledgement_delay: self.chance(80),
            arena_bytes: if kind == Kind::Catnip && self.chance(10) { 2 << 20 } else { 64 << 20 },
            tick: self.pick(&[0, 0, 100, 1_000, 10_000].map(Duration::from_micros)),
            mtu: if ipv6 {
                self.pick(&[1280, 1500, 9000])
            } else {
                self.pick(&[576, 1280, 1500, 1500, 9000])
            },
            transmitting: self.transmitting(kinds, kind),
            receiving: Receiving {
                verifies_checksums: kind == Kind::Catnip && self.chance(50),
                head_bytes: if self.chance(30) { self.between(128, 1000) as usize } else { usize::MAX },
                ring_frames: if faulty && self.chance(20) { self.spread(4, 64) as usize } else { 1024 },
            },
            path: self.path(faulty, start),
            switches: Switches::draw(&mut self.0),
            seed: self.between(0, u64::MAX),
            ..HostConfig::new(kind, number)
        }
    }

    /// Bytes of one direction: mostly little, so that many seeds can be run.
    fn total_bytes(&mut self) -> u64 {
        if self.chance(10) { self.spread(100_000, 1_000_000) } else { self.spread(1, 100_000) }
    }

    fn plan(&mut self, total_bytes: u64, ending: Ending) -> Plan {
        let slow = self.chance(25);
        let read_bytes = self.spread(if slow { 2_000 } else { 100 }, 64 << 10) as usize;
        Plan {
            write_bytes: self.spread((total_bytes / 1000).max(10), 32 << 10) as usize,
            read_bytes,
            // No reader takes longer than about 20 s.
            read_pause: if slow { self.micros(100, 100_000) } else { Duration::ZERO },
            ..Plan::bulk(total_bytes, ending)
        }
    }

    /// The endings of the client's and the server's side, one of which ends first.
    fn endings(&mut self) -> [Ending; 2] {
        let first = self.pick(&[Ending::First, Ending::HalfClose]);
        let second = self.pick(&[Ending::Last, Ending::Last, Ending::First, Ending::HalfClose]);
        if self.chance(50) { [first, second] } else { [second, first] }
    }

    /// Plans of which one resets the connection: anywhere in the stream, or while it closes.
    fn aborting_plans(&mut self) -> [Plan; 2] {
        let mut plans = [self.total_bytes(), self.total_bytes()].map(|total| self.plan(total, Ending::Last));
        let (aborting, other) = if self.chance(50) { (0, 1) } else { (1, 0) };
        if self.chance(40) {
            let after_bytes = self.between(0, plans[0].total_bytes + plans[1].total_bytes);
            plans[aborting].ending = Ending::Abort { after_bytes };
        } else {
            // Both may come to their end at about the same time: then resets meet every state of closing.
            for at in [aborting, other] {
                let (pause, rest) = (self.micros(1, 1_000_000), self.micros(1, 1_000_000));
                if at == aborting || self.chance(70) {
                    plans[at].ending = Ending::ShutdownAbort { pause, rest };
                }
                if self.chance(60) {
                    plans[at].total_bytes = self.spread(1, 1_000);
                }
            }
        }
        // Some give up before the connection stands.
        let least_us = if self.chance(20) { 100 } else { 1_000_000 };
        plans[aborting].patience = Some(self.micros(least_us, 60_000_000));
        plans[other].patience = Some(Duration::from_secs(120));
        plans
    }

    /// Lets one side of some plans be silent for up to an hour, so that what keeps connections and neighbours
    /// alive has its turn. A server takes a client that says nothing at first for one that is gone.
    fn silence(&mut self, plans: &mut [Plan; 2]) {
        if !self.chance(40) {
            return;
        }
        let plan = &mut plans[usize::from(self.chance(50))];
        if plan.total_bytes > 1 && !plan.ending.resets() {
            let after_bytes = self.between(1, plan.total_bytes - 1);
            plan.silence = Some(Silence { after_bytes, time: self.micros(1_000_000, 3_600_000_000) });
        }
    }

    fn workload(&mut self, port: u16) -> Workload {
        let [client, server] = self.endings();
        let mut plans = match self.between(0, 4) {
            0 => {
                let (turns, bytes) = (self.spread(1, 100), self.spread(1, 5_000));
                let ping_pong = |ending| Plan::ping_pong(turns, bytes, ending);
                [ping_pong(client), ping_pong(server)]
            }
            1 => self.aborting_plans(),
            2 => {
                let total = self.total_bytes();
                if self.chance(50) {
                    [self.plan(total, client), self.plan(0, server)]
                } else {
                    [self.plan(1, client), self.plan(total, server)]
                }
            }
            _ => {
                let totals = [self.total_bytes(), self.total_bytes()];
                [self.plan(totals[0], client), self.plan(totals[1], server)]
            }
        };
        let many = self.chance(30) && plans.iter().all(|plan| plan.total_bytes < 20_000);
        let concurrent = if many { self.between(1, 8) as usize } else { 1 };
        if !many {
            self.silence(&mut plans);
        }
        Workload {
            port,
            connections: if many { self.between(2, 30) as usize } else { 1 },
            concurrent,
            backlog: concurrent + self.between(0, 4) as usize,
            client: plans[0],
            server: plans[1],
        }
    }
}

impl Setup {
    /// What `seed` stands for between hosts of these kinds.
    pub fn draw(seed: u64, kinds: [Kind; 2]) -> Self {
        let mut dice = Dice(StdRng::seed_from_u64(seed));
        let start = Instant::from_millis(1000);
        let ipv6 = dice.chance(25);
        let faulty = dice.chance(75);
        let count = if dice.chance(80) { 2 } else { dice.between(3, 4) as u8 };
        let hosts: Vec<_> = (1..=count).map(|number| dice.host(number, ipv6, faulty, kinds, start)).collect();
        let mtu = hosts.iter().map(|host| host.mtu).min().unwrap_or(1280);
        let mut loads = Vec::new();
        for index in 0..dice.between(1, 2) + u64::from(count) - 2 {
            let port = FIRST_PORT + 10 * index as u16;
            // One end is the first host, which is always ours where one is.
            let other = dice.between(1, u64::from(count) - 1) as usize;
            let (client, server) = if dice.chance(50) { (0, other) } else { (other, 0) };
            if dice.chance(15) {
                let (wanted, most_bytes) = (dice.spread(1, 300) as usize, mtu - 48);
                loads.push(Load::Udp { port, client, server, wanted, most_bytes });
            } else {
                loads.push(Load::Tcp { workload: dice.workload(port), client, server });
            }
        }
        let most_ms = if dice.chance(10) { 300_000 } else { 15_000 };
        let heal_after = Duration::from_millis(dice.between(1_000, most_ms));
        let mut setup = Self {
            seed,
            medium: if dice.chance(85) { Medium::Ethernet } else { Medium::Ip },
            hosts,
            loads,
            heal_at: start + heal_after,
            limit: Duration::ZERO,
            faulty,
        };
        let floods = setup.loads.iter().any(|load| matches!(load, Load::Udp { .. }));
        let recovery_time = match kinds.contains(&Kind::Smoltcp) {
            true => heal_after + SMOLTCP_RECOVERY_TIME,
            false if faulty || floods => heal_after + RECOVERY_TIME,
            false => QUEUE_RECOVERY_TIME,
        };
        setup.limit = recovery_time + setup.undisturbed_time();
        setup
    }

    /// Who takes part.
    pub fn hosts(&self) -> &[HostConfig] {
        &self.hosts
    }

    /// What frames begin with.
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// A generous estimate of how long the workloads take on the link without faults.
    fn undisturbed_time(&self) -> Duration {
        let round_trip: Duration = self.hosts.iter().map(|host| host.path.latency + 2 * host.tick).sum();
        let buffers = self.hosts.iter().map(|host| host.receive_buffer_bytes.min(host.send_buffer_bytes));
        // What goes over in one round trip at least, however small the window: a quarter of it.
        let window_bytes = buffers.min().unwrap_or(1).max(4) as u64 / 4;
        let slowest = self.hosts.iter().filter_map(|host| host.path.bandwidth_bits_per_s).min();
        let mut time = Duration::ZERO;
        for load in &self.loads {
            time += match load {
                Load::Udp { wanted, .. } => Duration::from_millis(10) * *wanted as u32,
                Load::Tcp { workload, .. } => {
                    [workload.client, workload.server]
                        .iter()
                        .map(|plan| {
                            let turns = plan.turn_bytes.map_or(0, |bytes| plan.total_bytes / bytes);
                            // Small writes under Nagle's algorithm and delayed acknowledgements: some in 200 ms.
                            let at_once_bytes = window_bytes.min(4 * plan.write_bytes as u64);
                            let writes = plan.total_bytes / at_once_bytes + turns + 10;
                            let reads = plan.total_bytes.max(200_000) / plan.read_bytes as u64 + 10;
                            // Everything sent a few times over, and headers beside writes of some bytes.
                            let bits = 8 * (5 * plan.total_bytes + 100 * writes);
                            let line = Duration::from_secs(slowest.map_or(0, |bits_per_s| bits / bits_per_s));
                            (round_trip + Duration::from_millis(250)) * writes as u32
                                + plan.read_pause * reads as u32
                                + plan.silence.map_or(Duration::ZERO, |silence| silence.time)
                                + line
                        })
                        .sum::<Duration>()
                        * workload.connections as u32
                }
            };
        }
        time
    }

    /// Runs to the end, with captures if a path is given.
    pub fn run(&self, capture: Option<&Path>, coverage: &mut Coverage) {
        let mut world = World::new(self.medium, self.seed, &self.hosts);
        if let Some(path) = capture {
            world.capture(path, self.medium);
        }
        for load in &self.loads {
            match *load {
                Load::Tcp { workload, client, server } => {
                    world.add_tcp(workload, client, server, self.faulty);
                }
                Load::Udp { port, client, server, wanted, most_bytes } => {
                    world.add_udp(port, client, server, wanted, most_bytes);
                }
            }
        }
        if !self.faulty {
            world.expect_prompt_acknowledgements();
        }
        world.heal_at(self.heal_at);
        world.run_to_end(self.limit);
        coverage.add(&world);
    }
}
