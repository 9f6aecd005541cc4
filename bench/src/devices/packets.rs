//! Frames of 64 bytes a second: datagrams between the library OS and the kernel, beside the same between two ends of the
//! kernel's.

use std::fs;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::{Completion, Domain, Error, LibOs, Outcome, SocketKind};

use super::burst::{Burst, make_room};
use super::link::{self, Device, KERNEL, OURS};
use super::pair::{FAR, FAR_INTERFACE, KernelPair, NEAR};
use super::{Direction, median};
use crate::scenario::Failure;

/// Where datagrams go.
const PORT: u16 = 7002;
/// With Ethernet, IP and UDP headers and the frame's checksum, 64 bytes on a wire.
pub const PAYLOAD_BYTES: usize = 18;
/// Datagrams that either side hands over before it looks what became of them.
pub const BURST: usize = 64;
/// Rounds in turns with the kernel's, an odd number for the median.
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(200);
const MEASURED: Duration = Duration::from_millis(800);

/// Frames a second: the library OS's, and the kernel's.
///
/// # Errors
/// [`Failure`] when either cannot be measured.
pub fn per_second(device: Device, direction: Direction) -> Result<(f64, f64), Failure> {
    let libos = link::open(device)?;
    let pair = KernelPair::new(device.offloads())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(match direction {
            Direction::ToKernel => kernel_sends(&pair)?,
            Direction::FromKernel => kernel_receives(&pair)?,
        });
        ours.push(match direction {
            Direction::ToKernel => catnip_sends(&libos, device)?,
            Direction::FromKernel => catnip_receives(&libos)?,
        });
    }
    Ok((median(ours), median(theirs)))
}

/// How many frames an interface of the calling thread's network namespace has received.
fn received(interface: &str) -> Result<u64, Failure> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    table
        .lines()
        .filter_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
        .find_map(|numbers| numbers.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| format!("{interface} has no numbers").into())
}

/// Runs `work` for the warm-up and the time that counts; how much `count` rose by in a second of the latter.
fn rate(
    mut work: impl FnMut() -> Result<(), Failure>,
    count: impl Fn() -> Result<u64, Failure>,
) -> Result<f64, Failure> {
    let mut work_for = |duration| -> Result<Duration, Failure> {
        let start = Instant::now();
        while start.elapsed() < duration {
            work()?;
        }
        Ok(start.elapsed())
    };
    work_for(WARM_UP)?;
    let before = count()?;
    let took = work_for(MEASURED)?;
    Ok((count()? - before) as f64 / took.as_secs_f64())
}

/// A thread of the kernel's side, which ends when it is told to.
struct Side {
    ended: Arc<AtomicBool>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Side {
    fn start(work: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let ended = ended.clone();
            move || work(&ended)
        });
        Self { ended, thread }
    }

    fn end(self) -> Result<(), Failure> {
        self.ended.store(true, Ordering::Relaxed);
        Ok(self.thread.join().map_err(|_| "the kernel's side failed")??)
    }
}

/// A thread that sends datagrams to an address.
fn sender(local: &'static str, to: &'static str) -> Side {
    Side::start(move |ended| {
        let socket = UdpSocket::bind((local, 0))?;
        socket.connect((to, PORT))?;
        let mut burst = Burst::new();
        while !ended.load(Ordering::Relaxed) {
            burst.send(&socket)?;
        }
        Ok(())
    })
}

fn kernel_sends(pair: &KernelPair) -> Result<f64, Failure> {
    let sending = sender(NEAR, FAR);
    let far = pair.far_process();
    let counted = thread::spawn(move || {
        KernelPair::enter_far(far)?;
        // What nobody takes is dropped there, having arrived.
        let _taker = UdpSocket::bind((FAR, PORT))?;
        let wait = || {
            thread::sleep(Duration::from_millis(10));
            Ok(())
        };
        rate(wait, || received(FAR_INTERFACE)).map_err(|failure| io::Error::other(failure.to_string()))
    });
    let counted = counted.join().map_err(|_| "the far side failed")?;
    sending.end()?;
    Ok(counted?)
}

fn kernel_receives(pair: &KernelPair) -> Result<f64, Failure> {
    let far = pair.far_process();
    let count = Arc::new(AtomicU64::new(0));
    let receiving = Side::start({
        let count = count.clone();
        move |ended| {
            KernelPair::enter_far(far)?;
            let socket = UdpSocket::bind((FAR, PORT))?;
            socket.set_nonblocking(true)?;
            make_room(&socket);
            let mut burst = Burst::new();
            while !ended.load(Ordering::Relaxed) {
                count.fetch_add(burst.receive(&socket)? as u64, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    let sending = sender(NEAR, FAR);
    let wait = || {
        thread::sleep(Duration::from_millis(10));
        Ok(())
    };
    let counted = rate(wait, || Ok(count.load(Ordering::Relaxed)));
    sending.end()?;
    receiving.end()?;
    counted
}

fn catnip_sends(libos: &LibOs, device: Device) -> Result<f64, Failure> {
    let _taker = UdpSocket::bind((KERNEL, PORT))?;
    let to: SocketAddr = format!("{KERNEL}:{PORT}").parse()?;
    let queue = libos.socket(Domain::Ipv4, SocketKind::Datagram)?;
    let payload = libos.arena().copy_from(&[0x5a; PAYLOAD_BYTES]).ok_or(Error::NoBuffers)?.freeze();
    let mut completions = Vec::new();
    let burst = || {
        for _ in 0..BURST {
            libos.pushto(queue, payload.clone(), to)?;
        }
        let mut left = BURST;
        while left > 0 {
            libos.wait_next(&mut completions, left, None)?;
            left -= completions.len();
            completions.clear();
        }
        Ok(())
    };
    let counted = rate(burst, || received(device.kernel_interface()))?;
    libos.close(queue)?;
    Ok(counted)
}

fn catnip_receives(libos: &LibOs) -> Result<f64, Failure> {
    let queue = libos.socket(Domain::Ipv4, SocketKind::Datagram)?;
    libos.bind(queue, format!("{OURS}:{PORT}").parse()?)?;
    for _ in 0..BURST {
        libos.pop(queue)?;
    }
    let sending = sender(KERNEL, OURS);
    let mut completions: Vec<Completion> = Vec::new();
    let count = std::cell::Cell::new(0);
    let take = || {
        match libos.wait_next(&mut completions, BURST, Some(Duration::from_millis(1))) {
            Ok(_) | Err(Error::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        for completion in completions.drain(..) {
            let Outcome::Popped { .. } = completion.outcome else {
                return Err(format!("a pop ended with {:?}", completion.outcome).into());
            };
            count.set(count.get() + 1);
            libos.pop(queue)?;
        }
        Ok(())
    };
    let counted = rate(take, || Ok(count.get()));
    sending.end()?;
    libos.close(queue)?;
    // The pops that were outstanding complete too; then there is nothing to wait for.
    while libos.wait_next(&mut Vec::new(), BURST, Some(Duration::from_millis(1))) != Err(Error::WouldBlock) {}
    counted
}
