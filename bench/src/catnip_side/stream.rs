//! A stream in one direction.

use catnip_os::libos::{Buffer, Completion, Error};

use super::pair::{Connection, Pair, take_completions};
use crate::scenario::{CHUNK_BYTES, Failure, Scenario, Subject};

const PORT: u16 = 9;
/// Pushes that the client keeps outstanding.
const OUTSTANDING_PUSHES: usize = 4;
/// Turns in a row without a byte after which the stream counts as stuck.
const MAX_IDLE_TURNS: u32 = 1000;

/// The client has data in memory and pushes references to it, again and again; the server pops it and looks
/// at its length.
pub struct Stream {
    pair: Pair,
    connection: Connection,
    chunk: Buffer,
    completions: Vec<Completion>,
    outstanding_pushes: usize,
}

impl Stream {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let pair = Pair::new(scenario)?;
        let listener = pair.listen(PORT)?;
        let connection = pair.connect(listener, PORT)?;
        pair.server.pop(connection.server)?;
        let chunk = pair.client.arena().copy_from(&[0x5a; CHUNK_BYTES]).ok_or(Error::NoBuffers)?.freeze();
        Ok(Self { pair, connection, chunk, completions: Vec::new(), outstanding_pushes: 0 })
    }

    fn take_pushes(&mut self) -> Result<(), Failure> {
        take_completions(&self.pair.client, &mut self.completions)?;
        for completion in self.completions.drain(..) {
            completion.pushed()?;
            self.outstanding_pushes -= 1;
        }
        Ok(())
    }

    /// The server's turn: bytes that were popped.
    fn take_pops(&mut self) -> Result<usize, Failure> {
        let mut bytes = 0;
        take_completions(&self.pair.server, &mut self.completions)?;
        for completion in self.completions.drain(..) {
            let (data, _) = completion.popped()?;
            if data.is_empty() {
                return Err("the stream ended".into());
            }
            bytes += data.len();
            self.pair.server.pop(self.connection.server)?;
        }
        Ok(bytes)
    }
}

impl Subject for Stream {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let mut unsent = rounds;
        let mut unreceived = usize::try_from(rounds)? * CHUNK_BYTES;
        let mut idle_turns = 0;
        while unreceived > 0 {
            while unsent > 0 && self.outstanding_pushes < OUTSTANDING_PUSHES {
                self.pair.client.push(self.connection.client, self.chunk.clone())?;
                self.outstanding_pushes += 1;
                unsent -= 1;
            }
            self.take_pushes()?;
            let bytes = self.take_pops()?;
            unreceived = unreceived.checked_sub(bytes).ok_or("more arrived than was sent")?;
            idle_turns = if bytes == 0 { idle_turns + 1 } else { 0 };
            if idle_turns == MAX_IDLE_TURNS {
                return Err(format!("the stream is stuck with {unreceived} bytes to come").into());
            }
        }
        while self.outstanding_pushes > 0 {
            self.take_pushes()?;
            self.take_pops()?;
        }
        Ok(())
    }
}
