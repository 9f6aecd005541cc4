//! UDP echo: every datagram is answered with itself; the client goes on until enough answers came.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libos::Instant;

use super::App;
use crate::host::{Host, Socket};
use crate::pattern::Pattern;

/// Answers datagrams.
#[derive(Debug)]
pub struct UdpEchoServer {
    port: u16,
    socket: Option<Socket>,
}

impl UdpEchoServer {
    pub fn new(port: u16) -> Self {
        Self { port, socket: None }
    }
}

impl App for UdpEchoServer {
    fn step(&mut self, host: &mut dyn Host, _now: Instant) -> bool {
        let socket = *self.socket.get_or_insert_with(|| host.udp_bind(self.port));
        let mut progress = false;
        while let Some((bytes, from)) = host.udp_receive(socket) {
            // An answer for which there is no room is lost, as any datagram may be.
            host.udp_send(socket, from, &bytes);
            progress = true;
        }
        progress
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn is_done(&self) -> bool {
        true
    }

    fn end(&mut self, host: &mut dyn Host) {
        if let Some(socket) = self.socket.take() {
            host.udp_close(socket);
        }
    }

    fn describe(&self) -> String {
        "UDP echo server".to_owned()
    }
}

/// Sends datagrams of growing size at an interval until `wanted` different ones were answered.
#[derive(Debug)]
pub struct UdpEchoClient {
    port: u16,
    server: SocketAddr,
    wanted: usize,
    most_bytes: usize,
    interval: Duration,
    socket: Option<Socket>,
    next_send: Instant,
    sent: u32,
    answered: BTreeSet<u32>,
}

impl UdpEchoClient {
    pub fn new(port: u16, server: IpAddr, wanted: usize, most_bytes: usize, interval: Duration) -> Self {
        Self {
            port: port + 1,
            server: SocketAddr::new(server, port),
            wanted,
            most_bytes,
            interval,
            socket: None,
            next_send: Instant::ZERO,
            sent: 0,
            answered: BTreeSet::new(),
        }
    }

    /// A datagram: its number, and then the pattern of that number.
    fn datagram(&self, number: u32) -> Vec<u8> {
        let mut bytes = vec![0; 4 + number as usize * 37 % (self.most_bytes - 3)];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Pattern::new(number as u16, self.port, true).fill(0, &mut bytes[4..]);
        bytes
    }
}

impl App for UdpEchoClient {
    fn step(&mut self, host: &mut dyn Host, now: Instant) -> bool {
        let socket = *self.socket.get_or_insert_with(|| host.udp_bind(self.port));
        let mut progress = false;
        while let Some((bytes, from)) = host.udp_receive(socket) {
            assert_eq!(from, self.server, "an answer from somewhere else");
            let number = u32::from_be_bytes(*bytes.first_chunk().expect("a number"));
            assert!(number < self.sent, "an answer to what was not asked");
            assert_eq!(bytes, self.datagram(number), "an answer that differs from the question");
            self.answered.insert(number);
            progress = true;
        }
        if now >= self.next_send && !self.is_done() {
            progress |= host.udp_send(socket, self.server, &self.datagram(self.sent));
            self.sent += 1;
            self.next_send = now + self.interval;
        }
        progress
    }

    fn deadline(&self, _now: Instant) -> Option<Instant> {
        (!self.is_done()).then_some(self.next_send)
    }

    fn is_done(&self) -> bool {
        self.answered.len() >= self.wanted
    }

    fn end(&mut self, host: &mut dyn Host) {
        if let Some(socket) = self.socket.take() {
            host.udp_close(socket);
        }
    }

    fn describe(&self) -> String {
        format!("UDP echo client: {} of {} answered, {} sent", self.answered.len(), self.wanted, self.sent)
    }
}
