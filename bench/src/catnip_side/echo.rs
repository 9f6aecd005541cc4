//! One message there and back.

use catnip_os::libos::{Completion, Error, OperationKind, QueueDescriptor};

use super::crowd::Crowd;
use super::pair::{Connection, Pair, popped, pushed, server_address};
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

    /// Waits for the server's next completion, which has to be of this kind on this connection.
    #[inline(always)]
    fn next(&mut self, kind: OperationKind) -> Result<Completion, Failure> {
        next(&self.pair, kind, self.connection.server)
    }
}

#[inline(always)]
fn next(pair: &Pair, kind: OperationKind, queue: QueueDescriptor) -> Result<Completion, Failure> {
    let completion = pair.server.next_completion(None)?;
    if completion.kind != kind || completion.queue != queue {
        return Err(format!("expected a {kind:?} on {queue} and got {completion:?}").into());
    }
    Ok(completion)
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
        let Connection { client, server } = self.connection;
        for _ in 0..rounds {
            let message = self.pair.client.arena().copy_from(&MESSAGE).ok_or(Error::NoBuffers)?;
            let push = self.pair.client.push(client, message.freeze())?;
            let pop = self.pair.client.pop(client)?;
            pushed(&self.pair.client.wait(push, None)?)?;

            let (request, _) = popped(self.next(OperationKind::Pop)?)?;
            self.pair.server.push(server, request)?;
            self.pair.server.pop(server)?;
            pushed(&self.next(OperationKind::Push)?)?;

            let (reply, _) = popped(self.pair.client.wait(pop, None)?)?;
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
        pushed(&client.wait(push, None)?)?;
        self.reply()?;
        for _ in 0..16 {
            self.pair.client.poll()?;
            self.pair.server.poll()?;
        }
        popped(self.pair.client.wait(pop, None)?)?;
        Ok(())
    }

    /// The server's turn.
    #[inline(always)]
    fn reply(&mut self) -> Result<(), Failure> {
        let server = self.sockets.server;
        let (request, from) = popped(self.next(OperationKind::Pop)?)?;
        let from = from.ok_or("a datagram came from nobody")?;
        self.pair.server.pushto(server, request, from)?;
        self.pair.server.pop(server)?;
        pushed(&self.next(OperationKind::Push)?)
    }

    #[inline(always)]
    fn next(&mut self, kind: OperationKind) -> Result<Completion, Failure> {
        next(&self.pair, kind, self.sockets.server)
    }
}

impl Subject for UdpEcho {
    fn run(&mut self, rounds: u64) -> Result<(), Failure> {
        let client = self.sockets.client;
        for _ in 0..rounds {
            let message = self.pair.client.arena().copy_from(&MESSAGE).ok_or(Error::NoBuffers)?;
            let push = self.pair.client.pushto(client, message.freeze(), server_address(PORT))?;
            let pop = self.pair.client.pop(client)?;
            pushed(&self.pair.client.wait(push, None)?)?;
            self.reply()?;
            let (reply, _) = popped(self.pair.client.wait(pop, None)?)?;
            check_length(reply.len())?;
        }
        Ok(())
    }
}
