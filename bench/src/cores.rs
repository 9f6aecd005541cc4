//! Share nothing: as many echo servers as cores, each with its client on a core of its own.
//!
//! Requests per second by the clock say what a machine with nothing else to do gives; requests per second of processor time
//! what the cores cost each other, whatever else runs.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::affinity;

use crate::catalogue::{self, Contender};
use crate::report::{Entry, Report};
use crate::scenario::Failure;

/// The comparison's name.
pub const NAME: &str = "tcp-echo-two-cores";
/// The benchmark that each core runs.
const ECHO: &str = "tcp-echo";
/// How long one turn lasts, and how many each number of cores has.
const TURN: Duration = Duration::from_millis(500);
const TURNS: usize = 7;
/// Round trips between two looks at whether the turn is over.
const BATCH: u64 = 1000;

/// What one turn brought: round trips per second of time, and per second of processor time.
#[derive(Debug, Clone, Copy)]
struct Rates {
    by_clock: f64,
    by_processor: f64,
}

/// Compares one core with two when the comparison's name has `word` in it.
///
/// # Errors
/// [`Failure`] of the echo.
pub fn run(word: &str, report: &mut Report) -> Result<(), Failure> {
    if !NAME.contains(word) {
        return Ok(());
    }
    let cpus = affinity::allowed_cpus();
    let Some(pair) = cpus.get(..2) else {
        eprintln!("{NAME}: left out, two processors are needed");
        return Ok(());
    };
    eprintln!("{NAME} ...");
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        // Each of the two has its turns alone.
        ones.push(take_turn(&pair[turn % 2..=turn % 2])?);
        twos.push(take_turn(pair)?);
    }
    let median = |rates: &[Rates], of: fn(&Rates) -> f64| {
        let mut rates: Vec<f64> = rates.iter().map(of).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    for (unit, of) in [
        ("trip", (|rates| rates.by_clock) as fn(&Rates) -> f64),
        ("trip, by CPU", |rates| rates.by_processor),
    ] {
        let (one, two) = (median(&ones, of), median(&twos, of));
        let entry = |rate: f64| Entry {
            name: NAME,
            subject: "catnip",
            unit,
            ns: Some(1e9 / rate),
            ..Entry::default()
        };
        report.push(Entry { peer: Some("one core"), ratio: Some(two / one), ..entry(two) });
        report.push(Entry { subject: "one core", ..entry(one) });
    }
    Ok(())
}

/// One turn on these processors, a thread on each.
fn take_turn(cpus: &[usize]) -> Result<Rates, Failure> {
    let ready = Barrier::new(cpus.len() + 1);
    let over = AtomicBool::new(false);
    let work = |cpu: usize| -> Result<(u64, Duration), String> {
        let set_up = || -> Result<_, Failure> {
            affinity::pin_to(cpu)?;
            let benchmark = catalogue::find(ECHO).ok_or("there is no such benchmark")?;
            let mut subject = crate::build(Contender::Catnip, &benchmark.scenario)?;
            subject.run(BATCH)?;
            Ok(subject)
        };
        let subject = set_up().map_err(|error| error.to_string());
        ready.wait();
        let mut subject = subject?;
        let (mut rounds, before) = (0, processor_time());
        while !over.load(Ordering::Relaxed) {
            subject.run(BATCH).map_err(|error| error.to_string())?;
            rounds += BATCH;
        }
        Ok((rounds, processor_time().saturating_sub(before)))
    };
    let (elapsed, ended) = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = cpus.iter().map(|&cpu| scope.spawn(move || work(cpu))).collect();
        ready.wait();
        let begin = Instant::now();
        thread::sleep(TURN);
        over.store(true, Ordering::Relaxed);
        let elapsed = begin.elapsed();
        let ended: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        (elapsed, ended)
    });
    let mut rates = Rates { by_clock: 0.0, by_processor: 0.0 };
    for thread in ended {
        let (rounds, processor) = thread.map_err(|_| "a thread panicked")??;
        rates.by_clock += rounds as f64 / elapsed.as_secs_f64();
        rates.by_processor += rounds as f64 / processor.as_secs_f64();
    }
    Ok(rates)
}

/// Processor time of the calling thread so far.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes of a timespec. The clock is one that every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
