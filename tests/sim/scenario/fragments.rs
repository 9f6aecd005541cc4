//! Datagrams that are larger than the link, while it loses, reorders and doubles their parts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;
use runtime_sim::{Faults, Ppm};

use super::{PORT, stream_bytes};
use crate::host::{HostConfig, Kind};
use crate::world::World;

/// Longer than parts are waited for.
const PARTS_FORGOTTEN: Duration = Duration::from_secs(70);

/// Sends 100 datagrams of every size up to the largest; returns how many arrived, each as it was sent.
fn large_datagrams(seed: u64, ipv6: bool, faults: &Faults) -> usize {
    const DATAGRAMS: u8 = 100;
    let configs = [1, 2].map(|number| {
        let mut config = HostConfig::new(Kind::Catnip, number);
        config.ipv6 = ipv6;
        config.path.faults = faults.clone();
        config.path.bandwidth_bits_per_s = Some(1_000_000_000);
        config.receiving.ring_frames = 4096;
        config
    });
    let mut world = World::new(Medium::Ethernet, seed, &configs);
    let (sender, receiver) = (world.host(0).udp_bind(PORT), world.host(1).udp_bind(PORT));
    let to = SocketAddr::new(world.host(1).address(), PORT);
    let mut sent = BTreeMap::new();
    let mut received = 0;
    for number in 0..DATAGRAMS {
        let mut bytes = stream_bytes(1 + usize::from(number) * 65_506 / usize::from(DATAGRAMS - 1));
        bytes[0] = number;
        assert!(world.host(0).udp_send(sender, to, &bytes));
        sent.insert(number, bytes);
        world.run_for(Duration::from_millis(5));
        while let Some((bytes, _)) = world.host(1).udp_receive(receiver) {
            assert_eq!(sent.get(&bytes[0]), Some(&bytes), "not as it was sent");
            received += 1;
        }
    }
    world.run_for(PARTS_FORGOTTEN);
    world.host(0).udp_close(sender);
    world.host(1).udp_close(receiver);
    world.drain();
    received
}

#[test]
fn parts_of_large_datagrams_may_come_in_any_order_and_twice() {
    let faults = Faults {
        duplication: Ppm::percent(5),
        reordering: Ppm::percent(20),
        reordering_delay: Duration::from_millis(2),
        ..Faults::default()
    };
    for ipv6 in [false, true] {
        for seed in 1..=4 {
            // Whatever is in one part may come twice.
            let received = large_datagrams(seed, ipv6, &faults);
            assert!((100..=103).contains(&received), "{received} of 100");
        }
    }
}

#[test]
fn a_lost_part_costs_its_datagram_and_no_other() {
    let faults = Faults {
        loss: Ppm::percent(1),
        reordering: Ppm::percent(10),
        reordering_delay: Duration::from_millis(1),
        ..Faults::default()
    };
    for ipv6 in [false, true] {
        for seed in 1..=4 {
            // Of 23 parts, the mean, all arrive with a probability of 0.79.
            let received = large_datagrams(seed, ipv6, &faults);
            assert!((65..=95).contains(&received), "{received} of 100");
        }
    }
}
