//! What needs no device: memory that is lent and comes back.

use libos::Arena;
use libos::memory::ArenaConfig;

use super::config::{Placement, XdpConfig};
use super::inflight::{Lent, Sending};
use super::mode::XdpMode;
use super::receive::offset;

fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap()
}

#[test]
fn buffers_come_back_in_any_order_and_only_from_where_they_were_lent() {
    let arena = arena();
    let mut lent = Lent::new(100, arena.region().len());
    let mut places = Vec::new();
    while lent.room() > 0 {
        let mut buffer = arena.allocate(2048).unwrap();
        buffer.set_len(2048);
        let at = offset(arena.region(), &buffer);
        buffer[0] = places.len() as u8;
        lent.put(at, buffer).unwrap();
        places.push(at);
    }
    assert!(lent.put(0, arena.allocate(2048).unwrap()).is_err());
    assert!(lent.take(places[0] + 64).is_none(), "the same 2 KiB, but not where it begins");
    assert!(lent.take(usize::MAX >> 16).is_none());
    for index in (0..100).map(|index| index * 37 % 100) {
        assert_eq!(lent.take(places[index]).unwrap()[0], index as u8);
        assert!(lent.take(places[index]).is_none());
    }
    assert_eq!(lent.room(), 100);
    assert_eq!(arena.stats().live_buffers, 0);
}

#[test]
fn memory_that_is_sent_is_let_go_of_in_any_order_and_once_for_each_time() {
    let arena = arena();
    let mut sending = Sending::default();
    let live = || arena.stats().live_buffers;
    let pieces: Vec<_> = (0..4).map(|_| arena.copy_from(&[1]).unwrap().freeze()).collect();
    // The second goes out twice.
    for (address, piece) in [(10, 0), (20, 1), (20, 1), (30, 2), (40, 3)] {
        sending.put(address, pieces[piece].clone());
    }
    drop(pieces);
    assert_eq!((live(), sending.len()), (4, 5));
    sending.complete(30);
    assert_eq!((live(), sending.len()), (3, 5), "it is let go of though it is not the oldest");
    sending.complete(99);
    sending.complete(20);
    assert_eq!(live(), 3);
    sending.complete(10);
    assert_eq!((live(), sending.len()), (2, 3));
    sending.complete(20);
    assert_eq!((live(), sending.len()), (1, 1));
    sending.complete(40);
    assert!(sending.is_empty());
    assert_eq!(live(), 0);
}

#[test]
fn a_way_that_is_less_than_was_wanted_is_told_from_one_that_was_chosen() {
    for (placement, zero_copy, got, falls_short) in [
        (Placement::Auto, true, (true, true), false),
        (Placement::Auto, true, (true, false), true),
        (Placement::Auto, false, (true, false), false),
        (Placement::Auto, false, (false, false), true),
        (Placement::Generic, false, (false, false), false),
        (Placement::Native, true, (true, false), true),
    ] {
        let config = XdpConfig { placement, zero_copy, ..XdpConfig::default() };
        let mode = XdpMode { native: got.0, zero_copy: got.1, multi_buffer: false, refused: Vec::new() };
        assert_eq!(mode.falls_short_of(&config), falls_short, "{config:?} {mode}");
    }
}
