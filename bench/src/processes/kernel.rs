//! The kernel's loopback, by programs that poll their sockets.

use std::hint;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use crate::scenario::{Failure, MESSAGE_BYTES};

/// The server's sockets.
pub struct Sockets {
    listener: TcpListener,
    datagrams: UdpSocket,
}

impl Sockets {
    pub fn new() -> io::Result<Self> {
        let datagrams = UdpSocket::bind("127.0.0.1:0")?;
        datagrams.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::bind("127.0.0.1:0")?, datagrams })
    }

    pub fn addresses(&self) -> io::Result<[SocketAddr; 2]> {
        Ok([self.listener.local_addr()?, self.datagrams.local_addr()?])
    }

    /// Echoes one connection until it ends.
    pub fn serve_connection(&self) -> Result<(), Failure> {
        let (mut stream, _) = self.listener.accept()?;
        prepare(&stream)?;
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            match poll(|| stream.read(&mut bytes))? {
                0 => return Ok(()),
                count => stream.write_all(&bytes[..count])?,
            }
        }
    }

    /// Echoes datagrams until an empty one.
    pub fn serve_datagrams(&self) -> Result<(), Failure> {
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            let mut from = None;
            let count = poll(|| {
                let (count, peer) = self.datagrams.recv_from(&mut bytes)?;
                from = Some(peer);
                Ok(count)
            })?;
            let from = from.ok_or("a datagram came from nobody")?;
            if count == 0 {
                return Ok(());
            }
            self.datagrams.send_to(&bytes[..count], from)?;
        }
    }
}

/// Tries until there is something.
#[inline]
fn poll(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => hint::spin_loop(),
            result => return result,
        }
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)
}

/// A client's connection.
pub struct Stream(TcpStream);

impl Stream {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        prepare(&stream)?;
        Ok(Self(stream))
    }

    #[inline]
    pub fn round_trip(&mut self, message: &[u8; MESSAGE_BYTES]) -> Result<(), Failure> {
        self.0.write_all(message)?;
        let mut answer = [0; MESSAGE_BYTES];
        let mut filled = 0;
        while filled < MESSAGE_BYTES {
            match poll(|| self.0.read(&mut answer[filled..]))? {
                0 => return Err("the server ended the connection".into()),
                count => filled += count,
            }
        }
        if answer == *message { Ok(()) } else { Err("other bytes came back".into()) }
    }
}

/// A client's socket for datagrams. The server's turn ends with it.
pub struct Datagrams(UdpSocket);

impl Datagrams {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    #[inline]
    pub fn round_trip(&mut self, message: &[u8; MESSAGE_BYTES]) -> Result<(), Failure> {
        self.0.send(message)?;
        let mut answer = [0; MESSAGE_BYTES];
        poll(|| self.0.recv(&mut answer))?;
        if answer == *message { Ok(()) } else { Err("other bytes came back".into()) }
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        // The server waits for this; without it the run ends with its failure.
        let _ = self.0.send(&[]);
    }
}
