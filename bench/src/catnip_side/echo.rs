//! One message there and back.

use std::net::SocketAddr;

use catnip_os::libos::{Completion, Error, LibOs, Outcome, QueueDescriptor, ScatterGather};

use super::crowd::Crowd;
use super::pair::{Connection, Pair, server_address};
use crate::scenario::{Failure, MESSAGE_BYTES, Scenario, Subject};

const PORT: u16 = 7;
const MESSAGE: [u8; MESSAGE_BYTES] = [0x5a; MESSAGE_BYTES];

/// Echo over one connection, written as a program would write it: the client waits for its tokens, the
/// server takes whatever completes next.
pub struct TcpEcho {
    pair: Pair,
    connection: Connection,
    /// Held for what it occupies.
    _crowd: Crowd,
}

impl TcpEcho {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let pair = Pair::new(scenario)?;
        let crowd = Crowd::new(&pair, scenario)?;
        let listener = pair.listen(PORT)?;
        let connection = pair.connect(listener, PORT)?;
        pair.server.pop(connection.server)?;
        Ok(Self { pair, connection, _crowd: crowd })
    }
}

/// Waits for the server's next completion, which has to be a pop's on this queue.
#[inline(always)]
fn next_popped(
    server: &LibOs,
    queue: QueueDescriptor,
) -> Result<(ScatterGather, Option<SocketAddr>), Failure> {
    match server.next_completion(None)? {
        Completion { queue: on, outcome: Outcome::Popped { data, from }, .. } if on == queue => {
            Ok((data, from))
        }
        completion => Err(misplaced("pop", queue, &completion)),
    }
}

/// Waits for the server's next completion, which has to be a push's on this queue.
#[inline(always)]
fn next_pushed(server: &LibOs, queue: QueueDescriptor) -> Result<(), Failure> {
    match server.next_completion(None)? {
        Completion { queue: on, outcome: Outcome::Pushed, .. } if on == queue => Ok(()),
        completion => Err(misplaced("push", queue, &completion)),
    }
}

#[cold]
fn misplaced(what: &str, queue: QueueDescriptor, completion: &Completion) -> Failure {
    format!("expected a {what} on {queue} and got {completion:?}").into()
}

#[inline(always)]
fn check_length(bytes: usize) -> Result<(), Failure> {
    if bytes == MESSAGE_BYTES {
        Ok(())
    } else {
        Err(format!("{bytes} bytes arrived instead of {MESSAGE_BYTES}").into())
    }
}

impl Subject for TcpEcho {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let Self { pair: Pair { client, server, .. }, connection, _crowd } = self;
        for _ in 0..rounds {
            let message = client.arena().copy_from(&MESSAGE).ok_or(Error::NoBuffers)?;
            let push = client.push(connection.client, message.freeze())?;
            let pop = client.pop(connection.client)?;
            client.wait(push, None)?.pushed()?;

            let (request, _) = next_popped(server, connection.server)?;
            server.push(connection.server, request)?;
            server.pop(connection.server)?;
            next_pushed(server, connection.server)?;

            let (reply, _) = client.wait(pop, None)?.popped()?;
            check_length(reply.len())?;
        }
        Ok(())
    }
}

/// Echo of datagrams.
pub struct UdpEcho {
    pair: Pair,
    sockets: Connection,
}

impl UdpEcho {
    pub fn new(scenario: &Scenario) -> Result<Self, Failure> {
        let pair = Pair::new(scenario)?;
        let sockets = pair.datagram_sockets(PORT)?;
        pair.server.pop(sockets.server)?;
        let mut echo = Self { pair, sockets };
        echo.resolve()?;
        Ok(echo)
    }

    /// One round trip while the hosts ask for each other's addresses.
    fn resolve(&mut self) -> Result<(), Failure> {
        let message = self.pair.client.arena().copy_from(&MESSAGE).ok_or(Error::NoBuffers)?;
        let pop = self.pair.client.pop(self.sockets.client)?;
        let push = self.pair.client.pushto(self.sockets.client, message.freeze(), server_address(PORT))?;
        let Pair { client, server, .. } = &self.pair;
        for _ in 0..16 {
            client.poll()?;
            server.poll()?;
        }
        client.wait(push, None)?.pushed()?;
        self.reply()?;
        for _ in 0..16 {
            self.pair.client.poll()?;
            self.pair.server.poll()?;
        }
        self.pair.client.wait(pop, None)?.popped()?;
        Ok(())
    }

    /// The server's turn.
    #[inline(always)]
    fn reply(&self) -> Result<(), Failure> {
        let (Pair { server, .. }, queue) = (&self.pair, self.sockets.server);
        let (request, from) = next_popped(server, queue)?;
        let from = from.ok_or("a datagram came from nobody")?;
        server.pushto(queue, request, from)?;
        server.pop(queue)?;
        next_pushed(server, queue)
    }
}

impl Subject for UdpEcho {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let client = self.sockets.client;
        for _ in 0..rounds {
            let message = self.pair.client.arena().copy_from(&MESSAGE).ok_or(Error::NoBuffers)?;
            let push = self.pair.client.pushto(client, message.freeze(), server_address(PORT))?;
            let pop = self.pair.client.pop(client)?;
            self.pair.client.wait(push, None)?.pushed()?;
            self.reply()?;
            let (reply, _) = self.pair.client.wait(pop, None)?.popped()?;
            check_length(reply.len())?;
        }
        Ok(())
    }
}
