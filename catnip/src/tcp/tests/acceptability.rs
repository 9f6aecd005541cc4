//! What part of the sequence space is accepted (RFC 9293, section 3.4; RFC 5961, section 5).

use super::script::{Script, fix_receive_buffer};
use super::seg::{Seg, seg};
use crate::tcp::State;

/// A connection with a receive buffer of 2,000 bytes, which is the window: the peer may send 1 to 2,000.
fn narrow() -> (Script, crate::events::ConnectionId) {
    let mut t = Script::configured(|config| fix_receive_buffer(config, 2_000));
    let id = t.open();
    (t, id)
}

#[test]
fn the_four_cases_decide_what_is_acceptable() {
    // (name, whether the window is open, segment, answered as unacceptable)
    let cases: [(&str, bool, Seg, bool); 16] = [
        ("empty at the left edge", true, seg().seq(1).ack(1), false),
        ("empty inside", true, seg().seq(2_000).ack(1), false),
        ("empty at the right edge", true, seg().seq(2_001).ack(1), true),
        ("empty before", true, seg().seq(0).ack(1), true),
        ("empty far behind", true, seg().seq(0x8000_0001).ack(1), true),
        ("data that begins inside", true, seg().seq(2_000).ack(1).data(500), false),
        ("data that ends inside", true, seg().seq(0).ack(1).bytes(&[0, 0]), false),
        ("data that covers the window", true, seg().seq(0).ack(1).bytes(&[0; 2_900]), false),
        ("data before", true, seg().seq(0).ack(1).bytes(&[0]), true),
        ("data behind", true, seg().seq(2_001).ack(1).data(10), true),
        ("FIN before", true, seg().seq(0).fin().ack(1), true),
        ("FIN behind", true, seg().seq(2_001).fin().ack(1), true),
        ("closed: empty at the edge", false, seg().seq(2_001).ack(1), false),
        ("closed: empty behind", false, seg().seq(2_002).ack(1), true),
        ("closed: data at the edge", false, seg().seq(2_001).ack(1).data(1), true),
        ("closed: data across the edge", false, seg().seq(2_000).ack(1).data(100), true),
    ];
    for (name, open, segment, unacceptable) in cases {
        let (mut t, id) = narrow();
        if !open {
            t.inject(seg().ack(1).data(1_000));
            t.inject(seg().seq(1_001).ack(1).data(1_000));
            let _ = t.take_sent();
        }
        t.inject(segment);
        assert_eq!(t.counters().out_of_window, u64::from(unacceptable), "{name}");
        if unacceptable {
            t.expect(seg().seq(1).ack(if open { 1 } else { 2_001 }));
            t.expect_nothing();
        }
        assert_eq!(t.state(id), State::Established, "{name}");
    }
}

#[test]
fn text_is_cut_to_the_window_on_both_sides() {
    let (mut t, id) = narrow();
    t.inject(seg().ack(1).data(500));
    // From the middle of what is known to far beyond the window.
    t.inject(seg().seq(301).ack(1).data(2_900));
    t.expect(seg().seq(1).ack(2_001).win(0));
    assert_eq!(t.read(id), 2_000);
    t.expect(seg().seq(1).ack(2_001).win(2_000));
}

#[test]
fn old_data_is_acknowledged_every_time() {
    let (mut t, id) = narrow();
    t.inject(seg().ack(1).data(500));
    t.pass(40);
    t.expect(seg().seq(1).ack(501));
    for _ in 0..3 {
        t.inject(seg().ack(1).data(500));
        t.expect(seg().seq(1).ack(501));
    }
    assert_eq!(t.read(id), 500);
}

#[test]
fn two_ends_that_disagree_do_not_answer_each_other_for_ever() {
    let (mut t, _) = narrow();
    // Empty segments outside the window would be answered by empty segments outside the peer's.
    for _ in 0..100 {
        t.inject(seg().seq(50_000).ack(1));
    }
    t.expect(seg().seq(1).ack(1));
    t.expect_nothing();
    t.pass(500);
    t.inject(seg().seq(50_000).ack(1));
    t.expect(seg().seq(1).ack(1));
}

#[test]
fn acknowledgments_outside_what_was_sent_are_challenged_and_their_data_dropped() {
    // The peer's largest window was 30,000: older acknowledgments than that cannot be in the network.
    for (ack, taken) in [
        (1_001, true),
        (1_002, false),
        (500_000, false),
        (1, true),
        (u32::MAX - 20_000, true),
        (1_001_u32.wrapping_sub(30_000), true),
        (1_001_u32.wrapping_sub(30_001), false),
        (0x8000_0000, false),
    ] {
        let (mut t, id) = narrow();
        t.write(id, 1_000);
        t.expect(seg().seq(1).ack(1).data(1_000));
        t.inject(seg().ack(1_001));
        t.inject(seg().ack(ack).data(100));
        assert_eq!(t.read(id), if taken { 100 } else { 0 }, "{ack}");
        if !taken {
            t.expect(seg().seq(1_001).ack(1));
        }
        assert_eq!(t.info(id).snd_una, t.iss().wrapping_add(1_001));
    }
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let (mut t, id) = narrow();
    for segment in [seg().data(100), seg().fin(), seg()] {
        t.inject(segment);
        t.pass(100);
        t.expect_nothing();
    }
    assert_eq!((t.read(id), t.state(id)), (0, State::Established));
}

#[test]
fn urgent_data_is_data_like_any_other() {
    let (mut t, id) = narrow();
    t.inject(seg().ack(1).urg(5).data(100));
    t.inject(seg().seq(101).ack(1).urg(u16::MAX).data(100));
    assert_eq!(t.read(id), 200);
}
