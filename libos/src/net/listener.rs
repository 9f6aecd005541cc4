//! Accepting streams.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use super::TcpStream;
use super::endpoint::{Endpoint, Pending};
use crate::executor::unfit;
use crate::{Error, LibOs, Operation, Outcome, SocketKind};

/// Connections that wait to be accepted, where the program does not say how many.
const DEFAULT_BACKLOG: usize = 128;

/// A socket that accepts streams.
#[derive(Debug)]
pub struct TcpListener {
    accept: Pending,
    endpoint: Endpoint,
}

impl TcpListener {
    /// Listens on `local`, port 0 for any free one, with room for 128 connections that wait to be accepted.
    ///
    /// # Errors
    /// As [`LibOs::socket`], [`LibOs::bind`] and [`LibOs::listen`].
    pub fn bind(libos: &LibOs, local: SocketAddr) -> Result<Self, Error> {
        Self::bind_with_backlog(libos, local, DEFAULT_BACKLOG)
    }

    /// As [`Self::bind`], with room for `backlog` connections.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_with_backlog(libos: &LibOs, local: SocketAddr, backlog: usize) -> Result<Self, Error> {
        let endpoint = Endpoint::new(libos, local, SocketKind::Stream)?;
        libos.bind(endpoint.queue, local)?;
        libos.listen(endpoint.queue, backlog)?;
        Ok(Self { accept: Pending::default(), endpoint })
    }

    /// The next connection and who it is from.
    ///
    /// Dropping the future loses no connection; the next call returns it.
    ///
    /// # Errors
    /// As [`LibOs::accept`]. After [`Error::TooManyDescriptors`] the connection is still waiting.
    pub async fn accept(&mut self) -> Result<(TcpStream, SocketAddr), Error> {
        poll_fn(|context| self.poll_accept(context)).await
    }

    /// [`Self::accept`] for hand-written futures.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Result<(TcpStream, SocketAddr), Error>> {
        let outcome = ready!(self.accept.poll(context, || self.endpoint.start(Operation::Accept)))?;
        let Outcome::Accepted { queue, peer } = outcome else { return Poll::Ready(Err(unfit(&outcome))) };
        let endpoint = Endpoint::adopt(&self.endpoint.libos, queue)?;
        Poll::Ready(Ok((TcpStream::from_endpoint(endpoint), peer)))
    }

    /// The address that the socket listens on.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a module's callback.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr()
    }
}
