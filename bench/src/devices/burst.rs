//! Many small datagrams of a kernel's socket in one system call.

use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::ptr;

use super::packets::{BURST, PAYLOAD_BYTES};

/// What a kernel socket may hold for a program that does not run for a moment: about what a ring of the library OS does.
const RECEIVE_BUFFER_BYTES: libc::c_int = 8 << 20;

/// Gives a socket room for what arrives. Without the right to it, it keeps what the machine allows.
pub fn make_room(socket: &UdpSocket) {
    let bytes = RECEIVE_BUFFER_BYTES;
    let (value, len) = (ptr::from_ref(&bytes).cast(), size_of_val(&bytes) as libc::socklen_t);
    // SAFETY: reads one integer.
    unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, len) };
}

/// Memory of the datagrams that a call sends or receives.
pub struct Burst(Box<[[u8; PAYLOAD_BYTES]; BURST]>);

impl Burst {
    pub fn new() -> Self {
        Self(Box::new([[0x5a; PAYLOAD_BYTES]; BURST]))
    }

    /// Sends a burst to where the socket is connected.
    ///
    /// # Errors
    /// The kernel's, but not that there is no room.
    pub fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.call(|messages| {
            // SAFETY: as many messages as there are, with one part each, all of which outlive the call.
            unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BURST as libc::c_uint, 0) }
        })
    }

    /// Takes what has arrived, at most a burst.
    ///
    /// # Errors
    /// The kernel's, but not that there is nothing.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.call(|messages| {
            let (fd, count) = (socket.as_raw_fd(), BURST as libc::c_uint);
            // SAFETY: as above; the kernel writes within the parts.
            unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), count, 0, ptr::null_mut()) }
        })
    }

    fn call(&mut self, system: impl FnOnce(&mut [libc::mmsghdr; BURST]) -> libc::c_int) -> io::Result<usize> {
        let mut parts = self
            .0
            .each_mut()
            .map(|datagram| libc::iovec { iov_base: datagram.as_mut_ptr().cast(), iov_len: PAYLOAD_BYTES });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: null pointers and zeros are a valid message header.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        });
        match usize::try_from(system(&mut messages)) {
            Ok(count) => Ok(count),
            Err(_) => match io::Error::last_os_error() {
                error if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
                    Ok(0)
                }
                error if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
                error => Err(error),
            },
        }
    }
}
