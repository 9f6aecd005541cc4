//! Making and checking cookies (RFC 7413, section 4.1.2): a keyed hash of both addresses, so that nothing is kept about
//! a client.

use std::net::IpAddr;

use libos::Instant;
use siphasher::sip::SipHasher24;

use super::FastOpenCookie;
use crate::random::Random;
use crate::tcp::isn::octets;

/// Whether a cookie was made with the key in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Current,
    /// With the one before it: it is good once more, and the client gets another.
    Previous,
}

/// The key in use and the one before it.
pub(in crate::tcp) struct CookieKeys {
    current: SipHasher24,
    previous: Option<SipHasher24>,
    renewal: Renewal,
}

/// Where keys come from.
enum Renewal {
    /// The configuration: hosts that share an address share them, and the operator changes them.
    Configured,
    /// The stack's generator, each used for so long.
    Drawn { random: Box<Random>, lifetime_ns: u64, due: Instant },
}

impl CookieKeys {
    /// Keys that are drawn, and drawn anew every `lifetime_ns`.
    pub(in crate::tcp) fn drawn(mut random: Random, lifetime_ns: u64, now: Instant) -> Self {
        let current = draw(&mut random);
        let due = now.plus_nanos(lifetime_ns);
        Self {
            current,
            previous: None,
            renewal: Renewal::Drawn { random: Box::new(random), lifetime_ns, due },
        }
    }

    /// Keys of the configuration: cookies are made with the first, and those of the second are taken as well.
    pub(in crate::tcp) fn configured(current: u128, previous: Option<u128>) -> Self {
        let hasher = |key: u128| SipHasher24::new_with_key(&key.to_be_bytes());
        Self { current: hasher(current), previous: previous.map(hasher), renewal: Renewal::Configured }
    }

    /// The cookie for `client`.
    pub(super) fn make(&mut self, now: Instant, local: IpAddr, client: IpAddr) -> FastOpenCookie {
        self.renew(now);
        hash(&self.current, local, client).into()
    }

    /// With which key `cookie` was made for `client`; `None` when it was not.
    pub(super) fn check(
        &mut self,
        now: Instant,
        local: IpAddr,
        client: IpAddr,
        cookie: &FastOpenCookie,
    ) -> Option<Freshness> {
        self.renew(now);
        let is_of = |hasher: &SipHasher24| FastOpenCookie::from(hash(hasher, local, client)) == *cookie;
        if is_of(&self.current) {
            Some(Freshness::Current)
        } else {
            self.previous.as_ref().filter(|previous| is_of(previous)).map(|_| Freshness::Previous)
        }
    }

    fn renew(&mut self, now: Instant) {
        let Renewal::Drawn { random, lifetime_ns, due } = &mut self.renewal else { return };
        if now < *due {
            return;
        }
        // A key that nobody used for a whole lifetime is too old to be the one before.
        let skipped = now >= due.plus_nanos(*lifetime_ns);
        let former = std::mem::replace(&mut self.current, draw(random));
        self.previous = (!skipped).then_some(former);
        *due = now.plus_nanos(*lifetime_ns);
    }
}

fn draw(random: &mut Random) -> SipHasher24 {
    let mut key = [0; 16];
    random.fill(&mut key);
    SipHasher24::new_with_key(&key)
}

fn hash(hasher: &SipHasher24, local: IpAddr, client: IpAddr) -> [u8; 8] {
    let mut message = [0; 32];
    message[..16].copy_from_slice(&octets(client));
    message[16..].copy_from_slice(&octets(local));
    hasher.hash(&message).to_be_bytes()
}

/// The keys stay out of logs.
impl std::fmt::Debug for CookieKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieKeys").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    fn at_h(hours: u64) -> Instant {
        Instant::from_nanos(hours * HOUR_NS)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_cookie_is_taken_under_its_key_and_once_more_under_the_next() {
        let (local, client) = (address("192.0.2.1"), address("198.51.100.7"));
        for (asked_at, expected) in
            [(at_h(1), Some(Freshness::Current)), (at_h(2), Some(Freshness::Previous)), (at_h(4), None)]
        {
            let mut keys = CookieKeys::drawn(Random::new(3), HOUR_NS, at_h(1));
            let cookie = keys.make(at_h(1), local, client);
            assert_eq!(keys.check(asked_at, local, client, &cookie), expected, "{asked_at:?}");
        }
        let mut keys = CookieKeys::drawn(Random::new(3), HOUR_NS, at_h(1));
        let cookie = keys.make(at_h(1), local, client);
        assert_eq!(keys.check(at_h(2), local, client, &cookie), Some(Freshness::Previous));
        assert_eq!(keys.check(at_h(3), local, client, &cookie), None, "two keys later");
    }

    #[test]
    fn a_cookie_is_of_both_addresses() {
        let mut keys = CookieKeys::configured(1, None);
        let now = at_h(1);
        let (local, client) = (address("192.0.2.1"), address("198.51.100.7"));
        let cookie = keys.make(now, local, client);
        assert_eq!(keys.check(now, local, client, &cookie), Some(Freshness::Current));
        assert_eq!(keys.check(now, local, address("198.51.100.8"), &cookie), None);
        assert_eq!(keys.check(now, address("192.0.2.2"), client, &cookie), None);
        assert_eq!(keys.check(now, local, client, &FastOpenCookie::REQUEST), None);
    }

    #[test]
    fn hosts_that_share_keys_take_each_others_cookies() {
        let (local, client) = (address("2001:db8::1"), address("2001:db8::7"));
        let now = at_h(1);
        let cookie = CookieKeys::configured(1, None).make(now, local, client);
        for (mut other, expected) in [
            (CookieKeys::configured(1, Some(2)), Some(Freshness::Current)),
            (CookieKeys::configured(2, Some(1)), Some(Freshness::Previous)),
            (CookieKeys::configured(2, None), None),
        ] {
            assert_eq!(other.check(now, local, client, &cookie), expected);
        }
    }
}
