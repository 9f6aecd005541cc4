//! What all sockets have: a queue that is closed with them, and operations that outlive the futures
//! that wait for them.

use std::cell::RefCell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::library_os::Abandoned;
use crate::queues::QueueReference;
use crate::{
    Domain, Error, FilterMode, GroupMembership, LibOs, Operation, OperationFuture, Outcome, QueueDescriptor,
    SocketKind, SocketOption, SocketOptionName,
};

/// A queue that belongs to a socket.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) libos: LibOs,
    pub(super) queue: QueueDescriptor,
    /// The queue again, so that dropping the socket cannot hit another one under the same number.
    reference: QueueReference,
}

impl Endpoint {
    /// A new socket.
    pub(super) fn new(libos: &LibOs, domain: Domain, kind: SocketKind) -> Result<Self, Error> {
        Self::adopt(libos, libos.socket(domain, kind)?)
    }

    /// The socket behind a descriptor that nobody else uses.
    pub(super) fn adopt(libos: &LibOs, queue: QueueDescriptor) -> Result<Self, Error> {
        Ok(Self { libos: libos.clone(), queue, reference: libos.reference(queue)? })
    }

    pub(super) fn start(&self, operation: Operation) -> Result<OperationFuture, Error> {
        self.libos.start(self.queue, operation)
    }

    pub(super) fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.libos.local_address(self.queue)
    }

    pub(super) fn peer_addr(&self) -> Result<SocketAddr, Error> {
        self.libos.peer_address(self.queue)
    }

    pub(super) fn set_option(&self, option: SocketOption) -> Result<(), Error> {
        self.libos.set_option(self.queue, option)
    }

    pub(super) fn set_source_filter(
        &self,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        self.libos.set_source_filter(self.queue, group, mode, sources)
    }

    pub(super) fn source_filter(&self, group: GroupMembership) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        self.libos.source_filter(self.queue, group)
    }

    pub(super) fn option(&self, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.libos.option(self.queue, name)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.libos.abandon(Abandoned::Queue(self.reference));
    }
}

/// A place for an operation that is under way, or none.
#[derive(Debug, Default)]
pub(super) struct Pending(RefCell<Option<OperationFuture>>);

impl Pending {
    /// Polls the operation under way; `start` makes one when there is none.
    ///
    /// The operation is out of its place while foreign code may run.
    pub(super) fn poll(
        &self,
        context: &mut Context<'_>,
        start: impl FnOnce() -> Result<OperationFuture, Error>,
    ) -> Poll<Result<Outcome, Error>> {
        let mut operation = match self.0.take() {
            Some(operation) => operation,
            None => start()?,
        };
        match Pin::new(&mut operation).poll(context) {
            Poll::Ready(completion) => Poll::Ready(succeeded(completion.outcome)),
            Poll::Pending => {
                self.0.replace(Some(operation));
                Poll::Pending
            }
        }
    }

    /// Polls the operation under way until there is none.
    pub(super) fn poll_end(&self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(operation) = self.0.take() else { return Poll::Ready(Ok(())) };
        let outcome = ready!(self.poll(context, || Ok(operation)));
        Poll::Ready(outcome.map(drop))
    }

    /// Keeps the operation if it is not done yet.
    pub(super) fn keep(&self, mut operation: OperationFuture) -> Result<(), Error> {
        match operation.take_now() {
            Some(completion) => succeeded(completion.outcome).map(drop),
            None => {
                self.0.replace(Some(operation));
                Ok(())
            }
        }
    }
}

fn succeeded(outcome: Outcome) -> Result<Outcome, Error> {
    match outcome {
        Outcome::Failed(error) => Err(error),
        outcome => Ok(outcome),
    }
}
