//! TCP and UDP echo, written with tokens: one loop takes whatever completes next, and nothing is copied.
//!
//! ```text
//! CATNIP_CONFIG=tap.toml cargo run --release --example echo-tokens -- 10.1.0.2:7
//! ```
//!
//! with a `tap.toml` such as
//!
//! ```toml
//! [runtime]
//! kind = "tap"
//! [tap]
//! host_addresses = ["10.1.0.1/24"]
//! [stack]
//! addresses = ["10.1.0.2/24"]
//! ```
//!
//! Every connection has one operation under way: a pop, then the push of what came, then the next pop. A
//! client that sends without reading is slowed down by that: the push does not complete before there is room.

use std::net::SocketAddr;

use catnip_os::libos::{
    Completion, Config, Domain, Error, LibOs, OperationKind, Outcome, QueueDescriptor, SocketKind, Token,
};

/// Completions that are taken at a time.
const BATCH: usize = 64;
const BACKLOG: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "0.0.0.0:7".to_owned());
    let address: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    let libos = catnip_os::open(&Config::load()?)?;
    let server = Server::start(libos, address)?;
    println!("listening on {address}");
    let mut completions = Vec::with_capacity(BATCH);
    loop {
        server.libos.wait_next(&mut completions, BATCH, None)?;
        for completion in completions.drain(..) {
            server.on_completion(completion)?;
        }
    }
}

struct Server {
    libos: LibOs,
    listener: QueueDescriptor,
    datagrams: QueueDescriptor,
}

impl Server {
    fn start(libos: LibOs, address: SocketAddr) -> Result<Self, Error> {
        let domain = Domain::of(address);
        let listener = libos.socket(domain, SocketKind::Stream)?;
        libos.bind(listener, address)?;
        libos.listen(listener, BACKLOG)?;
        libos.accept(listener)?;
        let datagrams = libos.socket(domain, SocketKind::Datagram)?;
        libos.bind(datagrams, address)?;
        libos.pop(datagrams)?;
        Ok(Self { libos, listener, datagrams })
    }

    /// Goes on with what has come to an end. Fails when the server cannot go on at all.
    fn on_completion(&self, Completion { queue, kind, outcome, .. }: Completion) -> Result<(), Error> {
        let libos = &self.libos;
        match outcome {
            Outcome::Accepted { queue: connection, peer: _ } => {
                self.unless_lost(connection, libos.pop(connection));
                libos.accept(self.listener)?;
            }
            Outcome::Popped { data, from: Some(peer) } => {
                // The reply's token completes as any other; whether it could be sent matters to nobody.
                libos.pushto(queue, data, peer)?;
                libos.pop(queue)?;
            }
            // The end of the stream: what was pushed before is still sent.
            Outcome::Popped { data, from: None } if data.is_empty() => self.close(queue),
            Outcome::Popped { data, from: None } => self.unless_lost(queue, libos.push(queue, data)),
            Outcome::Pushed if queue == self.datagrams => {}
            Outcome::Pushed => self.unless_lost(queue, libos.pop(queue)),
            Outcome::Connected | Outcome::Closed => {}
            Outcome::Failed(error) if queue == self.listener => {
                eprintln!("accepting: {error}");
                libos.accept(queue)?;
            }
            Outcome::Failed(_) if queue == self.datagrams => {
                // What ICMP said of an earlier reply.
                if kind == OperationKind::Pop {
                    libos.pop(queue)?;
                }
            }
            Outcome::Failed(error) => {
                eprintln!("connection {queue}: {error}");
                self.close(queue);
            }
        }
        Ok(())
    }

    /// Closes the connection when its next operation could not even be started.
    fn unless_lost(&self, connection: QueueDescriptor, started: Result<Token, Error>) {
        if let Err(error) = started {
            eprintln!("connection {connection}: {error}");
            self.close(connection);
        }
    }

    fn close(&self, connection: QueueDescriptor) {
        if let Err(error) = self.libos.close(connection) {
            eprintln!("closing {connection}: {error}");
        }
    }
}
