//! Locked instructions on the path of a packet: how often a processor has to have a cache line for itself and wait for it.
//!
//! callgrind counts each instruction of the measured rounds by its address; `objdump` says which of them have a `lock` prefix or
//! exchange with memory, which locks without one.

use std::collections::BTreeMap;
use std::process::Command;

use crate::catalogue::{Benchmark, Contender};
use crate::scenario::Failure;
use crate::{instructions, target_directory};

/// Instructions that wait until all that was written before can be seen.
const FENCES: [&str; 1] = ["mfence"];

/// Prints the locked instructions of a benchmark's round, by function.
///
/// # Errors
/// [`Failure`] when valgrind or objdump cannot be run, or when nothing was counted.
pub fn count(benchmark: &Benchmark) -> Result<(), Failure> {
    let directory = target_directory()?.join("callgrind");
    std::fs::create_dir_all(&directory)?;
    let profile = directory.join(format!("{}-locked.out", benchmark.name));
    let all = instructions::profile(
        benchmark,
        Contender::Catnip,
        &profile,
        &["--dump-instr=yes", "--compress-pos=no", "--compress-strings=no"],
    )?;
    let program = std::env::current_exe()?;
    let executed = executed(&std::fs::read_to_string(&profile)?, &program.display().to_string());
    let seen: u64 = executed.values().sum();
    let listing = Command::new("objdump")
        .args(["--disassemble", "--no-show-raw-insn", "--demangle"])
        .arg(&program)
        .output()
        .map_err(|error| format!("objdump: {error}"))?;
    let Listed { locked, known } = list(&String::from_utf8_lossy(&listing.stdout), &executed);
    let rounds = benchmark.counted_rounds as f64;
    println!(
        "{}: {:.0} instructions a round, {:.0} of them in this program",
        benchmark.name,
        all as f64 / rounds,
        seen as f64 / rounds
    );
    if seen == 0 || known != executed.len() {
        return Err(format!("of {} instructions executed objdump shows {known}", executed.len()).into());
    }
    println!("locked: {:.2} a round", locked.values().sum::<u64>() as f64 / rounds);
    for (function, count) in &locked {
        println!("  {:.2} in {function}", *count as f64 / rounds);
    }
    Ok(())
}

/// How often each instruction of `program` was executed, by address, from a profile with neither positions nor names shortened.
fn executed(profile: &str, program: &str) -> BTreeMap<u64, u64> {
    let mut executed = BTreeMap::new();
    let (mut here, mut is_call) = (false, false);
    for line in profile.lines() {
        if let Some(object) = line.strip_prefix("ob=") {
            here = object == program;
        } else if line.starts_with("calls=") {
            // The next line is what was called, as a whole.
            is_call = true;
        } else if let Some(rest) = line.strip_prefix("0x") {
            let mut fields = rest.split(' ');
            if !std::mem::take(&mut is_call)
                && here
                && let (Some(address), Some(_line), Some(count)) =
                    (fields.next(), fields.next(), fields.next())
                && let (Ok(address), Ok(count)) = (u64::from_str_radix(address, 16), count.parse::<u64>())
            {
                *executed.entry(address).or_insert(0) += count;
            }
        }
    }
    executed
}

/// What a disassembly says of the instructions executed.
struct Listed {
    /// How often locked ones were executed, by the function that they are in.
    locked: BTreeMap<String, u64>,
    /// How many of all are in the disassembly.
    known: usize,
}

fn list(listing: &str, executed: &BTreeMap<u64, u64>) -> Listed {
    let mut listed = Listed { locked: BTreeMap::new(), known: 0 };
    let mut function = "";
    for line in listing.lines() {
        if let Some((_, name)) = line.strip_suffix(">:").and_then(|line| line.split_once('<')) {
            function = name;
        } else if let Some((address, instruction)) = line.split_once(":\t")
            && let Ok(address) = u64::from_str_radix(address.trim(), 16)
            && let Some(count) = executed.get(&address)
        {
            listed.known += 1;
            if is_locked(instruction) {
                *listed.locked.entry(function.to_owned()).or_insert(0) += count;
            }
        }
    }
    listed
}

fn is_locked(instruction: &str) -> bool {
    let mut words = instruction.split_whitespace();
    match words.next() {
        Some("lock") => true,
        Some(name) if name.starts_with("xchg") => instruction.contains('('),
        Some(name) => FENCES.contains(&name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
0000000000001000 <first>:
    1000:\tlock xadd %eax,(%rdi)
    1004:\tmov    %eax,%ebx
    1008:\txchg   %ax,%ax
000000000000100c <second of<a kind>>:
    100c:\txchg   %eax,(%rdi)
    1010:\tmfence
    1014:\tlock cmpxchg %ecx,(%rdx)
";

    const PROFILE: &str = "events: Ir
ob=/program
fn=first
0x1000 7 20
0x1004 7 20
calls=20 0x100c 9
0x1004 7 999
0x1008 8 20
fn=second
0x100c 9 5
0x1010 9 5
ob=/other
0x1014 3 9
";

    #[test]
    fn locked_instructions_are_counted_where_they_were_executed() {
        let executed = executed(PROFILE, "/program");
        assert_eq!(executed.values().sum::<u64>(), 70);
        let Listed { locked, known } = list(LISTING, &executed);
        assert_eq!(known, executed.len());
        let expected = [("first".to_owned(), 20), ("second of<a kind>".to_owned(), 10)];
        assert_eq!(locked, BTreeMap::from(expected));
    }
}
