//! Datagrams in one direction.

use catnip_os::libos::{Buffer, Completion, Error};

use super::pair::{Connection, Pair, server_address, take_completions};
use crate::scenario::{BURST_DATAGRAMS, DATAGRAM_BYTES, Failure, Scenario, Subject};

const PORT: u16 = 9;
/// Turns in a row without a datagram after which some count as lost.
const MAX_IDLE_TURNS: u32 = 1000;

/// The client pushes references to data that it has in memory, a burst at a time; the server has as many pops
/// outstanding.
pub struct Datagrams {
    pair: Pair,
    sockets: Connection,
    datagram: Buffer,
    completions: Vec<Completion>,
}

impl Datagrams {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let pair = Pair::new(scenario)?;
        let sockets = pair.datagram_sockets(PORT)?;
        for _ in 0..BURST_DATAGRAMS {
            pair.server.pop(sockets.server)?;
        }
        let datagram =
            pair.client.arena().copy_from(&[0x5a; DATAGRAM_BYTES]).ok_or(Error::NoBuffers)?.freeze();
        let mut datagrams = Self { pair, sockets, datagram, completions: Vec::new() };
        // The first one asks for the server's address.
        datagrams.send(1)?;
        Ok(datagrams)
    }

    /// Sends so many and waits until they have arrived.
    fn send(&mut self, count: usize) -> Result<(), Failure> {
        let Pair { client, server, .. } = &self.pair;
        for _ in 0..count {
            client.pushto(self.sockets.client, self.datagram.clone(), server_address(PORT))?;
        }
        let mut unreceived = count;
        let mut idle_turns = 0;
        while unreceived > 0 {
            take_completions(client, &mut self.completions)?;
            for completion in self.completions.drain(..) {
                completion.pushed()?;
            }
            take_completions(server, &mut self.completions)?;
            idle_turns = if self.completions.is_empty() { idle_turns + 1 } else { 0 };
            if idle_turns == MAX_IDLE_TURNS {
                return Err(format!("{unreceived} datagrams were lost").into());
            }
            for completion in self.completions.drain(..) {
                let (data, _) = completion.popped()?;
                if data.len() != DATAGRAM_BYTES {
                    return Err(format!("{} bytes arrived instead of {DATAGRAM_BYTES}", data.len()).into());
                }
                unreceived -= 1;
                server.pop(self.sockets.server)?;
            }
        }
        Ok(())
    }
}

impl Subject for Datagrams {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        (0..rounds).try_for_each(|_| self.send(BURST_DATAGRAMS))
    }
}
