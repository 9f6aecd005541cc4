//! Of several cores that share a device one asks servers, routers and whoever may have an address of ours, and all hear the
//! answers: steering gives each core a copy.

use std::time::Duration;

use crate::random::Random;
use crate::stack::StackConfig;
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

    /// What marks our own questions for an address (RFC 7527): the same on all cores of one device, since each of them may
    /// get back what one has sent.
    pub fn nonce(config: &StackConfig, random: &mut Random) -> [u8; 6] {
        let mut nonce = [0; 6];
        match (&config.share, config.address_secret) {
            (Some(_), Some(secret)) => {
                let [a, b, c, d, e, f] = config.device.hardware_address;
                let station = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
                Random::new((secret >> 64) as u64 ^ secret as u64 ^ station).fill(&mut nonce);
            }
            (Some(_) | None, _) => random.fill(&mut nonce),
        }
        nonce
    }

    /// How long this core waits for another one to have asked.
    pub const fn patience(self) -> Duration {
        match self {
            Self::First => Duration::ZERO,
            Self::Later => PATIENCE,
        }
    }
}
