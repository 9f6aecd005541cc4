//! One message there and back.

use super::host::{Connection, Pair, server_address};
use crate::scenario::{Failure, MESSAGE_BYTES, Scenario, Subject};

const PORT: u16 = 7;
const MESSAGE: [u8; MESSAGE_BYTES] = [0x5a; MESSAGE_BYTES];

fn check_length(bytes: usize) -> Result<(), Failure> {
    if bytes == MESSAGE_BYTES {
        Ok(())
    } else {
        Err(format!("{bytes} bytes arrived instead of {MESSAGE_BYTES}").into())
    }
}

/// Echo over one connection.
pub struct TcpEcho {
    pair: Pair,
    connection: Connection,
    message: [u8; MESSAGE_BYTES],
}

impl TcpEcho {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let mut pair = Pair::new(scenario)?;
        let connection = pair.connect_amid_crowd(scenario, PORT)?;
        Ok(Self { pair, connection, message: [0; MESSAGE_BYTES] })
    }
}

impl Subject for TcpEcho {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let Connection { client, server } = self.connection;
        for _ in 0..rounds {
            self.pair.client.tcp(client).send_slice(&MESSAGE)?;
            self.pair.client.poll();

            self.pair.server.poll();
            let socket = self.pair.server.tcp(server);
            check_length(socket.recv_slice(&mut self.message)?)?;
            socket.send_slice(&self.message)?;
            self.pair.server.poll();

            self.pair.client.poll();
            check_length(self.pair.client.tcp(client).recv_slice(&mut self.message)?)?;
        }
        Ok(())
    }
}

/// Echo of datagrams.
pub struct UdpEcho {
    pair: Pair,
    sockets: Connection,
    message: [u8; MESSAGE_BYTES],
}

impl UdpEcho {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let mut pair = Pair::new(scenario)?;
        let sockets = pair.datagram_sockets(PORT)?;
        Ok(Self { pair, sockets, message: [0; MESSAGE_BYTES] })
    }
}

impl Subject for UdpEcho {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let Connection { client, server } = self.sockets;
        for _ in 0..rounds {
            self.pair.client.udp(client).send_slice(&MESSAGE, server_address(PORT))?;
            self.pair.client.poll();

            self.pair.server.poll();
            let socket = self.pair.server.udp(server);
            let (bytes, from) = socket.recv_slice(&mut self.message)?;
            check_length(bytes)?;
            socket.send_slice(&self.message, from)?;
            self.pair.server.poll();

            self.pair.client.poll();
            check_length(self.pair.client.udp(client).recv_slice(&mut self.message)?.0)?;
        }
        Ok(())
    }
}
