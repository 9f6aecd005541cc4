//! Plays a script: one stack, a peer played by the script, a program, and virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use catnip::events::{ConnectionId, ListenerId};
use catnip::tcp::segment::Segment as Header;
use catnip::{Stack, StackConfig};
use libos::memory::ArenaConfig;
use libos::runtime::{Capabilities, Medium, TxChecksum};
use libos::{Arena, Config, Instant, PopLimit, RxFrame, ScatterGather, Shutdown, SocketOption};

use crate::packet::{self, Ends, Known, pattern};
use crate::script::{ACK, Action, Cookie, Host, Opt, PSH, SYN, Script, Segment};

/// The stack's port in all scripts.
const LOCAL_PORT: u16 = 80;
/// The peer's port for calls.
const PEER_PORT: u16 = 40_000;
/// The peer's initial sequence number, so near the end that most scripts cross the wrap.
const PEER_ISN: u32 = u32::MAX - 700;
/// When scripts begin.
const START: Instant = Instant::from_millis(1_000);
/// How far from its time a segment may be sent.
const TOLERANCE: Duration = Duration::from_millis(1);
/// Initial sequence numbers of different connections that are nearer than this could be guessed from each other.
const NEAR: u32 = 1 << 16;
/// Most turns without time passing, and most deadlines of one step.
const MAX_TURNS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    fn host(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    fn address(self, host: Host) -> Result<IpAddr, String> {
        Ok(match (host, self) {
            (Host::Stack, _) => self.host(1),
            (Host::Peer, _) => self.host(2),
            (Host::NetworkBroadcast, Self::V4) => self.host(255),
            (Host::LinkBroadcast, Self::V4) => Ipv4Addr::BROADCAST.into(),
            (Host::AllHosts, Self::V4) => Ipv4Addr::new(224, 0, 0, 1).into(),
            (Host::AllHosts, Self::V6) => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            (Host::NetworkBroadcast | Host::LinkBroadcast, Self::V6) => {
                return Err("IPv6 has no broadcasts".to_owned());
            }
        })
    }
}

/// A segment that the stack sent.
struct Sent {
    at: Instant,
    header: Header,
    /// Relative to the initial numbers of their directions.
    seq: u32,
    ack: u32,
    payload: Vec<u8>,
    /// SACK blocks, relative.
    blocks: Vec<(u32, u32)>,
    /// The Fast Open cookie, empty for a request.
    cookie: Option<Vec<u8>>,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = self.header.flags.bits();
        let (seq, len) = (self.seq, self.payload.len());
        write!(f, "{} {seq}:{}({len})", packet::show_flags(flags, true), seq.wrapping_add(len as u32))?;
        if flags & ACK != 0 {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " win {} at {:.3} ms", self.header.window, millis(self.at - START))?;
        write!(f, " @{} {:?} {:?}", self.header.destination_port, self.header.options, self.blocks)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub struct Player {
    stack: Stack,
    arena: Arena,
    family: Family,
    now: Instant,
    /// The stack's initial sequence numbers, by the peer's port.
    iss: BTreeMap<u16, u32>,
    /// How far the last one is from the one before it to the same port.
    iss_step: Option<u32>,
    sent: VecDeque<Sent>,
    /// The Fast Open cookie that the stack gave last.
    given: Vec<u8>,
    listener: Option<ListenerId>,
    connection: Option<ConnectionId>,
    written: u32,
    read: u32,
    /// Something went wrong while frames were taken.
    broken: Option<String>,
}

impl Player {
    pub fn new(script: &Script, family: Family) -> Result<Self, String> {
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false })
            .map_err(|error| error.to_string())?;
        let device = Capabilities {
            medium: Medium::Ip,
            hardware_address: [0; 6],
            mtu: 1_500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let toml: String = script
            .settings
            .iter()
            .map(|(key, value)| match key.split_once('.') {
                Some((table, key)) => format!("{table}.{key} = {value}\n"),
                None => format!("{key} = {value}\n"),
            })
            .collect();
        let config = Config::from_toml_str("set", &toml)
            .and_then(|config| StackConfig::from_config(&config, device))
            .map_err(|error| error.to_string())?
            .with_address("192.0.2.1/24".parse().expect("a prefix"))
            .with_address("2001:db8::1/64".parse().expect("a prefix"));
        let stack = Stack::new(&config, arena.clone(), 7, START).map_err(|error| error.to_string())?;
        let mut player = Self {
            stack,
            arena,
            family,
            now: START,
            iss: BTreeMap::new(),
            iss_step: None,
            sent: VecDeque::new(),
            given: Vec::new(),
            listener: None,
            connection: None,
            written: 0,
            read: 0,
            broken: None,
        };
        player.turn()?;
        Ok(player)
    }

    pub fn play(&mut self, action: &Action, after: Duration) -> Result<(), String> {
        match action {
            Action::Expect(segment) => return self.expect(segment, after),
            Action::ExpectNothing => {
                self.pass(after)?;
                return match self.sent.front() {
                    Some(sent) => Err(format!("expected nothing, got: {sent}")),
                    None => Ok(()),
                };
            }
            Action::Pass | Action::Inject(_) | Action::Icmp { .. } | Action::Call(_) => self.pass(after)?,
        }
        match action {
            Action::Inject(segment) => {
                let iss = self.iss_of(segment.port);
                let (seq, ack) = (
                    PEER_ISN.wrapping_add(segment.sequence),
                    segment.acknowledgment.map_or(0, |ack| iss.wrapping_add(ack)),
                );
                let known = Known { blocks_from: iss, cookie: &self.given };
                let ends = Ends {
                    source: self.family.address(segment.from)?,
                    destination: self.family.address(segment.to)?,
                };
                let packet = packet::tcp(ends, LOCAL_PORT, segment, (seq, ack), known);
                self.inject(&packet)?;
            }
            Action::Icmp { error, sequence } => {
                let seq = self.iss_of(PEER_PORT).wrapping_add(*sequence);
                let packet = packet::icmp(self.ends().reversed(), (LOCAL_PORT, PEER_PORT), *error, seq);
                self.inject(&packet)?;
            }
            Action::Call(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.call(&words)?;
                self.turn()?;
            }
            Action::Pass | Action::Expect(_) | Action::ExpectNothing => {}
        }
        Ok(())
    }

    /// Nothing may be left that nobody expected.
    pub fn end(&mut self) -> Result<(), String> {
        self.sent.front().map_or(Ok(()), |sent| Err(format!("not expected: {sent}")))
    }

    fn ends(&self) -> Ends {
        Ends { source: self.family.host(1), destination: self.family.host(2) }
    }

    fn iss_of(&self, port: u16) -> u32 {
        self.iss.get(&port).copied().unwrap_or(0)
    }

    // ---- Time and frames.

    fn inject(&mut self, packet: &[u8]) -> Result<(), String> {
        let buffer = self.arena.copy_from(packet).ok_or("the script's memory is used up")?.freeze();
        self.stack.receive(self.now, RxFrame::from(buffer));
        self.turn()
    }

    /// The stack has its turns until it wants no more, and no time passes.
    fn turn(&mut self) -> Result<(), String> {
        for _ in 0..MAX_TURNS {
            self.stack.poll(self.now);
            while let Some(frame) = self.stack.frames().front() {
                let packet: Vec<u8> = frame.segments.iter().flat_map(|segment| segment.to_vec()).collect();
                self.stack.frames().pop_front();
                if let Some(tcp) = packet::transport(&packet)? {
                    self.keep(&tcp)?;
                }
            }
            if let Some(rule) = self.stack.tcp_broken_invariant() {
                return Err(format!("the stack broke its own rule: {rule}"));
            }
            if !self.stack.needs_poll() {
                return self.broken.take().map_or(Ok(()), Err);
            }
        }
        Err("the stack never rests".to_owned())
    }

    fn keep(&mut self, tcp: &[u8]) -> Result<(), String> {
        let header =
            Header::parse(tcp).map_err(|error| format!("a malformed segment was sent: {error:?}"))?;
        let port = header.destination_port;
        if header.flags.bits() & SYN != 0 {
            let number = header.sequence.raw();
            let before = self.iss.insert(port, number);
            self.iss_step = before.map(|before| number.wrapping_sub(before));
        }
        let seq = header.sequence.raw().wrapping_sub(self.iss_of(port));
        let blocks = header.sack_blocks(tcp);
        let relative = |number: u32| number.wrapping_sub(PEER_ISN);
        let blocks = blocks.map(|(start, end)| (relative(start.raw()), relative(end.raw()))).collect();
        let payload = tcp[header.header_bytes..].to_vec();
        let first = packet::first_offset(seq, header.flags.bits());
        if (0..).zip(&payload).any(|(at, byte)| *byte != pattern(first.wrapping_add(at))) {
            self.broken = Some(format!("the payload at {seq} is not what the program wrote there"));
        }
        let ack = relative(header.acknowledgment.raw());
        let cookie = header.fast_open_cookie(tcp).map(|cookie| cookie.as_bytes().to_vec());
        if let Some(cookie) = cookie.as_ref().filter(|cookie| !cookie.is_empty()) {
            self.given.clone_from(cookie);
        }
        self.sent.push_back(Sent { at: self.now, header, seq, ack, payload, blocks, cookie });
        Ok(())
    }

    fn pass(&mut self, time: Duration) -> Result<(), String> {
        let end = self.now + time;
        for _ in 0..MAX_TURNS {
            self.turn()?;
            match self.stack.next_deadline() {
                Some(next) if next <= end => self.now = self.now.max(next),
                Some(_) | None => {
                    self.now = end;
                    return self.turn();
                }
            }
        }
        Err("the stack's deadlines never come to an end".to_owned())
    }

    /// The stack sends `expected`, `after` from now.
    fn expect(&mut self, expected: &Segment, after: Duration) -> Result<(), String> {
        let due = self.now + after;
        self.pass(after)?;
        if self.sent.is_empty() && after > Duration::ZERO {
            // It may be late by as much as is tolerated; time stops when it comes.
            for _ in 0..MAX_TURNS {
                match self.stack.next_deadline() {
                    Some(next) if self.sent.is_empty() && next <= due + TOLERANCE => {
                        self.now = self.now.max(next);
                        self.turn()?;
                    }
                    Some(_) | None => break,
                }
            }
        }
        let Some(sent) = self.sent.pop_front() else { return Err("nothing was sent".to_owned()) };
        let early = due > sent.at + TOLERANCE;
        if early && after > Duration::ZERO {
            let (due, at) = (millis(due - START), millis(sent.at - START));
            return Err(format!("expected at {due:.3} ms, got at {at:.3} ms: {sent}"));
        }
        compare(expected, &sent)
    }

    // ---- The program's calls.

    fn connection(&self) -> Result<ConnectionId, String> {
        self.connection.ok_or_else(|| "there is no connection".to_owned())
    }

    fn call(&mut self, words: &[&str]) -> Result<(), String> {
        let wrong = || format!("no call is written `{}`", words.join(" "));
        let number = |word: &str| word.parse::<usize>().map_err(|_| wrong());
        match *words {
            ["listen"] => self.listen(16),
            ["listen", "backlog", backlog] => self.listen(number(backlog)?),
            ["unlisten"] => {
                let id = self.listener.take().ok_or("there is no listener")?;
                self.stack.tcp_close_listener(self.now, id);
                Ok(())
            }
            ["connect"] => self.connect(),
            ["accept"] => {
                let listener = self.listener.ok_or("there is no listener")?;
                let (id, _) = self.stack.tcp_accept(listener).ok_or("no connection waits")?;
                self.connection = Some(id);
                (self.written, self.read) = (0, 0);
                Ok(())
            }
            ["write", len] => self.write(number(len)?),
            ["read", "end"] => self.read_as("the end", |outcome| outcome == Ok(Some(0))),
            ["read", "nothing"] => self.read_as("nothing", |outcome| outcome == Ok(None)),
            ["read", "error", name] => {
                self.read_as(name, |outcome| outcome.err().is_some_and(|error| error == name))
            }
            ["read", len] => self.read(number(len)?),
            ["close"] => {
                let id = self.connection()?;
                self.stack.tcp_close(self.now, id);
                Ok(())
            }
            ["abort"] => {
                let id = self.connection()?;
                self.stack.tcp_abort(self.now, id);
                Ok(())
            }
            ["shutdown", how] => {
                let how = match how {
                    "read" => Shutdown::Read,
                    "write" => Shutdown::Write,
                    "both" => Shutdown::Both,
                    _ => return Err(wrong()),
                };
                let id = self.connection()?;
                self.stack.tcp_shutdown(id, how).map_err(|error| format!("{error:?}"))
            }
            ["option", name, value] => {
                let time = || number(value).map(|millis| Duration::from_millis(millis as u64));
                let option = match name {
                    "no_delay" => SocketOption::NoDelay(value == "on"),
                    "keep_alive" => SocketOption::KeepAlive(value == "on"),
                    "cork" => SocketOption::Cork(value == "on"),
                    "quick_ack" => SocketOption::QuickAck(value == "on"),
                    "user_timeout_option" => SocketOption::UserTimeoutOption(value == "on"),
                    "keep_alive_idle_ms" => SocketOption::KeepAliveIdle(time()?),
                    "keep_alive_interval_ms" => SocketOption::KeepAliveInterval(time()?),
                    "keep_alive_probes" => SocketOption::KeepAliveProbes(number(value)? as u8),
                    "linger_s" => SocketOption::Linger(Some(Duration::from_secs(number(value)? as u64))),
                    "user_timeout_ms" => SocketOption::UserTimeout(Some(time()?)),
                    _ => return Err(wrong()),
                };
                let id = self.connection()?;
                self.stack.tcp_set_option(id, option).map_err(|error| format!("{error:?}"))
            }
            ["expect", "state", state] => {
                let info = self.stack.tcp_info(self.connection()?);
                let got = info.map_or("none", |info| info.state.name());
                if got == state { Ok(()) } else { Err(format!("expected state {state}, got {got}")) }
            }
            ["expect", "connections", count] => {
                let got = self.stack.tcp_connections();
                if got == number(count)? {
                    Ok(())
                } else {
                    Err(format!("expected {count} connections, got {got}"))
                }
            }
            ["expect", "isn", "step", step] => {
                let got = self.iss_step.ok_or("no SYN went to this port before")?;
                if got as usize == number(step)? {
                    Ok(())
                } else {
                    Err(format!("expected {step}, got {got}"))
                }
            }
            ["expect", "isn", "of", port, "far", "from", other] => self.are_far_apart([port, other]),
            _ => Err(wrong()),
        }
    }

    /// What the stack begins with towards two ports of the peer tells nothing of each other.
    fn are_far_apart(&self, ports: [&str; 2]) -> Result<(), String> {
        let [one, other] = ports.map(|port| {
            let port = port.strip_prefix('@').and_then(|port| port.parse().ok());
            port.and_then(|port: u16| self.iss.get(&port)).ok_or("no SYN went to that port")
        });
        let (one, other) = (*one?, *other?);
        let apart = one.wrapping_sub(other).min(other.wrapping_sub(one));
        if apart > NEAR { Ok(()) } else { Err(format!("{one} and {other} are {apart} apart")) }
    }

    fn local(&self) -> SocketAddr {
        SocketAddr::new(self.family.host(1), LOCAL_PORT)
    }

    fn listen(&mut self, backlog: usize) -> Result<(), String> {
        let options = self.stack.default_tcp_options().clone();
        let binding = self.stack.tcp_bind(self.local()).map_err(|error| format!("{error:?}"))?;
        let id = self.stack.tcp_listen(binding, backlog, &options).map_err(|error| format!("{error:?}"))?;
        self.listener = Some(id);
        Ok(())
    }

    fn connect(&mut self) -> Result<(), String> {
        let options = self.stack.default_tcp_options().clone();
        let binding = self.stack.tcp_bind(self.local()).map_err(|error| format!("{error:?}"))?;
        let remote = SocketAddr::new(self.family.host(2), PEER_PORT);
        let id = self.stack.tcp_connect(self.now, &mut Some(binding), remote, &options);
        self.connection = Some(id.map_err(|error| format!("{error:?}"))?);
        (self.written, self.read) = (0, 0);
        Ok(())
    }

    fn write(&mut self, len: usize) -> Result<(), String> {
        let bytes: Vec<u8> = (0..len as u32).map(|at| pattern(self.written + at)).collect();
        let buffer = self.arena.copy_from(&bytes).ok_or("the script's memory is used up")?;
        let mut data = ScatterGather::from(buffer.freeze());
        let id = self.connection()?;
        let taken = self.stack.tcp_send(id, &mut data).map_err(|error| format!("{error:?}"))?;
        self.written += taken as u32;
        if taken == len { Ok(()) } else { Err(format!("only {taken} bytes were taken")) }
    }

    fn read(&mut self, len: usize) -> Result<(), String> {
        let id = self.connection()?;
        let mut bytes = Vec::new();
        while bytes.len() < len {
            let limit = PopLimit { segments: usize::MAX, bytes: len - bytes.len() };
            match self.stack.tcp_receive(id, limit) {
                Ok(Some(data)) if !data.is_empty() => bytes.extend(data.to_vec()),
                Ok(Some(_)) => return Err(format!("the stream ended after {} bytes", bytes.len())),
                Ok(None) => return Err(format!("only {} bytes could be read", bytes.len())),
                Err(error) => return Err(format!("{error:?} after {} bytes", bytes.len())),
            }
        }
        if (0..).zip(&bytes).any(|(at, byte)| *byte != pattern(self.read + at)) {
            return Err("what was read is not what the peer sent".to_owned());
        }
        self.read += len as u32;
        Ok(())
    }

    fn read_as(
        &mut self,
        wanted: &str,
        is_wanted: impl FnOnce(Result<Option<usize>, String>) -> bool,
    ) -> Result<(), String> {
        let id = self.connection()?;
        let outcome = self.stack.tcp_receive(id, PopLimit::default());
        let outcome = outcome.map(|data| data.map(|data| data.len())).map_err(|error| format!("{error:?}"));
        let got = format!("expected to read {wanted}, got {outcome:?}");
        if is_wanted(outcome) { Ok(()) } else { Err(got) }
    }
}

/// Compares what was sent with what a script says.
fn compare(expected: &Segment, sent: &Sent) -> Result<(), String> {
    let differ = |what: &str, expected: &dyn fmt::Display, got: &dyn fmt::Display| {
        Err(format!("expected {what} {expected}, got {got} in: {sent}"))
    };
    let header = &sent.header;
    if header.destination_port != expected.port {
        return differ("port", &expected.port, &header.destination_port);
    }
    // PSH is looked at when the script has it.
    let with_push = expected.flags & PSH != 0;
    let [wanted, got] =
        [expected.flags, header.flags.bits()].map(|flags| packet::show_flags(flags, with_push));
    if wanted != got {
        return differ("flags", &wanted, &got);
    }
    if sent.seq != expected.sequence {
        return differ("sequence number", &expected.sequence, &sent.seq);
    }
    if sent.payload.len() != expected.payload_bytes {
        return differ("payload of", &expected.payload_bytes, &sent.payload.len());
    }
    if let Some(ack) = expected.acknowledgment.filter(|ack| *ack != sent.ack) {
        return differ("ack", &ack, &sent.ack);
    }
    if let Some(window) = expected.window.filter(|window| *window != header.window) {
        return differ("win", &window, &header.window);
    }
    for option in expected.options.iter().flatten() {
        let options = &header.options;
        let (holds, text) = match option {
            Opt::Mss(mss) => (options.mss == Some(*mss), format!("mss {mss}")),
            Opt::WindowScale(shift) => (options.window_scale == Some(*shift), format!("wscale {shift}")),
            Opt::SackPermitted => (options.sack_permitted, "sackok".to_owned()),
            Opt::Timestamp(value, echo) => {
                let holds = options.timestamp.is_some_and(|timestamp| {
                    value.is_none_or(|value| value == timestamp.value)
                        && echo.is_none_or(|echo| echo == timestamp.echo)
                });
                (holds, format!("ts {value:?} {echo:?}"))
            }
            Opt::Sack(blocks) => (*blocks == sent.blocks, format!("sack {blocks:?}")),
            Opt::UserTimeout(seconds) => {
                let sent = options.user_timeout.map(|time| time.duration());
                (sent == Some(Duration::from_secs((*seconds).into())), format!("uto {seconds}"))
            }
            Opt::FastOpen(cookie) => {
                let holds = match (cookie, &sent.cookie) {
                    (Cookie::Request, Some(sent)) => sent.is_empty(),
                    (Cookie::Any, Some(sent)) => !sent.is_empty(),
                    (Cookie::These(bytes), Some(sent)) => sent == bytes,
                    (Cookie::None, cookie) => cookie.is_none(),
                    (Cookie::Given, Some(_)) | (_, None) => false,
                };
                (holds, format!("fo {cookie:?}"))
            }
            Opt::Raw(bytes) => return Err(format!("raw {bytes:?} cannot be expected")),
        };
        if !holds {
            return Err(format!("expected option {text}, got: {sent}"));
        }
    }
    if expected.options.as_ref().is_some_and(Vec::is_empty) && header.header_bytes > 20 {
        return Err(format!("expected no options, got: {sent}"));
    }
    Ok(())
}
