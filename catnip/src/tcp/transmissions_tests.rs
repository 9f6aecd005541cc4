//! The records of what was sent: joined, divided, and counted.

use super::*;

const MSS: u16 = 1_000;

fn at(raw: u32) -> SequenceNumber {
    SequenceNumber::new(raw)
}

fn ms(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// Records as start, end, and how often they were sent: once or more.
fn ranges(sent: &Transmissions) -> Vec<(u32, u32, bool)> {
    sent.records.iter().map(|record| (record.start.raw(), record.end.raw(), record.retransmitted)).collect()
}

#[test]
fn full_segments_of_one_instant_share_a_record_and_others_do_not() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(0), at(1_000), MSS, ms(1));
    sent.on_sent(at(1_000), at(3_000), MSS, ms(1));
    sent.on_sent(at(3_000), at(3_500), MSS, ms(1));
    // Behind a short segment another one begins.
    sent.on_sent(at(3_500), at(4_500), MSS, ms(1));
    sent.on_sent(at(4_500), at(5_500), MSS, ms(2));
    assert_eq!(ranges(&sent), [(0, 3_500, false), (3_500, 4_500, false), (4_500, 5_500, false)]);
}

#[test]
fn what_was_sent_after_a_delivery_has_a_record_of_its_own() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(0), at(2_000), MSS, ms(1));
    let _ = sent.on_acknowledged(at(1_000), ms(1));
    sent.on_sent(at(2_000), at(3_000), MSS, ms(1));
    assert_eq!(ranges(&sent), [(1_000, 2_000, false), (2_000, 3_000, false)]);
    let delivered = sent.on_acknowledged(at(3_000), ms(2));
    assert_eq!((delivered.bytes, sent.delivered_bytes()), (2_000, 3_000));
    assert_eq!(delivered.newest.map(|record| record.delivered_bytes), Some(1_000));
}

#[test]
fn sending_again_divides_a_record_and_times_nothing() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(0), at(4_000), MSS, ms(1));
    sent.on_sent(at(1_000), at(2_000), MSS, ms(5));
    assert_eq!(ranges(&sent), [(0, 1_000, false), (1_000, 2_000, true), (2_000, 4_000, false)]);
    assert_eq!(sent.on_acknowledged(at(1_000), ms(6)).timed_from(), Some(ms(1)));
    let delivered = sent.on_acknowledged(at(2_000), ms(6));
    assert_eq!((delivered.timed_from(), delivered.newest.map(|record| record.sent_at)), (None, Some(ms(5))));
    assert_eq!(sent.on_acknowledged(at(3_000), ms(6)).timed_from(), Some(ms(1)));
}

#[test]
fn going_back_and_on_beyond_what_was_known_records_both() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(u32::MAX - 999), at(1_000), MSS, ms(1));
    sent.on_sent(at(0), at(2_000), MSS, ms(5));
    assert_eq!(ranges(&sent), [(u32::MAX - 999, 0, false), (0, 1_000, true), (1_000, 2_000, false)]);
    assert_eq!(sent.span(), Some((at(u32::MAX - 999), at(2_000))));
}

#[test]
fn the_newest_delivered_is_the_one_sent_last_also_within_one_instant() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(0), at(1_000), MSS, ms(1));
    sent.on_sent(at(1_000), at(1_500), MSS, ms(1));
    sent.on_sent(at(1_500), at(2_000), MSS, ms(1));
    sent.on_sent(at(0), at(1_000), MSS, ms(1));
    let delivered = sent.on_acknowledged(at(2_000), ms(1));
    assert_eq!(delivered.newest.map(|record| (record.start, record.retransmitted)), Some((at(0), true)));
    assert!(sent.is_empty());
}

#[test]
fn what_a_timeout_forgot_is_not_delivered_twice() {
    let mut sent = Transmissions::new(ms(0));
    sent.on_sent(at(0), at(4_000), MSS, ms(1));
    let mut by_sack = Delivered::default();
    let _ = sent.on_sacked(at(1_000), at(3_000), at(0), &mut by_sack);
    sent.count_sacked(&by_sack, ms(2));
    sent.give_up_all();
    let mut again = Delivered::default();
    let _ = sent.on_sacked(at(1_000), at(2_000), at(0), &mut again);
    sent.count_sacked(&again, ms(3));
    assert_eq!((by_sack.bytes, again.bytes), (2_000, 0));
    let _ = sent.on_acknowledged(at(4_000), ms(4));
    assert_eq!(sent.delivered_bytes(), 4_000);
}

#[test]
fn the_mark_of_a_program_that_gave_too_little_lasts_until_all_of_it_is_delivered() {
    let mut sent = Transmissions::new(ms(0));
    sent.mark_app_limited(0);
    sent.on_sent(at(0), at(1_000), MSS, ms(1));
    let delivered = sent.on_acknowledged(at(1_000), ms(2));
    assert_eq!(delivered.newest.map(|record| record.app_limited), Some(true));
    sent.on_sent(at(1_000), at(2_000), MSS, ms(3));
    let delivered = sent.on_acknowledged(at(2_000), ms(4));
    let newest =
        delivered.newest.map(|record| (record.app_limited, record.delivered_at, record.first_sent_at));
    assert_eq!(newest, Some((false, ms(3), ms(3))));
}
