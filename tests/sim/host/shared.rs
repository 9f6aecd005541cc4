//! A module that the library OS owns and the test can still look into.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Poll;

use libos::metrics::MetricsSink;
use libos::module::{Completions, Departure, Popped};
use libos::time::Timekeeper;
use libos::{
    Domain, Error, Handle, Instant, Module, PopLimit, QueueDescriptor, ScatterGather, Shutdown, SocketKind,
    SocketOption, SocketOptionName, Token,
};

/// Passes everything on.
pub struct SharedModule<M>(pub Rc<RefCell<M>>);

impl<M: Module> Module for SharedModule<M> {
    fn name(&self) -> &str {
        "catnip"
    }

    fn socket(&mut self, domain: Domain, kind: SocketKind) -> Result<Handle, Error> {
        self.0.borrow_mut().socket(domain, kind)
    }

    fn bind(&mut self, handle: Handle, local: SocketAddr) -> Result<(), Error> {
        self.0.borrow_mut().bind(handle, local)
    }

    fn listen(&mut self, handle: Handle, backlog: usize) -> Result<(), Error> {
        self.0.borrow_mut().listen(handle, backlog)
    }

    fn shutdown(&mut self, handle: Handle, how: Shutdown) -> Result<(), Error> {
        self.0.borrow_mut().shutdown(handle, how)
    }

    fn set_option(&mut self, handle: Handle, option: SocketOption) -> Result<(), Error> {
        self.0.borrow_mut().set_option(handle, option)
    }

    fn option(&mut self, handle: Handle, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.0.borrow_mut().option(handle, name)
    }

    fn local_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.0.borrow().local_address(handle)
    }

    fn peer_address(&self, handle: Handle) -> Result<SocketAddr, Error> {
        self.0.borrow().peer_address(handle)
    }

    fn accept(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        completions: &mut Completions,
    ) -> Result<(), Error> {
        self.0.borrow_mut().accept(now, handle, token, completions)
    }

    fn connect(
        &mut self,
        now: Instant,
        handle: Handle,
        token: Token,
        peer: SocketAddr,
        completions: &mut Completions,
    ) -> Poll<Result<(), Error>> {
        self.0.borrow_mut().connect(now, handle, token, peer, completions)
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
        self.0.borrow_mut().push(time, handle, token, data, to, departure, completions)
    }

    fn pop(
        &mut self,
        now: Instant,
        handle: Handle,
        queue: QueueDescriptor,
        limit: PopLimit,
        completions: &mut Completions,
    ) -> Poll<Result<Popped, Error>> {
        self.0.borrow_mut().pop(now, handle, queue, limit, completions)
    }

    fn cancel(&mut self, handle: Handle, token: Token) {
        self.0.borrow_mut().cancel(handle, token);
    }

    fn close(&mut self, now: Instant, handle: Handle) {
        self.0.borrow_mut().close(now, handle);
    }

    fn poll(&mut self, now: Instant, completions: &mut Completions) {
        self.0.borrow_mut().poll(now, completions);
    }

    fn needs_poll(&self) -> bool {
        self.0.borrow().needs_poll()
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.0.borrow().next_deadline()
    }

    fn wake_fds(&self, fds: &mut Vec<RawFd>) -> bool {
        self.0.borrow().wake_fds(fds)
    }

    fn has_pending_work(&self) -> bool {
        self.0.borrow().has_pending_work()
    }

    fn metrics(&self, sink: &mut dyn MetricsSink) {
        self.0.borrow().metrics(sink);
    }
}
