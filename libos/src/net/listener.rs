//! Accepting streams.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use super::endpoint::{Endpoint, Pending};
use super::{TcpSocket, TcpStream};
use crate::executor::unfit;
use crate::{Domain, Error, LibOs, Operation, Outcome, SocketOption, SocketOptionName};

/// Connections that wait to be accepted, where the program does not say how many.
const DEFAULT_BACKLOG: usize = 128;

/// A socket that accepts streams. [`TcpSocket`] makes one with options.
#[derive(Debug)]
pub struct TcpListener {
    accept: Pending,
    endpoint: Endpoint,
}

impl TcpListener {
    pub(super) fn from_endpoint(endpoint: Endpoint) -> Self {
        Self { accept: Pending::default(), endpoint }
    }

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
        let socket = TcpSocket::new(libos, Domain::of(local))?;
        socket.bind(local)?;
        socket.listen(backlog)
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
    /// Sets an option: of the connections that come from now on.
    ///
    /// # Errors
    /// As [`LibOs::set_option`].
    pub fn set_option(&self, option: SocketOption) -> Result<(), Error> {
        self.endpoint.set_option(option)
    }

    /// Reads an option.
    ///
    /// # Errors
    /// As [`LibOs::option`].
    pub fn option(&self, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.endpoint.option(name)
    }
}
