//! Bulk against the kernel through a forwarder that loses, doubles, reorders, delays and damages frames: whatever
//! happens on the way, every byte arrives, in both directions and both families.

use std::time::Duration;

use crate::forwarder::{Faults, Forwarder};
use crate::link::{self, Family};
use crate::namespace;
use crate::transfer::{Flow, transfer};

const BYTES: usize = 2 << 20;

fn survive(what: &str, faults: Faults) {
    // Faults are about what is on a wire: whole frames with checksums of their own.
    let config = link::config().set("tap.offload", false);
    let libos = link::open_through(&config, |tap, arena| Forwarder::new(tap, arena.clone(), faults, 11));
    for family in Family::BOTH {
        for flow in [Flow { up: BYTES, down: 0 }, Flow { up: 0, down: BYTES }] {
            transfer(&libos, family, flow, what);
        }
    }
    if faults.lost + faults.damaged > 0 {
        assert!(link::metric(&libos, "catnip.tcp.retransmitted_segments") > 0, "{what}: nothing was lost");
    }
}

#[test]
fn bulk_survives_loss() {
    namespace::enter("-Urn", || survive("loss", Faults { lost: 10, ..Faults::default() }));
}

#[test]
fn bulk_survives_frames_that_come_twice() {
    namespace::enter("-Urn", || survive("duplication", Faults { doubled: 50, ..Faults::default() }));
}

#[test]
fn bulk_survives_reordering() {
    let faults = Faults { delayed: 30, delay: Duration::from_millis(2), ..Faults::default() };
    namespace::enter("-Urn", || survive("reordering", faults));
}

#[test]
fn bulk_survives_damage() {
    namespace::enter("-Urn", || survive("damage", Faults { damaged: 10, ..Faults::default() }));
}

#[test]
fn bulk_survives_delay() {
    let faults = Faults { delayed: 1000, delay: Duration::from_millis(5), ..Faults::default() };
    namespace::enter("-Urn", || survive("delay", faults));
}

#[test]
fn bulk_survives_everything_at_once() {
    let faults = Faults { lost: 5, doubled: 10, damaged: 5, delayed: 20, delay: Duration::from_millis(3) };
    namespace::enter("-Urn", || survive("everything", faults));
}
