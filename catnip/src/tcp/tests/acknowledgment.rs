//! When received data is acknowledged (RFC 9293, section 3.8.6.3; RFC 5681, section 4.2).

use super::script::{Script, fix_receive_buffer};
use super::seg::seg;

#[test]
fn one_segment_is_acknowledged_after_the_delay() {
    let mut t = Script::new();
    t.open();
    t.inject(seg().ack(1).data(1_000));
    t.pass(39);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1).ack(1_001));
    t.pass(10_000);
    t.expect_nothing();
    assert_eq!(t.counters().delayed_acks, 1);
}

#[test]
fn every_second_segment_is_acknowledged_at_once() {
    let mut t = Script::new();
    t.open();
    for pair in 0..4 {
        let start = 1 + pair * 2_000;
        t.inject(seg().seq(start).ack(1).data(1_000));
        t.expect_nothing();
        t.inject(seg().seq(start + 1_000).ack(1).data(1_000));
        t.expect(seg().seq(1).ack(start + 2_000));
    }
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn the_delay_counts_from_the_first_segment_that_waits() {
    let mut t = Script::new();
    t.open();
    t.inject(seg().ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001));
    t.inject(seg().seq(2_001).ack(1).data(100));
    t.pass(20);
    t.inject(seg().seq(2_101).ack(1).data(100));
    t.pass(19);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1).ack(2_201));
}

#[test]
fn an_acknowledgment_rides_on_data_and_then_needs_no_segment_of_its_own() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(1_000));
    t.write(id, 10);
    t.expect(seg().seq(1).ack(1_001).data(10));
    t.inject(seg().seq(1_001).ack(11));
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn a_gap_and_what_fills_it_are_acknowledged_at_once() {
    let mut t = Script::new();
    t.open();
    for start in [1_001, 2_001, 4_001] {
        t.inject(seg().seq(start).ack(1).data(1_000));
        t.expect(seg().seq(1).ack(1));
    }
    // Fills the first gap: what is behind it is acknowledged, up to the second.
    t.inject(seg().ack(1).data(1_000));
    t.expect(seg().seq(1).ack(3_001));
    // Fills a part of the second.
    t.inject(seg().seq(3_001).ack(1).data(500));
    t.expect(seg().seq(1).ack(3_501));
    t.inject(seg().seq(3_501).ack(1).data(500));
    t.expect(seg().seq(1).ack(5_001));
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn duplicate_acknowledgments_repeat_the_window() {
    let mut t = Script::configured(|config| fix_receive_buffer(config, 20_000));
    t.open();
    t.inject(seg().ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001).win(18_000));
    // A peer counts duplicates only when the window stays the same (RFC 5681, section 2).
    for start in [3_001, 4_001, 5_001] {
        t.inject(seg().seq(start).ack(1).data(1_000));
        t.expect(seg().seq(1).ack(2_001).win(18_000));
    }
}

#[test]
fn a_segment_that_is_partly_known_is_acknowledged_at_once() {
    let mut t = Script::new();
    t.open();
    t.inject(seg().ack(1).data(500));
    t.inject(seg().seq(201).ack(1).data(500));
    t.expect(seg().seq(1).ack(701));
}

#[test]
fn a_fin_is_acknowledged_at_once() {
    let mut t = Script::new();
    t.open();
    t.inject(seg().ack(1).data(100));
    t.inject(seg().seq(101).fin().ack(1));
    t.expect(seg().seq(1).ack(102));
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn reading_what_leaves_the_window_wide_open_is_not_worth_a_segment() {
    // Without a scale the window cannot be offered whole, and room beyond it is none.
    let mut t = Script::new();
    let id = t.open();
    for start in [1, 101, 201] {
        t.inject(seg().seq(start).ack(1).data(100));
        let _ = t.take_sent();
        assert_eq!(t.read(id), 100);
        t.expect_nothing();
    }
}

#[test]
fn acknowledgments_are_never_acknowledged() {
    let mut t = Script::new();
    t.open();
    for window in [100, 0, 30_000, 30_000] {
        t.inject(seg().ack(1).win(window));
        t.pass(1_000);
        t.expect_nothing();
    }
}

#[test]
fn a_burst_is_acknowledged_once() {
    let mut t = Script::new();
    t.open();
    t.inject_burst((0..10).map(|at| seg().seq(1 + at * 1_000).ack(1).data(1_000)));
    t.expect(seg().seq(1).ack(10_001));
    t.expect_nothing();
}

#[test]
fn each_segment_of_a_burst_behind_a_gap_has_an_acknowledgment_of_its_own_without_data() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(1_000));
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1_001).data(100));
    t.write(id, 100);
    t.expect_nothing();
    // The acknowledgment lets the second write out, which must not stand for a duplicate.
    t.inject_burst((0..4).map(|at| seg().seq(2_001 + at * 1_000).ack(101).data(1_000)));
    for _ in 0..4 {
        t.expect(seg().seq(101).ack(1_001));
    }
    t.expect(seg().seq(101).ack(1_001).data(100));
    t.expect_nothing();
}

#[test]
fn a_burst_that_fills_its_own_gap_is_acknowledged_once() {
    let mut t = Script::new();
    t.open();
    t.inject_burst([2_001, 1_001, 3_001, 1].map(|at| seg().seq(at).ack(1).data(1_000)));
    t.expect(seg().seq(1).ack(4_001));
    t.expect_nothing();
}
