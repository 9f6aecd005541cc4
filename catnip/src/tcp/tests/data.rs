//! Data in both directions: order, gaps, overlaps, pushing, gathering and the end of sequence space.

use libos::Instant;

use super::script::{Script, fix_send_buffer};
use super::seg::seg;

#[test]
fn segments_are_put_in_order_whatever_order_and_overlap_they_come_in() {
    // (start, length) of segments that cover 1 to 1,000 among them.
    let cases: [&[(u32, usize)]; 9] = [
        &[(1, 500), (501, 500)],
        &[(501, 500), (1, 500)],
        &[(801, 200), (401, 200), (1, 200), (601, 200), (201, 200)],
        &[(201, 300), (101, 600), (1, 150), (651, 350)],
        &[(301, 100), (101, 800), (1, 1_000)],
        &[(1, 600), (401, 600)],
        &[(201, 800), (1, 1_000)],
        &[(901, 100), (901, 100), (901, 50), (1, 950)],
        &[(2, 999), (1, 1)],
    ];
    for segments in cases {
        let mut t = Script::new();
        let id = t.open();
        for &(start, len) in segments {
            t.inject(seg().seq(start).ack(1).data(len));
        }
        assert_eq!(t.read(id), 1_000, "{segments:?}");
        t.pass(40);
        let last = t.take_sent().pop().unwrap();
        assert_eq!(last.segment.acknowledgment.raw(), t.peer_isn.wrapping_add(1_001), "{segments:?}");
    }
}

#[test]
fn what_lies_behind_a_gap_is_not_read() {
    let mut t = Script::new();
    let id = t.open();
    t.inject(seg().seq(101).ack(1).data(100));
    assert_eq!(t.read_outcome(id), Ok(None));
    t.inject(seg().seq(1).ack(1).data(50));
    assert_eq!(t.read(id), 50);
    t.inject(seg().seq(51).ack(1).data(50));
    assert_eq!(t.read(id), 150);
}

#[test]
fn the_last_segment_of_what_was_written_is_pushed() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 2_500);
    let first = t.expect(seg().seq(1).ack(1).data(1_000));
    t.expect(seg().seq(1_001).ack(1).data(1_000));
    assert!(!first.segment.flags.contains(crate::tcp::segment::Flags::PSH));
    t.inject(seg().ack(2_001));
    t.expect(seg().psh().seq(2_001).ack(1).data(500));
}

#[test]
fn small_writes_wait_while_something_is_unacknowledged() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 10);
    t.expect(seg().seq(1).ack(1).data(10));
    for _ in 0..5 {
        t.write(id, 10);
    }
    t.expect_nothing();
    t.inject(seg().ack(11));
    t.expect(seg().seq(11).ack(1).data(50));
    // A full segment does not wait, what is left over does.
    t.write(id, 1_200);
    t.expect(seg().seq(61).ack(1).data(1_000));
    t.expect_nothing();
    t.inject(seg().ack(1_061));
    t.expect(seg().seq(1_061).ack(1).data(200));
}

#[test]
fn without_delay_small_writes_go_at_once() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 10);
    t.expect(seg().seq(1).ack(1).data(10));
    t.write(id, 10);
    t.expect_nothing();
    // Turning Nagle's algorithm off lets go what it kept back.
    t.stack.tcp_set_option(id, libos::SocketOption::NoDelay(true)).unwrap();
    t.expect(seg().seq(11).ack(1).data(10));
    t.write(id, 10);
    t.expect(seg().seq(21).ack(1).data(10));
}

#[test]
fn sequence_numbers_wrap_in_the_middle_of_a_transfer() {
    // The clock of RFC 6528 moves the initial number to where it is wanted: a tick is 4 microseconds.
    let mut t = Script::new();
    t.open();
    let ticks = (u32::MAX - 5_000).wrapping_sub(t.iss());
    let start = Instant::from_nanos(t.now.as_nanos() + u64::from(ticks) * 4_000);
    let mut t = Script::starting_at(start, |_| {});
    let id = t.open();
    assert!(t.iss() > u32::MAX - 6_000, "{}", t.iss());
    t.write(id, 20_000);
    for turn in 0..20 {
        t.expect(seg().seq(1 + turn * 1_000).ack(1).data(1_000));
        if turn % 2 == 1 {
            t.inject(seg().ack(1 + (turn + 1) * 1_000));
        }
    }
    // And once more across the end, by retransmission.
    let mut t = Script::starting_at(start, |_| {});
    let id = t.open();
    t.write(id, 10_000);
    assert_eq!(t.take_sent().len(), 10);
    t.inject(seg().ack(4_001));
    t.pass(200);
    t.expect(seg().seq(4_001).ack(1).data(1_000));
    t.inject(seg().ack(10_001));
    assert_eq!(t.info(id).send_queue_bytes, 0);
}

#[test]
fn received_sequence_numbers_wrap_too() {
    let mut t = Script::new();
    t.peer_isn = u32::MAX - 2_500;
    let id = t.open();
    for start in [1, 2_001, 1_001, 4_001, 3_001] {
        t.inject(seg().seq(start).ack(1).data(1_000));
    }
    assert_eq!(t.read(id), 5_000);
}

#[test]
fn many_small_writes_become_full_segments() {
    let mut t = Script::new();
    let id = t.open();
    t.write(id, 1);
    t.expect(seg().seq(1).ack(1).data(1));
    for _ in 0..20 {
        t.write(id, 50);
    }
    // A frame has so many pieces at most; what is sent is in order and complete all the same.
    t.inject(seg().ack(2));
    let sent = t.take_sent();
    let mut next = 2;
    for segment in &sent {
        assert_eq!(t.relative_seq(segment), next);
        next += segment.payload.len() as u32;
    }
    t.inject(seg().ack(next));
    t.pass(1);
    let rest: usize = t.take_sent().iter().map(|segment| segment.payload.len()).sum();
    assert_eq!(next as usize + rest, 1_002);
}

#[test]
fn a_full_send_queue_takes_a_part_and_tells_of_room() {
    let mut t = Script::configured(|config| fix_send_buffer(config, 3_000));
    let id = t.open();
    assert_eq!(t.try_write(id, 5_000), Ok(3_000));
    assert_eq!(t.take_sent().len(), 3);
    assert_eq!(t.try_write(id, 1), Ok(0));
    while t.stack.next_event().is_some() {}
    t.inject(seg().ack(1_001));
    let event = t.stack.next_event().unwrap();
    assert!(event.readiness.contains(crate::events::Readiness::WRITABLE));
    assert_eq!(t.try_write(id, 5_000), Ok(1_000));
}
