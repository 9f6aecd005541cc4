//! Waking a core that sleeps, by another core that has left something for it.
//!
//! The sleeper announces that it will sleep and then looks once more for what was left; the other leaves something and
//! then looks whether anybody sleeps. A fence between the two steps, on each side, makes one of them see the other.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crate::SetupError;
use crate::sys::EventFd;

#[derive(Debug)]
struct Bell {
    asleep: AtomicBool,
    event: EventFd,
}

/// What another core rings. May go to any thread.
#[derive(Debug, Clone)]
pub struct Doorbell(Arc<Bell>);

impl Doorbell {
    /// Wakes the owner if it sleeps. Called after something was left for it; no system call while it is awake.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) && self.0.asleep.swap(false, Ordering::AcqRel) {
            self.0.event.signal();
        }
    }
}

/// The core's own side of its doorbell.
#[derive(Debug)]
pub struct Sleeper {
    bell: Doorbell,
    /// [`Self::prepare_sleep`] was called, and [`Self::wake_up`] not yet.
    armed: Cell<bool>,
}

impl Sleeper {
    /// A doorbell and its owner.
    ///
    /// # Errors
    /// [`SetupError::Device`] when the system has no event descriptor left.
    pub fn new() -> Result<Self, SetupError> {
        let event = EventFd::new().map_err(|error| SetupError::Device {
            device: "doorbell".to_owned(),
            call: "eventfd",
            reason: error.to_string(),
        })?;
        let bell = Doorbell(Arc::new(Bell { asleep: AtomicBool::new(false), event }));
        Ok(Self { bell, armed: Cell::new(false) })
    }

    /// What others ring.
    #[must_use]
    pub fn doorbell(&self) -> Doorbell {
        self.bell.clone()
    }

    /// Announces that the core will sleep. It sleeps on the returned descriptor, unless it then finds that something
    /// was left for it.
    pub fn prepare_sleep(&self) -> RawFd {
        self.bell.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        self.armed.set(true);
        self.bell.0.event.raw()
    }

    /// The core is awake again. Costs nothing when it did not prepare to sleep.
    #[inline]
    pub fn wake_up(&self) {
        if self.armed.replace(false) {
            self.disarm();
        }
    }

    #[cold]
    fn disarm(&self) {
        // Whoever reset the flag has written to the event, or is about to; a late signal only makes the next sleep
        // short.
        if !self.bell.0.asleep.swap(false, Ordering::AcqRel) {
            self.bell.0.event.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::sys;

    fn is_readable(fd: RawFd, timeout: Duration) -> bool {
        let mut fds = [sys::readable(fd)];
        sys::wait_readable(&mut fds, Some(timeout));
        fds[0].revents != 0
    }

    #[test]
    fn a_doorbell_wakes_who_sleeps_and_nobody_else() {
        let sleeper = Sleeper::new().unwrap();
        let bell = sleeper.doorbell();
        bell.ring();
        let fd = sleeper.prepare_sleep();
        assert!(!is_readable(fd, Duration::ZERO), "it was rung while awake");
        thread::spawn(move || bell.ring()).join().unwrap();
        assert!(is_readable(fd, Duration::from_secs(5)));
        sleeper.wake_up();
        assert!(!is_readable(fd, Duration::ZERO));
    }
}
