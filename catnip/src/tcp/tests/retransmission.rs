//! The retransmission timer (RFC 6298), Karn's algorithm, and what a timeout does to the congestion window.

use std::time::Duration;

use libos::Error;

use super::script::{MSS, Script, Sent};
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::State;
use crate::tcp::congestion::Algorithm;

/// Milliseconds since `start` at which segments were sent.
fn times(start: libos::Instant, sent: &[Sent]) -> Vec<u64> {
    sent.iter().map(|segment| (segment.at - start).as_millis() as u64).collect()
}

fn rto(t: &Script, id: ConnectionId) -> Duration {
    Duration::from_nanos(t.info(id).rto_ns)
}

#[test]
fn a_lost_segment_is_sent_again_ever_more_rarely_until_the_peer_is_given_up() {
    let mut t = Script::new();
    let id = t.open();
    let start = t.now;
    t.write(id, 100);
    t.pass(3_600_000);
    let sent = t.take_sent();
    let mut expected = vec![0];
    let (mut at, mut timeout) = (0, 200);
    for _ in 0..15 {
        at += timeout;
        expected.push(at);
        timeout = (timeout * 2).min(120_000);
    }
    assert_eq!(times(start, &sent), expected);
    for segment in &sent {
        assert_eq!((t.relative_seq(segment), segment.payload.len()), (1, 100));
    }
    assert_eq!((t.state(id), t.stack.tcp_error(id)), (State::Closed, Some(Error::TimedOut)));
}

#[test]
fn the_timer_restarts_with_every_acknowledgment_of_something_new() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 4_000);
    assert_eq!(t.take_sent().len(), 4);
    t.pass(150);
    t.inject(seg().ack(1_001));
    t.pass(150);
    t.inject(seg().ack(2_001));
    t.pass(199);
    t.expect_nothing();
    t.pass(1_000);
    t.expect(seg().seq(2_001).ack(1).data(1_000));
}

#[test]
fn a_duplicate_acknowledgment_does_not_restart_the_timer() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 2_000);
    assert_eq!(t.take_sent().len(), 2);
    t.pass(150);
    t.inject(seg().ack(1));
    t.pass(49);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1).ack(1).data(1_000));
}

#[test]
fn the_timer_stops_when_all_is_acknowledged() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.pass(100);
    t.inject(seg().ack(1_001));
    t.pass(3_600_000);
    t.expect_nothing();
    assert_eq!(t.counters().retransmission_timeouts, 0);
}

#[test]
fn the_timeout_follows_the_measured_round_trip_time() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(400);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
    assert_eq!(rto(&t, id), Duration::from_millis(400 + 4 * 200));
    // RFC 6298, section 2.3: the variation falls by a quarter, and the smoothed time stays.
    let mut next = 1;
    for (sample_ms, expected_ms) in [(400, 400 + 4 * 150), (800, 450 + 4 * (112 + 100))] {
        t.write(id, 1_000);
        t.expect(seg().seq(next).ack(1).data(1_000));
        t.pass(sample_ms);
        next += 1_000;
        t.inject(seg().ack(next));
        let difference = rto(&t, id).abs_diff(Duration::from_millis(expected_ms));
        assert!(difference <= Duration::from_millis(3), "{:?}", rto(&t, id));
    }
}

#[test]
fn the_acknowledgment_of_a_segment_sent_twice_measures_nothing_and_keeps_the_backoff() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(100);
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
    assert_eq!(rto(&t, id), Duration::from_millis(300));
    t.write(id, 2_000);
    assert_eq!(t.take_sent().len(), 2);
    t.pass(300);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(2_001));
    let info = t.info(id);
    assert_eq!(info.srtt_ns.map(Duration::from_nanos), Some(Duration::from_millis(100)));
    // RFC 6298, section 5, closing note: doubled until something new was measured.
    assert_eq!(rto(&t, id), Duration::from_millis(600));
    t.write(id, 1_000);
    t.expect(seg().seq(2_001).ack(1).data(1_000));
    t.pass(100);
    t.inject(seg().ack(3_001));
    assert!(rto(&t, id) < Duration::from_millis(300), "{:?}", rto(&t, id));
}

#[test]
fn with_timestamps_a_segment_sent_twice_is_measured() {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).ts(500, 0));
    t.write(id, 900);
    t.expect(seg().seq(1).ack(1).data(900));
    t.pass(200);
    let again = t.expect(seg().seq(1).ack(1).data(900));
    t.pass(50);
    t.inject(seg().ack(901).ts(600, again.segment.options.timestamp.unwrap().value));
    let srtt = Duration::from_nanos(t.info(id).srtt_ns.unwrap());
    assert!(srtt > Duration::from_millis(4) && srtt < Duration::from_millis(60), "{srtt:?}");
    assert_eq!(rto(&t, id), Duration::from_millis(200));
}

#[test]
fn after_a_lost_syn_the_timeout_is_three_seconds_and_the_window_one_segment() {
    let mut t = Script::new();
    let id = t.connect();
    t.expect(seg().syn().seq(0));
    t.pass(1_000);
    t.expect(seg().syn().seq(0));
    t.inject(seg().syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
    assert_eq!(rto(&t, id), Duration::from_secs(3));
    t.write(id, 5_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect_nothing();
    t.pass(2_999);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1).ack(1).data(1_000));
}

#[test]
fn a_syn_ack_that_was_asked_for_twice_measures_nothing() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().seq(0).syn().ack(1));
    t.pass(700);
    t.inject(seg().seq(0).syn().mss(MSS));
    t.expect(seg().seq(0).syn().ack(1));
    t.inject(seg().ack(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    assert_eq!((t.info(id).srtt_ns, rto(&t, id)), (None, Duration::from_secs(1)));
}

#[test]
fn the_initial_window_is_ten_segments_and_grows_by_what_is_acknowledged() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 100_000);
    assert_eq!(t.take_sent().len(), 10);
    t.inject(seg().ack(2_001));
    // Two left the network, and slow start adds two.
    assert_eq!(t.take_sent().len(), 4);
    t.inject(seg().ack(3_001));
    assert_eq!(t.take_sent().len(), 2);
}

#[test]
fn after_a_timeout_sending_starts_again_with_one_segment_at_the_oldest() {
    let mut t = Script::configured(|config| config.tcp.options.congestion = Algorithm::NewReno);
    let id = t.open();
    t.write(id, 20_000);
    assert_eq!(t.take_sent().len(), 10);
    t.pass(200);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect_nothing();
    assert_eq!(t.info(id).ssthresh_bytes, 5_000);
    t.inject(seg().ack(1_001));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(2_001).ack(1).data(1_000));
    t.expect_nothing();
    // The first copies arrived after all: what they cover is not sent again.
    t.inject(seg().ack(9_001));
    t.expect(seg().seq(9_001).ack(1).data(1_000));
    t.expect(seg().seq(10_001).ack(1).data(1_000));
}

#[test]
fn the_threshold_is_halved_once_for_one_loss() {
    let mut t = Script::configured(|config| config.tcp.options.congestion = Algorithm::NewReno);
    let id = t.open();
    t.write(id, 20_000);
    t.pass(200 + 400 + 800);
    assert_eq!(t.take_sent().len(), 13);
    assert_eq!(t.info(id).ssthresh_bytes, 5_000);
}

#[test]
fn after_a_long_silence_the_congestion_window_starts_again() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 200_000);
    let mut next = 1;
    while next < 200_001 {
        let _ = t.take_sent();
        next += 2_000;
        t.inject(seg().ack(next));
    }
    assert!(t.info(id).cwnd_bytes > 20_000);
    t.pass(201);
    t.write(id, 30_000);
    assert_eq!(t.take_sent().len(), 10);
    assert_eq!(t.info(id).cwnd_bytes, 10_000);
}

#[test]
fn a_window_that_is_not_filled_does_not_grow() {
    let mut t = Script::new();
    let id = t.open();
    let mut next = 1;
    for _ in 0..50 {
        t.write(id, 1_000);
        next += 1_000;
        let _ = t.take_sent();
        t.inject(seg().ack(next));
    }
    assert_eq!(t.info(id).cwnd_bytes, 10_000);
}

#[test]
fn what_was_written_in_small_pieces_is_sent_again_whole() {
    let mut t = Script::new();
    let id = t.open();
    t.stack.tcp_set_option(id, libos::SocketOption::NoDelay(true)).unwrap();
    for _ in 0..8 {
        t.write(id, 100);
    }
    assert_eq!(t.take_sent().len(), 8);
    t.pass(200);
    t.expect(seg().seq(1).ack(1).data(800));
    t.inject(seg().ack(801));
    t.pass(10_000);
    t.expect_nothing();
}
