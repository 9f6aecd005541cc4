//! The tail loss probe (RFC 8985, section 7).

use super::sack_recovery::connect;
use super::script::Script;
use super::seg::seg;
use crate::events::ConnectionId;

const ROUND_TRIP_MS: u64 = 40;

/// A connection with a round-trip time of 40 ms that has sent `len` bytes just now.
fn after_writing(len: usize) -> (Script, ConnectionId) {
    let mut t = Script::new();
    let id = connect(&mut t);
    t.write(id, len);
    let _ = t.take_sent();
    (t, id)
}

#[test]
fn the_last_segment_is_sent_again_after_two_round_trips() {
    let (mut t, id) = after_writing(5_000);
    let before = t.info(id).cwnd_bytes;
    t.pass(2 * ROUND_TRIP_MS - 1);
    t.expect_nothing();
    t.pass(2);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.expect_nothing();
    assert_eq!((t.counters().tail_loss_probes, t.counters().retransmission_timeouts), (1, 0));
    assert_eq!(t.info(id).cwnd_bytes, before);
}

#[test]
fn new_data_is_a_better_probe_than_old() {
    let mut t = Script::new();
    let id = connect(&mut t);
    t.write(id, 20_000);
    assert_eq!(t.take_sent().len(), 10);
    t.pass(2 * ROUND_TRIP_MS + 1);
    t.expect(seg().seq(10_001).ack(1).data(1_000));
    t.expect_nothing();
}

#[test]
fn the_peers_window_holds_for_a_probe_too() {
    let mut t = Script::new();
    t.window = 5_000;
    let id = connect(&mut t);
    t.write(id, 20_000);
    assert_eq!(t.take_sent().len(), 5);
    t.pass(2 * ROUND_TRIP_MS + 1);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
}

#[test]
fn a_lost_tail_is_repaired_with_what_the_probe_brings_to_light() {
    let (mut t, id) = after_writing(10_000);
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(6_001));
    t.pass(2 * ROUND_TRIP_MS + 10);
    // 6 to 9 are lost: the probe is the last of them.
    t.expect(seg().seq(9_001).ack(1).data(1_000));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(6_001).sack(&[(9_001, 10_001)]));
    t.pass(ROUND_TRIP_MS);
    // With nothing else in the network, what leaves keeps step with what arrives (RFC 9937).
    t.expect(seg().seq(6_001).ack(1).data(1_000));
    t.expect_nothing();
    t.inject(seg().ack(7_001).sack(&[(9_001, 10_001)]));
    t.expect(seg().seq(7_001).ack(1).data(1_000));
    t.expect(seg().seq(8_001).ack(1).data(1_000));
    t.inject(seg().ack(10_001));
    assert_eq!((t.counters().tail_loss_probes, t.counters().retransmission_timeouts), (1, 0));
    assert!(!t.info(id).in_recovery);
}

#[test]
fn a_loss_that_the_probe_itself_repairs_slows_down_all_the_same() {
    let (mut t, id) = after_writing(5_000);
    let before = t.info(id).cwnd_bytes;
    t.pass(2 * ROUND_TRIP_MS + 1);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(5_001));
    t.write(id, 1_000);
    t.expect(seg().seq(5_001).ack(1).data(1_000));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(6_001));
    assert!(t.info(id).cwnd_bytes < before);
}

#[test]
fn a_probe_that_was_needless_slows_nothing_down() {
    // The peer says that it has it twice, or just says again what it has.
    for report in [true, false] {
        let (mut t, id) = after_writing(5_000);
        let before = t.info(id).cwnd_bytes;
        t.pass(2 * ROUND_TRIP_MS + 1);
        t.expect(seg().seq(4_001).ack(1).data(1_000));
        t.inject(seg().ack(5_001));
        t.inject(if report { seg().ack(5_001).sack(&[(4_001, 5_001)]) } else { seg().ack(5_001) });
        t.write(id, 2_000);
        let _ = t.take_sent();
        t.pass(ROUND_TRIP_MS);
        t.inject(seg().ack(7_001));
        assert!(t.info(id).cwnd_bytes >= before || !report, "{report}");
        assert_eq!(t.counters().recoveries_undone, 0);
    }
}

#[test]
fn one_probe_is_sent_before_the_timeout_and_no_second() {
    let (mut t, _) = after_writing(5_000);
    t.pass(2 * ROUND_TRIP_MS + 1);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.pass(199);
    t.expect_nothing();
    t.pass(30);
    t.expect(seg().seq(1).ack(1).data(1_000));
    assert_eq!((t.counters().tail_loss_probes, t.counters().retransmission_timeouts), (1, 1));
}

#[test]
fn a_single_segment_leaves_the_peer_time_for_its_delayed_acknowledgment() {
    let (mut t, _) = after_writing(1_000);
    t.pass(150);
    t.expect_nothing();
    t.pass(60);
    t.expect(seg().seq(1).ack(1).data(1_000));
    assert_eq!((t.counters().tail_loss_probes, t.counters().retransmission_timeouts), (1, 0));
}

#[test]
fn a_peer_without_selective_acknowledgments_is_not_probed() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().syn().seq(0).ack(1).mss(super::script::MSS));
    t.expect(seg().seq(1).ack(1));
    t.write(id, 5_000);
    assert_eq!(t.take_sent().len(), 5);
    t.pass(150);
    t.expect_nothing();
}

#[test]
fn the_echo_of_what_arrived_before_the_gap_says_nothing_of_the_probe() {
    let mut t = Script::new();
    let id = t.connect();
    let syn = t.expect(seg().syn().seq(0)).segment.options.timestamp.unwrap();
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().syn().seq(0).ack(1).mss(1_012).sack_permitted().ts(1, syn.value));
    let echo = t.expect(seg().seq(1).ack(1)).segment.options.timestamp.unwrap().value;
    t.write(id, 5_000);
    assert_eq!(t.take_sent().len(), 5);
    t.pass(2 * ROUND_TRIP_MS + 1);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(1).ts(1, echo).sack(&[(4_001, 5_001)]));
    t.expect(seg().seq(1).ack(1).data(1_000));
}

/// Sends a segment, lets the path take `path_ms` for it, and tells how often it went.
fn exchange(t: &mut Script, id: ConnectionId, path_ms: u64) -> usize {
    let una = t.info(id).snd_max.wrapping_sub(t.iss());
    t.write(id, 1_000);
    t.pass(path_ms);
    let sent = t.take_sent().len();
    t.inject(seg().ack(una + 1_000));
    sent
}

#[test]
fn a_path_that_became_slower_is_not_probed_again_before_it_is_measured() {
    // 280 ms are more than the peer is given for a delayed acknowledgment, and less than that and the timeout.
    const SLOWER_MS: u64 = 280;
    let (mut t, id) = after_writing(1_000);
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(1_001));
    assert_eq!(exchange(&mut t, id, SLOWER_MS), 2, "the segment and the probe");
    t.inject(seg().ack(2_001).sack(&[(1_001, 2_001)]));
    // Of which copy the acknowledgment was is not known: no measurement. A probe now would spoil the next one.
    let srtt_before = t.info(id).srtt_ns;
    assert_eq!(srtt_before.map(|srtt_ns| srtt_ns / 1_000_000), Some(ROUND_TRIP_MS));
    let probes = t.counters().tail_loss_probes;
    let una = t.info(id).snd_max.wrapping_sub(t.iss());
    t.write(id, 5_000);
    t.pass(3 * ROUND_TRIP_MS);
    assert_eq!(t.take_sent().len(), 5, "nothing is probed");
    t.inject(seg().ack(una + 5_000));
    assert!(t.info(id).srtt_ns > srtt_before);
    assert_eq!(t.counters().tail_loss_probes, probes);
    // It was measured: the next tail is probed.
    t.write(id, 5_000);
    t.pass(4 * ROUND_TRIP_MS);
    assert_eq!((t.take_sent().len(), t.counters().tail_loss_probes), (6, probes + 1));
}

#[test]
fn a_loss_that_the_probe_repairs_is_judged_by_the_flight_it_was_of() {
    let mut t = Script::new();
    let id = connect(&mut t);
    // Three times ten segments, all of which arrive but the last.
    t.write(id, 10_000);
    assert_eq!(t.take_sent().len(), 10);
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(10_001));
    t.write(id, 10_000);
    let _ = t.take_sent();
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(20_001));
    t.write(id, 10_000);
    assert_eq!(t.take_sent().len(), 10);
    let before = t.info(id).cwnd_bytes;
    t.pass(2 * ROUND_TRIP_MS + 10);
    let probe = t.expect(seg().seq(29_001).ack(1).data(1_000));
    assert_eq!(probe.payload.len(), 1_000);
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(30_001));
    // The loss comes to light while next to nothing is in flight.
    t.write(id, 1_000);
    t.expect(seg().seq(30_001).ack(1).data(1_000));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().ack(31_001));
    let info = t.info(id);
    assert_eq!(info.ssthresh_bytes, 7_000, "of the ten in flight seven tenths");
    assert!(info.cwnd_bytes < before && info.cwnd_bytes == 7_000, "{}", info.cwnd_bytes);
}
