//! Rings against a model, and against a peer that writes whatever it likes.
#![allow(unsafe_code, reason = "the two ends share memory")]

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::rc::Rc;

use proptest::prelude::*;

use super::layout::Events;
use super::*;

/// Memory for one ring, which several ends can have.
#[derive(Clone)]
struct Shared {
    words: Rc<[std::cell::UnsafeCell<u64>]>,
    areas: [NonNull<u8>; 3],
    options: RingOptions,
}

impl Shared {
    fn new(options: RingOptions) -> Self {
        let bytes = options.kind.area_bytes(options.size).map(|bytes| bytes.next_multiple_of(64));
        let count = bytes.iter().sum::<usize>() / 8 + 8;
        let words: Rc<[std::cell::UnsafeCell<u64>]> = (0..count).map(|_| 0.into()).collect();
        let first = words.as_ptr().cast::<u8>().cast_mut();
        let mut at = first.align_offset(16);
        let areas = bytes.map(|bytes| {
            let area = NonNull::new(first.wrapping_add(at)).unwrap();
            at += bytes;
            area
        });
        Self { words, areas, options }
    }

    fn memory(&self) -> RingMemory {
        let Self { areas, options, words } = self;
        // SAFETY: the areas are in `words`, which the ring keeps; all ends are on this thread.
        unsafe { RingMemory::new(*areas, options.kind, options.size, Box::new(words.clone())) }.unwrap()
    }

    fn driver(&self) -> DriverRing {
        DriverRing::new(self.memory(), &self.options)
    }

    fn device(&self) -> DeviceRing {
        let start = Position { index: 0, wrap: self.options.kind == RingKind::Packed };
        DeviceRing::new(self.memory(), &self.options, start)
    }

    /// Writes a byte anywhere in the ring.
    fn scribble(&self, at: usize, byte: u8) {
        let at = at % (self.words.len() * 8);
        // SAFETY: within the words, which only this thread uses.
        unsafe { self.words.as_ptr().cast::<u8>().cast_mut().add(at).write(byte) };
    }
}

fn options() -> impl Strategy<Value = RingOptions> {
    (prop_oneof![Just(RingKind::Split), Just(RingKind::Packed)], 4..7_u32, any::<bool>())
        .prop_map(|(kind, bits, event_index)| RingOptions { kind, size: 1 << bits, event_index })
}

#[derive(Debug, Clone)]
enum Action {
    /// Offer a chain of so many pieces.
    Offer(u16),
    /// The device takes so many chains, and looks at one more that it does not keep.
    Take(usize),
    /// The device returns so many of those it took.
    GiveBack(usize),
    /// The driver takes so many that were returned.
    Reclaim(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        (1..6_u16).prop_map(Action::Offer),
        (1..9_usize).prop_map(Action::Take),
        (1..9_usize).prop_map(Action::GiveBack),
        (1..9_usize).prop_map(Action::Reclaim),
    ];
    prop::collection::vec(action, 1..400)
}

proptest! {
    #[test]
    fn what_is_offered_arrives_once_in_order_and_comes_back(options in options(), actions in actions()) {
        let shared = Shared::new(options);
        let (mut driver, mut device) = (shared.driver(), shared.device());
        let access = Access::DeviceReads;
        let (mut offered, mut taken, mut returned) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let mut next = 1_u32;
        let mut free = usize::from(options.size);
        for action in actions {
            match action {
                Action::Offer(count) if usize::from(count) <= driver.free() => {
                    let mut slots = Vec::new();
                    let mut pieces = Vec::new();
                    driver.offer(count, access, |slot| {
                        let piece = Piece { address: u64::from(next) << 20, len: next };
                        next += 1;
                        slots.push(slot);
                        pieces.push(piece);
                        piece
                    });
                    driver.publish();
                    free -= usize::from(count);
                    offered.push_back((slots, pieces));
                }
                Action::Offer(_) => prop_assert!(driver.free() < 6),
                Action::Take(count) => {
                    for _ in 0..count.min(offered.len()) {
                        let mut pieces = Vec::new();
                        let chain = device.next(access, &mut pieces).unwrap().unwrap();
                        let (slots, expected) = offered.pop_front().unwrap();
                        prop_assert_eq!(&pieces, &expected);
                        prop_assert_eq!(usize::from(chain.count), slots.len());
                        taken.push_back((chain, slots));
                    }
                    let before = device.position();
                    let mut pieces = Vec::new();
                    let more = device.next(access, &mut pieces).unwrap();
                    prop_assert_eq!(more.is_some(), !offered.is_empty());
                    device.rewind(before);
                }
                Action::GiveBack(count) => {
                    for _ in 0..count.min(taken.len()) {
                        let (chain, slots) = taken.pop_front().unwrap();
                        let len = u32::from(chain.id) + 7;
                        device.give_back(chain, len);
                        returned.push_back((slots, len));
                    }
                    device.publish();
                }
                Action::Reclaim(count) => {
                    for _ in 0..count {
                        let used = driver.next_used().unwrap();
                        prop_assert_eq!(used.is_some(), !returned.is_empty());
                        let Some(used) = used else { break };
                        let (slots, len) = returned.pop_front().unwrap();
                        prop_assert_eq!(used, Used { head: slots[0], len });
                        let mut freed = Vec::new();
                        driver.release(used.head, |slot| freed.push(slot));
                        free += slots.len();
                        prop_assert_eq!(freed, slots);
                    }
                }
            }
            prop_assert_eq!(driver.free(), free);
            prop_assert_eq!(driver.offered() + free, usize::from(options.size));
        }
    }

    /// Whoever asked is told exactly when something came that it did not know of; who did not ask never is,
    /// as far as 60,000 entries go.
    #[test]
    fn who_sleeps_is_told_and_who_polls_is_not(options in options(), rounds in 1..200_usize, burst in 1..9_u16) {
        let shared = Shared::new(options);
        let (mut driver, mut device) = (shared.driver(), shared.device());
        for round in 0..rounds {
            let (kicks, calls) = (round % 3 == 0, round % 5 < 2);
            prop_assert!(!device.set_kicks(kicks));
            prop_assert!(!driver.set_calls(calls));
            for _ in 0..burst {
                driver.offer(1, Access::DeviceWrites, |_| Piece { address: 1, len: 1 });
            }
            driver.publish();
            prop_assert_eq!(driver.wants_kick(), kicks);
            // Who asks too late sees it by itself.
            prop_assert!(device.set_kicks(true));
            device.set_kicks(false);
            while let Some(chain) = device.next(Access::DeviceWrites, &mut Vec::new()).unwrap() {
                device.give_back(chain, 1);
            }
            device.publish();
            prop_assert_eq!(device.wants_call(), calls);
            prop_assert!(driver.set_calls(true));
            while let Some(used) = driver.next_used().unwrap() {
                driver.release(used.head, |_| {});
            }
        }
    }

    #[test]
    fn a_ring_goes_on_where_it_was_stopped(options in options(), before in 0..100_u16, after in 1..100_u16) {
        let shared = Shared::new(options);
        let (mut driver, mut device) = (shared.driver(), shared.device());
        for round in 0..before + after {
            if round == before {
                let base = device.position().to_base(options.kind);
                let start = Position::from_base(base, options.kind, options.size);
                prop_assert_eq!(start, device.position());
                device = DeviceRing::new(shared.memory(), &options, start);
            }
            driver.offer(2, Access::DeviceReads, |slot| Piece { address: u64::from(slot), len: 1 });
            driver.publish();
            let chain = device.next(Access::DeviceReads, &mut Vec::new()).unwrap().unwrap();
            device.give_back(chain, 0);
            device.publish();
            let used = driver.next_used().unwrap().unwrap();
            driver.release(used.head, |_| {});
        }
        prop_assert_eq!(driver.offered(), 0);
    }

    /// Neither end believes the other: whatever is in the ring, each does a bounded amount of work and never
    /// takes what it was not given.
    #[test]
    fn garbage_in_a_ring_is_an_error_or_nothing(
        options in options(),
        scribbles in prop::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 1..300),
    ) {
        let shared = Shared::new(options);
        let (mut driver, mut device) = (shared.driver(), shared.device());
        let mut pieces = Vec::new();
        let mut held = vec![false; usize::from(options.size)];
        let (mut driver_failed, mut device_failed) = (false, false);
        for (kind, at, byte) in scribbles {
            if driver.free() > 0 && !driver_failed {
                driver.offer(1, Access::DeviceReads, |slot| {
                    assert!(!std::mem::replace(&mut held[usize::from(slot)], true));
                    Piece { address: 1, len: 1 }
                });
                driver.publish();
            }
            shared.scribble(at, [byte, 0, 1, 0xff][usize::from(kind % 4)]);
            for _ in 0..options.size {
                pieces.clear();
                match device.next(Access::DeviceReads, &mut pieces) {
                    Ok(Some(chain)) if !device_failed => device.give_back(chain, 0),
                    Ok(_) => break,
                    Err(_) => {
                        device_failed = true;
                        break;
                    }
                }
                prop_assert!(pieces.len() <= usize::from(options.size));
            }
            device.publish();
            device.wants_call();
            for _ in 0..options.size {
                match driver.next_used() {
                    Ok(Some(used)) if !driver_failed => driver.release(used.head, |slot| {
                        assert!(std::mem::replace(&mut held[usize::from(slot)], false), "not the device's");
                    }),
                    Ok(_) => break,
                    Err(_) => {
                        driver_failed = true;
                        break;
                    }
                }
            }
            driver.wants_kick();
        }
    }
}

#[test]
fn chains_without_an_end_and_descriptors_that_do_not_exist_are_errors() {
    for event_index in [false, true] {
        let options = RingOptions { kind: RingKind::Split, size: 16, event_index };
        let take = |descriptors: &[(u16, u16, u16)], head: u16, count: u16| {
            let shared = Shared::new(options);
            let mut device = shared.device();
            let memory = shared.memory();
            for &(at, flags, next) in descriptors {
                let word = layout::Word { len: 1, low: flags, high: next };
                memory.descriptor(at).word.store(word.to_bits(), Ordering::Relaxed);
            }
            memory.available_entry(0).store(head, Ordering::Relaxed);
            memory.available_index().store(count, Ordering::Relaxed);
            device.next(Access::DeviceReads, &mut Vec::new())
        };
        assert_eq!(take(&[], 0, 1), Ok(Some(Chain { id: 0, count: 1 })));
        assert_eq!(take(&[], 16, 1), Err(RingError::NoSuchDescriptor));
        assert_eq!(take(&[(0, 1, 16)], 0, 1), Err(RingError::NoSuchDescriptor));
        assert_eq!(take(&[(0, 1, 0)], 0, 1), Err(RingError::EndlessChain));
        assert_eq!(take(&[(3, 1, 4), (4, 1, 3)], 3, 1), Err(RingError::EndlessChain));
        assert_eq!(take(&[(0, 4, 0)], 0, 1), Err(RingError::NotNegotiated));
        assert_eq!(take(&[], 0, 17), Err(RingError::TooManyEntries));
    }
    let options = RingOptions { kind: RingKind::Packed, size: 16, event_index: false };
    let shared = Shared::new(options);
    let memory = shared.memory();
    for at in 0..16 {
        let word = layout::Word { len: 1, low: 0, high: 1 | 1 << 7 };
        memory.descriptor(at).word.store(word.to_bits(), Ordering::Relaxed);
    }
    assert_eq!(shared.device().next(Access::DeviceReads, &mut Vec::new()), Err(RingError::EndlessChain));
}

#[test]
fn a_device_that_returns_what_it_does_not_have_is_an_error() {
    for kind in [RingKind::Split, RingKind::Packed] {
        let options = RingOptions { kind, size: 16, event_index: false };
        for id in [1, 2, 16, 0xffff] {
            let shared = Shared::new(options);
            let (mut driver, mut device) = (shared.driver(), shared.device());
            driver.offer(3, Access::DeviceReads, |_| Piece { address: 1, len: 1 });
            driver.publish();
            device.give_back(Chain { id, count: 1 }, 0);
            device.publish();
            assert_eq!(driver.next_used(), Err(RingError::NoSuchDescriptor), "{kind:?} {id}");
        }
    }
}

#[test]
fn an_index_passes_an_event_whichever_way_it_wraps() {
    for (event, new, old, passed) in [
        (0, 1, 0, true),
        (1, 1, 0, false),
        (5, 5, 5, false),
        (u16::MAX, 0, u16::MAX, true),
        (0, 2, u16::MAX, true),
        (3, 2, u16::MAX, false),
    ] {
        assert_eq!(passes(event, new, old), passed, "{event} {new} {old}");
    }
}

/// Virtio 1.2, section 2.8.10: who wants to be told at one place of a packed ring is told when it is passed.
#[test]
fn an_event_at_a_place_of_a_packed_ring_is_passed_in_its_own_round() {
    let wants = |offset, wrap, index, now_wrap, count| {
        Events { offset, wrap, flags: 2 }.wants(true, index, now_wrap, count, 16)
    };
    assert!(wants(3, true, 4, true, 1));
    assert!(!wants(4, true, 4, true, 1));
    assert!(wants(15, true, 2, false, 4));
    assert!(!wants(5, true, 2, false, 4));
    assert!(wants(0, false, 2, false, 4));
    assert!(!wants(2, false, 2, false, 4));
}
