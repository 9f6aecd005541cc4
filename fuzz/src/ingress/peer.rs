//! What the far ends of the stack's connections know, from what the stack sent.

use std::collections::BTreeMap;

use super::action::{Family, Listed, Options, Place, Setup};
use super::packet::Sent;
use super::pattern::sent_bytes;
use super::received::Received;
use super::traffic::FIRST_FLOOD_PORT;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;
const ECE: u8 = 64;
const CWR: u8 = 128;

/// The cookie that the peers give as Fast Open's servers.
const PEER_COOKIE: [u8; 8] = [0x5a; 8];

/// Most connections remembered; the oldest give way to none.
const MAX_ENDS: usize = 32;

/// How many of the stack's initial sequence numbers are remembered for one connection.
const ISS_REMEMBERED: usize = 4;

/// A connection's ports and family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tuple {
    pub family: Family,
    pub local_port: u16,
    pub remote_port: u16,
}

/// The far end of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct End {
    /// The stack's latest initial sequence numbers: an answer made of a cookie leaves no connection behind, so
    /// which of several will stand cannot be seen.
    pub iss: [Option<u32>; ISS_REMEMBERED],
    /// The number after the highest one that the stack sent.
    pub snd_max: u32,
    /// What the stack expects next, as it said last.
    pub rcv_nxt: u32,
    /// The stack's latest timestamp.
    pub timestamp: u32,
    /// What arrived.
    pub received: Received,
    /// Its SYN asked for a Fast Open cookie.
    pub asks_cookie: bool,
    /// The cookie that the stack gave the peers of this family.
    pub cookie: Option<Cookie>,
}

/// A Fast Open cookie of the stack's.
pub type Cookie = [u8; 8];

/// Options of a SYN but the timestamps: MSS, window scale, SACK permitted.
const OF_A_SYN: [u8; 12] = [2, 4, 5, 0xb4, 1, 3, 3, 4, 1, 1, 4, 2];

/// All far ends.
#[derive(Debug, Default)]
pub struct Ends {
    ends: BTreeMap<Tuple, End>,
    /// Which segments are lost: the lowest bit is the next one's.
    losses: u32,
    cookies: BTreeMap<Family, Cookie>,
    ecn: bool,
}

impl Ends {
    pub fn of(setup: Setup) -> Self {
        Self { ecn: setup.ecn_peers, ..Self::default() }
    }

    /// Flags of a SYN, and of the answer to one, that are about congestion marks (RFC 3168, section 6.1.1).
    pub fn ecn_question(&self) -> u8 {
        if self.ecn { ECE | CWR } else { 0 }
    }

    pub fn ecn_answer(&self) -> u8 {
        if self.ecn { ECE } else { 0 }
    }

    /// The cookie that the stack gave the peer of this family.
    pub fn cookie(&self, family: Family) -> Option<Cookie> {
        self.cookies.get(&family).copied()
    }

    /// Connections known.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The connection that `number` picks.
    pub fn pick(&self, number: u8) -> Option<(Tuple, End)> {
        let at = usize::from(number) % self.ends.len().max(1);
        self.ends.iter().nth(at).map(|(tuple, end)| (*tuple, *end))
    }

    /// Loses segments by this pattern from now on.
    pub fn lose(&mut self, pattern: u32) {
        self.losses = pattern;
    }

    /// Makes a connection known before the stack has said anything about it.
    pub fn expect(&mut self, tuple: Tuple, rcv_nxt: u32) {
        if self.ends.len() < MAX_ENDS && tuple.remote_port < FIRST_FLOOD_PORT {
            let end = self.ends.entry(tuple).or_default();
            end.rcv_nxt = rcv_nxt;
        }
    }

    /// Takes note of a segment that the stack sent, and checks it.
    pub fn see(&mut self, sent: &Sent<'_>) {
        let tcp = sent.payload;
        assert!(tcp.len() >= 20);
        let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
        let port = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let header_len = usize::from(tcp[12] >> 4) * 4;
        assert!((20..=tcp.len()).contains(&header_len));
        let flags = tcp[13];
        assert!(flags & (SYN | FIN) != SYN | FIN, "SYN and FIN were sent together");
        assert!(flags & (SYN | ACK | RST) != 0, "a segment without SYN, ACK and RST was sent");
        let options = check_options(&tcp[20..header_len], flags & SYN != 0);
        let payload = &tcp[header_len..];
        let tuple = Tuple { family: Family::of(sent.source), local_port: port(0), remote_port: port(2) };
        if self.ends.len() >= MAX_ENDS && !self.ends.contains_key(&tuple) {
            return;
        }
        if flags & RST != 0 || tuple.remote_port >= FIRST_FLOOD_PORT {
            return;
        }
        if let (Ok(cookie), true) = (options.fast_open.try_into(), flags & ACK != 0) {
            self.cookies.insert(tuple.family, cookie);
        }
        let end = self.ends.entry(tuple).or_default();
        let seq = number(4);
        if flags & SYN != 0 {
            if !end.iss.contains(&Some(seq)) {
                end.iss.rotate_right(1);
                end.iss[0] = Some(seq);
                end.snd_max = seq;
                end.received = Received::after(seq);
            }
            if flags & ACK == 0 {
                end.asks_cookie = options.asks_cookie;
                assert!(
                    payload.is_empty() || options.fast_open == PEER_COOKIE,
                    "data on a SYN without a cookie"
                );
                assert!(payload == sent_bytes(0, payload.len()), "the program never wrote what was on a SYN");
            }
        } else if end.iss[0].is_some() {
            let is_stream_from = |iss: u32| {
                let first = seq.wrapping_sub(iss).wrapping_sub(1);
                payload == sent_bytes(first, payload.len())
            };
            let right = end.iss.iter().flatten().any(|iss| is_stream_from(*iss));
            assert!(right, "the program never wrote what was sent on {tuple:?} at {seq}");
        }
        let extra = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let behind = seq.wrapping_add(payload.len() as u32 + extra);
        if (behind.wrapping_sub(end.snd_max) as i32) > 0 {
            end.snd_max = behind;
        }
        if behind != seq && flags & SYN == 0 {
            if self.losses & 1 == 0 {
                end.received.take(seq, behind);
            }
            self.losses = self.losses.rotate_right(1);
        }
        if flags & ACK != 0 {
            end.rcv_nxt = number(8);
        }
        end.timestamp = options.timestamp.unwrap_or(end.timestamp);
    }
}

/// What a sent segment's options say.
#[derive(Default)]
struct SentOptions<'a> {
    timestamp: Option<u32>,
    /// A Fast Open cookie.
    fast_open: &'a [u8],
    asks_cookie: bool,
}

/// Walks a sent segment's options, which must all be well formed.
fn check_options(mut options: &[u8], syn: bool) -> SentOptions<'_> {
    let mut sent = SentOptions::default();
    while let [kind, rest @ ..] = options {
        match kind {
            0 => {
                assert!(rest.iter().all(|byte| *byte == 0), "bytes behind the end of the options");
                break;
            }
            1 => options = rest,
            _ => {
                let len = usize::from(rest[0]);
                assert!((2..=options.len()).contains(&len), "the length of a sent option");
                let body = &options[2..len];
                match (kind, body.len()) {
                    (2, 2) | (3, 1) | (4, 0) => assert!(syn, "option {kind} belongs on a SYN"),
                    (8, 8) => {
                        sent.timestamp = Some(u32::from_be_bytes([body[0], body[1], body[2], body[3]]));
                    }
                    (5, len) => assert!(len > 0 && len % 8 == 0 && len <= 32),
                    (34, _) => {
                        assert!(syn, "option {kind} belongs on a SYN");
                        sent.asks_cookie = body.is_empty();
                        sent.fast_open = body;
                    }
                    (30 | 172 | 174 | 254, _) => {}
                    _ => panic!("option {kind} of {len} bytes was sent"),
                }
                options = &options[len..];
            }
        }
    }
    sent
}

impl Options {
    /// The option bytes of a segment to the connection with `end`; at most forty.
    pub fn bytes(&self, end: &End, syn: bool) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(60);
        let stamped = |bytes: &mut Vec<u8>, value: Place, echo: Place| {
            bytes.extend([1, 1, 8, 10]);
            // The peers' clocks stand still, which is allowed. A SYN that begins a connection has nothing to echo.
            bytes.extend(value.around(1 << 20).to_be_bytes());
            bytes.extend(echo.around(end.timestamp).to_be_bytes());
        };
        match self {
            Self::None => {}
            Self::Usual => {
                if syn {
                    bytes.extend(OF_A_SYN);
                }
                stamped(&mut bytes, Place::Exact, Place::Exact);
                if syn && end.asks_cookie {
                    bytes.extend([34, 2 + PEER_COOKIE.len() as u8]);
                    bytes.extend(PEER_COOKIE);
                }
            }
            Self::Cookie { damaged } => {
                bytes.extend(OF_A_SYN);
                stamped(&mut bytes, Place::Exact, Place::Exact);
                let mut cookie = end.cookie.map_or(Vec::new(), Vec::from);
                if let Some(last) = cookie.last_mut().filter(|_| *damaged) {
                    *last ^= 1;
                }
                bytes.extend([34, 2 + cookie.len() as u8]);
                bytes.extend(cookie);
            }
            Self::Received { doubled } => {
                stamped(&mut bytes, Place::Exact, Place::Exact);
                let blocks: Vec<_> = end.received.blocks(*doubled).take(3).collect();
                if !blocks.is_empty() {
                    bytes.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
                }
                for (start, behind) in blocks {
                    bytes.extend(start.to_be_bytes());
                    bytes.extend(behind.to_be_bytes());
                }
            }
            Self::Sack(blocks) => {
                stamped(&mut bytes, Place::Exact, Place::Exact);
                let blocks = &blocks[..blocks.len().min(3)];
                bytes.extend([1, 1, 5, 2 + 8 * blocks.len() as u8]);
                for (start, len) in blocks {
                    let start = start.around(end.snd_max);
                    bytes.extend(start.to_be_bytes());
                    bytes.extend(start.wrapping_add(u32::from(*len)).to_be_bytes());
                }
            }
            Self::Stamped { value, echo } => stamped(&mut bytes, *value, *echo),
            Self::Soup(soup) => bytes.extend(soup),
            Self::Listed(options) => options.iter().for_each(|option| option.append(&mut bytes)),
        }
        bytes.truncate(40);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }
}

impl Listed {
    fn append(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Mss(mss) => {
                bytes.extend([2, 4]);
                bytes.extend(mss.to_be_bytes());
            }
            Self::WindowScale(shift) => bytes.extend([3, 3, *shift]),
            Self::SackPermitted => bytes.extend([4, 2]),
            Self::Timestamps(value, echo) => {
                bytes.extend([8, 10]);
                bytes.extend(value.to_be_bytes());
                bytes.extend(echo.to_be_bytes());
            }
            Self::Nothing => bytes.push(1),
            Self::FastOpen(cookie) => {
                bytes.extend([34, 2 + cookie.len() as u8]);
                bytes.extend(cookie);
            }
            Self::Other { kind, len, bytes: body } => {
                bytes.extend([*kind, *len]);
                bytes.extend(body);
            }
        }
    }
}
