//! The program on top of the stack: its sockets, and what it reads and writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use catnip::events::{ConnectionId, ListenerId, UdpId};
use libos::{CongestionName, PathMtuDiscovery, PopLimit, ScatterGather, Shutdown, SocketOption};

use super::World;
use super::action::{Call, Family};
use super::pattern::{MAX_PIECE_BYTES, received_bytes, sent_bytes};

/// The listener's port.
pub const LISTEN_PORT: u16 = 80;
/// The datagram sockets' ports: the bound one's, and the connected one's with its peer's.
pub const DATAGRAM_PORT: u16 = 53;
pub const CONNECTED_PORT: u16 = 54;
pub const PEER_PORT: u16 = 5_353;
/// Ports that the peers use, and the first that connections go to.
pub const FIRST_REMOTE_PORT: u16 = 40_000;
pub const REMOTE_PORTS: u8 = 6;

/// Most connections the program holds at a time.
const MAX_HELD: usize = 8;

/// Bytes of one call, fewer than these: a few segments of the largest link.
const MAX_SEND_BYTES: usize = 12_000;

/// The longest user timeout: every run has to come to an end.
const MAX_USER_TIMEOUT_MS: u64 = 600_000;

/// What the program knows of one of its connections.
#[derive(Debug, Clone, Copy)]
struct Held {
    id: ConnectionId,
    written: u32,
    /// The last byte read.
    last_read: Option<u8>,
}

#[derive(Debug, Default)]
pub struct Program {
    listeners: BTreeMap<Family, ListenerId>,
    connections: Vec<Held>,
    datagrams: Vec<UdpId>,
    connected: Option<UdpId>,
}

impl World {
    pub fn open_sockets(&mut self, backlog: u8) {
        for family in [Family::V4, Family::V6] {
            self.listen(family, backlog);
            let local = SocketAddr::new(family.local(), DATAGRAM_PORT);
            let id = self.stack.udp_bind(local).expect("a free port");
            self.program.datagrams.push(id);
        }
        let id =
            self.stack.udp_bind(SocketAddr::new(Family::V4.local(), CONNECTED_PORT)).expect("a free port");
        let peer = SocketAddr::new(Family::V4.remote(), PEER_PORT);
        self.stack.udp_connect(self.now, id, peer).expect("a peer on the link");
        self.program.connected = Some(id);
    }

    fn listen(&mut self, family: Family, backlog: u8) {
        let options = self.stack.default_tcp_options().clone();
        let Ok(binding) = self.stack.tcp_bind(SocketAddr::new(family.local(), LISTEN_PORT)) else { return };
        if let Ok(id) = self.stack.tcp_listen(binding, usize::from(backlog % 6), &options) {
            self.program.listeners.insert(family, id);
        }
    }

    pub fn close_sockets(&mut self) {
        let program = std::mem::take(&mut self.program);
        program.connections.iter().for_each(|held| self.stack.tcp_close(self.now, held.id));
        program.listeners.values().for_each(|id| self.stack.tcp_close_listener(self.now, *id));
        program.datagrams.iter().chain(&program.connected).for_each(|id| self.stack.udp_close(*id));
    }

    /// Events are bounded by the sockets there are, and each is for one of ours or of a listener's.
    pub fn read_events(&mut self) {
        for _ in 0..=self.stack.max_sockets() {
            if self.stack.next_event().is_none() {
                return;
            }
        }
        panic!("more events than sockets");
    }

    fn held(&mut self, number: u8) -> Option<usize> {
        let len = self.program.connections.len();
        (len > 0).then(|| usize::from(number) % len)
    }

    pub fn call(&mut self, call: Call) {
        match call {
            Call::Accept => self.accept(),
            Call::Connect { family, port } => self.connect(family, port),
            Call::Send { on, len } => {
                if let Some(at) = self.held(on) {
                    self.send(at, usize::from(len) % MAX_SEND_BYTES);
                }
            }
            Call::Receive { on, len } => {
                if let Some(at) = self.held(on) {
                    self.receive(at, usize::from(len));
                }
            }
            Call::Shutdown { on, how } => {
                if let Some(at) = self.held(on) {
                    let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][usize::from(how) % 3];
                    let _ = self.stack.tcp_shutdown(self.program.connections[at].id, how);
                }
            }
            Call::Close { on } => {
                if let Some(at) = self.held(on) {
                    let held = self.program.connections.swap_remove(at);
                    self.stack.tcp_close(self.now, held.id);
                    assert!(
                        self.stack.tcp_info(held.id).is_none() || self.stack.tcp_error(held.id).is_none()
                    );
                }
            }
            Call::Abort { on } => {
                if let Some(at) = self.held(on) {
                    let held = self.program.connections.swap_remove(at);
                    self.stack.tcp_abort(self.now, held.id);
                }
            }
            Call::SetOption { on, option, value } => self.set_option(on, option, value),
            Call::CloseListener => {
                if let Some((_, id)) = self.program.listeners.pop_first() {
                    self.stack.tcp_close_listener(self.now, id);
                }
            }
            Call::Listen => {
                for family in [Family::V4, Family::V6] {
                    if !self.program.listeners.contains_key(&family) {
                        self.listen(family, 3);
                    }
                }
            }
            Call::SendDatagram { connected, len } => self.send_datagram(connected, len.into()),
            Call::ReceiveDatagrams => {
                for id in self.program.datagrams.iter().chain(&self.program.connected) {
                    while matches!(self.stack.udp_receive(*id), Ok(Some(_)) | Err(_)) {}
                }
            }
        }
    }

    fn hold(&mut self, id: ConnectionId) {
        if self.program.connections.len() >= MAX_HELD {
            self.stack.tcp_close(self.now, id);
        } else {
            self.program.connections.push(Held { id, written: 0, last_read: None });
        }
    }

    fn accept(&mut self) {
        let listeners: Vec<_> = self.program.listeners.values().copied().collect();
        for listener in listeners {
            if let Some((id, peer)) = self.stack.tcp_accept(listener) {
                assert_eq!(self.stack.tcp_remote_address(id), Ok(peer));
                self.hold(id);
            }
        }
    }

    fn connect(&mut self, family: Family, port: u8) {
        let options = self.stack.default_tcp_options().clone();
        let remote = SocketAddr::new(family.remote(), FIRST_REMOTE_PORT + u16::from(port % REMOTE_PORTS));
        if let Ok(id) = self.stack.tcp_connect(self.now, &mut None, remote, &options) {
            self.hold(id);
        }
    }

    fn send(&mut self, at: usize, len: usize) {
        let held = &mut self.program.connections[at];
        let Some(buffer) = self.arena.copy_from(sent_bytes(held.written, len)) else { return };
        let mut data = ScatterGather::from(buffer.freeze());
        if let Ok(taken) = self.stack.tcp_send(held.id, &mut data) {
            assert_eq!(taken + data.len(), len);
            held.written += taken as u32;
        }
    }

    fn receive(&mut self, at: usize, len: usize) {
        let held = &mut self.program.connections[at];
        let len = len.clamp(1, MAX_PIECE_BYTES);
        let limit = PopLimit { segments: usize::MAX, bytes: len };
        if let Ok(Some(data)) = self.stack.tcp_receive(held.id, limit) {
            assert!(data.len() <= len);
            let data = data.to_vec();
            if let (Some(&first), Some(&last)) = (data.first(), data.last()) {
                assert!(
                    held.last_read.is_none_or(|read| first == read.wrapping_add(1)),
                    "a byte read out of turn"
                );
                assert!(data == received_bytes(first.into(), data.len()), "bytes read out of turn");
                held.last_read = Some(last);
            }
        }
    }

    fn set_option(&mut self, on: u8, option: u8, value: u32) {
        let Some(at) = self.held(on) else { return };
        let id = self.program.connections[at].id;
        // A smaller limit than what is queued already would look like a limit that was broken.
        let queued_bytes = self.stack.tcp_info(id).map_or(0, |info| info.send_queue_bytes);
        let algorithm = || ["cubic", "reno", "dctcp", "bbr"][value as usize % 4];
        let option = match option % 16 {
            0 => SocketOption::NoDelay(value & 1 != 0),
            1 => SocketOption::KeepAlive(value & 1 != 0),
            2 => SocketOption::Linger((value & 1 != 0).then(|| Duration::from_secs(u64::from(value & 2)))),
            3 => SocketOption::SendBuffer(queued_bytes.max(value as usize)),
            4 => SocketOption::ReceiveBuffer(value as usize),
            5 => SocketOption::MaxSegmentSize(value as usize),
            6 => SocketOption::Cork(value & 1 != 0),
            7 => SocketOption::QuickAck(value & 1 != 0),
            8 => {
                let limit_ms = u64::from(value) % MAX_USER_TIMEOUT_MS;
                SocketOption::UserTimeout((limit_ms != 0).then(|| Duration::from_millis(limit_ms)))
            }
            9 => match CongestionName::new(algorithm()) {
                Some(name) => SocketOption::Congestion(name),
                None => return,
            },
            10 => SocketOption::PathMtuDiscovery(PathMtuDiscovery::Wanted),
            11 => SocketOption::KeepAliveIdle(Duration::from_millis(value.into())),
            12 => SocketOption::KeepAliveInterval(Duration::from_millis(value.into())),
            13 => SocketOption::KeepAliveProbes(value as u8),
            14 => SocketOption::TrafficClass(value as u8),
            _ => SocketOption::HopLimit(value as u8),
        };
        let _ = self.stack.tcp_set_option(id, option);
    }

    fn send_datagram(&mut self, connected: bool, len: usize) {
        let (Some(own), Some(&bound)) = (self.program.connected, self.program.datagrams.last()) else {
            return;
        };
        let (id, to) = if connected {
            (own, None)
        } else {
            (bound, Some(SocketAddr::new(Family::V6.remote(), PEER_PORT)))
        };
        let Some(buffer) = self.arena.copy_from(&vec![7; len]) else { return };
        let _ = self.stack.udp_send(self.now, id, to.as_ref(), &mut ScatterGather::from(buffer.freeze()));
    }
}
