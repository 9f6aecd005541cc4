//! An echo server on the library OS, and clients of it on either side, which compare what comes back.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream as KernelStream, UdpSocket as KernelDatagrams};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Config, Error, LibOs};

/// Nothing on one machine takes that long; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub const PORT: u16 = 7;

/// Bytes of the transfer over TCP: many times what the device has descriptors for.
pub const TRANSFER_BYTES: usize = 6_000_000;

/// Payloads from the smallest to several fragments.
const DATAGRAM_BYTES: [usize; 9] = [1, 2, 63, 64, 65, 1000, 1472, 1473, 8000];

const RETRY_EVERY: Duration = Duration::from_millis(200);

/// Bytes that differ from place to place and from seed to seed.
pub fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// A configuration for a port of the given device, with one address.
pub fn config(device: &str, address: &str) -> Config {
    Config::new()
        .set("runtime.kind", "dpdk")
        .set("dpdk.device", device)
        .set("stack.addresses", vec![address.to_owned()])
        .set("memory.region_mib", 64)
}

/// A number among the library OS's metrics.
pub fn metric(libos: &LibOs, name: &str) -> u64 {
    let metrics = libos.metrics().unwrap();
    metrics.get(name).unwrap_or_else(|| panic!("there is no metric {name} in\n{metrics}")).value()
}

/// Echoes datagrams and streams until `done` is.
pub fn serve<T>(libos: &LibOs, local: IpAddr, done: impl Future<Output = T>) -> T {
    serve_datagrams(libos, local);
    serve_streams(libos, local);
    let served = libos.block_on(libos.timeout(PATIENCE / 4, done)).unwrap();
    served.unwrap_or_else(|_| panic!("the client hangs\n{}", libos.metrics().unwrap()))
}

fn serve_datagrams(libos: &LibOs, local: IpAddr) {
    let socket = UdpSocket::bind(libos, SocketAddr::new(local, PORT)).unwrap();
    libos.spawn(async move {
        while let Ok((data, Some(from))) = socket.pop().await {
            // What cannot be sent is lost, as datagrams are.
            let _ = socket.push_to(data, from).await;
        }
    });
}

fn serve_streams(libos: &LibOs, local: IpAddr) {
    let mut listener = TcpListener::bind(libos, SocketAddr::new(local, PORT)).unwrap();
    let spawner = libos.clone();
    libos.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawner.spawn(async move { echo(&stream).await });
        }
    });
}

async fn echo(stream: &TcpStream) -> Result<(), Error> {
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return Ok(());
        }
        stream.push(data).await?;
    }
}

/// Waits, as a task does, for a thread that uses the kernel's sockets.
pub async fn joined<T>(libos: &LibOs, thread: JoinHandle<T>) -> T {
    while !thread.is_finished() {
        libos.sleep(Duration::from_millis(1)).await;
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The client on the kernel's sockets.
pub fn talk_from_kernel(server: IpAddr) {
    let address = SocketAddr::new(server, PORT);
    let socket = KernelDatagrams::bind((if server.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(RETRY_EVERY)).unwrap();
    for (seed, bytes) in DATAGRAM_BYTES.into_iter().enumerate() {
        let sent = pattern(bytes, seed as u64);
        let mut received = vec![0; 10_000];
        let end = Instant::now() + PATIENCE;
        loop {
            socket.send(&sent).unwrap();
            match socket.recv(&mut received) {
                Ok(count) if count == bytes => break assert_eq!(received[..count], sent),
                _ => assert!(Instant::now() < end, "{bytes} bytes never came back from {address}"),
            }
        }
    }

    let mut stream = KernelStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = pattern(TRANSFER_BYTES, 77);
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut received = Vec::with_capacity(TRANSFER_BYTES);
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == expected, "{} bytes came back, of {TRANSFER_BYTES}, or others", received.len());
}
