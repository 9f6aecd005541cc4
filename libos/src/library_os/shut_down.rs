//! The end of a library OS that still has connections.

use std::time::Duration;

use super::LibOs;
use crate::Error;

/// Between two looks at whether everything is over.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Polls in which the last words go out, at most: a device that takes nothing any more must not keep the program.
const LAST_POLLS: usize = 64;

impl LibOs {
    /// Closes every queue and gives connections up to `longest` to end in order: what was pushed is sent and
    /// acknowledged, and peers say that they have ended too. Connections that are not over by then are reset, so that
    /// no peer waits for somebody who is gone. Spawned tasks run meanwhile; their queues are closed like all others.
    ///
    /// Connections in TIME-WAIT are not waited for. The library OS can be used afterwards, or dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a callback.
    pub fn shut_down(&self, longest: Duration) -> Result<(), Error> {
        let now = self.now();
        let mut state = self.state()?;
        for queue in state.tables.descriptors.all_open() {
            state.close_quietly(now, queue)?;
        }
        self.release(state);
        let over = async {
            while self.is_winding_up()? {
                self.sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        match self.block_on(self.timeout(longest, over))? {
            Ok(result) => result?,
            Err(_elapsed) => {}
        }
        let now = self.read_clock();
        let mut state = self.state()?;
        state.modules.iter_mut().for_each(|module| module.abort_all(now));
        self.release(state);
        for _ in 0..LAST_POLLS {
            self.poll()?;
            if !self.state()?.needs_poll() {
                break;
            }
        }
        Ok(())
    }

    fn is_winding_up(&self) -> Result<bool, Error> {
        Ok(self.state()?.modules.iter().any(|module| module.is_winding_up()))
    }
}
