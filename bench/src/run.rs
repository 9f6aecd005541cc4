//! The whole run: time side by side, instructions, memory, and the report.

use std::collections::HashMap;

use crate::catalogue::{self, BENCHMARKS, Benchmark, Contender, Peer};
use crate::report::{Entry, Report};
use crate::scenario::Failure;
use crate::{build, cores, devices, instructions, memory, processes, target_directory, timing};

/// Name of the one benchmark of memory, which has no scenario of its own.
const MEMORY: &str = "memory-per-idle-connection";

/// Runs the benchmarks whose name has `word` in it, prints the table and writes `bench.json`.
///
/// # Errors
/// [`Failure`] of a benchmark, or when the file cannot be written.
pub fn run(word: &str) -> Result<(), Failure> {
    let mut report = Report::default();
    let mut counts = Counts::default();
    for benchmark in BENCHMARKS.iter().filter(|benchmark| benchmark.name.contains(word)) {
        eprintln!("{} ...", benchmark.name);
        run_one(benchmark, &mut counts, &mut report)?;
    }
    processes::run(word, &mut report)?;
    cores::run(word, &mut report)?;
    if MEMORY.contains(word) {
        eprintln!("{MEMORY} ...");
        report.push(Entry {
            name: MEMORY,
            subject: Contender::Catnip.name(),
            unit: "end",
            bytes: Some(memory::bytes_per_idle_connection()?),
            ..Entry::default()
        });
    }
    devices::run(word, &mut report)?;
    println!("{}\n{report}", machine());
    let path = target_directory()?.join("bench.json");
    std::fs::write(&path, report.to_json()).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("the same as JSON: {}", path.display());
    Ok(())
}

/// What all this was measured on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let about = read("/proc/cpuinfo");
    let value = |key: &str| {
        let line = about.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value)
    };
    let processors = about.lines().filter(|line| line.starts_with("processor")).count();
    let guest = if about.contains(" hypervisor") { ", a virtual machine's" } else { "" };
    let kernel = read("/proc/sys/kernel/osrelease");
    let (name, family, model) = (value("model name"), value("cpu family"), value("model\t"));
    format!("{processors} processors{guest}: {name}, family {family}, model {model}; Linux {}", kernel.trim())
}

/// Instruction counts that were made already.
#[derive(Default)]
struct Counts(HashMap<(&'static str, Contender), f64>);

impl Counts {
    fn of(&mut self, benchmark: &'static Benchmark, contender: Contender) -> Result<f64, Failure> {
        let key = (benchmark.name, contender);
        if let Some(count) = self.0.get(&key) {
            return Ok(*count);
        }
        let count = instructions::count(benchmark, contender)?;
        self.0.insert(key, count);
        Ok(count)
    }
}

/// Who else is measured beside the subject: a contender in a benchmark.
fn resolve(peer: Peer, benchmark: &'static Benchmark) -> Result<(Contender, &'static Benchmark), Failure> {
    match peer {
        Peer::Smoltcp => Ok((Contender::Smoltcp, benchmark)),
        Peer::Catnip(name) => {
            let other = catalogue::find(name).ok_or_else(|| format!("there is no benchmark {name}"))?;
            Ok((Contender::Catnip, other))
        }
    }
}

fn run_one(benchmark: &'static Benchmark, counts: &mut Counts, report: &mut Report) -> Result<(), Failure> {
    let peers: Vec<_> =
        benchmark.peers.iter().map(|peer| resolve(*peer, benchmark)).collect::<Result<_, _>>()?;
    let mut subjects = vec![build(Contender::Catnip, &benchmark.scenario)?];
    for (contender, other) in &peers {
        subjects.push(build(*contender, &other.scenario)?);
    }
    let ns = timing::interleaved(&mut subjects)?;
    drop(subjects);
    let entry = |contender: Contender, ns: Option<f64>, instructions: f64| {
        let bytes = benchmark.scenario.work.bytes();
        Entry {
            name: benchmark.name,
            subject: contender.name(),
            unit: benchmark.scenario.work.unit(),
            ns,
            instructions: Some(instructions),
            bytes_per_s: bytes.zip(ns).map(|(bytes, ns)| bytes as f64 / ns * 1e9),
            ..Entry::default()
        }
    };
    let subject = entry(Contender::Catnip, ns.first().copied(), counts.of(benchmark, Contender::Catnip)?);
    if peers.is_empty() {
        report.push(subject.clone());
    }
    let mut others = Vec::new();
    for ((peer, (contender, other)), peer_ns) in benchmark.peers.iter().zip(&peers).zip(ns.iter().skip(1)) {
        let ratio = subject.ns.map(|ns| peer_ns / ns);
        report.push(Entry { peer: Some(peer.label()), ratio, ..subject.clone() });
        // Catnip in another benchmark has lines of its own there.
        if *contender != Contender::Catnip {
            others.push(entry(*contender, Some(*peer_ns), counts.of(other, *contender)?));
        }
    }
    others.into_iter().for_each(|entry| report.push(entry));
    Ok(())
}
