//! What happens when memory runs out: back-pressure to the program and to the peer, and harm to nobody.

use std::time::Duration;

use super::{FAR_KINDS, PORT, SOON, pair_with, stream_bytes};
use crate::host::{HostConfig, Kind, Received, Socket};
use crate::world::World;

#[test]
fn a_full_send_queue_leaves_pushes_pending() {
    for far in FAR_KINDS {
        let mut world = pair_with(far, |host| {
            host.send_buffer_bytes = 32 << 10;
            host.receive_buffer_bytes = 8 << 10;
        });
        let (client, server) = world.connect(0, 1);
        let bytes = stream_bytes(200_000);
        let mut sent = 0;
        for _ in 0..100 {
            let end = bytes.len().min(sent + 10_000);
            sent += world.host(0).send(client, &bytes[sent..end]).expect("an open connection");
            world.run_for(Duration::from_millis(1));
        }
        assert!(sent < 150_000, "{far:?}: {sent} bytes were taken from a peer that reads nothing");
        let mut received = Vec::new();
        world.run_until(SOON * 3, |world| {
            let end = bytes.len().min(sent + 10_000);
            sent += world.host(0).send(client, &bytes[sent..end]).expect("an open connection");
            while let Received::Data(data) = world.host(1).receive(server, 8_000).expect("an open connection")
            {
                received.extend(data);
            }
            received.len() == bytes.len()
        });
        assert_eq!(received, bytes);
        world.close_both([(0, client), (1, server)]);
    }
}

/// Sends over some connections, of which only the first `readers` are read until those have all.
struct Streams {
    world: World,
    sides: Vec<(Socket, Socket)>,
    bytes: Vec<u8>,
    sent: Vec<usize>,
    received: Vec<Vec<u8>>,
}

impl Streams {
    fn new(count: usize, total_bytes: usize, change: impl Fn(&mut HostConfig)) -> Self {
        let mut world = pair_with(Kind::Catnip, |host| {
            host.send_buffer_bytes = 8 << 20;
            host.receive_buffer_bytes = 8 << 20;
            host.path.bandwidth_bits_per_s = Some(1_000_000_000);
            change(host);
        });
        let listener = world.host(1).listen(PORT, 4);
        let sides: Vec<_> = (0..count).map(|_| world.connect_to(0, 1, listener, None)).collect();
        world.host(1).close_listener(listener);
        Self {
            world,
            sent: vec![0; count],
            received: vec![Vec::new(); count],
            sides,
            bytes: stream_bytes(total_bytes),
        }
    }

    /// One millisecond of sending, and of reading the first `readers`.
    fn step(&mut self, readers: usize) {
        for (index, &(near, far)) in self.sides.iter().enumerate() {
            let sent = &mut self.sent[index];
            let end = self.bytes.len().min(*sent + 30_000);
            let taken = self.world.hosts[0].send(near, &self.bytes[*sent..end]);
            *sent += taken.expect("a connection without memory is still open");
            while index < readers
                && let Received::Data(data) =
                    self.world.hosts[1].receive(far, 60_000).expect("an open connection")
            {
                self.received[index].extend(data);
            }
        }
        self.world.run_for(Duration::from_millis(1));
    }

    /// Some milliseconds of sending, of which each takes 1,000 bytes from each stream.
    fn read_slowly(&mut self, millis: usize) {
        for _ in 0..millis {
            self.step(0);
            for (received, &(_, far)) in self.received.iter_mut().zip(&self.sides) {
                if let Received::Data(data) =
                    self.world.hosts[1].receive(far, 1_000).expect("an open connection")
                {
                    received.extend(data);
                }
            }
        }
    }

    /// Goes on until the first `readers` have everything.
    fn finish(&mut self, readers: usize) {
        let start = self.world.now();
        while self.received[..readers].iter().any(|received| received.len() < self.bytes.len()) {
            self.step(readers);
            let bytes: Vec<_> = self.received.iter().map(Vec::len).collect();
            assert!(self.world.elapsed_since(start) < Duration::from_secs(100), "received: {bytes:?}");
        }
        assert!(self.received[..readers].iter().all(|received| *received == self.bytes));
    }

    fn end(mut self) {
        for (near, far) in self.sides.drain(..) {
            self.world.host(0).close(near);
            self.world.run_for(Duration::from_millis(10));
            self.world.host(1).close(far);
        }
        self.world.drain();
    }
}

#[test]
fn buffer_exhaustion_gives_back_pressure() {
    // More may be queued than the sender's memory holds, and nobody reads for a while.
    let mut streams = Streams::new(1, 6_000_000, |host| {
        if host.number == 1 {
            host.arena_bytes = 2 << 20;
        } else {
            host.receive_buffer_bytes = 64 << 10;
        }
    });
    for _ in 0..300 {
        streams.step(0);
    }
    let taken = streams.sent[0];
    assert!((100_000..2 << 20).contains(&taken), "{taken} bytes taken with a memory of 2 MiB");
    assert!(streams.world.hosts[0].counter("arena.failed_allocations") > 0);
    streams.finish(1);
    streams.end();
}

/// Thirty connections whose windows together are many times the receiver's memory, read slowly: they are offered less,
/// and so little is sent that has to be thrown away.
#[test]
fn many_connections_in_a_small_memory_are_offered_less() {
    let count = 30;
    let mut streams = Streams::new(count, 3_000_000, |host| {
        if host.number == 2 {
            host.arena_bytes = 3 << 20;
            host.receive_buffer_bytes = 256 << 10;
        }
    });
    let drops = |streams: &Streams| streams.world.hosts[1].counter("catnip.tcp.memory_drops");
    streams.read_slowly(500);
    let dropped_at_first = drops(&streams);
    streams.read_slowly(1_500);
    assert!(dropped_at_first > 0, "what was offered before stays offered, or this shows nothing");
    assert_eq!(drops(&streams), dropped_at_first, "peers send no more than there is room for");
    assert_eq!(streams.world.hosts[1].counter("catnip.tcp.memory_clamps"), count as u64);
    streams.finish(count);
    streams.end();
}

#[test]
fn memory_that_one_connection_fills_is_not_missing_to_another() {
    // The receiver's memory is less than what the sender of the second stream may have unread there.
    let mut streams = Streams::new(2, 6_000_000, |host| {
        if host.number == 2 {
            host.arena_bytes = 2 << 20;
        }
    });
    for _ in 0..300 {
        streams.step(0);
    }
    assert!(streams.world.hosts[1].counter("catnip.tcp.memory_drops") > 0);
    streams.finish(1);
    streams.finish(2);
    streams.end();
}
