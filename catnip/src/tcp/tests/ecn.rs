//! Explicit congestion notification: RFC 3168, and the precise reports of DCTCP (RFC 8257, section 3).

use super::script::{MSS, Script};
use super::seg::seg;
use crate::events::ConnectionId;
use crate::tcp::EcnMode;
use crate::tcp::congestion::Algorithm;
use crate::tcp::segment::Flags;

fn script(mode: EcnMode) -> Script {
    Script::configured(|config| config.tcp.ecn = mode)
}

/// A connection to whose SYN, which asked for ECN, the peer agreed.
fn agreed() -> (Script, ConnectionId) {
    let mut t = script(EcnMode::On);
    let id = t.connect();
    t.expect(seg().syn().ece().cwr().seq(0).not_ect());
    t.inject(seg().syn().ece().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1).not_ect());
    (t, id)
}

/// The same with DCTCP, which asks by itself.
fn agreed_with_dctcp() -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| config.tcp.options.congestion = Algorithm::Dctcp);
    let id = t.connect();
    t.expect(seg().syn().ece().cwr().seq(0).not_ect());
    t.inject(seg().syn().ece().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1).not_ect());
    (t, id)
}

/// The same with the initial window of ten segments in flight and more waiting.
fn in_flight() -> (Script, ConnectionId) {
    let (mut t, id) = agreed();
    t.write(id, 100_000);
    for at in 0..10 {
        t.expect(seg().seq(1 + at * 1_000).ack(1).data(1_000).ect());
    }
    t.expect_nothing();
    (t, id)
}

#[test]
fn a_listener_agrees_when_it_is_asked_and_may() {
    let asking = || seg().syn().ece().cwr().seq(0).mss(MSS);
    for (mode, agrees) in [(EcnMode::Off, false), (EcnMode::Passive, true), (EcnMode::On, true)] {
        let mut t = script(mode);
        let listener = t.listen();
        t.inject(asking());
        let answer = seg().syn().seq(0).ack(1).not_ect();
        t.expect(if agrees { answer.ece() } else { answer });
        t.inject(seg().ack(1));
        let (id, _) = t.stack.tcp_accept(listener).unwrap();
        t.write(id, 1_000);
        let data = seg().seq(1).ack(1).data(1_000);
        t.expect(if agrees { data.ect() } else { data.not_ect() });
    }
}

#[test]
fn a_syn_with_one_of_the_two_flags_asks_for_nothing() {
    for syn in [seg().syn().ece(), seg().syn().cwr(), seg().syn()] {
        let mut t = script(EcnMode::On);
        t.listen();
        t.inject(syn.seq(0).mss(MSS));
        t.expect(seg().syn().seq(0).ack(1));
    }
}

#[test]
fn only_when_told_to_does_a_connection_ask() {
    for mode in [EcnMode::Off, EcnMode::Passive] {
        let mut t = script(mode);
        t.connect();
        t.expect(seg().syn().seq(0));
    }
}

#[test]
fn a_peer_that_does_not_agree_gets_unmarked_data() {
    for (name, flags) in [("no", Flags::NONE), ("reflected", Flags::ECE | Flags::CWR)] {
        let mut t = script(EcnMode::On);
        let id = t.connect();
        t.expect(seg().syn().ece().cwr().seq(0));
        t.inject(seg().syn().flag(flags).seq(0).ack(1).mss(MSS));
        t.expect(seg().seq(1).ack(1));
        t.write(id, 1_000);
        let sent = t.expect(seg().seq(1).ack(1).data(1_000).not_ect());
        assert_eq!(sent.traffic_class, 0, "{name}");
        // Reports that were not agreed on mean nothing.
        t.inject(seg().ece().ack(1_001));
        assert_eq!(t.counters().congestion_echoes, 0, "{name}");
    }
}

#[test]
fn a_lost_syn_is_followed_by_one_that_does_not_ask() {
    let mut t = script(EcnMode::On);
    let id = t.connect();
    t.expect(seg().syn().ece().cwr().seq(0));
    t.pass(1_000);
    t.expect(seg().syn().seq(0));
    // An answer to the first one comes too late: a SYN that does not ask was sent.
    t.inject(seg().syn().ece().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000).not_ect());
}

#[test]
fn a_mark_is_reported_until_the_peer_says_that_it_slowed_down() {
    let (mut t, _) = agreed();
    t.inject(seg().seq(1).ack(1).data(1_000).ect());
    t.inject(seg().seq(1_001).ack(1).data(1_000).ce());
    t.expect(seg().ece().ack(2_001));
    t.inject_burst([seg().seq(2_001).ack(1).data(1_000).ect(), seg().seq(3_001).ack(1).data(1_000).ect()]);
    t.expect(seg().ece().ack(4_001));
    t.inject_burst([
        seg().cwr().seq(4_001).ack(1).data(1_000).ect(),
        seg().seq(5_001).ack(1).data(1_000).ect(),
    ]);
    t.expect(seg().ack(6_001));
    assert_eq!(t.counters().congestion_marks, 1);
    // A segment that brings both begins the next report.
    t.inject_burst([
        seg().cwr().seq(6_001).ack(1).data(1_000).ce(),
        seg().seq(7_001).ack(1).data(1_000).ect(),
    ]);
    t.expect(seg().ece().ack(8_001));
}

#[test]
fn data_carries_the_report_too() {
    let (mut t, id) = agreed();
    t.inject(seg().seq(1).ack(1).data(1_000).ce());
    t.write(id, 500);
    t.expect(seg().ece().seq(1).ack(1_001).data(500).ect());
}

#[test]
fn a_mark_out_of_order_is_reported_and_one_outside_the_window_is_not() {
    let (mut t, _) = agreed();
    t.inject(seg().seq(500_000_000).ack(1).data(1_000).ce());
    t.expect(seg().ack(1));
    t.inject(seg().seq(1_001).ack(1).data(1_000).ce());
    t.expect(seg().ece().ack(1));
}

#[test]
fn a_report_reduces_the_window_once_and_the_next_new_data_says_so() {
    let (mut t, id) = in_flight();
    t.inject(seg().ece().ack(2_001));
    let info = t.info(id);
    // CUBIC's seven tenths of the eight that are left in flight, and no segment goes out.
    assert_eq!((info.cwnd_bytes, info.ssthresh_bytes), (5_600, 5_600));
    assert!(!info.in_recovery);
    t.expect_nothing();
    // Reports of the same window change nothing more.
    t.inject(seg().ece().ack(4_001));
    t.inject(seg().ece().ack(6_001));
    assert_eq!(t.info(id).cwnd_bytes, 5_600);
    assert_eq!(t.counters().congestion_echoes, 1);
    t.expect(seg().cwr().seq(10_001).ack(1).data(1_000).ect());
    t.expect_nothing();
    t.inject(seg().ack(7_001));
    t.expect(seg().seq(11_001).ack(1).data(1_000).ect());
    // One of the next window is another matter.
    t.inject(seg().ack(10_001));
    let _ = t.take_sent();
    let before = t.info(id).cwnd_bytes;
    t.inject(seg().ece().ack(12_001));
    assert!(t.info(id).cwnd_bytes < before);
    assert_eq!(t.counters().congestion_echoes, 2);
}

#[test]
fn a_report_with_the_last_acknowledgment_of_all_counts_too() {
    let (mut t, id) = in_flight();
    t.inject(seg().ece().ack(10_001));
    assert_eq!(t.counters().congestion_echoes, 1);
    // Seven tenths of the ten that were in flight.
    assert_eq!(t.info(id).cwnd_bytes, 7_000);
    t.expect(seg().cwr().seq(10_001).ack(1).data(1_000).ect());
}

#[test]
fn a_duplicate_acknowledgment_may_bring_the_report() {
    let (mut t, id) = in_flight();
    t.inject(seg().ece().ack(1));
    assert_eq!(t.info(id).cwnd_bytes, 7_000);
}

#[test]
fn what_is_sent_again_asks_for_no_marks_and_the_loss_counts_as_the_windows_reduction() {
    let (mut t, id) = in_flight();
    t.pass(1_000);
    let resent = t.take_sent();
    assert!(!resent.is_empty());
    assert!(resent.iter().all(|sent| sent.traffic_class == 0));
    t.inject(seg().ece().ack(10_001));
    assert_eq!(t.counters().congestion_echoes, 0);
    let cwnd = t.info(id).cwnd_bytes;
    let sent = t.take_sent();
    let sent: Vec<_> = sent.iter().map(|sent| (t.relative_seq(sent), sent.traffic_class)).collect();
    assert_eq!(sent.first(), Some(&(10_001, 0b10)), "window {cwnd}");
}

#[test]
fn a_window_probe_asks_for_no_marks() {
    let (mut t, id) = agreed();
    t.inject(seg().ack(1).win(0));
    t.write(id, 5_000);
    t.expect_nothing();
    t.pass(2_000);
    let probes = t.take_sent();
    assert!(!probes.is_empty());
    assert!(probes.iter().all(|probe| probe.traffic_class == 0));
}

#[test]
fn the_acknowledgment_of_the_last_that_left_before_a_reduction_reduces_nothing() {
    let (mut t, id) = in_flight();
    t.inject(seg().ece().ack(2_001));
    let reduced = t.info(id).cwnd_bytes;
    let _ = t.take_sent();
    // Ten segments had left: the peer, which hears of the reduction with the eleventh, still reports.
    for ack in [5_001, 9_001, 10_001] {
        t.inject(seg().ece().ack(ack));
    }
    assert_eq!((t.counters().congestion_echoes, t.info(id).cwnd_bytes), (1, reduced));
    let _ = t.take_sent();
    t.inject(seg().ece().ack(11_001));
    assert_eq!(t.counters().congestion_echoes, 2);
}

#[test]
fn in_a_simultaneous_open_the_second_answer_agrees() {
    let mut t = script(EcnMode::On);
    let id = t.connect();
    t.expect(seg().syn().ece().cwr().seq(0));
    t.inject(seg().syn().ece().cwr().seq(0).mss(MSS));
    t.expect(seg().syn().ece().seq(0).ack(1));
    t.inject(seg().seq(1).ack(1));
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000).ect());
}

#[test]
fn dctcp_reports_each_change_between_marked_and_unmarked_at_once() {
    let (mut t, _) = agreed_with_dctcp();
    t.inject(seg().seq(1).ack(1).data(1_000).ect());
    t.expect_nothing();
    // What came before the change is reported without a mark, and the change with one.
    t.inject(seg().seq(1_001).ack(1).data(1_000).ce());
    t.expect(seg().ack(1_001));
    t.expect(seg().ece().ack(2_001));
    // Acknowledged in pairs as long as nothing changes, whatever the peer says of its window.
    t.inject(seg().cwr().seq(2_001).ack(1).data(1_000).ce());
    t.expect_nothing();
    t.inject(seg().seq(3_001).ack(1).data(1_000).ce());
    t.expect(seg().ece().ack(4_001));
    t.inject(seg().seq(4_001).ack(1).data(1_000).ect());
    t.expect(seg().ack(5_001));
    t.expect_nothing();
}

#[test]
fn dctcp_asks_unless_it_may_not() {
    agreed_with_dctcp();
    let mut t = Script::configured(|config| {
        config.tcp.options.congestion = Algorithm::Dctcp;
        config.tcp.ecn = EcnMode::Off;
    });
    t.connect();
    t.expect(seg().syn().seq(0));
}

#[test]
fn bbr_asks_for_marks_and_answers_their_reports() {
    let mut t = Script::configured(|config| {
        config.tcp.options.congestion = Algorithm::Bbr;
        config.tcp.ecn = EcnMode::On;
    });
    let id = t.connect();
    t.expect(seg().syn().ece().cwr().seq(0).not_ect());
    t.inject(seg().syn().ece().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1).not_ect());
    t.write(id, 100_000);
    t.pass(10);
    let sent = t.take_sent();
    assert!(sent.iter().all(|sent| sent.traffic_class == 0b10), "{sent:?}");
    t.inject(seg().ece().ack(2_001));
    assert_eq!((t.counters().congestion_echoes, t.info(id).in_recovery), (1, false));
    t.pass(10);
    let sent = t.take_sent();
    assert!(sent[0].segment.flags.contains(Flags::CWR), "{sent:?}");
    assert!(sent[1..].iter().all(|sent| !sent.segment.flags.contains(Flags::CWR)), "{sent:?}");
}

#[test]
fn dctcp_reduces_by_the_share_that_was_marked() {
    let (mut t, id) = agreed_with_dctcp();
    t.write(id, 500_000);
    let (mut next, mut window) = (1, 10_000);
    // Windows without a mark, until the path no longer counts as congested.
    for _ in 0..40 {
        let _ = t.take_sent();
        next += window.min(8_000);
        t.inject(seg().ack(next));
        window = t.info(id).cwnd_bytes;
    }
    let before = t.info(id).cwnd_bytes;
    t.inject(seg().ece().ack(next + 1_000));
    let after = t.info(id).cwnd_bytes;
    // Alpha is (15/16)^n by now: far from a half, and not nothing.
    assert!(after < before && after > before * 3 / 4, "{before} {after}");
}
