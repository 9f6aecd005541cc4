//! Initial sequence numbers that nobody else can guess (RFC 6528), and timestamp offsets.

use std::net::{IpAddr, SocketAddr};

use libos::Instant;
use siphasher::sip::SipHasher24;

use super::sequence::SequenceNumber;

/// The clock M of RFC 6528 §3 (and RFC 9293 §3.4.1) ticks every 4 us.
const TICK_NS: u64 = 4_000;

/// What a hash is for: they must not tell anything about each other.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    SequenceNumber = 1,
    TimestampOffset = 2,
    ListenerChoice = 3,
}

/// Draws initial sequence numbers: a clock plus a keyed hash of the connection's ends.
///
/// The clock makes a new connection between the same ends start behind the old one's numbers; the
/// hash, SipHash-2-4 under a secret key, hides from anyone else where that is.
#[derive(Clone)]
pub struct IsnGenerator {
    hasher: SipHasher24,
}

impl IsnGenerator {
    /// A generator with a secret drawn from the stack's random generator.
    #[must_use]
    pub fn new(secret: [u8; 16]) -> Self {
        Self { hasher: SipHasher24::new_with_key(&secret) }
    }

    /// ISN = M + F(local address and port, remote address and port, secret) (RFC 6528 §3).
    #[must_use]
    pub fn generate(&self, now: Instant, local: SocketAddr, remote: SocketAddr) -> SequenceNumber {
        // The clock wraps every 4.77 hours, which is its purpose.
        #[allow(clippy::cast_possible_truncation)]
        let clock = (now.as_nanos() / TICK_NS) as u32;
        SequenceNumber::new(self.hash(Purpose::SequenceNumber, local, remote)) + clock
    }

    /// What a connection adds to the clock of its timestamps, so that they tell nothing about the
    /// machine (RFC 7323 §5.4) and yet only go forward from one connection to the next between the
    /// same ends (RFC 6191 §2).
    #[must_use]
    pub fn timestamp_offset(&self, local: SocketAddr, remote: SocketAddr) -> u32 {
        self.hash(Purpose::TimestampOffset, local, remote)
    }

    /// Which of several listeners on one port a peer gets: uniform, and the same each time.
    #[must_use]
    pub fn listener_choice(&self, local: SocketAddr, remote: SocketAddr) -> u32 {
        self.hash(Purpose::ListenerChoice, local, remote)
    }

    fn hash(&self, purpose: Purpose, local: SocketAddr, remote: SocketAddr) -> u32 {
        let mut message = [0; 37];
        message[0] = purpose as u8;
        message[1..17].copy_from_slice(&octets(local.ip()));
        message[17..33].copy_from_slice(&octets(remote.ip()));
        message[33..35].copy_from_slice(&local.port().to_be_bytes());
        message[35..].copy_from_slice(&remote.port().to_be_bytes());
        let [h0, h1, h2, h3, ..] = self.hasher.hash(&message).to_ne_bytes();
        u32::from_ne_bytes([h0, h1, h2, h3])
    }
}

/// The key stays out of logs.
impl std::fmt::Debug for IsnGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IsnGenerator").finish_non_exhaustive()
    }
}

pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const LOCAL: &str = "192.0.2.1:80";
    const REMOTE: &str = "198.51.100.7:40000";

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_clock_moves_a_connections_numbers_on_every_four_microseconds() {
        let generator = IsnGenerator::new([7; 16]);
        let at = |ns| generator.generate(Instant::from_nanos(ns), end(LOCAL), end(REMOTE));
        let start = at(0);
        for (ns, ticks) in
            [(3_999, 0), (4_000, 1), (1_000_000_000, 250_000), (4_000 << 32, 0), ((4_000 << 32) + 8_000, 2)]
        {
            assert_eq!(at(ns).distance_from(start), ticks, "{ns} ns");
        }
    }

    #[test]
    fn every_end_the_secret_and_the_purpose_change_the_number() {
        let pairs = [
            (LOCAL, REMOTE),
            (REMOTE, LOCAL),
            ("192.0.2.2:80", REMOTE),
            ("192.0.2.1:81", REMOTE),
            (LOCAL, "198.51.100.8:40000"),
            (LOCAL, "198.51.100.7:40001"),
            ("[2001:db8::1]:80", "[2001:db8::2]:40000"),
        ];
        let mut seen = HashSet::new();
        for secret in [[0; 16], [1; 16]] {
            let generator = IsnGenerator::new(secret);
            for (local, remote) in pairs {
                let (local, remote) = (end(local), end(remote));
                let number = generator.generate(Instant::ZERO, local, remote).raw();
                assert!(seen.insert(number), "{local} {remote}");
                assert_eq!(generator.generate(Instant::ZERO, local, remote).raw(), number);
                assert!(seen.insert(generator.timestamp_offset(local, remote)), "{local} {remote}");
            }
        }
    }

    #[test]
    fn numbers_of_neighbouring_connections_are_spread() {
        let generator = IsnGenerator::new([9; 16]);
        let bits: u32 = (0..1_000)
            .map(|port| {
                let number = |port: u16| {
                    generator.generate(Instant::ZERO, end(LOCAL), (end(REMOTE).ip(), port).into()).raw()
                };
                (number(port) ^ number(port + 1)).count_ones()
            })
            .sum();
        // Half of 32 bits differ on average; 1,000 pairs stay within a few percent of that.
        assert!((15_500..16_500).contains(&bits), "{bits}");
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", IsnGenerator::new([1; 16])), "IsnGenerator { .. }");
    }
}
