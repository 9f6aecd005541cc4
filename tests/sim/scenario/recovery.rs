//! Recovery from many losses, from heavy reordering, and under coarse clocks.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use runtime_sim::{Faults, Ppm, Verdict};

use super::{latency, pair_with};
use crate::host::{HostConfig, Kind};
use crate::world::World;

const ONE_WAY: Duration = Duration::from_millis(1);
const ROUND_TRIP: Duration = Duration::from_millis(2);

/// A path with a latency and faults, for both directions.
fn faulty(one_way: Duration, faults: Faults) -> impl Fn(&mut HostConfig) {
    move |host| {
        host.path.latency = one_way;
        host.path.faults = faults.clone();
        host.path.bandwidth_bits_per_s = Some(100_000_000);
    }
}

/// How long `bytes` take from one host to the other, and how many segments were sent again.
fn transfer(mut world: World, from: usize, bytes: usize) -> (Duration, usize) {
    let (client, server) = world.connect(0, 1);
    let sides = if from == 0 { [(0, client), (1, server)] } else { [(1, server), (0, client)] };
    let start = world.now();
    world.transfer(sides[0], sides[1], bytes, Duration::from_secs(300));
    (world.elapsed_since(start), world.retransmissions(from))
}

#[test]
fn ten_segments_lost_in_a_row_are_recovered_within_few_round_trips() {
    for far in [Kind::Catnip, Kind::Smoltcp] {
        let mut world = pair_with(far, latency(ONE_WAY));
        let (client, server) = world.connect(0, 1);
        world.transfer((0, client), (1, server), 200_000, Duration::from_secs(5));
        // The first ten of the next flight.
        let mut lost = 0;
        world.script(1, move |_, segment| {
            lost += u32::from(segment.payload_bytes > 0);
            if segment.payload_bytes > 0 && lost <= 10 { Verdict::Drop } else { Verdict::Pass }
        });
        let start = world.now();
        world.transfer((0, client), (1, server), 40 * 1440, Duration::from_secs(5));
        let elapsed = world.elapsed_since(start);
        // A peer that reports no ranges is sent one hole a round trip.
        let bound = if far == Kind::Catnip { 8 } else { 16 };
        assert!(elapsed <= bound * ROUND_TRIP, "{far:?}: {elapsed:?}");
    }
}

#[test]
fn heavy_reordering_is_hardly_taken_for_loss() {
    let faults = Faults {
        reordering: Ppm::percent(20),
        reordering_delay: Duration::from_micros(1_500),
        ..Faults::default()
    };
    let world = pair_with(Kind::Catnip, faulty(Duration::from_millis(5), faults));
    let (elapsed, retransmissions) = transfer(world, 0, 3_000_000);
    // 2,072 segments of 1,448 bytes.
    assert!(retransmissions <= 40, "{retransmissions} of 2,072 sent again");
    assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
}

#[test]
fn losses_are_recovered_under_every_clock() {
    for tick_us in [0, 1, 1_000, 4_000, 10_000] {
        let faults = Faults { loss: Ppm::percent(1), ..Faults::default() };
        let world = pair_with(Kind::Catnip, |host| {
            faulty(ONE_WAY, faults.clone())(host);
            host.tick = Duration::from_micros(tick_us);
        });
        let (elapsed, retransmissions) = transfer(world, 0, 2_000_000);
        // 1,382 segments, of which about 14 are lost.
        assert!((5..=60).contains(&retransmissions), "tick of {tick_us} us: {retransmissions} sent again");
        assert!(elapsed < Duration::from_secs(3), "tick of {tick_us} us: {elapsed:?}");
    }
}

#[test]
fn each_of_many_losses_is_repaired_once_and_without_a_timeout_under_every_clock() {
    for tick_us in [0, 1, 1_000, 4_000, 10_000] {
        let mut world = pair_with(Kind::Catnip, |host| {
            faulty(ONE_WAY, Faults::default())(host);
            host.tick = Duration::from_micros(tick_us);
        });
        let (client, server) = world.connect(0, 1);
        world.transfer((0, client), (1, server), 300_000, Duration::from_secs(5));
        // The first transmission of every fortieth segment.
        let lost = Rc::new(Cell::new(0));
        let (count, mut seen, mut newest) = (Rc::clone(&lost), 0, None);
        world.script(1, move |_, segment| {
            if segment.payload_bytes == 0 || newest.is_some_and(|newest| segment.sequence <= newest) {
                return Verdict::Pass;
            }
            newest = Some(segment.sequence);
            seen += 1;
            count.set(count.get() + usize::from(seen % 40 == 0));
            if seen % 40 == 0 { Verdict::Drop } else { Verdict::Pass }
        });
        let start = world.now();
        world.transfer((0, client), (1, server), 2_000_000, Duration::from_secs(20));
        let (elapsed, sent_again) = (world.elapsed_since(start), world.retransmissions(0));
        // By the clock alone, what left in one tick is taken for lost too soon, or not before a timeout.
        assert_eq!(sent_again, lost.get(), "tick of {tick_us} us");
        assert_eq!(world.hosts[0].counter("catnip.tcp.retransmission_timeouts"), 0, "tick of {tick_us} us");
        assert!(elapsed < Duration::from_millis(450), "tick of {tick_us} us: {elapsed:?}");
    }
}

#[test]
fn a_flight_lost_with_its_end_is_found_by_the_probe() {
    let mut world = pair_with(Kind::Catnip, latency(ONE_WAY));
    let (client, server) = world.connect(0, 1);
    world.transfer((0, client), (1, server), 100_000, Duration::from_secs(5));
    let mut seen = 0;
    world.script(1, move |_, segment| {
        seen += u32::from(segment.payload_bytes > 0);
        if segment.payload_bytes > 0 && (6..=10).contains(&seen) { Verdict::Drop } else { Verdict::Pass }
    });
    let start = world.now();
    world.transfer((0, client), (1, server), 10 * 1440, Duration::from_secs(5));
    let elapsed = world.elapsed_since(start);
    assert!(elapsed <= 10 * ROUND_TRIP, "{elapsed:?}");
}
