//! smoltcp as a host.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use libos::runtime::Medium;
use libos::time::ManualClock;
use libos::{Arena, Clock, Instant, Runtime};
use runtime_sim::{CoarseClock, Fabric, PortId};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};

use super::device::PortDevice;
use super::{Failure, Host, HostConfig, Kind, Opening, Received, Socket, new_arena};

const FIRST_EPHEMERAL_PORT: u16 = 49_152;
const DATAGRAMS: usize = 64;
const DATAGRAM_BYTES: usize = 64 << 10;

struct Listener {
    port: u16,
    /// smoltcp has no backlog: as many sockets listen instead.
    waiting: Vec<SocketHandle>,
}

pub struct SmoltcpHost {
    config: HostConfig,
    clock: CoarseClock,
    arena: Arena,
    interface: Interface,
    device: PortDevice,
    sockets: SocketSet<'static>,
    listeners: BTreeMap<Socket, Listener>,
    connections: BTreeMap<Socket, SocketHandle>,
    datagrams: BTreeMap<Socket, SocketHandle>,
    /// Closed by the application, not yet by the protocol.
    closing: Vec<SocketHandle>,
    next_socket: usize,
    next_port: u16,
}

impl SmoltcpHost {
    pub fn new(fabric: &Fabric, medium: Medium, config: &HostConfig) -> Self {
        let arena = new_arena(config);
        let runtime = fabric.add_port(config.port(medium, &arena), config.path.clone());
        let mut device = PortDevice::new(runtime, arena.clone());
        let hardware_address = match medium {
            Medium::Ethernet => HardwareAddress::Ethernet(EthernetAddress(config.hardware_address())),
            Medium::Ip => HardwareAddress::Ip,
        };
        let mut interface_config = Config::new(hardware_address);
        interface_config.random_seed = config.seed;
        let clock: ManualClock = fabric.clock().clone();
        let clock = CoarseClock::new(clock, config.tick);
        let mut interface = Interface::new(interface_config, &mut device, smoltcp_time(clock.now()));
        let prefix_bits = if config.ipv6 { 64 } else { 24 };
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(config.address().into(), prefix_bits)).expect("room for an address");
        });
        Self {
            config: config.clone(),
            clock,
            arena,
            interface,
            device,
            sockets: SocketSet::new(Vec::new()),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            closing: Vec::new(),
            next_socket: 0,
            next_port: FIRST_EPHEMERAL_PORT + (config.seed % 10_000) as u16,
        }
    }

    fn new_name(&mut self) -> Socket {
        self.next_socket += 1;
        Socket(self.next_socket)
    }

    fn new_tcp(&mut self) -> SocketHandle {
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let receive = buffer(self.config.receive_buffer_bytes);
        let mut socket = tcp::Socket::new(receive, buffer(self.config.send_buffer_bytes));
        socket.set_nagle_enabled(self.config.nagle);
        if !self.config.acknowledgement_delay {
            socket.set_ack_delay(None);
        }
        socket.set_congestion_control(tcp::CongestionControl::Reno);
        self.sockets.add(socket)
    }

    fn new_listening(&mut self, port: u16) -> SocketHandle {
        let handle = self.new_tcp();
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).listen(port).expect("a fresh socket listens");
        handle
    }

    fn connection(&mut self, connection: Socket) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.connections[&connection])
    }

    fn retire(&mut self, handle: SocketHandle) {
        self.closing.push(handle);
    }

    /// Reads and drops what still comes for closed connections, and forgets those that are done.
    fn reap(&mut self) {
        let sockets = &mut self.sockets;
        self.closing.retain(|&handle| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            while matches!(socket.recv(|bytes| (bytes.len(), bytes.len())), Ok(1..)) {}
            let done = socket.state() == tcp::State::Closed && socket.remote_endpoint().is_none();
            if done {
                sockets.remove(handle);
            }
            !done
        });
    }
}

impl Host for SmoltcpHost {
    fn kind(&self) -> Kind {
        Kind::Smoltcp
    }

    fn address(&self) -> IpAddr {
        self.config.address()
    }

    fn port(&self) -> PortId {
        self.device.runtime().port()
    }

    fn arena(&self) -> &Arena {
        &self.arena
    }

    fn listen(&mut self, port: u16, backlog: usize) -> Socket {
        // A place is free again only once the application has accepted: room for a burst.
        let waiting = (0..2 * backlog + 4).map(|_| self.new_listening(port)).collect();
        let name = self.new_name();
        self.listeners.insert(name, Listener { port, waiting });
        name
    }

    fn accept(&mut self, listener: Socket) -> Option<Socket> {
        let Listener { port, waiting } = &self.listeners[&listener];
        let port = *port;
        let place = waiting.iter().position(|&handle| {
            let state = self.sockets.get::<tcp::Socket<'_>>(handle).state();
            !matches!(state, tcp::State::Listen | tcp::State::SynReceived)
        })?;
        let fresh = self.new_listening(port);
        let waiting = &mut self.listeners.get_mut(&listener)?.waiting;
        let handle = std::mem::replace(&mut waiting[place], fresh);
        let name = self.new_name();
        self.connections.insert(name, handle);
        Some(name)
    }

    fn close_listener(&mut self, listener: Socket) {
        for handle in self.listeners.remove(&listener).map_or(Vec::new(), |listener| listener.waiting) {
            self.sockets.get_mut::<tcp::Socket<'_>>(handle).abort();
            self.retire(handle);
        }
    }

    fn connect_from(&mut self, local_port: Option<u16>, remote: SocketAddr) -> Socket {
        let handle = self.new_tcp();
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL_PORT);
        let port = local_port.unwrap_or(self.next_port);
        let local = IpEndpoint::new(self.config.address().into(), port);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket
            .connect(self.interface.context(), IpEndpoint::from(remote), local)
            .expect("a fresh socket connects");
        let name = self.new_name();
        self.connections.insert(name, handle);
        name
    }

    fn opening(&mut self, connection: Socket) -> Opening {
        let socket = self.connection(connection);
        match (socket.state(), socket.local_endpoint(), socket.remote_endpoint()) {
            (tcp::State::SynSent | tcp::State::SynReceived, ..) => Opening::InProgress,
            (tcp::State::Closed, ..) | (_, None, _) | (_, _, None) => Opening::Failed(Failure::Refused),
            (_, Some(local), Some(remote)) => Opening::Open {
                local: SocketAddr::new(local.addr.into(), local.port),
                remote: SocketAddr::new(remote.addr.into(), remote.port),
            },
        }
    }

    fn send(&mut self, connection: Socket, bytes: &[u8]) -> Result<usize, Failure> {
        self.connection(connection).send_slice(bytes).map_err(|_| Failure::Reset)
    }

    /// What does not fit is not taken to begin with.
    fn has_sent(&self, _connection: Socket) -> bool {
        true
    }

    fn receive(&mut self, connection: Socket, most_bytes: usize) -> Result<Received, Failure> {
        let socket = self.connection(connection);
        let mut bytes = vec![0; most_bytes.min(socket.recv_queue())];
        match socket.recv_slice(&mut bytes) {
            Ok(0) => Ok(Received::Nothing),
            Ok(count) => {
                bytes.truncate(count);
                Ok(Received::Data(bytes))
            }
            Err(tcp::RecvError::Finished) => Ok(Received::End),
            Err(tcp::RecvError::InvalidState) => Err(Failure::Reset),
        }
    }

    fn shutdown(&mut self, connection: Socket) {
        self.connection(connection).close();
    }

    fn close(&mut self, connection: Socket) {
        self.connection(connection).close();
        if let Some(handle) = self.connections.remove(&connection) {
            self.retire(handle);
        }
    }

    fn abort(&mut self, connection: Socket) {
        self.connection(connection).abort();
        if let Some(handle) = self.connections.remove(&connection) {
            self.retire(handle);
        }
    }

    fn udp_bind(&mut self, port: u16) -> Socket {
        let buffer = || {
            udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; 4 * DATAGRAM_BYTES])
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port).expect("a fresh socket binds");
        let handle = self.sockets.add(socket);
        let name = self.new_name();
        self.datagrams.insert(name, handle);
        name
    }

    fn udp_send(&mut self, socket: Socket, to: SocketAddr, bytes: &[u8]) -> bool {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.datagrams[&socket]);
        socket.send_slice(bytes, IpEndpoint::from(to)).is_ok()
    }

    fn udp_receive(&mut self, socket: Socket) -> Option<(Vec<u8>, SocketAddr)> {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.datagrams[&socket]);
        let (bytes, from) = socket.recv().ok()?;
        Some((bytes.to_vec(), SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port)))
    }

    fn udp_close(&mut self, socket: Socket) {
        if let Some(handle) = self.datagrams.remove(&socket) {
            self.sockets.remove(handle);
        }
    }

    fn poll(&mut self) {
        let now = smoltcp_time(self.clock.now());
        self.interface.poll(now, &mut self.device, &mut self.sockets);
        self.reap();
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        let stack = self.interface.poll_at(smoltcp_time(self.clock.now()), &self.sockets);
        let stack = stack.map(|time| Instant::from_micros(u64::try_from(time.total_micros()).unwrap_or(0)));
        let stack = stack.map(|deadline| self.clock.shown_at(deadline));
        [stack, self.device.runtime().next_deadline()].into_iter().flatten().min()
    }

    fn check(&mut self) {}

    fn leftovers(&mut self) -> String {
        let states = self.sockets.iter().map(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => socket.state().to_string(),
            smoltcp::socket::Socket::Udp(_) => "UDP".to_owned(),
        });
        states.collect::<Vec<_>>().join(" ")
    }

    fn transitions(&self) -> Vec<(String, String, u64)> {
        Vec::new()
    }

    fn counter(&self, _name: &str) -> u64 {
        0
    }

    fn states(&self) -> Vec<String> {
        let states = self.sockets.iter().filter_map(|(_, socket)| match socket {
            smoltcp::socket::Socket::Tcp(socket) => Some(socket.state().to_string()),
            smoltcp::socket::Socket::Udp(_) => None,
        });
        states.filter(|state| state != "LISTEN").collect()
    }
}

/// smoltcp counts microseconds.
fn smoltcp_time(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}
