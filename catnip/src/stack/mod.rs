//! The stack: network layer and transports joined.

mod config;
mod section;
mod tcp_calls;
mod udp_calls;

#[cfg(test)]
mod tests;

pub use config::StackConfig;
pub(crate) use config::{MAX_ADDRESSES, MIN_MTU_IPV6};

use libos::metrics::MetricsSink;
use libos::{Arena, Error, FrameBatch, Instant, RxFrame, SetupError};

use crate::events::{Event, EventQueue};
use crate::network::{Ingress, Network, Protocol};
use crate::random::Random;
use crate::tcp::TcpLayer;
use crate::udp::UdpLayer;

/// The part of the arena from which on memory counts as short: then only those who read get more.
const MEMORY_SHORT_NUMERATOR: usize = 7;
const MEMORY_SHORT_DENOMINATOR: usize = 8;

/// A TCP/IP stack without I/O: frames, time and calls go in, frames and events come out.
///
/// After any call, take what is in [`Stack::frames`] and [`Stack::next_event`]; call [`Stack::poll`] when
/// [`Stack::needs_poll`] or when [`Stack::next_deadline`] has come.
#[derive(Debug)]
pub struct Stack {
    network: Network,
    udp: UdpLayer,
    tcp: TcpLayer,
    events: EventQueue,
    arena: Arena,
    /// Bytes of the arena from which on memory is short.
    memory_short_bytes: usize,
    /// True when a frame came since memory was last looked at.
    received: bool,
    max_sockets: usize,
}

impl Stack {
    /// A stack with these settings. Everything random in it follows from `seed`, which therefore has to be
    /// secret and random outside of tests. Buffers for headers come from `arena`.
    ///
    /// # Errors
    /// [`SetupError::Config`] when settings do not fit together.
    pub fn new(config: &StackConfig, arena: Arena, seed: u64, now: Instant) -> Result<Self, SetupError> {
        let mut random = Random::new(seed);
        let max_sockets = config
            .tcp
            .max_connections
            .saturating_add(config.tcp.max_listeners)
            .saturating_add(config.udp.max_sockets)
            .min(u32::MAX as usize - 1);
        Ok(Self {
            udp: UdpLayer::new(&config.udp, &mut random),
            tcp: TcpLayer::new(config.tcp.clone(), &mut random, now),
            network: Network::new(config, arena.clone(), &mut random, now)?,
            events: EventQueue::new(),
            memory_short_bytes: arena.stats().region_bytes / MEMORY_SHORT_DENOMINATOR
                * MEMORY_SHORT_NUMERATOR,
            arena,
            received: false,
            max_sockets,
        })
    }

    /// A frame arrived. What it makes the stack send goes out with the next [`Stack::poll`].
    pub fn receive(&mut self, now: Instant, frame: RxFrame) {
        self.received = true;
        let ingress = self.network.receive(now, frame);
        self.take_in(now, ingress);
    }

    #[inline(always)]
    fn take_in(&mut self, now: Instant, ingress: Ingress) {
        match ingress {
            Ingress::Consumed => {}
            Ingress::Packet(packet) => match packet.protocol {
                Protocol::Tcp => self.tcp.receive(now, packet, &mut self.network, &mut self.events),
                Protocol::Udp => self.udp.on_packet(now, &mut self.network, &mut self.events, packet),
                Protocol::Icmpv4 | Protocol::Icmpv6 => {}
            },
            Ingress::Error(error) => match error.protocol {
                Protocol::Tcp => {
                    self.tcp.on_icmp_error(now, &error, &mut self.network, &mut self.events);
                }
                Protocol::Udp => self.udp.on_error(&mut self.events, &error),
                Protocol::Icmpv4 | Protocol::Icmpv6 => {}
            },
        }
    }

    /// Runs the timers that are due and composes what is to be sent. Bounded work.
    #[inline]
    pub fn poll(&mut self, now: Instant) {
        if self.received {
            self.received = false;
            self.tcp.set_memory_short(self.arena.used_bytes() > self.memory_short_bytes);
        }
        self.tcp.run_timers(now, &mut self.network, &mut self.events);
        self.network.poll(now);
        if self.network.needs_poll() {
            self.take_looped(now);
        }
        self.tcp.output(now, &mut self.network, &mut self.events);
    }

    /// Composes what connections have to send, as [`Stack::poll`] does last. For a push that is not to wait for
    /// the next poll.
    pub fn flush(&mut self, now: Instant) {
        self.tcp.output(now, &mut self.network, &mut self.events);
    }

    /// What was sent to our own addresses, and what this stack itself found out. Answers wait for the next poll.
    fn take_looped(&mut self, now: Instant) {
        for _ in 0..self.network.looped_packets() {
            match self.network.receive_looped(now) {
                Some(ingress) => self.take_in_rarely(now, ingress),
                None => break,
            }
        }
        while let Some(error) = self.network.next_error() {
            self.take_in_rarely(now, Ingress::Error(error));
        }
    }

    #[cold]
    fn take_in_rarely(&mut self, now: Instant, ingress: Ingress) {
        self.take_in(now, ingress);
    }

    /// True when something waits that only [`Stack::poll`] or a look at [`Stack::frames`] gets out.
    #[must_use]
    pub fn needs_poll(&self) -> bool {
        self.tcp.has_output() || self.network.needs_poll() || self.network.queued_frames() > 0
    }

    /// When [`Stack::poll`] is next to be called though nothing arrives. May be early, never late.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.tcp.next_deadline(), self.network.next_deadline()) {
            (Some(tcp), Some(network)) => Some(tcp.min(network)),
            (deadline, None) | (None, deadline) => deadline,
        }
    }

    /// Frames to be sent, oldest first.
    pub fn frames(&mut self) -> &mut FrameBatch {
        self.network.frames()
    }

    /// What became possible on some socket. At most one event is queued for each.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// Most sockets of all kinds together.
    #[must_use]
    pub const fn max_sockets(&self) -> usize {
        self.max_sockets
    }

    /// True when so many frames wait for the device that a datagram should wait too.
    #[must_use]
    pub fn transmit_queue_is_full(&self) -> bool {
        self.network.transmit_queue_is_full()
    }

    /// True while a peer or the program waits for this stack: something is in flight, queued or unread.
    /// Looks at every connection: for rare occasions.
    #[must_use]
    pub fn has_pending_work(&self) -> bool {
        self.needs_poll() || self.tcp.has_pending_work()
    }

    /// Ends all connections with `error`: the device is gone.
    pub fn fail_all(&mut self, now: Instant, error: Error) {
        self.tcp.fail_all(now, error, &mut self.network, &mut self.events);
    }

    /// Writes all counters.
    pub fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.network.metrics(sink);
        self.udp.metrics(sink);
        sink.enter("tcp");
        self.tcp.metrics(sink);
        sink.leave();
    }
}
