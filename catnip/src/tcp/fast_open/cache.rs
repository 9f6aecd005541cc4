//! The cookies that a client keeps (RFC 7413, section 4.1.3), and the servers that are left alone for a while.

use std::net::IpAddr;

use libos::Instant;
use siphasher::sip::SipHasher24;

use super::FastOpenCookie;
use crate::tcp::isn::octets;

/// Entries that share a place: of those the one used longest ago makes room.
const WAYS: usize = 4;

/// How long a server is opened to without Fast Open that gave no cookie, or on the way to which a SYN with data was
/// lost: some middleboxes drop those (RFC 7413, section 4.1.3.1), and each time costs a timeout.
const HOLD_NS: u64 = 3_600 * 1_000_000_000;

/// What is known of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// Nothing: a cookie may be asked for.
    Nothing,
    /// Its cookie, and its MSS option.
    Cookie(FastOpenCookie, u16),
    /// It is to be left alone.
    Held,
}

/// What an open taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lesson {
    /// The server gave a cookie; its MSS option beside it.
    Granted(FastOpenCookie, u16),
    /// It was asked for one and gave none.
    Refused,
    /// The SYN with data, or that asked for a cookie, was not answered in time.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    server: IpAddr,
    cookie: Option<(FastOpenCookie, u16)>,
    held_until: Instant,
    /// Counts uses of the whole cache.
    used: u64,
}

/// A bounded table of servers by address.
#[derive(Debug)]
pub(in crate::tcp) struct CookieCache {
    /// Made when the first cookie comes.
    sets: Vec<[Option<Entry>; WAYS]>,
    set_count: usize,
    hasher: SipHasher24,
    uses: u64,
}

impl CookieCache {
    /// A cache of about `max_entries` servers; with 0 it keeps none. `secret` hides which servers share a place.
    pub(in crate::tcp) fn new(max_entries: usize, secret: [u8; 16]) -> Self {
        Self {
            sets: Vec::new(),
            set_count: max_entries.div_ceil(WAYS),
            hasher: SipHasher24::new_with_key(&secret),
            uses: 0,
        }
    }

    /// True when nothing can be kept.
    pub(super) const fn is_disabled(&self) -> bool {
        self.set_count == 0
    }

    fn set_of(&self, server: IpAddr) -> usize {
        let hash = self.hasher.hash(&octets(server));
        // The remainder is below a `usize`.
        #[allow(clippy::cast_possible_truncation)]
        let index = (hash % self.set_count.max(1) as u64) as usize;
        index
    }

    /// What is known of a server.
    pub(super) fn look_up(&mut self, now: Instant, server: IpAddr) -> Known {
        let index = self.set_of(server);
        self.uses += 1;
        let Some(set) = self.sets.get_mut(index) else { return Known::Nothing };
        match set.iter_mut().flatten().find(|entry| entry.server == server) {
            Some(entry) if entry.held_until > now => Known::Held,
            Some(entry) => {
                entry.used = self.uses;
                entry.cookie.map_or(Known::Nothing, |(cookie, mss)| Known::Cookie(cookie, mss))
            }
            None => Known::Nothing,
        }
    }

    /// Keeps what an open taught of a server.
    pub(super) fn learn(&mut self, now: Instant, server: IpAddr, lesson: Lesson) {
        if self.set_count == 0 {
            return;
        }
        if self.sets.is_empty() {
            self.sets = vec![[None; WAYS]; self.set_count];
        }
        let index = self.set_of(server);
        self.uses += 1;
        let Some(set) = self.sets.get_mut(index) else { return };
        let place = set.iter().position(|entry| entry.is_some_and(|entry| entry.server == server));
        let oldest = || (0..WAYS).min_by_key(|&way| set[way].map_or(0, |entry| entry.used));
        let Some(entry) = place.or_else(oldest).and_then(|place| set.get_mut(place)) else { return };
        let known = entry.filter(|entry| entry.server == server).and_then(|entry| entry.cookie);
        let (cookie, held_until) = match lesson {
            Lesson::Granted(cookie, mss) => (Some((cookie, mss)), Instant::ZERO),
            Lesson::Refused => (None, now.plus_nanos(HOLD_NS)),
            Lesson::Lost => (known, now.plus_nanos(HOLD_NS)),
        };
        *entry = Some(Entry { server, cookie, held_until, used: self.uses });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(1_000);

    fn server(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn cookie(number: u8) -> FastOpenCookie {
        [number; 8].into()
    }

    #[test]
    fn a_cookie_is_kept_with_the_segment_size_until_another_comes() {
        let mut cache = CookieCache::new(16, [1; 16]);
        assert_eq!(cache.look_up(NOW, server(1)), Known::Nothing);
        cache.learn(NOW, server(1), Lesson::Granted(cookie(1), 1_460));
        assert_eq!(cache.look_up(NOW, server(1)), Known::Cookie(cookie(1), 1_460));
        cache.learn(NOW, server(1), Lesson::Granted(cookie(2), 1_400));
        assert_eq!(cache.look_up(NOW, server(1)), Known::Cookie(cookie(2), 1_400));
        assert_eq!(cache.look_up(NOW, server(2)), Known::Nothing);
    }

    #[test]
    fn a_server_that_fails_is_left_alone_for_an_hour() {
        let later = NOW.plus_nanos(HOLD_NS);
        for (lesson, afterwards) in
            [(Lesson::Refused, Known::Nothing), (Lesson::Lost, Known::Cookie(cookie(1), 536))]
        {
            let mut cache = CookieCache::new(16, [1; 16]);
            cache.learn(NOW, server(1), Lesson::Granted(cookie(1), 536));
            cache.learn(NOW, server(1), lesson);
            assert_eq!(cache.look_up(NOW, server(1)), Known::Held);
            assert_eq!(cache.look_up(later, server(1)), afterwards);
        }
    }

    #[test]
    fn the_cache_keeps_to_its_size_and_gives_up_what_was_used_longest_ago() {
        let mut cache = CookieCache::new(4, [1; 16]);
        for number in 1..=4 {
            cache.learn(NOW, server(number), Lesson::Granted(cookie(number), 536));
        }
        assert_ne!(cache.look_up(NOW, server(1)), Known::Nothing);
        cache.learn(NOW, server(5), Lesson::Granted(cookie(5), 536));
        let kept: Vec<u8> =
            (1..=5).filter(|&number| cache.look_up(NOW, server(number)) != Known::Nothing).collect();
        assert_eq!(kept, [1, 3, 4, 5]);
        assert_eq!(cache.sets.len(), 1);
    }

    #[test]
    fn a_cache_of_nothing_keeps_nothing() {
        let mut cache = CookieCache::new(0, [1; 16]);
        cache.learn(NOW, server(1), Lesson::Granted(cookie(1), 536));
        assert_eq!(cache.look_up(NOW, server(1)), Known::Nothing);
        assert!(cache.is_disabled());
    }
}
