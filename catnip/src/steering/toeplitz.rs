//! The Toeplitz hash that network cards spread flows over their queues with (Microsoft, "RSS Hashing Functions").
//!
//! It is not secret and resists nobody who knows the key; it says which core a flow belongs to, and must therefore be
//! the one that the device computes.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::plain::{Ends, V6_ENDS_BYTES};

/// Bytes of a key: enough for both ends of an IPv6 flow.
pub const KEY_BYTES: usize = 40;

/// Bytes of the longest input: two IPv6 addresses and two ports.
const MAX_INPUT_BYTES: usize = V6_ENDS_BYTES;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u8; KEY_BYTES]);

impl HashKey {
    /// The key that repeats 0x6d5a, with which both directions of a flow have the same hash (Woo and Park, "Scalable
    /// TCP session monitoring with symmetric receive-side scaling", 2012). A connection between two hosts that
    /// both use it is on the core of the same number at either end.
    pub const SYMMETRIC: Self = Self({
        let mut key = [0x6d; KEY_BYTES];
        let mut at = 1;
        while at < KEY_BYTES {
            key[at] = 0x5a;
            at += 2;
        }
        key
    });

    /// The key of Microsoft's published test vectors, with which most drivers program their cards.
    pub const MICROSOFT: Self = Self([
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ]);

    /// What [`FromStr`] takes, in words.
    pub const RULE: &str = "80 hexadecimal digits, \"symmetric\" or \"microsoft\"";

    /// The 32 bits of the key from `bit` on: what the input's bit of that number adds to the hash. Beyond the key's end
    /// there are zeros.
    pub(super) fn window(&self, bit: usize) -> u32 {
        let at = |index: usize| u64::from(self.0.get(index).copied().unwrap_or(0));
        let byte = bit / 8;
        let bits = (0..5).fold(0, |bits, index| bits << 8 | at(byte + index));
        // 40 bits, of which the upper 32 behind the bits in front are wanted.
        ((bits >> (8 - bit % 8)) & u64::from(u32::MAX)) as u32
    }
}

impl FromStr for HashKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "symmetric" => return Ok(Self::SYMMETRIC),
            "microsoft" => return Ok(Self::MICROSOFT),
            _ => {}
        }
        let digits = text.as_bytes();
        if digits.len() != 2 * KEY_BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(Self::RULE);
        }
        let mut key = [0; KEY_BYTES];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| Self::RULE)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| Self::RULE)?;
        }
        Ok(Self(key))
    }
}

/// The hash under one key: a table of what each value of each input byte contributes, so that a hash is one look-up and
/// one exclusive or per byte.
pub struct Toeplitz {
    table: Box<[[u32; 256]; MAX_INPUT_BYTES]>,
    key: HashKey,
}

impl Toeplitz {
    /// The hash under `key`.
    #[must_use]
    pub fn new(key: HashKey) -> Self {
        let row = |byte: usize| {
            let mut row = [0; 256];
            for (value, sum) in row.iter_mut().enumerate() {
                *sum = (0..8)
                    .filter(|bit| value & (0x80 >> bit) != 0)
                    .fold(0, |sum, bit| sum ^ key.window(byte * 8 + bit));
            }
            row
        };
        Self { table: Box::new(std::array::from_fn(row)), key }
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> HashKey {
        self.key
    }

    #[inline]
    fn add(&self, hash: u32, from: usize, bytes: &[u8]) -> u32 {
        let rows = self.table.get(from..).unwrap_or_default();
        rows.iter().zip(bytes).fold(hash, |hash, (row, byte)| hash ^ row[usize::from(*byte)])
    }

    /// The hash of what lies in one piece in a packet.
    #[inline]
    pub(super) fn ends(&self, ends: Ends<'_>) -> u32 {
        match ends {
            Ends::V4(bytes) => self.all(bytes),
            Ends::V6(bytes) => self.all(bytes),
        }
    }

    /// Both lengths are known here, so that nothing is left of bounds and of the loop's end.
    #[inline]
    fn all<const N: usize>(&self, bytes: &[u8; N]) -> u32 {
        self.table.iter().zip(bytes).fold(0, |hash, (row, byte)| hash ^ row[usize::from(*byte)])
    }

    /// The hash of two addresses: what a card computes for packets without ports. Addresses of different
    /// families, which no packet has, hash to 0.
    #[must_use]
    #[inline]
    pub fn addresses(&self, source: IpAddr, destination: IpAddr) -> u32 {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.add(self.add(0, 0, &source.octets()), 4, &destination.octets())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.add(self.add(0, 0, &source.octets()), 16, &destination.octets())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => 0,
        }
    }

    /// The hash of a flow: `source` and `destination` as they are in the packets that are received.
    #[must_use]
    #[inline]
    pub fn flow(&self, source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> u32 {
        let at = if source.is_ipv4() { 8 } else { 32 };
        let hash = self.addresses(source, destination);
        let hash = self.add(hash, at, &source_port.to_be_bytes());
        self.add(hash, at + 2, &destination_port.to_be_bytes())
    }
}

impl fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Toeplitz").field(&self.key).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Microsoft, "Verifying the RSS Hash Calculation": destination, source, hash of the addresses, hash with ports.
    const VECTORS: [(&str, u16, &str, u16, u32, u32); 8] = [
        ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5d18_09c5, 0x10e8_28a2),
        ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2cc1_8cd5, 0x4020_7d3d),
        ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0f0c_461c, 0xdde5_1bbf),
        (
            "fe80::200:f8ff:fe21:67cf",
            38024,
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    #[test]
    fn the_published_vectors_are_met() {
        let hash = Toeplitz::new(HashKey::MICROSOFT);
        for (destination, destination_port, source, source_port, addresses, flow) in VECTORS {
            let (source, to) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(hash.addresses(source, to), addresses, "{source} {to}");
            assert_eq!(hash.flow(source, source_port, to, destination_port), flow, "{source} {to}");
        }
    }

    #[test]
    fn with_the_symmetric_key_both_directions_have_one_hash() {
        let symmetric = Toeplitz::new(HashKey::SYMMETRIC);
        let other = Toeplitz::new(HashKey::MICROSOFT);
        for (destination, destination_port, source, source_port, ..) in VECTORS {
            let (source, to) = (source.parse().unwrap(), destination.parse().unwrap());
            let both = |hash: &Toeplitz| {
                let there = hash.flow(source, source_port, to, destination_port);
                (there, hash.flow(to, destination_port, source, source_port))
            };
            let (there, back) = both(&symmetric);
            assert_eq!(there, back, "{source} {to}");
            let (there, back) = both(&other);
            assert_ne!(there, back, "{source} {to}");
        }
    }

    #[test]
    fn keys_are_read_by_name_and_by_digits() {
        assert_eq!("symmetric".parse(), Ok(HashKey::SYMMETRIC));
        assert_eq!("microsoft".parse(), Ok(HashKey::MICROSOFT));
        assert_eq!("6d5a".repeat(20).parse(), Ok(HashKey::SYMMETRIC));
        for bad in ["", "6d5a", &"6d5g".repeat(20), &"é".repeat(40), &"6d5a".repeat(21)] {
            assert_eq!(bad.parse::<HashKey>(), Err(HashKey::RULE), "{bad}");
        }
    }
}
