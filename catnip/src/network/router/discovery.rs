//! What is known from routers: themselves, the link's prefixes, and the addresses formed from them.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use arrayvec::ArrayVec;
use libos::Instant;
use libos::time::duration_nanos;

use super::default::DefaultRouters;
use super::identifier;
use crate::network::Prefix;
use crate::network::asking::Asking;
use crate::network::interface::{MAX_FORMED_ADDRESSES, MAX_ON_LINK_PREFIXES};
use crate::random::Random;
use crate::wire::ethernet;
use crate::wire::router::RouterAdvertisement;

/// `MAX_RTR_SOLICITATION_DELAY` (RFC 4861 section 10).
const SOLICITATION_DELAY: Duration = Duration::from_secs(1);
/// `IRT` and `MRT`: the first and the longest time between solicitations (RFC 7559 section 2).
const FIRST_INTERVAL: Duration = Duration::from_secs(4);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
/// `IDGEN_RETRIES` (RFC 7217 section 7).
const MAX_IDENTIFIERS: u8 = 3;

/// A prefix on the link.
#[derive(Debug, Clone, Copy)]
struct OnLink {
    prefix: Prefix,
    until: Instant,
}

/// An address formed from a prefix.
#[derive(Debug, Clone, Copy)]
struct Formed {
    network: Ipv6Addr,
    address: Ipv6Addr,
    /// Addresses there that were found to be somebody else's.
    counter: u8,
}

/// What is known from routers.
#[derive(Debug)]
pub(in crate::network) struct RouterDiscovery {
    routers: DefaultRouters,
    on_link: ArrayVec<OnLink, MAX_ON_LINK_PREFIXES>,
    formed: ArrayVec<Formed, MAX_FORMED_ADDRESSES>,
    hardware: ethernet::Address,
    secret: u128,
    asking: Asking,
    random: Random,
    /// When routers are asked to advertise themselves; [`Instant::FAR_FUTURE`] when they need not.
    solicit_at: Instant,
    interval: Duration,
}

impl RouterDiscovery {
    /// Knows nothing. Without a secret that is the same at each start, neither are the addresses formed.
    pub(in crate::network) fn new(
        hardware: ethernet::Address,
        secret: Option<u128>,
        asking: Asking,
        mut random: Random,
        now: Instant,
    ) -> Self {
        let drawn = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        // RFC 4861 section 6.3.7: hosts that were switched on together do not ask together.
        let delay_ns = random.range(0, duration_nanos(SOLICITATION_DELAY));
        Self {
            routers: DefaultRouters::default(),
            on_link: ArrayVec::new(),
            formed: ArrayVec::new(),
            hardware,
            secret: secret.unwrap_or(drawn),
            asking,
            random,
            solicit_at: now.plus_nanos(delay_ns) + asking.patience(),
            interval: FIRST_INTERVAL,
        }
    }

    /// Takes note of what a router says about itself.
    pub(super) fn on_advertisement(&mut self, now: Instant, from: Ipv6Addr, said: &RouterAdvertisement<'_>) {
        let lifetime = Duration::from_secs(said.lifetime_s.into());
        self.routers.update(now, from, said.preference, lifetime);
        self.solicit_unless_known(now);
    }

    /// As long as there is a router, none is asked for (RFC 7559 section 2.1).
    fn solicit_unless_known(&mut self, now: Instant) {
        match (self.routers.len() > 0, self.solicit_at == Instant::FAR_FUTURE) {
            (true, _) => self.solicit_at = Instant::FAR_FUTURE,
            (false, true) => {
                self.interval = FIRST_INTERVAL;
                self.solicit_at = now + SOLICITATION_DELAY + self.asking.patience();
            }
            (false, false) => {}
        }
    }

    /// A router is none any more.
    pub(super) fn remove(&mut self, now: Instant, router: Ipv6Addr) {
        self.routers.remove(router);
        self.solicit_unless_known(now);
    }

    /// A router does not answer.
    pub(super) fn on_silence(&mut self, router: Ipv6Addr) {
        self.routers.on_silence(router);
    }

    /// The default router.
    pub(super) fn chosen(&self) -> Option<Ipv6Addr> {
        self.routers.chosen()
    }

    /// True when routers are to be asked now; the time between questions doubles.
    pub(super) fn take_solicitation(&mut self, now: Instant) -> bool {
        if now < self.solicit_at {
            return false;
        }
        // RFC 7559 section 2, as RFC 8415 section 15: a tenth more or less.
        let wait_ns = duration_nanos(self.interval);
        self.solicit_at = now.plus_nanos(self.random.range(wait_ns / 10 * 9, wait_ns / 10 * 11));
        self.interval = self.interval.saturating_mul(2).min(LONGEST_INTERVAL);
        true
    }

    /// A prefix is on the link for so long. False when there are too many.
    pub(super) fn set_on_link(&mut self, prefix: Prefix, until: Instant) -> bool {
        if let Some(known) = self.on_link.iter_mut().find(|known| known.prefix == prefix) {
            known.until = until;
            return true;
        }
        self.on_link.try_push(OnLink { prefix, until }).is_ok()
    }

    /// A prefix is on the link no longer.
    pub(super) fn set_on_link_no_longer(&mut self, prefix: Prefix) {
        self.on_link.retain(|known| known.prefix != prefix);
    }

    /// Takes a prefix whose time is over.
    pub(super) fn next_expired_prefix(&mut self, now: Instant) -> Option<Prefix> {
        let index = self.on_link.iter().position(|known| known.until <= now)?;
        Some(self.on_link.remove(index).prefix)
    }

    /// Forgets routers whose time is over.
    pub(super) fn expire_routers(&mut self, now: Instant) {
        self.routers.expire(now);
        self.solicit_unless_known(now);
    }

    /// The address that was formed from a prefix.
    pub(super) fn formed(&self, network: Ipv6Addr) -> Option<Ipv6Addr> {
        self.formed.iter().find(|formed| formed.network == network).map(|formed| formed.address)
    }

    /// Forms an address from a prefix of 64 bits. `None` when there are too many.
    pub(super) fn form(&mut self, network: Ipv6Addr) -> Option<Ipv6Addr> {
        let address = identifier::form(self.secret, network, self.hardware, 0);
        self.formed.try_push(Formed { network, address, counter: 0 }).ok()?;
        Some(address)
    }

    /// Forms another address in place of one that is somebody else's; `None` after the third.
    pub(super) fn form_again(&mut self, address: Ipv6Addr) -> Option<Ipv6Addr> {
        let formed = self.formed.iter_mut().find(|formed| formed.address == address)?;
        formed.counter += 1;
        if formed.counter >= MAX_IDENTIFIERS {
            return None;
        }
        formed.address = identifier::form(self.secret, formed.network, self.hardware, formed.counter);
        Some(formed.address)
    }

    /// Forgets an address whose time is over.
    pub(in crate::network) fn forget(&mut self, address: IpAddr) {
        self.formed.retain(|formed| IpAddr::V6(formed.address) != address);
    }

    /// When there is next something to be done; [`Instant::FAR_FUTURE`] for never.
    pub(in crate::network) fn next_deadline(&self) -> Instant {
        let on_link = self.on_link.iter().map(|known| known.until).min().unwrap_or(Instant::FAR_FUTURE);
        self.solicit_at.min(self.routers.deadline()).min(on_link)
    }

    /// Default routers known.
    pub(in crate::network) fn len(&self) -> usize {
        self.routers.len()
    }
}
