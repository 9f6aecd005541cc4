//! A machine as a conformance harness sees one: descriptors with calls that never block, bare IP packets in and out,
//! and a clock of microseconds that somebody else turns. All of it on the public `Stack`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use catnip::events::{ConnectionId, ListenerId, Readiness};
use catnip::tcp::{TcpBinding, TcpOptions};
use catnip::{Stack, StackConfig};
use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{
    Arena, Error, Instant, PopLimit, RxFrame, ScatterGather, Shutdown, SocketOption, SocketOptionName,
};

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fd(u32);

/// Whether a read takes what it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    Take,
    /// `MSG_PEEK`.
    Peek,
}

/// What is behind a descriptor.
enum Socket {
    Fresh { binding: Option<TcpBinding>, options: TcpOptions },
    Listener(ListenerId),
    Stream(ConnectionId),
}

pub struct Machine {
    stack: Stack,
    arena: Arena,
    now: Instant,
    sockets: BTreeMap<Fd, Socket>,
    next_fd: u32,
}

fn instant(now_us: u64) -> Instant {
    Instant::from_nanos(now_us * 1_000)
}

impl Machine {
    pub fn new(network: &str, seed: u64, now_us: u64) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let device = Capabilities {
            medium: Medium::Ip,
            hardware_address: [0; 6],
            mtu: 1_500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let config = StackConfig::new(device).with_address(network.parse().unwrap());
        let now = instant(now_us);
        let stack = Stack::new(&config, arena.clone(), seed, now).unwrap();
        Self { stack, arena, now, sockets: BTreeMap::new(), next_fd: 3 }
    }

    // ---- The wire and the clock.

    /// An IP packet arrives.
    pub fn deliver(&mut self, packet: &[u8]) {
        let buffer = self.arena.copy_from(packet).unwrap().freeze();
        self.stack.receive(self.now, RxFrame::from(buffer));
    }

    /// It is `now_us`: timers run. Returns the IP packets that are to be sent.
    pub fn run(&mut self, now_us: u64) -> Vec<Vec<u8>> {
        self.now = instant(now_us);
        let mut packets = Vec::new();
        for _ in 0..1_000 {
            self.stack.poll(self.now);
            while let Some(frame) = self.stack.frames().front() {
                packets.push(frame.segments.iter().flat_map(|segment| segment.to_vec()).collect());
                self.stack.frames().pop_front();
            }
            // Readiness is asked for, so that nobody needs to be told of it.
            while self.stack.next_event().is_some() {}
            if !self.stack.needs_poll() {
                return packets;
            }
        }
        panic!("the stack never rests");
    }

    /// When [`Self::run`] is next needed though nothing arrives, in microseconds.
    pub fn deadline_us(&self) -> Option<u64> {
        self.stack.next_deadline().map(|deadline| deadline.as_nanos().div_ceil(1_000))
    }

    // ---- Calls.

    pub fn socket(&mut self) -> Fd {
        let options = self.stack.default_tcp_options().clone();
        self.insert(Socket::Fresh { binding: None, options })
    }

    fn insert(&mut self, socket: Socket) -> Fd {
        let fd = Fd(self.next_fd);
        self.next_fd += 1;
        self.sockets.insert(fd, socket);
        fd
    }

    fn stream(&self, fd: Fd) -> Result<ConnectionId, Error> {
        match self.sockets.get(&fd) {
            Some(&Socket::Stream(id)) => Ok(id),
            Some(Socket::Fresh { .. } | Socket::Listener(_)) => Err(Error::NotConnected),
            None => Err(Error::BadDescriptor),
        }
    }

    pub fn bind(&mut self, fd: Fd, local: SocketAddr) -> Result<(), Error> {
        match self.sockets.get_mut(&fd) {
            Some(Socket::Fresh { binding: binding @ None, options }) => {
                *binding = Some(self.stack.tcp_bind_shared(local, options.reuse)?);
                Ok(())
            }
            Some(_) => Err(Error::InvalidArgument),
            None => Err(Error::BadDescriptor),
        }
    }

    pub fn listen(&mut self, fd: Fd, backlog: usize) -> Result<(), Error> {
        match self.sockets.get_mut(&fd) {
            Some(Socket::Fresh { binding, options }) => {
                let binding = binding.take().ok_or(Error::InvalidArgument)?;
                let id = self.stack.tcp_listen(binding, backlog, options)?;
                self.sockets.insert(fd, Socket::Listener(id));
                Ok(())
            }
            Some(_) => Err(Error::InvalidArgument),
            None => Err(Error::BadDescriptor),
        }
    }

    /// Begins to connect; [`Error::WouldBlock`] stands for `EINPROGRESS`.
    pub fn connect(&mut self, fd: Fd, remote: SocketAddr) -> Result<(), Error> {
        match self.sockets.get_mut(&fd) {
            Some(Socket::Fresh { binding, options }) => {
                let id = self.stack.tcp_connect(self.now, binding, remote, options)?;
                self.sockets.insert(fd, Socket::Stream(id));
                Err(Error::WouldBlock)
            }
            Some(Socket::Stream(_)) => Err(Error::AlreadyConnected),
            Some(Socket::Listener(_)) => Err(Error::InvalidArgument),
            None => Err(Error::BadDescriptor),
        }
    }

    pub fn accept(&mut self, fd: Fd) -> Result<(Fd, SocketAddr), Error> {
        let Some(&Socket::Listener(id)) = self.sockets.get(&fd) else { return Err(Error::InvalidArgument) };
        let (connection, peer) = self.stack.tcp_accept(id).ok_or(Error::WouldBlock)?;
        Ok((self.insert(Socket::Stream(connection)), peer))
    }

    pub fn send(&mut self, fd: Fd, bytes: &[u8]) -> Result<usize, Error> {
        let id = self.stream(fd)?;
        let copied = self.arena.copy_from(bytes).ok_or(Error::NoBuffers)?.freeze();
        let mut data = ScatterGather::from(copied);
        match self.stack.tcp_send(id, &mut data)? {
            0 if !bytes.is_empty() => Err(Error::WouldBlock),
            taken => Ok(taken),
        }
    }

    /// Up to `most_bytes`; none is the end of the stream.
    pub fn recv(&mut self, fd: Fd, most_bytes: usize, read: Read) -> Result<Vec<u8>, Error> {
        let id = self.stream(fd)?;
        if most_bytes == 0 {
            return Ok(Vec::new());
        }
        let limit = PopLimit { segments: usize::MAX, bytes: most_bytes };
        let data = match read {
            Read::Take => self.stack.tcp_receive(id, limit)?,
            Read::Peek => self.stack.tcp_peek(id, limit)?,
        };
        data.map(|data| data.to_vec()).ok_or(Error::WouldBlock)
    }

    pub fn shutdown(&mut self, fd: Fd, how: Shutdown) -> Result<(), Error> {
        let id = self.stream(fd)?;
        self.stack.tcp_shutdown(id, how)
    }

    pub fn close(&mut self, fd: Fd) -> Result<(), Error> {
        match self.sockets.remove(&fd).ok_or(Error::BadDescriptor)? {
            Socket::Fresh { binding, .. } => {
                if let Some(binding) = binding {
                    self.stack.tcp_unbind(binding);
                }
            }
            Socket::Listener(id) => self.stack.tcp_close_listener(self.now, id),
            Socket::Stream(id) => self.stack.tcp_close(self.now, id),
        }
        Ok(())
    }

    pub fn setsockopt(&mut self, fd: Fd, option: SocketOption) -> Result<(), Error> {
        match self.sockets.get_mut(&fd).ok_or(Error::BadDescriptor)? {
            Socket::Fresh { options, .. } => options.set(option),
            Socket::Listener(id) => self.stack.tcp_set_listener_option(*id, option),
            Socket::Stream(id) => self.stack.tcp_set_option(*id, option),
        }
    }

    pub fn getsockopt(&mut self, fd: Fd, name: SocketOptionName) -> Result<SocketOption, Error> {
        match self.sockets.get_mut(&fd).ok_or(Error::BadDescriptor)? {
            Socket::Fresh { options, .. } => options.get(name),
            Socket::Listener(id) => self.stack.tcp_listener_option(*id, name),
            Socket::Stream(id) => self.stack.tcp_option(*id, name),
        }
    }

    /// `SO_ERROR`.
    pub fn pending_error(&mut self, fd: Fd) -> Option<Error> {
        match self.getsockopt(fd, SocketOptionName::PendingError) {
            Ok(SocketOption::PendingError(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// What a call would not have to wait for: `poll`.
    pub fn poll(&self, fd: Fd) -> Result<Readiness, Error> {
        match self.sockets.get(&fd).ok_or(Error::BadDescriptor)? {
            Socket::Fresh { .. } => Ok(Readiness::EMPTY),
            Socket::Listener(id) => self.stack.tcp_listener_readiness(*id),
            Socket::Stream(id) => self.stack.tcp_readiness(*id),
        }
    }

    /// `SIOCINQ`, `SIOCOUTQ` and `SIOCOUTQNSD`: bytes to be read, to be acknowledged, and of those to be sent.
    pub fn queues(&self, fd: Fd) -> Result<(usize, usize, usize), Error> {
        let info = self.stack.tcp_info(self.stream(fd)?).ok_or(Error::BadDescriptor)?;
        Ok((info.receive_queue_bytes, info.send_queue_bytes, info.unsent_bytes as usize))
    }
}

/// Two machines on a wire of 100 us, and their clock.
pub struct Lab {
    pub machines: [Machine; 2],
    pub now_us: u64,
    /// While true, the wire loses everything.
    pub cut: bool,
    /// Sizes of the packets that each machine sent.
    pub sent_bytes: [Vec<usize>; 2],
    wire: VecDeque<(u64, usize, Vec<u8>)>,
}

const LATENCY_US: u64 = 100;

impl Lab {
    pub fn new() -> Self {
        let now_us = 1_000_000;
        Self {
            machines: [Machine::new("10.0.0.1/24", 1, now_us), Machine::new("10.0.0.2/24", 2, now_us)],
            now_us,
            cut: false,
            sent_bytes: [Vec::new(), Vec::new()],
            wire: VecDeque::new(),
        }
    }

    /// So many microseconds pass.
    pub fn pass_us(&mut self, microseconds: u64) {
        let end_us = self.now_us + microseconds;
        for _ in 0..1_000_000 {
            self.exchange();
            let deadlines = self.machines.iter().filter_map(Machine::deadline_us);
            let arrival = self.wire.front().map(|&(at_us, ..)| at_us);
            let next_us = deadlines.chain(arrival).min().unwrap_or(u64::MAX);
            if next_us > end_us {
                self.now_us = end_us;
                return;
            }
            self.now_us = self.now_us.max(next_us);
        }
        panic!("no end of work");
    }

    /// What has arrived is delivered, and what that and the clock bring about goes onto the wire.
    fn exchange(&mut self) {
        while self.wire.front().is_some_and(|&(at_us, ..)| at_us <= self.now_us) {
            if let Some((_, to, packet)) = self.wire.pop_front() {
                self.machines[to].deliver(&packet);
            }
        }
        for from in 0..2 {
            for packet in self.machines[from].run(self.now_us) {
                self.sent_bytes[from].push(packet.len());
                if !self.cut {
                    self.wire.push_back((self.now_us + LATENCY_US, 1 - from, packet));
                }
            }
        }
    }
}
