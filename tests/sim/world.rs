//! The world: hosts on a fabric, their applications, the clock, and what must hold at every moment.

use std::cell::RefCell;
use std::fs::File;
use std::io::BufWriter;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use libos::memory::ArenaStats;
use libos::runtime::Medium;
use libos::time::ManualClock;
use libos::{Clock, Instant};
use runtime_sim::{Fabric, PcapObserver, PortId, Sighting};

use crate::app::{App, Forgives, TcpClient, TcpServer, UdpEchoClient, UdpEchoServer, Workload};
use crate::host::{Host, HostConfig, Kind, new_host};
use crate::wire::{Ours, Seen, Watch};

/// Most turns without the clock moving on; more is a livelock.
const MAX_ROUNDS: usize = 20_000;
/// Turns without effect after which a host that asks for another one is not asked again.
const MAX_FRUITLESS_ROUNDS: usize = 3;
/// Virtual time for connections to leave TIME-WAIT and their like after everything is closed.
const DRAIN_TIME: Duration = Duration::from_secs(1200);
/// Virtual time for a neighbour to be asked for as often as it ever is.
const NEIGHBOR_TIME: Duration = Duration::from_secs(30);

/// Counters of what a host may throw away of what reaches a connection of its.
const THROWN_AWAY: [&str; 4] = [
    "catnip.tcp.memory_drops",
    "catnip.tcp.out_of_order_drops",
    "catnip.tcp.paws_rejected",
    "catnip.tcp.challenge_acks",
];

/// When virtual time starts.
const START: Instant = Instant::from_millis(1000);

/// Hosts on one link.
pub struct World {
    pub clock: ManualClock,
    pub fabric: Fabric,
    pub hosts: Vec<Box<dyn Host>>,
    apps: Vec<(usize, Box<dyn App>)>,
    watch: Rc<RefCell<Watch>>,
    /// When all faults end.
    heal_at: Option<Instant>,
    /// Buffers that each host's arena had in use before anything was done.
    buffers_at_start: Vec<usize>,
    turns: Vec<Turn>,
}

/// When a host that takes its time may have its next turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    length: Duration,
    next_at: Instant,
}

impl World {
    pub fn new(medium: Medium, seed: u64, configs: &[HostConfig]) -> Self {
        let clock = ManualClock::new();
        // Virtual time starts late enough that nothing can take the clock's start for "never".
        clock.set(START);
        let fabric = Fabric::new(clock.clone(), medium, seed);
        let hosts: Vec<_> = configs.iter().map(|config| new_host(&fabric, medium, config)).collect();
        let ours = hosts.iter().zip(configs).filter(|(host, _)| host.kind() == Kind::Catnip);
        let ours = ours.map(|(host, config)| {
            let sends_at_once = config.transmitting.line_bits_per_s.is_none();
            (host.port(), Ours { address: host.address(), sends_at_once })
        });
        let watch = Rc::new(RefCell::new(Watch::new(ours.collect())));
        let shared = Rc::clone(&watch);
        fabric.observe(move |sighting: &Sighting<'_>| shared.borrow_mut().see(sighting));
        let buffers_at_start = hosts.iter().map(|host| host.arena().stats().live_buffers).collect();
        let turns = configs.iter().map(|config| Turn { length: config.turn, next_at: START }).collect();
        Self { clock, fabric, hosts, apps: Vec::new(), watch, heal_at: None, buffers_at_start, turns }
    }

    /// Writes what each port sends and is given to `<path>.<port>.pcap`.
    pub fn capture(&self, path: &Path, medium: Medium) {
        for host in &self.hosts {
            let name = format!("{}.{}.pcap", path.display(), host.port().index());
            let file = BufWriter::new(File::create(&name).expect("a capture file"));
            let capture = PcapObserver::new(host.port(), medium, file).expect("a capture file");
            self.fabric.observe(capture);
            eprintln!("capture: {name}");
        }
    }

    /// Ends all faults at `time`.
    pub fn heal_at(&mut self, time: Instant) {
        self.heal_at = Some(time);
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Virtual time since the world was made.
    pub fn age(&self) -> Duration {
        self.now() - START
    }

    pub fn add_app(&mut self, host: usize, app: impl App + 'static) {
        self.apps.push((host, Box::new(app)));
    }

    /// Adds a server and its clients; `faulty` when the link may make an opening fail.
    pub fn add_tcp(&mut self, workload: Workload, client: usize, server: usize, faulty: bool) {
        let address = self.hosts[server].address();
        let forgives = match (faulty, self.hosts[server].kind()) {
            (false, Kind::Catnip) => Forgives::Nothing,
            (true, Kind::Catnip) => Forgives::FailedOpening,
            (false | true, Kind::Smoltcp) => Forgives::EarlyReset,
        };
        self.add_app(server, TcpServer::new(workload));
        self.add_app(client, TcpClient::new(workload, address, forgives));
    }

    /// Adds a UDP echo server and its client.
    pub fn add_udp(&mut self, port: u16, client: usize, server: usize, wanted: usize, most_bytes: usize) {
        let address = self.hosts[server].address();
        self.add_app(server, UdpEchoServer::new(port));
        let interval = Duration::from_millis(1);
        self.add_app(client, UdpEchoClient::new(port, address, wanted, most_bytes, interval));
    }

    /// From now on acknowledgements have to come in time: nothing on the way fails.
    pub fn expect_prompt_acknowledgements(&self) {
        self.watch.borrow_mut().expect_prompt_acknowledgements();
    }

    /// Keeps all TCP segments from now on, for [`Self::sent_by`].
    pub fn keep_log(&self) {
        self.watch.borrow_mut().keep_log();
    }

    /// The TCP segments that a host has sent.
    pub fn sent_by(&self, host: usize) -> Vec<Seen> {
        self.watch.borrow().sent_from(self.port(host)).copied().collect()
    }

    pub fn port(&self, host: usize) -> PortId {
        self.hosts[host].port()
    }

    /// Lets everybody do what they can at this moment.
    pub fn settle(&mut self) {
        let mut fruitless = 0;
        for _ in 0..MAX_ROUNDS {
            let traffic = self.traffic();
            let mut progress = false;
            let now = self.now();
            for (host, turn) in self.hosts.iter_mut().zip(&mut self.turns) {
                if turn.next_at <= now {
                    host.poll();
                    turn.next_at = now + turn.length;
                }
            }
            for (host, app) in &mut self.apps {
                progress |= app.step(&mut *self.hosts[*host], now);
            }
            self.check();
            if progress || self.traffic() != traffic {
                fruitless = 0;
                continue;
            }
            fruitless += 1;
            let due = (0..self.hosts.len()).any(|host| self.due_at(host).is_some_and(|time| time <= now));
            if !due || fruitless >= MAX_FRUITLESS_ROUNDS {
                return;
            }
        }
        panic!("no end of work at one moment, at {:?}: {}", self.now(), self.describe());
    }

    /// When a host is to have a turn.
    fn due_at(&mut self, host: usize) -> Option<Instant> {
        let wanted_at = self.hosts[host].next_deadline()?;
        Some(wanted_at.max(self.turns[host].next_at))
    }

    /// Moves the clock to what happens next, at most to `limit`; false when nothing ever will.
    pub fn advance(&mut self, limit: Instant) -> bool {
        let now = self.now();
        let hosts: Vec<_> = (0..self.hosts.len()).filter_map(|host| self.due_at(host)).collect();
        let apps = self.apps.iter().filter_map(|(_, app)| app.deadline(now));
        let others = [self.fabric.next_deadline(), self.heal_at];
        let next = hosts
            .into_iter()
            .chain(apps)
            .chain(others.into_iter().flatten())
            .filter(|&time| time > now)
            .min();
        let Some(next) = next else { return false };
        self.clock.set(next.min(limit));
        if self.heal_at.is_some_and(|heal_at| heal_at <= self.now()) {
            self.heal_at = None;
            self.fabric.heal();
        }
        true
    }

    /// Runs until `done`, which has to be within `time`.
    pub fn run_until(&mut self, time: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let limit = self.now() + time;
        loop {
            self.settle();
            if done(self) {
                return;
            }
            // Asking may have been doing: what it submitted is to have its effect now.
            let traffic = self.traffic();
            self.settle();
            if self.traffic() != traffic {
                continue;
            }
            if self.now() >= limit {
                panic!("not done after {time:?}: {}", self.describe());
            }
            if !self.advance(limit) {
                panic!("nothing will ever happen again at {:?}: {}", self.now(), self.describe());
            }
        }
    }

    /// Runs for `time`, whatever happens.
    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now() + time;
        loop {
            self.settle();
            if self.now() >= limit || !self.advance(limit) {
                self.clock.set(limit);
                return;
            }
        }
    }

    /// Runs until all applications are done, which has to be within `time`, and then until all that they
    /// left behind is gone. Returns when the applications were done.
    pub fn run_to_end(&mut self, time: Duration) -> Instant {
        self.run_until(time, |world| world.apps.iter().all(|(_, app)| app.is_done()));
        let done_at = self.now();
        self.drain();
        done_at
    }

    /// Runs until nothing is open, under way or in use.
    pub fn drain(&mut self) {
        for (host, mut app) in std::mem::take(&mut self.apps) {
            app.end(&mut *self.hosts[host]);
        }
        self.run_until(DRAIN_TIME, |world| {
            world.frames_under_way() == 0 && world.hosts.iter_mut().all(|host| host.leftovers().is_empty())
        });
        if self.leaks().next().is_some() {
            // What waits for a neighbour's address when its connection has ended is let go when the asking is over.
            self.run_for(NEIGHBOR_TIME);
        }
        let leaks: Vec<_> = self.leaks().collect();
        assert!(leaks.is_empty(), "buffers leaked: {leaks:?}");
    }

    /// Hosts that hold more buffers than at the start.
    fn leaks(&self) -> impl Iterator<Item = (IpAddr, ArenaStats)> {
        let hosts = self.hosts.iter().zip(&self.buffers_at_start);
        hosts
            .map(|(host, at_start)| (host.address(), host.arena().stats(), at_start))
            .filter(|(_, stats, at_start)| stats.live_buffers > **at_start)
            .map(|(address, stats, _)| (address, stats))
    }

    fn frames_under_way(&self) -> usize {
        self.hosts.iter().map(|host| self.fabric.frames_under_way(host.port())).sum()
    }

    fn traffic(&self) -> u64 {
        let counters = self.hosts.iter().map(|host| self.fabric.counters(host.port()));
        let in_rings = self.frames_under_way() as u64;
        counters.map(|counters| counters.sent_frames + counters.lost_frames).sum::<u64>() + (in_rings << 40)
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        self.watch.borrow_mut().look_at_clock(self.clock.now());
        if let Some(violation) = self.watch.borrow().violation() {
            panic!("{violation}");
        }
        if let Some((port, doubt)) = self.watch.borrow_mut().take_doubt() {
            let host = self.hosts.iter().find(|host| host.port() == port).expect("one of ours");
            let thrown_away: u64 = THROWN_AWAY.iter().map(|name| host.counter(name)).sum();
            assert!(thrown_away > 0, "{doubt}");
        }
        for host in &mut self.hosts {
            host.check();
            let stats = host.arena().stats();
            assert!(stats.used_bytes <= stats.region_bytes, "an arena beyond its limit: {stats:?}");
        }
    }

    fn describe(&mut self) -> String {
        let apps: Vec<_> =
            self.apps.iter().map(|(host, app)| format!("host {host}: {}", app.describe())).collect();
        let hosts = self.hosts.iter_mut().map(|host| {
            let (address, deadline) = (host.address(), host.next_deadline());
            format!("{address}: {} deadline {deadline:?} {:?}", host.leftovers(), host.arena().stats())
        });
        let hosts: Vec<_> = hosts.collect();
        format!(
            "at {:?}, {} frames under way\n{}\n{}",
            self.now(),
            self.frames_under_way(),
            hosts.join("\n"),
            apps.join("\n")
        )
    }
}
