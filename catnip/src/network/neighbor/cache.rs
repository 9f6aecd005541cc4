//! The cache: from a neighbour's IP address to its hardware address, and how long that is believed.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use libos::time::duration_nanos;
use libos::{Error, Instant};
use siphasher::sip::SipHasher13;

use super::NeighborConfig;
use super::age::{AgeLists, Worth};
use super::entry::{Neighbor, PendingPacket, State};
use crate::random::Random;
use crate::slab::{Key, Slab};
use crate::timer::TimerWheel;
use crate::wire::ethernet::Address;

libos::counters! {
    /// What the cache has seen.
    pub struct NeighborCounters {
        /// Neighbours given up because nobody answered.
        failures,
        /// Packets dropped because too many waited for the same neighbour.
        pending_overflows,
        /// Packets dropped because their neighbour was given up.
        pending_failures,
        /// Neighbours that gave way to new ones.
        evictions,
        /// Packets refused because all neighbours were being looked for.
        table_full,
    }
}

/// What is to be done with a packet for a neighbour.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::network) enum Resolution {
    /// Send it there.
    Known(Key, Address),
    /// Queue it; and ask for the address if so said.
    Wait {
        key: Key,
        ask: bool,
    },
    Refused(Error),
}

/// What a message says about the neighbour it names.
#[derive(Debug, Clone, Copy)]
pub(in crate::network) struct Claim {
    /// It answers a request of ours, and so shows that the neighbour hears us.
    pub solicited: bool,
    /// A hardware address that differs from the known one replaces it.
    pub overriding: bool,
    /// The neighbour is going to be of use: remember it if it is not known.
    pub create: bool,
}

/// Packets whose neighbour's address is known from now on.
#[derive(Debug)]
pub(in crate::network) struct Released {
    pub hardware: Address,
    pub packets: VecDeque<PendingPacket>,
}

/// What a neighbour's timer asks for.
#[derive(Debug)]
pub(in crate::network) enum Expiry {
    /// Ask for the address: everybody, or the one who had it.
    Ask { address: IpAddr, known: Option<Address> },
    /// Nobody answered, for these packets or to probes.
    GaveUp { address: IpAddr, packets: VecDeque<PendingPacket> },
}

/// Keys of the hash of addresses, which a peer chooses.
#[derive(Debug, Clone)]
struct HashKeys(u64, u64);

impl BuildHasher for HashKeys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// The neighbours of one interface.
#[derive(Debug)]
pub(in crate::network) struct NeighborCache {
    config: NeighborConfig,
    /// What routers say for IPv6 neighbours in place of the configuration.
    advertised_reachable: Option<Duration>,
    advertised_retry: Option<Duration>,
    entries: Slab<Neighbor>,
    by_address: HashMap<IpAddr, Key, HashKeys>,
    ages: AgeLists,
    /// Keyed by slab index. Only incomplete, delay, probe and failed entries have one.
    timers: TimerWheel,
    random: Random,
    /// Neighbours that are being looked for.
    pending: usize,
    /// Changes whenever an address that [`Self::usable`] returned is good no longer than then, other
    /// than by time.
    epoch: u32,
    counters: NeighborCounters,
}

impl NeighborCache {
    pub(in crate::network) fn new(config: NeighborConfig, mut random: Random, now: Instant) -> Self {
        let hash = HashKeys(random.next_u64(), random.next_u64());
        Self {
            entries: Slab::with_capacity_limit(config.max_neighbors),
            by_address: HashMap::with_hasher(hash),
            ages: AgeLists::new(),
            timers: TimerWheel::new(now),
            random,
            config,
            advertised_reachable: None,
            advertised_retry: None,
            pending: 0,
            epoch: 1,
            counters: NeighborCounters::default(),
        }
    }

    pub(in crate::network) fn counters(&self) -> &NeighborCounters {
        &self.counters
    }

    pub(in crate::network) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The key of a neighbour; a dangling one when it is not known, which [`Self::resolve`] mends.
    pub(in crate::network) fn find(&self, address: IpAddr) -> Key {
        self.by_address.get(&address).copied().unwrap_or(Key::DANGLING)
    }

    /// The hardware address, when nothing has to be done about the neighbour: the usual case.
    #[inline]
    pub(in crate::network) fn usable(&self, now: Instant, key: Key) -> Option<Address> {
        let neighbor = self.entries.get(key)?;
        (now < neighbor.usable_until).then_some(neighbor.hardware)
    }

    /// The number of the cache's present state: as long as it stays the same, what
    /// [`Self::usable`] returned is right until [`Self::usable_until`].
    #[inline]
    pub(in crate::network) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Until when the neighbour's hardware address may be used without another look.
    pub(in crate::network) fn usable_until(&self, key: Key) -> Instant {
        self.entries.get(key).map_or(Instant::ZERO, |neighbor| neighbor.usable_until)
    }

    /// True when the neighbour was heard from not long ago, or is not one to be in doubt about.
    pub(in crate::network) fn is_confirmed(&self, key: Key) -> bool {
        self.entries
            .get(key)
            .is_none_or(|neighbor| !matches!(neighbor.state, State::Delay | State::Probe { .. }))
    }

    /// True when packets to it cannot leave: nobody has told its address.
    pub(in crate::network) fn is_unresolved(&self, address: IpAddr) -> bool {
        self.entries
            .get(self.find(address))
            .is_none_or(|neighbor| matches!(neighbor.state, State::Incomplete { .. } | State::Failed))
    }

    /// Routes changed: addresses given out may be of neighbours that are no longer the way.
    pub(in crate::network) fn renew_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// What is to be done with a packet for `address`, whatever the neighbour's state.
    #[cold]
    pub(in crate::network) fn resolve(&mut self, now: Instant, address: IpAddr) -> Resolution {
        let known = self.find(address);
        let Some(neighbor) = self.entries.get_mut(known) else { return self.start(now, address) };
        neighbor.used = true;
        let (state, hardware) = (neighbor.state, neighbor.hardware);
        match state {
            State::Incomplete { .. } => Resolution::Wait { key: known, ask: false },
            State::Failed => Resolution::Refused(Error::HostUnreachable),
            State::Delay | State::Probe { .. } => Resolution::Known(known, hardware),
            State::Reachable if now < neighbor.usable_until => Resolution::Known(known, hardware),
            // RFC 4861 section 7.3.3: the first packet to an old address starts its confirmation.
            State::Reachable | State::Stale => {
                self.enter(known, State::Delay, now + self.config.probe_delay);
                Resolution::Known(known, hardware)
            }
        }
    }

    fn start(&mut self, now: Instant, address: IpAddr) -> Resolution {
        let neighbor = Neighbor { used: true, ..Neighbor::new(address, State::Incomplete { requests: 1 }) };
        // RFC 6583 section 4: looking for hosts that do not exist leaves room for those that do.
        let room = self.config.max_neighbors - self.config.max_neighbors / 4;
        let inserted = if self.pending < room { self.insert(neighbor) } else { None };
        let Some(key) = inserted else {
            self.counters.table_full += 1;
            return Resolution::Refused(Error::NoBuffers);
        };
        self.enter(key, State::Incomplete { requests: 1 }, now + self.retry(address));
        Resolution::Wait { key, ask: true }
    }

    /// Makes room for a neighbour if need be. `None` when there is none to be had.
    fn insert(&mut self, neighbor: Neighbor) -> Option<Key> {
        if self.entries.is_full() {
            let victim = self.ages.victim().and_then(|index| self.entries.key_of(index))?;
            self.counters.evictions += 1;
            self.remove(victim);
        }
        let address = neighbor.address;
        let key = self.entries.insert(neighbor)?;
        self.by_address.insert(address, key);
        Some(key)
    }

    fn remove(&mut self, key: Key) {
        if let Some(neighbor) = self.entries.remove(key) {
            self.pending -= usize::from(neighbor.is_looked_for);
            self.epoch = self.epoch.wrapping_add(1);
            self.by_address.remove(&neighbor.address);
            self.timers.cancel(key.index);
            self.ages.remove(key.index);
        }
    }

    /// Puts the neighbour into a state that lasts until `until`.
    fn enter(&mut self, key: Key, state: State, until: Instant) {
        let Some(neighbor) = self.entries.get_mut(key) else { return };
        neighbor.state = state;
        let looked_for = matches!(state, State::Incomplete { .. });
        let before = std::mem::replace(&mut neighbor.is_looked_for, looked_for);
        self.pending = self.pending + usize::from(looked_for) - usize::from(before);
        let in_use = if neighbor.used { Worth::Used } else { Worth::Unused };
        let (usable_until, timer, worth) = match state {
            State::Incomplete { .. } => (Instant::ZERO, Some(until), Worth::Pending),
            State::Reachable => (until, None, in_use),
            State::Stale => (Instant::ZERO, None, in_use),
            State::Delay | State::Probe { .. } => (until, Some(until), in_use),
            State::Failed => (Instant::ZERO, Some(until), Worth::Unused),
        };
        if usable_until < neighbor.usable_until {
            self.epoch = self.epoch.wrapping_add(1);
        }
        neighbor.usable_until = usable_until;
        self.ages.touch(key.index, worth);
        match timer {
            Some(at) => self.timers.arm(key.index, at),
            None => self.timers.cancel(key.index),
        }
    }

    /// Takes the times that a router tells for the link's IPv6 neighbours (RFC 4861 section 6.3.4).
    pub(in crate::network) fn set_advertised_times(
        &mut self,
        reachable: Option<Duration>,
        retry: Option<Duration>,
    ) {
        self.advertised_reachable = reachable.or(self.advertised_reachable);
        self.advertised_retry = retry.or(self.advertised_retry);
    }

    fn retry(&self, address: IpAddr) -> Duration {
        self.advertised_retry.filter(|_| address.is_ipv6()).unwrap_or(self.config.retry)
    }

    /// RFC 4861 section 6.3.2: a random time around the mean, so that neighbours do not probe in step.
    fn reachable_time(&mut self, address: IpAddr) -> Duration {
        let advertised = self.advertised_reachable.filter(|_| address.is_ipv6());
        let mean_ns = duration_nanos(advertised.unwrap_or(self.config.reachable));
        Duration::from_nanos(self.random.range(mean_ns / 2, mean_ns.saturating_add(mean_ns / 2)))
    }

    /// Queues a packet for an incomplete neighbour. At the limit the oldest is dropped
    /// (RFC 4861 section 7.2.2).
    pub(in crate::network) fn queue(&mut self, key: Key, packet: PendingPacket) {
        let Some(neighbor) = self.entries.get_mut(key) else { return };
        neighbor.used = true;
        if neighbor.pending.len() >= self.config.max_pending_packets {
            neighbor.pending.pop_front();
            self.counters.pending_overflows += 1;
        }
        neighbor.pending.push_back(packet);
    }

    /// Takes note of what a message said about a neighbour: RFC 4861 section 7.2.5, and the merging of
    /// RFC 826. Without a hardware address it says that the known one is right.
    pub(in crate::network) fn learn(
        &mut self,
        now: Instant,
        address: IpAddr,
        hardware: Option<Address>,
        claim: Claim,
    ) -> Option<Released> {
        let reachable_until = now + self.reachable_time(address);
        let key = self.find(address);
        let Some(neighbor) = self.entries.get_mut(key) else {
            if let Some(hardware) = hardware.filter(|_| claim.create) {
                let neighbor = Neighbor { hardware, ..Neighbor::new(address, State::Stale) };
                if let Some(key) = self.insert(neighbor) {
                    self.enter(key, State::Stale, Instant::ZERO);
                }
            }
            return None;
        };
        match neighbor.state {
            State::Incomplete { .. } | State::Failed => {
                let hardware = hardware?;
                neighbor.hardware = hardware;
                let packets = std::mem::take(&mut neighbor.pending);
                let state = if claim.solicited { State::Reachable } else { State::Stale };
                self.enter(key, state, reachable_until);
                Some(Released { hardware, packets })
            }
            State::Reachable | State::Stale | State::Delay | State::Probe { .. } => {
                let differs = hardware.is_some_and(|hardware| hardware != neighbor.hardware);
                if differs && !claim.overriding {
                    if neighbor.state == State::Reachable {
                        self.enter(key, State::Stale, Instant::ZERO);
                    }
                    return None;
                }
                if let Some(hardware) = hardware.filter(|_| differs) {
                    neighbor.hardware = hardware;
                    self.epoch = self.epoch.wrapping_add(1);
                }
                if claim.solicited {
                    self.enter(key, State::Reachable, reachable_until);
                } else if differs {
                    self.enter(key, State::Stale, Instant::ZERO);
                }
                None
            }
        }
    }

    /// Takes note that what was sent to the neighbour arrived (RFC 4861 section 7.3.1).
    #[inline]
    pub(in crate::network) fn confirm(&mut self, now: Instant, key: Key) {
        let Some(neighbor) = self.entries.get(key) else { return };
        let address = neighbor.address;
        match neighbor.state {
            State::Reachable if now < neighbor.usable_until => {}
            State::Reachable | State::Stale | State::Delay | State::Probe { .. } => {
                let until = now + self.reachable_time(address);
                self.enter(key, State::Reachable, until);
            }
            State::Incomplete { .. } | State::Failed => {}
        }
    }

    /// True when [`Self::next_expired`] may have something.
    #[inline]
    pub(in crate::network) fn is_due(&self, now: Instant) -> bool {
        self.timers.is_due(now)
    }

    /// Takes one timer that is due. Call until `None`, but not without bound.
    pub(in crate::network) fn next_expired(&mut self, now: Instant) -> Option<Expiry> {
        loop {
            let index = self.timers.next_expired(now)?;
            if let Some(expiry) = self.entries.key_of(index).and_then(|key| self.expire(now, key)) {
                return Some(expiry);
            }
        }
    }

    fn expire(&mut self, now: Instant, key: Key) -> Option<Expiry> {
        let max_requests = self.config.max_requests;
        let neighbor = self.entries.get_mut(key)?;
        let (address, hardware) = (neighbor.address, neighbor.hardware);
        let state = neighbor.state;
        let retry = self.retry(address);
        let neighbor = self.entries.get_mut(key)?;
        match state {
            State::Incomplete { requests } if requests < max_requests => {
                // RFC 4861 section 7.2.2 has solicitations follow each other evenly; of ARP nobody says so.
                let doublings = if address.is_ipv6() { 0 } else { u32::from(requests).min(16) };
                let wait = retry.saturating_mul(1 << doublings);
                self.enter(key, State::Incomplete { requests: requests + 1 }, now + wait);
                Some(Expiry::Ask { address, known: None })
            }
            State::Incomplete { .. } => {
                let packets = std::mem::take(&mut neighbor.pending);
                self.counters.failures += 1;
                self.counters.pending_failures += packets.len() as u64;
                self.enter(key, State::Failed, now + self.config.failure_hold);
                Some(Expiry::GaveUp { address, packets })
            }
            State::Delay => {
                self.enter(key, State::Probe { requests: 1 }, now + retry);
                Some(Expiry::Ask { address, known: Some(hardware) })
            }
            State::Probe { requests } if requests < max_requests => {
                self.enter(key, State::Probe { requests: requests + 1 }, now + retry);
                Some(Expiry::Ask { address, known: Some(hardware) })
            }
            // RFC 4861 section 7.3.3: forgotten, so that the next packet asks everybody.
            State::Probe { .. } => {
                self.counters.failures += 1;
                self.remove(key);
                Some(Expiry::GaveUp { address, packets: VecDeque::new() })
            }
            State::Failed => {
                self.remove(key);
                None
            }
            State::Reachable | State::Stale => None,
        }
    }

    /// When [`Self::next_expired`] next has something.
    pub(in crate::network) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next_deadline()
    }

    /// True for a neighbour that was asked for its address and has not answered.
    pub(in crate::network) fn has_failed(&self, address: IpAddr) -> bool {
        let key = self.by_address.get(&address);
        let entry = key.and_then(|key| self.entries.get(*key));
        entry.is_some_and(|entry| entry.state == State::Failed)
    }

    /// True when the neighbour is waited for with a request that was put to its own address or to
    /// everybody: an answer is expected.
    pub(in crate::network) fn is_asked(&self, address: IpAddr) -> bool {
        self.entries
            .get(self.find(address))
            .is_some_and(|neighbor| matches!(neighbor.state, State::Incomplete { .. } | State::Probe { .. }))
    }
}
