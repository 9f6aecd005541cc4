//! Streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

use super::TcpSocket;
use super::endpoint::{Endpoint, Pending};
use crate::executor::unfit;
use crate::memory::CopyCause;
use crate::{
    Domain, Error, LibOs, Operation, Outcome, PopLimit, ScatterGather, Shutdown, SocketOption,
    SocketOptionName,
};

/// Most bytes that one write copies into a buffer. More are taken by the next write, so that a large one
/// does not need as much memory a second time.
const WRITE_BYTES: usize = 64 << 10;

/// A connected stream.
///
/// [`Self::push`] and [`Self::pop`] move buffers without copying. [`AsyncRead`] and [`AsyncWrite`] copy, and serve
/// whatever is written against `futures`. They are implemented for `&TcpStream` as well: one task
/// may read while another writes, each with a reference or an `Rc`.
///
/// A read whose future is dropped loses nothing. A write is done when the bytes were copied; they are sent
/// in order, the next write waits until the stack has taken them, and an error that they meet is
/// returned by the next write, flush or close.
#[derive(Debug)]
pub struct TcpStream {
    /// Popped and not read yet.
    unread: RefCell<ScatterGather>,
    pop: Pending,
    push: Pending,
    write_ended: Cell<bool>,
    endpoint: Endpoint,
}

impl TcpStream {
    pub(super) fn from_endpoint(endpoint: Endpoint) -> Self {
        Self {
            unread: RefCell::default(),
            pop: Pending::default(),
            push: Pending::default(),
            write_ended: Cell::new(false),
            endpoint,
        }
    }

    /// Connects to a peer; [`TcpSocket`] does with options. Dropping the future gives the connection up.
    ///
    /// # Errors
    /// As [`LibOs::socket`] and [`LibOs::connect`], and whatever the connect fails with:
    /// [`Error::ConnectionRefused`], [`Error::TimedOut`] and others.
    pub async fn connect(libos: &LibOs, peer: SocketAddr) -> Result<Self, Error> {
        TcpSocket::new(libos, Domain::of(peer))?.connect(peer).await
    }

    /// Sends without copying; done when the stack has taken all of the data. After dropping the
    /// future before that, nobody knows how much of the data was sent.
    ///
    /// # Errors
    /// [`Error::ConnectionReset`], [`Error::Closed`] and others.
    pub async fn push(&self, data: impl Into<ScatterGather>) -> Result<(), Error> {
        self.endpoint.libos.push_async(self.endpoint.queue, data).await
    }

    /// Receives without copying; empty data is the end of the stream. Dropping the future loses
    /// nothing. One task at a time may wait for data.
    ///
    /// # Errors
    /// [`Error::ConnectionReset`] and others.
    pub async fn pop(&self) -> Result<ScatterGather, Error> {
        poll_fn(|context| self.poll_pop(context)).await
    }

    /// [`Self::pop`] for hand-written futures.
    ///
    /// # Errors
    /// As [`Self::pop`].
    pub fn poll_pop(&self, context: &mut Context<'_>) -> Poll<Result<ScatterGather, Error>> {
        let unread = self.unread.take();
        if !unread.is_empty() {
            return Poll::Ready(Ok(unread));
        }
        let start = || self.endpoint.start(Operation::Pop(PopLimit::default()));
        match ready!(self.pop.poll(context, start))? {
            Outcome::Popped { data, from: _ } => Poll::Ready(Ok(data)),
            outcome => Poll::Ready(Err(unfit(&outcome))),
        }
    }

    /// Ends one or both directions. What was written before is still sent.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, how: Shutdown) -> Result<(), Error> {
        self.endpoint.libos.shutdown(self.endpoint.queue, how)
    }

    /// Waits until the stack has taken what was written, and closes the stream. Dropping the stream
    /// closes it too, but gives up what the stack has not taken yet.
    ///
    /// What the stack has taken goes out in the background, as long as the thread keeps polling. A program that ends calls
    /// [`LibOs::shut_down`] before, or lets the close wait for the peer's acknowledgment with
    /// [`SocketOption::Linger`].
    ///
    /// # Errors
    /// What an earlier write met.
    pub async fn close(self) -> Result<(), Error> {
        poll_fn(|context| self.push.poll_end(context)).await?;
        self.endpoint.libos.close_async(self.endpoint.queue).await
    }

    /// The local address.
    ///
    /// # Errors
    /// [`Error::Busy`] from inside a module's callback.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.endpoint.local_addr()
    }

    /// The peer's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`] when the connection is gone.
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

    /// Reads an option.
    ///
    /// # Errors
    /// As [`LibOs::option`].
    pub fn option(&self, name: SocketOptionName) -> Result<SocketOption, Error> {
        self.endpoint.option(name)
    }
}

impl AsyncRead for &TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut data = ready!(self.poll_pop(context))?;
        let count = data.read_into(bytes);
        self.endpoint.libos.arena().count_copy(CopyCause::Program, count);
        self.unread.replace(data);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for &TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Buffers that the stack did not take yet are the back-pressure.
        ready!(self.push.poll_end(context))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let libos = &self.endpoint.libos;
        if !libos.executor().spend() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = bytes.len().min(WRITE_BYTES);
        let buffer = libos.arena().copy_from(&bytes[..count]).ok_or(Error::NoBuffers)?;
        libos.arena().count_copy(CopyCause::Program, count);
        self.push.keep(self.endpoint.start(Operation::Push(buffer.freeze().into()))?)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.push.poll_end(context).map_err(io::Error::from)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.push.poll_end(context))?;
        if !self.write_ended.replace(true) {
            self.shutdown(Shutdown::Write)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_read(context, bytes)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_close(context)
    }
}
