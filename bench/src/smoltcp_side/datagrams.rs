//! Datagrams in one direction.

use super::host::{Connection, Pair, server_address};
use crate::scenario::{BURST_DATAGRAMS, DATAGRAM_BYTES, Failure, Scenario, Subject};

const PORT: u16 = 9;

/// The client sends data that it has in memory, a burst at a time; the server looks at each datagram in the
/// receive buffer.
pub struct Datagrams {
    pair: Pair,
    sockets: Connection,
    datagram: Vec<u8>,
}

impl Datagrams {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let mut pair = Pair::new(scenario)?;
        let sockets = pair.datagram_sockets(PORT)?;
        Ok(Self { pair, sockets, datagram: vec![0x5a; DATAGRAM_BYTES] })
    }
}

impl Subject for Datagrams {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let Connection { client, server } = self.sockets;
        for _ in 0..rounds {
            let socket = self.pair.client.udp(client);
            for _ in 0..BURST_DATAGRAMS {
                socket.send_slice(&self.datagram, server_address(PORT))?;
            }
            self.pair.client.poll();
            self.pair.server.poll();
            for _ in 0..BURST_DATAGRAMS {
                let (data, _) = self.pair.server.udp(server).recv()?;
                if data.len() != DATAGRAM_BYTES {
                    return Err(format!("{} bytes arrived instead of {DATAGRAM_BYTES}", data.len()).into());
                }
            }
        }
        Ok(())
    }
}
