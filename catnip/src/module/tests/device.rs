//! A device for tests, and a module that never takes a short way.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use libos::metrics::MetricsSink;
use libos::module::{Completions, Departure, Popped};
use libos::runtime::{Arrival, RxBatch, RxChecksum, RxFrame};
use libos::time::Timekeeper;
use libos::{
    Arena, Buffer, Capabilities, Domain, Error, FrameBatch, Handle, Instant, Module, PopLimit,
    QueueDescriptor, Runtime, ScatterGather, Shutdown, SocketKind, SocketOption, SocketOptionName, Token,
};

use crate::StackModule;

/// Which way frames and pushes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Straight,
    General,
}

/// What is under way from and to a device.
pub(super) struct Wire {
    pub(super) incoming: VecDeque<Vec<u8>>,
    pub(super) sent: Vec<Vec<u8>>,
    /// Frames that the device takes until somebody makes room.
    pub(super) room: usize,
    /// Frames that it took without a batch.
    pub(super) lone_sent: usize,
    untold: Vec<Vec<u8>>,
}

impl Wire {
    pub(super) fn new() -> Self {
        let (incoming, sent, untold) = Default::default();
        Self { incoming, sent, room: usize::MAX, lone_sent: 0, untold }
    }

    fn put(&mut self, frame: Vec<u8>) {
        self.room -= 1;
        self.untold.push(frame.clone());
        self.sent.push(frame);
    }

    /// What was sent since this was last asked.
    pub(super) fn untold(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.untold)
    }
}

pub(super) struct Line {
    pub(super) way: Way,
    pub(super) wire: Rc<RefCell<Wire>>,
    pub(super) capabilities: Capabilities,
    pub(super) arena: Arena,
}

impl Line {
    fn frame(&self, bytes: &[u8]) -> RxFrame {
        let head = self.arena.copy_from(bytes).unwrap().freeze();
        let frame = RxFrame { checksum: RxChecksum::Verified, ..RxFrame::from(head) };
        match self.way {
            Way::Straight => frame,
            // Padding, as short frames have it.
            Way::General => {
                RxFrame { rest: vec![self.arena.copy_from(&[0]).unwrap().freeze()].into(), ..frame }
            }
        }
    }
}

impl Runtime for Line {
    fn name(&self) -> &str {
        "line"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn receive(&mut self, _now: Instant, batch: &mut RxBatch) -> Result<(), Error> {
        while !batch.is_full() {
            let Some(bytes) = self.wire.borrow_mut().incoming.pop_front() else { break };
            batch.push(self.frame(&bytes));
        }
        Ok(())
    }

    fn receive_lone(&mut self, _now: Instant) -> Arrival {
        let mut wire = self.wire.borrow_mut();
        match (self.way, wire.incoming.len()) {
            (Way::Straight, 0) => Arrival::Nothing,
            (Way::Straight, 1) => {
                let bytes = wire.incoming.pop_front().unwrap();
                Arrival::Lone(self.frame(&bytes))
            }
            (Way::Straight | Way::General, _) => Arrival::Batch,
        }
    }

    fn takes_lone(&self) -> bool {
        self.way == Way::Straight && self.wire.borrow().room > 0
    }

    fn transmit_lone(&mut self, _now: Instant, frame: Buffer) {
        let mut wire = self.wire.borrow_mut();
        wire.put(frame.to_vec());
        wire.lone_sent += 1;
    }

    fn transmit_kept(&mut self, now: Instant, frame: Buffer) {
        self.transmit_lone(now, frame);
    }

    fn transmit(&mut self, _now: Instant, batch: &mut FrameBatch) -> Result<(), Error> {
        let mut wire = self.wire.borrow_mut();
        while wire.room > 0
            && let Some(frame) = batch.front()
        {
            wire.put(frame.segments.iter().flat_map(|segment| segment.to_vec()).collect());
            batch.pop_front();
        }
        Ok(())
    }

    fn metrics(&self, _sink: &mut dyn MetricsSink) {}
}

/// A module that looks at everything with each poll and has no short way for a push.
pub(super) struct Stirred(pub(super) StackModule<Line>);

impl Module for Stirred {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn socket(&mut self, domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        self.0.socket(domain, kind)
    }

    fn bind(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        self.0.bind(handle, local)
    }

    fn listen(&mut self, handle: Handle, backlog: usize) -> Result<(), Error> {
        self.0.listen(handle, backlog)
    }

    fn shutdown(&mut self, handle: Handle, how: Shutdown) -> Result<(), Error> {
        self.0.shutdown(handle, how)
    }

    fn set_option(&mut self, handle: Handle, option: SocketOption) -> Result<(), Error> {
        self.0.set_option(handle, option)
    }

    fn option(&mut self, handle: Handle, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.0.option(handle, name)
    }

    fn local_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.0.local_address(handle)
    }

    fn accept(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        completions: &mut Completions,
    ) -> Result<(), Error> {
        self.0.accept(now, handle, token, completions)
    }

    fn connect(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        peer: SocketAddr,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.0.connect(now, handle, token, peer, completions)
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
        self.0.stack.stir();
        self.0.push(time, handle, token, data, to, departure, completions)
    }

    fn pop(
        &mut self,
        now: Instant,
        handle: Handle,
        queue: QueueDescriptor,
        limit: PopLimit,
        completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        self.0.pop(now, handle, queue, limit, completions)
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        self.0.cancel(handle, token);
    }

    fn close(&mut self, now: Instant, handle: Handle) {
        self.0.close(now, handle);
    }

    fn close_for(&mut self, now: Instant, handle: Handle, token: Token) -> Poll<Result<(), Error>> {
        self.0.close_for(now, handle, token)
    }

    fn poll(&mut self, now: Instant, completions: &mut Completions) {
        self.0.stack.stir();
        self.0.poll(now, completions);
    }

    fn needs_poll(&self) -> bool {
        self.0.needs_poll()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }

    fn has_pending_work(&self) -> bool {
        self.0.has_pending_work()
    }

    fn is_winding_up(&self) -> bool {
        self.0.is_winding_up()
    }

    fn abort_all(&mut self, now: Instant) {
        self.0.abort_all(now);
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.0.metrics(sink);
    }
}
