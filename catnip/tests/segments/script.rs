//! The format: lines made into steps.

use std::time::Duration;

use crate::player::Family;

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const URG: u8 = 32;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// The letters of flags, in the order in which they are shown.
pub const FLAGS: [(char, u8); 8] =
    [('S', SYN), ('F', FIN), ('R', RST), ('P', PSH), ('U', URG), ('E', ECE), ('W', CWR), ('.', ACK)];

/// The peer's port when a segment does not name one.
const PEER_PORT: u16 = 40_000;

/// A whole file.
#[derive(Debug, Default)]
pub struct Script {
    /// Configuration, as TOML tables would have it: `table.key` and the value.
    pub settings: Vec<(String, String)>,
    /// The one family that the script is about, if it is about one.
    pub only: Option<Family>,
    pub steps: Vec<Step>,
}

/// One line.
#[derive(Debug)]
pub struct Step {
    pub line: usize,
    pub text: String,
    /// Time that passes before it.
    pub after: Duration,
    pub action: Action,
}

#[derive(Debug)]
pub enum Action {
    /// Time alone.
    Pass,
    Inject(Segment),
    /// The peer, or a router, reports an error about the segment that began at `sequence`.
    Icmp {
        error: Icmp,
        sequence: u32,
    },
    Expect(Segment),
    ExpectNothing,
    Call(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmp {
    PortUnreachable,
    HostUnreachable,
    TimeExceeded,
    TooBig { mtu: u16 },
}

/// Somebody whose address a segment may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    Stack,
    Peer,
    /// All hosts of the stack's network, IPv4 alone.
    NetworkBroadcast,
    /// All hosts of the link, IPv4 alone.
    LinkBroadcast,
    /// The group of all hosts of the link.
    AllHosts,
}

/// The checksum of a segment that the peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumField {
    Right,
    Wrong,
}

/// A segment: to be sent, or expected. Of an expected one, what is `None` is not looked at.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Whose address it carries as source and destination; of a segment of the peer.
    pub from: Host,
    pub to: Host,
    pub port: u16,
    pub flags: u8,
    pub sequence: u32,
    pub payload_bytes: usize,
    pub acknowledgment: Option<u32>,
    pub window: Option<u16>,
    pub urgent: u16,
    pub checksum: ChecksumField,
    pub options: Option<Vec<Opt>>,
}

/// One option. Numbers of an expected one that are `None` are not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opt {
    Mss(u16),
    WindowScale(u8),
    SackPermitted,
    Timestamp(Option<u32>, Option<u32>),
    Sack(Vec<(u32, u32)>),
    FastOpen(Cookie),
    /// Seconds of the user timeout, below 32768.
    UserTimeout(u16),
    Raw(Vec<u8>),
}

/// A Fast Open cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cookie {
    /// None: one is asked for.
    Request,
    /// The one that the stack gave last.
    Given,
    /// Whatever it is: for expected segments.
    Any,
    /// No option: for expected segments.
    None,
    These(Vec<u8>),
}

impl Script {
    /// Reads a file's text; an error begins with the line's number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                script.parse_line(index + 1, line).map_err(|error| format!("{}: {error}", index + 1))?;
            }
        }
        Ok(script)
    }

    fn parse_line(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(setting) = text.strip_prefix("set ") {
            let (key, value) = setting.split_once('=').ok_or("set table.key = value")?;
            if !self.steps.is_empty() {
                return Err("settings come first".to_owned());
            }
            self.settings.push((key.trim().to_owned(), value.trim().to_owned()));
            return Ok(());
        }
        if let Some(family) = text.strip_prefix("only ") {
            self.only = Some(match family {
                "ipv4" => Family::V4,
                "ipv6" => Family::V6,
                _ => return Err("only ipv4, or only ipv6".to_owned()),
            });
            return Ok(());
        }
        let (after, rest) = match text.strip_prefix('+') {
            Some(timed) => {
                let (time, rest) = timed.split_once(' ').unwrap_or((timed, ""));
                (duration(time)?, rest.trim())
            }
            None => (Duration::ZERO, text),
        };
        let action = action(rest)?;
        self.steps.push(Step { line, text: text.to_owned(), after, action });
        Ok(())
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1e-3), ("us", 1e-6), ("s", 1.0)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    parsed.ok_or_else(|| format!("{text} is no time: 20ms, 5us, 1.5s"))
}

fn action(text: &str) -> Result<Action, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words[..] {
        [] => Action::Pass,
        [">", "nothing"] => Action::ExpectNothing,
        [">", ..] => Action::Expect(segment(text)?),
        ["<", "icmp", kind, ref rest @ ..] => icmp(kind, rest)?,
        ["<", ..] => Action::Inject(segment(text)?),
        [
            "listen" | "connect" | "accept" | "write" | "read" | "close" | "abort" | "shutdown" | "option"
            | "expect" | "unlisten",
            ..,
        ] => Action::Call(words.into_iter().map(str::to_owned).collect()),
        [other, ..] => return Err(format!("no line begins with {other}")),
    })
}

fn icmp(kind: &str, rest: &[&str]) -> Result<Action, String> {
    let (error, sequence) = match (kind, rest) {
        ("port-unreachable", ["about", sequence]) => (Icmp::PortUnreachable, sequence),
        ("host-unreachable", ["about", sequence]) => (Icmp::HostUnreachable, sequence),
        ("time-exceeded", ["about", sequence]) => (Icmp::TimeExceeded, sequence),
        ("too-big", [mtu, "about", sequence]) => (Icmp::TooBig { mtu: number(mtu)? }, sequence),
        _ => {
            return Err(
                "icmp port-unreachable|host-unreachable|time-exceeded|too-big MTU about SEQ".to_owned()
            );
        }
    };
    Ok(Action::Icmp { error, sequence: number(sequence)? })
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text} is no number that fits"))
}

/// `FLAGS START:END(LEN) [ack N] [win N] [urg N] [from HOST] [to HOST] [checksum wrong] [@PORT] [<options>]`, behind
/// `<` or `>`.
fn segment(text: &str) -> Result<Segment, String> {
    let text = text.get(1..).unwrap_or_default();
    let (fixed, options) = match text.split_once('<') {
        Some((fixed, options)) => {
            (fixed, Some(options.strip_suffix('>').ok_or("the options do not end with >")?))
        }
        None => (text, None),
    };
    let mut words = fixed.split_whitespace();
    let flags = words.next().ok_or("a segment has flags")?;
    let range = words.next().ok_or("a segment has a range START:END(LEN)")?;
    let (sequence, payload_bytes) = parse_range(range)?;
    let mut segment = Segment {
        from: Host::Peer,
        to: Host::Stack,
        port: PEER_PORT,
        flags: parse_flags(flags)?,
        sequence,
        payload_bytes,
        acknowledgment: None,
        window: None,
        urgent: 0,
        checksum: ChecksumField::Right,
        options: options.map(parse_options).transpose()?,
    };
    while let Some(word) = words.next() {
        if let Some(port) = word.strip_prefix('@') {
            segment.port = number(port)?;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} has no value"))?;
        match word {
            "ack" => segment.acknowledgment = Some(number(value)?),
            "win" => segment.window = Some(number(value)?),
            "urg" => segment.urgent = number(value)?,
            "from" => segment.from = host(value)?,
            "to" => segment.to = host(value)?,
            "checksum" => segment.checksum = checksum(value)?,
            _ => return Err(format!("a segment has no {word}")),
        }
    }
    Ok(segment)
}

fn host(text: &str) -> Result<Host, String> {
    Ok(match text {
        "stack" => Host::Stack,
        "peer" => Host::Peer,
        "network-broadcast" => Host::NetworkBroadcast,
        "link-broadcast" => Host::LinkBroadcast,
        "all-hosts" => Host::AllHosts,
        _ => return Err(format!("nobody is called {text}")),
    })
}

fn checksum(text: &str) -> Result<ChecksumField, String> {
    match text {
        "right" => Ok(ChecksumField::Right),
        "wrong" => Ok(ChecksumField::Wrong),
        _ => Err("a checksum is right or wrong".to_owned()),
    }
}

fn parse_flags(text: &str) -> Result<u8, String> {
    let mut flags = 0;
    for letter in text.chars().filter(|letter| *letter != '-') {
        let known = FLAGS.iter().find(|(known, _)| *known == letter);
        flags |= known.ok_or_else(|| format!("no flag is called {letter}"))?.1;
    }
    Ok(flags)
}

fn parse_range(text: &str) -> Result<(u32, usize), String> {
    let wrong = || format!("{text} is no range START:END(LEN)");
    let (start, rest) = text.split_once(':').ok_or_else(wrong)?;
    let (end, len) = rest.strip_suffix(')').and_then(|rest| rest.split_once('(')).ok_or_else(wrong)?;
    let (start, end): (u32, u32) = (number(start)?, number(end)?);
    let len: u32 = number(len)?;
    if start.wrapping_add(len) != end {
        return Err(wrong());
    }
    Ok((start, len as usize))
}

fn parse_options(text: &str) -> Result<Vec<Opt>, String> {
    let options = text.split(',').map(str::trim).filter(|option| !option.is_empty());
    options
        .map(|option| {
            let words: Vec<&str> = option.split_whitespace().collect();
            let maybe = |word: &str| if word == "*" { Ok(None) } else { number(word).map(Some) };
            Ok(match words[..] {
                ["mss", mss] => Opt::Mss(number(mss)?),
                ["wscale", shift] => Opt::WindowScale(number(shift)?),
                ["sackok"] => Opt::SackPermitted,
                ["ts", value, echo] => Opt::Timestamp(maybe(value)?, maybe(echo)?),
                ["sack", ref blocks @ ..] => Opt::Sack(
                    blocks
                        .iter()
                        .map(|block| {
                            let (start, end) = block.split_once(':').ok_or("a block is START:END")?;
                            Ok((number(start)?, number(end)?))
                        })
                        .collect::<Result<_, String>>()?,
                ),
                ["raw", ref bytes @ ..] => Opt::Raw(parse_bytes(bytes)?),
                ["uto", seconds] => Opt::UserTimeout(number(seconds)?),
                ["fo"] => Opt::FastOpen(Cookie::Request),
                ["fo", "given"] => Opt::FastOpen(Cookie::Given),
                ["fo", "*"] => Opt::FastOpen(Cookie::Any),
                ["fo", "none"] => Opt::FastOpen(Cookie::None),
                ["fo", ref bytes @ ..] => Opt::FastOpen(Cookie::These(parse_bytes(bytes)?)),
                _ => return Err(format!("no option is written {option}")),
            })
        })
        .collect()
}

fn parse_bytes(bytes: &[&str]) -> Result<Vec<u8>, String> {
    let byte =
        |byte: &&str| u8::from_str_radix(byte, 16).map_err(|_| format!("{byte} is no byte in hexadecimal"));
    bytes.iter().map(byte).collect()
}
