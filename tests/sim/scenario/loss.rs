//! Recovery from single losses, and what must not be taken for one.

use std::time::Duration;

use libos::Instant;
use libos::runtime::Medium;
use runtime_sim::Verdict;

use super::{FAR_KINDS, latency, pair_with};
use crate::wire::{Content, Segment, parse};
use crate::world::World;

const ONE_WAY: Duration = Duration::from_millis(1);
const ROUND_TRIP: Duration = Duration::from_millis(2);

impl World {
    /// Decides segment by segment what becomes of those on their way to `host`.
    pub(super) fn script(&self, host: usize, mut decide: impl FnMut(Instant, &Segment) -> Verdict + 'static) {
        self.fabric.set_script(self.port(host), move |now, bytes| {
            match parse(Medium::Ethernet, bytes).content {
                Content::Tcp(segment) => decide(now, &segment),
                Content::Datagram | Content::Other | Content::Malformed => Verdict::Pass,
            }
        });
    }

    /// Gives the verdict to the segment with payload that comes after `skip` others, once.
    fn one_with_payload(&self, host: usize, mut skip: usize, verdict: Verdict) {
        let mut done = false;
        self.script(host, move |_, segment| {
            if done || segment.payload_bytes == 0 {
                return Verdict::Pass;
            }
            done = skip == 0;
            skip = skip.saturating_sub(1);
            if done { verdict } else { Verdict::Pass }
        });
    }
}

/// Ten segments from us to the far peer, one of which meets `verdict`; how long they take, and how many
/// were sent again.
fn ten_segments(far: crate::host::Kind, skip: usize, verdict: Verdict, tick: Duration) -> (Duration, usize) {
    let mut world = pair_with(far, |host| {
        latency(ONE_WAY)(host);
        host.tick = tick;
    });
    let (client, server) = world.connect(0, 1);
    world.run_for(Duration::from_millis(500));
    world.one_with_payload(1, skip, verdict);
    let start = world.now();
    world.transfer((0, client), (1, server), 10 * 1440, Duration::from_secs(5));
    let elapsed = world.elapsed_since(start);
    world.close_both([(0, client), (1, server)]);
    (elapsed, world.retransmissions(0))
}

#[test]
fn first_of_ten_lost_segments_is_recovered_within_few_rtts() {
    for far in FAR_KINDS {
        let (elapsed, retransmissions) = ten_segments(far, 0, Verdict::Drop, Duration::ZERO);
        assert!(elapsed <= 3 * ROUND_TRIP, "{far:?}: {elapsed:?}");
        assert_eq!(retransmissions, 1, "{far:?}");
    }
}

#[test]
fn first_of_ten_lost_segments_is_recovered_under_a_coarse_clock() {
    for tick in [1, 10].map(Duration::from_millis) {
        let (elapsed, retransmissions) = ten_segments(crate::host::Kind::Catnip, 0, Verdict::Drop, tick);
        assert!(elapsed <= 3 * ROUND_TRIP + tick, "tick {tick:?}: {elapsed:?}");
        assert_eq!(retransmissions, 1, "tick {tick:?}");
    }
}

#[test]
fn the_last_of_ten_lost_segments_is_recovered_by_the_timer() {
    for far in FAR_KINDS {
        let (elapsed, retransmissions) = ten_segments(far, 9, Verdict::Drop, Duration::ZERO);
        assert!(elapsed <= Duration::from_millis(300), "{far:?}: {elapsed:?}");
        assert!(retransmissions <= 1, "{far:?}: {retransmissions}");
    }
}

#[test]
fn a_segment_that_two_others_overtake_is_not_sent_again() {
    for far in FAR_KINDS {
        let two_behind = Verdict::Delay(Duration::from_micros(50));
        let (elapsed, retransmissions) = ten_segments(far, 7, two_behind, Duration::ZERO);
        assert!(elapsed <= 2 * ROUND_TRIP, "{far:?}: {elapsed:?}");
        assert_eq!(retransmissions, 0, "{far:?}");
    }
}

#[test]
fn a_duplicated_segment_is_not_sent_again() {
    for far in FAR_KINDS {
        let (_, retransmissions) = ten_segments(far, 3, Verdict::Duplicate, Duration::ZERO);
        assert_eq!(retransmissions, 0, "{far:?}");
    }
}

#[test]
fn a_damaged_segment_counts_as_lost() {
    for far in FAR_KINDS {
        let (elapsed, retransmissions) = ten_segments(far, 0, Verdict::Corrupt(8 * 200), Duration::ZERO);
        assert!(elapsed <= 3 * ROUND_TRIP, "{far:?}: {elapsed:?}");
        assert_eq!(retransmissions, 1, "{far:?}");
    }
}

#[test]
fn a_coarse_clock_makes_no_bulk_transfer_go_wrong() {
    for tick in [1, 10, 100].map(Duration::from_millis) {
        let mut world = pair_with(crate::host::Kind::Catnip, |host| {
            latency(ONE_WAY)(host);
            host.tick = tick;
            host.path.bandwidth_bits_per_s = Some(1_000_000_000);
        });
        let (client, server) = world.connect(0, 1);
        let start = world.now();
        world.transfer((0, client), (1, server), 2_000_000, Duration::from_secs(20));
        let elapsed = world.elapsed_since(start);
        assert_eq!(world.retransmissions(0), 0, "tick {tick:?}");
        assert!(elapsed < Duration::from_millis(500), "tick {tick:?}: {elapsed:?}");
        world.close_both([(0, client), (1, server)]);
    }
}

#[test]
fn a_partition_of_ten_seconds_is_survived() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, latency(ONE_WAY));
        let (client, server) = world.connect(0, 1);
        for host in [0, 1] {
            world.fabric.set_script(world.port(host), |_, _| Verdict::Drop);
        }
        let bytes = super::stream_bytes(50_000);
        assert_eq!(world.host(0).send(client, &bytes), Ok(bytes.len()));
        world.run_for(Duration::from_secs(10));
        world.fabric.heal();
        assert_eq!(world.receive_exactly(1, server, bytes.len(), Duration::from_secs(30)), bytes);
        world.close_both([(0, client), (1, server)]);
    }
}
