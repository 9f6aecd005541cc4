//! The default routers that advertised themselves, and which of them is used.

use std::net::Ipv6Addr;
use std::time::Duration;

use arrayvec::ArrayVec;
use libos::Instant;

use crate::wire::router::Preference;

/// Most default routers remembered. At the limit a new one takes the place of one that does not answer, if
/// there is one.
const MAX_ROUTERS: usize = 8;

#[derive(Debug, Clone, Copy)]
struct Router {
    address: Ipv6Addr,
    preference: Preference,
    until: Instant,
    /// It did not answer when it was last asked (RFC 4861 section 7.3.3).
    silent: bool,
}

/// The routers; among equals the one that was used or found first comes first.
#[derive(Debug, Default)]
pub(super) struct DefaultRouters(ArrayVec<Router, MAX_ROUTERS>);

impl DefaultRouters {
    /// Takes note of a router that advertised itself; for no time means that it is none any more.
    pub(super) fn update(
        &mut self,
        now: Instant,
        address: Ipv6Addr,
        preference: Preference,
        lifetime: Duration,
    ) {
        if lifetime.is_zero() {
            self.remove(address);
            return;
        }
        let router = Router { address, preference, until: now + lifetime, silent: false };
        if let Some(known) = self.0.iter_mut().find(|known| known.address == address) {
            *known = router;
        } else {
            if self.0.is_full()
                && let Some(silent) = self.0.iter().position(|known| known.silent)
            {
                self.0.remove(silent);
            }
            // A flood of invented routers does not push out those that work.
            let _ = self.0.try_push(router);
        }
    }

    /// A router is none any more.
    pub(super) fn remove(&mut self, address: Ipv6Addr) {
        self.0.retain(|router| router.address != address);
    }

    /// A router does not answer. Among those it is asked last again, so that they take turns (RFC 4861
    /// section 6.3.6).
    pub(super) fn on_silence(&mut self, address: Ipv6Addr) {
        if let Some(index) = self.0.iter().position(|router| router.address == address) {
            let router = self.0.remove(index);
            self.0.push(Router { silent: true, ..router });
        }
    }

    /// The router to use: one that answers before one that does not, then by preference (RFC 4191
    /// section 3.2).
    pub(super) fn chosen(&self) -> Option<Ipv6Addr> {
        let worth = |router: &Router| (!router.silent, router.preference);
        let best = self.0.iter().map(worth).max()?;
        self.0.iter().find(|router| worth(router) == best).map(|router| router.address)
    }

    /// Forgets those whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.0.retain(|router| router.until > now);
    }

    /// When the first one's time is over.
    pub(super) fn deadline(&self) -> Instant {
        self.0.iter().map(|router| router.until).min().unwrap_or(Instant::FAR_FUTURE)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)
    }

    fn routers(preferences: &[Preference]) -> DefaultRouters {
        let mut routers = DefaultRouters::default();
        for (number, preference) in (1..).zip(preferences) {
            routers.update(Instant::ZERO, address(number), *preference, Duration::from_secs(100));
        }
        routers
    }

    #[test]
    fn the_preferred_router_that_answers_is_used() {
        use Preference::{High, Low, Medium};
        let mut routers = routers(&[Low, High, Medium, High]);
        let mut chosen = Vec::new();
        for _ in 0..6 {
            let router = routers.chosen().unwrap();
            chosen.push(router);
            routers.on_silence(router);
        }
        // When none answers, the preferred ones take turns.
        assert_eq!(chosen, [2, 4, 3, 1, 2, 4].map(address));
        routers.update(Instant::ZERO, address(1), Low, Duration::from_secs(100));
        assert_eq!(routers.chosen(), Some(address(1)));
    }

    #[test]
    fn a_router_goes_when_it_says_so_or_says_nothing_for_its_lifetime() {
        let mut routers = routers(&[Preference::Medium, Preference::Medium]);
        routers.update(Instant::ZERO, address(1), Preference::Medium, Duration::ZERO);
        assert_eq!(routers.chosen(), Some(address(2)));
        assert_eq!(routers.deadline(), Instant::from_millis(100_000));
        routers.expire(Instant::from_millis(100_000));
        assert_eq!(routers.chosen(), None);
        assert_eq!(routers.deadline(), Instant::FAR_FUTURE);
    }

    #[test]
    fn invented_routers_push_out_none_that_answers() {
        let mut routers = routers(&[Preference::Medium; MAX_ROUTERS]);
        for number in 100..200 {
            routers.update(Instant::ZERO, address(number), Preference::High, Duration::from_secs(100));
        }
        assert_eq!(routers.chosen(), Some(address(1)));
        routers.on_silence(address(3));
        routers.update(Instant::ZERO, address(99), Preference::High, Duration::from_secs(100));
        assert_eq!(routers.chosen(), Some(address(99)));
        assert_eq!(routers.len(), MAX_ROUTERS);
    }
}
