//! Datagrams of many sizes through a UDP echo, compared byte for byte.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::{Outcome, PATIENCE};

const SEED: u64 = 0xda7a;
/// Up to what one packet carries at an MTU of 1500.
const SIZES: [usize; 8] = [1, 2, 63, 64, 512, 1000, 1471, 1472];
const ROUNDS: usize = 50;

/// Sends datagrams one at a time and compares what comes back; returns how many.
pub fn echo(address: SocketAddr) -> Outcome<usize> {
    let socket = connect(address)?;
    let mut noise = StdRng::seed_from_u64(SEED);
    let mut datagram = [0; 2048];
    let mut answer = [0; 2048];
    for size in SIZES.repeat(ROUNDS) {
        let describe = |reason: String| format!("UDP echo of {size} bytes at {address}: {reason}");
        let datagram = &mut datagram[..size];
        noise.fill_bytes(datagram);
        socket.send(datagram).map_err(|error| describe(format!("sending: {error}")))?;
        let length = socket.recv(&mut answer).map_err(|error| describe(format!("receiving: {error}")))?;
        if answer[..length] != *datagram {
            return Err(describe(format!("{length} other bytes came back")));
        }
    }
    Ok(SIZES.len() * ROUNDS)
}

/// A socket for one peer, with time limits.
pub fn connect(address: SocketAddr) -> Outcome<UdpSocket> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let connect = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    };
    connect().map_err(|error: std::io::Error| format!("UDP socket for {address}: {error}"))
}
