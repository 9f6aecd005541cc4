//! Closing connections: half, at once, by reset, and what comes after.

use std::net::SocketAddr;
use std::time::Duration;

use super::{FAR_KINDS, PORT, SOON, latency, pair, pair_with, stream_bytes};
use crate::host::{Failure, Kind, Received, address};
use crate::world::World;

#[test]
fn after_a_half_close_the_other_direction_goes_on() {
    for far in FAR_KINDS {
        for closer in [0, 1] {
            let mut world = pair(far);
            let (client, server) = world.connect(0, 1);
            let sockets = [client, server];
            let other = 1 - closer;
            world.host(closer).shutdown(sockets[closer]);
            world.receive_end(other, sockets[other]);
            world.run_for(Duration::from_secs(130));
            world.transfer((other, sockets[other]), (closer, sockets[closer]), 100_000, SOON);
            world.host(other).close(sockets[other]);
            world.receive_end(closer, sockets[closer]);
            world.host(closer).close(sockets[closer]);
            world.drain();
        }
    }
}

/// Both ends close at the same time (RFC 9293, section 3.6, figure 13).
pub fn closes_at_once(far: Kind) -> World {
    let mut world = pair_with(far, latency(Duration::from_millis(1)));
    let (client, server) = world.connect(0, 1);
    world.run_for(Duration::from_millis(10));
    world.host(0).close(client);
    world.host(1).close(server);
    world.run_for(Duration::from_micros(1_500));
    assert_eq!(world.states(0), ["CLOSING"]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.states(0), ["TIME-WAIT"]);
    world.drain();
    world
}

#[test]
fn ends_that_close_at_once_both_wait_in_time_wait() {
    for far in FAR_KINDS {
        closes_at_once(far);
    }
}

#[test]
fn time_wait_lasts_its_time_and_then_leaves_nothing() {
    for far in FAR_KINDS {
        let mut world = pair(far);
        let (client, server) = world.connect(0, 1);
        world.host(0).close(client);
        world.receive_end(1, server);
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.states(0), ["FIN-WAIT-2"]);
        assert_eq!(world.states(1), ["CLOSE-WAIT"]);
        world.host(1).close(server);
        world.run_for(Duration::from_secs(59));
        assert_eq!(world.states(0), ["TIME-WAIT"]);
        world.run_for(Duration::from_secs(2));
        assert!(world.states(0).is_empty());
        world.drain();
    }
}

#[test]
fn a_closed_connection_does_not_wait_for_ever_for_the_peers_end() {
    let mut world = pair(Kind::Catnip);
    let (client, server) = world.connect(0, 1);
    world.host(0).close(client);
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.states(0), ["FIN-WAIT-2"]);
    world.run_for(Duration::from_secs(120));
    assert!(world.states(0).is_empty(), "{:?}", world.states(0));
    world.host(1).abort(server);
    world.drain();
}

#[test]
fn a_new_connection_of_the_same_ports_is_let_in_during_time_wait() {
    // RFC 6191.
    let mut world = pair(Kind::Catnip);
    let listener = world.host(1).listen(PORT, 4);
    for round in 0..3 {
        let start = world.now();
        let (client, server) = world.connect_to(0, 1, listener, Some(5000));
        assert!(world.elapsed_since(start) < Duration::from_millis(10), "round {round}");
        world.transfer((0, client), (1, server), 1_000, SOON);
        world.host(1).close(server);
        world.receive_end(0, client);
        world.host(0).close(client);
        world.run_for(Duration::from_millis(100));
        assert!(world.states(0).is_empty());
        assert_eq!(world.states(1), ["TIME-WAIT"]);
    }
    world.host(1).close_listener(listener);
    world.drain();
}

#[test]
fn closing_with_unread_data_resets_the_peer() {
    for far in FAR_KINDS {
        let mut world = pair(far);
        let (client, server) = world.connect(0, 1);
        assert_eq!(world.host(1).send(server, &stream_bytes(1_000)), Ok(1_000));
        world.run_for(Duration::from_millis(10));
        world.host(0).close(client);
        world.run_until(SOON, |world| match world.host(1).receive(server, 100) {
            Err(failure) => failure == Failure::Reset,
            Ok(Received::Nothing) => false,
            Ok(received) => panic!("{received:?} instead of a reset"),
        });
        world.host(1).close(server);
        world.drain();
    }
}

#[test]
fn an_abrupt_reset_fails_the_peers_operations_once() {
    for far in FAR_KINDS {
        for aborter in [0, 1] {
            let mut world = pair_with(far, |host| host.receive_buffer_bytes = 4 << 10);
            let (client, server) = world.connect(0, 1);
            let sockets = [client, server];
            let other = 1 - aborter;
            // Pushes that wait for room, and pops that wait for data.
            let bytes = stream_bytes(60_000);
            for piece in bytes.chunks(10_000) {
                let _ = world.host(other).send(sockets[other], piece);
            }
            assert_eq!(world.host(other).receive(sockets[other], 100), Ok(Received::Nothing));
            world.run_for(Duration::from_millis(10));
            world.host(aborter).abort(sockets[aborter]);
            world.run_until(SOON, |world| {
                world.host(other).receive(sockets[other], 100) == Err(Failure::Reset)
            });
            assert_eq!(world.host(other).send(sockets[other], &bytes[..10]), Err(Failure::Reset));
            world.host(other).close(sockets[other]);
            world.drain();
        }
    }
}

#[test]
fn closing_a_listener_resets_what_was_not_accepted() {
    let mut world = pair(Kind::Catnip);
    let listener = world.host(1).listen(PORT, 8);
    let server = SocketAddr::new(address(2, false), PORT);
    let clients: Vec<_> = (0..5).map(|_| world.host(0).connect_from(None, server)).collect();
    world.run_until(SOON, |world| clients.iter().all(|&client| world.is_open(0, client)));
    world.host(1).close_listener(listener);
    for client in clients {
        world.run_until(SOON, |world| world.host(0).receive(client, 10) == Err(Failure::Reset));
        world.host(0).close(client);
    }
    world.drain();
}
