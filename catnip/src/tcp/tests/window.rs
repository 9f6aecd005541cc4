//! Flow control: the window we offer, the window we are offered, and what happens when it is closed
//! (RFC 9293, sections 3.8.6.1 and 3.8.6.2).

use libos::{Error, SocketOption};

use super::script::{MSS, Script, fix_receive_buffer};
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::State;

fn with_receive_buffer(bytes: usize) -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| fix_receive_buffer(config, bytes));
    let id = t.open();
    (t, id)
}

/// A connection whose peer closed its window when it acknowledged the first 1,000 bytes, and 5,000 wait.
fn shut_out() -> (Script, ConnectionId) {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(1_001).win(0));
    t.write(id, 5_000);
    t.expect_nothing();
    (t, id)
}

// ---- The window we offer.

#[test]
fn the_window_shrinks_by_what_is_not_read_and_the_edge_stays() {
    let (mut t, _) = with_receive_buffer(10_000);
    for (start, window) in [(1, 8_000), (2_001, 6_000), (4_001, 4_000), (6_001, 2_000), (8_001, 0)] {
        t.inject(seg().seq(start).ack(1).data(1_000));
        t.inject(seg().seq(start + 1_000).ack(1).data(1_000));
        t.expect(seg().seq(1).ack(start + 2_000).win(window));
    }
}

#[test]
fn reading_a_trifle_opens_no_window_and_reading_a_segment_does() {
    let (mut t, id) = with_receive_buffer(10_000);
    for start in (0..10).map(|at| 1 + at * 1_000) {
        t.inject(seg().seq(start).ack(1).data(1_000));
    }
    let _ = t.take_sent();
    assert_eq!(t.read_at_most(id, 999), 999);
    t.expect_nothing();
    assert_eq!(t.read_at_most(id, 1), 1);
    t.expect(seg().seq(1).ack(10_001).win(1_000));
    // From now on the edge moves when the window can at least double.
    assert_eq!(t.read_at_most(id, 999), 999);
    t.expect_nothing();
    assert_eq!(t.read_at_most(id, 1), 1);
    t.expect(seg().seq(1).ack(10_001).win(2_000));
    assert_eq!(t.read(id), 8_000);
    t.expect(seg().seq(1).ack(10_001).win(10_000));
}

#[test]
fn a_buffer_smaller_than_a_segment_opens_by_halves() {
    let (mut t, id) = with_receive_buffer(600);
    t.inject(seg().ack(1).data(600));
    t.pass(40);
    t.expect(seg().seq(1).ack(601).win(0));
    assert_eq!(t.read_at_most(id, 299), 299);
    t.expect_nothing();
    assert_eq!(t.read_at_most(id, 1), 1);
    t.expect(seg().seq(1).ack(601).win(300));
}

#[test]
fn a_probe_of_our_closed_window_is_answered_and_its_byte_not_taken() {
    let (mut t, id) = with_receive_buffer(2_000);
    t.inject(seg().ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001).win(0));
    for _ in 0..20 {
        t.inject(seg().seq(2_001).ack(1).data(1));
        t.expect(seg().seq(1).ack(2_001).win(0));
    }
    assert_eq!(t.read(id), 2_000);
    t.expect(seg().seq(1).ack(2_001).win(2_000));
    t.inject(seg().seq(2_001).ack(1).data(1));
    t.pass(40);
    t.expect(seg().seq(1).ack(2_002));
}

#[test]
fn an_acknowledgment_counts_though_our_window_is_closed() {
    let (mut t, id) = with_receive_buffer(1_000);
    t.inject(seg().ack(1).data(1_000));
    t.write(id, 100);
    t.expect(seg().seq(1).ack(1_001).data(100).win(0));
    t.inject(seg().seq(1_001).ack(101).data(1));
    t.expect(seg().seq(101).ack(1_001).win(0));
    assert_eq!(t.info(id).send_queue_bytes, 0);
}

#[test]
fn a_smaller_buffer_does_not_take_back_what_was_offered() {
    let (mut t, id) = with_receive_buffer(10_000);
    t.stack.tcp_set_option(id, SocketOption::ReceiveBuffer(2_000)).unwrap();
    t.inject(seg().ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001).win(8_000));
    for start in (2..10).map(|at| 1 + at * 1_000) {
        t.inject(seg().seq(start).ack(1).data(1_000));
    }
    let _ = t.take_sent();
    assert_eq!(t.read(id), 10_000);
    t.expect(seg().seq(1).ack(10_001).win(2_000));
}

#[test]
fn a_larger_buffer_opens_a_closed_window() {
    let (mut t, id) = with_receive_buffer(1_000);
    t.inject(seg().ack(1).data(1_000));
    t.pass(40);
    t.expect(seg().seq(1).ack(1_001).win(0));
    t.stack.tcp_set_option(id, SocketOption::ReceiveBuffer(5_000)).unwrap();
    t.expect(seg().seq(1).ack(1_001).win(4_000));
}

#[test]
fn shutting_down_reading_opens_the_window_and_throws_data_away() {
    let (mut t, id) = with_receive_buffer(1_000);
    t.inject(seg().ack(1).data(1_000));
    t.pass(40);
    t.expect(seg().seq(1).ack(1_001).win(0));
    t.stack.tcp_shutdown(id, libos::Shutdown::Read).unwrap();
    t.expect(seg().seq(1).ack(1_001).win(1_000));
    assert_eq!(t.read_outcome(id), Ok(Some(0)));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.pass(40);
    t.expect(seg().seq(1).ack(2_001).win(1_000));
    assert_eq!(t.read_outcome(id), Ok(Some(0)));
}

// ---- The window we are offered.

#[test]
fn no_more_is_sent_than_the_window_takes() {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).win(2_500));
    t.window = 2_500;
    t.inject(seg().ack(1));
    t.write(id, 6_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
    // 500 more would fit: less than a segment and than half of the largest window.
    t.expect_nothing();
    t.inject(seg().ack(1_001));
    t.expect(seg().seq(2_001).ack(1).data(1_000));
    t.inject(seg().ack(3_001));
    t.expect(seg().seq(3_001).ack(1).data(1_000));
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.expect_nothing();
}

#[test]
fn windows_are_compared_unsigned() {
    let mut t = Script::new();
    let id = t.open_with(seg().mss(MSS).wscale(14));
    // 65,535 << 14: half a byte short of 2^30.
    t.inject(seg().ack(1).win(u16::MAX));
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    assert_eq!(t.info(id).snd_wnd_bytes, 0xffff << 14);
}

#[test]
fn half_of_the_largest_window_is_worth_a_segment() {
    let mut t = Script::new();
    t.window = 400;
    let id = t.open();
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(400));
    t.inject(seg().ack(401).win(200));
    t.expect(seg().seq(401).ack(1).data(200));
    t.inject(seg().ack(601).win(199));
    t.expect_nothing();
}

#[test]
fn a_window_too_small_to_be_worth_it_is_used_after_the_override_timeout() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(1_001).win(100));
    t.write(id, 5_000);
    t.pass(199);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1_001).ack(1).data(100));
    // Were it lost, it would be sent again, however small.
    t.pass(400);
    t.expect(seg().seq(1_001).ack(1).data(100));
    t.inject(seg().ack(1_101).win(100));
    t.pass(1_000);
    t.expect(seg().seq(1_101).ack(1).data(100));
}

#[test]
fn a_closed_window_is_probed_ever_more_rarely() {
    let (mut t, _) = shut_out();
    let start = t.now;
    t.pass(200_000);
    let sent = t.take_sent();
    let times: Vec<u64> = sent.iter().map(|probe| (probe.at - start).as_millis() as u64).collect();
    let expected = [200, 600, 1_400, 3_000, 6_200, 12_600, 25_400, 51_000, 102_200];
    assert_eq!(times, expected);
    for probe in &sent {
        assert_eq!((t.relative_seq(probe), probe.payload.len()), (1_001, 1));
    }
}

#[test]
fn a_closed_window_is_probed_for_ever_while_the_peer_answers() {
    let (mut t, id) = shut_out();
    let mut longest_ms = 0;
    let mut last = t.now;
    for probe in 0..60 {
        t.pass(120_000);
        let sent = t.take_sent();
        assert!(!sent.is_empty(), "probe {probe}");
        longest_ms = longest_ms.max((sent[0].at - last).as_millis());
        last = sent[0].at;
        t.inject(seg().ack(1_001).win(0));
    }
    assert_eq!(t.state(id), State::Established);
    // Not more rarely than the longest timeout.
    assert!(longest_ms <= 240_000, "{longest_ms}");
    t.inject(seg().ack(1_001));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
}

#[test]
fn a_peer_that_does_not_answer_probes_is_given_up() {
    let (mut t, id) = shut_out();
    t.pass(3_600_000);
    assert_eq!(t.stack.tcp_error(id), Some(Error::TimedOut));
    assert_eq!(t.take_sent().len(), 15);
}

#[test]
fn a_window_that_opens_is_used_at_once_and_its_losses_are_noticed_soon() {
    let (mut t, _) = shut_out();
    // Long probing, so that the timeout is far backed off.
    for _ in 0..9 {
        t.pass(60_000);
        t.inject(seg().ack(1_001).win(0));
    }
    let _ = t.take_sent();
    t.inject(seg().ack(1_001));
    assert_eq!(t.take_sent().len(), 5);
    t.pass(199);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1_001).ack(1).data(1_000));
}

#[test]
fn a_window_that_opens_late_gets_its_whole_retransmission_timeout() {
    let (mut t, _) = shut_out();
    // One millisecond before the first probe.
    t.pass(199);
    t.inject(seg().ack(1_001));
    assert_eq!(t.take_sent().len(), 5);
    t.pass(199);
    t.expect_nothing();
    t.pass(1);
    t.expect(seg().seq(1_001).ack(1).data(1_000));
}

#[test]
fn the_byte_of_a_probe_may_be_taken() {
    let (mut t, id) = shut_out();
    t.pass(200);
    t.expect(seg().seq(1_001).ack(1).data(1));
    t.inject(seg().ack(1_002).win(0));
    t.expect_nothing();
    t.pass(10_000);
    let probes = t.take_sent();
    assert!(probes.iter().all(|probe| t.relative_seq(probe) == 1_002 && probe.payload.len() == 1));
    assert!(probes.len() >= 3);
    t.inject(seg().ack(1_002));
    t.expect(seg().seq(1_002).ack(1).data(1_000));
    assert_eq!(t.state(id), State::Established);
}

#[test]
fn a_fin_gets_through_a_closed_window() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().ack(1_001).win(0));
    t.close(id);
    t.expect_nothing();
    t.pass(200);
    t.expect(seg().fin().seq(1_001).ack(1));
    t.pass(400);
    t.expect(seg().fin().seq(1_001).ack(1));
    t.inject(seg().ack(1_002).win(0));
    t.inject(seg().fin().ack(1_002).win(0));
    t.expect(seg().seq(1_002).ack(2));
    t.pass(60_000);
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn nobody_is_held_for_ever_by_a_closed_window_once_the_program_has_gone() {
    let (mut t, id) = shut_out();
    t.close(id);
    for _ in 0..60 {
        t.pass(120_000);
        t.inject(seg().ack(1_001).win(0));
    }
    let _ = t.take_sent();
    assert_eq!(t.stack.tcp_connections(), 0);
}

#[test]
fn a_peer_may_shrink_its_window() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 8_000);
    assert_eq!(t.take_sent().len(), 8);
    // Five segments were in flight when the peer lost its memory: it takes one more.
    t.inject(seg().ack(3_001).win(1_000));
    t.expect_nothing();
    t.pass(200);
    t.expect(seg().seq(3_001).ack(1).data(1_000));
    t.inject(seg().ack(4_001).win(0));
    t.pass(10_000);
    let probes = t.take_sent();
    assert!(probes.len() >= 3);
    assert!(probes.iter().all(|probe| t.relative_seq(probe) == 4_001 && probe.payload.len() <= 1));
    t.inject(seg().ack(4_001).win(30_000));
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.inject(seg().ack(8_001));
    assert_eq!(t.info(id).send_queue_bytes, 0);
}

#[test]
fn a_window_that_stays_closed_behind_a_flight_reduces_the_threshold_once() {
    let mut t = Script::new();
    let listener = t.listen();
    t.inject(seg().seq(0).syn().mss(MSS).options(&[4, 2]));
    t.pass(10);
    t.inject(seg().ack(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    t.write(id, 8_000);
    t.inject(seg().ack(1).win(0));
    let mut thresholds = Vec::new();
    for _ in 0..6 {
        t.pass(3_000);
        t.inject(seg().ack(1).win(0));
        thresholds.push(t.info(id).ssthresh_bytes);
    }
    let _ = t.take_sent();
    assert!(thresholds.iter().all(|&bytes| bytes >= 4_000), "{thresholds:?}");
}

#[test]
fn a_shrunken_window_too_small_for_a_segment_still_gets_the_data_through() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 3_000);
    assert_eq!(t.take_sent().len(), 3);
    let mut una = 1;
    t.inject(seg().ack(una).win(100));
    for _ in 0..200 {
        t.pass(500);
        for sent in t.take_sent() {
            let end = t.relative_seq(&sent) + sent.payload.len() as u32;
            assert!(end <= una + 100, "beyond the window");
            una = una.max(end);
        }
        t.inject(seg().ack(una).win(100));
    }
    assert_eq!((una, t.info(id).send_queue_bytes), (3_001, 0));
}

#[test]
fn an_old_segment_does_not_bring_back_an_old_window() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().ack(1).data(100).win(5_000));
    t.inject(seg().seq(101).ack(1).data(100).win(3_000));
    // Sent before the one above, arrives after it: acceptable, for its last byte is new.
    t.inject(seg().seq(51).ack(1).data(151).win(9_000));
    assert_eq!(t.info(id).snd_wnd_bytes, 3_000);
    t.inject(seg().seq(202).ack(1).win(9_000));
    assert_eq!(t.info(id).snd_wnd_bytes, 9_000);
}
