//! TCP options: what a header's option bytes say, and how they are written.

use std::time::Duration;

use super::fast_open::FastOpenCookie;
use super::sequence::SequenceNumber;

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;
const WINDOW_SCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const SACK: u8 = 5;
const TIMESTAMP: u8 = 8;
const USER_TIMEOUT: u8 = 28;
const FAST_OPEN: u8 = 34;

const MSS_BYTES: u8 = 4;
const WINDOW_SCALE_BYTES: u8 = 3;
const SACK_PERMITTED_BYTES: u8 = 2;
const TIMESTAMP_BYTES: u8 = 10;
const USER_TIMEOUT_BYTES: u8 = 4;
const SACK_BLOCK_BYTES: usize = 8;
/// Two bytes that align the blocks, the option's kind and its length.
const SACK_LEAD_BYTES: usize = 4;

/// Largest shift of a window (RFC 7323 §2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// Most SACK blocks of a header (RFC 2018 §3).
pub const MAX_SACK_BLOCKS: usize = 4;

/// Most option bytes that [`OptionFields`] writes.
pub const MAX_EMITTED_BYTES: usize = 40;

/// The timestamps option (RFC 7323 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the latest clock value that the sender saw from us.
    pub echo: u32,
}

/// The user timeout option (RFC 5482 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserTimeoutOption(u16);

impl UserTimeoutOption {
    /// The bit that says that the others count minutes.
    const MINUTES: u16 = 1 << 15;

    /// The option for a time, rounded up to seconds, or to minutes when it is long; at most 22 days.
    #[must_use]
    pub fn from_duration(time: Duration) -> Self {
        let seconds = time.as_nanos().div_ceil(1_000_000_000).max(1);
        match u16::try_from(seconds) {
            Ok(seconds) if seconds < Self::MINUTES => Self(seconds),
            _ => {
                let minutes = u16::try_from(seconds.div_ceil(60)).unwrap_or(u16::MAX);
                Self(Self::MINUTES | minutes.min(Self::MINUTES - 1))
            }
        }
    }

    /// The time.
    #[must_use]
    pub const fn duration(self) -> Duration {
        let count = (self.0 & !Self::MINUTES) as u64;
        Duration::from_secs(if self.0 & Self::MINUTES == 0 { count } else { 60 * count })
    }
}

/// Where the value of an option is that has no fixed length: it is read when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionPlace {
    /// Bytes from the first option byte to the value's first.
    pub offset: u8,
    /// Bytes of the value.
    pub len: u8,
}

impl OptionPlace {
    /// The value's bytes, of the option bytes it is in.
    fn of(self, bytes: &[u8]) -> &[u8] {
        let start = usize::from(self.offset);
        bytes.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

/// What a header's options say. An option of an unknown kind is skipped (RFC 9293 §3.1, MUST-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Largest segment the sender takes, as it stands in the header. Only of a SYN.
    pub mss: Option<u16>,
    /// Shift of the sender's later windows, at most [`MAX_WINDOW_SCALE`]. Only of a SYN.
    pub window_scale: Option<u8>,
    /// The timestamps.
    pub timestamp: Option<Timestamp>,
    /// The sender takes selective acknowledgments. Only of a SYN.
    pub sack_permitted: bool,
    /// An option's length was impossible; what stood in front of it was kept. To be counted.
    pub malformed: bool,
    /// The user timeout, never zero.
    pub user_timeout: Option<UserTimeoutOption>,
    /// There is an option that is looked at beside the straight path: the user timeout, or one of those below.
    pub rare: bool,
    /// Where the SACK blocks are, see [`Self::sack_blocks`].
    pub sack: Option<OptionPlace>,
    /// Where the Fast Open cookie is, see [`Self::fast_open_cookie`]. Only of a SYN.
    pub fast_open: Option<OptionPlace>,
}

impl Options {
    /// Reads option bytes. Nothing in them makes the segment invalid: an option of a known kind with
    /// a wrong length is skipped, a length that leads nowhere ends the reading (RFC 9293 §3.1,
    /// MUST-7), and both set [`Self::malformed`].
    ///
    /// Options that belong on a SYN are left out of other segments (RFC 9293 §3.7.1, RFC 7323 §2.2,
    /// RFC 2018 §2).
    #[inline]
    #[must_use]
    pub fn parse(bytes: &[u8], syn: bool) -> Self {
        let mut options = Self::default();
        options.read(bytes, syn);
        options
    }

    /// As [`Self::parse`], in place: a value that is put together in one of several branches is moved more often
    /// than it is worth.
    #[inline(always)]
    fn read(&mut self, bytes: &[u8], syn: bool) {
        // What nearly every segment of a connection with timestamps carries (RFC 7323 appendix A).
        if let &[NO_OPERATION, NO_OPERATION, TIMESTAMP, TIMESTAMP_BYTES, v0, v1, v2, v3, e0, e1, e2, e3] =
            bytes
        {
            let timestamp = Timestamp {
                value: u32::from_be_bytes([v0, v1, v2, v3]),
                echo: u32::from_be_bytes([e0, e1, e2, e3]),
            };
            self.timestamp = Some(timestamp);
        } else if !bytes.is_empty() {
            self.read_list(bytes, syn);
        }
    }

    #[cold]
    fn read_list(&mut self, bytes: &[u8], syn: bool) {
        let mut rest = bytes;
        while let Some((&kind, after_kind)) = rest.split_first() {
            if kind == END_OF_LIST {
                break;
            }
            if kind == NO_OPERATION {
                rest = after_kind;
                continue;
            }
            let len = after_kind.first().map_or(0, |&len| usize::from(len));
            let (Some(data), Some(behind)) = (rest.get(2..len), rest.get(len..)) else {
                self.malformed = true;
                break;
            };
            self.take(kind, data, bytes.len() - rest.len(), syn);
            rest = behind;
        }
    }

    /// Takes over one option. `data` is what follows kind and length, `offset` where its kind is.
    fn take(&mut self, kind: u8, data: &[u8], offset: usize, syn: bool) {
        match (kind, data) {
            (MAXIMUM_SEGMENT_SIZE, &[high, low]) => {
                self.mss = syn.then_some(u16::from_be_bytes([high, low])).or(self.mss);
            }
            (WINDOW_SCALE, &[shift]) => {
                // A larger shift is used as 14 (RFC 7323 §2.3).
                self.window_scale = syn.then_some(shift.min(MAX_WINDOW_SCALE)).or(self.window_scale);
            }
            (SACK_PERMITTED, []) => self.sack_permitted |= syn,
            (TIMESTAMP, &[v0, v1, v2, v3, e0, e1, e2, e3]) => {
                self.timestamp = Some(Timestamp {
                    value: u32::from_be_bytes([v0, v1, v2, v3]),
                    echo: u32::from_be_bytes([e0, e1, e2, e3]),
                });
            }
            (SACK, blocks) if !blocks.is_empty() && blocks.len() % SACK_BLOCK_BYTES == 0 => {
                // Options take at most 40 bytes: both numbers fit.
                self.sack = Some(OptionPlace { offset: offset as u8 + 2, len: blocks.len() as u8 });
                self.rare = true;
            }
            // RFC 5482 §3.1: a timeout of zero is to be ignored.
            (USER_TIMEOUT, &[high, low]) if u16::from_be_bytes([high & 0x7f, low]) == 0 => {}
            (USER_TIMEOUT, &[high, low]) => {
                self.user_timeout = Some(UserTimeoutOption(u16::from_be_bytes([high, low])));
                self.rare = true;
            }
            (FAST_OPEN, _) if !syn => {}
            (FAST_OPEN, cookie) if FastOpenCookie::is_length(cookie.len()) => {
                // As above.
                self.fast_open = Some(OptionPlace { offset: offset as u8 + 2, len: cookie.len() as u8 });
                self.rare = true;
            }
            (
                MAXIMUM_SEGMENT_SIZE | WINDOW_SCALE | SACK_PERMITTED | TIMESTAMP | SACK | USER_TIMEOUT
                | FAST_OPEN,
                _,
            ) => self.malformed = true,
            _unknown => {}
        }
    }

    /// The SACK blocks as start and end (RFC 2018 §3), in the header's order and unchecked. `bytes`
    /// are the option bytes that this was parsed from.
    pub fn sack_blocks<'a>(
        &self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (SequenceNumber, SequenceNumber)> + use<'a> {
        let blocks = self.sack.map_or(&[][..], |place| place.of(bytes));
        blocks.chunks_exact(SACK_BLOCK_BYTES).filter_map(|block| {
            let (start, end) = block.split_first_chunk::<4>()?;
            let end = end.first_chunk::<4>()?;
            let number = |bytes: &[u8; 4]| SequenceNumber::new(u32::from_be_bytes(*bytes));
            Some((number(start), number(end)))
        })
    }

    /// The Fast Open cookie, or the request for one (RFC 7413 §4.1.1). `bytes` as for [`Self::sack_blocks`].
    #[must_use]
    pub fn fast_open_cookie(&self, bytes: &[u8]) -> Option<FastOpenCookie> {
        FastOpenCookie::new(self.fast_open?.of(bytes))
    }
}

/// Options to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OptionFields<'a> {
    /// Largest segment we take. For a SYN.
    pub mss: Option<u16>,
    /// Shift of our later windows. For a SYN.
    pub window_scale: Option<u8>,
    /// We take selective acknowledgments. For a SYN.
    pub sack_permitted: bool,
    /// The timestamps.
    pub timestamp: Option<Timestamp>,
    /// The user timeout.
    pub user_timeout: Option<UserTimeoutOption>,
    /// The Fast Open cookie, or the request for one. For a SYN.
    pub fast_open: Option<&'a FastOpenCookie>,
    /// SACK blocks, at most [`MAX_SACK_BLOCKS`], and one less beside timestamps: what is more is left out.
    pub sack: &'a [(SequenceNumber, SequenceNumber)],
}

impl OptionFields<'_> {
    /// Bytes the options take, padding included: a multiple of 4, at most [`MAX_EMITTED_BYTES`].
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        let mss = if self.mss.is_some() { 4 } else { 0 };
        let window_scale = if self.window_scale.is_some() { 4 } else { 0 };
        // The two bytes of SACK-permitted take the place of the padding in front of timestamps.
        let timestamp_and_sack = match (self.timestamp.is_some(), self.sack_permitted) {
            (true, _) => 12,
            (false, true) => 4,
            (false, false) => 0,
        };
        let fast_open = match self.fast_open {
            Some(cookie) => (2 + cookie.len()).next_multiple_of(4),
            None => 0,
        };
        let user_timeout = if self.user_timeout.is_some() { 4 } else { 0 };
        let front = mss + timestamp_and_sack + window_scale + user_timeout + fast_open;
        if self.sack.is_empty() { front } else { front + self.sack_bytes(front) }
    }

    /// Bytes of the SACK option and what aligns it, behind `front` bytes of other options.
    const fn sack_bytes(&self, front: usize) -> usize {
        let room = (MAX_EMITTED_BYTES - front).saturating_sub(SACK_LEAD_BYTES) / SACK_BLOCK_BYTES;
        let blocks = if self.sack.len() < room { self.sack.len() } else { room };
        if blocks == 0 { 0 } else { SACK_LEAD_BYTES + blocks * SACK_BLOCK_BYTES }
    }

    /// True when there is no option to write.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes the options to the front of `out`, which must have room for [`Self::len`] bytes;
    /// else nothing is written. Returns how many bytes were.
    #[inline]
    pub fn emit(&self, out: &mut [u8]) -> usize {
        let len = self.len();
        let Some(mut out) = out.get_mut(..len) else {
            return 0;
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            out = write(out, [MAXIMUM_SEGMENT_SIZE, MSS_BYTES, high, low]);
        }
        if self.timestamp.is_some() || self.sack_permitted {
            let lead =
                if self.sack_permitted { [SACK_PERMITTED, SACK_PERMITTED_BYTES] } else { [NO_OPERATION; 2] };
            out = write(out, lead);
        }
        if let Some(Timestamp { value, echo }) = self.timestamp {
            out = write(out, [TIMESTAMP, TIMESTAMP_BYTES]);
            out = write(out, value.to_be_bytes());
            out = write(out, echo.to_be_bytes());
        } else if self.sack_permitted {
            out = write(out, [NO_OPERATION; 2]);
        }
        if let Some(shift) = self.window_scale {
            out = write(out, [NO_OPERATION, WINDOW_SCALE, WINDOW_SCALE_BYTES, shift]);
        }
        if let Some(UserTimeoutOption(value)) = self.user_timeout {
            let [high, low] = value.to_be_bytes();
            out = write(out, [USER_TIMEOUT, USER_TIMEOUT_BYTES, high, low]);
        }
        if let Some(cookie) = self.fast_open {
            out = emit_fast_open(cookie, out);
        }
        if !self.sack.is_empty() {
            self.emit_sack(out);
        }
        len
    }

    /// Writes the SACK option over all of `out`, which [`Self::len`] made as long as it is.
    #[cold]
    fn emit_sack(&self, mut out: &mut [u8]) {
        let blocks = out.len().saturating_sub(SACK_LEAD_BYTES) / SACK_BLOCK_BYTES;
        // Options take at most 40 bytes.
        #[allow(clippy::cast_possible_truncation)]
        let len = (2 + blocks * SACK_BLOCK_BYTES) as u8;
        out = write(out, [NO_OPERATION, NO_OPERATION, SACK, len]);
        for (start, end) in self.sack.iter().take(blocks) {
            out = write(out, start.raw().to_be_bytes());
            out = write(out, end.raw().to_be_bytes());
        }
    }
}

/// Writes a cookie behind what aligns its end.
#[cold]
fn emit_fast_open<'a>(cookie: &FastOpenCookie, out: &'a mut [u8]) -> &'a mut [u8] {
    let bytes = 2 + cookie.len();
    let padding = bytes.next_multiple_of(4) - bytes;
    let Some((place, rest)) = out.split_at_mut_checked(padding + bytes) else { return &mut [] };
    let (front, option) = place.split_at_mut(padding);
    front.fill(NO_OPERATION);
    // Options take at most 40 bytes.
    #[allow(clippy::cast_possible_truncation)]
    let option = write(option, [FAST_OPEN, bytes as u8]);
    option.copy_from_slice(cookie.as_bytes());
    rest
}

/// Writes `bytes` to the front of `out` and returns what is behind them.
#[inline]
fn write<const N: usize>(out: &mut [u8], bytes: [u8; N]) -> &mut [u8] {
    match out.split_first_chunk_mut::<N>() {
        Some((place, rest)) => {
            *place = bytes;
            rest
        }
        None => &mut [],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAMP: Timestamp = Timestamp { value: 0x0102_0304, echo: 0x0506_0708 };
    const STAMP_OPTION: [u8; 10] = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

    fn join(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn reads_what_peers_send() {
        let stamped = Options { timestamp: Some(STAMP), ..Options::default() };
        let malformed = Options { malformed: true, ..Options::default() };
        let mss = Options { mss: Some(1460), ..Options::default() };
        let cases: &[(&str, Vec<u8>, Options)] = &[
            ("none", vec![], Options::default()),
            ("timestamps aligned", join(&[&[1, 1], &STAMP_OPTION]), stamped),
            ("timestamps unaligned", join(&[&STAMP_OPTION, &[1, 1]]), stamped),
            ("timestamps behind an end", join(&[&[0, 0], &STAMP_OPTION]), Options::default()),
            (
                "a Linux SYN",
                join(&[&[2, 4, 5, 180, 4, 2], &STAMP_OPTION, &[1, 3, 3, 7]]),
                Options {
                    mss: Some(1460),
                    window_scale: Some(7),
                    timestamp: Some(STAMP),
                    sack_permitted: true,
                    ..Options::default()
                },
            ),
            ("unknown kind skipped", join(&[&[254, 4, 9, 9, 99, 2], &[2, 4, 5, 180, 0, 0]]), mss),
            (
                "window scale of 15",
                vec![3, 3, 15, 0],
                Options { window_scale: Some(14), ..Options::default() },
            ),
            ("length 0", vec![2, 4, 5, 180, 77, 0, 1, 1], Options { malformed: true, ..mss }),
            ("length 1", vec![2, 4, 5, 180, 77, 1, 1, 1], Options { malformed: true, ..mss }),
            ("length beyond the end", vec![2, 4, 5, 180, 77, 5, 1, 1], Options { malformed: true, ..mss }),
            ("no length", vec![1, 1, 1, 2], malformed),
            (
                "MSS of a wrong length",
                vec![2, 3, 5, 1, 3, 3, 2, 0],
                Options { window_scale: Some(2), ..malformed },
            ),
            ("timestamps of a wrong length", join(&[&[8, 9, 1, 2, 3, 4, 5, 6, 7], &[0; 3]]), malformed),
            ("half a SACK block", vec![5, 6, 1, 2, 3, 4, 0, 0], malformed),
            ("no SACK block", vec![5, 2, 0, 0], malformed),
        ];
        for (name, bytes, expected) in cases {
            assert_eq!(Options::parse(bytes, true), *expected, "{name}");
        }
    }

    #[test]
    fn options_of_a_syn_do_not_count_elsewhere() {
        let bytes = join(&[&[2, 4, 5, 180, 4, 2], &STAMP_OPTION, &[1, 3, 3, 7]]);
        let options = Options::parse(&bytes, false);
        assert_eq!(options, Options { timestamp: Some(STAMP), ..Options::default() });
    }

    #[test]
    fn sack_blocks_come_in_the_order_of_the_header() {
        let bytes = join(&[
            &[1, 1],
            &STAMP_OPTION,
            &[1, 1, 5, 18],
            &[0, 0, 0, 9, 0, 0, 0, 12],
            &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1],
        ]);
        let options = Options::parse(&bytes, false);
        assert!(options.sack.is_some() && !options.malformed);
        let blocks: Vec<_> =
            options.sack_blocks(&bytes).map(|(start, end)| (start.raw(), end.raw())).collect();
        assert_eq!(blocks, [(9, 12), (u32::MAX, 1)]);
        assert_eq!(Options::default().sack_blocks(&bytes).count(), 0);
    }

    #[test]
    fn a_user_timeout_is_in_seconds_or_in_minutes_when_it_is_long() {
        let days = Duration::from_secs(86_400);
        for (time, bytes, read) in [
            (Duration::from_millis(1), [0, 1], Duration::from_secs(1)),
            (Duration::from_millis(90_001), [0, 91], Duration::from_secs(91)),
            (Duration::from_secs(32_767), [0x7f, 0xff], Duration::from_secs(32_767)),
            (Duration::from_secs(32_768), [0x82, 0x23], Duration::from_secs(60 * 547)),
            (days * 90, [0xff, 0xff], Duration::from_secs(60 * 32_767)),
        ] {
            let option = UserTimeoutOption::from_duration(time);
            assert_eq!((option.0.to_be_bytes(), option.duration()), (bytes, read), "{time:?}");
        }
        for zero in [[28, 4, 0, 0], [28, 4, 0x80, 0]] {
            assert_eq!(Options::parse(&zero, false), Options::default(), "{zero:?}");
        }
    }

    #[test]
    fn options_are_written_aligned() {
        let syn = OptionFields {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamp: Some(STAMP),
            user_timeout: None,
            fast_open: None,
            sack: &[],
        };
        let cookie = FastOpenCookie::new(&[9, 8, 7, 6, 5, 4]).unwrap();
        let none = OptionFields::default();
        let cases: &[(OptionFields<'_>, Vec<u8>)] = &[
            (none, vec![]),
            (OptionFields { timestamp: Some(STAMP), ..none }, join(&[&[1, 1], &STAMP_OPTION])),
            (syn, join(&[&[2, 4, 5, 180, 4, 2], &STAMP_OPTION, &[1, 3, 3, 7]])),
            (OptionFields { timestamp: None, ..syn }, vec![2, 4, 5, 180, 4, 2, 1, 1, 1, 3, 3, 7]),
            (OptionFields { mss: Some(536), ..none }, vec![2, 4, 2, 24]),
            (OptionFields { user_timeout: Some(UserTimeoutOption(300)), ..none }, vec![28, 4, 0x01, 0x2c]),
            (OptionFields { fast_open: Some(&cookie), ..none }, vec![34, 8, 9, 8, 7, 6, 5, 4]),
            (OptionFields { fast_open: Some(&FastOpenCookie::REQUEST), ..none }, vec![1, 1, 34, 2]),
        ];
        let numbers = |(start, end): (u32, u32)| (SequenceNumber::new(start), SequenceNumber::new(end));
        let blocks = [(1, 2), (u32::MAX, 4), (5, 6), (7, 8), (9, 10)].map(numbers);
        let bytes: [&[u8]; 4] = [
            &[0, 0, 0, 1, 0, 0, 0, 2],
            &[255, 255, 255, 255, 0, 0, 0, 4],
            &[0, 0, 0, 5, 0, 0, 0, 6],
            &[0, 0, 0, 7, 0, 0, 0, 8],
        ];
        let stamped = OptionFields { timestamp: Some(STAMP), ..none };
        let selective: &[(OptionFields<'_>, Vec<u8>)] = &[
            (OptionFields { sack: &blocks[..1], ..none }, join(&[&[1, 1, 5, 10], bytes[0]])),
            (OptionFields { sack: &blocks, ..none }, join(&[&[1, 1, 5, 34], &bytes.concat()])),
            (
                OptionFields { sack: &blocks, ..stamped },
                join(&[&[1, 1], &STAMP_OPTION, &[1, 1, 5, 26], &bytes[..3].concat()]),
            ),
        ];
        for (fields, bytes) in cases.iter().chain(selective) {
            let mut out = [0xaa; 40];
            assert_eq!(fields.emit(&mut out), bytes.len());
            assert_eq!(&out[..bytes.len()], bytes, "{fields:?}");
            assert!(out[bytes.len()..].iter().all(|&byte| byte == 0xaa));
            assert_eq!((fields.len(), fields.is_empty()), (bytes.len(), bytes.is_empty()));
        }
        assert_eq!(syn.emit(&mut [0; 19]), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..=40), syn: bool) {
            let options = Options::parse(&bytes, syn);
            prop_assert!(options.window_scale.is_none_or(|shift| shift <= MAX_WINDOW_SCALE));
            prop_assert!(options.sack_blocks(&bytes).count() <= 4);
        }

        #[test]
        fn what_is_written_is_read_back(
            mss: Option<u16>,
            window_scale in prop::option::of(0_u8..=MAX_WINDOW_SCALE),
            sack_permitted: bool,
            stamps: Option<(u32, u32)>,
            seconds in prop::option::of(0_u64..1 << 22),
            cookie in prop::option::of(prop::collection::vec(any::<u8>(), 0..=16)),
        ) {
            let timestamp = stamps.map(|(value, echo)| Timestamp { value, echo });
            let cookie = cookie.and_then(|bytes| FastOpenCookie::new(&bytes));
            let mut out = [0; MAX_EMITTED_BYTES];
            let fast_open = cookie.as_ref();
            // As in a SYN: there is no room for both.
            let user_timeout = seconds.filter(|_| cookie.is_none());
            let user_timeout =
                user_timeout.map(|seconds| UserTimeoutOption::from_duration(Duration::from_secs(seconds)));
            let fields = OptionFields {
                mss, window_scale, sack_permitted, timestamp, user_timeout, fast_open, sack: &[],
            };
            let len = fields.emit(&mut out);
            let read = Options::parse(&out[..len], true);
            prop_assert_eq!(read.fast_open_cookie(&out[..len]), cookie);
            let rare = cookie.is_some() || user_timeout.is_some();
            let expected = Options {
                mss, window_scale, timestamp, sack_permitted, user_timeout, rare, ..Options::default()
            };
            prop_assert_eq!(Options { fast_open: None, ..read }, expected);
        }
    }
}
