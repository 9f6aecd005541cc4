//! Typed sockets over the library OS: streams, listeners and datagrams as `async` code knows them.
//!
//! They know nothing of protocols: a stream is whatever the installed modules serve as
//! [`SocketKind::Stream`](crate::SocketKind::Stream). Dropping a socket closes its queue; what was sent before still
//! goes out. Each socket keeps the operations that it has under way, so that dropping the future of a
//! read or of an accept, as `select!` and timeouts do, loses neither data nor connections.
//!
//! ```no_run
//! use futures_util::io::AsyncWriteExt;
//! use libos::net::TcpListener;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let libos = libos::LibOs::builder().build()?;
//! // ... install a module that serves streams ...
//! libos.block_on(async {
//!     let mut listener = TcpListener::bind(&libos, "10.0.0.1:80".parse()?)?;
//!     loop {
//!         let (mut stream, _peer) = listener.accept().await?;
//!         libos.spawn(async move { stream.write_all(b"hello\n").await });
//!     }
//! })?
//! # }
//! ```

mod datagram;
mod endpoint;
mod listener;
mod socket;
mod stream;

pub use datagram::UdpSocket;
pub use listener::TcpListener;
pub use socket::TcpSocket;
pub use stream::TcpStream;

#[cfg(test)]
mod tests;
