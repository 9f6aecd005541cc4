//! All packets that wait for parts, within limits of number, memory and time.

use std::collections::BTreeMap;
use std::net::IpAddr;

use libos::Instant;
use libos::time::duration_nanos;

use super::FragmentConfig;
use super::parts::{Added, Part, Partial};

/// What parts of one packet have in common (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// Of IPv4 alone; 0 else.
    pub(super) protocol: u8,
    pub(super) identification: u32,
}

/// What came of a part.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The packet waits for others, or the part is a duplicate.
    Waiting,
    /// It was the last one missing.
    Complete(Partial),
    /// The packet is spoiled, now or since before.
    Dropped,
}

#[derive(Debug, Clone, Copy, Default)]
struct Share {
    packets: usize,
    held_bytes: usize,
}

/// The packets. Ordered tables, as no choice of addresses and identifications makes them slow.
#[derive(Debug)]
pub(in crate::network) struct FragmentCache {
    config: FragmentConfig,
    packets: BTreeMap<Key, Partial>,
    /// By the order in which they began, which is that in which they end.
    by_age: BTreeMap<u64, Key>,
    by_source: BTreeMap<(IpAddr, u64), Key>,
    shares: BTreeMap<IpAddr, Share>,
    held_bytes: usize,
    next_serial: u64,
    deadline: Instant,
    /// Packets given up to make room.
    evicted: u64,
}

impl FragmentCache {
    /// An empty cache, which holds at most `memory_bytes` whatever the configuration says.
    pub(in crate::network) fn new(config: &FragmentConfig, memory_bytes: usize) -> Self {
        let config = FragmentConfig { max_bytes: config.max_bytes.min(memory_bytes), ..config.clone() };
        Self {
            config,
            packets: BTreeMap::new(),
            by_age: BTreeMap::new(),
            by_source: BTreeMap::new(),
            shares: BTreeMap::new(),
            held_bytes: 0,
            next_serial: 0,
            deadline: Instant::FAR_FUTURE,
            evicted: 0,
        }
    }

    /// When the oldest packet has waited long enough.
    #[inline]
    pub(in crate::network) const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Number of packets that wait, spoiled ones included.
    pub(in crate::network) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Bytes of memory that parts hold.
    pub(in crate::network) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes the number of packets that gave way since the last call.
    pub(super) fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Takes a part.
    pub(super) fn add(&mut self, now: Instant, key: Key, part: Part) -> Outcome {
        if !self.packets.contains_key(&key) {
            self.begin(now, key);
        }
        let Some(packet) = self.packets.get_mut(&key) else { return Outcome::Dropped };
        let held_before = packet.held_bytes;
        let added = packet.add(part);
        let (held_now, complete) = (packet.held_bytes, packet.is_complete());
        if let Some(share) = self.shares.get_mut(&key.source) {
            share.held_bytes = share.held_bytes + held_now - held_before;
        }
        self.held_bytes = self.held_bytes + held_now - held_before;
        match added {
            Added::Kept if complete => self.remove(&key).map_or(Outcome::Dropped, Outcome::Complete),
            Added::Kept => {
                self.keep_within_limits(key.source);
                Outcome::Waiting
            }
            Added::Duplicate => Outcome::Waiting,
            Added::Conflict => Outcome::Dropped,
        }
    }

    fn begin(&mut self, now: Instant, key: Key) {
        if self.shares.get(&key.source).is_some_and(|share| share.packets >= self.config.max_source_packets) {
            self.evict_oldest_of(key.source);
        }
        if self.packets.len() >= self.config.max_packets {
            self.evict_oldest();
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        let expires = now.plus_nanos(duration_nanos(self.config.timeout));
        self.packets.insert(key, Partial::new(expires, serial));
        self.by_age.insert(serial, key);
        self.by_source.insert((key.source, serial), key);
        self.shares.entry(key.source).or_default().packets += 1;
        self.deadline = self.deadline.min(expires);
    }

    fn keep_within_limits(&mut self, source: IpAddr) {
        let FragmentConfig { max_bytes, max_source_bytes, .. } = self.config;
        while self.shares.get(&source).is_some_and(|share| share.held_bytes > max_source_bytes) {
            self.evict_oldest_of(source);
        }
        while self.held_bytes > max_bytes {
            self.evict_oldest();
        }
    }

    fn evict_oldest_of(&mut self, source: IpAddr) {
        let oldest = self.by_source.range((source, 0)..=(source, u64::MAX)).next().map(|(_, key)| *key);
        self.evict(oldest);
    }

    fn evict_oldest(&mut self) {
        let oldest = self.by_age.first_key_value().map(|(_, key)| *key);
        self.evict(oldest);
    }

    fn evict(&mut self, key: Option<Key>) {
        let removed = key.and_then(|key| self.remove(&key));
        self.evicted += u64::from(removed.is_some());
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let packet = self.packets.remove(key)?;
        self.by_age.remove(&packet.serial);
        self.by_source.remove(&(key.source, packet.serial));
        self.held_bytes -= packet.held_bytes;
        if let Some(share) = self.shares.get_mut(&key.source) {
            share.packets -= 1;
            share.held_bytes -= packet.held_bytes;
            if share.packets == 0 {
                self.shares.remove(&key.source);
            }
        }
        let oldest = self.by_age.first_key_value().and_then(|(_, key)| self.packets.get(key));
        self.deadline = oldest.map_or(Instant::FAR_FUTURE, |packet| packet.expires);
        Some(packet)
    }

    /// Takes a packet whose parts were waited for long enough.
    pub(super) fn take_expired(&mut self, now: Instant) -> Option<(Key, Partial)> {
        if now < self.deadline {
            return None;
        }
        let key = *self.by_age.first_key_value()?.1;
        self.remove(&key).map(|packet| (key, packet))
    }
}
