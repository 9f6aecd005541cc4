//! Timeouts that lose nothing: F-RTO with selective acknowledgments (RFC 5682, section 3.1).

use super::sack_recovery::in_flight;
use super::script::Script;
use super::seg::seg;
use crate::events::ConnectionId;

/// Twenty segments under way when the path falls silent until the timer has gone off; the probe of the tail before
/// that was lost. Returns the oldest sequence number.
fn timed_out() -> (Script, ConnectionId, u32) {
    let (mut t, id) = in_flight(20);
    let una = t.info(id).snd_una.wrapping_sub(t.iss());
    while t.counters().retransmission_timeouts == 0 {
        t.pass(10);
    }
    let sent = t.take_sent();
    assert_eq!(sent.last().map(|sent| t.relative_seq(sent)), Some(una));
    (t, id, una)
}

#[test]
fn after_a_delay_on_the_path_nothing_more_is_sent_again_and_the_window_is_restored() {
    let (mut t, id) = in_flight(20);
    let before = t.info(id).cwnd_bytes;
    let una = t.info(id).snd_una.wrapping_sub(t.iss());
    while t.counters().retransmission_timeouts == 0 {
        t.pass(10);
    }
    let _ = t.take_sent();
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    assert_eq!(t.info(id).cwnd_bytes, 1_000);
    // The acknowledgments of the first copies arrive after all.
    t.inject(seg().ack(una + 1_000));
    for sent in t.take_sent() {
        assert!(t.relative_seq(&sent) >= max, "old data was sent again");
    }
    t.inject(seg().ack(una + 2_000));
    for sent in t.take_sent() {
        assert!(t.relative_seq(&sent) >= max, "old data was sent again");
    }
    assert_eq!(t.counters().spurious_timeouts, 1);
    assert!(t.info(id).cwnd_bytes >= before, "{} of {before}", t.info(id).cwnd_bytes);
    for segment in 3..=20 {
        t.inject(seg().ack(una + segment * 1_000));
    }
    for sent in t.take_sent() {
        assert!(t.relative_seq(&sent) >= max, "old data was sent again");
    }
}

#[test]
fn a_timeout_after_real_losses_sends_everything_again() {
    let (mut t, id, una) = timed_out();
    let max = t.info(id).snd_max.wrapping_sub(t.iss());
    t.inject(seg().ack(una + 1_000));
    let new = t.take_sent();
    assert_eq!(new.iter().map(|sent| t.relative_seq(sent)).collect::<Vec<_>>(), [max, max + 1_000]);
    // The new data arrives, the old was lost.
    t.inject(seg().ack(una + 1_000).sack(&[(max, max + 1_000)]));
    let again = t.take_sent();
    assert_eq!(again.first().map(|sent| t.relative_seq(sent)), Some(una + 1_000));
    assert_eq!(t.counters().spurious_timeouts, 0);
    let mut ack = una + 1_000;
    while ack < max {
        ack += 1_000;
        t.pass(40);
        t.inject(seg().ack(ack));
    }
    assert_eq!((t.counters().spurious_timeouts, t.counters().retransmission_timeouts), (0, 1));
    assert!(t.info(id).cwnd_bytes > 1_000);
}

#[test]
fn without_new_data_old_data_goes_on() {
    let mut t = Script::new();
    let id = super::sack_recovery::connect(&mut t);
    t.write(id, 8_000);
    while t.counters().retransmission_timeouts == 0 {
        t.pass(10);
    }
    let _ = t.take_sent();
    t.inject(seg().ack(1_001));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(2_001).ack(1).data(1_000));
    t.expect_nothing();
}

#[test]
fn what_had_been_reported_before_the_timeout_proves_nothing() {
    let (mut t, id) = in_flight(20);
    let una = t.info(id).snd_una.wrapping_sub(t.iss());
    let at = |segment: u32| una + segment * 1_000;
    t.inject(seg().ack(una).sack(&[(at(1), at(2))]));
    while t.counters().retransmission_timeouts == 0 {
        t.pass(10);
    }
    let _ = t.take_sent();
    t.inject(seg().ack(at(2)));
    t.inject(seg().ack(at(2)).sack(&[(at(1), at(2))]));
    assert_eq!(t.counters().spurious_timeouts, 0);
}
