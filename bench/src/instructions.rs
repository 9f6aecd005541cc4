//! Instructions of one round, counted by callgrind: the same count run after run, whatever else the machine does.

use std::path::Path;
use std::process::Command;

use crate::catalogue::{Benchmark, Contender};
use crate::scenario::{Failure, Scenario, Subject};
use crate::{build, target_directory};

/// What callgrind counts inside of, with all that it calls. The name does not depend on the compiler's.
const MEASURED: &str = "bench_measured_rounds";

/// # Errors
/// [`Failure`] of the subject.
#[inline(never)]
#[unsafe(export_name = "bench_measured_rounds")]
fn measured_rounds(subject: &mut dyn Subject, rounds: u64) -> Result<(), Failure> {
    subject.run(rounds)
}

/// What runs under callgrind: the contender is set up and warmed, and then does the rounds that are counted.
///
/// # Errors
/// [`Failure`] of the contender.
pub fn run_measured(contender: Contender, scenario: &Scenario, rounds: u64) -> Result<(), Failure> {
    let mut subject = build(contender, scenario)?;
    subject.run(rounds.min(200))?;
    measured_rounds(subject.as_mut(), rounds)
}

/// Runs this program under callgrind and returns the instructions of one round. The profile stays, for
/// `callgrind_annotate`.
///
/// # Errors
/// [`Failure`] when valgrind cannot be run, when the contender fails, or when nothing was counted.
pub fn count(benchmark: &Benchmark, contender: Contender) -> Result<f64, Failure> {
    let directory = target_directory()?.join("callgrind");
    std::fs::create_dir_all(&directory)?;
    let file = directory.join(format!("{}-{}.out", benchmark.name, contender.name()));
    let instructions = profile(benchmark, contender, &file, &[])?;
    Ok(instructions as f64 / benchmark.counted_rounds as f64)
}

/// Runs this program under callgrind, which writes a profile with these further options to `file`, and returns the
/// instructions of all measured rounds.
///
/// # Errors
/// As [`count`].
pub fn profile(
    benchmark: &Benchmark,
    contender: Contender,
    file: &Path,
    options: &[&str],
) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .args(options)
        .arg(std::env::current_exe()?)
        .args(["measure", benchmark.name, contender.name(), &benchmark.counted_rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("callgrind on {}: {messages}", benchmark.name).into());
    }
    match collected(&messages) {
        Some(instructions) if instructions > 0 => Ok(instructions),
        _ => Err(format!("callgrind counted nothing in {MEASURED}: {messages}").into()),
    }
}

/// The number in callgrind's line `==123== Collected : 456`.
fn collected(messages: &str) -> Option<u64> {
    messages.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_callgrinds_messages() {
        let messages = "==12== Events    : Ir\n==12== Collected : 5098127\n==12==\n";
        assert_eq!(collected(messages), Some(5_098_127));
        assert_eq!(collected("==12== Collected : \n"), None);
        assert_eq!(collected("valgrind: no such file"), None);
    }
}
