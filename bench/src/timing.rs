//! Time of one round, side by side.

use std::time::{Duration, Instant};

use crate::scenario::{Failure, Subject};

/// Slices of time that each contender gets, in turns: an odd number, for the median.
const SLICES: usize = 15;
/// How long a slice is about.
const SLICE: Duration = Duration::from_millis(20);
/// Rounds more than which no slice has.
const MAX_ROUNDS: u64 = 1 << 24;

/// Nanoseconds a round takes each contender, in their order: the median over slices that alternate, so that what
/// else the machine does meets all of them alike.
///
/// # Errors
/// [`Failure`] of a contender.
pub fn interleaved(contenders: &mut [Box<dyn Subject>]) -> Result<Vec<f64>, Failure> {
    let rounds: Vec<u64> =
        contenders.iter_mut().map(|contender| calibrate(contender.as_mut())).collect::<Result<_, _>>()?;
    let mut slices = vec![Vec::with_capacity(SLICES); contenders.len()];
    for _ in 0..SLICES {
        for ((contender, rounds), slices) in contenders.iter_mut().zip(&rounds).zip(&mut slices) {
            let took = time(contender.as_mut(), *rounds)?;
            slices.push(took.as_secs_f64() * 1e9 / *rounds as f64);
        }
    }
    Ok(slices.into_iter().map(median).collect())
}

fn time(subject: &mut dyn Subject, rounds: u64) -> Result<Duration, Failure> {
    let start = Instant::now();
    subject.run(rounds)?;
    Ok(start.elapsed())
}

/// Rounds that fill a slice; finding out also warms up.
fn calibrate(subject: &mut dyn Subject) -> Result<u64, Failure> {
    let mut rounds = 1;
    loop {
        let took = time(subject, rounds)?;
        if took >= SLICE / 2 || rounds >= MAX_ROUNDS {
            let per_round = took.as_secs_f64() / rounds as f64;
            return Ok(((SLICE.as_secs_f64() / per_round) as u64).clamp(1, MAX_ROUNDS));
        }
        rounds *= 2;
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sleeper(Duration);

    impl Subject for Sleeper {
        fn run(&mut self, rounds: u64) -> Result<(), Failure> {
            (0..rounds).for_each(|_| std::thread::sleep(self.0));
            Ok(())
        }
    }

    #[test]
    fn each_contender_gets_its_own_time() {
        let mut contenders: Vec<Box<dyn Subject>> =
            vec![Box::new(Sleeper(Duration::from_millis(8))), Box::new(Sleeper(Duration::from_millis(2)))];
        let ns = interleaved(&mut contenders).unwrap();
        assert!(ns[0] >= 8e6 && ns[1] >= 2e6 && ns[0] > ns[1], "{ns:?}");
    }

    #[test]
    fn the_median_is_no_outlier() {
        assert_eq!(median(vec![9.0, 1.0, 2.0, 3.0, 100.0]), 3.0);
    }
}
