//! A host of the simulation: what an application does with sockets, whoever's stack is below.

mod catnip;
mod device;
mod shared;
mod smoltcp;
mod switches;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::catnip::tcp::EcnMode;
use ::catnip::tcp::congestion::Algorithm;
use libos::runtime::Medium;
use libos::{Arena, Instant};
use runtime_sim::{Fabric, PathConfig, PortConfig, PortId};

pub use self::catnip::CatnipHost;
pub use self::smoltcp::SmoltcpHost;
pub use self::switches::Switches;

/// Whose stack a host runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Catnip,
    Smoltcp,
}

/// A host's own name for a listener, a connection or a UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Socket(pub usize);

/// Why a connection is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    Refused,
    Reset,
    TimedOut,
    Aborted,
    Unreachable,
    /// Something that no workload may ever see.
    Unexpected(libos::Error),
}

/// Where an active or passive opening stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    InProgress,
    Open { local: SocketAddr, remote: SocketAddr },
    Failed(Failure),
}

/// What a read brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    Data(Vec<u8>),
    Nothing,
    End,
}

/// What a host is made from.
#[derive(Debug, Clone)]
pub struct HostConfig {
    pub kind: Kind,
    /// The host's number on the link, at least 1; its addresses follow from it.
    pub number: u8,
    pub ipv6: bool,
    pub send_buffer_bytes: usize,
    pub receive_buffer_bytes: usize,
    pub nagle: bool,
    pub acknowledgement_delay: bool,
    /// The tick of the host's clock; zero for the virtual clock itself.
    pub tick: Duration,
    /// How long a turn takes, however much or little it does; zero for as many turns as it wants at one moment.
    pub turn: Duration,
    pub arena_bytes: usize,
    /// Changes to the plain port; name, address and arena are the host's own.
    pub mtu: usize,
    pub transmitting: runtime_sim::Transmitting,
    pub receiving: runtime_sim::Receiving,
    /// The path to the host.
    pub path: PathConfig,
    /// What the stack's settings have beside the defaults; for our own hosts.
    pub switches: Switches,
    /// What our own hosts use against congestion.
    pub congestion: Algorithm,
    pub ecn: EcnMode,
    pub seed: u64,
}

impl HostConfig {
    /// A host on a clean path with everything at its default.
    pub fn new(kind: Kind, number: u8) -> Self {
        Self {
            kind,
            number,
            ipv6: false,
            send_buffer_bytes: 64 << 10,
            receive_buffer_bytes: 64 << 10,
            nagle: false,
            acknowledgement_delay: true,
            tick: Duration::ZERO,
            turn: Duration::ZERO,
            arena_bytes: 64 << 20,
            mtu: 1500,
            transmitting: runtime_sim::Transmitting::default(),
            receiving: runtime_sim::Receiving::default(),
            path: PathConfig::default(),
            switches: Switches::default(),
            congestion: Algorithm::default(),
            ecn: EcnMode::default(),
            seed: u64::from(number),
        }
    }

    pub fn hardware_address(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.number]
    }

    pub fn address(&self) -> IpAddr {
        address(self.number, self.ipv6)
    }

    fn port(&self, medium: Medium, arena: &Arena) -> PortConfig {
        let name = format!("{:?}{}", self.kind, self.number).to_lowercase();
        let mut port = PortConfig::new(&name, self.hardware_address(), arena.clone());
        port.mtu = self.mtu;
        port.transmitting = self.transmitting;
        port.receiving = self.receiving;
        if medium == Medium::Ip {
            port.hardware_address = [0; 6];
        }
        port
    }
}

/// The address of host `number`.
pub fn address(number: u8, ipv6: bool) -> IpAddr {
    match ipv6 {
        false => IpAddr::from([10, 0, 0, number]),
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

/// A host: sockets that never block, and a turn of the stack below them.
pub trait Host {
    fn kind(&self) -> Kind;
    fn address(&self) -> IpAddr;
    fn port(&self) -> PortId;
    fn arena(&self) -> &Arena;

    fn listen(&mut self, port: u16, backlog: usize) -> Socket;
    fn accept(&mut self, listener: Socket) -> Option<Socket>;
    fn close_listener(&mut self, listener: Socket);
    /// Connects from `local_port`, or from a port the stack picks.
    fn connect_from(&mut self, local_port: Option<u16>, remote: SocketAddr) -> Socket;
    fn opening(&mut self, connection: Socket) -> Opening;
    /// Takes what fits off the front of `bytes`; returns how many.
    fn send(&mut self, connection: Socket, bytes: &[u8]) -> Result<usize, Failure>;
    /// True when all that was to be sent was taken, as far as a program is told.
    fn has_sent(&self, connection: Socket) -> bool;
    fn receive(&mut self, connection: Socket, most_bytes: usize) -> Result<Received, Failure>;
    /// Ends the sending direction.
    fn shutdown(&mut self, connection: Socket);
    fn close(&mut self, connection: Socket);
    /// Closes with a reset.
    fn abort(&mut self, connection: Socket);

    fn udp_bind(&mut self, port: u16) -> Socket;
    /// False when there was no room; the datagram was not taken.
    fn udp_send(&mut self, socket: Socket, to: SocketAddr, bytes: &[u8]) -> bool;
    fn udp_receive(&mut self, socket: Socket) -> Option<(Vec<u8>, SocketAddr)>;
    fn udp_close(&mut self, socket: Socket);

    /// One turn of the stack.
    fn poll(&mut self);
    /// When the stack next needs a turn, on the fabric's clock.
    fn next_deadline(&mut self) -> Option<Instant>;
    /// Checks what must always hold.
    fn check(&mut self);
    /// What is still open or outstanding, for the end of a run; empty when nothing is.
    fn leftovers(&mut self) -> String;
    /// Transitions that connections of this host have made, as (from, to, count).
    fn transitions(&self) -> Vec<(String, String, u64)>;
    /// A counter of the stack; 0 when it has no such counter.
    fn counter(&self, name: &str) -> u64;
    /// States of the host's connections.
    fn states(&self) -> Vec<String>;
}

/// Makes a host and its port.
pub fn new_host(fabric: &Fabric, medium: Medium, config: &HostConfig) -> Box<dyn Host> {
    match config.kind {
        Kind::Catnip => Box::new(CatnipHost::new(fabric, medium, config)),
        Kind::Smoltcp => Box::new(SmoltcpHost::new(fabric, medium, config)),
    }
}

/// An arena for a host.
pub fn new_arena(config: &HostConfig) -> Arena {
    let config = libos::memory::ArenaConfig { region_bytes: config.arena_bytes, hugepages: false };
    Arena::new(&config).expect("an arena for a simulated host")
}
