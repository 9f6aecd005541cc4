//! Fast retransmit and fast recovery: RFC 5681, section 3.2, RFC 6582 (NewReno) and RFC 3042 (limited transmit).

use super::script::Script;
use super::seg::{Seg, seg};
use crate::events::ConnectionId;
use crate::tcp::congestion::Algorithm;

/// A connection with the initial window of ten segments in flight and as many waiting.
fn in_flight() -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| config.tcp.options.congestion = Algorithm::NewReno);
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    (t, id)
}

fn duplicate(t: &mut Script, ack: u32) {
    t.inject(seg().ack(ack));
}

#[test]
fn the_third_duplicate_acknowledgment_sends_the_lost_segment_again() {
    let (mut t, id) = in_flight();
    duplicate(&mut t, 1);
    t.expect(seg().seq(10_001).ack(1).data(1_000));
    duplicate(&mut t, 1);
    t.expect(seg().seq(11_001).ack(1).data(1_000));
    t.expect_nothing();
    duplicate(&mut t, 1);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect_nothing();
    let info = t.info(id);
    // Half of the twelve in flight (RFC 5681, equation 4).
    assert!(info.in_recovery);
    assert_eq!((info.ssthresh_bytes, info.cwnd_bytes), (6_000, 6_000));
    assert_eq!(t.counters().fast_retransmits, 1);
}

#[test]
fn further_duplicates_let_new_segments_out_once_half_of_the_flight_has_left() {
    let (mut t, _) = in_flight();
    (0..3).for_each(|_| duplicate(&mut t, 1));
    assert_eq!(t.take_sent().len(), 3);
    // 12 in flight, the window is 6 and 1 for each duplicate.
    for _ in 3..6 {
        duplicate(&mut t, 1);
        t.expect_nothing();
    }
    duplicate(&mut t, 1);
    t.expect(seg().seq(12_001).ack(1).data(1_000));
    duplicate(&mut t, 1);
    t.expect(seg().seq(13_001).ack(1).data(1_000));
}

#[test]
fn an_acknowledgment_of_everything_ends_recovery_with_no_larger_burst_than_a_connection_begins_with() {
    let (mut t, id) = in_flight();
    (0..3).for_each(|_| duplicate(&mut t, 1));
    let _ = t.take_sent();
    t.inject(seg().ack(12_001));
    let info = t.info(id);
    assert!(!info.in_recovery);
    // With nothing in flight the initial window, and no more than the threshold: half of twelve segments.
    assert_eq!((info.cwnd_bytes, info.ssthresh_bytes), (6_000, 6_000));
    for segment in 12..18 {
        t.expect(seg().seq(segment * 1_000 + 1).ack(1).data(1_000));
    }
    t.expect_nothing();
}

#[test]
fn each_partial_acknowledgment_sends_the_next_hole_again_at_once() {
    let (mut t, id) = in_flight();
    (0..3).for_each(|_| duplicate(&mut t, 1));
    let _ = t.take_sent();
    for hole in [3_001, 5_001, 8_001] {
        t.inject(seg().ack(hole));
        t.expect(seg().seq(hole).ack(1).data(1_000));
        for sent in t.take_sent() {
            assert!(t.relative_seq(&sent) >= 12_001);
        }
        assert!(t.info(id).in_recovery);
    }
    assert_eq!(t.counters().fast_retransmits, 1);
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(seg().ack(max));
    assert!(!t.info(id).in_recovery);
    assert_eq!(t.counters().retransmission_timeouts, 0);
}

#[test]
fn acknowledgments_that_carry_something_are_no_duplicates() {
    let others: [fn(u32) -> Seg; 3] = [
        |at| seg().seq(1 + at * 10).ack(1).data(10),
        |at| seg().ack(1).win(20_000 + at as u16),
        |at| seg().seq(1 + at).ack(1).urg(1).data(1),
    ];
    for other in others {
        let (mut t, _) = in_flight();
        (0..6).for_each(|at| t.inject(other(at)));
        assert_eq!(t.counters().fast_retransmits, 0);
    }
}

#[test]
fn duplicates_with_nothing_in_flight_mean_nothing() {
    let mut t = Script::new();
    let id = t.open();
    (0..5).for_each(|_| duplicate(&mut t, 1));
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect_nothing();
    assert_eq!(t.counters().fast_retransmits, 0);
}

#[test]
fn limited_transmit_sends_new_data_only_and_within_the_peers_window() {
    let mut t = Script::new();
    t.window = 10_000;
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    duplicate(&mut t, 1);
    duplicate(&mut t, 1);
    t.expect_nothing();
    duplicate(&mut t, 1);
    t.expect(seg().seq(1).ack(1).data(1_000));
}

#[test]
fn limited_transmit_does_not_widen_the_window_for_good() {
    let (mut t, _) = in_flight();
    duplicate(&mut t, 1);
    t.expect(seg().seq(10_001).ack(1).data(1_000));
    // Reordering: the acknowledgment catches up. Eleven were in flight, one is left; slow start adds two.
    t.inject(seg().ack(10_001));
    let sent = t.take_sent().len();
    assert_eq!(sent, 12 - 1);
}

#[test]
fn duplicates_of_what_a_timeout_sent_again_start_no_recovery() {
    let (mut t, _) = in_flight();
    t.pass(200);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(1_001));
    let _ = t.take_sent();
    for _ in 0..5 {
        duplicate(&mut t, 1_001);
    }
    assert_eq!(t.counters().fast_retransmits, 0);
}

#[test]
fn a_timeout_ends_recovery_and_starts_over() {
    let (mut t, id) = in_flight();
    (0..3).for_each(|_| duplicate(&mut t, 1));
    assert_eq!(t.take_sent().len(), 3);
    // The retransmission is lost as well.
    t.pass(200);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect_nothing();
    let info = t.info(id);
    assert!(!info.in_recovery);
    assert_eq!(info.cwnd_bytes, 1_000);
}

#[test]
fn a_lost_fin_behind_lost_data_is_recovered_with_it() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 5_000);
    t.close(id);
    // Five of data and the FIN, all lost but one.
    assert_eq!(t.take_sent().len(), 6);
    (0..3).for_each(|_| duplicate(&mut t, 1));
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(4_001));
    t.expect(seg().fin().seq(4_001).ack(1).data(1_000));
    t.inject(seg().ack(5_002));
    t.pass(1_000);
    t.expect_nothing();
}

#[test]
fn recovery_is_the_same_across_the_end_of_sequence_space() {
    let mut t = Script::new();
    t.open();
    let ticks = (u32::MAX - 3_000).wrapping_sub(t.iss());
    let start = libos::Instant::from_nanos(t.now.as_nanos() + u64::from(ticks) * 4_000);
    let mut t = Script::starting_at(start, |_| {});
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    (0..3).for_each(|_| duplicate(&mut t, 1));
    assert_eq!(t.take_sent().len(), 3);
    t.inject(seg().ack(5_001));
    t.expect(seg().seq(5_001).ack(1).data(1_000));
    let _ = t.take_sent();
    t.inject(seg().ack(t.info(id).snd_max.wrapping_sub(t.iss())));
    assert!(!t.info(id).in_recovery);
}
