//! Accurate ECN (RFC 9768): who agrees on it, and what is counted.

use super::script::{MSS, Script};
use super::seg::{Seg, seg};
use crate::events::ConnectionId;
use crate::tcp::EcnMode;
use crate::tcp::congestion::Algorithm;
use crate::tcp::segment::Flags;

const SETUP: Flags = Flags::AE.union(Flags::CWR).union(Flags::ECE);

fn script(mode: EcnMode) -> Script {
    Script::configured(|config| config.tcp.ecn = mode)
}

/// A segment whose ACE field is this number.
fn ace(number: u8) -> Seg {
    [(4, Flags::AE), (2, Flags::CWR), (1, Flags::ECE)]
        .into_iter()
        .filter(|(bit, _)| number & bit != 0)
        .fold(seg(), |seg, (_, flag)| seg.flag(flag))
}

/// A connection to whose SYN the peer agreed; ours came unmarked, as did its answer.
fn agreed(algorithm: Algorithm) -> (Script, ConnectionId) {
    let mut t = Script::configured(|config| {
        config.tcp.ecn = EcnMode::Accurate;
        config.tcp.options.congestion = algorithm;
    });
    let id = t.connect();
    t.expect(seg().flag(SETUP).syn().seq(0).not_ect());
    t.inject(ace(0b010).syn().seq(0).ack(1).mss(MSS));
    t.expect(ace(0b010).seq(1).ack(1).not_ect());
    (t, id)
}

#[test]
fn a_listener_answers_how_the_syn_came_or_in_the_classic_way() {
    for (mode, syn, answer, counts) in [
        (EcnMode::Accurate, seg().flag(SETUP).not_ect(), 0b010, true),
        (EcnMode::Accurate, seg().flag(SETUP).ect(), 0b100, true),
        (EcnMode::Accurate, seg().flag(SETUP).ce(), 0b110, true),
        (EcnMode::Accurate, ace(0b100), 0b010, true),
        (EcnMode::Accurate, seg().ece().cwr(), 0b001, false),
        (EcnMode::Accurate, seg(), 0b000, false),
        (EcnMode::On, seg().flag(SETUP), 0b001, false),
        (EcnMode::Off, seg().flag(SETUP), 0b000, false),
    ] {
        let mut t = script(mode);
        let listener = t.listen();
        t.inject(syn.clone().syn().seq(0).mss(MSS));
        t.expect(ace(answer).syn().seq(0).ack(1).not_ect());
        t.inject(ace(if counts { 0b010 } else { 0 }).ack(1));
        let (id, _) = t.stack.tcp_accept(listener).unwrap();
        t.write(id, 1_000);
        let data = ace(if counts { 5 } else { 0 }).seq(1).ack(1).data(1_000);
        t.expect(if answer == 0 { data.not_ect() } else { data.ect() });
    }
}

#[test]
fn an_open_takes_what_the_peer_answers() {
    for (answer, first, later, asks) in [
        (0b010, 0b010, 5, true),
        (0b110, 0b010, 5, true),
        (0b001, 0, 0, true),
        (0b101, 0, 0, true),
        (0b000, 0, 0, false),
        (0b111, 0, 0, false),
    ] {
        let mut t = script(EcnMode::Accurate);
        let id = t.connect();
        t.expect(seg().flag(SETUP).syn().seq(0).not_ect());
        t.write(id, 1_000);
        t.inject(ace(answer).syn().seq(0).ack(1).mss(MSS));
        if later == 5 {
            // Alone, whatever waits to ride on it.
            t.expect(ace(first).seq(1).ack(1));
        }
        let data = ace(later).seq(1).ack(1).data(1_000);
        t.expect(if asks { data.ect() } else { data.not_ect() });
    }
}

#[test]
fn the_first_acknowledgment_tells_how_the_syn_ack_came() {
    for (syn_ack, number) in
        [(ace(0b010).not_ect(), 0b010), (ace(0b010).ect(), 0b100), (ace(0b010).ce(), 0b110)]
    {
        let mut t = script(EcnMode::Accurate);
        t.connect();
        t.expect(seg().flag(SETUP).syn().seq(0));
        t.inject(syn_ack.syn().seq(0).ack(1).mss(MSS));
        t.expect(ace(number).seq(1).ack(1));
        t.inject(seg().seq(1).ack(1).data(100));
        t.pass(40);
        t.expect(ace(5).seq(1).ack(101));
    }
}

#[test]
fn a_second_syn_still_asks_and_a_third_does_not() {
    let mut t = script(EcnMode::Accurate);
    t.connect();
    t.expect(seg().flag(SETUP).syn().seq(0));
    t.pass(1_000);
    t.expect(seg().flag(SETUP).syn().seq(0));
    t.pass(2_000);
    t.expect(seg().syn().seq(0));
    // What answers an earlier one agrees to nothing any more.
    t.inject(ace(0b010).syn().seq(0).ack(1).mss(MSS));
    t.expect(seg().seq(1).ack(1));
}

#[test]
fn every_marked_packet_is_counted_and_told_of_at_once() {
    let (mut t, _) = agreed(Algorithm::default());
    t.inject(ace(5).seq(1).ack(1).data(500).ect());
    t.expect_nothing();
    let mut next = 501;
    for count in [6, 7, 0, 1, 2] {
        t.inject(ace(5).seq(next).ack(1).data(100).ce());
        next += 100;
        t.expect(ace(count).seq(1).ack(next));
    }
    // An acknowledgment that is marked counts too, and is not answered.
    t.inject(ace(5).seq(next).ack(1).ce());
    t.expect_nothing();
    t.inject(ace(5).seq(next).ack(1).data(100).ce());
    t.expect(ace(4).seq(1).ack(next + 100));
}

#[test]
fn counts_that_rise_reduce_the_window_once_for_each_window_of_data() {
    let (mut t, id) = agreed(Algorithm::NewReno);
    t.write(id, 100_000);
    let sent = t.take_sent();
    assert_eq!(sent.len(), 10);
    assert!(sent.iter().all(|sent| sent.traffic_class & 3 == 0b10 && sent.segment.flags.contains(Flags::AE | Flags::ECE)));
    // The answer to our SYN-ACK again, and a count that has not risen.
    t.inject(ace(0b010).ack(1));
    t.inject(ace(5).ack(2_001));
    assert_eq!(t.counters().congestion_echoes, 0);
    t.inject(ace(6).ack(3_001));
    let reduced = t.info(id).cwnd_bytes;
    assert!(reduced < 10_000, "{reduced}");
    for (count, ack) in [(0, 4_001), (1, 5_001), (1, 6_001)] {
        t.inject(ace(count).ack(ack));
    }
    assert_eq!(t.counters().congestion_echoes, 1);
    // No flag says that we slowed down: it would be a count.
    let later = t.take_sent();
    assert!(
        later
            .iter()
            .all(|sent| sent.segment.flags.without(Flags::PSH) == Flags::ACK | Flags::AE | Flags::ECE)
    );
    // One that was overtaken tells of older counts.
    t.inject(ace(7).ack(6_001));
    t.inject(ace(1).ack(30_001));
    assert_eq!(t.counters().congestion_echoes, 1);
}

#[test]
fn where_the_bits_are_cleared_under_way_nothing_asks_for_marks() {
    let mut t = script(EcnMode::Accurate);
    let listener = t.listen();
    t.inject(seg().flag(SETUP).syn().seq(0).mss(MSS));
    t.expect(ace(0b010).syn().seq(0).ack(1));
    t.inject(seg().ack(1));
    let (id, _) = t.stack.tcp_accept(listener).unwrap();
    t.write(id, 1_000);
    // What arrives marked is told of all the same.
    t.expect(ace(5).seq(1).ack(1).data(1_000).not_ect());
    t.inject(seg().seq(1).ack(1_001).data(10).ce());
    t.expect(ace(6).seq(1_001).ack(11));
    assert_eq!(t.counters().congestion_echoes, 0);
}

#[test]
fn crossing_syns_agree_on_counting() {
    let mut t = script(EcnMode::Accurate);
    let id = t.connect();
    t.expect(seg().flag(SETUP).syn().seq(0));
    t.inject(seg().flag(SETUP).syn().seq(0).mss(MSS));
    t.expect(ace(0b010).syn().seq(0).ack(1));
    t.inject(ace(0b010).seq(1).ack(1));
    t.write(id, 1_000);
    t.expect(ace(5).seq(1).ack(1).data(1_000).ect());
}
