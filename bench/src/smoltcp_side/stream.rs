//! A stream in one direction.

use super::host::{Connection, Pair};
use crate::scenario::{CHUNK_BYTES, Failure, Scenario, Subject};

const PORT: u16 = 9;
/// Turns in a row without a byte after which the stream counts as stuck. Long enough for a delayed
/// acknowledgment on the simulated clock.
const MAX_IDLE_TURNS: u32 = 1_000_000;

/// The client has data in memory and sends it again and again, as much as fits each time; the server looks at
/// it in the receive buffer.
pub struct Stream {
    pair: Pair,
    connection: Connection,
    chunk: Vec<u8>,
}

impl Stream {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let mut pair = Pair::new(scenario)?;
        let connection = pair.connect_amid_crowd(scenario, PORT)?;
        Ok(Self { pair, connection, chunk: vec![0x5a; CHUNK_BYTES] })
    }
}

impl Subject for Stream {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let Connection { client, server } = self.connection;
        let mut unsent = usize::try_from(rounds)? * CHUNK_BYTES;
        let mut unreceived = unsent;
        let mut idle_turns = 0;
        while unreceived > 0 {
            let socket = self.pair.client.tcp(client);
            while unsent > 0 && socket.can_send() {
                let part = unsent.min(CHUNK_BYTES);
                unsent -= socket.send_slice(self.chunk.get(..part).unwrap_or_default())?;
            }
            self.pair.client.poll();
            self.pair.server.poll();
            let socket = self.pair.server.tcp(server);
            let before = unreceived;
            while socket.can_recv() {
                let bytes = socket.recv(|bytes| (bytes.len(), bytes.len()))?;
                unreceived = unreceived.checked_sub(bytes).ok_or("more arrived than was sent")?;
            }
            idle_turns = if unreceived == before { idle_turns + 1 } else { 0 };
            if idle_turns == MAX_IDLE_TURNS {
                return Err(format!("the stream is stuck with {unreceived} bytes to come").into());
            }
        }
        Ok(())
    }
}
