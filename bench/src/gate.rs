//! Instruction counts against their limits, as the gate of every commit checks them.

use std::collections::HashMap;

use crate::catalogue::{Benchmark, Contender};
use crate::instructions;
use crate::limits::{self, Bound};
use crate::scenario::Failure;

/// Counts what has a limit and says how each stands.
///
/// # Errors
/// [`Failure`] when a limit is exceeded or a count cannot be made.
pub fn gate() -> Result<(), Failure> {
    let mut counted: HashMap<&str, f64> = HashMap::new();
    let mut count = |benchmark: &'static Benchmark| -> Result<f64, Failure> {
        if let Some(count) = counted.get(benchmark.name) {
            return Ok(*count);
        }
        let count = instructions::count(benchmark, Contender::Catnip)?;
        counted.insert(benchmark.name, count);
        Ok(count)
    };
    let mut exceeded = 0;
    for limit in limits::read()? {
        let name = limit.benchmark.name;
        let instructions = count(limit.benchmark)?;
        let (most, meaning) = match limit.bound {
            Bound::Instructions(most) => (most, String::new()),
            Bound::Multiple(other, times) => {
                (count(other)? * times, format!(", {times} times that of {}", other.name))
            }
        };
        let verdict = if instructions <= most { "ok" } else { "EXCEEDED" };
        println!("{verdict:<8} {name}: {instructions:.0} instructions, limit {most:.0}{meaning}");
        exceeded += u32::from(instructions > most);
    }
    if exceeded == 0 {
        Ok(())
    } else {
        Err(format!("{exceeded} limits of bench/limits.toml are exceeded").into())
    }
}
