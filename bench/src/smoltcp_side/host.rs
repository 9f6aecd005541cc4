//! A client and a server on smoltcp.

use catnip_os::libos::Clock;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use super::device::{QueueDevice, queue_pair};
use crate::clock::BenchClock;
use crate::scenario::{DATAGRAM_BYTES, Failure, MESSAGE_BYTES, Scenario};

const MTU: usize = 1500;
/// The largest IP packet, for comparing with segmentation offload, which smoltcp does not have.
const MAX_MTU: usize = 65_535;
/// As large as Catnip's default.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;
/// Enough for what idle connections carry, and little enough that 10 000 of them fit.
const IDLE_BUFFER_BYTES: usize = 2048;
/// Datagrams in a socket's queue, as many as in Catnip's.
const QUEUE_DATAGRAMS: usize = 256;
/// First port of idle connections and listeners.
const FIRST_PORT: u16 = 10_000;
/// First local port of connections that the client opens.
const FIRST_CLIENT_PORT: u16 = 40_000;
/// More polls than any set-up takes.
const MAX_POLLS: u32 = 10_000;

/// An interface with its sockets.
pub struct Host {
    interface: Interface,
    device: QueueDevice,
    pub sockets: SocketSet<'static>,
    clock: BenchClock,
}

/// Two hosts, joined by queues.
pub struct Pair {
    pub client: Host,
    pub server: Host,
}

/// A connection, or two datagram sockets.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    pub client: SocketHandle,
    pub server: SocketHandle,
}

/// The address of a port of the server.
pub fn server_address(port: u16) -> IpEndpoint {
    IpEndpoint::new(IpAddress::v4(10, 0, 0, 2), port)
}

impl Host {
    fn new(number: u8, mut device: QueueDevice, clock: &BenchClock) -> Result<Self, Failure> {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress([2, 0, 0, 0, 0, number])));
        config.random_seed = u64::from(number);
        let mut interface = Interface::new(config, &mut device, now(clock));
        let mut added = Ok(());
        interface.update_ip_addrs(|addresses| {
            added = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, number), 24));
        });
        added.map_err(|_| "no room for an address")?;
        Ok(Self { interface, device, sockets: SocketSet::new(Vec::new()), clock: clock.clone() })
    }

    /// Receives all that has arrived and sends all there is to send.
    #[inline]
    pub fn poll(&mut self) {
        self.interface.poll(now(&self.clock), &mut self.device, &mut self.sockets);
    }

    /// A TCP socket.
    #[inline]
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// A UDP socket.
    #[inline]
    pub fn udp(&mut self, handle: SocketHandle) -> &mut udp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn add_tcp(&mut self, buffer_bytes: usize) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    fn add_udp(&mut self, port: u16) -> Result<SocketHandle, Failure> {
        let buffer = || {
            udp::PacketBuffer::new(
                vec![udp::PacketMetadata::EMPTY; QUEUE_DATAGRAMS],
                vec![0; QUEUE_DATAGRAMS * DATAGRAM_BYTES],
            )
        };
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(port)?;
        Ok(self.sockets.add(socket))
    }
}

#[inline]
fn now(clock: &BenchClock) -> Instant {
    Instant::from_micros((clock.now().as_nanos() / 1000).cast_signed())
}

impl Pair {
    /// Joins the two with what the scenario says about the link.
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let clock = BenchClock::new(scenario.machine_clock);
        let mtu = if scenario.segmentation_bytes > 0 { MAX_MTU } else { MTU };
        let (client, server) = queue_pair(mtu, scenario.checksums);
        Ok(Self { client: Host::new(1, client, &clock)?, server: Host::new(2, server, &clock)? })
    }

    /// A connection to `port` of the server amid the scenario's crowd: smoltcp looks at socket after socket,
    /// so that one in the middle is found in the mean time.
    pub fn connect_amid_crowd(&mut self, scenario: &Scenario, port: u16) -> Result<Connection, Failure> {
        let half = scenario.connections / 2;
        let half_listeners = scenario.listeners / 2;
        self.connect(FIRST_PORT, half, IDLE_BUFFER_BYTES)?;
        self.listen(FIRST_PORT + 1, half_listeners)?;
        let connection =
            *self.connect(port, 1, SOCKET_BUFFER_BYTES)?.first().ok_or("no connection was made")?;
        self.connect(FIRST_PORT, scenario.connections - half, IDLE_BUFFER_BYTES)?;
        self.listen(FIRST_PORT + 1 + u16::try_from(half_listeners)?, scenario.listeners - half_listeners)?;
        Ok(connection)
    }

    /// Listeners on consecutive ports.
    fn listen(&mut self, first_port: u16, count: usize) -> Result<(), Failure> {
        for port in (first_port..u16::MAX).take(count) {
            let handle = self.server.add_tcp(IDLE_BUFFER_BYTES);
            self.server.tcp(handle).listen(port)?;
        }
        Ok(())
    }

    /// Connections to one port of the server, all at once, each of which then carries a message both ways.
    fn connect(&mut self, port: u16, count: usize, bytes: usize) -> Result<Vec<Connection>, Failure> {
        let first = FIRST_CLIENT_PORT + u16::try_from(self.client.sockets.iter().count())?;
        let mut clients = Vec::with_capacity(count);
        let mut servers = Vec::with_capacity(count);
        for client_port in (first..u16::MAX).take(count) {
            let server = self.server.add_tcp(bytes);
            self.server.tcp(server).listen(port)?;
            servers.push(server);
            let client = self.client.add_tcp(bytes);
            let Host { interface, sockets, .. } = &mut self.client;
            sockets.get_mut::<tcp::Socket<'_>>(client).connect(
                interface.context(),
                server_address(port),
                client_port,
            )?;
            clients.push(client);
        }
        // Any of the listening sockets may have taken any of the connections: pair them by the client's port.
        self.until(|pair| {
            let connected = |host: &Host, handle: &SocketHandle| {
                host.sockets.get::<tcp::Socket<'_>>(*handle).state() == tcp::State::Established
            };
            clients.iter().all(|handle| connected(&pair.client, handle))
                && servers.iter().all(|handle| connected(&pair.server, handle))
        })?;
        let port_of = |handle: &SocketHandle, pair: &mut Self| {
            pair.server.tcp(*handle).remote_endpoint().map(|remote| remote.port)
        };
        servers.sort_by_cached_key(|handle| port_of(handle, self));
        let connections: Vec<_> =
            clients.into_iter().zip(servers).map(|(client, server)| Connection { client, server }).collect();
        self.use_once(&connections)?;
        Ok(connections)
    }

    fn use_once(&mut self, connections: &[Connection]) -> Result<(), Failure> {
        let message = [1; MESSAGE_BYTES];
        for connection in connections {
            self.client.tcp(connection.client).send_slice(&message)?;
        }
        self.until(|pair| connections.iter().all(|of| pair.server.tcp(of.server).recv_queue() > 0))?;
        for connection in connections {
            let socket = self.server.tcp(connection.server);
            socket.recv(|bytes| (bytes.len(), ()))?;
            socket.send_slice(&message)?;
        }
        self.until(|pair| connections.iter().all(|of| pair.client.tcp(of.client).recv_queue() > 0))?;
        for connection in connections {
            self.client.tcp(connection.client).recv(|bytes| (bytes.len(), ()))?;
        }
        Ok(())
    }

    /// A datagram socket of the server at `port` and one of the client, after one datagram each way, so that
    /// the hosts know each other.
    pub fn datagram_sockets(&mut self, port: u16) -> Result<Connection, Failure> {
        let server = self.server.add_udp(port)?;
        let client = self.client.add_udp(FIRST_CLIENT_PORT)?;
        self.client.udp(client).send_slice(&[1; MESSAGE_BYTES], server_address(port))?;
        self.until(|pair| pair.server.udp(server).can_recv())?;
        let (_, from) = self.server.udp(server).recv()?;
        self.server.udp(server).send_slice(&[1; MESSAGE_BYTES], from)?;
        self.until(|pair| pair.client.udp(client).can_recv())?;
        self.client.udp(client).recv()?;
        Ok(Connection { client, server })
    }

    /// Polls both until `done`. For setting up.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), Failure> {
        for _ in 0..MAX_POLLS {
            if done(self) {
                return Ok(());
            }
            self.client.poll();
            self.server.poll();
        }
        Err("smoltcp's set-up does not end".into())
    }
}
