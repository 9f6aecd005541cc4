//! A flood of SYNs at the rate that the link carries, and what those with a connection notice of it.

use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;

use super::{PORT, SOON, stream_bytes};
use crate::host::{HostConfig, Kind, Received, Socket, address};
use crate::raw::{RawPeer, SYN, Tcp};
use crate::world::World;

/// Bits a second of the victim's link, and what the stream offers of them: 64 of 100.
const LINK_BITS_PER_S: u64 = 1_000_000_000;
const STEP: Duration = Duration::from_micros(100);
const STREAM_BYTES_PER_STEP: usize = 8_000;
/// SYNs of 40 bytes, with which the rest of the link is full.
const SYNS_PER_STEP: u32 = 100;
const STEPS: usize = 1_000;
const BACKLOG: usize = 64;

/// The victim, host 1, with a stream from host 0, and an attacker.
struct Siege {
    world: World,
    attacker: RawPeer,
    listener: Socket,
    stream: (Socket, Socket),
    sent: usize,
    received: Vec<u8>,
    bytes: Vec<u8>,
    syns: u32,
}

impl Siege {
    fn new() -> Self {
        let mut configs = [HostConfig::new(Kind::Catnip, 1), HostConfig::new(Kind::Catnip, 2)];
        for config in &mut configs {
            config.path.bandwidth_bits_per_s = Some(LINK_BITS_PER_S);
            config.receive_buffer_bytes = 1 << 20;
            config.send_buffer_bytes = 1 << 20;
        }
        let mut world = World::new(Medium::Ip, 1, &configs);
        let attacker = RawPeer::new(&world.fabric, Medium::Ip, 9);
        let listener = world.host(1).listen(PORT, BACKLOG);
        let stream = world.connect_to(0, 1, listener, None);
        let bytes = stream_bytes(2 * STEPS * STREAM_BYTES_PER_STEP);
        Self { world, attacker, listener, stream, sent: 0, received: Vec::new(), bytes, syns: 0 }
    }

    fn flood(&mut self) {
        for _ in 0..SYNS_PER_STEP {
            self.syns += 1;
            let syn = self.attacker.tcp(&Tcp {
                to: SocketAddr::new(address(2, false), PORT),
                from_port: (self.syns % 64_000) as u16 + 1_000,
                sequence: self.syns.wrapping_mul(2_654_435_761),
                acknowledgement: 0,
                flags: SYN,
                window: 10_000,
                options: &[2, 4, 5, 180],
                payload: &[],
            });
            self.world.fabric.inject(self.attacker.port(), &syn);
        }
        self.attacker.received();
    }

    /// The attack begins: after a while of it the victim takes it for one.
    fn begin(&mut self) {
        for _ in 0..25 {
            self.flood();
            self.world.run_for(STEP * 100);
        }
        self.syns = 0;
    }

    /// Offers the stream its share for a while. Returns the bytes that arrived.
    fn run(&mut self, floods: bool) -> usize {
        let before = self.received.len();
        for _ in 0..STEPS {
            if floods {
                self.flood();
            }
            let end = self.bytes.len().min(self.sent + STREAM_BYTES_PER_STEP);
            let taken = self.world.hosts[0].send(self.stream.0, &self.bytes[self.sent..end]);
            self.sent += taken.expect("the stream is open");
            while let Received::Data(data) =
                self.world.hosts[1].receive(self.stream.1, 65_536).expect("the stream is open")
            {
                self.received.extend(data);
            }
            self.world.run_for(STEP);
        }
        assert!(self.received == self.bytes[..self.received.len()]);
        self.received.len() - before
    }
}

#[test]
fn a_syn_flood_at_the_links_limit_leaves_a_stream_its_throughput_and_the_port_open() {
    let mut siege = Siege::new();
    let in_peace = siege.run(false);
    siege.begin();
    let under_attack = siege.run(true);
    assert!(in_peace * 100 >= STEPS * STREAM_BYTES_PER_STEP * 99, "{in_peace} bytes in peace");
    assert!(under_attack * 100 >= in_peace * 90, "{under_attack} of {in_peace} bytes");
    let victim = &siege.world.hosts[1];
    assert!(victim.counter("catnip.tcp.syn_cookies_sent") > u64::from(siege.syns) * 9 / 10);
    assert!(victim.states().len() <= BACKLOG + 1, "{} connections kept", victim.states().len());
    // Half-open connections still fill the backlog, and yet somebody new gets in.
    let (near, far) = siege.world.connect_to(0, 1, siege.listener, None);
    assert_eq!(siege.world.hosts[1].counter("catnip.tcp.syn_cookies_received"), 1);
    let bytes = stream_bytes(50_000);
    siege.world.send_all(0, near, &bytes);
    assert_eq!(siege.world.receive_exactly(1, far, bytes.len(), SOON), bytes);
}
