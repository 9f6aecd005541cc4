//! Operations as futures.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::WakeTarget;
use crate::library_os::{Abandoned, Claim};
use crate::{Completion, Error, LibOs, Operation, Outcome, PopLimit, QueueDescriptor, ScatterGather, Token};

/// Awaits an operation's completion.
///
/// Dropping the future gives the operation up as [`LibOs::discard`] does. An operation that did not
/// complete yet is cancelled: a pop takes nothing, so that the next one gets the data. One that has
/// completed loses what it brought: the data of a pop is gone, and an accepted connection is closed.
/// Whoever waits for a pop in several attempts keeps the future and polls it again, instead of
/// making a new one.
#[derive(Debug)]
#[must_use = "an operation whose future is dropped is given up"]
pub struct OperationFuture {
    libos: LibOs,
    /// `None` when the completion was returned.
    token: Option<Token>,
}

impl LibOs {
    /// The token as a future, which alone gets the completion from now on: waits on the token fail
    /// with [`Error::BadToken`], and [`LibOs::wait_next`] leaves it out.
    ///
    /// # Errors
    /// [`Error::BadToken`] for a token that was never given out, whose completion was taken, or that
    /// is a future already; [`Error::Busy`] from inside a module's callback.
    pub fn operation(&self, token: Token) -> Result<OperationFuture, Error> {
        self.claim(token)?;
        Ok(OperationFuture { libos: self.clone(), token: Some(token) })
    }

    /// Starts an operation as a future.
    ///
    /// # Errors
    /// As [`LibOs::submit`].
    pub fn start(&self, queue: QueueDescriptor, operation: Operation) -> Result<OperationFuture, Error> {
        let token = self.submit_for(queue, operation, Claim::Future)?;
        Ok(OperationFuture { libos: self.clone(), token: Some(token) })
    }

    /// Accepts the next incoming connection.
    ///
    /// # Errors
    /// As [`LibOs::accept`], and whatever the accept fails with.
    pub async fn accept_async(&self, queue: QueueDescriptor) -> Result<(QueueDescriptor, SocketAddr), Error> {
        match self.start(queue, Operation::Accept)?.await.outcome {
            Outcome::Accepted { queue, peer } => Ok((queue, peer)),
            outcome => Err(unfit(&outcome)),
        }
    }

    /// Connects to a peer.
    ///
    /// # Errors
    /// As [`LibOs::connect`], and whatever the connect fails with.
    pub async fn connect_async(&self, queue: QueueDescriptor, peer: SocketAddr) -> Result<(), Error> {
        done(&self.start(queue, Operation::Connect(peer))?.await)
    }

    /// Sends to the connected peer, or appends to the in-memory queue; done when the data was taken.
    ///
    /// # Errors
    /// As [`LibOs::push`], and whatever the push fails with.
    pub async fn push_async(
        &self,
        queue: QueueDescriptor,
        data: impl Into<ScatterGather>,
    ) -> Result<(), Error> {
        done(&self.start(queue, Operation::Push(data.into()))?.await)
    }

    /// Sends a datagram to `peer`.
    ///
    /// # Errors
    /// As [`LibOs::pushto`], and whatever the push fails with.
    pub async fn pushto_async(
        &self,
        queue: QueueDescriptor,
        data: impl Into<ScatterGather>,
        peer: SocketAddr,
    ) -> Result<(), Error> {
        done(&self.start(queue, Operation::PushTo(data.into(), peer))?.await)
    }

    /// Receives: the data, and who sent it if it is a datagram.
    ///
    /// # Errors
    /// As [`LibOs::pop`], and whatever the pop fails with.
    pub async fn pop_async(
        &self,
        queue: QueueDescriptor,
    ) -> Result<(ScatterGather, Option<SocketAddr>), Error> {
        match self.start(queue, Operation::Pop(PopLimit::default()))?.await.outcome {
            Outcome::Popped { data, from } => Ok((data, from)),
            outcome => Err(unfit(&outcome)),
        }
    }

    /// Closes the queue and waits for it; see [`LibOs::close`].
    ///
    /// # Errors
    /// As [`LibOs::close`].
    pub async fn close_async(&self, queue: QueueDescriptor) -> Result<(), Error> {
        let token = self.close(queue)?;
        done(&self.operation(token)?.await)
    }
}

fn done(completion: &Completion) -> Result<(), Error> {
    match completion.outcome {
        Outcome::Failed(error) => Err(error),
        _ => Ok(()),
    }
}

/// The error of a failed operation. Also for an outcome of another kind than the
/// operation's, which only a faulty module posts.
pub(crate) fn unfit(outcome: &Outcome) -> Error {
    match outcome {
        Outcome::Failed(error) => *error,
        _ => Error::NotSupported,
    }
}

impl OperationFuture {
    /// The completion if it is there, without anybody being woken for it later.
    pub(crate) fn take_now(&mut self) -> Option<Completion> {
        let completion = self.libos.take_claimed(self.token?).ok()??;
        self.token = None;
        Some(completion)
    }
}

impl Future for OperationFuture {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion> {
        let Some(token) = self.token else { return Poll::Pending };
        let executor = self.libos.executor();
        if !executor.spend() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.libos.take_claimed(token) {
            Ok(Some(completion)) => {
                self.token = None;
                return Poll::Ready(completion);
            }
            Ok(None) => {}
            Err(_) => {
                // Polled from inside a module's callback: not now.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        let previous = self.libos.wake_claimed(token, executor.target(context));
        drop::<WakeTarget>(previous);
        Poll::Pending
    }
}

impl Drop for OperationFuture {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.libos.abandon(Abandoned::Operation(token));
        }
    }
}
