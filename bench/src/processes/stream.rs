//! One stream for some seconds, beside iperf3 with one stream.

use std::time::{Duration, Instant};

use catnip_os::libos::{Error, LibOs, Shutdown};

use super::server::Server;
use super::{Path, Turn, iperf, pin, shared};
use crate::report::{Entry, Report};
use crate::scenario::Failure;

/// Turns that each gets, and how long they are.
const TURNS: usize = 3;
pub const TURN: Duration = Duration::from_secs(2);
/// What is pushed at a time, as iperf3 writes.
const PUSH_BYTES: usize = 128 << 10;
const UNIT: &str = "64 KiB";
const UNIT_BYTES: f64 = 65_536.0;

/// Runs all in turns, and reports the best turn of each.
pub fn run(
    libos: &LibOs,
    server: &mut Server,
    name: &'static str,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut best = [0.0_f64; 3];
    for _ in 0..TURNS {
        let turn = [ours(libos, server)?, iperf::loopback()?, iperf::veth()?];
        best.iter_mut().zip(turn).for_each(|(best, now)| *best = best.max(now));
    }
    let [ours, loopback, veth] = best;
    let entry = |subject, bytes_per_s: f64| Entry {
        name,
        subject,
        unit: UNIT,
        ns: Some(UNIT_BYTES / bytes_per_s * 1e9),
        bytes_per_s: Some(bytes_per_s),
        ..Entry::default()
    };
    for (peer, theirs) in [("iperf3, lo", loopback), ("iperf3, veth", veth)] {
        report.push(Entry { peer: Some(peer), ratio: Some(ours / theirs), ..entry("catnip", ours) });
    }
    report.push(entry("lo", loopback));
    report.push(entry("veth", veth));
    Ok(())
}

/// Bytes in a second over shared memory.
fn ours(libos: &LibOs, server: &mut Server) -> Result<f64, Failure> {
    let _pinned = pin::to(pin::CLIENT)?;
    server.begin(Turn::Stream, Path::Shared)?;
    let queue = shared::connected(libos)?;
    let mut data = libos.arena().allocate(PUSH_BYTES).ok_or(Error::NoBuffers)?;
    data.set_len(PUSH_BYTES);
    data.fill(0x5a);
    let data = data.freeze();
    let start = Instant::now();
    while start.elapsed() < TURN {
        shared::done(libos, libos.push(queue, data.clone())?)?;
    }
    libos.shutdown(queue, Shutdown::Write)?;
    let pop = libos.pop(queue)?;
    shared::popped(libos, pop)?;
    shared::done(libos, libos.close(queue)?)?;
    let counted = server.end()?;
    let (bytes, ns) = counted.split_once(' ').ok_or("the server has counted nothing")?;
    Ok(bytes.parse::<f64>()? / ns.parse::<f64>()? * 1e9)
}
