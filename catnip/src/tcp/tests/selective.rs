//! Selective acknowledgments as receiver: what is reported, in which order (RFC 2018, RFC 2883).

use super::script::{MSS, Script};
use super::seg::{Seg, seg};

fn syn() -> Seg {
    seg().mss(MSS).sack_permitted()
}

#[test]
fn it_is_agreed_on_when_both_sides_want_it() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let mut t = Script::configured(|config| config.tcp.sack = ours);
        let _ = t.listen();
        t.inject(if theirs { syn().seq(0).syn() } else { seg().mss(MSS).seq(0).syn() });
        let answer = t.expect(seg().syn().seq(0).ack(1));
        assert_eq!(answer.segment.options.sack_permitted, ours && theirs);
        t.inject(seg().ack(1));
        t.inject(seg().seq(101).ack(1).data(100));
        let expected: &[(u32, u32)] = if ours && theirs { &[(101, 201)] } else { &[] };
        t.expect(seg().seq(1).ack(1).sack(expected));
    }
}

#[test]
fn an_active_open_offers_it_unless_it_is_switched_off() {
    for sack in [true, false] {
        let mut t = Script::configured(|config| config.tcp.sack = sack);
        t.connect();
        let sent = t.expect(seg().syn().seq(0));
        assert_eq!(sent.segment.options.sack_permitted, sack);
    }
}

#[test]
fn what_waits_behind_gaps_is_reported_newest_first() {
    let mut t = Script::new();
    let id = t.open_with(syn());
    let mut expected = Vec::new();
    for start in [1_001, 3_001, 5_001, 7_001, 9_001] {
        t.inject(seg().seq(start).ack(1).data(1_000));
        expected.insert(0, (start, start + 1_000));
        expected.truncate(4);
        t.expect(seg().seq(1).ack(1).sack(&expected));
    }
    // An older range grows, and is the newest again.
    t.inject(seg().seq(4_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(1).sack(&[(3_001, 6_001), (9_001, 10_001), (7_001, 8_001), (1_001, 2_001)]));
    // What fills the first gap takes the range behind it along.
    t.inject(seg().seq(1).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001).sack(&[(3_001, 6_001), (9_001, 10_001), (7_001, 8_001)]));
    assert_eq!(t.read(id), 2_000);
}

#[test]
fn three_blocks_fit_beside_timestamps() {
    let mut t = Script::new();
    let _ = t.open_with(syn().ts(1, 0));
    for start in [1_001, 3_001, 5_001, 7_001] {
        t.inject(seg().seq(start).ack(1).ts(2, 0).data(1_000));
    }
    let last = t.take_sent().pop().unwrap();
    assert_eq!(last.sack.len(), 3);
    assert!(last.segment.options.timestamp.is_some());
}

#[test]
fn data_that_goes_the_other_way_carries_the_report_too() {
    let mut t = Script::new();
    let id = t.open_with(syn());
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(1).sack(&[(1_001, 2_001)]));
    // In segments that the options make shorter: room is kept for one block more than there is.
    t.write(id, 1_500);
    t.expect(seg().seq(1).ack(1).data(980).sack(&[(1_001, 2_001)]));
    t.inject(seg().ack(981));
    t.expect(seg().seq(981).ack(1).data(520).sack(&[(1_001, 2_001)]));
    t.inject(seg().seq(1).ack(1_501).data(1_000));
    t.expect(seg().seq(1_501).ack(2_001).sack(&[]));
    t.write(id, 1_000);
    t.expect(seg().seq(1_501).ack(2_001).data(1_000).sack(&[]));
    // What came twice is told of once, with the data that the same segment lets out.
    t.write(id, 300);
    t.inject(seg().seq(1_501).ack(2_501).data(1_000));
    t.expect(seg().seq(2_501).ack(2_501).data(300).sack(&[(1_501, 2_001)]));
    t.expect_nothing();
}

#[test]
fn what_is_sent_again_keeps_its_size_and_the_report_goes_alone() {
    let mut t = Script::new();
    let id = t.open_with(syn());
    t.write(id, 1_000);
    t.expect(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1_001).ack(1).sack(&[(1_001, 2_001)]));
    t.pass(1_000);
    t.expect(seg().seq(1).ack(1).data(1_000).sack(&[]));
}

#[test]
fn what_came_twice_is_reported_once_and_first() {
    // What came before, what comes then, the acknowledgment and its blocks: RFC 2883, section 4.
    type Case = (&'static str, &'static [(u32, usize)], (u32, usize), u32, &'static [(u32, u32)]);
    let cases: [Case; 6] = [
        ("read long ago", &[(1, 1_000)], (1, 1_000), 1_001, &[(1, 1_001)]),
        ("half of it new", &[(1, 1_000)], (501, 1_000), 1_501, &[(501, 1_001)]),
        ("a part of it, behind a gap", &[(1_001, 1_000)], (1_001, 500), 1, &[(1_001, 1_501), (1_001, 2_001)]),
        ("behind a gap", &[(1_001, 1_000)], (1_001, 1_000), 1, &[(1_001, 2_001), (1_001, 2_001)]),
        ("old, with a gap", &[(1, 500), (1_001, 500)], (1, 500), 501, &[(1, 501), (1_001, 1_501)]),
        (
            "across two ranges",
            &[(1_001, 500), (2_001, 500)],
            (1_201, 1_000),
            1,
            &[(1_201, 1_501), (1_001, 2_501)],
        ),
    ];
    for (name, before, (seq, len), ack, blocks) in cases {
        let mut t = Script::new();
        let _ = t.open_with(syn());
        for &(seq, len) in before {
            t.inject(seg().seq(seq).ack(1).data(len));
        }
        let _ = t.take_sent();
        t.inject(seg().seq(seq).ack(1).data(len));
        println!("{name}");
        t.expect(seg().seq(1).ack(ack).sack(blocks));
        // Not a second time.
        t.inject(seg().seq(5_001).ack(1).data(10));
        let last = t.take_sent().pop().unwrap();
        let next: Vec<_> = blocks[1..].to_vec();
        let relative: Vec<_> = last.sack[1..]
            .iter()
            .map(|(start, end)| (start.wrapping_sub(t.peer_isn), end.wrapping_sub(t.peer_isn)))
            .collect();
        assert_eq!(relative, next, "{name}");
    }
}

#[test]
fn a_burst_that_came_twice_is_reported_as_one_range() {
    let mut t = Script::new();
    let _ = t.open_with(syn());
    let burst = || (0..4).map(|at| seg().seq(1 + at * 500).ack(1).data(500));
    t.inject_burst(burst());
    let _ = t.take_sent();
    t.inject_burst(burst());
    t.expect(seg().seq(1).ack(2_001).sack(&[(1, 2_001)]));
    t.expect_nothing();
}

#[test]
fn in_order_data_is_acknowledged_without_blocks() {
    let mut t = Script::new();
    let _ = t.open_with(syn());
    t.inject(seg().seq(1).ack(1).data(1_000));
    t.inject(seg().seq(1_001).ack(1).data(1_000));
    t.expect(seg().seq(1).ack(2_001).sack(&[]));
}
