//! One frame from a packet socket without a ring, with what the kernel says of it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{TP_STATUS_CSUM_VALID, TP_STATUS_VLAN_VALID, tpacket_auxdata};

use super::packet_ring::vlan_tag;

/// Room for one `struct tpacket_auxdata` with its header, in words.
const CONTROL_WORDS: usize = 8;

/// What arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes read, the virtio header included.
    pub bytes: usize,
    /// There were more than fit in.
    pub cut: bool,
    /// The tag that belongs behind the Ethernet addresses.
    pub vlan: Option<[u8; 4]>,
    /// The kernel or the device has checked the checksum.
    pub checked: bool,
}

/// Reads a frame into the parts.
pub(crate) fn receive(fd: BorrowedFd<'_>, parts: &mut [IoSliceMut<'_>]) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    // SAFETY: null pointers and zeros are a valid message header.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr().cast();
    message.msg_iovlen = parts.len();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the parts have the layout of `iovec` and may be written to, like `control`; all outlive the call.
    let bytes = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let cut = message.msg_flags & libc::MSG_TRUNC != 0;
    let said = auxiliary(&message);
    let status = said.map_or(0, |said| said.tp_status);
    let vlan = said.filter(|_| status & TP_STATUS_VLAN_VALID != 0);
    Ok(Received {
        bytes,
        cut,
        vlan: vlan.map(|said| vlan_tag(status, said.tp_vlan_tci, said.tp_vlan_tpid)),
        checked: status & TP_STATUS_CSUM_VALID != 0,
    })
}

/// What the kernel says of a frame beside it (`PACKET_AUXDATA`).
fn auxiliary(message: &libc::msghdr) -> Option<tpacket_auxdata> {
    // SAFETY: the kernel filled the message, and its control buffer is still there.
    let first = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    // SAFETY: takes no pointers.
    let whole = unsafe { libc::CMSG_LEN(size_of::<tpacket_auxdata>() as u32) } as usize;
    let kind = (first.cmsg_level, first.cmsg_type);
    if kind != (libc::SOL_PACKET, libc::PACKET_AUXDATA) || first.cmsg_len < whole {
        return None;
    }
    // SAFETY: the data behind this header is of this type, and whole.
    Some(unsafe { libc::CMSG_DATA(first).cast::<tpacket_auxdata>().read_unaligned() })
}
