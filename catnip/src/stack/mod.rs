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
use libos::runtime::Medium;
use libos::{Arena, Error, FrameBatch, Instant, RxFrame, SetupError};

use crate::events::{Event, EventQueue};
use crate::network::{AddressStatus, InLane, Ingress, LaneEnd, Lease, Network, PlainProtocol, Protocol};
use crate::random::Random;
use crate::steering::{self, Class, Transport};
use crate::tcp::TcpLayer;
use crate::udp::UdpLayer;
use crate::waiting::{Nobody, Waiting};
use crate::wire::ethernet;

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
            udp: UdpLayer::new(&config.udp, config.share.clone(), &mut random),
            tcp: TcpLayer::new(config.tcp.clone(), config.share.clone(), &mut random, now),
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
        self.receive_for(now, frame, &mut Nobody);
    }

    /// As [`Self::receive`]; what somebody is `waiting` for goes to them at once.
    pub fn receive_for(&mut self, now: Instant, frame: RxFrame, waiting: &mut impl Waiting) {
        self.receive_lone(now, frame, waiting);
    }

    /// As [`Self::receive_for`], in line: for the one place where a frame comes alone and latency counts.
    #[inline(never)]
    pub(crate) fn receive_lone(&mut self, now: Instant, frame: RxFrame, waiting: &mut impl Waiting) {
        self.received = true;
        match self.network.medium() {
            Medium::Ethernet => self.receive_behind::<{ ethernet::HEADER_BYTES }>(now, frame, waiting),
            Medium::Ip => self.receive_bare(now, frame, waiting),
        }
    }

    /// Takes a frame of a flow that has a lane. True when that left nothing to be done.
    ///
    /// # Errors
    /// The frame, and nothing done, for all else: it is for [`Self::receive_for`].
    #[inline(always)]
    pub(crate) fn receive_straight(
        &mut self,
        now: Instant,
        frame: RxFrame,
        waiting: &mut impl Waiting,
    ) -> Result<bool, RxFrame> {
        let Some(lane) = self.in_lane(&frame) else { return Err(frame) };
        if self.is_lane_of_segments(lane) {
            self.receive_segment(now, frame, lane, waiting)
        } else {
            self.receive_datagram(frame, lane, waiting).map(|()| true)
        }
    }

    /// The lane of a frame whose flow has one.
    #[inline(always)]
    pub(crate) fn in_lane(&self, frame: &RxFrame) -> Option<InLane> {
        self.network.in_lane(frame)
    }

    /// True when what is [`Self::in_lane`] is for [`Self::receive_segment`], else for [`Self::receive_datagram`].
    #[inline(always)]
    pub(crate) fn is_lane_of_segments(&self, lane: InLane) -> bool {
        matches!(self.network.lane_end(lane), LaneEnd::Tcp { .. })
    }

    /// [`Self::receive_straight`] of a frame with a datagram. It leaves nothing to be done.
    #[inline(always)]
    pub(crate) fn receive_datagram(
        &mut self,
        frame: RxFrame,
        lane: InLane,
        waiting: &mut impl Waiting,
    ) -> Result<(), RxFrame> {
        let Self { network, udp, .. } = self;
        udp.on_lane(waiting, network.lane_end(lane), frame, lane.end)?;
        network.count_in_lane();
        Ok(())
    }

    /// [`Self::receive_straight`] of a frame with a segment.
    #[inline(always)]
    pub(crate) fn receive_segment(
        &mut self,
        now: Instant,
        frame: RxFrame,
        lane: InLane,
        waiting: &mut impl Waiting,
    ) -> Result<bool, RxFrame> {
        // The general way takes note of it.
        if self.arena.used_bytes() > self.memory_short_bytes {
            return Err(frame);
        }
        let Self { network, tcp, events, .. } = self;
        let LaneEnd::Tcp { key, queue } = *network.lane_end(lane) else { return Err(frame) };
        let left_nothing = tcp.on_lane(now, key, queue, frame, lane.end, network, events, waiting)?;
        network.count_in_lane();
        Ok(left_nothing)
    }

    /// True when there is nothing that a poll would get out, and no event.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.needs_poll() && self.events.is_empty()
    }

    /// Out of line, so that each medium's headers are at fixed places.
    #[inline(never)]
    fn receive_bare(&mut self, now: Instant, frame: RxFrame, waiting: &mut impl Waiting) {
        self.receive_behind::<0>(now, frame, waiting);
    }

    /// Takes a frame with a link header of so many bytes.
    #[inline(always)]
    fn receive_behind<const LINK_BYTES: usize>(
        &mut self,
        now: Instant,
        frame: RxFrame,
        waiting: &mut impl Waiting,
    ) {
        let Self { network, udp, tcp, events, .. } = self;
        match network.receive_plain::<LINK_BYTES>(&frame) {
            Some(plain) => match plain.protocol {
                PlainProtocol::Tcp => tcp.receive_plain(now, plain, frame, network, events, waiting),
                PlainProtocol::Udp => udp.on_plain(now, network, events, waiting, plain, frame),
            },
            None => {
                let ingress = self.network.receive_any(now, frame);
                self.take_in(now, ingress, waiting);
            }
        }
    }

    #[inline(never)]
    fn take_in(&mut self, now: Instant, ingress: Ingress, waiting: &mut impl Waiting) {
        let Self { network, udp, tcp, events, .. } = self;
        match ingress {
            Ingress::Consumed => {}
            Ingress::Packet(packet) => match packet.protocol {
                Protocol::Tcp => tcp.receive(now, packet, network, events, waiting),
                Protocol::Udp => udp.on_packet(now, network, events, waiting, packet),
                Protocol::Icmpv4 | Protocol::Icmpv6 => {}
            },
            Ingress::Error(error) => match error.protocol {
                Protocol::Tcp => tcp.on_icmp_error(now, &error, network, events),
                Protocol::Udp => udp.on_error(events, &error),
                Protocol::Icmpv4 | Protocol::Icmpv6 => {}
            },
        }
    }

    /// True when a socket or a connection of this stack is concerned with the frame, or when nobody in particular is. For
    /// several cores that share a device, when it is in doubt whose the frame is.
    #[must_use]
    pub fn claims(&self, frame: &RxFrame) -> bool {
        match steering::classify(self.network.medium(), &frame.head) {
            Class::Flow(flow) => match flow.transport {
                Transport::Tcp => self.tcp.claims(flow.local, flow.remote, flow.opens),
                Transport::Udp => self.udp.claims(flow.local, flow.remote),
            },
            Class::Error(_) | Class::Everyone | Class::Anyone | Class::Group { .. } | Class::Part(..) => true,
        }
    }

    /// Runs the timers that are due and composes what is to be sent. Bounded work.
    #[inline(always)]
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
    #[inline]
    pub fn flush(&mut self, now: Instant) {
        self.tcp.output(now, &mut self.network, &mut self.events);
    }

    /// What was sent to our own addresses, and what this stack itself found out. Answers wait for the next poll.
    #[inline(never)]
    fn take_looped(&mut self, now: Instant) {
        for _ in 0..self.network.looped_packets() {
            match self.network.receive_looped(now) {
                Some(ingress) => self.take_in(now, ingress, &mut Nobody),
                None => break,
            }
        }
        while let Some(error) = self.network.next_error() {
            self.take_in(now, Ingress::Error(error), &mut Nobody);
        }
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
    #[inline]
    pub fn frames(&mut self) -> &mut FrameBatch {
        self.network.frames()
    }

    /// True when [`Self::frames`] has something.
    #[must_use]
    #[inline]
    pub fn has_frames(&self) -> bool {
        self.network.queued_frames() > 0
    }

    /// True when [`Self::next_event`] has something.
    #[must_use]
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What became possible on some socket. At most one event is queued for each.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// This stack's addresses: those configured, and those it got by itself; what state they are in, and until
    /// when they are good.
    pub fn addresses(&self) -> impl Iterator<Item = AddressStatus> {
        self.network.addresses()
    }

    /// The lease of the IPv4 address, if a DHCP server granted one.
    #[must_use]
    pub fn dhcp_lease(&self) -> Option<&Lease> {
        self.network.dhcp_lease()
    }

    /// Gives the leased address back. For a program that ends: no other is asked for.
    pub fn release_dhcp_lease(&mut self, now: Instant) {
        self.network.release_dhcp_lease(now);
    }

    /// Most sockets of all kinds together.
    #[must_use]
    pub const fn max_sockets(&self) -> usize {
        self.max_sockets
    }

    /// True when so many frames wait for the device that a datagram should wait too.
    #[must_use]
    #[inline]
    pub fn transmit_queue_is_full(&self) -> bool {
        self.network.transmit_queue_is_full()
    }

    /// True while a peer or the program waits for this stack: something is in flight, queued or unread.
    /// Looks at every connection: for rare occasions.
    #[must_use]
    pub fn has_pending_work(&self) -> bool {
        self.needs_poll() || self.tcp.has_pending_work()
    }

    /// True while a connection is neither over nor in TIME-WAIT, or something waits to be sent.
    #[must_use]
    pub fn is_winding_up(&self) -> bool {
        self.needs_poll() || self.tcp.has_open_connections()
    }

    /// Resets every connection that is not over yet.
    pub fn abort_all(&mut self, now: Instant) {
        self.tcp.abort_all(now, &mut self.network, &mut self.events);
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
