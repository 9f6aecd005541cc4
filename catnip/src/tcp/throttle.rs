//! Limits on what strangers can make the stack send.
//!
//! A limit that all connections share tells whoever can use it up, and see that it is, what others caused
//! (Cao et al., "Off-Path TCP Exploits: Global Rate Limit Considered Dangerous", 2016). So each second's budget
//! is drawn anew at random, and a connection's own limit (see [`super::Connection`]) is reached long before.

use libos::Instant;

use crate::random::Random;

const PERIOD_NS: u64 = 1_000_000_000;

/// How many of something may be sent a second: between half and one and a half times the limit, nobody knows.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    left: u32,
    renewed_at: Option<Instant>,
}

impl Budget {
    const fn new(per_second: u32) -> Self {
        Self { per_second, left: 0, renewed_at: None }
    }

    fn take(&mut self, now: Instant, random: &mut Random) -> bool {
        if self.renewed_at.is_none_or(|renewed_at| now.nanos_since(renewed_at) >= PERIOD_NS) {
            self.renewed_at = Some(now);
            let half = u64::from(self.per_second / 2);
            let most = u64::from(self.per_second) + half;
            self.left = u32::try_from(random.range(half, most)).unwrap_or(u32::MAX);
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        granted
    }
}

/// The stack's budgets for answers to segments that nobody may have sent in good faith.
#[derive(Debug)]
pub(super) struct Throttle {
    random: Random,
    challenges: Budget,
    resets: Budget,
}

impl Throttle {
    pub(super) fn new(challenges_per_second: u32, resets_per_second: u32, random: Random) -> Self {
        Self {
            random,
            challenges: Budget::new(challenges_per_second),
            resets: Budget::new(resets_per_second),
        }
    }

    /// True when a challenge acknowledgment may be sent (RFC 5961, section 7).
    pub(super) fn allows_challenge(&mut self, now: Instant) -> bool {
        self.challenges.take(now, &mut self.random)
    }

    /// True when a segment that belongs to no connection may be answered with a reset.
    pub(super) fn allows_reset(&mut self, now: Instant) -> bool {
        self.resets.take(now, &mut self.random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seconds_budget_is_another_one_around_the_limit() {
        let mut throttle = Throttle::new(100, 0, Random::new(1));
        let mut granted = Vec::new();
        for second in 0..50 {
            let now = Instant::from_millis(second * 1_000);
            granted.push((0..1_000).filter(|_| throttle.allows_challenge(now)).count());
            assert!(!throttle.allows_challenge(now + std::time::Duration::from_millis(999)));
        }
        assert!(granted.iter().all(|count| (50..=150).contains(count)), "{granted:?}");
        granted.sort_unstable();
        granted.dedup();
        assert!(granted.len() > 25, "as good as constant: {granted:?}");
    }

    #[test]
    fn a_limit_of_none_lets_none_through_and_budgets_are_apart() {
        let mut throttle = Throttle::new(0, 2, Random::new(1));
        let now = Instant::from_millis(5);
        assert!(!throttle.allows_challenge(now));
        assert!(throttle.allows_reset(now));
    }
}
