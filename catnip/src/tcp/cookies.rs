//! SYN cookies (RFC 4987, section 3.6): answering SYNs without keeping anything about them.
//!
//! While a listener's backlog is full, the answer's sequence number carries what has to be known when the
//! handshake completes: three bits name the peer's segment size, 29 are a keyed hash of both ends, the peer's
//! sequence number, the size and a clock of 64 seconds. The window scale and whether the peer takes selective
//! acknowledgments ride in the lowest bits of the answer's timestamp, which the peer echoes; without timestamps
//! both are given up, as the options of a connection that might not be there otherwise.

use std::net::SocketAddr;

use libos::Instant;
use siphasher::sip::SipHasher24;

use super::options::{MAX_WINDOW_SCALE, Options, Timestamp};
use super::sequence::SequenceNumber;

/// How long a period of the cookies' clock is. A cookie is taken in its own period and in the next.
const PERIOD_NS: u64 = 64 * 1_000_000_000;

/// After its last cookie was sent, how long a listener goes on looking for cookies in acknowledgments: any later
/// one is not taken anyway, and nobody shall have longer to guess.
pub(super) const LIFETIME_NS: u64 = 2 * PERIOD_NS;

/// Bits of a cookie that name an entry of [`SEGMENT_SIZES`].
const SIZE_BITS: u32 = 3;
const HASH_MASK: u32 = u32::MAX >> SIZE_BITS;

/// Segment sizes that a cookie can express: the smallest we use, the defaults of both families, and what
/// tunnels, Ethernet and its larger frames leave.
const SEGMENT_SIZES: [u16; 1 << SIZE_BITS] = [36, 536, 1220, 1360, 1400, 1440, 1460, 8960];

/// Bits of a timestamp that carry options: four for the scale, one for SACK.
const OPTION_BITS: u32 = 5;
const OPTION_MASK: u32 = (1 << OPTION_BITS) - 1;
const SCALE_MASK: u32 = 0xf;
const SACK_BIT: u32 = 0x10;
/// The scale's value for a peer that does not scale.
const NO_SCALE: u32 = SCALE_MASK;

/// Makes and checks cookies under a secret of its own.
#[derive(Clone)]
pub(super) struct CookieJar {
    hasher: SipHasher24,
}

impl CookieJar {
    pub(super) fn new(secret: [u8; 16]) -> Self {
        Self { hasher: SipHasher24::new_with_key(&secret) }
    }

    /// The sequence number that answers a SYN from `remote` with the number `peer_isn`, whose sender takes
    /// segments of `mss` bytes.
    pub(super) fn bake(
        &self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        peer_isn: SequenceNumber,
        mss: u16,
    ) -> SequenceNumber {
        let size = SEGMENT_SIZES.partition_point(|&size| size <= mss).saturating_sub(1);
        // An index of eight entries.
        #[allow(clippy::cast_possible_truncation)]
        let size = size as u32;
        SequenceNumber::new(
            size << HASH_MASK.count_ones() | self.hash(period(now), local, remote, peer_isn, size),
        )
    }

    /// The segment size in `cookie`, if it is one of ours and not too old.
    pub(super) fn check(
        &self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        peer_isn: SequenceNumber,
        cookie: SequenceNumber,
    ) -> Option<u16> {
        let size = cookie.raw() >> HASH_MASK.count_ones();
        let hash = cookie.raw() & HASH_MASK;
        let now = period(now);
        let is_ours = [Some(now), now.checked_sub(1)]
            .into_iter()
            .flatten()
            .any(|period| self.hash(period, local, remote, peer_isn, size) == hash);
        SEGMENT_SIZES.get(size as usize).copied().filter(|_| is_ours)
    }

    fn hash(
        &self,
        period: u64,
        local: SocketAddr,
        remote: SocketAddr,
        peer_isn: SequenceNumber,
        size: u32,
    ) -> u32 {
        let mut message = [0; 52];
        message[..16].copy_from_slice(&super::isn::octets(local.ip()));
        message[16..32].copy_from_slice(&super::isn::octets(remote.ip()));
        message[32..34].copy_from_slice(&local.port().to_be_bytes());
        message[34..36].copy_from_slice(&remote.port().to_be_bytes());
        message[36..40].copy_from_slice(&peer_isn.raw().to_be_bytes());
        message[40..44].copy_from_slice(&size.to_be_bytes());
        message[44..].copy_from_slice(&period.to_be_bytes());
        let [h0, h1, h2, h3, ..] = self.hasher.hash(&message).to_ne_bytes();
        u32::from_ne_bytes([h0, h1, h2, h3]) & HASH_MASK
    }
}

/// The key stays out of logs.
impl std::fmt::Debug for CookieJar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CookieJar").finish_non_exhaustive()
    }
}

const fn period(now: Instant) -> u64 {
    now.as_nanos() / PERIOD_NS
}

/// The clock value `clock` of a timestamp with what `syn` says of scale and SACK in its lowest bits. Never ahead
/// of `clock`, so that the connection's later timestamps do not go back.
pub(super) fn timestamp_with(clock: u32, syn: &Options) -> u32 {
    let scale = syn.window_scale.map_or(NO_SCALE, |scale| u32::from(scale.min(MAX_WINDOW_SCALE)));
    let bits = scale | if syn.sack_permitted { SACK_BIT } else { 0 };
    let value = clock & !OPTION_MASK | bits;
    if value > clock { value.wrapping_sub(1 << OPTION_BITS) } else { value }
}

/// The options of the SYN that a completed handshake's segment stands for.
pub(super) fn options_of(mss: u16, acknowledgment: &Options) -> Options {
    let bits = acknowledgment.timestamp.map_or(NO_SCALE, |timestamp| timestamp.echo & OPTION_MASK);
    let scale = match bits & SCALE_MASK {
        NO_SCALE => None,
        // Four bits fit into eight.
        #[allow(clippy::cast_possible_truncation)]
        scale => Some((scale as u8).min(MAX_WINDOW_SCALE)),
    };
    Options {
        mss: Some(mss),
        window_scale: scale,
        sack_permitted: bits & SACK_BIT != 0,
        timestamp: acknowledgment.timestamp.map(|Timestamp { value, .. }| Timestamp { value, echo: 0 }),
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LOCAL: &str = "192.0.2.1:80";
    const REMOTE: &str = "198.51.100.7:40000";
    const ISN: SequenceNumber = SequenceNumber::new(77);

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn at_s(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1_000)
    }

    #[test]
    fn a_cookie_is_taken_in_its_period_and_the_next() {
        let jar = CookieJar::new([7; 16]);
        let baked = jar.bake(at_s(64), end(LOCAL), end(REMOTE), ISN, 1_460);
        for (seconds, mss) in
            [(64, Some(1_460)), (127, Some(1_460)), (191, Some(1_460)), (192, None), (63, None)]
        {
            assert_eq!(jar.check(at_s(seconds), end(LOCAL), end(REMOTE), ISN, baked), mss, "{seconds} s");
        }
    }

    #[test]
    fn everything_that_goes_into_a_cookie_has_to_be_right() {
        let jar = CookieJar::new([7; 16]);
        let now = at_s(100);
        let cookie = jar.bake(now, end(LOCAL), end(REMOTE), ISN, 1_460);
        let other_size = SequenceNumber::new(cookie.raw() ^ 1 << 29);
        for (name, local, remote, isn, cookie) in [
            ("port", "192.0.2.1:81", REMOTE, ISN, cookie),
            ("address", LOCAL, "198.51.100.8:40000", ISN, cookie),
            ("number", LOCAL, REMOTE, ISN + 1, cookie),
            ("cookie", LOCAL, REMOTE, ISN, cookie + 1),
            ("size", LOCAL, REMOTE, ISN, other_size),
        ] {
            assert_eq!(jar.check(now, end(local), end(remote), isn, cookie), None, "{name}");
        }
        let other = CookieJar::new([8; 16]);
        assert_eq!(other.check(now, end(LOCAL), end(REMOTE), ISN, cookie), None, "secret");
    }

    #[test]
    fn the_segment_size_is_rounded_down_to_one_that_is_known() {
        let jar = CookieJar::new([7; 16]);
        for (mss, known) in
            [(0, 36), (36, 36), (535, 36), (536, 536), (1_459, 1_440), (1_460, 1_460), (9_000, 8_960)]
        {
            let cookie = jar.bake(at_s(1), end(LOCAL), end(REMOTE), ISN, mss);
            assert_eq!(jar.check(at_s(1), end(LOCAL), end(REMOTE), ISN, cookie), Some(known), "{mss}");
        }
    }

    proptest! {
        #[test]
        fn options_come_back_and_the_clock_never_goes_ahead(
            clock: u32, scale in prop::option::of(0_u8..15), sack: bool,
        ) {
            let syn = Options { window_scale: scale, sack_permitted: sack, ..Options::default() };
            let value = timestamp_with(clock, &syn);
            prop_assert!(clock.wrapping_sub(value) < 2 << OPTION_BITS);
            let timestamp = Some(Timestamp { value: 9, echo: value });
            let options = options_of(1_400, &Options { timestamp, ..Options::default() });
            prop_assert_eq!((options.window_scale, options.sack_permitted), (scale, sack));
            prop_assert_eq!((options.mss, options.timestamp.map(|stamp| stamp.value)), (Some(1_400), Some(9)));
        }
    }
}
