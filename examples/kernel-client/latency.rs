//! Round trips of 64 bytes, one at a time, timed by a client that polls.
//!
//! A client that sleeps measures mostly how long the machine takes to wake a thread, which is the same
//! for every server; so this one polls, as does the echo server that it is compared with.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::{Outcome, PATIENCE, datagrams, stream};

const MESSAGE_BYTES: usize = 64;
/// Round trips before those that count: caches, neighbour entries and congestion windows settle.
const WARM_UP: u32 = 1_000;
/// Looks at the socket between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 256;

/// Round-trip times in nanoseconds.
pub type Times = Histogram<u64>;

type Message = [u8; MESSAGE_BYTES];

pub fn tcp_round_trips(address: SocketAddr, count: u32) -> Outcome<Times> {
    let mut stream = stream::connect(address)?;
    stream.set_nonblocking(true).map_err(|error| error.to_string())?;
    time("TCP", address, count, |message, answer| {
        stream.write_all(message)?;
        let mut filled = 0;
        while filled < answer.len() {
            match poll(|| stream.read(&mut answer[filled..]))? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            }
        }
        Ok(())
    })
}

pub fn udp_round_trips(address: SocketAddr, count: u32) -> Outcome<Times> {
    let socket = datagrams::connect(address)?;
    socket.set_nonblocking(true).map_err(|error| error.to_string())?;
    time("UDP", address, count, |message, answer| {
        socket.send(message)?;
        poll(|| socket.recv(answer)).map(drop)
    })
}

/// Times `count` exchanges, each of another message, after some that do not count.
fn time(
    protocol: &str,
    address: SocketAddr,
    count: u32,
    mut exchange: impl FnMut(&Message, &mut Message) -> io::Result<()>,
) -> Outcome<Times> {
    let describe = |reason: String| format!("{protocol} round trips with {address}: {reason}");
    let mut times = Times::new(3).map_err(|error| describe(error.to_string()))?;
    for number in 0..count + WARM_UP {
        let mut message = [0x5a; MESSAGE_BYTES];
        message[..4].copy_from_slice(&number.to_le_bytes());
        let mut answer = [0; MESSAGE_BYTES];
        let start = Instant::now();
        exchange(&message, &mut answer).map_err(|error| describe(format!("number {number}: {error}")))?;
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if answer != message {
            return Err(describe(format!("number {number}: other bytes came back")));
        }
        if number >= WARM_UP {
            times.record(nanos).map_err(|error| describe(error.to_string()))?;
        }
    }
    Ok(times)
}

/// Tries until there is something to receive.
fn poll(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            match attempt() {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                result => return result,
            }
        }
        // Where both sides share a processor, the other one gets its turn.
        std::thread::yield_now();
        if Instant::now() > give_up_at {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}
