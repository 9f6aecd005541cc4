//! Streams of any length through a TCP echo, compared by hash.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

use crate::{Outcome, PATIENCE};

const CHUNK_BYTES: usize = 64 << 10;
const SEED: u64 = 0x5ca1_ab1e;

/// A transfer that came back as it went out.
#[derive(Debug)]
pub struct Transfer {
    pub bytes: u64,
    /// SHA-256 of what was sent, and of what came back.
    pub hash: String,
    /// From the first byte sent to the end of the stream coming back.
    pub elapsed: Duration,
}

/// Sends `bytes` bytes of noise, closes for sending, reads what comes back until the stream ends, and
/// compares.
pub fn echo(address: SocketAddr, bytes: u64) -> Outcome<Transfer> {
    let stream = connect(address)?;
    let start = Instant::now();
    let (sent, received) = thread::scope(|scope| {
        let writer = scope.spawn(|| send(&stream, bytes));
        let received = receive(&stream, bytes);
        if received.is_err() {
            // Ends a writer that waits for room which nobody makes any more.
            drop(stream.shutdown(Shutdown::Both));
        }
        let sent = writer.join().unwrap_or_else(|_| Err("the sending thread panicked".into()));
        (sent, received)
    });
    let describe = |reason: String| format!("TCP echo of {bytes} bytes at {address}: {reason}");
    let (received_bytes, received_hash) = received.map_err(describe)?;
    let sent_hash = sent.map_err(describe)?;
    if received_bytes != bytes {
        return Err(describe(format!("{received_bytes} bytes came back")));
    }
    if received_hash != sent_hash {
        return Err(describe(format!("SHA-256 sent {sent_hash}, received {received_hash}")));
    }
    Ok(Transfer { bytes, hash: sent_hash, elapsed: start.elapsed() })
}

/// Connects, with time limits on everything that follows.
pub fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let connect = || {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    connect().map_err(|error: std::io::Error| format!("TCP connect to {address}: {error}"))
}

fn send(mut stream: &TcpStream, bytes: u64) -> Outcome<String> {
    let mut noise = StdRng::seed_from_u64(SEED);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left_bytes = bytes;
    while left_bytes > 0 {
        let length = usize::try_from(left_bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let part = &mut chunk[..length];
        noise.fill_bytes(part);
        hash.update(&*part);
        stream.write_all(part).map_err(|error| format!("sending, {left_bytes} bytes to go: {error}"))?;
        left_bytes -= length as u64;
    }
    stream.shutdown(Shutdown::Write).map_err(|error| format!("closing for sending: {error}"))?;
    Ok(hex(hash))
}

/// Reads to the end of the stream, or until more came than was sent.
fn receive(mut stream: &TcpStream, expected_bytes: u64) -> Outcome<(u64, String)> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut received_bytes = 0;
    while received_bytes <= expected_bytes {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => {
                hash.update(&chunk[..length]);
                received_bytes += length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("receiving, after {received_bytes} bytes: {error}")),
        }
    }
    Ok((received_bytes, hex(hash)))
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Serves one connection with an echo that `tamper` has its way with.
    fn tampered(tamper: fn(&mut Vec<u8>)) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).unwrap();
            tamper(&mut bytes);
            stream.write_all(&bytes).unwrap();
        });
        let reason = echo(address, 10_000).unwrap_err();
        server.join().unwrap();
        reason
    }

    #[test]
    fn lost_added_and_changed_bytes_are_found() {
        assert!(tampered(|bytes| bytes.truncate(9999)).contains("9999 bytes came back"));
        assert!(tampered(|bytes| bytes.push(0)).contains("10001 bytes came back"));
        assert!(tampered(|bytes| bytes[5000] ^= 1).contains("SHA-256 sent"));
        assert!(tampered(|bytes| bytes.swap(17, 9000)).contains("SHA-256 sent"));
    }
}
