//! One test for each behaviour that was once wrong, here or elsewhere in the field, and for those parts of
//! the protocol that random runs reach seldom.

mod amplification;
mod closing;
mod flood;
mod flow;
mod fragments;
mod limits;
mod link;
mod loss;
mod opening;
mod recovery;
mod segments;

use std::net::SocketAddr;
use std::time::Duration;

use libos::runtime::Medium;
use libos::{Clock, Instant};

use crate::host::{Host, HostConfig, Kind, Opening, Received, Socket};
use crate::pattern::Pattern;
use crate::world::World;

pub use self::closing::closes_at_once;
pub use self::opening::opens_at_once;

/// The kinds of far peer that a scenario is run with; the near one is always ours.
const FAR_KINDS: [Kind; 2] = [Kind::Catnip, Kind::Smoltcp];
const PORT: u16 = 7000;
/// How long a step of a scenario may take in virtual time when nothing says otherwise.
const SOON: Duration = Duration::from_secs(10);

/// A host with its peer, numbered 0 and 1, on a clean link of 2 x 10 us.
fn pair(far: Kind) -> World {
    pair_with(far, |_| ())
}

/// The same with changes to both hosts.
fn pair_with(far: Kind, change: impl Fn(&mut HostConfig)) -> World {
    let mut configs = [HostConfig::new(Kind::Catnip, 1), HostConfig::new(far, 2)];
    configs.iter_mut().for_each(change);
    let world = World::new(Medium::Ethernet, 1, &configs);
    world.keep_log();
    world
}

/// Sets the latency of both directions.
fn latency(latency: Duration) -> impl Fn(&mut HostConfig) {
    move |host| host.path.latency = latency
}

impl World {
    fn host(&mut self, host: usize) -> &mut dyn Host {
        &mut *self.hosts[host]
    }

    /// A connection between two hosts, each side's name for it: the client's first.
    fn connect(&mut self, client: usize, server: usize) -> (Socket, Socket) {
        let listener = self.host(server).listen(PORT, 4);
        let pair = self.connect_to(client, server, listener, None);
        self.host(server).close_listener(listener);
        pair
    }

    /// The same to a listener that is there, from a given port if that matters.
    fn connect_to(
        &mut self,
        client: usize,
        server: usize,
        listener: Socket,
        local_port: Option<u16>,
    ) -> (Socket, Socket) {
        let address = SocketAddr::new(self.hosts[server].address(), PORT);
        let near = self.host(client).connect_from(local_port, address);
        let mut far = None;
        self.run_until(SOON, |world| {
            far = far.or_else(|| world.host(server).accept(listener));
            far.is_some() && world.is_open(client, near)
        });
        (near, far.expect("accepted above"))
    }

    fn is_open(&mut self, host: usize, connection: Socket) -> bool {
        match self.host(host).opening(connection) {
            Opening::InProgress => false,
            Opening::Open { .. } => true,
            Opening::Failed(failure) => panic!("the connection failed to open: {failure:?}"),
        }
    }

    /// Sends all of `bytes` as fast as they are taken, while time goes on.
    fn send_all(&mut self, host: usize, connection: Socket, bytes: &[u8]) {
        let mut sent = 0;
        self.run_until(Duration::from_secs(600), |world| {
            sent += world.host(host).send(connection, &bytes[sent..]).expect("an open connection");
            sent == bytes.len()
        });
    }

    /// Reads until `count` bytes came, which has to be within `time`.
    fn receive_exactly(&mut self, host: usize, connection: Socket, count: usize, time: Duration) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.run_until(time, |world| {
            while bytes.len() < count {
                match world.host(host).receive(connection, count - bytes.len()).expect("an open connection") {
                    Received::Data(data) => bytes.extend(data),
                    Received::Nothing => return false,
                    Received::End => panic!("the stream ended after {} of {count} bytes", bytes.len()),
                }
            }
            true
        });
        bytes
    }

    /// Reads until the end of the stream, which has to come without further data.
    fn receive_end(&mut self, host: usize, connection: Socket) {
        self.run_until(SOON, |world| match world.host(host).receive(connection, 1000) {
            Ok(Received::End) => true,
            Ok(Received::Nothing) => false,
            other => panic!("not the end of the stream: {other:?}"),
        });
    }

    /// Sends `count` bytes from one side and reads them at the other, while time goes on. Returns when the
    /// last one came.
    fn transfer(
        &mut self,
        from: (usize, Socket),
        to: (usize, Socket),
        count: usize,
        time: Duration,
    ) -> Instant {
        let bytes = stream_bytes(count);
        let mut sent = 0;
        let mut received = Vec::new();
        self.run_until(time, |world| {
            if sent < count {
                let end = count.min(sent + 16_384);
                sent += world.host(from.0).send(from.1, &bytes[sent..end]).expect("an open connection");
            }
            while let Received::Data(data) =
                world.host(to.0).receive(to.1, 16_384).expect("an open connection")
            {
                received.extend(data);
            }
            received.len() >= count
        });
        assert_eq!(received, bytes);
        self.now()
    }

    /// Closes both sides and runs until nothing is left.
    fn close_both(&mut self, sides: [(usize, Socket); 2]) {
        for (host, connection) in sides {
            self.host(host).close(connection);
            self.run_for(Duration::from_millis(100));
        }
        self.drain();
    }

    fn states(&self, host: usize) -> Vec<String> {
        self.hosts[host].states()
    }

    /// How often a host has sent payload that it had sent before.
    fn retransmissions(&self, host: usize) -> usize {
        let mut sent_to = None;
        let mut is_old = |seen: &crate::wire::Seen| {
            let sequence = seen.segment.sequence;
            let is_old = sent_to.is_some_and(|sent_to| sequence < sent_to);
            let end = sequence + seen.segment.payload_bytes;
            sent_to = Some(sent_to.map_or(end, |sent_to| if sent_to < end { end } else { sent_to }));
            is_old
        };
        let with_payload = self.sent_by(host).into_iter().filter(|seen| seen.segment.payload_bytes > 0);
        with_payload.map(|seen| is_old(&seen)).filter(|&is_old| is_old).count()
    }

    fn elapsed_since(&self, start: Instant) -> Duration {
        self.clock.now().saturating_duration_since(start)
    }
}

/// Bytes to send.
fn stream_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    Pattern::new(1, 2, true).fill(0, &mut bytes);
    bytes
}
