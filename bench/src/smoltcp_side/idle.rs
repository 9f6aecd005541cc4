//! Polls that find nothing to do.

use super::host::Pair;
use crate::scenario::{Failure, Scenario, Subject};

const PORT: u16 = 7;

/// A server nobody talks to; one of the connections is there however few the scenario has.
pub struct IdlePoll {
    pair: Pair,
}

impl IdlePoll {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let mut pair = Pair::new(scenario)?;
        if scenario.connections > 0 {
            pair.connect_amid_crowd(scenario, PORT)?;
        }
        Ok(Self { pair })
    }
}

impl Subject for IdlePoll {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        (0..rounds).for_each(|_| self.pair.server.poll());
        Ok(())
    }
}
