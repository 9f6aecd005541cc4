//! Of several cores that share a device one asks servers and routers, and all hear the answers: steering gives each core a copy.

use std::time::Duration;

use crate::steering::CoreShare;

/// For how long the other cores leave it to the first, which may have stopped polling: two tries of its own, and more than
/// any answer takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether this core asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// It is the one that does.
    First,
    /// When nothing was heard for a while.
    Later,
}

impl Asking {
    /// A stack that has the device to itself asks.
    pub fn of(share: Option<&CoreShare>) -> Self {
        match share {
            Some(share) if share.core() != 0 => Self::Later,
            Some(_) | None => Self::First,
        }
    }

    /// How long this core waits for another one to have asked.
    pub const fn patience(self) -> Duration {
        match self {
            Self::First => Duration::ZERO,
            Self::Later => PATIENCE,
        }
    }
}
