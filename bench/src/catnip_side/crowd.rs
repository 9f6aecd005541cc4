//! The connections and listeners that are there and do nothing.

use catnip_os::libos::{Error, QueueDescriptor};

use super::pair::{Connection, Host, Pair};
use crate::scenario::{Failure, MESSAGE_BYTES, Scenario};

/// The crowd's first port; its listeners have the ports above, which stay below every ephemeral one.
const FIRST_PORT: u16 = 10_000;
/// Connections of one server port: well below the number of ephemeral ports, so that a free one is found at once.
const CONNECTIONS_PER_PORT: usize = 4096;

/// Idle connections, each of which carried a message both ways, and idle listeners.
pub struct Crowd {
    _connections: Vec<Connection>,
    _listeners: Vec<QueueDescriptor>,
}

impl Crowd {
    /// Makes what the scenario says.
    pub fn new(pair: &Pair, scenario: &Scenario) -> Result<Self, Failure> {
        let mut ports = FIRST_PORT..u16::MAX;
        let mut connections = Vec::with_capacity(scenario.connections);
        while connections.len() < scenario.connections {
            let port = ports.next().ok_or("too many connections for the ports there are")?;
            let listener = pair.listen(port)?;
            for _ in 0..CONNECTIONS_PER_PORT.min(scenario.connections - connections.len()) {
                let connection = pair.connect(listener, port)?;
                use_once(pair, connection)?;
                connections.push(connection);
            }
        }
        let listeners: Result<_, _> = ports.take(scenario.listeners).map(|port| pair.listen(port)).collect();
        if scenario.connections > 0 {
            pair.settle()?;
        }
        Ok(Self { _connections: connections, _listeners: listeners? })
    }
}

/// A message there and back, and then a pop that stays outstanding at the server, as every server has one.
fn use_once(pair: &Pair, connection: Connection) -> Result<(), Failure> {
    let Connection { client, server } = connection;
    let message = pair.client.arena().copy_from(&[1; MESSAGE_BYTES]).ok_or(Error::NoBuffers)?;
    let pop = pair.server.pop(server)?;
    pair.finish(Host::Client, pair.client.push(client, message.freeze())?)?.pushed()?;
    let (request, _) = pair.finish(Host::Server, pop)?.popped()?;
    let pop = pair.client.pop(client)?;
    pair.finish(Host::Server, pair.server.push(server, request)?)?.pushed()?;
    pair.finish(Host::Client, pop)?.popped()?;
    pair.server.pop(server)?;
    Ok(())
}
