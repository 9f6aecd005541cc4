//! Datagrams.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll, ready};

use super::endpoint::{Endpoint, Pending};
use crate::executor::unfit;
use crate::memory::CopyCause;
use crate::{
    Buffer, Domain, Error, FilterMode, GroupMembership, LibOs, Operation, Outcome, PopLimit, ScatterGather,
    SocketKind, SocketOption, SocketOptionName,
};

/// A datagram socket.
///
/// [`Self::push_to`], [`Self::push`] and [`Self::pop`] move buffers without copying; the other calls copy, and are
/// what `std::net::UdpSocket` calls them. A receive whose future is dropped loses nothing. One task
/// at a time may wait for datagrams.
#[derive(Debug)]
pub struct UdpSocket {
    pop: Pending,
    endpoint: Endpoint,
}

impl UdpSocket {
    /// A socket with a local address; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`LibOs::socket`] and [`LibOs::bind`].
    pub fn bind(libos: &LibOs, local: SocketAddr) -> Result<Self, Error> {
        let socket = Self::unbound(libos, Domain::of(local))?;
        socket.bind_to(local)?;
        Ok(socket)
    }

    /// A socket without an address, for options that count when it gets one, such as [`SocketOption::ReusePort`]. It gets
    /// one from [`Self::bind_to`], or any by sending or connecting.
    ///
    /// # Errors
    /// As [`LibOs::socket`].
    pub fn unbound(libos: &LibOs, domain: Domain) -> Result<Self, Error> {
        let endpoint = Endpoint::new(libos, domain, SocketKind::Datagram)?;
        Ok(Self { pop: Pending::default(), endpoint })
    }

    /// Gives a socket that has none a local address; port 0 picks a free one.
    ///
    /// # Errors
    /// As [`LibOs::bind`].
    pub fn bind_to(&self, local: SocketAddr) -> Result<(), Error> {
        self.endpoint.libos.bind(self.endpoint.queue, local)
    }

    /// Sets the peer that [`Self::send`] sends to, and from which alone datagrams are received.
    ///
    /// # Errors
    /// As [`LibOs::connect`], and whatever the connect fails with.
    pub async fn connect(&self, peer: SocketAddr) -> Result<(), Error> {
        self.endpoint.libos.connect_async(self.endpoint.queue, peer).await
    }

    /// Sends one datagram to `peer` without copying.
    ///
    /// # Errors
    /// [`Error::MessageTooLong`], [`Error::NetworkUnreachable`] and others.
    pub async fn push_to(&self, data: impl Into<ScatterGather>, peer: SocketAddr) -> Result<(), Error> {
        self.endpoint.libos.pushto_async(self.endpoint.queue, data, peer).await
    }

    /// Sends one datagram to the connected peer without copying.
    ///
    /// # Errors
    /// As [`Self::push_to`]; [`Error::NotConnected`].
    pub async fn push(&self, data: impl Into<ScatterGather>) -> Result<(), Error> {
        self.endpoint.libos.push_async(self.endpoint.queue, data).await
    }

    /// Receives one datagram without copying. Says who sent it, unless the module does not know.
    ///
    /// # Errors
    /// [`Error::ConnectionRefused`] when an earlier datagram of a connected socket was refused, and
    /// others.
    pub async fn pop(&self) -> Result<(ScatterGather, Option<SocketAddr>), Error> {
        poll_fn(|context| self.poll_pop(context)).await
    }

    /// [`Self::pop`] for hand-written futures.
    ///
    /// # Errors
    /// As [`Self::pop`].
    pub fn poll_pop(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Result<(ScatterGather, Option<SocketAddr>), Error>> {
        let start = || self.endpoint.start(Operation::Pop(PopLimit::default()));
        match ready!(self.pop.poll(context, start))? {
            Outcome::Popped { data, from } => Poll::Ready(Ok((data, from))),
            outcome => Poll::Ready(Err(unfit(&outcome))),
        }
    }

    /// Sends one datagram to `peer`, and returns its length.
    ///
    /// # Errors
    /// As [`Self::push_to`]; [`Error::NoBuffers`].
    pub async fn send_to(&self, bytes: &[u8], peer: SocketAddr) -> Result<usize, Error> {
        self.push_to(self.copy(bytes)?, peer).await?;
        Ok(bytes.len())
    }

    /// Sends one datagram to the connected peer, and returns its length.
    ///
    /// # Errors
    /// As [`Self::push`]; [`Error::NoBuffers`].
    pub async fn send(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.push(self.copy(bytes)?).await?;
        Ok(bytes.len())
    }

    /// Receives one datagram: how many bytes of it were copied, and who sent it. What does not fit into `bytes`
    /// is lost.
    ///
    /// # Errors
    /// As [`Self::pop`]; [`Error::NotSupported`] when the module does not know senders.
    pub async fn recv_from(&self, bytes: &mut [u8]) -> Result<(usize, SocketAddr), Error> {
        let (mut data, from) = self.pop().await?;
        Ok((self.read(&mut data, bytes), from.ok_or(Error::NotSupported)?))
    }

    /// Receives one datagram, and returns how many bytes of it were copied. What does not fit into `bytes`
    /// is lost.
    ///
    /// # Errors
    /// As [`Self::pop`].
    pub async fn recv(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let (mut data, _) = self.pop().await?;
        Ok(self.read(&mut data, bytes))
    }

    fn read(&self, data: &mut ScatterGather, bytes: &mut [u8]) -> usize {
        let count = data.read_into(bytes);
        self.endpoint.libos.arena().count_copy(CopyCause::Program, count);
        count
    }

    fn copy(&self, bytes: &[u8]) -> Result<Buffer, Error> {
        let arena = self.endpoint.libos.arena();
        let buffer = arena.copy_from(bytes).ok_or(Error::NoBuffers)?;
        arena.count_copy(CopyCause::Program, bytes.len());
        Ok(buffer.freeze())
    }

    /// The local address.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a module's callback.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr()
    }

    /// The connected peer's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn peer_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.peer_addr()
    }

    /// Sets an option.
    ///
    /// # Errors
    /// As [`LibOs::set_option`].
    pub fn set_option(&self, option: SocketOption) -> Result<(), Error> {
        self.endpoint.set_option(option)
    }

    /// Says whose datagrams to a group are wanted.
    ///
    /// # Errors
    /// As [`LibOs::set_source_filter`].
    pub fn set_source_filter(
        &self,
        group: GroupMembership,
        mode: FilterMode,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        self.endpoint.set_source_filter(group, mode, sources)
    }

    /// Whose datagrams to a group are wanted.
    ///
    /// # Errors
    /// As [`LibOs::source_filter`].
    pub fn source_filter(&self, group: GroupMembership) -> Result<(FilterMode, Vec<IpAddr>), Error> {
        self.endpoint.source_filter(group)
    }

    /// Reads an option.
    ///
    /// # Errors
    /// As [`LibOs::option`].
    pub fn option(&self, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.endpoint.option(name)
    }
}
