//! Addresses that are not there from the start: one core asks a DHCP server, or whether anybody else has them; all have
//! what comes of it.

use std::time::Duration;

use catnip_os::catnip::network::ConflictDetection;
use catnip_os::libos::runtime::{RxBatch, TxOffload};
use catnip_os::libos::{Arena, FrameBatch, Instant, Runtime};
use catnip_os::runtime_sim::{Faults, SimRuntime};

use crate::device::Spreading;
use crate::host::{Shape, World};

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
/// Where a message's options begin, behind the fixed fields and four bytes (RFC 2131 section 2).
const OPTIONS: usize = 240;
/// Two minutes, of which half are over when it is renewed.
const LEASE_S: u32 = 120;
const SERVER: [u8; 4] = [10, 0, 0, 3];
/// The cores' address and station.
const CORES: [u8; 4] = [10, 0, 0, 1];
const CORES_STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_STATION: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// The kind of a client's message.
fn kind(message: &[u8]) -> Option<u8> {
    let mut options = message.get(OPTIONS..)?;
    while let [code, len, rest @ ..] = options
        && *code != 255
    {
        let (body, behind) = rest.split_at_checked(usize::from(*len))?;
        if *code == 53 {
            return body.first().copied();
        }
        options = behind;
    }
    None
}

/// The server's answer: 10.0.0.1 for a while.
fn answer(message: &[u8], kind: u8) -> Vec<u8> {
    let mut answer = message[..OPTIONS].to_vec();
    answer[0] = 2;
    answer[16..20].copy_from_slice(&[10, 0, 0, 1]);
    answer.extend([53, 1, kind, 54, 4]);
    answer.extend(SERVER);
    answer.extend([1, 4, 255, 255, 255, 0, 51, 4]);
    answer.extend(LEASE_S.to_be_bytes());
    answer.push(255);
    answer
}

/// A datagram to everybody, from the server's port to the clients'.
fn broadcast(data: &[u8]) -> Vec<u8> {
    let len = |headers: usize| u16::try_from(headers + data.len()).unwrap().to_be_bytes();
    let mut ip = [[0x45, 0], len(28), [0; 2], [0; 2], [64, 17], [0; 2]].concat();
    ip.extend(SERVER.iter().chain(&[255; 4]));
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    // Without a checksum (RFC 768).
    let udp = [[0, 67], [0, 68], len(8), [0; 2]].concat();
    [&[255; 6], &SERVER_STATION[..], &[8, 0], &ip, &udp, data].concat()
}

/// A DHCP server of a few lines, which is no stack: one of ours takes nothing from hosts that have no address yet.
struct Server {
    port: SimRuntime,
    arena: Arena,
    /// What clients sent, in order.
    asked: Vec<u8>,
}

impl Server {
    fn new(world: &World) -> Self {
        let (port, arena) = world.raw_port(3);
        Self { port, arena, asked: Vec::new() }
    }

    fn poll(&mut self, now: Instant) {
        let mut frames = RxBatch::new();
        self.port.receive(now, &mut frames).unwrap();
        let mut answers = FrameBatch::new();
        for frame in frames {
            if let Some(answer) = self.answer(&frame.head) {
                answers.push(self.arena.copy_from(&answer).unwrap().freeze());
                answers.finish(TxOffload::default());
            }
        }
        self.port.transmit(now, &mut answers).unwrap();
    }

    fn answer(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let packet = frame.get(14..)?;
        if frame[12..14] == [8, 6] && packet[24..28] == SERVER {
            // An ARP reply (RFC 826), for renewals, which are not broadcast.
            let (operation, sender) = (&[0, 2], &packet[8..18]);
            return Some(
                [
                    &frame[6..12],
                    &SERVER_STATION,
                    &[8, 6],
                    &packet[..6],
                    operation,
                    &SERVER_STATION,
                    &SERVER,
                    sender,
                ]
                .concat(),
            );
        }
        if frame[12..14] != [8, 0] || packet[9] != 17 || packet[22..24] != [0, 67] {
            return None;
        }
        let kind = kind(&packet[28..])?;
        self.asked.push(kind);
        Some(broadcast(&answer(&packet[28..], if kind == DISCOVER { OFFER } else { ACK })))
    }
}

/// So many cores, without an IPv4 address of their own.
fn world(cores: usize, shape: Shape, seed: u64) -> World {
    World::configured(cores, shape, seed, Faults::default(), |config| {
        config.addresses.retain(|prefix| prefix.address.is_ipv6());
        config.dhcp = true;
    })
}

#[test]
fn one_core_gets_and_renews_the_address_and_all_have_it() {
    for shape in [Shape::Queues(Spreading::InTurn), Shape::Queues(Spreading::ToTheLast), Shape::OneQueue] {
        let world = world(3, shape, 11);
        let mut server = Server::new(&world);
        let counts = |name: &str| [0, 1, 2].map(|core| world.count(core, &format!("network.dhcp.{name}")));
        world.run_until(&[], || {
            server.poll(world.client.now());
            counts("bound") == [1; 3]
        });
        assert_eq!(server.asked, [DISCOVER, REQUEST]);
        world.run_until(&[], || {
            server.poll(world.client.now());
            counts("renewals") == [3; 3]
        });
        assert_eq!(counts("messages_out")[1..], [0, 0], "core 0 alone asks");
        assert_eq!(server.asked[2..], [REQUEST; 3]);
        assert_eq!((counts("bound"), counts("expirations")), ([1; 3], [0; 3]));
    }
}

#[test]
fn when_the_core_that_asks_stays_away_the_others_keep_the_lease() {
    let world = world(2, Shape::Queues(Spreading::ToTheLast), 12);
    let mut server = Server::new(&world);
    let count = |name: &str| world.count(1, &format!("network.dhcp.{name}"));
    world.run_until(&[], || {
        server.poll(world.client.now());
        count("bound") == 1
    });
    assert_eq!(count("messages_out"), 0);
    world.run_until(&[0], || {
        server.poll(world.client.now());
        count("renewals") == 2
    });
    assert_eq!((count("bound"), count("expirations")), (1, 0));
    assert_eq!(count("messages_out"), 2, "{:?}", server.asked);
}

/// A host that sees everything on the link, and may claim the IPv4 address of the cores.
struct Neighbour {
    port: SimRuntime,
    arena: Arena,
    claims: bool,
    /// ARP probes and announcements of the cores, and neighbour solicitations and advertisements.
    heard: [usize; 4],
}

impl Neighbour {
    fn new(world: &World, claims: bool) -> Self {
        let (port, arena) = world.raw_port(3);
        Self { port, arena, claims, heard: [0; 4] }
    }

    fn poll(&mut self, now: Instant) {
        let mut frames = RxBatch::new();
        self.port.receive(now, &mut frames).unwrap();
        let mut claims = FrameBatch::new();
        for frame in frames.iter().map(|frame| &frame.head).filter(|frame| frame[6..12] == CORES_STATION) {
            let heard = match (&frame[12..14], &frame[28..32]) {
                ([8, 6], [0, 0, 0, 0]) => 0,
                ([8, 6], _) if frame[38..42] == CORES => 1,
                ([0x86, 0xdd], _) if frame[20] == 58 && frame[54] == 135 => 2,
                ([0x86, 0xdd], _) if frame[20] == 58 && frame[54] == 136 => 3,
                _ => continue,
            };
            self.heard[heard] += 1;
            if heard == 0 && self.claims {
                // The address is this host's (RFC 5227 section 2.1.1).
                let (header, body) = ([8, 6, 0, 1, 8, 0, 6, 4, 0, 2], [SERVER_STATION, CORES_STATION]);
                let [[own, to], nobody] = [body, [[0; 6]; 2]];
                let reply = [&to[..], &own, &header, &own, &CORES, &to, &nobody[0][..4]].concat();
                claims.push(self.arena.copy_from(&reply).unwrap().freeze());
                claims.finish(TxOffload::default());
            }
        }
        self.port.transmit(now, &mut claims).unwrap();
    }
}

fn probing(cores: usize, shape: Shape) -> World {
    World::configured(cores, shape, 21, Faults::default(), |config| {
        config.conflict_detection = ConflictDetection::Probe;
    })
}

const SHAPES: [Shape; 3] =
    [Shape::Queues(Spreading::InTurn), Shape::Queues(Spreading::ToTheLast), Shape::OneQueue];

#[test]
fn one_core_asks_whether_an_address_is_free_and_tells_that_it_is_ours_and_all_use_it() {
    for shape in SHAPES {
        let world = probing(3, shape);
        let mut neighbour = Neighbour::new(&world, false);
        let awaited = || (0..3).map(|core| world.count(core, "network.awaits_addresses")).sum::<u64>();
        assert_eq!(awaited(), 3, "no core uses an address before it is known to be free");
        world.run_until(&[], || {
            neighbour.poll(world.client.now());
            awaited() == 0 && neighbour.heard[1] == 2
        });
        let end = world.client.now() + Duration::from_secs(10);
        world.run_until(&[], || {
            neighbour.poll(world.client.now());
            world.client.now() > end
        });
        let [probes, announcements, solicitations, advertisements] = neighbour.heard;
        assert_eq!((probes, announcements), (3, 2), "RFC 5227: PROBE_NUM and ANNOUNCE_NUM, {shape:?}");
        // A configured address and one for the link.
        assert_eq!((solicitations, advertisements), (2, 2), "{shape:?}");
    }
}

#[test]
fn an_address_that_somebody_has_is_used_by_no_core() {
    for shape in SHAPES {
        let world = probing(3, shape);
        let mut neighbour = Neighbour::new(&world, true);
        world.run_until(&[], || {
            neighbour.poll(world.client.now());
            (0..3).all(|core| world.count(core, "network.awaits_addresses") == 0)
        });
        for core in 0..3 {
            assert_eq!(world.count(core, "network.address_duplicates"), 1, "core {core}, {shape:?}");
        }
    }
}

#[test]
fn when_cores_stay_away_before_they_asked_the_next_one_asks_and_the_others_hear_the_answer() {
    for (away, claims) in [(&[0][..], false), (&[0, 1], false), (&[0], true)] {
        let world = probing(3, Shape::Queues(Spreading::ToTheLast));
        let mut neighbour = Neighbour::new(&world, claims);
        let there = || (0..3).filter(|core| !away.contains(core));
        world.run_until(away, || {
            neighbour.poll(world.client.now());
            there().all(|core| world.count(core, "network.awaits_addresses") == 0)
        });
        let end = world.client.now() + Duration::from_secs(10);
        world.run_until(away, || {
            neighbour.poll(world.client.now());
            world.client.now() > end
        });
        for core in there() {
            let duplicates = world.count(core, "network.address_duplicates");
            assert_eq!(duplicates, u64::from(claims), "core {core} without {away:?}");
        }
        let [probes, announcements, solicitations, advertisements] = neighbour.heard;
        let expected = if claims { (1, 0) } else { (3, 2) };
        assert_eq!((probes, announcements), expected, "one core asks, without {away:?}");
        assert_eq!((solicitations, advertisements), (2, 2), "without {away:?}");
    }
}
