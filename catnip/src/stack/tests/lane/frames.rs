//! Frames that are like those of a lane, but for a bit, a length, or what the device says.

use std::time::Duration;

use super::*;

/// Pops, and then hands over a frame that differs from one of the open lane.
fn take_other(worlds: &mut Worlds, what: impl Debug, bytes: &[u8]) -> (bool, Outcome) {
    worlds.open_lane(0, FLOW);
    worlds.both("pop", |world| {
        // Answers are limited by time.
        world.now += Duration::from_secs(1);
        world.pop(0);
    });
    let (straight, outcome) = worlds.receive(what, bytes);
    // Whatever waits still is given up, so that there are never many.
    worlds.both("give up", |world| world.pops.waiting[0] = 0);
    (straight, outcome)
}

#[test]
fn whatever_bit_of_its_headers_is_another_a_frame_ends_as_it_does_without_a_lane() {
    let mut worlds = with_open_lane();
    let good = FLOW.frame(b"sixteen bytes ..");
    for bit in 0..HEADERS_BYTES * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        for bytes in [mended(&bytes), bytes] {
            let what = (bit / 8, bit % 8, bytes == mended(&bytes));
            let (straight, outcome) = take_other(&mut worlds, what, &bytes);
            // The identification means nothing, and nor does the datagram's checksum where the device has looked at it.
            let same = matches!(bit / 8, 18 | 19 | 24 | 25 | 40 | 41) && bytes == mended(&bytes);
            assert_eq!(straight, same, "{what:?}");
            assert!(!straight || outcome.told.len() == 1, "{what:?}: {outcome:?}");
        }
    }
}

#[test]
fn whatever_its_lengths_a_frame_ends_as_it_does_without_a_lane() {
    let mut worlds = with_open_lane();
    let good = FLOW.frame(b"sixteen bytes ..");
    let fits = |straight: bool, outcome: &Outcome| straight && outcome.told.len() == 1;
    for len in 1..good.len() {
        let (straight, _) = take_other(&mut worlds, ("cut", len), &good[..len]);
        assert!(!straight, "cut to {len}");
    }
    for padding in 0..40 {
        let bytes = [&good[..], &[0xff; 40][..padding]].concat();
        let (straight, outcome) = take_other(&mut worlds, ("padded", padding), &bytes);
        assert!(fits(straight, &outcome), "padded by {padding}");
    }
    for data_len in [1, 2, 15, 17, 18, 1471, 1472, 1473, 2000] {
        let (straight, outcome) = take_other(&mut worlds, data_len, &FLOW.frame(&vec![7; data_len]));
        assert!(fits(straight, &outcome), "{data_len}");
    }
    assert!(!take_other(&mut worlds, "empty", &FLOW.frame(b"")).0);
    let packet_len = (good.len() - ethernet::HEADER_BYTES) as i32;
    for total_off in -30..4 {
        for datagram_off in -26..4 {
            let mut bytes = good.clone();
            bytes[16..18].copy_from_slice(&((packet_len + total_off) as u16).to_be_bytes());
            bytes[38..40].copy_from_slice(&((packet_len - 20 + datagram_off) as u16).to_be_bytes());
            let what = ("lengths", total_off, datagram_off);
            let (straight, _) = take_other(&mut worlds, what, &mended(&bytes));
            assert_eq!(straight, total_off == datagram_off && (-15..=0).contains(&total_off), "{what:?}");
        }
    }
}

#[test]
fn what_a_device_says_of_a_frame_is_heeded() {
    let mut worlds = with_open_lane();
    let good = FLOW.frame(b"sixteen bytes ..");
    let mut wrong = good.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let mut none = wrong.clone();
    none[40..42].fill(0);
    let mut of = |what: &str, bytes: &[u8], change: &dyn Fn(&World, &mut RxFrame)| {
        worlds.open_lane(0, FLOW);
        worlds.both("pop", |world| world.pop(0));
        let (straight, outcome) = worlds.both(what, |world| {
            let mut frame = world.frame(bytes);
            change(world, &mut frame);
            world.receive(frame)
        });
        worlds.both("give up", |world| world.pops.waiting[0] = 0);
        (straight, outcome.told.len())
    };
    assert_eq!(of("looked at", &wrong, &|_, _| {}), (true, 1));
    for (bytes, delivered) in [(&good, 1), (&wrong, 0), (&none, 1)] {
        let unknown = of("not looked at", bytes, &|_, frame| frame.checksum = RxChecksum::Unknown);
        assert_eq!(unknown, (false, delivered));
    }
    for at in 1..good.len() {
        let (straight, _) = of("in two pieces", &good, &|world, frame| {
            frame.rest = vec![world.arena.copy_from(&good[at..]).unwrap().freeze()].into();
            frame.head.truncate(at);
        });
        assert!(!straight, "{at}");
    }
    for segment_bytes in [1, 5, 8, 16, 17] {
        let (straight, _) = of("joined", &good, &|_, frame| frame.segment_bytes = segment_bytes);
        assert!(!straight, "{segment_bytes}");
    }
}
