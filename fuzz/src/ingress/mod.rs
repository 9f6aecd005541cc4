//! The stack from the outside, statefully: connections, listeners and datagram sockets are open while segments
//! near their windows, option soup, fragments, ICMP errors that quote them and plain noise come in, and the program
//! makes its calls in between.
//!
//! After every step: the stack rests in bounded time, its own variables are in order, every byte that it sent is as
//! it must be, and streams read as they were written. At the end everything is closed, and after the timers nothing
//! may be left: no connection, no buffer.

// What the actions' fields mean, their names say.
#[allow(missing_docs, reason = "the vocabulary of one target")]
mod action;
mod packet;
mod pattern;
mod peer;
mod program;
mod received;
mod traffic;

use std::time::Duration;

use catnip::tcp::congestion::Algorithm;
use catnip::tcp::{EcnMode, TcpCounters};
use catnip::{Stack, StackConfig};
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{Arena, Instant, RxFrame};

pub use action::Input;
use action::{Action, Call, Congestion, Ecn, Family, Mtu, Neighbor, Options, Setup};
use peer::{Ends, Tuple};
use program::Program;

/// Most actions of one run.
const MAX_ACTIONS: usize = 100;
/// Most turns in a row without time passing.
const MAX_TURNS: usize = 2_000;
/// Most deadlines served at the end; more is a connection that never goes.
const MAX_DEADLINES: usize = 100_000;
/// Memory that is taken away in runs with little, which leaves some packets' worth.
const TAKEN_BLOCKS: usize = 240;
const TAKEN_BLOCK_BYTES: usize = 8_000;
/// Most flights of one conversation.
const MAX_ROUNDS: u8 = 10;
/// Peers that acknowledge in each.
const PEERS_OF_A_ROUND: usize = 3;
/// Connections the stack may have: few, so that runs get to the limit.
const MAX_CONNECTIONS: usize = 12;

/// A stack with its peer and its program.
struct World {
    stack: Stack,
    arena: Arena,
    now: Instant,
    medium: Medium,
    mtu: usize,
    ends: Ends,
    program: Program,
    /// Addresses that the stack asked for, as it asked.
    asked: Vec<std::net::IpAddr>,
}

/// One whole run. Returns what the stack has counted.
pub fn run(input: Input) -> TcpCounters {
    let arena = super::arena();
    let mut world = World::new(input.setup, arena.clone());
    let blocks = if input.setup.little_memory { TAKEN_BLOCKS } else { 0 };
    let taken: Vec<_> = (0..blocks).filter_map(|_| arena.allocate(TAKEN_BLOCK_BYTES)).collect();
    for action in input.actions.into_iter().take(MAX_ACTIONS) {
        world.act(action);
    }
    drop(taken);
    world.end();
    let counters = *world.stack.tcp_counters();
    drop(world);
    assert_eq!(arena.stats().live_buffers, 0, "a buffer leaked");
    counters
}

impl World {
    fn new(setup: Setup, arena: Arena) -> Self {
        let medium = if setup.bare_ip { Medium::Ip } else { Medium::Ethernet };
        let mtu = match setup.mtu {
            Mtu::Ipv6Least => 1_280,
            Mtu::Ethernet => 1_500,
            Mtu::Jumbo => 9_000,
        };
        let device = Capabilities {
            medium,
            hardware_address: packet::OUR_MAC,
            mtu,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 16,
        };
        let mut config = StackConfig::new(device)
            .with_address("192.0.2.1/24".parse().expect("a prefix"))
            .with_address("2001:db8::1/64".parse().expect("a prefix"));
        config.tcp.max_connections = MAX_CONNECTIONS;
        config.tcp.max_listeners = 4;
        config.udp.max_sockets = 4;
        config.neighbor.max_neighbors = 8;
        config.tcp.timestamps = setup.timestamps;
        config.tcp.window_scaling = setup.window_scaling;
        config.tcp.options.no_delay = setup.no_delay;
        config.tcp.options.keep_alive = setup.keep_alive;
        config.tcp.options.keepalive.idle_ms = 30_000;
        config.tcp.sack = setup.sack;
        config.tcp.options.congestion = match setup.congestion {
            Congestion::Cubic => Algorithm::Cubic,
            Congestion::NewReno => Algorithm::NewReno,
            Congestion::Dctcp => Algorithm::Dctcp,
            Congestion::Bbr => Algorithm::Bbr,
        };
        config.tcp.ecn = match setup.ecn {
            Ecn::Off => EcnMode::Off,
            Ecn::Passive => EcnMode::Passive,
            Ecn::On => EcnMode::On,
        };
        if setup.coarse {
            config.tcp.rto_min = Duration::from_millis(1);
            config.tcp.clock_granularity = Duration::from_millis(1);
        }
        config.tcp.path_mtu_search = setup.path_mtu_search;
        if setup.fast_open {
            config.tcp.options.fast_open_queue = 1;
            config.tcp.options.fast_open_connect = true;
        }
        if setup.small_send_buffer {
            config.tcp.options.send_buffer_bytes = 3_000;
        }
        if setup.small_receive_buffer {
            config.tcp.options.receive_buffer_bytes = 2_000;
        }
        let now = Instant::from_millis(1_000);
        let stack = Stack::new(&config, arena.clone(), 7, now).expect("a configuration that is right");
        let mut world = Self {
            stack,
            arena,
            now,
            medium,
            mtu,
            ends: Ends::of(setup),
            program: Program::default(),
            asked: Vec::new(),
        };
        world.open_sockets(setup.backlog);
        world.settle();
        for number in 0..setup.opened % 4 {
            world.open_connection(number);
        }
        world
    }

    /// Brings one connection to where data can flow.
    fn open_connection(&mut self, number: u8) {
        let family = if number < 2 { Family::V4 } else { Family::V6 };
        if number.is_multiple_of(2) {
            let remote_port = program::FIRST_REMOTE_PORT + u16::from(number);
            let tuple = Tuple { family, local_port: program::LISTEN_PORT, remote_port };
            self.send_syn(tuple, 0, Options::Usual);
        } else {
            self.act(Action::Call(Call::Connect { family, port: number }));
        }
        self.settle();
        self.act(Action::Neighbor(Neighbor::AnswerAll));
        for on in 0..=number {
            self.act(Action::Answer { on, window: 30_000, payload_bytes: 0, fin: false });
        }
        self.act(Action::Call(Call::Accept));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Pass { scale } => self.pass(Duration::from_micros(1 << (scale % 36))),
            Action::Call(call) => self.call(call),
            Action::Converse { on, rounds, write_bytes, scale } => {
                for _ in 0..rounds % MAX_ROUNDS {
                    self.call(Call::Send { on, len: write_bytes });
                    self.settle();
                    // Whichever of the peers it is.
                    for on in 0..PEERS_OF_A_ROUND.min(self.ends.len()) {
                        self.arrive(Action::Acknowledge {
                            on: on as u8,
                            window: 60_000,
                            payload_bytes: 0,
                            doubled: true,
                            flags: 0,
                        });
                    }
                    self.pass(Duration::from_micros(1 << (scale % 22)));
                }
            }
            traffic => self.arrive(traffic),
        }
        self.settle();
        self.read_events();
    }

    /// A frame arrives, unless memory is full: then the device would have had to drop it.
    fn inject(&mut self, frame: RxFrame) {
        self.stack.receive(self.now, frame);
    }

    /// The stack has its turns until it wants no more, and no time passes.
    fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            self.stack.poll(self.now);
            self.take_frames();
            if let Some(broken) = self.stack.tcp_broken_invariant() {
                panic!("{broken}");
            }
            if !self.stack.needs_poll() {
                return;
            }
        }
        panic!("the stack never rests");
    }

    fn take_frames(&mut self) {
        let mut bytes = Vec::new();
        while let Some(frame) = self.stack.frames().front() {
            bytes.clear();
            frame.segments.iter().for_each(|segment| bytes.extend_from_slice(segment));
            self.stack.frames().pop_front();
            self.see(&bytes);
        }
    }

    /// Time passes; the stack wakes when it wants to.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..MAX_DEADLINES {
            self.settle();
            match self.stack.next_deadline() {
                Some(next) if next <= end => self.now = self.now.max(next),
                Some(_) | None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the stack's deadlines never come to an end");
    }

    /// Closes everything and waits until nothing is left.
    fn end(&mut self) {
        self.close_sockets();
        self.settle();
        for _ in 0..MAX_DEADLINES {
            if self.stack.tcp_connections() == 0 {
                return;
            }
            let Some(next) = self.stack.next_deadline() else { break };
            self.now = self.now.max(next);
            self.settle();
        }
        let left: Vec<_> = self.stack.tcp_infos().collect();
        panic!("connections are left over at {:?}: {left:?}", self.now);
    }
}
