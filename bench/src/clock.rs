//! The clocks that both sides of a benchmark read.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use catnip_os::libos::time::MonotonicClock;
use catnip_os::libos::{Clock, Instant};

/// How far a simulated clock goes on each time it is read. About what a poll takes.
const STEP_NS: u64 = 100;

/// A clock shared by both peers of one world.
#[derive(Debug, Clone)]
pub enum BenchClock {
    /// The machine's own.
    Machine(MonotonicClock),
    /// Goes on by a fixed step each time it is read, so that timers behave alike in every run and
    /// instruction counts do not depend on how fast the machine is.
    Stepping(Rc<Cell<u64>>),
}

impl BenchClock {
    /// The machine's clock or a simulated one.
    pub fn new(machine: bool) -> Self {
        if machine { Self::Machine(MonotonicClock::new()) } else { Self::Stepping(Rc::new(Cell::new(0))) }
    }

    /// Moves a simulated clock on. The machine's goes on by itself.
    pub fn advance(&self, duration: Duration) {
        match self {
            Self::Machine(_) => {}
            Self::Stepping(nanos) => nanos.set((Instant::from_nanos(nanos.get()) + duration).as_nanos()),
        }
    }
}

/// Out of line, so that the simulated clock costs no more than it does.
#[inline(never)]
fn machine_now(clock: &MonotonicClock) -> Instant {
    clock.now()
}

impl Clock for BenchClock {
    #[inline]
    fn now(&self) -> Instant {
        match self {
            Self::Machine(clock) => machine_now(clock),
            Self::Stepping(nanos) => {
                nanos.set(nanos.get() + STEP_NS);
                Instant::from_nanos(nanos.get())
            }
        }
    }

    fn is_real(&self) -> bool {
        matches!(self, Self::Machine(_))
    }
}
