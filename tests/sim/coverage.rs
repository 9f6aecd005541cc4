//! Which transitions of the TCP state diagram (RFC 9293, figure 5) the runs have made.

use std::collections::BTreeMap;

use crate::world::World;

/// Transitions with how often each was made.
#[derive(Debug, Default)]
pub struct Coverage {
    transitions: BTreeMap<(String, String), u64>,
}

impl Coverage {
    /// Adds what the hosts of a world did.
    pub fn add(&mut self, world: &World) {
        for (from, to, count) in world.hosts.iter().flat_map(|host| host.transitions()) {
            *self.transitions.entry((from, to)).or_default() += count;
        }
    }
}
