//! The cache over virtual time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libos::memory::ArenaConfig;
use libos::runtime::TxOffload;
use libos::{Arena, Error, Instant};

use super::*;
use crate::random::Random;
use crate::slab::Key;

const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 8];
const ANSWER: Claim = Claim { solicited: true, overriding: true, create: false };
const HEARSAY: Claim = Claim { solicited: false, overriding: true, create: false };
const GREETING: Claim = Claim { solicited: false, overriding: true, create: true };

fn cache(config: NeighborConfig) -> NeighborCache {
    NeighborCache::new(config, Random::new(1), Instant::ZERO)
}

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn packet(arena: &Arena, mark: u8) -> PendingPacket {
    PendingPacket {
        cut_to: None,
        headers: arena.copy_from(&[mark]).unwrap(),
        payload: Vec::new(),
        offload: TxOffload::default(),
    }
}

fn wait(resolution: Resolution) -> Key {
    match resolution {
        Resolution::Wait { key, .. } => key,
        other => panic!("{other:?}"),
    }
}

/// When a request was sent, in milliseconds, and to whom if not to everybody.
type Request = (u64, Option<[u8; 6]>);

/// Takes all that is due: the requests, and how many packets were dropped.
fn asked(cache: &mut NeighborCache, until: Instant) -> (Vec<Request>, usize) {
    let (mut requests, mut dropped) = (Vec::new(), 0);
    while let Some(now) = cache.next_deadline().filter(|now| *now <= until) {
        while let Some(expiry) = cache.next_expired(now) {
            match expiry {
                Expiry::Ask { known, .. } => requests.push((now.as_nanos() / 1_000_000, known)),
                Expiry::GaveUp { packets, .. } => dropped += packets.len(),
            }
        }
    }
    (requests, dropped)
}

#[test]
fn an_unknown_neighbour_is_asked_for_with_backoff_then_refused_then_asked_for_again() {
    let arena = Arena::new(&ArenaConfig::default()).unwrap();
    let mut cache = cache(NeighborConfig::default());
    assert!(matches!(cache.resolve(at(0), address(1)), Resolution::Wait { ask: true, .. }));
    let key = wait(cache.resolve(at(0), address(1)));
    assert_eq!(cache.resolve(at(0), address(1)), Resolution::Wait { key, ask: false });
    cache.queue(key, packet(&arena, 1));
    let (requests, dropped) = asked(&mut cache, at(7000));
    assert_eq!(requests, [(1000, None), (3000, None)]);
    assert_eq!(dropped, 1);
    assert_eq!(arena.stats().live_buffers, 0);
    assert_eq!(cache.resolve(at(7001), address(1)), Resolution::Refused(Error::HostUnreachable));
    assert_eq!(cache.counters().failures, 1);
    asked(&mut cache, at(10_000));
    assert_eq!(cache.len(), 0);
    assert!(matches!(cache.resolve(at(10_001), address(1)), Resolution::Wait { ask: true, .. }));
}

#[test]
fn ipv6_neighbours_are_asked_for_evenly() {
    let mut cache = cache(NeighborConfig::default());
    let neighbor = "2001:db8::2".parse().unwrap();
    assert!(matches!(cache.resolve(at(0), neighbor), Resolution::Wait { ask: true, .. }));
    assert_eq!(asked(&mut cache, at(2999)), (vec![(1000, None), (2000, None)], 0));
    assert!(matches!(cache.resolve(at(3001), neighbor), Resolution::Wait { ask: false, .. }));
    asked(&mut cache, at(3001));
    assert_eq!(cache.resolve(at(3001), neighbor), Resolution::Refused(Error::HostUnreachable));
}

#[test]
fn an_answer_releases_the_waiting_packets_in_order() {
    let arena = Arena::new(&ArenaConfig::default()).unwrap();
    let mut cache = cache(NeighborConfig { max_pending_packets: 3, ..NeighborConfig::default() });
    let key = wait(cache.resolve(at(0), address(1)));
    for mark in 1..=5 {
        cache.queue(key, packet(&arena, mark));
    }
    let released = cache.learn(at(10), address(1), Some(HARDWARE), ANSWER).unwrap();
    let marks: Vec<u8> = released.packets.iter().map(|packet| packet.headers[0]).collect();
    assert_eq!(marks, [3, 4, 5]);
    assert_eq!(cache.counters().pending_overflows, 2);
    assert_eq!(cache.usable(at(11), key), Some(HARDWARE));
    assert_eq!(cache.next_deadline(), None);
}

#[test]
fn an_address_is_trusted_for_a_while_then_probed_and_forgotten_if_nobody_answers() {
    let mut cache = cache(NeighborConfig::default());
    let key = wait(cache.resolve(at(0), address(1)));
    cache.learn(at(0), address(1), Some(HARDWARE), ANSWER);
    assert_eq!(cache.usable(at(14_999), key), Some(HARDWARE));
    assert_eq!(cache.usable(at(45_001), key), None);
    // An old address is used at once, and the neighbour is asked only if nothing confirms it.
    assert_eq!(cache.resolve(at(50_000), address(1)), Resolution::Known(key, HARDWARE));
    assert_eq!(cache.usable(at(50_001), key), Some(HARDWARE));
    let probe = Some(HARDWARE);
    let (requests, _) = asked(&mut cache, at(57_999));
    assert_eq!(requests, [(55_000, probe), (56_000, probe), (57_000, probe)]);
    assert_eq!(cache.usable(at(57_999), key), Some(HARDWARE));
    asked(&mut cache, at(58_000));
    assert_eq!(cache.usable(at(58_000), key), None);
    assert!(matches!(cache.resolve(at(58_001), address(1)), Resolution::Wait { ask: true, .. }));
}

#[test]
fn progress_of_a_transport_confirms_an_old_address_without_a_probe() {
    let mut cache = cache(NeighborConfig::default());
    let key = wait(cache.resolve(at(0), address(1)));
    cache.learn(at(0), address(1), Some(HARDWARE), ANSWER);
    cache.resolve(at(50_000), address(1));
    cache.confirm(at(50_100), key);
    assert_eq!(asked(&mut cache, at(60_000)).0, []);
    assert_eq!(cache.usable(at(60_000), key), Some(HARDWARE));
}

#[test]
fn claims_change_a_known_neighbour_as_rfc_4861_7_2_5_says() {
    let weak = Claim { solicited: false, overriding: false, create: false };
    let weak_answer = Claim { solicited: true, overriding: false, create: false };
    for (name, hardware, claim, expected, reachable) in [
        ("the same address, unasked", Some(HARDWARE), HEARSAY, HARDWARE, true),
        ("another address, unasked", Some(OTHER), HEARSAY, OTHER, false),
        ("another address, in an answer", Some(OTHER), ANSWER, OTHER, true),
        ("another address, not overriding", Some(OTHER), weak, HARDWARE, false),
        ("another address, in an answer, not overriding", Some(OTHER), weak_answer, HARDWARE, false),
        ("no address, in an answer", None, weak_answer, HARDWARE, true),
    ] {
        let mut cache = cache(NeighborConfig::default());
        let key = wait(cache.resolve(at(0), address(1)));
        cache.learn(at(0), address(1), Some(HARDWARE), ANSWER);
        assert!(cache.learn(at(1), address(1), hardware, claim).is_none());
        assert_eq!(cache.usable(at(2), key).is_some(), reachable, "{name}");
        assert_eq!(cache.resolve(at(2), address(1)), Resolution::Known(key, expected), "{name}");
    }
}

#[test]
fn only_claims_that_say_so_make_new_neighbours() {
    let mut cache = cache(NeighborConfig::default());
    cache.learn(at(0), address(1), Some(HARDWARE), HEARSAY);
    cache.learn(at(0), address(1), Some(HARDWARE), ANSWER);
    assert_eq!(cache.len(), 0);
    cache.learn(at(0), address(1), Some(HARDWARE), GREETING);
    let key = cache.find(address(1));
    assert_eq!(cache.resolve(at(0), address(1)), Resolution::Known(key, HARDWARE));
}

#[test]
fn a_flood_of_greetings_pushes_out_no_neighbour_in_use() {
    let mut cache = cache(NeighborConfig { max_neighbors: 4, ..NeighborConfig::default() });
    let in_use = wait(cache.resolve(at(0), address(200)));
    cache.learn(at(0), address(200), Some(HARDWARE), ANSWER);
    let looked_for = wait(cache.resolve(at(0), address(201)));
    for last in 1..100 {
        cache.learn(at(1), address(last), Some(OTHER), GREETING);
    }
    assert_eq!(cache.len(), 4);
    assert_eq!(cache.usable(at(2), in_use), Some(HARDWARE));
    assert_eq!(cache.resolve(at(2), address(201)), Resolution::Wait { key: looked_for, ask: false });
    assert_ne!(cache.find(address(99)), Key::DANGLING);
}

#[test]
fn when_all_neighbours_are_looked_for_a_further_one_is_refused_and_nobody_harmed() {
    let mut cache = cache(NeighborConfig { max_neighbors: 2, ..NeighborConfig::default() });
    let first = wait(cache.resolve(at(0), address(1)));
    wait(cache.resolve(at(0), address(2)));
    assert_eq!(cache.resolve(at(0), address(3)), Resolution::Refused(Error::NoBuffers));
    assert_eq!(cache.counters().table_full, 1);
    cache.learn(at(1), address(1), Some(HARDWARE), ANSWER);
    assert_eq!(cache.usable(at(1), first), Some(HARDWARE));
}

#[test]
fn looking_for_hosts_that_do_not_exist_leaves_room_for_those_that_do() {
    let mut cache = cache(NeighborConfig { max_neighbors: 8, ..NeighborConfig::default() });
    for last in 1..=100 {
        cache.resolve(at(0), address(last));
    }
    assert_eq!(cache.len(), 6);
    cache.learn(at(0), address(200), Some(HARDWARE), GREETING);
    let key = cache.find(address(200));
    assert_eq!(cache.resolve(at(0), address(200)), Resolution::Known(key, HARDWARE));
    asked(&mut cache, at(20_000));
    assert!(matches!(cache.resolve(at(20_000), address(7)), Resolution::Wait { ask: true, .. }));
}

#[test]
fn a_key_of_an_evicted_neighbour_is_of_no_use() {
    let config =
        NeighborConfig { max_neighbors: 1, retry: Duration::from_secs(1), ..NeighborConfig::default() };
    let mut cache = cache(config);
    let first = wait(cache.resolve(at(0), address(1)));
    cache.learn(at(0), address(1), Some(HARDWARE), ANSWER);
    wait(cache.resolve(at(1), address(2)));
    cache.learn(at(1), address(2), Some(OTHER), ANSWER);
    assert_eq!(cache.usable(at(2), first), None);
}
