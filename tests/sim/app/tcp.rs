//! A server and its clients: so many connections, each with a plan for both of its sides.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use libos::Instant;

use super::{App, Plan, Side};
use crate::host::{Host, Socket};

/// How long an accepted connection may stay without a byte before it counts as one whose client gave up.
const ORPHAN_AGE: Duration = Duration::from_secs(200);
/// How often a client tries again to open a connection, and how long it waits before.
const MAX_RETRIES: u32 = 100;
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Connections of one kind between two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub port: u16,
    pub connections: usize,
    /// Most connections open at a time.
    pub concurrent: usize,
    pub backlog: usize,
    pub client: Plan,
    pub server: Plan,
}

impl Workload {
    /// True when one side may find the connection reset.
    pub fn aborts(&self) -> bool {
        self.client.ending.resets() || self.server.ending.resets()
    }
}

/// The listening end.
#[derive(Debug)]
pub struct TcpServer {
    workload: Workload,
    listener: Option<Socket>,
    sides: Vec<Side>,
    fulfilled: usize,
}

impl TcpServer {
    pub fn new(workload: Workload) -> Self {
        Self { workload, listener: None, sides: Vec::new(), fulfilled: 0 }
    }

    /// Ends with a side that is over: it was fulfilled, unless one side aborts, or with Fast Open a copy of a SYN came
    /// late and began another connection, which the client resets: its own goes on or is over (RFC 7413, section 2.1).
    fn settle(&mut self, side: &Side, host: &dyn Host) {
        let is_copy = side.was_reset_early() && host.counter("catnip.tcp.fast_open_passive") > 0;
        if !self.workload.aborts() && !is_copy {
            side.assert_fulfilled();
            self.fulfilled += 1;
        }
    }
}

impl App for TcpServer {
    fn step(&mut self, host: &mut dyn Host, now: Instant) -> bool {
        let listener =
            *self.listener.get_or_insert_with(|| host.listen(self.workload.port, self.workload.backlog));
        let mut progress = false;
        while let Some(connection) = host.accept(listener) {
            self.sides.push(Side::new(connection, false, self.workload.server, self.workload.client, now));
            progress = true;
        }
        let mut index = 0;
        while index < self.sides.len() {
            let side = &mut self.sides[index];
            progress |= side.step(host, now);
            if side.is_over() {
                let side = self.sides.swap_remove(index);
                if !(side.is_untouched() && side.last_progress() + ORPHAN_AGE <= now) {
                    self.settle(&side, host);
                }
            } else if side.is_untouched() && side.last_progress() + ORPHAN_AGE <= now {
                side.give_up(host);
                self.sides.swap_remove(index);
                progress = true;
            } else {
                index += 1;
            }
        }
        progress
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let orphans = self.sides.iter().filter(|side| side.is_untouched());
        let orphans = orphans.map(|side| side.last_progress() + ORPHAN_AGE);
        self.sides.iter().filter_map(|side| side.deadline(now)).chain(orphans).min()
    }

    fn is_done(&self) -> bool {
        let enough = self.workload.aborts() || self.fulfilled >= self.workload.connections;
        self.sides.is_empty() && enough
    }

    fn end(&mut self, host: &mut dyn Host) {
        if let Some(listener) = self.listener.take() {
            host.close_listener(listener);
        }
    }

    fn describe(&self) -> String {
        format!("server: {} fulfilled, open: {:#?}", self.fulfilled, self.sides)
    }
}

/// Failures after which a client opens another connection instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgives {
    Nothing,
    /// What faults may do to an opening.
    FailedOpening,
    /// And what smoltcp does as a server: a reset before the first byte came, because an old duplicate of
    /// a SYN took one of the listening sockets; and no answer on ports in TIME-WAIT, even to a new SYN.
    EarlyReset,
}

/// The connecting end.
#[derive(Debug)]
pub struct TcpClient {
    workload: Workload,
    server: SocketAddr,
    sides: Vec<Side>,
    unopened: usize,
    retries: u32,
    next_try: Instant,
    forgives: Forgives,
}

impl TcpClient {
    pub fn new(workload: Workload, server: IpAddr, forgives: Forgives) -> Self {
        let server = SocketAddr::new(server, workload.port);
        Self {
            workload,
            server,
            sides: Vec::new(),
            unopened: workload.connections,
            retries: 0,
            next_try: Instant::ZERO,
            forgives,
        }
    }

    fn settle(&mut self, side: &Side, now: Instant) {
        if self.workload.aborts() {
            return;
        }
        let forgiven = match self.forgives {
            Forgives::Nothing => false,
            Forgives::FailedOpening => side.failed_to_open().is_some(),
            Forgives::EarlyReset => side.failed_to_open().is_some() || side.was_reset_untouched(),
        };
        if forgiven && self.retries < MAX_RETRIES {
            self.retries += 1;
            self.unopened += 1;
            self.next_try = now + RETRY_PAUSE;
        } else {
            side.assert_fulfilled();
        }
    }
}

impl App for TcpClient {
    fn step(&mut self, host: &mut dyn Host, now: Instant) -> bool {
        let mut progress = false;
        while self.unopened > 0 && now >= self.next_try && self.sides.len() < self.workload.concurrent {
            let connection = host.connect_from(None, self.server);
            self.sides.push(Side::new(connection, true, self.workload.client, self.workload.server, now));
            self.unopened -= 1;
            progress = true;
        }
        let mut index = 0;
        while index < self.sides.len() {
            progress |= self.sides[index].step(host, now);
            if self.sides[index].is_over() {
                let side = self.sides.swap_remove(index);
                self.settle(&side, now);
            } else {
                index += 1;
            }
        }
        progress
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let retry = (self.unopened > 0 && self.next_try > now).then_some(self.next_try);
        self.sides.iter().filter_map(|side| side.deadline(now)).chain(retry).min()
    }

    fn is_done(&self) -> bool {
        self.unopened == 0 && self.sides.is_empty()
    }

    fn end(&mut self, _host: &mut dyn Host) {}

    fn describe(&self) -> String {
        format!("client: {} unopened, {} retries, open: {:#?}", self.unopened, self.retries, self.sides)
    }
}
