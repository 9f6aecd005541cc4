//! Many frames to a socket in one system call.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use libos::Buffer;

use super::packet_ring::VIRTIO_BYTES;

/// Most frames of one call.
pub(crate) const MAX_FRAMES: usize = 64;
/// Pieces of memory that the frames of one call together have at most, headers included, beyond the last frame's.
const MAX_PARTS: usize = 512;

/// Lists that a call takes, kept for their memory.
#[derive(Default)]
pub(crate) struct FrameSender {
    messages: Vec<libc::mmsghdr>,
    parts: Vec<libc::iovec>,
    headers: Vec<[u8; VIRTIO_BYTES]>,
}

impl FrameSender {
    /// Offers the kernel frames, each with a header in front; returns how many it took. It copies: their memory is free
    /// afterwards. The error is the first frame's.
    pub fn send<'a>(
        &mut self,
        fd: BorrowedFd<'_>,
        frames: impl Iterator<Item = ([u8; VIRTIO_BYTES], &'a [Buffer])>,
    ) -> io::Result<usize> {
        self.messages.clear();
        self.parts.clear();
        self.headers.clear();
        for (header, segments) in frames.take(MAX_FRAMES) {
            self.headers.push(header);
            // Where the header is, is known once the list grows no more.
            self.parts.push(libc::iovec { iov_base: ptr::null_mut(), iov_len: VIRTIO_BYTES });
            self.parts.extend(segments.iter().map(|segment| libc::iovec {
                iov_base: segment.as_ptr().cast_mut().cast(),
                iov_len: segment.len(),
            }));
            self.messages.push(message(1 + segments.len()));
            if self.parts.len() >= MAX_PARTS {
                break;
            }
        }
        let mut parts = self.parts.as_mut_slice();
        for (message, header) in self.messages.iter_mut().zip(&mut self.headers) {
            let (own, others) = parts.split_at_mut(message.msg_hdr.msg_iovlen);
            own[0].iov_base = header.as_mut_ptr().cast();
            message.msg_hdr.msg_iov = own.as_mut_ptr();
            parts = others;
        }
        let count = self.messages.len() as libc::c_uint;
        // SAFETY: `count` messages, whose parts are in `self.parts` and point to headers in `self.headers` and to the
        // caller's buffers; all of them outlive the call, which only reads them.
        let sent =
            unsafe { libc::sendmmsg(fd.as_raw_fd(), self.messages.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

impl std::fmt::Debug for FrameSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameSender").finish_non_exhaustive()
    }
}

/// A message of so many parts.
fn message(parts: usize) -> libc::mmsghdr {
    // SAFETY: null pointers and zeros are a valid message header.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = ptr::null_mut();
    message.msg_hdr.msg_iovlen = parts;
    message
}
