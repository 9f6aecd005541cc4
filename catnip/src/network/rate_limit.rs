//! A token bucket.

use libos::Instant;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Lets so many events per second pass, and so many at once after a quiet time.
#[derive(Debug)]
pub(super) struct TokenBucket {
    nanos_per_token: u64,
    burst: u64,
    tokens: u64,
    /// When the last whole token was added.
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket. A rate or burst of 0 lets nothing pass.
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = if per_second == 0 { 0 } else { u64::from(burst) };
        let nanos_per_token = NANOS_PER_SECOND / u64::from(per_second.max(1));
        Self { nanos_per_token: nanos_per_token.max(1), burst, tokens: burst, filled_at: now }
    }

    /// True when the event may happen; it is counted then.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let new_tokens = now.nanos_since(self.filled_at) / self.nanos_per_token;
        if new_tokens > 0 {
            self.tokens = self.tokens.saturating_add(new_tokens).min(self.burst);
            self.filled_at = self.filled_at.plus_nanos(new_tokens * self.nanos_per_token);
        }
        let pass = self.tokens > 0;
        self.tokens -= u64::from(pass);
        pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(bucket: &mut TokenBucket, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| bucket.take(now)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = TokenBucket::new(10, 5, Instant::ZERO);
        assert_eq!(passing(&mut bucket, Instant::ZERO, 20), 5);
        assert_eq!(passing(&mut bucket, Instant::from_millis(99), 20), 0);
        assert_eq!(passing(&mut bucket, Instant::from_millis(250), 20), 2);
        assert_eq!(passing(&mut bucket, Instant::from_millis(300), 20), 1);
        assert_eq!(passing(&mut bucket, Instant::from_millis(100_000), 20), 5);
    }

    #[test]
    fn a_rate_of_zero_lets_nothing_pass() {
        let mut bucket = TokenBucket::new(0, 5, Instant::ZERO);
        assert_eq!(passing(&mut bucket, Instant::from_millis(100_000), 20), 0);
    }
}
