//! Windows that stay closed for minutes, each way and in both families at once, and what was sent meanwhile compared.
//!
//! The library OS has minutes in seconds: its clock is quickened, and so are its timers. `ZERO_WINDOW_S`, which
//! `make interop` sets, holds the windows for so many seconds of an ordinary clock instead.

use std::env;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as KernelStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream};
use catnip_os::libos::time::{Clock, MonotonicClock};
use catnip_os::libos::{Instant, LibOs};

use crate::link::{self, Family};
use crate::namespace;
use crate::noise::Noise;

/// Ports of the kernel's reader and of its writer.
const TO_KERNEL: u16 = 5011;
const FROM_KERNEL: u16 = 5012;
const BYTES: usize = 2 << 20;
const BUFFER_BYTES: usize = 64 << 10;
/// For how long the windows stay closed, and how many times as fast the clock is for that.
const HOLD: Duration = Duration::from_secs(180);
const QUICKENED: u64 = 60;
/// Probes of the kernel in that time, at least: it waits for twice as long after each.
const KERNEL_PROBES: u64 = 3;

/// The machine's clock, quickened.
struct QuickClock {
    clock: MonotonicClock,
    factor: u64,
}

impl Clock for QuickClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.clock.now().as_nanos() * self.factor)
    }
}

/// How long to hold the windows, and on which clock.
fn hold() -> (Duration, u64) {
    match env::var("ZERO_WINDOW_S").ok().and_then(|seconds| seconds.parse().ok()) {
        Some(seconds) => (Duration::from_secs(seconds), 1),
        None => (HOLD, QUICKENED),
    }
}

fn open(factor: u64) -> LibOs {
    let config = link::config()
        // Asleep until a deadline, a thread would be late by as much as the clock is early.
        .set("libos.idle", "spin")
        // Of larger frames the kernel throws away what its buffer has no room for, though its window says that it has.
        .set("tap.offload", false)
        .set("tcp.receive_buffer_bytes", BUFFER_BYTES as i64)
        .set("tcp.receive_buffer_max_bytes", BUFFER_BYTES as i64);
    let builder = LibOs::builder().clock(QuickClock { clock: MonotonicClock::new(), factor });
    link::open_with(builder, &config, |tap, _| tap)
}

/// A kernel socket that waits for as long as it takes.
fn connect(family: Family, port: u16) -> KernelStream {
    let stream = link::connect_with_buffer(family.catnip(port), BUFFER_BYTES);
    stream.set_read_timeout(None).unwrap();
    stream.set_write_timeout(None).unwrap();
    stream
}

/// A kernel client that reads nothing before it is told to, and then everything.
fn late_reader(family: Family) -> (mpsc::Sender<()>, JoinHandle<Vec<u8>>) {
    let (go_on, wait) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut stream = connect(family, TO_KERNEL);
        wait.recv().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    });
    (go_on, reader)
}

/// A kernel client that writes, whether somebody reads or not.
fn writer(family: Family) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = connect(family, FROM_KERNEL);
        stream.write_all(&Noise::bytes(FROM_KERNEL.into(), BYTES)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

async fn accepted(libos: &LibOs, family: Family, port: u16) -> TcpStream {
    let mut listener = TcpListener::bind(libos, family.catnip(port)).unwrap();
    listener.accept().await.unwrap().0
}

async fn read_to_end(stream: &TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let data = stream.pop().await.unwrap();
        if data.is_empty() {
            return bytes;
        }
        bytes.extend(data.to_vec());
    }
}

/// Waits for a thread, as a task does.
async fn joined<T>(libos: &LibOs, thread: JoinHandle<T>) -> T {
    while !thread.is_finished() {
        libos.sleep(Duration::from_millis(10)).await;
    }
    thread.join().unwrap()
}

#[test]
fn windows_that_are_closed_for_minutes_open_again_and_nothing_is_missing() {
    namespace::enter("-Urn", || {
        // The kernel probes sooner, where it can be told to.
        let _ = std::fs::write("/proc/sys/net/ipv4/tcp_rto_min_us", "20000");
        let (hold, factor) = hold();
        let libos = open(factor);
        let counted = |name: &str| link::metric(&libos, name);
        let task = async {
            let mut reads = Vec::new();
            let mut writes = Vec::new();
            for family in Family::BOTH {
                let (go_on, reader) = late_reader(family);
                let stream = accepted(&libos, family, TO_KERNEL).await;
                let data = libos.arena().copy_from(&Noise::bytes(TO_KERNEL.into(), BYTES)).unwrap().freeze();
                let push = libos.spawn(async move {
                    stream.push(data).await.unwrap();
                    stream.close().await.unwrap();
                });
                reads.push((go_on, reader, push));
                let writer = writer(family);
                writes.push((writer, accepted(&libos, family, FROM_KERNEL).await));
            }
            while counted("catnip.tcp.zero_window_probes") < 2 {
                libos.sleep(Duration::from_millis(10)).await;
            }
            // All windows are closed: from now on there are probes and their answers.
            let before = (counted("catnip.tcp.in_segments"), counted("catnip.tcp.zero_window_probes"));
            libos.sleep(hold).await;
            let probes = counted("catnip.tcp.zero_window_probes") - before.1;
            let segments = counted("catnip.tcp.in_segments") - before.0;
            // Two connections, whose waits double from 200 ms on up to two minutes.
            let most = 2 * (1 + (hold.as_secs_f64() / 0.2).log2().ceil() as u64 + hold.as_secs() / 120);
            assert!((8..=most).contains(&probes), "{probes} probes, {most} at most");
            assert!(segments >= probes + 2 * KERNEL_PROBES, "{segments} segments, {probes} of them answers");
            let unread = reads.iter().all(|(_, reader, push)| !reader.is_finished() && !push.is_finished());
            assert!(unread && writes.iter().all(|(writer, _)| !writer.is_finished()), "a window was open");
            for (go_on, reader, push) in reads {
                go_on.send(()).unwrap();
                push.await.unwrap();
                let received = joined(&libos, reader).await;
                assert!(received == Noise::bytes(TO_KERNEL.into(), BYTES), "{} other bytes", received.len());
            }
            for (writer, stream) in writes {
                let received = read_to_end(&stream).await;
                assert!(
                    received == Noise::bytes(FROM_KERNEL.into(), BYTES),
                    "{} other bytes",
                    received.len()
                );
                joined(&libos, writer).await;
            }
        };
        libos.block_on(libos.timeout(10 * hold, task)).unwrap().expect("a window does not open again");
        assert_eq!(counted("catnip.tcp.out_resets"), 0);
    });
}
