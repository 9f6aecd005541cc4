//! Benchmarks on devices of the kernel, each in network namespaces of its own: processor time while there is nothing to
//! do, and bulk between a program on the library OS and one on kernel sockets, beside iperf3 between two kernels' ends.

mod bulk;
mod idle;
mod iperf;
mod link;

use std::process::Command;

use crate::report::{Entry, Report};
use crate::scenario::Failure;
use bulk::Direction;
use iperf::Offloads;
use link::Device;

/// What is measured on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// Processor time with idle connections.
    Idle,
    /// One TCP stream.
    Bulk(Direction),
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
    benchmark("bulk-to-kernel-tap", Device::Tap, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-tap", Device::Tap, Measure::Bulk(Direction::FromKernel)),
    benchmark("bulk-to-kernel-packet", Device::Packet, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-packet", Device::Packet, Measure::Bulk(Direction::FromKernel)),
    benchmark("bulk-to-kernel-xdp", Device::Xdp, Measure::Bulk(Direction::ToKernel)),
    benchmark("bulk-from-kernel-xdp", Device::Xdp, Measure::Bulk(Direction::FromKernel)),
];

/// Names of all benchmarks.
pub fn names() -> impl Iterator<Item = &'static str> {
    BENCHMARKS.iter().map(|benchmark| benchmark.name)
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
        let (subject, peer) = in_namespace(benchmark.name)?;
        match benchmark.measure {
            Measure::Idle => report.push(Entry {
                name: benchmark.name,
                subject: "catnip",
                peer: Some("1 % of a core"),
                unit: "idle s",
                ns: Some(subject),
                ratio: Some(peer / subject),
                ..Entry::default()
            }),
            Measure::Bulk(_) => {
                let entry = Entry { name: benchmark.name, unit: "stream", ..Entry::default() };
                report.push(Entry {
                    subject: "catnip",
                    peer: Some(match bulk::offloads(benchmark.device) {
                        Offloads::On => "iperf3, veth",
                        Offloads::Off => "iperf3, veth without offloads",
                    }),
                    bytes_per_s: Some(subject),
                    ratio: Some(subject / peer),
                    ..entry.clone()
                });
                report.push(Entry { subject: "iperf3", bytes_per_s: Some(peer), ..entry });
            }
        }
    }
    Ok(())
}

/// Starts this program again, in a network namespace, for one benchmark; the subject's figure and the peer's.
fn in_namespace(name: &str) -> Result<(f64, f64), Failure> {
    // Root makes it as root: XDP cannot be attached by anybody else.
    let flags = if link::is_root() { "-n" } else { "-Urn" };
    let program = std::env::current_exe()?;
    let output = Command::new("unshare").arg(flags).arg("--").arg(program).args(["device", name]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().map_while(|word| word.parse().ok());
    match (output.status.success(), numbers.next(), numbers.next()) {
        (true, Some(subject), Some(peer)) => Ok((subject, peer)),
        _ => {
            Err(format!("{name}: {}{text}{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
        }
    }
}

/// Runs one benchmark in this process, whose network is its own, and prints the two figures.
///
/// # Errors
/// [`Failure`] when it cannot be measured.
pub fn measure(name: &str) -> Result<(), Failure> {
    let benchmark = BENCHMARKS
        .iter()
        .find(|benchmark| benchmark.name == name)
        .ok_or_else(|| format!("there is no benchmark {name} on a device"))?;
    let (subject, peer) = match benchmark.measure {
        Measure::Idle => (idle::processor_ns_per_second(benchmark.device)?, idle::GOAL_NS_PER_SECOND),
        Measure::Bulk(direction) => bulk::bytes_per_second(benchmark.device, direction)?,
    };
    println!("{subject} {peer}");
    Ok(())
}
