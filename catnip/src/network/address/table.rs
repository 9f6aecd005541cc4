//! All addresses of ours, and what is to be done about them next.

use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use libos::Instant;
use libos::time::duration_nanos;

use super::entry::{AddressOrigin, AddressStatus, Entry, Lifetime, Progress, Start};
use crate::network::Prefix;
use crate::network::asking::Asking;
use crate::network::interface::{MAX_V4, MAX_V6};
use crate::random::Random;
use crate::steering::CoreShare;

/// Constants of RFC 5227 section 1.1, by their names there.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u8 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// `MAX_RTR_SOLICITATION_DELAY`, `DupAddrDetectTransmits` and `RetransTimer` (RFC 4861 section 10, RFC 4862
/// section 5.1).
const DETECTION_DELAY: Duration = Duration::from_secs(1);
const DETECTION_TRANSMITS: u8 = 1;
const DETECTION_INTERVAL: Duration = Duration::from_secs(1);

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Step {
    /// Ask whether somebody else has the address.
    Probe(IpAddr),
    /// Nobody has: it is ours from now on.
    Assign { prefix: Prefix, on_link: bool, deprecated: bool },
    /// Tell others that it is ours.
    Announce(IpAddr),
    /// It should not be used for what is new.
    Deprecate(IpAddr),
    /// Its time is over, and it is out of the table.
    Expire(AddressStatus),
}

/// What is to be done about somebody else who claims an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Reaction {
    /// Nothing: it is not ours, or it was defended a moment ago.
    Ignore,
    /// Tell everybody that it is ours (RFC 5227 section 2.4 (b)).
    Defend,
    /// It never became ours.
    Duplicate(AddressOrigin),
    /// It is given up (RFC 5227 section 2.4 (b)).
    GiveUp,
}

/// The table. As many places as the interface has.
#[derive(Debug)]
pub(in crate::network) struct AddressTable {
    entries: ArrayVec<Entry, { MAX_V4 + MAX_V6 }>,
    random: Random,
    /// Of a device that several cores share: this core's part, which says whether one of them has asked.
    share: Option<CoreShare>,
    /// Whether this core asks others and tells them, or another one that shares the device.
    asking: Asking,
    /// Marks our own questions, which some links return to us (RFC 7527).
    nonce: [u8; 6],
}

impl AddressTable {
    pub(in crate::network) fn new(random: Random, share: Option<CoreShare>, nonce: [u8; 6]) -> Self {
        let asking = Asking::of(share.as_ref());
        Self { entries: ArrayVec::new(), random, share, asking, nonce }
    }

    /// What marks our own questions.
    pub(in crate::network) fn nonce(&self) -> [u8; 6] {
        self.nonce
    }

    /// Puts an address into the table. False when it is there already, or when there is no place.
    pub(in crate::network) fn add(
        &mut self,
        now: Instant,
        prefix: Prefix,
        origin: AddressOrigin,
        on_link: bool,
        start: Start,
        lifetime: Lifetime,
    ) -> bool {
        if self.find(prefix.address).is_some() {
            return false;
        }
        let (progress, due) = match (start, self.asking) {
            (Start::Settled, _) | (Start::Announce(_), Asking::Later) => {
                (Progress::Settled, Instant::FAR_FUTURE)
            }
            (Start::Announce(times), Asking::First) => (Progress::Announcing { left: times }, now),
            (Start::Probe, Asking::First) => {
                (Progress::Probing { sent: 0 }, now + self.initial_delay(prefix.address))
            }
            (Start::Probe, Asking::Later) => self.listening(now, prefix.address),
        };
        let entry =
            Entry { prefix, origin, on_link, progress, due, lifetime, deprecated: false, defended_at: None };
        self.entries.try_push(entry).is_ok()
    }

    /// Hosts that were switched on together do not ask together (RFC 5227 section 2.1.1, RFC 4862
    /// section 5.4.2).
    fn initial_delay(&mut self, address: IpAddr) -> Duration {
        let longest = if address.is_ipv4() { PROBE_WAIT } else { DETECTION_DELAY };
        self.between(Duration::ZERO, longest)
    }

    fn between(&mut self, shortest: Duration, longest: Duration) -> Duration {
        Duration::from_nanos(self.random.range(duration_nanos(shortest), duration_nanos(longest)))
    }

    /// Another core asks. As long as that may take this one hears whether there is an answer; and when none of the cores before
    /// this one did ask, by when each could have, this one does.
    fn listening(&self, now: Instant, address: IpAddr) -> (Progress, Instant) {
        let before = self.share.as_ref().map_or(0, CoreShare::core);
        (Progress::Listening { left: before.saturating_sub(1) }, now + asking_takes(address))
    }

    /// What was asked about an address counts no more.
    fn forget_asked(&self, address: IpAddr) {
        if let Some(share) = &self.share {
            share.forget_asked(address);
        }
    }

    fn find(&mut self, address: IpAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.prefix.address == address)
    }

    /// Takes an address out of the table.
    pub(in crate::network) fn remove(&mut self, address: IpAddr) -> Option<AddressStatus> {
        let index = self.entries.iter().position(|entry| entry.prefix.address == address)?;
        self.forget_asked(address);
        Some(self.entries.remove(index).status())
    }

    /// All addresses.
    pub(in crate::network) fn statuses(&self) -> impl Iterator<Item = AddressStatus> {
        self.entries.iter().map(Entry::status)
    }

    /// How long an address is good for.
    pub(in crate::network) fn lifetime(&mut self, address: IpAddr) -> Option<Lifetime> {
        self.find(address).map(|entry| entry.lifetime)
    }

    /// Sets how long an address is good for. What was deprecated may become preferred again.
    pub(in crate::network) fn set_lifetime(&mut self, now: Instant, address: IpAddr, lifetime: Lifetime) {
        if let Some(entry) = self.find(address) {
            entry.lifetime = lifetime;
            entry.deprecated &= lifetime.preferred_until <= now;
        }
    }

    /// True for addresses that others are being asked about.
    pub(in crate::network) fn is_tentative(&self, address: IpAddr) -> bool {
        self.entries.iter().any(|entry| {
            entry.prefix.address == address
                && matches!(entry.progress, Progress::Probing { .. } | Progress::Listening { .. })
        })
    }

    /// Somebody else claims the address, or wants it.
    pub(in crate::network) fn conflict(&mut self, now: Instant, address: IpAddr) -> Reaction {
        let Some(entry) = self.find(address) else { return Reaction::Ignore };
        match entry.progress {
            Progress::Probing { .. } | Progress::Listening { .. } => {
                entry.progress = Progress::Duplicate;
                // RFC 5227 section 2.1.1: after a while it may be free. RFC 4862 section 5.4.5 leaves that to
                // whoever configures the host.
                entry.due = if address.is_ipv4() { now + RATE_LIMIT_INTERVAL } else { Instant::FAR_FUTURE };
                let origin = entry.origin;
                self.forget_asked(address);
                Reaction::Duplicate(origin)
            }
            // Neighbour discovery knows no defence, and nobody may take an address away by claiming it.
            Progress::Announcing { .. } | Progress::Settled if address.is_ipv6() => Reaction::Ignore,
            Progress::Announcing { .. } | Progress::Settled => {
                let lately = entry.defended_at.is_some_and(|then| now < then + DEFEND_INTERVAL);
                match (lately, entry.origin) {
                    (false, _) => {
                        entry.defended_at = Some(now);
                        Reaction::Defend
                    }
                    // RFC 5227 section 2.4 (c): others know this host by the address, so that it is not given
                    // up; nor are the two to fight over it without end.
                    (true, AddressOrigin::Static | AddressOrigin::LinkLocal | AddressOrigin::Formed) => {
                        Reaction::Ignore
                    }
                    (true, AddressOrigin::Leased) => Reaction::GiveUp,
                }
            }
            Progress::Duplicate => Reaction::Ignore,
        }
    }

    /// What is to be done next of what is due. Call until `None`: each call gets one address further.
    pub(in crate::network) fn next_step(&mut self, now: Instant) -> Option<Step> {
        let index = self.entries.iter().position(|entry| entry.deadline() <= now)?;
        let apart = self.between(PROBE_MIN, PROBE_MAX);
        let entry = self.entries.get_mut(index)?;
        let address = entry.prefix.address;
        if entry.lifetime.valid_until <= now {
            self.forget_asked(address);
            return Some(Step::Expire(self.entries.remove(index).status()));
        }
        if !entry.deprecated && entry.lifetime.preferred_until <= now {
            entry.deprecated = true;
            return Some(Step::Deprecate(address));
        }
        let (probes, apart, last) = match address {
            IpAddr::V4(_) => (PROBE_NUM, apart, ANNOUNCE_WAIT),
            IpAddr::V6(_) => (DETECTION_TRANSMITS, DETECTION_INTERVAL, DETECTION_INTERVAL),
        };
        let Entry { prefix, on_link, deprecated, .. } = *entry;
        let assign = Step::Assign { prefix, on_link, deprecated };
        let ask = |entry: &mut Entry, sent: u8| {
            let sent = sent + 1;
            entry.progress = Progress::Probing { sent };
            entry.due = now + if sent < probes { apart } else { last };
            if let (true, Some(share)) = (sent == probes, &self.share) {
                share.note_asked(address);
            }
            Some(Step::Probe(address))
        };
        match entry.progress {
            Progress::Probing { sent } if sent < probes => ask(entry, sent),
            Progress::Probing { .. } => {
                (entry.progress, entry.due) = (Progress::Announcing { left: announcements(address) }, now);
                Some(assign)
            }
            Progress::Listening { .. }
                if self.share.as_ref().is_some_and(|share| share.was_asked(address)) =>
            {
                (entry.progress, entry.due) = (Progress::Settled, Instant::FAR_FUTURE);
                Some(assign)
            }
            Progress::Listening { left: 0 } => ask(entry, 0),
            Progress::Listening { left } => {
                entry.progress = Progress::Listening { left: left - 1 };
                entry.due = now + asking_takes(address);
                None
            }
            Progress::Announcing { left } => {
                let left = left.saturating_sub(1);
                let over = left == 0;
                entry.progress = if over { Progress::Settled } else { Progress::Announcing { left } };
                entry.due = if over { Instant::FAR_FUTURE } else { now + ANNOUNCE_INTERVAL };
                Some(Step::Announce(address))
            }
            Progress::Duplicate => match self.asking {
                Asking::First => {
                    (entry.progress, entry.due) = (Progress::Probing { sent: 1 }, now + apart);
                    Some(Step::Probe(address))
                }
                Asking::Later => {
                    let listening = self.listening(now, address);
                    if let Some(entry) = self.entries.get_mut(index) {
                        (entry.progress, entry.due) = listening;
                    }
                    None
                }
            },
            Progress::Settled => {
                entry.due = Instant::FAR_FUTURE;
                None
            }
        }
    }

    /// When [`Self::next_step`] next has something; [`Instant::FAR_FUTURE`] for never.
    pub(in crate::network) fn next_deadline(&self) -> Instant {
        self.entries.iter().map(Entry::deadline).min().unwrap_or(Instant::FAR_FUTURE)
    }
}

/// How long a core takes at most from when it gets an address to when nobody has answered.
fn asking_takes(address: IpAddr) -> Duration {
    match address {
        IpAddr::V4(_) => PROBE_WAIT + PROBE_MAX * u32::from(PROBE_NUM - 1) + ANNOUNCE_WAIT,
        IpAddr::V6(_) => DETECTION_DELAY + DETECTION_INTERVAL * u32::from(DETECTION_TRANSMITS),
    }
}

/// How often others are told about an address: `ANNOUNCE_NUM` of RFC 5227; once by neighbour discovery, where
/// nobody is waited for who might have missed it.
pub(in crate::network) const fn announcements(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 1 }
}
