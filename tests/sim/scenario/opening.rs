//! Opening connections: duplicates, crossings, refusals, numbers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use runtime_sim::Verdict;

use super::{FAR_KINDS, PORT, SOON, latency, pair, pair_with, stream_bytes};
use crate::host::{Failure, HostConfig, Kind, Opening, address};
use crate::world::World;

#[test]
fn duplicated_syn_does_not_fail_accept() {
    // The copy comes at once, during the connection, and after it.
    for far in FAR_KINDS {
        for copy_after in [0, 5, 700].map(Duration::from_millis) {
            for server in [0, 1] {
                let mut world = pair_with(far, latency(Duration::from_millis(1)));
                let client = 1 - server;
                let listener = world.host(server).listen(PORT, 4);
                let mut done = false;
                world.script(server, move |_, segment| {
                    let is_syn = segment.syn && segment.acknowledgement.is_none() && !done;
                    done |= is_syn;
                    if is_syn { Verdict::Duplicate } else { Verdict::Pass }
                });
                let mut path = HostConfig::new(Kind::Catnip, 1).path;
                path.latency = Duration::from_millis(1);
                path.faults.reordering_delay = copy_after;
                world.fabric.set_path(world.port(server), path);
                let (near, accepted) = world.connect_to(client, server, listener, None);
                world.transfer((client, near), (server, accepted), 3_000, SOON);
                world.transfer((server, accepted), (client, near), 3_000, SOON);
                world.run_for(Duration::from_millis(500));
                world.host(client).close(near);
                world.run_for(Duration::from_millis(50));
                world.host(server).close(accepted);
                world.run_for(Duration::from_secs(1));
                assert_eq!(world.host(server).accept(listener), None, "a copy of a SYN was accepted");
                // And the listener still works.
                let (near, accepted) = world.connect_to(client, server, listener, None);
                world.transfer((client, near), (server, accepted), 100, SOON);
                world.host(server).close_listener(listener);
                world.close_both([(client, near), (server, accepted)]);
            }
        }
    }
}

/// Both ends connect to each other at the same time (RFC 9293, section 3.5, figure 7).
pub fn opens_at_once(far: Kind) -> World {
    let mut world = pair_with(far, latency(Duration::from_millis(1)));
    // So that neither SYN waits for a neighbour.
    let (near, other) = world.connect(0, 1);
    let addresses = [0, 1].map(|host: usize| SocketAddr::new(world.hosts[host].address(), 5000));
    let sockets =
        [0, 1].map(|host| world.host(host).connect_from(Some(addresses[host].port()), addresses[1 - host]));
    world.run_until(SOON, |world| (0..2).all(|host| world.is_open(host, sockets[host])));
    assert!(world.now() < libos::Instant::from_millis(1_050), "the handshake was not completed at once");
    world.transfer((0, sockets[0]), (1, sockets[1]), 5_000, SOON);
    world.transfer((1, sockets[1]), (0, sockets[0]), 5_000, SOON);
    for (host, connection) in [(0, sockets[0]), (1, sockets[1])] {
        world.host(host).close(connection);
        world.run_for(Duration::from_millis(100));
    }
    world.close_both([(0, near), (1, other)]);
    world
}

#[test]
fn two_ends_that_connect_to_each_other_at_once_share_one_connection() {
    opens_at_once(Kind::Catnip);
}

/// The initial sequence numbers of twenty connections one after another. Ports and times are the same for every seed, so
/// that nothing but the secret makes a difference.
fn initial_sequences(seed: u64) -> Vec<i32> {
    let mut world = pair_with(Kind::Catnip, |host| host.seed += seed);
    let listener = world.host(1).listen(PORT, 4);
    for port in 5_000..5_020 {
        let (near, far) = world.connect_to(0, 1, listener, Some(port));
        world.host(0).abort(near);
        world.run_for(Duration::from_millis(1));
        world.host(1).close(far);
    }
    world.host(1).close_listener(listener);
    world.drain();
    let syns = [0, 1].into_iter().flat_map(|host| world.sent_by(host)).filter(|seen| seen.segment.syn);
    syns.map(|seen| seen.segment.sequence.0).collect()
}

#[test]
fn isn_differs_between_connections_and_seeds() {
    let first = initial_sequences(0);
    let second = initial_sequences(1000);
    assert_eq!(first.len(), 40);
    let all: BTreeSet<i32> = first.iter().chain(&second).copied().collect();
    assert_eq!(all.len(), 80, "a number came twice");
    assert_eq!(first, initial_sequences(0), "not a function of the seed");
    // Not a counter either: neighbours are far apart.
    let near = first.windows(2).filter(|pair| pair[0].wrapping_sub(pair[1]).unsigned_abs() < 1 << 16);
    assert!(near.count() < 4, "numbers in a row: {first:?}");
}

#[test]
fn sequence_numbers_wrap_in_the_middle_of_a_transfer() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, latency(Duration::from_millis(1)));
        let listener = world.host(1).listen(PORT, 4);
        let syns = |world: &World| -> Vec<u32> {
            let syns = world.sent_by(0).into_iter().filter(|seen| seen.segment.syn);
            syns.map(|seen| seen.segment.sequence.0.cast_unsigned()).collect()
        };
        let (near, other) = world.connect_to(0, 1, listener, Some(5000));
        world.host(1).close(other);
        world.receive_end(0, near);
        world.host(0).close(near);
        // RFC 6528: for the same ports the number moves on by one in 4 us. It is to be just below the wrap.
        let missing = syns(&world)[0].wrapping_add(30_000).wrapping_neg();
        let start = libos::Instant::from_millis(1000);
        let due = start + Duration::from_micros(4 * u64::from(missing));
        let wait = due.saturating_duration_since(world.now());
        world.run_for(wait.max(Duration::from_secs(120)));
        let (near, other) = world.connect_to(0, 1, listener, Some(5000));
        let first = *syns(&world).last().expect("a SYN");
        assert!(first > u32::MAX - 60_000, "the number is {first}");
        assert_eq!(syns(&world).len(), 2, "a SYN was sent again");
        world.transfer((0, near), (1, other), 200_000, SOON);
        world.host(1).close_listener(listener);
        world.close_both([(0, near), (1, other)]);
    }
}

#[test]
fn a_connection_to_a_closed_port_is_refused_at_once() {
    for far in FAR_KINDS {
        let mut world = pair(far);
        let (near, other) = world.connect(0, 1);
        let start = world.now();
        let refused = world.host(0).connect_from(None, SocketAddr::new(address(2, false), 9));
        world.run_until(SOON, |world| world.host(0).opening(refused) == Opening::Failed(Failure::Refused));
        assert!(world.elapsed_since(start) < Duration::from_millis(1));
        world.host(0).close(refused);
        world.close_both([(0, near), (1, other)]);
    }
}

#[test]
fn a_connection_to_nobody_fails_in_bounded_time() {
    let mut world = pair(Kind::Catnip);
    let lost = world.host(0).connect_from(None, SocketAddr::new(address(99, false), PORT));
    world.run_until(Duration::from_secs(10), |world| {
        world.host(0).opening(lost) == Opening::Failed(Failure::Unreachable)
    });
    world.host(0).close(lost);
    world.drain();

    // The neighbour is there, but what is sent to it is not answered.
    let mut world = pair(Kind::Catnip);
    world.script(1, |_, _| Verdict::Drop);
    let lost = world.host(0).connect_from(None, SocketAddr::new(address(2, false), PORT));
    world.run_until(Duration::from_secs(300), |world| {
        world.host(0).opening(lost) == Opening::Failed(Failure::TimedOut)
    });
    // RFC 9293, section 3.8.3: after three minutes at the earliest.
    assert!(world.now() > libos::Instant::from_millis(180_000), "given up too early");
    world.host(0).close(lost);
    world.drain();
}

#[test]
fn connections_beyond_the_backlog_wait_and_none_is_lost() {
    let mut world = pair(Kind::Catnip);
    let listener = world.host(1).listen(PORT, 2);
    let server = SocketAddr::new(address(2, false), PORT);
    let clients: Vec<_> = (0..8).map(|_| world.host(0).connect_from(None, server)).collect();
    // The host has two accepts outstanding; the backlog holds two more.
    world.run_for(Duration::from_millis(500));
    let mut accepted = Vec::new();
    world.run_until(Duration::from_secs(60), |world| {
        accepted.extend(std::iter::from_fn(|| world.host(1).accept(listener)));
        accepted.len() == clients.len() && clients.iter().all(|&client| world.is_open(0, client))
    });
    let bytes = stream_bytes(1_000);
    for &client in &clients {
        assert_eq!(world.host(0).send(client, &bytes), Ok(bytes.len()));
    }
    for &connection in &accepted {
        assert_eq!(world.receive_exactly(1, connection, bytes.len(), SOON), bytes);
        world.host(1).close(connection);
    }
    for client in clients {
        world.receive_end(0, client);
        world.host(0).close(client);
    }
    world.host(1).close_listener(listener);
    world.drain();
}
