//! One stack, a virtual clock of microseconds, and raw packets in and out.

use std::net::SocketAddr;

use catnip::events::{ConnectionId, ListenerId, UdpId};
use catnip::{Stack, StackConfig};
use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{
    Arena, Config, Error, Instant, PopLimit, RxFrame, ScatterGather, SocketOption, SocketOptionName,
};

use crate::wire::{ACK, Family, Packet, SYN, Tcp};

/// The stack's hardware address, where there are any.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const START_US: u64 = 1_000_000;

pub struct Host {
    pub stack: Stack,
    pub arena: Arena,
    pub now_us: u64,
    /// Frames that were sent, with their time.
    pub sent: Vec<(u64, Vec<u8>)>,
}

fn instant(us: u64) -> Instant {
    Instant::from_nanos(us * 1_000)
}

impl Host {
    /// A stack on a link of bare IP packets, with a configuration beside its addresses.
    pub fn new(toml: &str) -> Self {
        Self::on(Medium::Ip, toml)
    }

    /// A stack on an Ethernet whose beginnings are over.
    pub fn on_ethernet(toml: &str) -> Self {
        let mut host = Self::on(Medium::Ethernet, toml);
        host.pass_ms(10_000);
        host.sent.clear();
        host
    }

    fn on(medium: Medium, toml: &str) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 32 << 20, hugepages: false }).unwrap();
        let device = Capabilities {
            medium,
            hardware_address: MAC,
            mtu: 1_500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let config = Config::from_toml_str("set", toml).unwrap();
        let config = StackConfig::from_config(&config, device)
            .unwrap()
            .with_address("192.0.2.1/24".parse().unwrap())
            .with_address("2001:db8::1/64".parse().unwrap());
        let stack = Stack::new(&config, arena.clone(), 7, instant(START_US)).unwrap();
        let mut host = Self { stack, arena, now_us: START_US, sent: Vec::new() };
        host.turn();
        host
    }

    pub fn now(&self) -> Instant {
        instant(self.now_us)
    }

    pub fn turn(&mut self) {
        for _ in 0..10_000 {
            self.stack.poll(instant(self.now_us));
            while let Some(frame) = self.stack.frames().front() {
                let bytes = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
                self.stack.frames().pop_front();
                self.sent.push((self.now_us, bytes));
            }
            while self.stack.next_event().is_some() {}
            assert_eq!(self.stack.tcp_broken_invariant(), None);
            if !self.stack.needs_poll() {
                return;
            }
        }
        panic!("the stack never rests");
    }

    pub fn inject(&mut self, bytes: &[u8]) {
        let buffer = self.arena.copy_from(bytes).expect("memory").freeze();
        self.stack.receive(instant(self.now_us), RxFrame::from(buffer));
        self.turn();
    }

    pub fn pass_us(&mut self, us: u64) {
        let end = self.now_us + us;
        self.turn();
        for _ in 0..1_000_000 {
            let next = self.stack.next_deadline().map(|deadline| deadline.as_nanos().div_ceil(1_000));
            match next {
                Some(next) if next <= end => {
                    self.now_us = self.now_us.max(next);
                    self.turn();
                }
                Some(_) | None => {
                    self.now_us = end;
                    self.turn();
                    return;
                }
            }
        }
        panic!("no end of deadlines");
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.pass_us(ms * 1_000);
    }

    /// What was sent since the last call: bare packets.
    pub fn packets(&mut self) -> Vec<Packet> {
        self.sent.drain(..).map(|(at, bytes)| Packet::parse(at, &bytes)).collect()
    }

    /// What is sent at once when a frame comes: frames.
    pub fn ask_frame(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.sent.clear();
        self.inject(frame);
        self.sent.drain(..).map(|(_, frame)| frame).collect()
    }

    pub fn segments(&mut self) -> Vec<Tcp> {
        self.packets().iter().map(Packet::tcp).collect()
    }

    pub fn ask(&mut self, bytes: &[u8]) -> Vec<Packet> {
        self.sent.clear();
        self.inject(bytes);
        self.packets()
    }

    // ---- Calls.

    pub fn listen(&mut self, family: Family, port: u16, set: &[SocketOption]) -> ListenerId {
        let mut options = self.stack.default_tcp_options().clone();
        set.iter().for_each(|&option| options.set(option).unwrap());
        let binding = self.stack.tcp_bind(SocketAddr::new(family.stack(), port)).unwrap();
        self.stack.tcp_listen(binding, 16, &options).unwrap()
    }

    pub fn connect(&mut self, family: Family, port: u16, set: &[SocketOption]) -> ConnectionId {
        let mut options = self.stack.default_tcp_options().clone();
        set.iter().for_each(|&option| options.set(option).unwrap());
        let binding = self.stack.tcp_bind(SocketAddr::new(family.stack(), port)).unwrap();
        let remote = SocketAddr::new(family.peer(), PEER_PORT);
        let id = self.stack.tcp_connect(instant(self.now_us), &mut Some(binding), remote, &options).unwrap();
        self.turn();
        id
    }

    pub fn send(&mut self, id: ConnectionId, bytes: &[u8]) -> Result<usize, Error> {
        let mut data = ScatterGather::from(self.arena.copy_from(bytes).unwrap().freeze());
        let taken = self.stack.tcp_send(id, &mut data);
        self.turn();
        taken
    }

    pub fn read(&mut self, id: ConnectionId) -> Result<Option<Vec<u8>>, Error> {
        let limit = PopLimit { segments: usize::MAX, bytes: usize::MAX };
        let read = self.stack.tcp_receive(id, limit).map(|data| data.map(|data| data.to_vec()));
        self.turn();
        read
    }

    pub fn send_datagram(
        &mut self,
        socket: UdpId,
        to: Option<&SocketAddr>,
        bytes: &[u8],
    ) -> Result<(), Error> {
        let mut data = ScatterGather::from(self.arena.copy_from(bytes).unwrap().freeze());
        let sent = self.stack.udp_send(self.now(), socket, to, &mut data);
        self.turn();
        sent
    }

    pub fn close(&mut self, id: ConnectionId) {
        self.stack.tcp_close(instant(self.now_us), id);
        self.turn();
    }

    pub fn error(&mut self, id: ConnectionId) -> Option<Error> {
        match self.stack.tcp_option(id, SocketOptionName::PendingError).unwrap() {
            SocketOption::PendingError(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub fn state(&self, id: ConnectionId) -> &'static str {
        self.stack.tcp_info(id).map_or("none", |info| info.state.name())
    }
}

pub const PEER_PORT: u16 = 40_000;
pub const PORT: u16 = 80;

/// A segment in relative numbers: flags, sequence number, acknowledgment and bytes of payload.
pub type Shown = (u8, u32, u32, usize);

/// The peer's side of one connection, played by hand.
#[derive(Debug, Clone)]
pub struct Peer {
    pub family: Family,
    /// The peer's and the stack's initial sequence numbers.
    pub isn: u32,
    pub iss: u32,
    pub port: u16,
    pub window: u16,
    /// Of segments behind the SYN.
    pub options: Vec<u8>,
}

impl Peer {
    pub fn new(family: Family) -> Self {
        Self { family, isn: u32::MAX - 700, iss: 0, port: PEER_PORT, window: 30_000, options: Vec::new() }
    }

    /// A segment; numbers count from the initial ones.
    pub fn segment(&self, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Tcp {
        Tcp {
            ports: (self.port, PORT),
            seq: self.isn.wrapping_add(seq),
            ack: if flags & ACK == 0 { 0 } else { self.iss.wrapping_add(ack) },
            flags,
            window: self.window,
            urgent: 0,
            options: if flags & SYN == 0 { self.options.clone() } else { Vec::new() },
            payload: payload.to_vec(),
        }
    }

    pub fn packet(&self, segment: &Tcp) -> Vec<u8> {
        segment.packet(self.family.peer(), self.family.stack())
    }

    /// Sends a segment and returns what the stack answers at once.
    pub fn ask(&self, host: &mut Host, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<Tcp> {
        self.ask_with(host, &self.segment(flags, seq, ack, payload))
    }

    pub fn ask_with(&self, host: &mut Host, segment: &Tcp) -> Vec<Tcp> {
        host.sent.clear();
        host.inject(&self.packet(segment));
        host.segments()
    }

    /// What a sent segment says.
    pub fn shown(&self, segment: &Tcp) -> Shown {
        (
            segment.flags,
            segment.seq.wrapping_sub(self.iss),
            if segment.flags & ACK == 0 { segment.ack } else { segment.ack.wrapping_sub(self.isn) },
            segment.payload.len(),
        )
    }

    pub fn shown_all(&self, segments: &[Tcp]) -> Vec<Shown> {
        segments.iter().map(|segment| self.shown(segment)).collect()
    }

    /// As [`Self::ask`], in relative numbers.
    pub fn tell(&self, host: &mut Host, flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Vec<Shown> {
        let answers = self.ask(host, flags, seq, ack, payload);
        self.shown_all(&answers)
    }

    /// A connection that the peer opened, accepted.
    pub fn opened(
        family: Family,
        toml: &str,
        syn_options: &[u8],
        set: &[SocketOption],
    ) -> (Host, Self, ConnectionId) {
        let mut host = Host::new(toml);
        let mut peer = Self::new(family);
        let listener = host.listen(family, PORT, set);
        let mut syn = peer.segment(SYN, 0, 0, b"");
        syn.options = syn_options.to_vec();
        let answers = peer.ask_with(&mut host, &syn);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].flags, SYN | ACK);
        peer.iss = answers[0].seq;
        host.pass_ms(10);
        assert_eq!(peer.tell(&mut host, ACK, 1, 1, b""), []);
        let (id, _) = host.stack.tcp_accept(listener).expect("accepted");
        (host, peer, id)
    }
}
