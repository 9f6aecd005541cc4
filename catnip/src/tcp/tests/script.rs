//! One stack and a peer played by hand: segments in, segments out, calls in between, in virtual time.

// A script reads better when what it sends is written in place.
#![allow(clippy::needless_pass_by_value)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{Arena, Error, Instant, PopLimit, RxFrame, ScatterGather, SocketOption};

use super::seg::{LOCAL_PORT, Number, PEER_PORT, Seg, pattern, seg};
use crate::events::{ConnectionId, ListenerId};
use crate::stack::{Stack, StackConfig};
use crate::tcp::segment::{Flags, Segment};
use crate::tcp::{State, TcpCounters, TcpInfo, TcpOptions};
use crate::wire::checksum::Checksum;
use crate::wire::ipv4::{self, Ipv4Fields, Ipv4Header};

pub(super) const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The peer's maximum segment size in [`Script::open`], round so that numbers are easy to read.
pub(super) const MSS: u16 = 1_000;
/// The window the peer offers when a script does not say.
pub(super) const WINDOW: u16 = 30_000;

/// The peer's initial sequence number, so near the end that every script crosses the wrap.
const PEER_ISN: u32 = u32::MAX - 700;

/// Gives new sockets a receive buffer that does not grow.
pub(super) fn fix_receive_buffer(config: &mut StackConfig, bytes: usize) {
    config.tcp.options.set(SocketOption::ReceiveBuffer(bytes)).unwrap();
}

/// Gives new sockets a send buffer that does not grow.
pub(super) fn fix_send_buffer(config: &mut StackConfig, bytes: usize) {
    config.tcp.options.set(SocketOption::SendBuffer(bytes)).unwrap();
}

/// A segment that the stack sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub at: Instant,
    pub segment: Segment,
    pub payload: Vec<u8>,
    /// SACK blocks as start and end, as they stand in the header.
    pub sack: Vec<(u32, u32)>,
    pub traffic_class: u8,
}

/// A stack under test, and the far end of its connections.
pub(super) struct Script {
    pub stack: Stack,
    pub now: Instant,
    pub peer_isn: u32,
    pub window: u16,
    arena: Arena,
    /// The stack's initial sequence numbers, by its port and the peer's.
    iss: BTreeMap<(u16, u16), u32>,
    sent: VecDeque<Sent>,
    /// Offsets in the streams that the program writes and reads.
    written: BTreeMap<u32, u32>,
    read: BTreeMap<u32, u32>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self::configured(|_| {})
    }

    pub(super) fn configured(configure: impl FnOnce(&mut StackConfig)) -> Self {
        Self::starting_at(Instant::from_millis(1_000), configure)
    }

    pub(super) fn starting_at(now: Instant, configure: impl FnOnce(&mut StackConfig)) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let device = Capabilities {
            medium: Medium::Ip,
            hardware_address: [0; 6],
            mtu: 1_500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let mut config = StackConfig::new(device).with_address("192.0.2.1/24".parse().unwrap());
        configure(&mut config);
        let stack = Stack::new(&config, arena.clone(), 7, now).unwrap();
        Self {
            stack,
            now,
            peer_isn: PEER_ISN,
            window: WINDOW,
            arena,
            iss: BTreeMap::new(),
            sent: VecDeque::new(),
            written: BTreeMap::new(),
            read: BTreeMap::new(),
        }
    }

    // ---- Segments.

    /// The peer sends a segment. Without an explicit number it is at 1, with the usual window.
    pub(super) fn inject(&mut self, seg: Seg) {
        let frame = self.compose(&seg);
        self.inject_frame(&frame);
    }

    /// An IP packet arrives.
    pub(super) fn inject_frame(&mut self, frame: &[u8]) {
        let buffer = self.arena.copy_from(frame).unwrap().freeze();
        self.stack.receive(self.now, RxFrame::from(buffer));
        self.turn();
    }

    /// The peer sends a segment, which arrives in two buffers: `head_bytes` of the packet, and the others.
    pub(super) fn inject_scattered(&mut self, seg: Seg, head_bytes: usize) {
        let packet = self.compose(&seg);
        let [head, rest] = [&packet[..head_bytes], &packet[head_bytes..]]
            .map(|part| self.arena.copy_from(part).unwrap().freeze());
        self.stack.receive(self.now, RxFrame { rest: vec![rest].into(), ..RxFrame::from(head) });
        self.turn();
    }

    /// Several segments arrive in one burst, before the stack has its turn.
    pub(super) fn inject_burst(&mut self, segs: impl IntoIterator<Item = Seg>) {
        for seg in segs {
            let frame = self.compose(&seg);
            let buffer = self.arena.copy_from(&frame).unwrap().freeze();
            self.stack.receive(self.now, RxFrame::from(buffer));
        }
        self.turn();
    }

    /// The packet with a segment of the peer's.
    pub(super) fn compose(&self, seg: &Seg) -> Vec<u8> {
        let seq = self.raw(seg.seq.unwrap_or(Number::Relative(1)), self.peer_isn);
        let ack = seg.ack.map_or(0, |ack| self.raw(ack, self.iss_of(seg)));
        let payload = seg.payload(seq.wrapping_sub(self.peer_isn));
        let mut options = seg.option_bytes();
        if let Some(blocks) = &seg.sack {
            options.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
            for &number in blocks.iter().flat_map(|(start, end)| [start, end]) {
                options.extend(self.iss_of(seg).wrapping_add(number).to_be_bytes());
            }
        }
        let mut tcp = Vec::new();
        tcp.extend(seg.peer_port.to_be_bytes());
        tcp.extend(seg.local_port.to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        let accurate = u8::from(seg.flags.contains(Flags::AE));
        tcp.push(((20 + options.len()) as u8 / 4) << 4 | accurate);
        tcp.push(seg.flags.bits());
        tcp.extend(seg.window.unwrap_or(self.window).to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(seg.urgent.to_be_bytes());
        tcp.extend(options);
        tcp.extend(payload);
        let mut sum = Checksum::pseudo_header(PEER.into(), LOCAL.into(), 6, tcp.len());
        sum.add_bytes(&tcp);
        tcp[16..18].copy_from_slice(&sum.finish().to_be_bytes());
        ip_packet_in_class(PEER, LOCAL, 6, seg.ecn.unwrap_or(0), &tcp)
    }

    /// The stack has sent this segment, and none before it that was not looked at. Returns it.
    #[track_caller]
    pub(super) fn expect(&mut self, expected: Seg) -> Sent {
        self.turn();
        let Some(sent) = self.sent.pop_front() else {
            panic!("nothing was sent, expected {expected:?}");
        };
        let actual = self.describe(&sent);
        let segment = &sent.segment;
        assert_eq!(
            (segment.source_port, segment.destination_port),
            (expected.local_port, expected.peer_port),
            "{actual}"
        );
        let ignored = if expected.flags.contains(Flags::PSH) { Flags::NONE } else { Flags::PSH };
        assert_eq!(segment.flags.without(ignored), expected.flags, "flags of {actual}");
        if let Some(seq) = expected.seq {
            assert_eq!(segment.sequence.raw(), self.raw(seq, self.iss_of(&expected)), "seq of {actual}");
        }
        if let Some(ack) = expected.ack {
            assert_eq!(segment.acknowledgment.raw(), self.raw(ack, self.peer_isn), "ack of {actual}");
        }
        let seq = segment.sequence.raw().wrapping_sub(self.iss_of(&expected));
        assert_eq!(sent.payload.len(), expected.payload(seq).len(), "payload length of {actual}");
        assert!(sent.payload == expected.payload(seq), "payload of {actual}");
        if expected.window.is_some() {
            assert_eq!(Some(segment.window), expected.window, "window of {actual}");
        }
        if let Some(ecn) = expected.ecn {
            assert_eq!(sent.traffic_class & 3, ecn, "ECN field of {actual}");
        }
        if expected.mss.is_some() {
            assert_eq!(segment.options.mss, expected.mss, "MSS of {actual}");
        }
        if expected.wscale.is_some() {
            assert_eq!(segment.options.window_scale, expected.wscale, "window scale of {actual}");
        }
        if expected.timestamp.is_some() {
            let timestamp = segment.options.timestamp.map(|stamp| (stamp.value, stamp.echo));
            assert_eq!(timestamp, expected.timestamp, "timestamps of {actual}");
        }
        if let Some(blocks) = expected.sack {
            let relative = |number: u32| number.wrapping_sub(self.peer_isn);
            let sent: Vec<_> =
                sent.sack.iter().map(|&(start, end)| (relative(start), relative(end))).collect();
            assert_eq!(sent, blocks, "SACK blocks of {actual}");
        }
        sent
    }

    /// The stack has sent nothing that was not looked at.
    #[track_caller]
    pub(super) fn expect_nothing(&mut self) {
        self.turn();
        if let Some(sent) = self.sent.front() {
            panic!("unexpected {}", self.describe(sent));
        }
    }

    /// Takes whatever the stack has sent.
    pub(super) fn take_sent(&mut self) -> Vec<Sent> {
        self.turn();
        self.sent.drain(..).collect()
    }

    /// The stack's number, relative to its initial sequence number.
    pub(super) fn relative_seq(&self, sent: &Sent) -> u32 {
        let key = (sent.segment.source_port, sent.segment.destination_port);
        sent.segment.sequence.raw().wrapping_sub(self.iss.get(&key).copied().unwrap_or(0))
    }

    /// The stack's initial sequence number for the usual ports.
    pub(super) fn iss(&self) -> u32 {
        self.iss_of(&seg())
    }

    fn iss_of(&self, seg: &Seg) -> u32 {
        self.iss.get(&(seg.local_port, seg.peer_port)).copied().unwrap_or(0)
    }

    fn raw(&self, number: Number, initial: u32) -> u32 {
        match number {
            Number::Relative(relative) => initial.wrapping_add(relative),
            Number::Raw(raw) => raw,
        }
    }

    fn describe(&self, sent: &Sent) -> String {
        let segment = &sent.segment;
        format!(
            "{} ms: {:?} seq {} ack {} len {} win {} {:?}",
            (sent.at - Instant::ZERO).as_millis(),
            segment.flags,
            self.relative_seq(sent),
            segment.acknowledgment.raw().wrapping_sub(self.peer_isn),
            sent.payload.len(),
            segment.window,
            segment.options,
        )
    }

    // ---- Time.

    /// The stack has its turns until it wants no more, and no time passes.
    #[track_caller]
    pub(super) fn turn(&mut self) {
        for _ in 0..1_000 {
            self.stack.poll(self.now);
            self.collect();
            assert_eq!(self.stack.tcp_broken_invariant(), None);
            if !self.stack.needs_poll() {
                return;
            }
        }
        panic!("the stack never rests");
    }

    /// `millis` milliseconds pass. The stack wakes when it wants to.
    #[track_caller]
    pub(super) fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        for _ in 0..100_000 {
            self.turn();
            match self.stack.next_deadline() {
                Some(next) if next <= end => self.now = self.now.max(next),
                Some(_) | None => {
                    self.now = end;
                    self.turn();
                    return;
                }
            }
        }
        panic!("the stack's deadlines never come to an end");
    }

    fn collect(&mut self) {
        while let Some(frame) = self.stack.frames().front() {
            let packet: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
            self.stack.frames().pop_front();
            let header = Ipv4Header::parse(&packet, packet.len()).unwrap();
            assert_eq!((header.source(), header.destination()), (LOCAL, PEER));
            let tcp = &packet[header.header_len()..];
            let mut sum = Checksum::pseudo_header(LOCAL.into(), PEER.into(), 6, tcp.len());
            sum.add_bytes(tcp);
            assert!(sum.is_right(), "the checksum of a sent segment is wrong");
            let segment = Segment::parse(tcp).unwrap();
            assert!(!segment.options.malformed);
            if segment.flags.contains(Flags::SYN) {
                self.iss.insert((segment.source_port, segment.destination_port), segment.sequence.raw());
            }
            self.sent.push_back(Sent {
                at: self.now,
                payload: tcp[segment.header_bytes..].to_vec(),
                sack: segment.sack_blocks(tcp).map(|(start, end)| (start.raw(), end.raw())).collect(),
                traffic_class: header.traffic_class(),
                segment,
            });
        }
    }

    // ---- The program's calls.

    pub(super) fn listen_with(&mut self, backlog: usize, options: &TcpOptions) -> ListenerId {
        let binding = self.stack.tcp_bind(local(LOCAL_PORT)).unwrap();
        self.stack.tcp_listen(binding, backlog, options).unwrap()
    }

    pub(super) fn listen(&mut self) -> ListenerId {
        let options = self.stack.default_tcp_options().clone();
        self.listen_with(16, &options)
    }

    /// A connection that the peer opened, with an MSS of [`MSS`] and no other option.
    pub(super) fn open(&mut self) -> ConnectionId {
        self.open_with(seg().mss(MSS))
    }

    /// A connection that the peer opened with the options and window of `syn`.
    #[track_caller]
    pub(super) fn open_with(&mut self, syn: Seg) -> ConnectionId {
        let listener = self.listen();
        self.open_on(listener, syn)
    }

    #[track_caller]
    pub(super) fn open_on(&mut self, listener: ListenerId, syn: Seg) -> ConnectionId {
        let timestamp = syn.timestamp;
        self.inject(syn.seq(0).syn());
        let sent = self.expect(seg().syn().seq(0).ack(1));
        let mut ack = seg().ack(1);
        if let Some((value, _)) = timestamp {
            ack = ack.ts(value, sent.segment.options.timestamp.unwrap().value);
        }
        self.inject(ack);
        self.expect_nothing();
        let (id, peer) = self.stack.tcp_accept(listener).unwrap();
        assert_eq!(peer, SocketAddr::new(PEER.into(), PEER_PORT));
        assert_eq!(self.state(id), State::Established);
        id
    }

    /// Begins a connection to the peer's usual port from the stack's; its SYN is not looked at.
    pub(super) fn connect(&mut self) -> ConnectionId {
        let options = self.stack.default_tcp_options().clone();
        self.try_connect(&options).unwrap()
    }

    pub(super) fn try_connect(&mut self, options: &TcpOptions) -> Result<ConnectionId, Error> {
        let binding = self.stack.tcp_bind(local(LOCAL_PORT))?;
        let id = self.stack.tcp_connect(self.now, &mut Some(binding), remote(PEER_PORT), options)?;
        self.turn();
        Ok(id)
    }

    /// The program writes `len` bytes of the pattern; returns how many the send queue took.
    pub(super) fn try_write(&mut self, id: ConnectionId, len: usize) -> Result<usize, Error> {
        let taken = self.queue(id, len)?;
        self.turn();
        Ok(taken)
    }

    /// As [`Self::try_write`], and the stack does not get its turn yet.
    pub(super) fn queue(&mut self, id: ConnectionId, len: usize) -> Result<usize, Error> {
        let start = self.written.get(&id.0.index).copied().unwrap_or(0);
        let bytes: Vec<u8> = (0..len as u32).map(|at| pattern(start + at)).collect();
        let mut data = ScatterGather::from(self.arena.copy_from(&bytes).unwrap().freeze());
        let taken = self.stack.tcp_send(id, &mut data)?;
        self.written.insert(id.0.index, start + taken as u32);
        Ok(taken)
    }

    #[track_caller]
    pub(super) fn write(&mut self, id: ConnectionId, len: usize) {
        assert_eq!(self.try_write(id, len), Ok(len));
    }

    /// The program reads up to `limit` bytes of what has arrived; they are checked against the pattern.
    #[track_caller]
    pub(super) fn read_at_most(&mut self, id: ConnectionId, limit: usize) -> usize {
        let start = self.read.get(&id.0.index).copied().unwrap_or(0);
        let mut len = 0;
        while len < limit {
            let pop = PopLimit { segments: usize::MAX, bytes: limit - len };
            match self.stack.tcp_receive(id, pop) {
                Ok(Some(data)) if !data.is_empty() => {
                    for byte in data.to_vec() {
                        assert_eq!(byte, pattern(start + len as u32), "byte {} of the stream", len);
                        len += 1;
                    }
                }
                Ok(Some(_) | None) | Err(_) => break,
            }
        }
        self.read.insert(id.0.index, start + len as u32);
        self.turn();
        len
    }

    /// The program reads all that has arrived.
    #[track_caller]
    pub(super) fn read(&mut self, id: ConnectionId) -> usize {
        self.read_at_most(id, usize::MAX)
    }

    /// What the next read gives: `Ok(Some(0))` is the end of the stream.
    pub(super) fn read_outcome(&mut self, id: ConnectionId) -> Result<Option<usize>, Error> {
        Ok(self.stack.tcp_receive(id, PopLimit::default())?.map(|data| data.len()))
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        self.stack.tcp_close(self.now, id);
        self.turn();
    }

    #[track_caller]
    pub(super) fn info(&self, id: ConnectionId) -> TcpInfo {
        self.stack.tcp_info(id).unwrap()
    }

    #[track_caller]
    pub(super) fn state(&self, id: ConnectionId) -> State {
        self.info(id).state
    }

    /// Buffers of the stack's memory that somebody holds.
    pub(super) fn live_buffers(&self) -> usize {
        self.arena.stats().live_buffers
    }

    pub(super) fn counters(&self) -> &TcpCounters {
        self.stack.tcp_counters()
    }
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(LOCAL), port)
}

pub(super) fn remote(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(PEER), port)
}

/// An IPv4 packet.
pub(super) fn ip_packet(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ip_packet_in_class(source, destination, protocol, 0, payload)
}

/// An IPv4 packet of a traffic class.
fn ip_packet_in_class(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    traffic_class: u8,
    payload: &[u8],
) -> Vec<u8> {
    let fields = Ipv4Fields {
        traffic_class,
        total_len: (ipv4::HEADER_BYTES + payload.len()) as u16,
        identification: 1,
        dont_fragment: true,
        time_to_live: 64,
        protocol,
        source,
        destination,
    };
    let mut packet = fields.compose().to_vec();
    packet.extend(payload);
    packet
}
