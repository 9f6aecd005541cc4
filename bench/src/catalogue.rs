//! All benchmarks.

use crate::scenario::{Scenario, Work};

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contender {
    /// Catnip, through queues and tokens.
    Catnip,
    /// smoltcp 0.13.
    Smoltcp,
}

impl Contender {
    /// The contender's name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Catnip => "catnip",
            Self::Smoltcp => "smoltcp",
        }
    }

    /// The contender with this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Catnip, Self::Smoltcp].into_iter().find(|contender| contender.name() == name)
    }
}

/// Whom Catnip is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// smoltcp in the same scenario.
    Smoltcp,
    /// Catnip itself in the benchmark of this name.
    Catnip(&'static str),
}

impl Peer {
    /// The peer's name in reports.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Smoltcp => Contender::Smoltcp.name(),
            Self::Catnip(other) => other,
        }
    }
}

/// One benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Benchmark {
    /// Its name: on the command line, in reports and in the file of limits.
    pub name: &'static str,
    /// What is done.
    pub scenario: Scenario,
    /// Whom Catnip is compared with.
    pub peers: &'static [Peer],
    /// Rounds over which instructions are counted.
    pub counted_rounds: u64,
}

const fn benchmark(name: &'static str, scenario: Scenario, peers: &'static [Peer]) -> Benchmark {
    // Enough for what happens rarely to count with its share, few enough for callgrind's fifty-fold time.
    let counted_rounds = match scenario.work {
        Work::TcpEcho | Work::UdpEcho | Work::IdlePoll if scenario.connections > 1000 => 200,
        Work::TcpEcho | Work::UdpEcho | Work::SynFlood | Work::IdlePoll => 2000,
        Work::Stream | Work::Datagrams => 128,
        Work::Losses => 5000,
    };
    Benchmark { name, scenario, peers, counted_rounds }
}

const TCP: Scenario = Scenario::of(Work::TcpEcho);
const UDP: Scenario = Scenario::of(Work::UdpEcho);
const STREAM: Scenario = Scenario::of(Work::Stream);
const DATAGRAMS: Scenario = Scenario::of(Work::Datagrams);
/// The same connection with nothing else there.
const ALONE: Peer = Peer::Catnip("tcp-echo");
/// The same losses with few segments in flight.
const FEW: Peer = Peer::Catnip("tcp-losses-10-in-flight");
const LOSSES: Scenario = Scenario::of(Work::Losses);
const FLOOD: Scenario = Scenario::of(Work::SynFlood);
const IDLE: Scenario = Scenario::of(Work::IdlePoll);

/// The benchmarks, in the order of the report. smoltcp looks at every socket for every packet, so that it is
/// left out where there are 100 000 connections: setting up alone would take it minutes.
pub const BENCHMARKS: &[Benchmark] = &[
    benchmark("tcp-echo", TCP, &[Peer::Smoltcp]),
    benchmark("tcp-echo-checksums", Scenario { checksums: true, ..TCP }, &[Peer::Smoltcp]),
    benchmark("tcp-echo-machine-clock", Scenario { machine_clock: true, ..TCP }, &[Peer::Smoltcp]),
    benchmark("udp-echo", UDP, &[Peer::Smoltcp]),
    benchmark("udp-echo-checksums", Scenario { checksums: true, ..UDP }, &[Peer::Smoltcp]),
    benchmark("udp-echo-machine-clock", Scenario { machine_clock: true, ..UDP }, &[Peer::Smoltcp]),
    benchmark("tcp-stream", STREAM, &[Peer::Smoltcp]),
    benchmark("tcp-stream-checksums", Scenario { checksums: true, ..STREAM }, &[Peer::Smoltcp]),
    benchmark(
        "tcp-stream-segmentation",
        Scenario { segmentation_bytes: 64 << 10, ..STREAM },
        &[Peer::Smoltcp],
    ),
    benchmark("udp-stream", DATAGRAMS, &[Peer::Smoltcp]),
    benchmark("udp-stream-checksums", Scenario { checksums: true, ..DATAGRAMS }, &[Peer::Smoltcp]),
    benchmark("tcp-echo-100-idle", Scenario { connections: 100, ..TCP }, &[Peer::Smoltcp, ALONE]),
    benchmark("tcp-echo-10000-idle", Scenario { connections: 10_000, ..TCP }, &[Peer::Smoltcp, ALONE]),
    benchmark("tcp-echo-100000-idle", Scenario { connections: 100_000, ..TCP }, &[ALONE]),
    benchmark("tcp-echo-1000-listeners", Scenario { listeners: 1000, ..TCP }, &[Peer::Smoltcp, ALONE]),
    benchmark("tcp-echo-steered", Scenario { steered: true, ..TCP }, &[ALONE]),
    benchmark("tcp-losses-10-in-flight", Scenario { segments_in_flight: 10, ..LOSSES }, &[]),
    benchmark("tcp-losses-1000-in-flight", Scenario { segments_in_flight: 1_000, ..LOSSES }, &[FEW]),
    benchmark("tcp-losses-30000-in-flight", Scenario { segments_in_flight: 30_000, ..LOSSES }, &[FEW]),
    benchmark("tcp-syn-flood", FLOOD, &[ALONE]),
    benchmark("idle-poll", IDLE, &[Peer::Smoltcp]),
    benchmark(
        "idle-poll-100000-idle",
        Scenario { connections: 100_000, ..IDLE },
        &[Peer::Catnip("idle-poll")],
    ),
];

/// The benchmark with this name.
pub fn find(name: &str) -> Option<&'static Benchmark> {
    BENCHMARKS.iter().find(|benchmark| benchmark.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_that_is_compared_with_is_there() {
        for peer in BENCHMARKS.iter().flat_map(|benchmark| benchmark.peers) {
            if let Peer::Catnip(name) = peer {
                assert!(find(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for benchmark in BENCHMARKS {
            let same = BENCHMARKS.iter().filter(|other| other.name == benchmark.name);
            assert_eq!(same.count(), 1, "{}", benchmark.name);
        }
    }
}
