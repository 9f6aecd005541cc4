//! Library OSes that share a virtual clock.

use std::time::Duration;

use libos::time::ManualClock;
use libos::{Clock, LibOs};

/// Rounds in which the library OSes have something to do at one instant, at most.
const MOST_ROUNDS: usize = 100_000;

/// `duration` passes, and all library OSes do what they want to do meanwhile.
#[allow(clippy::panic, reason = "a test fails by panicking")]
pub fn pass(clock: &ManualClock, sides: &[&LibOs], duration: Duration) {
    let end = clock.now() + duration;
    for _ in 0..MOST_ROUNDS {
        poll(sides);
        if sides.iter().any(|side| side.needs_poll()) || frames_moved(sides) {
            continue;
        }
        match sides.iter().filter_map(|side| side.next_deadline()).min() {
            Some(next) if next <= end => clock.set(next.max(clock.now())),
            Some(_) | None => {
                clock.set(end);
                return;
            }
        }
    }
    panic!("they never rest");
}

/// Polls once more; true when that gave a side something to do.
fn frames_moved(sides: &[&LibOs]) -> bool {
    poll(sides);
    sides.iter().any(|side| side.needs_poll())
}

#[allow(clippy::expect_used, reason = "a test fails by panicking")]
fn poll(sides: &[&LibOs]) {
    for side in sides {
        side.poll().expect("no callback is running");
    }
}
