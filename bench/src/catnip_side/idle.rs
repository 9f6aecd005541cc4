//! Connections that do nothing.

use super::crowd::Crowd;
use super::pair::Pair;
use crate::scenario::{Failure, Scenario, Subject, Work};

/// Two library OSes with idle connections between them.
pub struct IdleConnections {
    pair: Pair,
    /// Held for what it occupies.
    _crowd: Crowd,
}

impl IdleConnections {
    /// Makes the connections, each of which carries a message both ways.
    ///
    /// # Errors
    /// [`Failure`] when they cannot be made.
    pub fn new(connections: usize) -> Result<Self, Failure> {
        let scenario = Scenario { connections, ..Scenario::of(Work::IdlePoll) };
        let pair = Pair::new(&scenario)?;
        let crowd = Crowd::new(&pair, &scenario)?;
        Ok(Self { pair, _crowd: crowd })
    }

    /// Bytes of both arenas that are handed out.
    pub fn arena_bytes(&self) -> usize {
        [&self.pair.client, &self.pair.server].map(|libos| libos.arena().stats().used_bytes).iter().sum()
    }
}

/// A server whose polls find nothing to do.
pub struct IdlePoll(IdleConnections);

impl IdlePoll {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        IdleConnections::new(scenario.connections).map(Self)
    }
}

impl Subject for IdlePoll {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let server = &self.0.pair.server;
        (0..rounds).try_for_each(|_| Ok(server.poll()?))
    }
}
