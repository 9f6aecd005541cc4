//! The process's table of registered regions, and a device that is kept informed about it.
//!
//! The table is one for the process: these tests take turns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libos::memory::registry::{MAX_REGISTERED_REGIONS, for_each_region, generation, region_of};
use libos::memory::{Arena, ArenaConfig, DeviceRegions, Region, RegisteredRegion};

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arena() -> Arena {
    Arena::new(&ArenaConfig { region_bytes: 1 << 20, hugepages: false }).unwrap()
}

fn registered() -> Vec<RegisteredRegion> {
    let mut regions = Vec::new();
    for_each_region(|region| regions.push(region));
    regions
}

/// A device that writes down what it is told, and refuses what it is told to.
#[derive(Default)]
struct Device {
    regions: DeviceRegions<u64>,
    knows: RefCell<BTreeMap<u64, RegisteredRegion>>,
    told: usize,
    refuses_all: bool,
}

impl Device {
    fn refresh(&mut self) {
        let knows = &self.knows;
        self.regions.refresh(
            |region| {
                self.told += 1;
                assert!(knows.borrow_mut().insert(region.id, *region).is_none(), "told twice");
                (!self.refuses_all).then_some(region.id + 1000)
            },
            |region, handle| {
                assert_eq!(handle, region.id + 1000, "its own handle");
                assert_eq!(knows.borrow_mut().remove(&region.id), Some(*region));
            },
        );
    }
}

#[test]
fn a_region_is_registered_for_as_long_as_it_exists() {
    let _turn = turn();
    let before = generation();
    let arena = arena();
    let buffer = arena.copy_from(b"here").unwrap().freeze();
    assert_ne!(generation(), before);
    let region = region_of(&buffer).unwrap();
    assert_eq!(region.base, arena.region().base().as_ptr().cast_const());
    assert_eq!((region.len, region.fd), (arena.region().len(), None));
    assert_eq!(registered(), [region]);
    assert_eq!(region_of(&[1, 2, 3]), None, "the stack is nobody's registered memory");
    let before = generation();
    drop(arena);
    assert_eq!((generation(), registered().len()), (before, 1), "the buffer keeps the region");
    drop(buffer);
    assert_ne!(generation(), before);
    assert_eq!(registered(), []);
}

#[test]
fn bytes_that_leave_a_region_are_not_in_it() {
    let memory = vec![0_u8; 4096];
    let inside = RegisteredRegion { id: 1, base: &raw const memory[64], len: 4096 - 128, fd: None };
    for (bytes, contained) in [
        (64..4032, true),
        (64..4033, false),
        (63..65, false),
        (4031..4032, true),
        (4032..4033, false),
        (4032..4032, true),
        (0..64, false),
    ] {
        assert_eq!(inside.contains(&memory[bytes.clone()]), contained, "{bytes:?}");
    }
}

#[test]
fn a_device_hears_of_each_region_once_and_of_its_end() {
    let _turn = turn();
    let mut device = Device::default();
    let first = arena();
    device.refresh();
    let second = arena();
    let in_first = first.copy_from(b"first").unwrap();
    let in_second = second.copy_from(b"second").unwrap();
    assert!(device.regions.find(&in_second).is_none(), "not told yet");
    for _ in 0..3 {
        device.refresh();
    }
    assert_eq!(device.told, 2);
    for (bytes, arena) in [(&in_first, &first), (&in_second, &second), (&in_first, &first)] {
        let (region, handle) = device.regions.find(bytes).unwrap();
        assert_eq!((region.base, *handle), (arena.region().base().as_ptr().cast_const(), region.id + 1000));
    }
    assert!(device.regions.find(b"the program's own").is_none());
    drop((first, in_first));
    device.refresh();
    assert_eq!(device.knows.borrow().len(), 1);
    assert!(device.regions.find(&in_second).is_some());
    let mut forgotten = 0;
    device.regions.forget_all(|_, _| forgotten += 1);
    assert_eq!(forgotten, 1);
    assert!(device.regions.find(&in_second).is_none());
}

/// The kernel gives the addresses of what was unmapped to who maps next, and a device has to be told anew.
#[test]
fn the_same_addresses_again_are_another_region() {
    let _turn = turn();
    let mut device = Device::default();
    let mut bases = Vec::new();
    for round in 1..=8 {
        let region = Region::map(64 << 10, false).unwrap();
        bases.push(region.base());
        device.refresh();
        assert_eq!((device.told, device.knows.borrow().len()), (round, 1));
    }
    bases.sort();
    bases.dedup();
    assert!(bases.len() < 8, "addresses came back, or this test shows nothing");
}

#[test]
fn what_a_device_refuses_is_not_found_and_not_offered_again() {
    let _turn = turn();
    let mut device = Device { refuses_all: true, ..Device::default() };
    let refused = arena();
    device.refresh();
    device.refuses_all = false;
    let accepted = arena();
    device.refresh();
    assert_eq!(device.told, 2);
    assert!(device.regions.find(&refused.copy_from(b"no").unwrap()).is_none());
    assert!(device.regions.find(&accepted.copy_from(b"yes").unwrap()).is_some());
}

#[test]
fn a_region_beyond_the_limit_works_unregistered() {
    let _turn = turn();
    let regions: Vec<_> = (0..MAX_REGISTERED_REGIONS).map(|_| Region::map(4096, false).unwrap()).collect();
    assert_eq!(registered().len(), MAX_REGISTERED_REGIONS);
    let beyond = arena();
    assert_eq!(region_of(&beyond.copy_from(b"unknown to devices").unwrap()), None);
    drop(regions);
    drop(beyond);
    assert_eq!(registered(), []);
    let _again = arena();
    assert_eq!(registered().len(), 1);
}

/// Readers see whole regions or none, whatever comes and goes.
#[test]
fn readers_never_see_half_a_region() {
    let _turn = turn();
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for pages in 1..=2 {
            let done = &done;
            threads.spawn(move || {
                let mut regions = VecDeque::new();
                for _ in 0..4_000 {
                    regions.push_back(Region::map(pages * (64 << 10), false).unwrap());
                    if regions.len() > 8 {
                        regions.pop_front();
                    }
                }
                done.store(true, Ordering::Release);
            });
        }
        let mut seen = BTreeMap::new();
        while !done.load(Ordering::Acquire) {
            for_each_region(|region| {
                assert!([64 << 10, 128 << 10].contains(&region.len), "{region:?}");
                assert_eq!(*seen.entry(region.id).or_insert(region), region, "one id, one region");
            });
        }
        assert!(!seen.is_empty());
    });
}
