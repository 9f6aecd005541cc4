//! Messages of 64 bytes, one at a time, timed one by one.

use std::time::Instant;

use catnip_os::libos::{Error, LibOs, QueueDescriptor, SocketKind};
use hdrhistogram::Histogram;

use super::server::Server;
use super::shared::{self, Role};
use super::{Path, Turn, kernel};
use crate::scenario::{Failure, MESSAGE_BYTES};

/// Turns that each side gets, and round trips of each that count.
const TURNS: usize = 10;
const ROUNDS: u32 = 4_000;
/// Round trips at the beginning of a turn that do not: caches and congestion windows settle.
const WARM_UP: u32 = 500;

/// Times of ours and of the kernel, in nanoseconds.
pub fn alternate(libos: &LibOs, server: &mut Server, turn: Turn) -> Result<[Histogram<u64>; 2], Failure> {
    let mut times = [Histogram::new(3)?, Histogram::new(3)?];
    for _ in 0..TURNS {
        server.begin(turn, Path::Shared)?;
        match turn {
            Turn::Udp => over_datagrams(libos, &mut times[0])?,
            Turn::Tcp | Turn::Stream => over_a_stream(libos, &mut times[0])?,
        }
        server.end()?;
        let [tcp, udp] = server.kernel_addresses();
        server.begin(turn, Path::Kernel)?;
        if turn == Turn::Udp {
            let mut socket = kernel::Datagrams::connect(udp)?;
            time(&mut times[1], |message| socket.round_trip(message))?;
        } else {
            let mut stream = kernel::Stream::connect(tcp)?;
            time(&mut times[1], |message| stream.round_trip(message))?;
        }
        server.end()?;
    }
    Ok(times)
}

#[inline]
fn time(
    times: &mut Histogram<u64>,
    mut round_trip: impl FnMut(&[u8; MESSAGE_BYTES]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for round in 0..WARM_UP + ROUNDS {
        let mut message = [0x5a; MESSAGE_BYTES];
        message[..4].copy_from_slice(&round.to_le_bytes());
        let start = Instant::now();
        round_trip(&message)?;
        let took = start.elapsed();
        if round >= WARM_UP {
            times.record(u64::try_from(took.as_nanos())?)?;
        }
    }
    Ok(())
}

/// Takes what comes back, piece by piece.
#[inline]
fn answer(libos: &LibOs, queue: QueueDescriptor, message: &[u8; MESSAGE_BYTES]) -> Result<(), Failure> {
    let mut left = &message[..];
    while !left.is_empty() {
        let (data, _) = shared::popped(libos, libos.pop(queue)?)?;
        for buffer in data.iter() {
            left = left.strip_prefix(&buffer[..]).ok_or("other bytes came back")?;
        }
        if data.is_empty() {
            return Err("the server ended the connection".into());
        }
    }
    Ok(())
}

fn over_a_stream(libos: &LibOs, times: &mut Histogram<u64>) -> Result<(), Failure> {
    let queue = shared::connected(libos)?;
    time(times, |message| {
        let data = libos.arena().copy_from(message).ok_or(Error::NoBuffers)?.freeze();
        shared::done(libos, libos.push(queue, data)?)?;
        answer(libos, queue, message)
    })?;
    shared::done(libos, libos.close(queue)?)
}

fn over_datagrams(libos: &LibOs, times: &mut Histogram<u64>) -> Result<(), Failure> {
    let queue = shared::socket(libos, SocketKind::Datagram)?;
    libos.bind(queue, Role::Client.address())?;
    let server = Role::Server.address();
    time(times, |message| {
        let data = libos.arena().copy_from(message).ok_or(Error::NoBuffers)?.freeze();
        shared::done(libos, libos.pushto(queue, data, server)?)?;
        answer(libos, queue, message)
    })?;
    let end = libos.arena().copy_from(&[]).ok_or(Error::NoBuffers)?.freeze();
    shared::done(libos, libos.pushto(queue, end, server)?)?;
    shared::done(libos, libos.close(queue)?)
}
