//! Futures that wait for time to pass.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use super::timers::TimerId;
use crate::{Error, Instant, LibOs};

/// Waits until a point in time; made by [`LibOs::sleep`] and [`LibOs::sleep_until`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    libos: LibOs,
    deadline: Instant,
    timer: Option<TimerId>,
}

impl LibOs {
    /// Waits for `duration`, from now on. Reads the clock: the last poll may be long ago.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.read_clock() + duration)
    }

    /// Waits until the first poll that is not earlier than `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { libos: self.clone(), deadline, timer: None }
    }

    /// Awaits `future` for `duration` at most, and drops it then.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Error> {
        let mut future = pin!(future);
        let mut sleep = pin!(self.sleep(duration));
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => sleep.as_mut().poll(context).map(|()| Err(Error::TimedOut)),
        })
        .await
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.libos.now() >= self.deadline {
            return Poll::Ready(());
        }
        let executor = self.libos.executor();
        let mut wake = executor.target(context);
        if let Some(timer) = self.timer {
            match executor.timers.set_wake(timer, wake) {
                Ok(previous) => {
                    drop(previous);
                    return Poll::Pending;
                }
                Err(unused) => wake = unused,
            }
        }
        self.timer = Some(executor.timers.arm(self.deadline, wake));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            drop(self.libos.executor().timers.disarm(timer));
        }
    }
}
