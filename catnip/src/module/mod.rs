//! The stack as a module of the library OS: descriptors and tokens on one side, a device on the other.

mod calm;
mod datagrams;
mod doubts;
mod failure;
mod fifo;
mod operations;
mod pops;
mod sockets;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::task::Poll;

use libos::metrics::MetricsSink;
use libos::module::{Completions, Departure, Popped};
use libos::runtime::{Arrival, RxBatch, RxFrame};
use libos::time::Timekeeper;
use libos::{
    Domain, Error, FilterMode, GroupMembership, Handle, Instant, MemoryAccess, Module, PopLimit,
    QueueDescriptor, Runtime, ScatterGather, Shutdown, SocketKind, SocketOption, SocketOptionName, Token,
};

use crate::events::ConnectionId;
use crate::network::InLane;
use crate::slab::{Key, Slab};
use crate::stack::Stack;
use calm::Calm;
use pops::Pops;
use sockets::{Datagram, Socket};

/// The stack on the queue pair of one device.
pub struct StackModule<R: Runtime> {
    stack: Calm,
    runtime: R,
    received: RxBatch,
    sockets: Slab<Socket>,
    /// Datagram sockets with a push that waits for room in the device's queue.
    blocked: Vec<Key>,
    device_failed: bool,
}

impl<R: Runtime> StackModule<R> {
    /// Puts `stack` on `runtime`. The stack's configuration must have been made from the runtime's capabilities.
    #[must_use]
    pub fn new(stack: Stack, runtime: R) -> Self {
        let limit = stack.max_sockets();
        Self {
            stack: Calm::new(stack),
            runtime,
            received: RxBatch::new(),
            sockets: Slab::with_capacity_limit(limit),
            blocked: Vec::new(),
            device_failed: false,
        }
    }

    /// The stack, to look at.
    #[must_use]
    pub fn stack(&self) -> &Stack {
        &self.stack
    }

    /// The device, to look at.
    #[must_use]
    pub const fn runtime(&self) -> &R {
        &self.runtime
    }

    fn socket_of(&mut self, handle: Handle) -> Result<&mut Socket, Error> {
        self.sockets.get_mut(Key::from_bits(handle.0)).ok_or(Error::BadDescriptor)
    }

    /// Takes the one frame that has arrived, if it goes straight to who waits for it, or nothing has. True when nothing is
    /// left to be done then. Calls nothing, so that nothing has to be saved for it.
    #[inline(always)]
    fn poll_straight(&mut self, now: Instant, completions: &mut Completions) -> bool {
        match self.runtime.receive_lone(now) {
            Arrival::Nothing => {}
            Arrival::Lone(frame) => {
                let Some(lane) = self.stack.in_lane(&frame) else {
                    self.received.push(frame);
                    return false;
                };
                if self.stack.is_lane_of_segments(lane) {
                    self.poll_segment(now, completions, frame, lane);
                    return true;
                }
                let mut pops = Pops { sockets: &mut self.sockets, completions, in_burst: false };
                if let Err(frame) = self.stack.quietly().receive_datagram(frame, lane, &mut pops) {
                    self.received.push(frame);
                    return false;
                }
            }
            Arrival::Batch => return false,
        }
        self.stack.is_calm(now)
    }

    /// Receives what is not received yet, and does what is to be done.
    #[inline(never)]
    fn poll_on(&mut self, now: Instant, completions: &mut Completions) {
        if self.received.is_empty() && self.runtime.receive(now, &mut self.received).is_err() {
            self.on_device_failure(now, completions);
        }
        let mut pops = Pops { sockets: &mut self.sockets, completions, in_burst: self.received.len() > 1 };
        // A lone frame, the usual case where latency counts, needs no draining.
        if pops.in_burst {
            let stack = self.stack.stir();
            self.received.drain(..).for_each(|frame| stack.receive_for(now, frame, &mut pops));
        } else if let Some(RxFrame { head, rest, checksum, segment_bytes }) = self.received.pop() {
            let frame = RxFrame { head: head.by_fields(), rest, checksum, segment_bytes };
            match self.stack.quietly().receive_straight(now, frame, &mut pops) {
                Ok(true) => {}
                Ok(false) => {
                    self.stack.stir();
                }
                Err(frame) => self.stack.stir().receive_for(now, frame, &mut pops),
            }
        }
        if let Some(doubt) = self.runtime.next_doubt() {
            self.settle_doubts(now, doubt, completions);
        }
        if !self.stack.is_calm(now) {
            self.go_on(now, completions);
        }
    }

    /// Does what there is to be done besides receiving.
    #[inline(always)]
    fn go_on(&mut self, now: Instant, completions: &mut Completions) {
        self.dispatch(completions);
        self.stack.stir().poll(now);
        self.dispatch(completions);
        self.transmit(now, completions);
        if !self.blocked.is_empty() {
            self.retry_blocked(now, completions);
        }
        if self.blocked.is_empty() && !self.device_failed {
            self.stack.settle();
        }
    }

    /// Takes a segment of a lane and does what is left to be done. Out of line: other frames of lanes
    /// are taken without a call.
    #[inline(never)]
    fn poll_segment(&mut self, now: Instant, completions: &mut Completions, frame: RxFrame, lane: InLane) {
        let mut pops = Pops { sockets: &mut self.sockets, completions, in_burst: false };
        match self.stack.quietly().receive_segment(now, frame, lane, &mut pops) {
            Ok(true) => {}
            Ok(false) => {
                self.stack.stir();
            }
            Err(frame) => self.received.push(frame),
        }
        if !self.received.is_empty() || !self.stack.is_calm(now) {
            self.poll_on(now, completions);
        }
    }

    /// Sends what goes where the socket's last push went, while nothing else waits to be sent or done. False, and nothing
    /// done, for all else.
    #[inline(always)]
    fn send_straight(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
    ) -> bool {
        if !self.runtime.takes_lone() || !self.stack.is_settled() {
            return false;
        }
        match self.sockets.get(Key::from_bits(handle.0)) {
            Some(Socket::Datagram(Datagram { id: Some(id), .. })) => {
                let now = time.last();
                let Some(frame) = self.stack.quietly().udp_straight(now, *id, to, data) else { return false };
                self.runtime.transmit_lone(now, frame);
                true
            }
            Some(Socket::Stream(stream)) if stream.pushes.is_empty() => {
                let id = stream.id;
                self.send_segment(time, id, data)
            }
            _ => false,
        }
    }

    /// As [`Self::send_straight`], of a stream. Out of line: a datagram is sent without a call.
    #[inline(never)]
    fn send_segment(&mut self, time: &Timekeeper, id: ConnectionId, data: &mut ScatterGather) -> bool {
        // Round trips are measured from here, and the last poll may be long ago.
        let now = time.now();
        let Some(frame) = self.stack.quietly().tcp_straight(now, id, data) else { return false };
        self.runtime.transmit_kept(now, frame);
        true
    }

    #[inline(always)]
    fn transmit(&mut self, now: Instant, completions: &mut Completions) {
        if self.stack.has_frames() {
            self.transmit_frames(now, completions);
        }
    }

    #[inline(always)]
    fn transmit_frames(&mut self, now: Instant, completions: &mut Completions) {
        if self.runtime.transmit(now, self.stack.stir().frames()).is_err() {
            self.on_device_failure(now, completions);
        }
    }

    #[inline]
    fn dispatch(&mut self, completions: &mut Completions) {
        if self.stack.has_events() {
            self.dispatch_events(completions);
        }
    }

    #[inline(never)]
    fn dispatch_events(&mut self, completions: &mut Completions) {
        while let Some(event) = self.stack.stir().next_event() {
            self.on_event(event, completions);
        }
    }
}

impl<R: Runtime> Module for StackModule<R> {
    fn name(&self) -> &str {
        "catnip"
    }

    fn socket(&mut self, domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        self.new_socket(domain, kind)
    }

    fn bind(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        self.bind_socket(handle, local)
    }

    fn listen(&mut self, handle: Handle, backlog: usize) -> Result<(), Error> {
        self.listen_on(handle, backlog)
    }

    fn shutdown(&mut self, handle: Handle, how: Shutdown) -> Result<(), Error> {
        self.shut_down(handle, how)
    }

    fn set_option(&mut self, handle: Handle, option: SocketOption) -> Result<(), Error> {
        self.set_socket_option(handle, option)
    }

    fn option(&mut self, handle: Handle, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.socket_option(handle, name)
    }

    fn set_source_filter(
        &mut self,
        handle: Handle,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        self.set_filter(handle, group, mode, sources)
    }

    fn source_filter(
        &mut self,
        handle: Handle,
        group: GroupMembership,
    ) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        self.filter_of(handle, group)
    }

    fn local_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.address_of(handle)
    }

    fn peer_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.peer_of(handle)
    }

    fn accept(
        &mut self,
        _now: Instant,
        handle: Handle,
        token: Token,
        completions: &mut Completions,
    ) -> Result<(), Error> {
        self.start_accept(handle, token, completions)
    }

    fn connect(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        peer: SocketAddr,
        _completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.start_connect(now, handle, token, peer)
    }

    fn push_straight(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
    ) -> bool {
        self.send_straight(time, handle, data, to)
    }

    fn push(
        &mut self,
        time: &Timekeeper,
        handle: Handle,
        token: Token,
        data: &mut ScatterGather,
        to: Option<&SocketAddr>,
        departure: Departure,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        let ended = self.start_push(time, handle, token, data, to, departure);
        if departure == Departure::Now {
            let now = time.last();
            self.stack.stir().flush(now);
            self.transmit(now, completions);
        }
        ended
    }

    fn pop(
        &mut self,
        _now: Instant,
        handle: Handle,
        queue: QueueDescriptor,
        limit: PopLimit,
        _completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        self.start_pop(handle, queue, limit)
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        if let Ok(socket) = self.socket_of(handle) {
            socket.cancel(token);
        }
    }

    fn close(&mut self, now: Instant, handle: Handle) {
        self.close_socket(now, handle);
    }

    fn close_for(&mut self, now: Instant, handle: Handle, token: Token) -> Poll<Result<(), Error>> {
        self.close_socket_for(now, handle, token)
    }

    fn poll(&mut self, now: Instant, completions: &mut Completions) {
        if !self.poll_straight(now, completions) {
            self.poll_on(now, completions);
        }
    }

    fn needs_poll(&self) -> bool {
        self.stack.needs_poll()
    }

    fn next_deadline(&self) -> Option<Instant> {
        match (self.stack.next_deadline(), self.runtime.next_deadline()) {
            (Some(stack), Some(device)) => Some(stack.min(device)),
            (deadline, None) | (None, deadline) => deadline,
        }
    }

    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        // A device that was taken away is readable for ever, and nothing comes.
        self.device_failed || self.runtime.wake_fds(fds)
    }

    fn has_pending_work(&self) -> bool {
        self.stack.has_pending_work()
    }

    fn is_winding_up(&self) -> bool {
        !self.device_failed && self.stack.is_winding_up()
    }

    fn abort_all(&mut self, now: Instant) {
        self.stack.stir().abort_all(now);
    }

    fn failure(&self) -> Option<String> {
        self.device_failed.then(|| self.device_failure())
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.stack.metrics(sink);
        sink.enter("device");
        sink.gauge("zero_copy", u64::from(self.runtime.memory_access() != MemoryAccess::Copy));
        self.runtime.metrics(sink);
        sink.leave();
        sink.gauge("sockets", self.sockets.len() as u64);
    }
}
