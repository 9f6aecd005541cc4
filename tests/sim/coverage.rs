//! Which transitions of the TCP state diagram (RFC 9293, figure 5) the runs have made, and how long they took in
//! virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::World;

/// The diagram's arrows as connections take them. A listener stays in LISTEN, and each connection that it
/// gets begins there; one that is let in during TIME-WAIT ends the old connection first.
const ARROWS: [(&str, &str); 14] = [
    ("CLOSED", "SYN-SENT"),
    ("LISTEN", "SYN-RECEIVED"),
    ("SYN-SENT", "SYN-RECEIVED"),
    ("SYN-SENT", "ESTABLISHED"),
    ("SYN-RECEIVED", "ESTABLISHED"),
    ("ESTABLISHED", "FIN-WAIT-1"),
    ("ESTABLISHED", "CLOSE-WAIT"),
    ("FIN-WAIT-1", "FIN-WAIT-2"),
    ("FIN-WAIT-1", "CLOSING"),
    ("FIN-WAIT-2", "TIME-WAIT"),
    ("CLOSING", "TIME-WAIT"),
    ("CLOSE-WAIT", "LAST-ACK"),
    ("LAST-ACK", "CLOSED"),
    ("TIME-WAIT", "CLOSED"),
];

/// States that a reset, a timeout or the program can end at any time.
const ABORTS: [&str; 8] = [
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
];

/// The diagram's other arrows, which no connection takes, and why.
const UNREACHABLE: [(&str, &str, &str); 8] = [
    ("CLOSED", "LISTEN", "a listener is no connection: it is made in LISTEN and stays there"),
    ("LISTEN", "CLOSED", "a listener that closes is gone; its half-open connections go from SYN-RECEIVED"),
    ("LISTEN", "SYN-SENT", "nothing can be sent on a listener, as in POSIX"),
    (
        "SYN-RECEIVED",
        "LISTEN",
        "a connection is a copy of its listener, which never left LISTEN: the copy ends",
    ),
    ("SYN-RECEIVED", "FIN-WAIT-1", "a close waits for ESTABLISHED (3.10.4 allows the queueing)"),
    ("SYN-RECEIVED", "CLOSE-WAIT", "a FIN acknowledges our SYN before it counts: ESTABLISHED comes between"),
    ("FIN-WAIT-1", "TIME-WAIT", "a FIN that acknowledges ours passes FIN-WAIT-2 on the way"),
    ("TIME-WAIT", "SYN-RECEIVED", "a SYN that is let in ends the old connection and begins one from LISTEN"),
];

/// Seeds that are enough for every abort, too, to be made by chance.
pub const ABORTING_SEEDS: usize = 1_000;

/// Transitions with how often each was made.
#[derive(Debug, Default)]
pub struct Coverage {
    transitions: BTreeMap<(String, String), u64>,
    simulated: Duration,
}

impl Coverage {
    /// Adds what the hosts of a world did.
    pub fn add(&mut self, world: &World) {
        for (from, to, count) in world.hosts.iter().flat_map(|host| host.transitions()) {
            *self.transitions.entry((from, to)).or_default() += count;
        }
        self.simulated += world.age();
    }

    /// Virtual time of all runs together.
    pub fn simulated(&self) -> Duration {
        self.simulated
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{:<14} {:<14} {:>9}", "from", "to", "times");
        for ((from, to), count) in &self.transitions {
            println!("{from:<14} {to:<14} {count:>9}");
        }
        for (from, to, reason) in UNREACHABLE {
            println!("{from:<14} {to:<14} {:>9} {reason}", "never:");
        }
    }

    /// Checks that every arrow was taken, and after so many `seeds` every abort too.
    pub fn assert_complete(&self, seeds: usize) {
        let aborts = ABORTS.iter().map(|&from| (from, "CLOSED")).filter(|_| seeds >= ABORTING_SEEDS);
        let is_missing = |&(from, to): &(&str, &str)| {
            self.transitions.get(&(from.to_owned(), to.to_owned())).is_none_or(|&count| count == 0)
        };
        let missing: Vec<_> = ARROWS.into_iter().chain(aborts).filter(is_missing).collect();
        assert!(missing.is_empty(), "transitions that nothing has made: {missing:?}");
    }

    /// Checks that no transition was made that the diagram does not have.
    pub fn assert_sound(&self) {
        let is_known =
            |from: &str, to: &str| ARROWS.contains(&(from, to)) || (to == "CLOSED" && ABORTS.contains(&from));
        let strange: Vec<_> = self.transitions.keys().filter(|(from, to)| !is_known(from, to)).collect();
        assert!(strange.is_empty(), "transitions that are not in the diagram: {strange:?}");
    }
}
