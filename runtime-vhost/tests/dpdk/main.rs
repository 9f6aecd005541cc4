//! Links to DPDK, either way: our back end with its `virtio_user` device, and our front end with its `net_vhost`. Frames
//! go there and come back, and every byte is compared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant as WallInstant};

use libos::memory::{ArenaConfig, Region};
use libos::runtime::{RxBatch, TxOffload};
use libos::{Arena, FrameBatch, Instant, Runtime, RxFrame};
use runtime_vhost::{RingKind, Vhost, VhostConfig, VhostRole};

const PATIENCE: Duration = Duration::from_secs(60);
/// Frames under way at a time, for each queue: fewer than either end has buffers.
const WINDOW: usize = 64;
const FRAMES: usize = 5_000;
/// EAL without hugepages, files, devices or root.
const EAL: [&str; 9] =
    ["--no-huge", "--no-shconf", "-m", "256", "--no-pci", "--iova-mode=va", "-l", "0", "--log-level=*:error"];

/// The DPDK program, built once. None where DPDK is not installed: `make setup` names its package.
fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libdpdk"]).output().ok()?;
            if !flags.status.success() {
                eprintln!("skipped: DPDK is not installed (Debian package libdpdk-dev)");
                return None;
            }
            let flags = String::from_utf8(flags.stdout).unwrap();
            let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reflect");
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dpdk/reflect.c");
            // Shared libraries: the drivers are found in DPDK's own folder.
            let status = Command::new("cc")
                .args(["-O2", "-march=corei7", "-o"])
                .args([&program, &source])
                .args(flags.split_whitespace())
                .status()
                .expect("a C compiler");
            assert!(status.success(), "reflect.c does not compile");
            Some(program)
        })
        .as_deref()
}

/// The DPDK program, which is ended when this is dropped.
struct Reflector(Child);

impl Reflector {
    fn start(program: &Path, device: &str, queues: usize) -> Self {
        let child = Command::new(program)
            .args(EAL)
            .arg(format!("--vdev={device}"))
            .args(["--", &queues.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Waits until its port runs.
    fn wait_until_ready(&mut self) {
        let output = self.0.stdout.take().unwrap();
        let ready = BufReader::new(output).lines().any(|line| line.unwrap() == "ready");
        assert!(ready, "the DPDK program ended");
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A frame of noise from one station to another. The type is one for experiments (IEEE 802).
fn frame(number: usize) -> Vec<u8> {
    let bytes = [60, 61, 64, 128, 300, 1000, 1513, 1514][number % 8];
    let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7, 0x88, 0xb5];
    frame.extend((frame.len()..bytes).map(|at| (at * 7 + number * 13 + (number >> 8)) as u8));
    frame
}

fn reflected(mut frame: Vec<u8>) -> Vec<u8> {
    let (destination, source) = frame.split_at_mut(6);
    destination.swap_with_slice(&mut source[..6]);
    frame
}

fn bytes_of(frame: &RxFrame) -> Vec<u8> {
    frame.rest.iter().fold(frame.head.to_vec(), |mut all, segment| {
        all.extend_from_slice(segment);
        all
    })
}

/// Sends frames and compares what comes back, in order.
fn exchange(vhost: &mut Vhost, arena: &Arena) {
    let deadline = WallInstant::now() + PATIENCE;
    let (mut sent, mut received) = (0, 0);
    let mut out = FrameBatch::new();
    while received < FRAMES {
        while sent < FRAMES && sent - received < WINDOW {
            // In two segments now and then, which are two descriptors.
            let bytes = frame(sent);
            let first = if sent % 3 == 0 { 40 } else { bytes.len() };
            out.push(arena.copy_from(&bytes[..first]).unwrap().freeze());
            if first < bytes.len() {
                out.push(arena.copy_from(&bytes[first..]).unwrap().freeze());
            }
            out.finish(TxOffload::default());
            sent += 1;
        }
        vhost.transmit(Instant::ZERO, &mut out).unwrap();
        let mut batch = RxBatch::new();
        vhost.receive(Instant::ZERO, &mut batch).unwrap();
        for came in &batch {
            assert!(bytes_of(came) == reflected(frame(received)), "frame {received}");
            received += 1;
        }
        assert!(WallInstant::now() < deadline, "{received} of {sent} frames came back");
        thread::yield_now();
    }
}

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("catnip-dpdk-{}-{name}.sock", std::process::id()))
}

#[test]
fn frames_cross_between_our_back_end_and_dpdks_virtio_user() {
    let Some(program) = program() else { return };
    for (ring, queues, offload) in
        [(RingKind::Split, 1, false), (RingKind::Packed, 1, true), (RingKind::Packed, 2, false)]
    {
        let socket = socket(&format!("back-{ring:?}-{queues}"));
        let config = VhostConfig {
            ring,
            queues,
            offload,
            // DPDK's memory is a file that it could truncate.
            trust_peer: true,
            wait_for_peer: PATIENCE,
            ..VhostConfig::new(&socket, VhostRole::Back)
        };
        let packed = u8::from(ring == RingKind::Packed);
        let device = format!(
            "net_virtio_user0,path={},queues={queues},packed_vq={packed},queue_size=256",
            socket.display()
        );
        let starting = thread::spawn({
            let socket = socket.clone();
            move || {
                while !socket.exists() {
                    thread::sleep(Duration::from_millis(5));
                }
                Reflector::start(program, &device, queues)
            }
        });
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        let mut ends = Vhost::open(&config, &arena).unwrap();
        let mut reflector = starting.join().unwrap();
        reflector.wait_until_ready();
        for end in &mut ends {
            exchange(end, &arena);
            assert_eq!(end.counters().rx_copied_frames, FRAMES as u64);
        }
        // It leaves, and that is an error here.
        drop(reflector);
        let deadline = WallInstant::now() + PATIENCE;
        while ends[0].receive(Instant::ZERO, &mut RxBatch::new()).is_ok() {
            assert!(WallInstant::now() < deadline, "nobody noticed that DPDK left");
        }
    }
}

#[test]
fn frames_cross_between_our_front_end_and_dpdks_net_vhost() {
    let Some(program) = program() else { return };
    for (ring, queues, offload) in
        [(RingKind::Split, 1, false), (RingKind::Packed, 1, true), (RingKind::Packed, 2, false)]
    {
        let socket = socket(&format!("front-{ring:?}-{queues}"));
        let device = format!("net_vhost0,iface={},queues={queues}", socket.display());
        let mut reflector = Reflector::start(program, &device, queues);
        reflector.wait_until_ready();
        let config = VhostConfig {
            ring,
            queues,
            offload,
            wait_for_peer: PATIENCE,
            ..VhostConfig::new(&socket, VhostRole::Front)
        };
        let arena = Arena::with_region(Region::map_shared(64 << 20).unwrap()).unwrap();
        let mut ends = Vhost::open(&config, &arena).unwrap();
        for end in &mut ends {
            exchange(end, &arena);
            let counters = end.counters();
            assert_eq!((counters.tx_copied_frames, counters.rx_copied_frames), (0, 0));
        }
        // DPDK lets go of all buffers when it is asked to.
        drop(ends);
        assert_eq!(arena.stats().live_buffers, 0);
        drop(reflector);
        let _ = std::fs::remove_file(&socket);
    }
}
