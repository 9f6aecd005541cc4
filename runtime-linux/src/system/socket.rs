//! Sockets without a protocol: options, addresses, and what the kernel knows about an interface.

use std::ffi::{c_int, c_uint};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;
use crate::steering::Instruction;

/// Types that the kernel reads and writes byte by byte as options and addresses.
///
/// # Safety
/// Any bytes, all zeros too, are a valid value, and there are no pointers in it.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($kind:ty),* $(,)?) => { $(
        // SAFETY: integers and structures of integers, as the kernel's headers declare them.
        unsafe impl Plain for $kind {}
    )* };
}

plain!(
    c_int,
    c_uint,
    libc::sockaddr_ll,
    libc::packet_mreq,
    libc::tpacket_req3,
    libc::tpacket_stats_v3,
    libc::fanout_args,
);

/// Opens a socket that never blocks.
pub(crate) fn open(family: c_int, kind: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    check(fd)?;
    // SAFETY: `fd` was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sets a socket option.
pub(crate) fn set_option<T: Plain>(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    let bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads as many bytes as the value has, which outlives the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), bytes) })
}

/// Has a program pick the socket of a fanout group for each frame (`PACKET_FANOUT_DATA`).
pub(crate) fn set_fanout_program(fd: BorrowedFd<'_>, program: &[Instruction]) -> io::Result<()> {
    set_program(fd, libc::SOL_PACKET, libc::PACKET_FANOUT_DATA, program)
}

/// Has the socket receive nothing, until [`receive_all`].
pub(crate) fn receive_nothing(fd: BorrowedFd<'_>) -> io::Result<()> {
    const RETURN_CONSTANT: u16 = 0x06;
    let nothing = Instruction { code: RETURN_CONSTANT, if_true: 0, if_false: 0, value: 0 };
    set_program(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &[nothing])
}

/// Ends [`receive_nothing`].
pub(crate) fn receive_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    // The kernel wants a value, and does not look at it.
    set_option(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, &0)
}

fn set_program(fd: BorrowedFd<'_>, level: c_int, name: c_int, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel only reads.
    let whole = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    let bytes = size_of_val(&whole) as libc::socklen_t;
    // SAFETY: the kernel reads a `sock_fprog`, and behind its pointer as many instructions as it says, which have the
    // layout of `sock_filter`; both outlive the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const whole).cast(), bytes) })
}

/// Reads a socket option. Older kernels fill less; the rest is zeros.
pub(crate) fn option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    // SAFETY: `Plain` allows all zeros.
    let mut value: T = unsafe { zeroed() };
    let mut bytes = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most as many bytes as the value has, which may have any.
    check(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, std::ptr::from_mut(&mut value).cast(), &raw mut bytes)
    })?;
    Ok(value)
}

/// Binds a socket.
pub(crate) fn bind<A: Plain>(fd: BorrowedFd<'_>, address: &A) -> io::Result<()> {
    let bytes = size_of::<A>() as libc::socklen_t;
    // SAFETY: the kernel reads as many bytes as the address has, which outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), bytes) })
}

/// An error that waits on the socket, once.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<c_int> {
    option(fd, libc::SOL_SOCKET, libc::SO_ERROR)
}

/// Fails with `ENODEV` when the socket's network namespace has no interface of this number.
pub(crate) fn interface_name(fd: BorrowedFd<'_>, index: c_uint) -> io::Result<()> {
    // SAFETY: an interface request is plain integers, for which all zeros are a valid value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_ifru.ifru_ifindex = index.cast_signed();
    // SAFETY: SIOCGIFNAME reads and writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFNAME as _, &raw mut request) })
}

/// The address of all packets of an interface.
pub(crate) fn link_address(index: c_uint) -> libc::sockaddr_ll {
    // SAFETY: `Plain` allows all zeros.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    address
}
