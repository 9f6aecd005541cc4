//! Streams that are told something before they listen or connect.

use std::net::SocketAddr;

use super::endpoint::Endpoint;
use super::{TcpListener, TcpStream};
use crate::{Domain, Error, LibOs, SocketKind, SocketOption, SocketOptionName};

/// A stream socket that neither listens nor is connected: for options that count from the start, such as
/// [`SocketOption::ReusePort`], buffers, a congestion control or Fast Open, and for a local address to connect from.
///
/// ```no_run
/// use libos::net::TcpSocket;
/// use libos::{Domain, SocketOption};
///
/// # async fn run(libos: &libos::LibOs) -> Result<(), libos::Error> {
/// let socket = TcpSocket::new(libos, Domain::Ipv4)?;
/// socket.set_option(SocketOption::ReusePort(true))?;
/// socket.bind("10.0.0.1:80".parse().unwrap())?;
/// let mut listener = socket.listen(1024)?;
/// let (stream, peer) = listener.accept().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TcpSocket {
    endpoint: Endpoint,
}

impl TcpSocket {
    /// A socket without an address.
    ///
    /// # Errors
    /// As [`LibOs::socket`].
    pub fn new(libos: &LibOs, domain: Domain) -> Result<Self, Error> {
        Ok(Self { endpoint: Endpoint::new(libos, domain, SocketKind::Stream)? })
    }

    /// Gives the socket a local address; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`LibOs::bind`].
    pub fn bind(&self, local: SocketAddr) -> Result<(), Error> {
        self.endpoint.libos.bind(self.endpoint.queue, local)
    }

    /// Accepts connections from now on, with room for `backlog` that wait. They have the options of the socket.
    ///
    /// # Errors
    /// As [`LibOs::listen`].
    pub fn listen(self, backlog: usize) -> Result<TcpListener, Error> {
        self.endpoint.libos.listen(self.endpoint.queue, backlog)?;
        Ok(TcpListener::from_endpoint(self.endpoint))
    }

    /// Connects to a peer. Dropping the future gives the connection up.
    ///
    /// # Errors
    /// As [`TcpStream::connect`].
    pub async fn connect(self, peer: SocketAddr) -> Result<TcpStream, Error> {
        self.endpoint.libos.connect_async(self.endpoint.queue, peer).await?;
        Ok(TcpStream::from_endpoint(self.endpoint))
    }

    /// The local address.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a module's callback.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr()
    }

    /// Sets an option.
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
