//! A frame that goes the straight way in has done all that the general way does with it: two stacks get the same frames, one
//! of which is never asked for its lane.

mod frames;
mod sockets;

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use libos::memory::ArenaConfig;
use libos::metrics::{Snapshot, SnapshotWriter};
use libos::runtime::RxChecksum;
use libos::{Arena, Instant, PopLimit, QueueDescriptor, RxFrame, ScatterGather};

use crate::events::UdpId;
use crate::network::testing::{config, framed, icmp_message, ip_packet, udp_datagram, v4};
use crate::stack::Stack;
use crate::waiting::Waiting;
use crate::wire::{checksum, ethernet, ipv4, udp};

const HEADERS_BYTES: usize = ethernet::HEADER_BYTES + ipv4::HEADER_BYTES + udp::HEADER_BYTES;

/// What became of a frame or of a call: what was handed to whom, what was sent, and what is told.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    told: Vec<String>,
    sent: Vec<Vec<u8>>,
    metrics: Snapshot,
}

/// The pops that wait, by the number of their queue.
#[derive(Default)]
struct Pops {
    waiting: Vec<usize>,
    told: Vec<String>,
}

impl Pops {
    fn end(&mut self, number: usize, data: ScatterGather, from: SocketAddr) -> Result<(), ScatterGather> {
        match self.waiting.get_mut(number) {
            Some(waiting @ 1..) => *waiting -= 1,
            Some(0) | None => return Err(data),
        }
        self.told.push(format!("{number} popped {:?} from {from}", data.to_vec()));
        Ok(())
    }
}

impl Waiting for Pops {
    type Ticket = ();

    fn offer_datagram(
        &mut self,
        user_data: u64,
        from: impl Fn() -> SocketAddr,
        data: ScatterGather,
    ) -> Result<(), ScatterGather> {
        self.end(user_data as usize, data, from())
    }

    fn queue_of_datagrams(&self, user_data: u64) -> Option<QueueDescriptor> {
        Some(QueueDescriptor::from_raw(user_data as u32))
    }

    fn awaits_datagram(&self, queue: QueueDescriptor) -> bool {
        self.waiting.get(queue.raw() as usize) == Some(&1)
    }

    fn give_datagram(
        &mut self,
        queue: QueueDescriptor,
        (source, port): (Ipv4Addr, u16),
        data: ScatterGather,
    ) {
        self.end(queue.raw() as usize, data, (source, port).into()).unwrap();
    }

    fn offer_data(&mut self, _user_data: u64, data: ScatterGather) -> Result<(), ScatterGather> {
        Err(data)
    }

    fn next_for_data(&mut self, _user_data: u64) -> Option<((), PopLimit)> {
        None
    }

    fn data(&mut self, (): (), _data: ScatterGather) {}
}

/// Which way frames come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Straight,
    General,
}

/// A stack and its sockets, each with the lowest number that was free, as descriptors are.
struct World {
    way: Way,
    stack: Stack,
    sockets: Vec<Option<UdpId>>,
    pops: Pops,
    arena: Arena,
    now: Instant,
}

impl World {
    fn new(way: Way) -> Self {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        let stack = Stack::new(&config(1), arena.clone(), 1, Instant::ZERO).unwrap();
        let (sockets, pops) = Default::default();
        Self { way, stack, sockets, pops, arena, now: Instant::ZERO }
    }

    fn tell(&mut self, what: impl Debug) {
        self.pops.told.push(format!("{what:?}"));
    }

    fn frame(&self, bytes: &[u8]) -> RxFrame {
        let head = self.arena.copy_from(bytes).unwrap().freeze();
        RxFrame { checksum: RxChecksum::Verified, ..RxFrame::from(head) }
    }

    /// True when the frame went the straight way.
    fn receive(&mut self, frame: RxFrame) -> bool {
        let was_at_rest = self.stack.is_at_rest();
        let frame = match self.way {
            Way::General => frame,
            Way::Straight => match self.stack.receive_straight(self.now, frame, &mut self.pops) {
                Ok(left_nothing) => {
                    assert!(!was_at_rest || left_nothing == self.stack.is_at_rest());
                    return true;
                }
                Err(frame) => frame,
            },
        };
        self.stack.receive_for(self.now, frame, &mut self.pops);
        false
    }

    fn bind(&mut self, local: SocketAddr) {
        let bound = self.stack.udp_bind(local);
        self.tell(bound);
        let Ok(id) = bound else { return };
        let number = self.sockets.iter().position(Option::is_none).unwrap_or(self.sockets.len());
        self.stack.udp_set_user_data(id, number as u64);
        if number == self.sockets.len() {
            self.sockets.push(None);
            self.pops.waiting.push(0);
        }
        self.sockets[number] = Some(id);
    }

    fn close(&mut self, number: usize) {
        if let Some(id) = self.sockets.get_mut(number).and_then(Option::take) {
            self.pops.waiting[number] = 0;
            self.stack.udp_close(id);
        }
    }

    fn socket(&self, number: usize) -> Option<UdpId> {
        *self.sockets.get(number)?
    }

    /// Pops as a program does: what there is, or what comes.
    fn pop(&mut self, number: usize) {
        if self.socket(number).is_some() {
            self.pops.waiting[number] += 1;
            self.serve(number);
        }
    }

    fn serve(&mut self, number: usize) {
        let Some(id) = self.socket(number) else { return };
        while self.pops.waiting[number] > 0 {
            let ended = match self.stack.udp_receive(id) {
                Ok(None) => return,
                Ok(Some(datagram)) => format!("{:?} from {}", datagram.data.to_vec(), datagram.from),
                Err(error) => format!("{error:?}"),
            };
            self.pops.waiting[number] -= 1;
            self.pops.told.push(format!("{number} popped {ended}"));
        }
    }

    fn outcome(&mut self) -> Outcome {
        let mut sent = Vec::new();
        while let Some(event) = self.stack.next_event() {
            self.tell(event);
            self.serve(event.user_data as usize);
        }
        self.stack.poll(self.now);
        while let Some(frame) = self.stack.frames().front() {
            sent.push(frame.segments.iter().flat_map(|segment| segment.to_vec()).collect());
            self.stack.frames().pop_front();
        }
        let mut writer = SnapshotWriter::new();
        self.stack.metrics(&mut writer);
        Outcome { told: std::mem::take(&mut self.pops.told), sent, metrics: writer.finish() }
    }
}

/// Both worlds, to which the same happens.
struct Worlds([World; 2]);

impl Worlds {
    fn new() -> Self {
        Self([Way::Straight, Way::General].map(World::new))
    }

    /// Lets the same happen to both, which has to have the same outcome. The first one's result.
    fn both<T>(&mut self, what: impl Debug, happen: impl Fn(&mut World) -> T) -> (T, Outcome) {
        let [straight, general] = &mut self.0;
        let result = happen(straight);
        happen(general);
        let outcome = straight.outcome();
        assert_eq!(outcome, general.outcome(), "{what:?}");
        (result, outcome)
    }

    /// True when it went the straight way.
    fn receive(&mut self, what: impl Debug, bytes: &[u8]) -> (bool, Outcome) {
        self.both(what, |world| world.receive(world.frame(bytes)))
    }

    /// Has datagrams of a flow arrive for a pop that waits until they go the straight way.
    fn open_lane(&mut self, number: usize, flow: Flow) {
        let opens = (0..4).any(|_| {
            // What is queued comes first.
            self.both("pop", |world| {
                while world.pops.waiting[number] == 0 {
                    world.pop(number);
                }
            });
            self.receive("opens the lane", &flow.frame(b"opens the lane")).0
        });
        self.both("give up", |world| world.pops.waiting[number] = 0);
        assert!(opens);
    }
}

/// Host and port of a sender, and a port of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    host: u8,
    port: u16,
    our_port: u16,
}

/// The flow of most tests.
const FLOW: Flow = Flow { host: 2, port: 1000, our_port: 7 };

impl Flow {
    fn frame(self, data: &[u8]) -> Vec<u8> {
        let (from, to): (IpAddr, IpAddr) = (v4(self.host).into(), v4(1).into());
        framed(&ip_packet(from, to, 17, &udp_datagram(from, to, (self.port, self.our_port), data)))
    }

    fn remote(self) -> SocketAddr {
        (v4(self.host), self.port).into()
    }

    fn local(self) -> SocketAddr {
        (v4(1), self.our_port).into()
    }

    /// The frame of an ICMP error of a kind and code about a datagram from us.
    fn error(self, kind: u8, code: u8) -> Vec<u8> {
        let (host, us): (IpAddr, IpAddr) = (v4(self.host).into(), v4(1).into());
        let quoted = ip_packet(us, host, 17, &udp_datagram(us, host, (self.our_port, self.port), b"refused"));
        let body = [&[0, 0, 5, 20], &quoted[..]].concat();
        framed(&ip_packet(host, us, 1, &icmp_message(host, us, kind, code, &body)))
    }
}

/// The same with the IPv4 header's checksum made right.
fn mended(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(header) = frame.get_mut(ethernet::HEADER_BYTES..ethernet::HEADER_BYTES + ipv4::HEADER_BYTES) {
        header[10..12].fill(0);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// A socket for the flow, and an open lane for it.
fn with_open_lane() -> Worlds {
    let mut worlds = Worlds::new();
    worlds.both("bind", |world| world.bind(FLOW.local()));
    worlds.open_lane(0, FLOW);
    worlds
}
