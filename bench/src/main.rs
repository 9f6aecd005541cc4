//! Benchmarks of the Catnip library OS beside its peers, in one process and one run.

mod catalogue;
mod catnip_side;
mod clock;
mod cores;
mod devices;
#[cfg(feature = "dpdk")]
mod dpdk;
mod gate;
mod instructions;
mod limits;
mod locked;
mod memory;
mod processes;
mod report;
mod run;
mod scenario;
mod smoltcp_side;
mod timing;

use std::path::PathBuf;
use std::process::ExitCode;

use catalogue::Contender;
use scenario::{Failure, Scenario, Subject};

const USAGE: &str = "usage:
  bench [run] [WORD]                     time, instructions and memory of all benchmarks, or of those whose name has
                                         WORD in it; a table, and the same in target/bench.json
  bench gate                             instruction counts against bench/limits.toml
  bench dpdk                             cycles per packet on DPDK beside testpmd, when built with that feature
  bench list                             the benchmarks' names
  bench device NAME                      one benchmark on a device, whose figures are printed, in the network
                                         namespace that this runs in
  bench locked NAME                      locked instructions of a benchmark's round
  bench measure NAME CONTENDER ROUNDS    one contender's rounds and nothing else: what callgrind looks at
  bench serve SOCKET                     the second process of benchmarks between two";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        [] | ["run"] => run::run(""),
        ["run", word] => run::run(word),
        ["gate"] => gate::gate(),
        #[cfg(feature = "dpdk")]
        ["dpdk"] => dpdk::run(),
        #[cfg(feature = "dpdk")]
        ["dpdk-part", part, socket, payload_bytes] => dpdk::run_part(part, socket, payload_bytes),
        ["list"] => {
            catalogue::BENCHMARKS.iter().for_each(|benchmark| println!("{}", benchmark.name));
            devices::names().for_each(|name| println!("{name}"));
            processes::NAMES.iter().for_each(|name| println!("{name}"));
            println!("{}", cores::NAME);
            Ok(())
        }
        ["locked", name] => catalogue::find(name)
            .ok_or_else(|| format!("there is no benchmark {name}").into())
            .and_then(locked::count),
        ["device", name] => devices::measure(name),
        ["serve", socket] => processes::serve(socket.as_ref()),
        ["measure", name, contender, rounds] => measure(name, contender, rounds),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn measure(name: &str, contender: &str, rounds: &str) -> Result<(), Failure> {
    let benchmark = catalogue::find(name).ok_or_else(|| format!("there is no benchmark {name}"))?;
    let contender =
        Contender::named(contender).ok_or_else(|| format!("there is no contender {contender}"))?;
    let rounds = rounds.parse().map_err(|_| format!("{rounds} is no number of rounds"))?;
    instructions::run_measured(contender, &benchmark.scenario, rounds)
}

/// Sets a contender up.
fn build(contender: Contender, scenario: &Scenario) -> Result<Box<dyn Subject>, Failure> {
    match contender {
        Contender::Catnip => catnip_side::build(scenario),
        Contender::Smoltcp => smoltcp_side::build(scenario),
    }
}

/// Cargo's target directory, in which this program lies two levels deep.
fn target_directory() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let directory = program.ancestors().nth(2).ok_or("the program is not in a target directory")?;
    Ok(directory.to_path_buf())
}
