//! Benchmarks on devices of the kernel, each in network namespaces of its own: processor time while there is nothing to
//! do, bulk between a program on the library OS and one on kernel sockets, beside iperf3 between two kernels' ends, and
//! small frames and round trips, beside kernel sockets at both ends.

mod bulk;
mod burst;
mod idle;
mod iperf;
mod link;
mod packets;
mod pair;
mod round_trips;

use std::process::Command;

use crate::report::{Entry, Report};
use crate::scenario::Failure;
use link::Device;
use pair::Offloads;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToKernel,
    FromKernel,
}

/// What is measured on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Processor time with idle connections.
    Idle,
    /// One TCP stream.
    Bulk(Direction),
    /// Frames of 64 bytes.
    Packets(Direction),
    /// Round trips of a datagram.
    RoundTrips,
}

/// One benchmark.
struct Benchmark {
    name: &'static str,
    device: Device,
    measure: Measure,
}

const fn benchmark(name: &'static str, device: Device, measure: Measure) -> Benchmark {
    Benchmark { name, device, measure }
}

const BENCHMARKS: &[Benchmark] = &[
    benchmark("idle-cpu-tap", Device::Tap, Measure::Idle),
    benchmark("idle-cpu-packet", Device::Packet, Measure::Idle),
    benchmark("idle-cpu-xdp", Device::Xdp, Measure::Idle),
    #[cfg(feature = "dpdk")]
    benchmark("idle-cpu-dpdk", Device::Dpdk, Measure::Idle),
    benchmark("bulk-to-kernel-tap", Device::Tap, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-tap", Device::Tap, Measure::Bulk(Direction::FromKernel)),
    benchmark("bulk-to-kernel-packet", Device::Packet, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-packet", Device::Packet, Measure::Bulk(Direction::FromKernel)),
    benchmark("bulk-from-kernel-ring", Device::PacketRing, Measure::Bulk(Direction::FromKernel)),
    benchmark("bulk-to-kernel-xdp", Device::Xdp, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-xdp", Device::Xdp, Measure::Bulk(Direction::FromKernel)),
    benchmark("rate-to-kernel-tap", Device::Tap, Measure::Packets(Direction::ToKernel)),
    benchmark("rate-from-kernel-tap", Device::Tap, Measure::Packets(Direction::FromKernel)),
    benchmark("rate-to-kernel-packet", Device::Packet, Measure::Packets(Direction::ToKernel)),
    benchmark("rate-from-kernel-packet", Device::Packet, Measure::Packets(Direction::FromKernel)),
    benchmark("rate-from-kernel-ring", Device::PacketRing, Measure::Packets(Direction::FromKernel)),
    benchmark("rate-to-kernel-xdp", Device::Xdp, Measure::Packets(Direction::ToKernel)),
    benchmark("rate-from-kernel-xdp", Device::Xdp, Measure::Packets(Direction::FromKernel)),
    benchmark("round-trip-tap", Device::Tap, Measure::RoundTrips),
    benchmark("round-trip-packet", Device::Packet, Measure::RoundTrips),
    benchmark("round-trip-packet-ring", Device::PacketRing, Measure::RoundTrips),
    benchmark("round-trip-xdp", Device::Xdp, Measure::RoundTrips),
];

/// Names of all benchmarks.
pub fn names() -> impl Iterator<Item = &'static str> {
    BENCHMARKS.iter().map(|benchmark| benchmark.name)
}

/// The middle of an odd number of values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs the benchmarks whose name has `word` in it.
///
/// # Errors
/// [`Failure`] of a benchmark.
pub fn run(word: &str, report: &mut Report) -> Result<(), Failure> {
    for benchmark in BENCHMARKS.iter().filter(|benchmark| benchmark.name.contains(word)) {
        if benchmark.device == Device::Xdp && !link::is_root() {
            eprintln!("{}: left out, XDP needs root", benchmark.name);
            continue;
        }
        eprintln!("{} ...", benchmark.name);
        let figures = in_namespace(benchmark.name)?;
        benchmark.report(&figures, report);
    }
    Ok(())
}

impl Benchmark {
    /// Writes the subject's figures and the peer's down.
    fn report(&self, figures: &[(f64, f64)], report: &mut Report) {
        let name = self.name;
        let with_offloads = |on, off| match self.device.offloads() {
            Offloads::On => on,
            Offloads::Off => off,
        };
        match self.measure {
            Measure::Idle => {
                for (subject, goal) in figures {
                    report.push(Entry {
                        name,
                        subject: "catnip",
                        peer: Some("1 % of a core"),
                        unit: "idle s",
                        ns: Some(*subject),
                        ratio: Some(goal / subject),
                        ..Entry::default()
                    });
                }
            }
            Measure::Bulk(_) => {
                let peer = with_offloads("iperf3, veth", "iperf3, veth without offloads");
                for (subject, other) in figures {
                    let entry = Entry { name, unit: "stream", ..Entry::default() };
                    report.push(Entry {
                        subject: "catnip",
                        peer: Some(peer),
                        bytes_per_s: Some(*subject),
                        ratio: Some(subject / other),
                        ..entry.clone()
                    });
                    report.push(Entry { subject: "iperf3", bytes_per_s: Some(*other), ..entry });
                }
            }
            Measure::Packets(_) => {
                let peer = with_offloads("kernel, veth", "kernel, veth without offloads");
                let ns = |per_second: f64| 1e9 / per_second;
                for (subject, other) in figures {
                    push_times(name, "frame", peer, (ns(*subject), ns(*other)), report);
                }
            }
            Measure::RoundTrips => {
                let peer = with_offloads("kernel, veth", "kernel, veth without offloads");
                for ((unit, _), times) in round_trips::QUANTILES.iter().zip(figures) {
                    push_times(name, unit, peer, *times, report);
                }
            }
        }
    }
}

fn push_times(
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    (ours, kernels): (f64, f64),
    report: &mut Report,
) {
    let entry = Entry { name, subject: "catnip", unit, ns: Some(ours), ..Entry::default() };
    report.push(Entry { peer: Some(peer), ratio: Some(kernels / ours), ..entry.clone() });
    report.push(Entry { subject: "kernel", ns: Some(kernels), ..entry });
}

/// Starts this program again, in a network namespace, for one benchmark; the subject's figures, each with the peer's.
fn in_namespace(name: &str) -> Result<Vec<(f64, f64)>, Failure> {
    // Root makes it as root: XDP cannot be attached by anybody else.
    let flags = if link::is_root() { "-n" } else { "-Urn" };
    let program = std::env::current_exe()?;
    let output = Command::new("unshare").arg(flags).arg("--").arg(program).args(["device", name]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<f64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
    match (output.status.success(), numbers.as_chunks()) {
        (true, (figures @ [_, ..], [])) => {
            Ok(figures.iter().map(|[ours, theirs]| (*ours, *theirs)).collect())
        }
        _ => {
            Err(format!("{name}: {}{text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}

/// Runs one benchmark in this process, whose network is its own, and prints its figures, the subject's and the peer's in
/// turn.
///
/// # Errors
/// [`Failure`] when it cannot be measured.
pub fn measure(name: &str) -> Result<(), Failure> {
    let Benchmark { device, measure, .. } = BENCHMARKS
        .iter()
        .find(|benchmark| benchmark.name == name)
        .ok_or_else(|| format!("there is no benchmark {name} on a device"))?;
    let figures = match measure {
        Measure::Idle => vec![(idle::processor_ns_per_second(*device)?, idle::GOAL_NS_PER_SECOND)],
        Measure::Bulk(direction) => vec![bulk::bytes_per_second(*device, *direction)?],
        Measure::Packets(direction) => vec![packets::per_second(*device, *direction)?],
        Measure::RoundTrips => round_trips::nanoseconds(*device)?,
    };
    for (ours, theirs) in figures {
        println!("{ours} {theirs}");
    }
    Ok(())
}
