//! The demultiplexer: from the two ends in a segment to the connection, in one look-up however many
//! connections there are.
//!
//! An open-addressing table with linear probing and 8 bytes an entry: the hash and the connection's
//! index. The tuple itself is compared where the connection keeps it, so a look-up touches one line of
//! the table and then the connection, which the segment needs anyway. The hash is multilinear with
//! secret keys (Lemire and Kaser, "Strongly universal string hashing is fast", 2014): whoever does not
//! know the keys cannot choose tuples that collide.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr};

/// Random 64-bit words the hash needs: a constant and one a 32-bit word, for each address family.
pub const HASH_KEY_WORDS: usize = IPV4_KEY_WORDS + 10;
const IPV4_KEY_WORDS: usize = 4;

const MIN_ENTRIES: usize = 64;
/// Probes of one insertion from which on the table asks for new keys. At half load and with a good
/// hash, runs of this length do not happen in tables that fit into memory.
const PROBE_LIMIT: usize = 256;
const NO_INDEX: u32 = u32::MAX;

/// Both ends of a connection: what tells it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FourTuple {
    /// Between IPv4 addresses.
    V4 {
        /// Our address.
        local: u32,
        /// The peer's address.
        remote: u32,
        /// Our port in the upper half, the peer's in the lower.
        ports: u32,
    },
    /// Between IPv6 addresses.
    V6 {
        /// Our address.
        local: [u32; 4],
        /// The peer's address.
        remote: [u32; 4],
        /// Our port in the upper half, the peer's in the lower.
        ports: u32,
    },
}

impl FourTuple {
    /// The tuple of these ends. Of different families, which no packet has, the IPv4 one is mapped.
    #[inline]
    #[must_use]
    pub fn new(local: IpAddr, local_port: u16, remote: IpAddr, remote_port: u16) -> Self {
        let ports = u32::from(local_port) << 16 | u32::from(remote_port);
        if let (IpAddr::V4(local), IpAddr::V4(remote)) = (local, remote) {
            Self::V4 { local: local.to_bits(), remote: remote.to_bits(), ports }
        } else {
            Self::V6 { local: words(local), remote: words(remote), ports }
        }
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    let address: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let bits = address.to_bits();
    // Each shift leaves the word wanted in the lower 32 bits.
    #[allow(clippy::cast_possible_truncation)]
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    index: u32,
}

const FREE: Entry = Entry { hash: 0, index: NO_INDEX };

/// Finds connections by their ends. Knows indices only; the tuples are the caller's.
///
/// At most half of the entries are taken: 16 to 32 bytes a connection. A full table doubles, which
/// needs no tuple and nothing hashed again; it does not shrink.
pub struct ConnectionTable {
    /// A power of two of them.
    entries: Box<[Entry]>,
    len: usize,
    keys: [u64; HASH_KEY_WORDS],
    wants_new_keys: bool,
    /// The connection found last: packets come in trains, and the next one's is mostly the same (Partridge and Pink,
    /// "A Faster UDP", 1993). Always one that is in the table, or [`NO_INDEX`].
    last: Cell<u32>,
}

impl ConnectionTable {
    /// Indices must be below this.
    pub const INDEX_LIMIT: u32 = NO_INDEX;

    /// An empty table. `keys` are secret and random.
    #[must_use]
    pub fn new(keys: [u64; HASH_KEY_WORDS]) -> Self {
        Self {
            entries: vec![FREE; MIN_ENTRIES].into(),
            len: 0,
            keys,
            wants_new_keys: false,
            last: Cell::new(NO_INDEX),
        }
    }

    /// Number of connections.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// True when there is no connection.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index of the connection between the ends of `tuple`. `matches` says whether the connection with
    /// that index is the one; it is asked about candidates only, nearly always exactly once.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, tuple: impl FnOnce() -> FourTuple, matches: impl Fn(u32) -> bool) -> Option<u32> {
        let last = self.last.get();
        if last != NO_INDEX && matches(last) { Some(last) } else { self.look_up(tuple, matches) }
    }

    /// The connection found last: an index that none has, when there is none.
    #[inline(always)]
    #[must_use]
    pub const fn last(&self) -> u32 {
        self.last.get()
    }

    #[inline(never)]
    fn look_up(&self, tuple: impl FnOnce() -> FourTuple, matches: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.hash(&tuple());
        let mut place = hash as usize;
        loop {
            let entry = self.entries[place & (self.entries.len() - 1)];
            if entry.index == NO_INDEX {
                return None;
            }
            if entry.hash == hash && matches(entry.index) {
                self.last.set(entry.index);
                return Some(entry.index);
            }
            place += 1;
        }
    }

    /// Adds a connection. There must not be one between the same ends.
    pub fn insert(&mut self, tuple: &FourTuple, index: u32) {
        debug_assert!(index < Self::INDEX_LIMIT, "connection index {index} out of range");
        if (self.len + 1) * 2 > self.entries.len() {
            self.double();
        }
        let hash = self.hash(tuple);
        self.place(Entry { hash, index });
        self.len += 1;
    }

    /// Takes the connection between these ends out; false when it was not in.
    pub fn remove(&mut self, tuple: &FourTuple, index: u32) -> bool {
        if self.last.get() == index {
            self.last.set(NO_INDEX);
        }
        let hash = self.hash(tuple);
        let mask = self.entries.len() - 1;
        let mut hole = hash as usize & mask;
        while self.entries[hole].index != index {
            if self.entries[hole].index == NO_INDEX {
                return false;
            }
            hole = (hole + 1) & mask;
        }
        // Entries behind the hole move up, so that a look-up may stop at the first free one.
        let mut next = (hole + 1) & mask;
        while self.entries[next].index != NO_INDEX {
            let home = self.entries[next].hash as usize & mask;
            let distance_from_home = next.wrapping_sub(home) & mask;
            let distance_from_hole = next.wrapping_sub(hole) & mask;
            if distance_from_home >= distance_from_hole {
                self.entries[hole] = self.entries[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.entries[hole] = FREE;
        self.len -= 1;
        true
    }

    /// True once an insertion had to probe so far that the keys must be known to a peer, or bad.
    #[must_use]
    pub const fn wants_new_keys(&self) -> bool {
        self.wants_new_keys
    }

    /// Hashes everything again with new secret keys. `tuple_of` gives the ends of the connection with
    /// that index. O(connections).
    pub fn rekey(&mut self, keys: [u64; HASH_KEY_WORDS], tuple_of: impl Fn(u32) -> FourTuple) {
        self.keys = keys;
        let free = vec![FREE; self.entries.len()].into();
        for entry in std::mem::replace(&mut self.entries, free) {
            if entry.index != NO_INDEX {
                let hash = self.hash(&tuple_of(entry.index));
                self.place(Entry { hash, ..entry });
            }
        }
        self.wants_new_keys = false;
    }

    fn double(&mut self) {
        let free = vec![FREE; self.entries.len() * 2].into();
        for entry in std::mem::replace(&mut self.entries, free) {
            if entry.index != NO_INDEX {
                self.place(entry);
            }
        }
    }

    fn place(&mut self, entry: Entry) {
        let mask = self.entries.len() - 1;
        let mut place = entry.hash as usize & mask;
        let mut probes = 0;
        while self.entries[place].index != NO_INDEX {
            place = (place + 1) & mask;
            probes += 1;
        }
        self.entries[place] = entry;
        self.wants_new_keys |= probes > PROBE_LIMIT;
    }

    /// The upper half of k0 + k1 w1 + k2 w2 + ... modulo 2^64, over the tuple's 32-bit words, mixed.
    #[inline]
    fn hash(&self, tuple: &FourTuple) -> u32 {
        let sum = match *tuple {
            FourTuple::V4 { local, remote, ports } => {
                multilinear(&self.keys[..IPV4_KEY_WORDS], [local, remote, ports])
            }
            FourTuple::V6 { local: [l0, l1, l2, l3], remote: [r0, r1, r2, r3], ports } => {
                multilinear(&self.keys[IPV4_KEY_WORDS..], [l0, l1, l2, l3, r0, r1, r2, r3, ports])
            }
        };
        mix((sum >> 32) as u32)
    }
}

#[inline]
fn multilinear<const WORDS: usize>(keys: &[u64], words: [u32; WORDS]) -> u64 {
    let Some((&constant, keys)) = keys.split_first() else {
        return 0;
    };
    keys.iter()
        .zip(words)
        .fold(constant, |sum, (key, word)| sum.wrapping_add(key.wrapping_mul(u64::from(word))))
}

/// A bijection, so that it keeps what is proved about the hash. Without it, tuples in a row, such as one
/// client's ports, become numbers in a row or nearly, which linear probing turns into long runs.
#[inline]
const fn mix(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x9e37_79b1);
    hash ^ hash >> 15
}

/// The keys stay out of logs.
impl std::fmt::Debug for ConnectionTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectionTable").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    fn keys(seed: u64) -> [u64; HASH_KEY_WORDS] {
        let mut random = StdRng::seed_from_u64(seed);
        std::array::from_fn(|_| random.next_u64())
    }

    fn v4(remote: u32, local_port: u16, remote_port: u16) -> FourTuple {
        let local = Ipv4Addr::new(192, 0, 2, 1);
        FourTuple::new(local.into(), local_port, Ipv4Addr::from_bits(remote).into(), remote_port)
    }

    fn v6(remote: u128, local_port: u16, remote_port: u16) -> FourTuple {
        let local = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        FourTuple::new(local.into(), local_port, Ipv6Addr::from_bits(remote).into(), remote_port)
    }

    /// Entries from the home of a tuple to where it is, both included.
    fn probes(table: &ConnectionTable, tuple: &FourTuple, index: u32) -> usize {
        let asked = Cell::new(false);
        assert!(table.get(|| *tuple, |candidate| candidate == index && !asked.replace(true)).is_some());
        let mask = table.entries.len() - 1;
        let home = table.hash(tuple) as usize & mask;
        1 + (0..).find(|distance| table.entries[(home + distance) & mask].index == index).unwrap()
    }

    #[test]
    fn connections_that_differ_in_one_end_only_are_told_apart() {
        let tuples = [
            v4(1, 80, 1000),
            v4(1, 80, 1001),
            v4(1, 81, 1000),
            v4(2, 80, 1000),
            v4(1, 1000, 80),
            v6(1, 80, 1000),
            v6(2, 80, 1000),
            v6(1 << 64, 80, 1000),
        ];
        let mut table = ConnectionTable::new(keys(1));
        for (index, tuple) in (0..).zip(&tuples) {
            assert_eq!(table.get(|| *tuple, |found| tuples[found as usize] == *tuple), None);
            table.insert(tuple, index);
        }
        for (index, tuple) in (0..).zip(&tuples) {
            assert_eq!(table.get(|| *tuple, |found| tuples[found as usize] == *tuple), Some(index));
        }
    }

    #[test]
    fn the_callers_comparison_decides_between_equal_hashes() {
        // With keys of zero everything collides.
        let mut table = ConnectionTable::new([0; HASH_KEY_WORDS]);
        let tuples: Vec<FourTuple> = (0..100).map(|port| v4(7, 80, port)).collect();
        (0..).zip(&tuples).for_each(|(index, tuple)| table.insert(tuple, index));
        for (index, tuple) in (0..).zip(&tuples) {
            assert_eq!(table.get(|| *tuple, |found| tuples[found as usize] == *tuple), Some(index));
        }
        assert!(table.remove(&tuples[3], 3) && !table.remove(&tuples[3], 3));
        assert_eq!(table.get(|| tuples[3], |found| tuples[found as usize] == tuples[3]), None);
        assert_eq!(table.get(|| tuples[99], |found| tuples[found as usize] == tuples[99]), Some(99));
    }

    #[test]
    fn long_probe_runs_ask_for_new_keys_and_new_keys_end_them() {
        let mut table = ConnectionTable::new([0; HASH_KEY_WORDS]);
        let tuples: Vec<FourTuple> = (0..1_000).map(|port| v4(7, 80, port)).collect();
        (0..).zip(&tuples).for_each(|(index, tuple)| table.insert(tuple, index));
        assert!(table.wants_new_keys());
        table.rekey(keys(3), |index| tuples[index as usize]);
        assert!(!table.wants_new_keys());
        for (index, tuple) in (0..).zip(&tuples) {
            assert!(probes(&table, tuple, index) < 32);
        }
        assert_eq!(table.len(), 1_000);
    }

    #[test]
    fn structured_tuples_are_spread() {
        type Shape = (&'static str, fn(u32) -> FourTuple);
        let shapes: [Shape; 5] = [
            ("ports in a row", |n| v4(0x0a00_0001 + (n >> 15), 80, 1024 + (n & 0x7fff) as u16)),
            ("addresses in a row", |n| v4(0x0a00_0000 + n, 80, 40_000)),
            ("addresses a network apart", |n| v4(n << 8, 80, 40_000)),
            ("both ports at once", |n| v4(9, (n & 0xff) as u16, (n >> 8) as u16)),
            ("IPv6 interfaces in a row", |n| v6(0x2001_0db8 << 96 | u128::from(n), 80, 40_000)),
        ];
        for (name, shape) in shapes {
            for seed in 0..8 {
                let mut table = ConnectionTable::new(keys(seed));
                // Just under half load, where runs are longest.
                let tuples: Vec<FourTuple> = (0..32_000).map(shape).collect();
                (0..).zip(&tuples).for_each(|(index, tuple)| table.insert(tuple, index));
                let total: usize =
                    (0..).zip(&tuples).map(|(index, tuple)| probes(&table, tuple, index)).sum();
                // Random placement has 1.5 probes at half load.
                assert!(total < tuples.len() * 2, "{name}, seed {seed}: {total} probes");
                assert!(!table.wants_new_keys(), "{name}, seed {seed}");
            }
        }
    }

    #[test]
    fn the_hash_is_keyed() {
        let tuple = v4(1, 2, 3);
        let mut hashes: Vec<u32> =
            (0..100).map(|seed| ConnectionTable::new(keys(seed)).hash(&tuple)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 100);
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(
            seed: u64,
            // Few keys, so that most steps meet a connection; a third of the runs with colliding hashes.
            steps in prop::collection::vec((any::<bool>(), 0_u32..20, 0_u16..20), 1..400),
            weak in 0..3,
        ) {
            let keys = if weak == 0 { [0; HASH_KEY_WORDS] } else { keys(seed) };
            let mut table = ConnectionTable::new(keys);
            let mut model: HashMap<FourTuple, u32> = HashMap::new();
            let mut tuples = Vec::new();
            for (insert, remote, port) in steps {
                let tuple = v4(remote, 80, port);
                let known = model.get(&tuple).copied();
                prop_assert_eq!(table.get(|| tuple, |index| tuples[index as usize] == tuple), known);
                match (insert, known) {
                    (true, None) => {
                        let index = u32::try_from(tuples.len()).unwrap();
                        tuples.push(tuple);
                        table.insert(&tuple, index);
                        model.insert(tuple, index);
                    }
                    (false, Some(index)) => {
                        prop_assert!(table.remove(&tuple, index));
                        model.remove(&tuple);
                    }
                    (false, None) => prop_assert!(!table.remove(&tuple, u32::MAX - 1)),
                    (true, Some(_)) => {}
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (tuple, index) in model {
                prop_assert_eq!(table.get(|| tuple, |index| tuples[index as usize] == tuple), Some(index));
            }
        }
    }
}
