//! Hosts on a simulated link: a client with one core, and a server with several.

use std::time::Duration;

use catnip_os::catnip::steering::{CoreShare, HashKey, Link, Steered, exchange};
use catnip_os::catnip::{Stack, StackConfig, StackModule};
use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::Medium;
use catnip_os::libos::time::ManualClock;
use catnip_os::libos::{Arena, Clock, LibOs, Runtime};
use catnip_os::runtime_sim::{Fabric, Faults, PathConfig, PortConfig, SimRuntime};

use crate::device::{Queue, Spreading};

/// Frames that wait between two cores, at most.
pub const RING_FRAMES: usize = 64;

/// How the server's cores get at the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A queue for each core.
    Queues(Spreading),
    /// One queue, which core 0 has.
    OneQueue,
}

/// A client and a server on one link, in virtual time.
pub struct World {
    pub client: LibOs,
    pub cores: Vec<LibOs>,
    clock: ManualClock,
    fabric: Fabric,
}

fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap()
}

fn library_os(clock: &ManualClock, arena: &Arena) -> LibOs {
    LibOs::builder().arena(arena.clone()).clock(clock.clone()).build().unwrap()
}

fn install<R: Runtime + 'static>(
    libos: &LibOs,
    host: u8,
    share: Option<CoreShare>,
    runtime: R,
    complete: impl FnOnce(&mut StackConfig),
) {
    let mut config = StackConfig::new(runtime.capabilities())
        .with_address(format!("10.0.0.{host}/24").parse().unwrap())
        .with_address(format!("fd00::{host}/64").parse().unwrap());
    let seed = u64::from(host) * 100 + share.as_ref().map_or(0, |share| share.core() as u64);
    config.share = share;
    complete(&mut config);
    let stack = Stack::new(&config, libos.device_arena().clone(), seed, libos.now()).unwrap();
    libos.install(StackModule::new(stack, runtime)).unwrap();
}

impl World {
    /// A server of so many cores on a link with these faults.
    pub fn new(cores: usize, shape: Shape, seed: u64, faults: Faults) -> Self {
        Self::configured(cores, shape, seed, faults, |_| {})
    }

    /// The same with other settings of the server's stacks.
    pub fn configured(
        cores: usize,
        shape: Shape,
        seed: u64,
        faults: Faults,
        complete: impl Fn(&mut StackConfig),
    ) -> Self {
        let clock = ManualClock::new();
        let fabric = Fabric::new(clock.clone(), Medium::Ethernet, seed);
        let path = PathConfig { latency: Duration::from_micros(50), faults, ..PathConfig::default() };
        let port = |host: u8, arena: &Arena| {
            let config = PortConfig::new(&format!("host {host}"), [2, 0, 0, 0, 0, host], arena.clone());
            fabric.add_port(config, path.clone())
        };
        let client_arena = arena();
        let client = library_os(&clock, &client_arena);
        install(&client, 2, None, port(2, &client_arena), |_| {});

        let arenas: Vec<Arena> = (0..cores).map(|_| arena()).collect();
        let device: SimRuntime = port(1, &arenas[0]);
        let capabilities = device.capabilities();
        let links: Vec<Link<Queue>> = match shape {
            Shape::Queues(spreading) => {
                Queue::split(device, cores, spreading).into_iter().map(Link::Queue).collect()
            }
            Shape::OneQueue => {
                let queue = Queue::split(device, 1, Spreading::InTurn).into_iter().map(Link::Queue);
                let through = || Link::Through { core: 0, name: "through".to_owned(), capabilities };
                queue.chain((1..cores).map(|_| through())).collect()
            }
        };
        let seats = exchange(cores, RING_FRAMES).unwrap();
        let shares = CoreShare::split(cores, HashKey::SYMMETRIC);
        let mut world = Self { client, cores: Vec::new(), clock, fabric };
        for (((link, share), seat), arena) in links.into_iter().zip(shares).zip(seats).zip(&arenas) {
            let libos = library_os(&world.clock, arena);
            let steered = Steered::new(link, share.clone(), seat, arena);
            install(&libos, 1, Some(share), steered, &complete);
            world.cores.push(libos);
        }
        world
    }

    /// A further host's port on the link, to be used without a stack, and the memory that it receives into.
    pub fn raw_port(&self, host: u8) -> (SimRuntime, Arena) {
        let arena = arena();
        let config = PortConfig::new(&format!("host {host}"), [2, 0, 0, 0, 0, host], arena.clone());
        (self.fabric.add_port(config, PathConfig::default()), arena)
    }

    /// Polls everybody, and moves time on when nobody has anything to do; the cores in `stalled` are left alone.
    pub fn turn(&self, stalled: &[usize]) {
        let runs = |core: &usize| !stalled.contains(core);
        let mut all = vec![&self.client];
        all.extend((0..self.cores.len()).filter(runs).map(|core| &self.cores[core]));
        for _ in 0..4 {
            for libos in &all {
                libos.turn().unwrap();
            }
            self.fabric.run();
        }
        let now = self.clock.now();
        let deadlines = all.iter().filter_map(|libos| libos.next_deadline());
        let next = deadlines.chain(self.fabric.next_deadline()).min();
        let step = next.map_or(10_000_000, |next| next.nanos_since(now).clamp(1_000, 10_000_000));
        self.clock.advance(Duration::from_nanos(step));
        self.fabric.run();
    }

    /// Turns until `done` says so.
    pub fn run_until(&self, stalled: &[usize], mut done: impl FnMut() -> bool) {
        for _ in 0..200_000 {
            if done() {
                return;
            }
            self.turn(stalled);
        }
        panic!("it takes for ever, at {:?}", self.clock.now());
    }

    /// What a core has counted under this name.
    pub fn count(&self, core: usize, name: &str) -> u64 {
        let metrics = self.cores[core].metrics().unwrap();
        metrics.get(&format!("catnip.{name}")).unwrap_or_else(|| panic!("no {name}")).value()
    }

    /// The sum of what all cores have counted under this name.
    pub fn sum(&self, name: &str) -> u64 {
        (0..self.cores.len()).map(|core| self.count(core, name)).sum()
    }
}
