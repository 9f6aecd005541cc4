//! Round trips of a datagram between a program on the library OS and one on kernel sockets, both of which poll, beside
//! the same between two ends of the kernel's.

use std::hint;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::{Config, Domain, Error, LibOs, Outcome, QueueDescriptor, SocketKind, Token};
use hdrhistogram::Histogram;

use super::link::{self, Device, KERNEL, OURS};
use super::pair::{FAR, KernelPair, NEAR};
use crate::processes::pin;
use crate::scenario::{Failure, MESSAGE_BYTES};

const PORT: u16 = 7003;
/// Turns that each side gets, and round trips of each that count.
const TURNS: usize = 6;
const ROUNDS: u32 = 300;
/// Round trips at the beginning of a turn that do not.
const WARM_UP: u32 = 20;
/// After which a datagram is lost.
const LOST: Duration = Duration::from_secs(1);

/// Quantiles that are reported.
pub const QUANTILES: [(&str, f64); 2] = [("trip, p50", 0.5), ("trip, p99", 0.99)];

/// For each of [`QUANTILES`], nanoseconds of the library OS's round trips and of the kernel's.
///
/// # Errors
/// [`Failure`] when either cannot be measured.
pub fn nanoseconds(device: Device) -> Result<Vec<(f64, f64)>, Failure> {
    let libos = link::open_with(device, Config::new().set("libos.idle", "spin"))?;
    let pair = KernelPair::new(device.offloads())?;
    let mut times = [Histogram::new(3)?, Histogram::new(3)?];
    let queue = libos.socket(Domain::Ipv4, SocketKind::Datagram)?;
    libos.bind(queue, format!("{OURS}:{PORT}").parse()?)?;
    let mut popping = libos.pop(queue)?;
    for _ in 0..TURNS {
        serve(&libos, queue, &mut popping, &mut times[0])?;
        serve_by_kernel(&pair, &mut times[1])?;
    }
    let of = |times: &Histogram<u64>, quantile| times.value_at_quantile(quantile) as f64;
    Ok(QUANTILES.iter().map(|(_, quantile)| (of(&times[0], *quantile), of(&times[1], *quantile))).collect())
}

/// A client in a thread of its own, for a turn; its times.
fn client(local: &'static str, server: &'static str) -> thread::JoinHandle<io::Result<Vec<u64>>> {
    thread::spawn(move || {
        let _pinned = pin::to(pin::CLIENT)?;
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect((server, PORT))?;
        socket.set_nonblocking(true)?;
        let mut times = Vec::new();
        for round in 0..WARM_UP + ROUNDS {
            let mut message = [0x5a; MESSAGE_BYTES];
            message[..4].copy_from_slice(&round.to_le_bytes());
            let start = Instant::now();
            round_trip(&socket, &message)?;
            if round >= WARM_UP {
                times.push(start.elapsed().as_nanos() as u64);
            }
        }
        Ok(times)
    })
}

fn round_trip(socket: &UdpSocket, message: &[u8; MESSAGE_BYTES]) -> io::Result<()> {
    let start = Instant::now();
    socket.send(message)?;
    let mut answer = [0; MESSAGE_BYTES];
    loop {
        match socket.recv(&mut answer) {
            Ok(_) if answer == *message => return Ok(()),
            Ok(_) => return Err(io::Error::other("other bytes came back")),
            Err(error) if error.kind() == ErrorKind::WouldBlock && start.elapsed() < LOST => {
                hint::spin_loop();
            }
            Err(error) => return Err(error),
        }
    }
}

fn record(
    client: thread::JoinHandle<io::Result<Vec<u64>>>,
    times: &mut Histogram<u64>,
) -> Result<(), Failure> {
    for time in client.join().map_err(|_| "the client failed")?? {
        times.record(time)?;
    }
    Ok(())
}

/// The library OS serves for a turn.
fn serve(
    libos: &LibOs,
    queue: QueueDescriptor,
    popping: &mut Token,
    times: &mut Histogram<u64>,
) -> Result<(), Failure> {
    let client = client(KERNEL, OURS);
    // Threads that are started afterwards would be kept there too.
    let _pinned = pin::to(pin::SERVER)?;
    while !client.is_finished() {
        let completion = match libos.wait(*popping, Some(Duration::from_millis(20))) {
            Ok(completion) => completion,
            Err(Error::TimedOut) => continue,
            Err(error) => return Err(error.into()),
        };
        let Outcome::Popped { data, from: Some(from) } = completion.outcome else {
            return Err(format!("a pop ended with {:?}", completion.outcome).into());
        };
        let pushing = libos.pushto(queue, data, from)?;
        libos.wait(pushing, None)?;
        *popping = libos.pop(queue)?;
    }
    record(client, times)
}

/// The kernel's far end serves for a turn.
fn serve_by_kernel(pair: &KernelPair, times: &mut Histogram<u64>) -> Result<(), Failure> {
    let far = pair.far_process();
    let ended = Arc::new(AtomicBool::new(false));
    let (is_ready, ready) = mpsc::channel();
    let server = thread::spawn({
        let ended = ended.clone();
        move || -> io::Result<()> {
            let _pinned = pin::to(pin::SERVER)?;
            KernelPair::enter_far(far)?;
            let socket = UdpSocket::bind((FAR, PORT))?;
            socket.set_nonblocking(true)?;
            // Whoever started this thread waits for it.
            let _ = is_ready.send(());
            let mut bytes = [0; MESSAGE_BYTES];
            while !ended.load(Ordering::Relaxed) {
                match socket.recv_from(&mut bytes) {
                    Ok((count, from)) => {
                        socket.send_to(&bytes[..count], from)?;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        }
    });
    // When the server failed, its own error says more than that it is not ready.
    let recorded = match ready.recv() {
        Ok(()) => record(client(NEAR, FAR), times),
        Err(_) => Ok(()),
    };
    ended.store(true, Ordering::Relaxed);
    server.join().map_err(|_| "the far side failed")??;
    recorded
}
