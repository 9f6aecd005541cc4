//! Neighbours, addresses, floods and long silences.

use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;

use super::{FAR_KINDS, PORT, SOON, pair, pair_with, stream_bytes};
use crate::host::{HostConfig, Kind, address};
use crate::raw::{RawPeer, Udp};
use crate::world::World;

#[test]
fn connection_idle_for_125_s_survives() {
    for far in FAR_KINDS {
        for seconds in [125, 3 * 3600] {
            let mut world = pair(far);
            let (client, server) = world.connect(0, 1);
            world.transfer((0, client), (1, server), 5_000, SOON);
            world.run_for(Duration::from_secs(seconds));
            world.transfer((0, client), (1, server), 5_000, SOON);
            world.transfer((1, server), (0, client), 5_000, SOON);
            world.close_both([(0, client), (1, server)]);
        }
    }
}

#[test]
fn an_unresolved_neighbour_blocks_nobody_else() {
    for far in FAR_KINDS {
        let mut world = pair(far);
        let nobody = address(77, false);
        let lost: Vec<_> =
            (0..20).map(|_| world.host(0).connect_from(None, SocketAddr::new(nobody, PORT))).collect();
        let datagrams = world.host(0).udp_bind(6000);
        for _ in 0..100 {
            world.host(0).udp_send(datagrams, SocketAddr::new(nobody, 6000), &[0; 1000]);
            world.settle();
        }
        let start = world.now();
        let (client, server) = world.connect(0, 1);
        world.transfer((0, client), (1, server), 100_000, SOON);
        let elapsed = world.elapsed_since(start);
        assert!(elapsed < Duration::from_millis(20), "{far:?}: {elapsed:?}");
        for connection in lost {
            world.host(0).close(connection);
        }
        world.run_for(Duration::from_secs(10));
        world.host(0).udp_close(datagrams);
        world.close_both([(0, client), (1, server)]);
    }
}

#[test]
fn frames_for_another_mac_are_dropped() {
    let mut world = World::new(Medium::Ethernet, 1, &[HostConfig::new(Kind::Catnip, 1)]);
    let mut raw = RawPeer::new(&world.fabric, Medium::Ethernet, 9);
    world.fabric.set_floods(true);
    let socket = world.host(0).udp_bind(PORT);
    let ours = HostConfig::new(Kind::Catnip, 1).hardware_address();
    let another = [2, 0, 0, 0, 0, 42];
    for (to, expected) in [(another, false), (ours, true), ([1, 0, 0, 0, 0, 1], false)] {
        let packet = raw.udp(&Udp { to: address(1, false), ports: (PORT, PORT), payload: b"hello" });
        world.fabric.inject(raw.port(), &raw.ethernet(to, &packet));
        world.run_for(Duration::from_millis(1));
        assert_eq!(world.host(0).udp_receive(socket).is_some(), expected, "to {to:x?}");
    }
    world.host(0).udp_close(socket);
    world.run_for(Duration::from_millis(1));
    raw.received();
    world.drain();
}

#[test]
fn a_flood_does_not_starve_a_connection_and_a_connection_alone_is_not_held_back() {
    let bulk = |flood: bool| {
        let mut world = pair_with(Kind::Catnip, |host| {
            host.path.bandwidth_bits_per_s = Some(1_000_000_000);
            host.receiving.ring_frames = 4096;
            // A turn costs what it costs around its frames: where it takes few of them, there are not enough turns.
            host.turn = Duration::from_micros(20);
        });
        let mut raw = RawPeer::new(&world.fabric, Medium::Ethernet, 9);
        let (client, server) = world.connect(0, 1);
        let ours = HostConfig::new(Kind::Catnip, 1).hardware_address();
        let junk = raw.udp(&Udp { to: address(1, false), ports: (1, 9), payload: &[0; 20] });
        let junk = raw.ethernet(ours, &junk);
        let start = world.now();
        let bytes = stream_bytes(500_000);
        let (mut sent, mut received) = (0, Vec::new());
        while received.len() < bytes.len() {
            if flood {
                (0..100).for_each(|_| world.fabric.inject(raw.port(), &junk));
            }
            let end = bytes.len().min(sent + 16_384);
            sent += world.host(1).send(server, &bytes[sent..end]).expect("an open connection");
            while let Ok(crate::host::Received::Data(data)) = world.host(0).receive(client, 1 << 20) {
                received.extend(data);
            }
            // Junk takes more than half of the link: 100 frames of 62 bytes in 100 us are 500 Mbit/s.
            world.run_for(Duration::from_micros(100));
            assert!(world.elapsed_since(start) < Duration::from_secs(1), "{} bytes", received.len());
        }
        assert_eq!(received, bytes);
        let elapsed = world.elapsed_since(start);
        world.run_for(Duration::from_millis(10));
        raw.received();
        world.close_both([(0, client), (1, server)]);
        elapsed
    };
    // 500 kB take 4.3 ms on the link with all headers.
    let (alone, flooded) = (bulk(false), bulk(true));
    assert!(alone < Duration::from_millis(8), "alone: {alone:?}");
    assert!(flooded < Duration::from_millis(30), "under a flood: {flooded:?}");
}

#[test]
fn hosts_of_the_other_family_talk_as_well() {
    for far in FAR_KINDS {
        for medium in [Medium::Ethernet, Medium::Ip] {
            let configs = [(Kind::Catnip, 1), (far, 2)].map(|(kind, number)| {
                let mut config = HostConfig::new(kind, number);
                config.ipv6 = true;
                config
            });
            let mut world = World::new(medium, 1, &configs);
            let (client, server) = world.connect(0, 1);
            world.transfer((0, client), (1, server), 50_000, SOON);
            world.transfer((1, server), (0, client), 50_000, SOON);
            world.close_both([(0, client), (1, server)]);
        }
    }
}
