//! Recovery from losses with a peer that acknowledges selectively (RFC 6675, RFC 8985, RFC 9937).

use super::script::{MSS, Script};
use super::seg::{Seg, seg};
use crate::events::ConnectionId;

/// Milliseconds from a segment to its acknowledgment.
const ROUND_TRIP_MS: u64 = 40;

/// A connection whose round-trip time is known, with `segments` of a thousand bytes under way, all sent at one
/// time, and more waiting. In slow start they are 10, 20 or 40.
pub(super) fn in_flight(segments: u32) -> (Script, ConnectionId) {
    let mut t = Script::new();
    t.window = 60_000;
    let id = connect(&mut t);
    t.write(id, 200_000);
    assert_eq!(t.take_sent().len(), 10);
    let mut acked = 1;
    loop {
        let end = t.info(id).snd_max.wrapping_sub(t.iss());
        t.pass(ROUND_TRIP_MS);
        if end - acked == segments * 1_000 {
            return (t, id);
        }
        while acked < end {
            acked += 1_000;
            t.inject(seg().ack(acked));
        }
        let _ = t.take_sent();
    }
}

/// An active open, which measures the round-trip time.
pub(super) fn connect(t: &mut Script) -> ConnectionId {
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(ROUND_TRIP_MS);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS).sack_permitted());
    t.expect(seg().seq(1).ack(1));
    id
}

fn una(t: &Script, id: ConnectionId) -> u32 {
    t.info(id).snd_una.wrapping_sub(t.iss())
}

/// Sequence numbers of what was sent, apart from what was never sent before `new`.
fn resent(t: &mut Script, new: u32) -> Vec<u32> {
    let sent = t.take_sent();
    sent.iter().map(|sent| t.relative_seq(sent)).filter(|&seq| seq < new).collect()
}

fn sack(ack: u32, blocks: &[(u32, u32)]) -> Seg {
    seg().ack(ack).sack(blocks)
}

#[test]
fn three_segments_beyond_a_hole_send_it_again_at_once() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    for segments in 1..3 {
        t.inject(sack(una, &[(una + 1_000, una + 1_000 + segments * 1_000)]));
        assert_eq!(resent(&mut t, new), []);
    }
    t.inject(sack(una, &[(una + 1_000, una + 4_000)]));
    assert_eq!(resent(&mut t, new), [una]);
    assert!(t.info(id).in_recovery);
    assert_eq!(t.counters().fast_retransmits, 1);
}

#[test]
fn all_holes_of_a_window_are_filled_within_one_round_trip() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    let at = |segment: u32| una + segment * 1_000;
    // Lost are 0, 3, 4 and 8.
    t.inject(sack(una, &[(at(1), at(3))]));
    t.inject(sack(una, &[(at(5), at(8)), (at(1), at(3))]));
    let mut filled = resent(&mut t, new);
    for end in 10..20 {
        t.inject(sack(una, &[(at(9), at(end)), (at(5), at(8)), (at(1), at(3))]));
        filled.extend(resent(&mut t, new));
    }
    assert_eq!(filled, [at(0), at(3), at(4), at(8)]);
    t.pass(ROUND_TRIP_MS);
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(seg().ack(max));
    let info = t.info(id);
    assert!(!info.in_recovery);
    assert_eq!((t.counters().fast_retransmits, t.counters().retransmission_timeouts), (1, 0));
    assert_eq!(t.counters().retransmitted_segments, 4);
}

#[test]
fn one_segment_that_overtakes_is_given_a_quarter_of_a_round_trip() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(sack(una, &[(una + 1_000, una + 2_000)]));
    t.pass(ROUND_TRIP_MS / 4 - 1);
    assert_eq!(resent(&mut t, new), []);
    t.pass(2);
    assert_eq!(resent(&mut t, new), [una]);
}

#[test]
fn a_late_segment_is_not_sent_again_and_nothing_is_slowed_down() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let cwnd = t.info(id).cwnd_bytes;
    t.inject(sack(una, &[(una + 1_000, una + 3_000)]));
    t.pass(ROUND_TRIP_MS / 4 - 1);
    t.inject(seg().ack(una + 3_000));
    t.pass(ROUND_TRIP_MS / 4);
    assert_eq!(t.counters().retransmitted_segments, 0);
    assert!(t.info(id).cwnd_bytes >= cwnd);
}

#[test]
fn once_reordering_was_seen_many_may_overtake() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    t.inject(sack(una, &[(una + 1_000, una + 2_000)]));
    t.inject(seg().ack(una + 2_000));
    let hole = una + 2_000;
    for end in 4..12 {
        t.inject(sack(hole, &[(hole + 1_000, una + end * 1_000)]));
    }
    assert_eq!(t.counters().retransmitted_segments, 0);
    t.pass(ROUND_TRIP_MS / 4 - 1);
    assert_eq!(t.counters().retransmitted_segments, 0);
    t.inject(seg().ack(una + 11_000));
    t.pass(ROUND_TRIP_MS / 4);
    assert_eq!(t.counters().retransmitted_segments, 0);
}

#[test]
fn each_round_with_a_needless_retransmission_makes_it_wait_longer() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    // Reordering by more than a quarter of a round trip: the hole is sent again, and both copies arrive.
    t.inject(sack(una, &[(una + 1_000, una + 4_000)]));
    assert_eq!(resent(&mut t, new), [una]);
    t.inject(seg().ack(una + 4_000));
    t.inject(sack(una + 4_000, &[(una, una + 1_000)]));
    assert_eq!(t.counters().dsacks_received, 1);
    let _ = t.take_sent();
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    let hole = una + 4_000;
    t.pass(ROUND_TRIP_MS);
    t.inject(sack(hole, &[(hole + 1_000, hole + 5_000)]));
    t.pass(ROUND_TRIP_MS / 2 - 1);
    assert_eq!(resent(&mut t, max), []);
    t.pass(2);
    assert_eq!(resent(&mut t, max), [hole]);
}

#[test]
fn a_recovery_that_was_needless_is_undone() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let before = t.info(id);
    t.inject(sack(una, &[(una + 1_000, una + 4_000)]));
    assert!(t.info(id).cwnd_bytes < before.cwnd_bytes);
    t.inject(sack(una + 4_000, &[(una, una + 1_000)]));
    let after = t.info(id);
    assert!(!after.in_recovery);
    assert!(after.cwnd_bytes >= before.cwnd_bytes, "{} of {}", after.cwnd_bytes, before.cwnd_bytes);
    assert_eq!(t.counters().recoveries_undone, 1);
}

#[test]
fn a_retransmission_that_is_lost_is_sent_again_without_a_timeout() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let at = |segment: u32| una + segment * 1_000;
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(sack(una, &[(at(1), at(4))]));
    assert_eq!(resent(&mut t, new), [una]);
    // More arrives that had left before the retransmission: that says nothing of it.
    let last = (new - una) / 1_000;
    for end in 5..=last {
        t.pass(1);
        t.inject(sack(una, &[(at(1), at(end))]));
    }
    assert_eq!(resent(&mut t, new), []);
    // What left after it arrives: it is lost.
    t.pass(ROUND_TRIP_MS);
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    assert!(max > new, "new data was sent in recovery");
    t.inject(sack(una, &[(at(1), max)]));
    assert_eq!(resent(&mut t, new), [una]);
    assert_eq!(t.counters().retransmission_timeouts, 0);
}

#[test]
fn in_recovery_what_leaves_keeps_step_with_what_arrives() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let at = |segment: u32| una + segment * 1_000;
    let outstanding = (t.info(id).snd_max.wrapping_sub(t.iss()) - una) / 1_000;
    t.inject(sack(una, &[(at(1), at(4))]));
    let mut sent = t.take_sent().len() as u32;
    let ssthresh = t.info(id).ssthresh_bytes;
    for end in 5..=outstanding {
        t.inject(sack(una, &[(at(1), at(end))]));
        sent += t.take_sent().len() as u32;
        let bound = ((end - 1) * ssthresh).div_ceil(outstanding * 1_000).max(1);
        assert!(sent <= bound + 1, "{sent} sent for {} delivered, {bound} allowed", end - 1);
    }
    // All have left but what was lost: the window is what it was reduced to, and no burst led there.
    assert!(sent * 1_000 + 2_000 >= ssthresh, "{sent} segments for {ssthresh}");
}

#[test]
fn what_was_reported_and_is_taken_back_is_sent_again() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let at = |segment: u32| una + segment * 1_000;
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(sack(una, &[(at(1), at(6))]));
    assert_eq!(resent(&mut t, new), [una]);
    // The hole is filled, and the peer has none of what it reported.
    t.inject(seg().ack(at(1)));
    let _ = t.take_sent();
    t.pass(30);
    assert_eq!(resent(&mut t, new).first(), Some(&at(1)));
    let mut ack = at(1);
    for _ in 0..40 {
        ack += 1_000;
        t.inject(seg().ack(ack));
        let _ = t.take_sent();
    }
    assert!(t.info(id).snd_una.wrapping_sub(t.iss()) >= at(20));
}

#[test]
fn a_timeout_forgets_what_was_reported() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let at = |segment: u32| una + segment * 1_000;
    t.inject(sack(una, &[(at(2), at(4)), (at(6), at(8))]));
    let _ = t.take_sent();
    t.pass(2_000);
    assert!(t.counters().retransmission_timeouts > 0);
    let _ = t.take_sent();
    assert_eq!(t.info(id).cwnd_bytes, 1_000);
    // The peer has dropped all of it: nothing is left out.
    let mut ack = una;
    let mut seen = Vec::new();
    for _ in 0..8 {
        ack += 1_000;
        t.inject(seg().ack(ack));
        let sent = t.take_sent();
        seen.extend(sent.iter().map(|sent| t.relative_seq(sent)));
    }
    for segment in 2..8 {
        assert!(seen.contains(&at(segment)), "segment {segment}");
    }
}

#[test]
fn false_blocks_change_nothing() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    for blocks in [
        [(max, max + 1_000), (max - 1_000, max + 1)],
        [(una + 3_000, una + 2_000), (una + 2_000, una + 2_000)],
        [(una - 1_000, una + 1_000), (una, max)],
        // Parts of segments.
        [(una + 1_001, una + 1_999), (una + 2_500, una + 3_400)],
        [(una.wrapping_add(1 << 31), una.wrapping_add((1 << 31) + 9)), (max + 7, una)],
    ] {
        t.inject(sack(una, &blocks));
    }
    t.pass(1);
    assert_eq!((t.counters().retransmitted_segments, t.counters().fast_retransmits), (0, 0));
    assert_eq!(una, t.info(id).snd_una.wrapping_sub(t.iss()));
}

#[test]
fn the_first_two_reports_each_let_a_new_segment_out() {
    let (mut t, id) = in_flight(10);
    let una = una(&t, id);
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    for segments in 1..3 {
        t.inject(sack(una, &[(una + 1_000, una + 1_000 + segments * 1_000)]));
        t.expect(seg().seq(max + (segments - 1) * 1_000).ack(1).data(1_000));
        t.expect_nothing();
    }
}

#[test]
fn a_fin_that_is_lost_with_the_end_of_the_data_is_recovered() {
    let mut t = Script::new();
    let id = connect(&mut t);
    t.write(id, 4_500);
    t.close(id);
    assert_eq!(t.take_sent().len(), 5);
    t.inject(sack(1, &[(1_001, 4_001)]));
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(4_001));
    t.pass(2_000);
    let last = t.take_sent().pop().unwrap();
    assert_eq!((t.relative_seq(&last), last.payload.len()), (4_001, 500));
    t.inject(seg().ack(4_502));
    t.pass(2_000);
    t.expect_nothing();
}

#[test]
fn duplicates_that_report_nothing_are_no_sign_of_a_loss() {
    let (mut t, id) = in_flight(20);
    let una = una(&t, id);
    let new = t.info(id).snd_max.wrapping_sub(t.iss());
    for _ in 0..5 {
        t.inject(seg().ack(una));
        assert_eq!(resent(&mut t, new), []);
    }
    assert_eq!((t.counters().fast_retransmits, t.info(id).in_recovery), (0, false));
    // What is lost all the same is asked for by the tail probe, without a timeout.
    t.pass(200);
    assert_eq!((t.counters().tail_loss_probes, t.counters().retransmission_timeouts), (1, 0));
}
