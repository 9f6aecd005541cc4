//! A client's and a server's library OS, joined by a pipe.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use catnip_os::catnip::network::Prefix;
use catnip_os::catnip::steering::{CoreShare, HashKey, Link, Steered, exchange};
use catnip_os::catnip::{Stack, StackConfig, StackModule};
use catnip_os::libos::memory::ArenaConfig;
use catnip_os::libos::runtime::TxChecksum;
use catnip_os::libos::{
    Arena, Clock, Completion, Domain, Error, LibOs, Outcome, QueueDescriptor, SocketKind, SocketOption, Token,
};
use catnip_os::runtime_sim::{PipeConfig, PipeEnd, pipe};

use crate::clock::BenchClock;
use crate::scenario::{Failure, Scenario};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const BACKLOG: usize = 256;

/// Two library OSes, each with a stack on one end of a pipe.
pub struct Pair {
    pub client: LibOs,
    pub server: LibOs,
    clock: BenchClock,
}

/// A connection: the client's descriptor and the server's.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub client: QueueDescriptor,
    pub server: QueueDescriptor,
}

/// The address of a port of the server.
pub const fn server_address(port: u16) -> SocketAddr {
    SocketAddr::new(SERVER, port)
}

impl Pair {
    /// Joins the two with what the scenario says about the link.
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let clock = BenchClock::new(scenario.machine_clock);
        let arenas = [Arena::new(&ArenaConfig::default())?, Arena::new(&ArenaConfig::default())?];
        let checksum = if scenario.checksums { TxChecksum::Software } else { TxChecksum::Unneeded };
        let config = PipeConfig {
            checksum,
            tcp_segmentation_bytes: scenario.segmentation_bytes,
            ..PipeConfig::default()
        };
        let (client_end, server_end) = pipe(config, [&arenas[0], &arenas[1]]);
        let [client_arena, server_arena] = arenas;
        Ok(Self {
            client: host(CLIENT, client_end, &client_arena, &clock, scenario)?,
            server: host(SERVER, server_end, &server_arena, &clock, scenario)?,
            clock,
        })
    }

    /// Lets simulated time pass until every timer that traffic has armed is over: delayed acknowledgments, and
    /// retransmissions that were not needed.
    pub fn settle(&self) -> Result<(), Failure> {
        /// Longer than the timers of a connection whose peer answers at once.
        const QUIET: Duration = Duration::from_secs(3);
        const STEP: Duration = Duration::from_millis(1);
        for _ in 0..QUIET.div_duration_f64(STEP) as u32 {
            self.clock.advance(STEP);
            self.client.poll()?;
            self.server.poll()?;
        }
        Ok(())
    }

    /// A port of the server that listens.
    pub fn listen(&self, port: u16) -> Result<QueueDescriptor, Failure> {
        let listener = self.server.socket(Domain::Ipv4, SocketKind::Stream)?;
        self.server.bind(listener, server_address(port))?;
        self.server.listen(listener, BACKLOG)?;
        Ok(listener)
    }

    /// Connects the client to the listener at `port`, with small segments sent at once on both sides.
    pub fn connect(&self, listener: QueueDescriptor, port: u16) -> Result<Connection, Failure> {
        let client = self.client.socket(Domain::Ipv4, SocketKind::Stream)?;
        let accepting = self.server.accept(listener)?;
        let connecting = self.client.connect(client, server_address(port))?;
        match self.finish(Host::Client, connecting)?.outcome {
            Outcome::Connected => {}
            outcome => return Err(format!("connecting ended with {outcome:?}").into()),
        }
        let server = match self.finish(Host::Server, accepting)?.outcome {
            Outcome::Accepted { queue, peer: _ } => queue,
            outcome => return Err(format!("accepting ended with {outcome:?}").into()),
        };
        self.client.set_option(client, SocketOption::NoDelay(true))?;
        self.server.set_option(server, SocketOption::NoDelay(true))?;
        Ok(Connection { client, server })
    }

    /// A datagram socket of the server at `port` and one of the client.
    pub fn datagram_sockets(&self, port: u16) -> Result<Connection, Failure> {
        let server = self.server.socket(Domain::Ipv4, SocketKind::Datagram)?;
        self.server.bind(server, server_address(port))?;
        let client = self.client.socket(Domain::Ipv4, SocketKind::Datagram)?;
        self.client.bind(client, SocketAddr::new(CLIENT, 0))?;
        Ok(Connection { client, server })
    }

    /// Polls both until the token has completed. For setting up: what is measured knows whose turn it is.
    pub fn finish(&self, host: Host, token: Token) -> Result<Completion, Failure> {
        /// More polls than any set-up takes.
        const MAX_POLLS: u32 = 100_000;
        let libos = match host {
            Host::Client => &self.client,
            Host::Server => &self.server,
        };
        for _ in 0..MAX_POLLS {
            if let Some(completion) = libos.try_take(token)? {
                return Ok(completion);
            }
            self.client.poll()?;
            self.server.poll()?;
        }
        Err("an operation of the set-up does not end".into())
    }
}

/// Which of the two.
#[derive(Debug, Clone, Copy)]
pub enum Host {
    Client,
    Server,
}

/// Cores of a host whose device is shared. One of them works, the other has nothing to do.
const CORES: usize = 2;
/// Frames in a ring between two cores.
const RING_FRAMES: usize = 256;

fn host(
    address: IpAddr,
    end: PipeEnd,
    arena: &Arena,
    clock: &BenchClock,
    scenario: &Scenario,
) -> Result<LibOs, Failure> {
    use catnip_os::libos::Runtime;
    let mut config = StackConfig::new(end.capabilities()).with_address(Prefix { address, length: 24 });
    let share = CoreShare::split(CORES, HashKey::SYMMETRIC).into_iter().next().filter(|_| scenario.steered);
    config.share = share.clone();
    let stack = Stack::new(&config, arena.clone(), 1, clock.now())?;
    let libos = LibOs::builder().clock(clock.clone()).arena(arena.clone()).build()?;
    match (share, exchange(CORES, RING_FRAMES)?.into_iter().next()) {
        (Some(share), Some(seat)) => {
            let steered = Steered::new(Link::Queue(end), share, seat, arena);
            libos.install(StackModule::new(stack, steered))?;
        }
        (None, _) | (_, None) => {
            libos.install(StackModule::new(stack, end))?;
        }
    }
    Ok(libos)
}

/// The completions that one poll brings, if any: for loops that also wait for the other side.
#[inline]
pub fn take_completions(libos: &LibOs, completions: &mut Vec<Completion>) -> Result<(), Failure> {
    const MAX_COMPLETIONS: usize = 64;
    match libos.wait_next(completions, MAX_COMPLETIONS, Some(Duration::ZERO)) {
        Ok(_) | Err(Error::TimedOut) => Ok(()),
        // Nothing is outstanding, but what was pushed may still be under way.
        Err(Error::WouldBlock) => Ok(libos.poll()?),
        Err(error) => Err(error.into()),
    }
}
