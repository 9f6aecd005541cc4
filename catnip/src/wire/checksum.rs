//! The Internet checksum (RFC 1071).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A sum in progress, over any number of byte strings of any length.
///
/// Sixteen-bit words are added as the machine reads them and the bytes are put in order at the end:
/// the sum does not care (RFC 1071 section 2 (B)).
#[derive(Debug, Clone, Copy, Default)]
pub struct Checksum {
    sum: u64,
    odd: bool,
}

/// Adds `bytes` as native-endian words, the last one padded with a zero. Does not overflow for
/// anything shorter than 16 GiB.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let mut sum = 0_u64;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(tail) {
        *to = *from;
    }
    sum + u64::from(u32::from_ne_bytes(last))
}

/// The sum in 16 bits, carries added in.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "folded to 16 bits before the cut")]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

impl Checksum {
    /// The sum of nothing.
    #[must_use]
    #[inline]
    pub const fn new() -> Self {
        Self { sum: 0, odd: false }
    }

    /// The sum of the pseudo-header of `protocol` with `length` bytes of header and payload
    /// (RFC 9293 section 3.1, RFC 8200 section 8.1). Addresses of unlike families give a sum that
    /// no packet has.
    #[must_use]
    #[inline]
    pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> Self {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Self::pseudo_header_v4(source, destination, protocol, length)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Self::pseudo_header_v6(&source, &destination, protocol, length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Self::new(),
        }
    }

    /// As [`Self::pseudo_header`], for IPv4.
    #[must_use]
    #[inline]
    pub fn pseudo_header_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: usize) -> Self {
        let addresses = u64::from(u32::from_ne_bytes(source.octets()))
            + u64::from(u32::from_ne_bytes(destination.octets()));
        Self { sum: addresses + word(u16::from(protocol)) + length_words(length), odd: false }
    }

    /// As [`Self::pseudo_header`], for IPv6.
    #[must_use]
    #[inline]
    pub fn pseudo_header_v6(source: &Ipv6Addr, destination: &Ipv6Addr, protocol: u8, length: usize) -> Self {
        let addresses = sum_words(&source.octets()) + sum_words(&destination.octets());
        Self { sum: addresses + word(u16::from(protocol)) + length_words(length), odd: false }
    }

    /// Adds a byte string. An odd number of bytes before it is taken into account.
    #[inline]
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let sum = sum_words(bytes);
        // Behind an odd number of bytes every byte has the other place in its word (RFC 1071 section 2 (B)).
        self.sum += if self.odd { u64::from(fold(sum).swap_bytes()) } else { sum };
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// Adds a 16-bit number in network byte order, behind an even number of bytes.
    #[inline]
    pub fn add_u16(&mut self, value: u16) {
        self.sum += word(value);
    }

    /// The sum itself, not complemented: what a device that completes the checksum wants to find
    /// in the field.
    #[must_use]
    #[inline]
    pub const fn partial(self) -> u16 {
        u16::from_be(fold(self.sum))
    }

    /// The checksum: the sum's complement. Zero over bytes that include a right checksum.
    #[must_use]
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.partial()
    }

    /// True when the bytes included a right checksum.
    #[must_use]
    #[inline]
    pub const fn is_right(self) -> bool {
        // As finish() == 0: folding keeps the remainder, since 2¹⁶ leaves 1, and only a sum of nothing
        // but zeros folds to zero.
        self.sum.is_multiple_of(0xffff) && self.sum != 0
    }
}

/// A 16-bit number as it would be read from the wire.
#[inline]
const fn word(value: u16) -> u64 {
    value.to_be() as u64
}

/// A 32-bit length as it would be read from the wire.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "no packet has 4 GiB")]
const fn length_words(length: usize) -> u64 {
    (length as u32).to_be() as u64
}

/// True for a sum of words, of which one is not zero, whose checksum is right: in one's complement arithmetic it
/// is zero, which is to be divisible by 65535 (RFC 1071).
#[inline(always)]
pub(crate) const fn is_right_sum(sum: u64) -> bool {
    // Multiples of an odd number, and they alone, times its inverse are no more than the largest quotient: what compilers make
    // of a remainder only when nothing is beside it.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// The checksum of words that were read as the machine reads them and added up.
#[must_use]
#[inline]
pub(crate) const fn of_sum(sum: u64) -> u16 {
    Checksum { sum, odd: false }.finish()
}

/// The checksum of one byte string.
#[must_use]
#[inline]
pub fn of(bytes: &[u8]) -> u16 {
    let mut checksum = Checksum::new();
    checksum.add_bytes(bytes);
    checksum.finish()
}
