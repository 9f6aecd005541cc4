//! Two processes on two cores: a library OS in each with memory shared between them, beside the kernel's sockets.
//!
//! The processes take turns: one serves what the other asks, over shared memory or over the kernel's loopback, both
//! polling. What else the machine does meets both alike.

mod echo;
mod iperf;
mod kernel;
pub mod pin;
mod server;
mod shared;
mod stream;

use std::path::PathBuf;

use crate::report::{Entry, Report};
use crate::scenario::Failure;

pub use server::serve;

/// Who is compared with.
const LOOPBACK: &str = "kernel, lo";

/// The benchmarks' names, in the order of the report.
pub const NAMES: [&str; 3] = ["vhost-tcp-echo", "vhost-udp-echo", "vhost-tcp-stream"];

/// What a turn of the other process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Tcp,
    Udp,
    Stream,
}

/// Over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Shared,
    Kernel,
}

const TURNS: [(&str, Turn, Path); 5] = [
    ("tcp shared", Turn::Tcp, Path::Shared),
    ("udp shared", Turn::Udp, Path::Shared),
    ("stream shared", Turn::Stream, Path::Shared),
    ("tcp kernel", Turn::Tcp, Path::Kernel),
    ("udp kernel", Turn::Udp, Path::Kernel),
];

/// Runs the benchmarks whose name has `word` in it.
///
/// # Errors
/// [`Failure`] of either process.
pub fn run(word: &str, report: &mut Report) -> Result<(), Failure> {
    let [tcp, udp, stream] = NAMES.map(|name| name.contains(word));
    if !(tcp || udp || stream) {
        return Ok(());
    }
    let mut server = server::Server::start(&socket())?;
    let libos = shared::open(shared::Role::Client, server.socket())?;
    for (wanted, name, turn) in [(tcp, NAMES[0], Turn::Tcp), (udp, NAMES[1], Turn::Udp)] {
        if wanted {
            eprintln!("{name} ...");
            let _pinned = pin::to(pin::CLIENT)?;
            let times = echo::alternate(&libos, &mut server, turn)?;
            for (unit, quantile) in [("trip, p50", 0.5), ("trip, p99", 0.99)] {
                let [ours, kernels] = times.each_ref().map(|times| times.value_at_quantile(quantile) as f64);
                push(report, name, unit, (ours, kernels));
            }
        }
    }
    if stream {
        eprintln!("{} ...", NAMES[2]);
        stream::run(&libos, &mut server, NAMES[2], report)?;
    }
    Ok(())
}

fn push(report: &mut Report, name: &'static str, unit: &'static str, (ours, kernels): (f64, f64)) {
    let entry = Entry { name, subject: "catnip", unit, ns: Some(ours), ..Entry::default() };
    report.push(Entry { peer: Some(LOOPBACK), ratio: Some(kernels / ours), ..entry.clone() });
    report.push(Entry { subject: "kernel", ns: Some(kernels), ..entry });
}

fn socket() -> PathBuf {
    std::env::temp_dir().join(format!("catnip-bench-{}.sock", std::process::id()))
}
