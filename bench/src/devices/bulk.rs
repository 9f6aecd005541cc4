//! One TCP stream between a program on the library OS and a thread with a kernel socket.

use std::io::{Read, Write};
use std::net::{TcpListener as KernelListener, TcpStream as KernelStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::net::TcpStream;
use catnip_os::libos::{Error, LibOs};

use super::iperf::Iperf;
use super::link::{self, Device, KERNEL};
use super::{Direction, median};
use crate::scenario::Failure;

const PORT: u16 = 7001;
/// What iperf3 reads and writes at a time.
const CHUNK_BYTES: usize = 128 << 10;
/// Rounds in turns with iperf3, an odd number for the median.
const ROUNDS: usize = 3;
/// Before anything counts, and how long is measured then.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURED: Duration = Duration::from_millis(1500);

/// Bytes in a second between the library OS and the kernel, and of iperf3 between two ends of the kernel's.
///
/// # Errors
/// [`Failure`] when either cannot be measured.
pub fn bytes_per_second(device: Device, direction: Direction) -> Result<(f64, f64), Failure> {
    let libos = link::open(device)?;
    let iperf = Iperf::new(device.offloads())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(iperf.bytes_per_second(direction, WARM_UP + MEASURED)?);
        ours.push(stream(&libos, direction)?);
    }
    Ok((median(ours), median(theirs)))
}

/// What the kernel's side has sent or received, and whether it is to end.
#[derive(Default)]
struct Progress {
    bytes: AtomicU64,
    ended: AtomicBool,
}

/// Carries bytes for a while; how many a second the receiver got.
fn stream(libos: &LibOs, direction: Direction) -> Result<f64, Failure> {
    let listener = KernelListener::bind((KERNEL, PORT))?;
    let progress = Arc::new(Progress::default());
    let kernel = thread::spawn({
        let progress = progress.clone();
        move || {
            let (stream, _) = listener.accept()?;
            match direction {
                Direction::ToKernel => kernel_receives(&stream, &progress),
                Direction::FromKernel => kernel_sends(&stream, &progress),
            }
        }
    });
    let address = format!("{KERNEL}:{PORT}").parse()?;
    let rate = libos.block_on(async {
        let stream = TcpStream::connect(libos, address).await?;
        match direction {
            Direction::ToKernel => catnip_sends(libos, &stream, &progress).await,
            Direction::FromKernel => catnip_receives(&stream, &progress).await,
        }
    })??;
    kernel.join().map_err(|_| "the kernel's side failed")??;
    Ok(rate)
}

/// Counts from the warm-up's end on.
struct Meter {
    start: Instant,
    counted_from: Option<(Instant, u64)>,
}

impl Meter {
    fn new() -> Self {
        Self { start: Instant::now(), counted_from: None }
    }

    /// The rate, once enough was measured.
    fn note(&mut self, bytes: u64) -> Option<f64> {
        let now = Instant::now();
        match self.counted_from {
            None if now - self.start >= WARM_UP => self.counted_from = Some((now, bytes)),
            Some((from, before)) if now - from >= MEASURED => {
                return Some((bytes - before) as f64 / (now - from).as_secs_f64());
            }
            _ => {}
        }
        None
    }
}

async fn catnip_sends(libos: &LibOs, stream: &TcpStream, progress: &Progress) -> Result<f64, Error> {
    let mut chunk = libos.arena().allocate(CHUNK_BYTES).ok_or(Error::NoBuffers)?;
    chunk.set_len(CHUNK_BYTES);
    let chunk = chunk.freeze();
    let mut meter = Meter::new();
    loop {
        stream.push(chunk.clone()).await?;
        if let Some(rate) = meter.note(progress.bytes.load(Ordering::Relaxed)) {
            stream.shutdown(catnip_os::libos::Shutdown::Write)?;
            // Until the kernel has everything and closes too.
            while !stream.pop().await?.is_empty() {}
            return Ok(rate);
        }
    }
}

async fn catnip_receives(stream: &TcpStream, progress: &Progress) -> Result<f64, Error> {
    let mut meter = Meter::new();
    let mut bytes = 0;
    let mut measured = None;
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return measured.ok_or(Error::ConnectionReset);
        }
        bytes += data.len() as u64;
        if measured.is_none() {
            measured = meter.note(bytes);
            progress.ended.store(measured.is_some(), Ordering::Relaxed);
        }
    }
}

fn kernel_receives(mut stream: &KernelStream, progress: &Progress) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            len => progress.bytes.fetch_add(len as u64, Ordering::Relaxed),
        };
    }
}

fn kernel_sends(mut stream: &KernelStream, progress: &Progress) -> std::io::Result<()> {
    let chunk = vec![0; CHUNK_BYTES];
    while !progress.ended.load(Ordering::Relaxed) {
        stream.write_all(&chunk)?;
    }
    Ok(())
}
