//! Loss recovery under clocks that tick seldom, and with timeouts as short as a datacenter's.

use std::time::Duration;

use super::script::{MSS, Script};
use super::seg::seg;
use crate::events::ConnectionId;

/// Granularities of clocks, in microseconds.
const GRANULARITIES_US: [u64; 4] = [1, 1_000, 4_000, 10_000];

/// An open connection with a round trip below one tick, as the clock sees it: no time at all passes.
fn instant_path(granularity_us: u64) -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| {
        config.tcp.clock_granularity = Duration::from_micros(granularity_us);
    });
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.inject(seg().syn().seq(0).ack(1).mss(MSS).sack_permitted());
    t.expect(seg().seq(1).ack(1));
    t.write(id, 10_000);
    assert_eq!(t.take_sent().len(), 10);
    (t, id)
}

#[test]
fn within_one_tick_reordering_is_not_taken_for_loss() {
    for granularity_us in GRANULARITIES_US {
        let (mut t, _) = instant_path(granularity_us);
        t.inject(seg().ack(1).sack(&[(1_001, 2_001)]));
        t.inject(seg().ack(1).sack(&[(1_001, 3_001)]));
        t.inject(seg().ack(3_001));
        t.inject(seg().ack(3_001).sack(&[(4_001, 8_001)]));
        t.inject(seg().ack(10_001));
        assert_eq!(t.counters().retransmitted_segments, 0, "{granularity_us} us");
    }
}

#[test]
fn within_one_tick_losses_are_repaired_at_once_and_each_once() {
    for granularity_us in GRANULARITIES_US {
        let (mut t, _) = instant_path(granularity_us);
        t.inject(seg().ack(1).sack(&[(1_001, 4_001)]));
        t.expect(seg().seq(1).ack(1).data(1_000));
        // What had left before the retransmission says nothing of it, though the clock shows the same time.
        for end in 5..=10 {
            t.inject(seg().ack(1).sack(&[(1_001, end * 1_000 + 1)]));
        }
        t.expect_nothing();
        t.inject(seg().ack(10_001));
        assert_eq!(t.counters().retransmitted_segments, 1, "{granularity_us} us");
    }
}

#[test]
fn what_only_two_overtook_is_sent_again_a_tick_later_at_most() {
    for granularity_us in GRANULARITIES_US {
        let (mut t, _) = instant_path(granularity_us);
        t.inject(seg().ack(1).sack(&[(1_001, 3_001)]));
        t.expect_nothing();
        let start = t.now;
        t.pass(30);
        let again = t.expect(seg().seq(1).ack(1).data(1_000));
        let waited = again.at.saturating_duration_since(start);
        assert!(waited <= Duration::from_micros(granularity_us), "{waited:?} of {granularity_us} us");
    }
}

#[test]
fn the_least_timeout_is_what_the_configuration_says() {
    for (rto_min_ms, granularity_us) in [(200, 1), (50, 1), (1, 1), (1, 1_000)] {
        let mut t = Script::configured(|config| {
            config.tcp.rto_min = Duration::from_millis(rto_min_ms);
            config.tcp.clock_granularity = Duration::from_micros(granularity_us);
        });
        let id = t.open();
        t.write(id, 1_000);
        let first = t.expect(seg().seq(1).ack(1).data(1_000));
        t.pass(rto_min_ms);
        let again = t.expect(seg().seq(1).ack(1).data(1_000));
        assert_eq!(again.at.saturating_duration_since(first.at), Duration::from_millis(rto_min_ms));
    }
}
