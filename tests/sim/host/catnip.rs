//! Our own stack behind the library OS as a host, with every token accounted for.

mod checks;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use catnip::network::Prefix;
use catnip::{Stack, StackConfig, StackModule};
use libos::runtime::Medium;
use libos::{
    Arena, Buffer, Completion, Domain, Error, Instant, LibOs, OperationKind, Outcome, PopLimit,
    QueueDescriptor, Runtime, ScatterGather, Shutdown, SocketKind, SocketOption, Token,
};
use runtime_sim::{CoarseClock, Fabric, PortId, SimRuntime};

use super::shared::SharedModule;
use super::{Failure, Host, HostConfig, Kind, Opening, Received, Socket, new_arena};

/// Most pushes of one connection that are outstanding.
const MAX_PUSHES: usize = 8;
/// Pops that are outstanding or not yet read, once the application reads.
const MAX_POPS: usize = 2;
/// Accepts that are outstanding on each listener.
const MAX_ACCEPTS: usize = 2;
/// Every so many calls to receive, an outstanding pop is cancelled.
const CANCEL_EVERY: usize = 13;
/// Every so many checks the connections are looked at one by one.
const LOOK_EVERY: usize = 8;
/// Completions taken at a time: few, so that taking them in portions is part of the test.
const COMPLETIONS: usize = 5;

/// What a token was given out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Purpose {
    socket: Socket,
    queue: QueueDescriptor,
    kind: OperationKind,
}

#[derive(Debug)]
struct Listener {
    queue: QueueDescriptor,
    accepts: usize,
    accepted: VecDeque<Socket>,
}

#[derive(Debug)]
struct Connection {
    queue: QueueDescriptor,
    opening: Opening,
    /// Outstanding tokens of each direction, in the order in which they have to complete.
    pushes: VecDeque<Token>,
    pops: VecDeque<Token>,
    received: VecDeque<ScatterGather>,
    end_seen: bool,
    failure: Option<Failure>,
    /// What is to be done once all pushes were taken.
    ending: Option<Ending>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Shutdown,
    Close,
}

#[derive(Debug)]
struct Datagrams {
    queue: QueueDescriptor,
    pops: usize,
    pushes: usize,
    received: VecDeque<(Vec<u8>, SocketAddr)>,
}

pub struct CatnipHost {
    config: HostConfig,
    clock: CoarseClock,
    libos: LibOs,
    module: Rc<RefCell<StackModule<SimRuntime>>>,
    port: PortId,
    outstanding: HashMap<Token, Purpose>,
    listeners: BTreeMap<Socket, Listener>,
    connections: BTreeMap<Socket, Connection>,
    datagrams: BTreeMap<Socket, Datagrams>,
    next_socket: usize,
    pushes: usize,
    receives: usize,
    checks: usize,
}

impl CatnipHost {
    pub fn new(fabric: &Fabric, medium: Medium, config: &HostConfig) -> Self {
        let arena = new_arena(config);
        let runtime = fabric.add_port(config.port(medium, &arena), config.path.clone());
        let port = runtime.port();
        let clock = CoarseClock::new(fabric.clock().clone(), config.tick);
        let mut stack_config = StackConfig::new(runtime.capabilities());
        let length = if config.ipv6 { 64 } else { 24 };
        stack_config.addresses.push(Prefix { address: config.address(), length });
        stack_config.tcp.clock_granularity = config.tick.max(Duration::from_nanos(1));
        if !config.acknowledgement_delay {
            stack_config.tcp.delayed_ack = Duration::ZERO;
        }
        stack_config.tcp.options.congestion = config.congestion;
        stack_config.tcp.ecn = config.ecn;
        stack_config.tcp.options.no_delay = !config.nagle;
        let options = &mut stack_config.tcp.options;
        options.set(SocketOption::SendBuffer(config.send_buffer_bytes)).expect("a size");
        options.set(SocketOption::ReceiveBuffer(config.receive_buffer_bytes)).expect("a size");
        config.switches.apply(&mut stack_config);
        let now = libos::Clock::now(&clock);
        let stack =
            Stack::new(&stack_config, arena.clone(), config.seed, now).expect("a valid configuration");
        let module = Rc::new(RefCell::new(StackModule::new(stack, runtime)));
        let libos = LibOs::builder().clock(clock.clone()).arena(arena).build().expect("a library OS");
        libos.install(SharedModule(Rc::clone(&module))).expect("nobody else uses it");
        Self {
            config: config.clone(),
            clock,
            libos,
            module,
            port,
            outstanding: HashMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            datagrams: BTreeMap::new(),
            next_socket: 0,
            pushes: 0,
            receives: 0,
            checks: 0,
        }
    }

    fn new_name(&mut self) -> Socket {
        self.next_socket += 1;
        Socket(self.next_socket)
    }

    fn new_queue(&mut self, kind: SocketKind) -> QueueDescriptor {
        let domain = if self.config.ipv6 { Domain::Ipv6 } else { Domain::Ipv4 };
        self.libos.socket(domain, kind).expect("a socket")
    }

    /// Notes what a token stands for; no token may be given out while it is outstanding.
    fn expect(&mut self, token: Token, socket: Socket, queue: QueueDescriptor, kind: OperationKind) {
        let known = self.outstanding.insert(token, Purpose { socket, queue, kind });
        assert_eq!(known, None, "a token was given out twice: {token:?}");
    }

    fn new_connection(&mut self, queue: QueueDescriptor, opening: Opening) -> Socket {
        let name = self.new_name();
        let connection = Connection {
            queue,
            opening,
            pushes: VecDeque::new(),
            pops: VecDeque::new(),
            received: VecDeque::new(),
            end_seen: false,
            failure: None,
            ending: None,
        };
        self.connections.insert(name, connection);
        name
    }

    /// A connection's addresses; one that was reset meanwhile has none.
    fn opened(&self, queue: QueueDescriptor) -> Opening {
        match (self.libos.local_address(queue), self.libos.peer_address(queue)) {
            (Ok(local), Ok(remote)) => Opening::Open { local, remote },
            (Err(error), _) | (_, Err(error)) => Opening::Failed(failure_of(error)),
        }
    }

    fn refill_accepts(&mut self, socket: Socket) {
        while let Some(listener) = self.listeners.get_mut(&socket) {
            if listener.accepts == MAX_ACCEPTS {
                break;
            }
            listener.accepts += 1;
            let queue = listener.queue;
            let token = self.libos.accept(queue).expect("an accept");
            self.expect(token, socket, queue, OperationKind::Accept);
        }
    }

    fn refill_datagrams(&mut self, socket: Socket) {
        while let Some(datagrams) = self.datagrams.get_mut(&socket) {
            if datagrams.pops == MAX_POPS {
                break;
            }
            datagrams.pops += 1;
            let queue = datagrams.queue;
            let token = self.libos.pop(queue).expect("a pop");
            self.expect(token, socket, queue, OperationKind::Pop);
        }
    }

    /// Takes all completions. Each has to be one that is due, and of its direction the first.
    fn take_completions(&mut self) {
        let mut completions = Vec::new();
        while self.libos.has_ready() {
            match self.libos.wait_next(&mut completions, COMPLETIONS, Some(Duration::ZERO)) {
                Ok(_) => {}
                Err(error) => panic!("completions that were ready cannot be taken: {error}"),
            }
            for completion in completions.drain(..) {
                self.complete(completion);
            }
        }
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { token, queue, kind, outcome } = completion;
        let purpose = self.outstanding.remove(&token);
        let purpose = purpose.unwrap_or_else(|| panic!("{token:?} completed twice, or was never given out"));
        assert_eq!((purpose.queue, purpose.kind), (queue, kind), "a completion of something else");
        let socket = purpose.socket;
        match kind {
            OperationKind::Accept => self.complete_accept(socket, outcome),
            OperationKind::Close => assert!(matches!(outcome, Outcome::Closed), "{outcome:?}"),
            OperationKind::Connect | OperationKind::Push | OperationKind::Pop => {
                if self.datagrams.contains_key(&socket) {
                    self.complete_datagram(socket, kind, outcome);
                } else if let Some(mut connection) = self.connections.remove(&socket) {
                    self.complete_stream(&mut connection, token, kind, outcome);
                    self.connections.insert(socket, connection);
                } else {
                    // Of a queue that was closed: cancelled, or done just before.
                    assert!(is_plausible_after_close(&outcome), "{kind:?} after close: {outcome:?}");
                }
            }
        }
    }

    fn complete_accept(&mut self, socket: Socket, outcome: Outcome) {
        match outcome {
            Outcome::Accepted { queue, .. } => {
                let opening = self.opened(queue);
                let name = self.new_connection(queue, opening);
                match self.listeners.get_mut(&socket) {
                    Some(listener) => {
                        listener.accepts -= 1;
                        listener.accepted.push_back(name);
                        self.refill_accepts(socket);
                    }
                    None => self.abort(name),
                }
            }
            Outcome::Failed(Error::Cancelled) if !self.listeners.contains_key(&socket) => {}
            outcome => panic!("an accept ended with {outcome:?}"),
        }
    }

    fn complete_stream(
        &self,
        connection: &mut Connection,
        token: Token,
        kind: OperationKind,
        outcome: Outcome,
    ) {
        let order = match kind {
            OperationKind::Push => Some(&mut connection.pushes),
            OperationKind::Pop => Some(&mut connection.pops),
            OperationKind::Connect | OperationKind::Accept | OperationKind::Close => None,
        };
        if let Some(order) = order {
            assert_eq!(order.pop_front(), Some(token), "{kind:?} completed out of order");
        }
        match outcome {
            Outcome::Connected => connection.opening = self.opened(connection.queue),
            Outcome::Pushed => assert_eq!(connection.failure, None, "a push after a failure was taken"),
            Outcome::Popped { data, from } => {
                assert_eq!(from, None, "a stream has one sender");
                assert!(!connection.end_seen || data.is_empty(), "data after the end of the stream");
                connection.end_seen |= data.is_empty();
                if !data.is_empty() {
                    connection.received.push_back(data);
                }
            }
            Outcome::Failed(error) if kind == OperationKind::Connect => {
                connection.opening = Opening::Failed(failure_of(error));
            }
            Outcome::Failed(error) => {
                connection.failure.get_or_insert(failure_of(error));
            }
            Outcome::Accepted { .. } | Outcome::Closed => panic!("{kind:?} ended with {outcome:?}"),
        }
    }

    fn complete_datagram(&mut self, socket: Socket, kind: OperationKind, outcome: Outcome) {
        let datagrams = self.datagrams.get_mut(&socket).expect("looked at before");
        match (kind, outcome) {
            (OperationKind::Push, Outcome::Pushed) => datagrams.pushes -= 1,
            // The neighbour did not answer, or memory is short.
            (OperationKind::Push, Outcome::Failed(Error::HostUnreachable | Error::NoBuffers)) => {
                datagrams.pushes -= 1;
            }
            (OperationKind::Pop, Outcome::Popped { data, from }) => {
                datagrams.pops -= 1;
                let from = from.expect("a datagram has a sender");
                datagrams.received.push_back((data.to_vec(), from));
                self.refill_datagrams(socket);
            }
            (kind, outcome) => panic!("{kind:?} on a datagram socket ended with {outcome:?}"),
        }
    }

    /// Ends connections whose pushes were all taken.
    fn finish_endings(&mut self) {
        let due = self.connections.iter().filter(|(_, connection)| {
            connection.ending.is_some() && (connection.pushes.is_empty() || connection.failure.is_some())
        });
        let due: Vec<_> = due.map(|(&socket, _)| socket).collect();
        for socket in due {
            let connection = self.connections.get_mut(&socket).expect("listed before");
            match connection.ending.take() {
                Some(Ending::Shutdown) => {
                    let result = self.libos.shutdown(connection.queue, Shutdown::Write);
                    assert!(matches!(result, Ok(()) | Err(Error::NotConnected)), "{result:?}");
                }
                Some(Ending::Close) => self.close_now(socket),
                None => {}
            }
        }
    }

    fn close_now(&mut self, socket: Socket) {
        if let Some(connection) = self.connections.remove(&socket) {
            let token = self.libos.close(connection.queue).expect("an open queue closes");
            self.expect(token, socket, connection.queue, OperationKind::Close);
        }
    }

    fn end_later(&mut self, socket: Socket, ending: Ending) {
        if let Some(connection) = self.connections.get_mut(&socket) {
            connection.ending = Some(ending);
        }
        self.finish_endings();
    }

    /// Gives the youngest outstanding pop up. It has to complete as cancelled, and to take no data with it.
    fn cancel_a_pop(&mut self, socket: Socket) {
        self.take_completions();
        let Some(token) = self.connections.get_mut(&socket).and_then(|connection| connection.pops.pop_back())
        else {
            return;
        };
        self.outstanding.remove(&token);
        self.libos.cancel(token).expect("an outstanding token");
        match self.libos.try_take(token) {
            Ok(Some(Completion { outcome: Outcome::Failed(Error::Cancelled), .. })) => {}
            other => panic!("a cancelled pop ended with {other:?}"),
        }
        assert_eq!(self.libos.try_take(token).err(), Some(Error::BadToken), "it completed twice");
    }

    /// A copy of `bytes` in registered memory, in one to three segments.
    fn buffers(&mut self, bytes: &[u8]) -> Option<ScatterGather> {
        self.pushes += 1;
        let piece_bytes = bytes.len().div_ceil(1 + self.pushes % 3).max(1);
        let buffer = |piece| Some(self.libos.arena().copy_from(piece)?.freeze());
        bytes.chunks(piece_bytes).map(buffer).collect::<Option<Vec<Buffer>>>().map(ScatterGather::from_iter)
    }
}

impl Host for CatnipHost {
    fn kind(&self) -> Kind {
        Kind::Catnip
    }

    fn address(&self) -> IpAddr {
        self.config.address()
    }

    fn port(&self) -> PortId {
        self.port
    }

    fn arena(&self) -> &Arena {
        self.libos.arena()
    }

    fn listen(&mut self, port: u16, backlog: usize) -> Socket {
        let queue = self.new_queue(SocketKind::Stream);
        self.libos.bind(queue, SocketAddr::new(self.config.address(), port)).expect("a free port");
        self.libos.listen(queue, backlog).expect("a bound socket listens");
        let name = self.new_name();
        self.listeners.insert(name, Listener { queue, accepts: 0, accepted: VecDeque::new() });
        self.refill_accepts(name);
        name
    }

    fn accept(&mut self, listener: Socket) -> Option<Socket> {
        self.listeners.get_mut(&listener)?.accepted.pop_front()
    }

    fn close_listener(&mut self, listener: Socket) {
        if let Some(Listener { queue, accepted, .. }) = self.listeners.remove(&listener) {
            accepted.into_iter().for_each(|connection| self.abort(connection));
            let token = self.libos.close(queue).expect("an open queue closes");
            self.expect(token, listener, queue, OperationKind::Close);
        }
    }

    fn connect_from(&mut self, local_port: Option<u16>, remote: SocketAddr) -> Socket {
        let queue = self.new_queue(SocketKind::Stream);
        if let Some(port) = local_port {
            let local = SocketAddr::new(self.config.address(), port);
            self.libos.set_option(queue, SocketOption::ReuseAddress(true)).expect("an option of streams");
            self.libos.bind(queue, local).expect("a free port");
        }
        let name = self.new_connection(queue, Opening::InProgress);
        let token = self.libos.connect(queue, remote).expect("a fresh socket connects");
        self.expect(token, name, queue, OperationKind::Connect);
        name
    }

    fn opening(&mut self, connection: Socket) -> Opening {
        self.connections[&connection].opening
    }

    fn send(&mut self, socket: Socket, bytes: &[u8]) -> Result<usize, Failure> {
        let connection = &self.connections[&socket];
        let queue = connection.queue;
        if let Some(failure) = connection.failure {
            return Err(failure);
        }
        if connection.pushes.len() >= MAX_PUSHES {
            return Ok(0);
        }
        let Some(data) = self.buffers(bytes) else { return Ok(0) };
        let token = self.libos.push(queue, data).expect("a push");
        self.expect(token, socket, queue, OperationKind::Push);
        if let Some(connection) = self.connections.get_mut(&socket) {
            connection.pushes.push_back(token);
        }
        Ok(bytes.len())
    }

    fn has_sent(&self, socket: Socket) -> bool {
        self.connections[&socket].pushes.is_empty()
    }

    fn receive(&mut self, socket: Socket, most_bytes: usize) -> Result<Received, Failure> {
        self.receives += 1;
        if self.receives.is_multiple_of(CANCEL_EVERY) {
            self.cancel_a_pop(socket);
        }
        loop {
            let connection = &self.connections[&socket];
            let wants_more = connection.pops.len() + connection.received.len() < MAX_POPS;
            if !wants_more || connection.end_seen || connection.failure.is_some() {
                break;
            }
            let queue = connection.queue;
            let limit = PopLimit { segments: 4, bytes: most_bytes };
            let token = self.libos.pop_with(queue, limit).expect("a pop");
            self.expect(token, socket, queue, OperationKind::Pop);
            if let Some(connection) = self.connections.get_mut(&socket) {
                connection.pops.push_back(token);
            }
        }
        self.take_completions();
        let Some(connection) = self.connections.get_mut(&socket) else { return Ok(Received::Nothing) };
        match (connection.received.pop_front(), connection.end_seen, connection.failure) {
            (Some(data), ..) => {
                assert!(data.len() <= most_bytes, "more than the pop asked for");
                Ok(Received::Data(data.to_vec()))
            }
            (None, true, _) => Ok(Received::End),
            (None, false, Some(failure)) => Err(failure),
            (None, false, None) => Ok(Received::Nothing),
        }
    }

    fn shutdown(&mut self, connection: Socket) {
        self.end_later(connection, Ending::Shutdown);
    }

    fn close(&mut self, connection: Socket) {
        self.end_later(connection, Ending::Close);
    }

    fn abort(&mut self, connection: Socket) {
        if let Some(Connection { queue, .. }) = self.connections.get(&connection) {
            let linger = SocketOption::Linger(Some(Duration::ZERO));
            self.libos.set_option(*queue, linger).expect("every stream lingers");
            self.close_now(connection);
        }
    }

    fn udp_bind(&mut self, port: u16) -> Socket {
        let queue = self.new_queue(SocketKind::Datagram);
        self.libos.bind(queue, SocketAddr::new(self.config.address(), port)).expect("a free port");
        let name = self.new_name();
        self.datagrams.insert(name, Datagrams { queue, pops: 0, pushes: 0, received: VecDeque::new() });
        self.refill_datagrams(name);
        name
    }

    fn udp_send(&mut self, socket: Socket, to: SocketAddr, bytes: &[u8]) -> bool {
        if self.datagrams[&socket].pushes >= MAX_PUSHES {
            return false;
        }
        let Some(data) = self.buffers(bytes) else { return false };
        let Some(datagrams) = self.datagrams.get_mut(&socket) else { return false };
        datagrams.pushes += 1;
        let queue = datagrams.queue;
        let token = self.libos.pushto(queue, data, to).expect("a push");
        self.expect(token, socket, queue, OperationKind::Push);
        true
    }

    fn udp_receive(&mut self, socket: Socket) -> Option<(Vec<u8>, SocketAddr)> {
        self.datagrams.get_mut(&socket)?.received.pop_front()
    }

    fn udp_close(&mut self, socket: Socket) {
        if let Some(Datagrams { queue, .. }) = self.datagrams.remove(&socket) {
            let token = self.libos.close(queue).expect("an open queue closes");
            self.expect(token, socket, queue, OperationKind::Close);
        }
    }

    fn poll(&mut self) {
        self.libos.poll().expect("not called from a callback");
        self.take_completions();
        self.finish_endings();
    }

    fn next_deadline(&mut self) -> Option<Instant> {
        if self.libos.needs_poll() {
            return Some(libos::Clock::now(&self.clock));
        }
        self.libos.next_deadline().map(|deadline| self.clock.shown_at(deadline))
    }

    fn check(&mut self) {
        let module = self.module.borrow();
        if let Some(rule) = module.stack().tcp_broken_invariant() {
            let infos: Vec<_> = module.stack().tcp_infos().collect();
            panic!("{}: does not hold: {rule}\n{infos:#?}", self.config.address());
        }
        drop(module);
        self.checks += 1;
        if self.checks.is_multiple_of(LOOK_EVERY) && !self.libos.has_ready() {
            self.check_connections();
        }
    }

    fn leftovers(&mut self) -> String {
        let mut left = Vec::new();
        for purpose in self.outstanding.values() {
            left.push(format!("{:?} of {:?}", purpose.kind, purpose.socket));
        }
        left.extend(self.connections.keys().map(|socket| format!("{socket:?}")));
        left.extend(self.datagrams.keys().map(|socket| format!("{socket:?}")));
        left.extend(self.module.borrow().stack().tcp_infos().map(|info| format!("{info:?}")));
        let sockets = self.libos.metrics().map_or(0, |metrics| metrics.value("catnip.sockets"));
        if sockets > 0 {
            left.push(format!("{sockets} sockets"));
        }
        left.join(" ")
    }

    fn transitions(&self) -> Vec<(String, String, u64)> {
        let metrics = self.libos.metrics().expect("not called from a callback");
        let transitions = metrics.iter().filter_map(|(name, metric)| {
            let (from, to) = name.strip_prefix("catnip.tcp.transitions.")?.split_once('.')?;
            Some((from.to_owned(), to.to_owned(), metric.value()))
        });
        transitions.collect()
    }

    fn counter(&self, name: &str) -> u64 {
        let metrics = self.libos.metrics().expect("not called from a callback");
        metrics.get(name).unwrap_or_else(|| panic!("no metric {name}")).value()
    }

    fn states(&self) -> Vec<String> {
        self.module.borrow().stack().tcp_infos().map(|info| info.state.name().to_owned()).collect()
    }
}

fn is_plausible_after_close(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Failed(_) | Outcome::Pushed | Outcome::Popped { .. } | Outcome::Connected => true,
        Outcome::Accepted { .. } | Outcome::Closed => false,
    }
}

fn failure_of(error: Error) -> Failure {
    match error {
        Error::ConnectionRefused => Failure::Refused,
        Error::ConnectionReset => Failure::Reset,
        Error::TimedOut => Failure::TimedOut,
        Error::ConnectionAborted => Failure::Aborted,
        Error::HostUnreachable | Error::NetworkUnreachable => Failure::Unreachable,
        error => Failure::Unexpected(error),
    }
}
