//! The system calls that the standard library has no safe call for. All `unsafe` of this crate is here.
#![allow(unsafe_code, reason = "ioctl and socket have no safe wrapper in the standard library")]

pub(crate) mod bpf;
pub(crate) mod mapping;
pub(crate) mod packet_ring;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod socket;
pub(crate) mod xsk;

use std::ffi::{c_int, c_short, c_uint, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::IFNAMSIZ;

/// `TUNSETIFF`: attaches the open `/dev/net/tun` to the interface `name`, which is made if need be.
pub(crate) fn tun_attach(file: &File, name: &str, flags: c_short) -> io::Result<()> {
    // SAFETY: an interface request is plain integers, for which all zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= IFNAMSIZ {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the descriptor is open as long as `file` is borrowed; TUNSETIFF reads and writes one
    // `ifreq`, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// `TUNGETIFF`: what kind of device the kernel has made.
#[cfg(test)]
pub(crate) fn tun_flags(file: &File) -> io::Result<c_short> {
    // SAFETY: an interface request is plain integers, for which all zeros are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open; TUNGETIFF writes one `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: TUNGETIFF has written the flags, and any bytes are.
    Ok(unsafe { request.ifr_ifru.ifru_flags })
}

/// `TUNSETVNETHDRSZ`: how many bytes of virtio-net header go in front of each frame.
pub(crate) fn tun_set_header_bytes(file: &File, bytes: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open; TUNSETVNETHDRSZ reads one `int` behind the pointer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) })
}

/// `TUNSETOFFLOAD`: what unfinished frames the kernel may hand to us (`TUN_F_*`).
pub(crate) fn tun_set_offload(file: &File, features: c_uint) -> io::Result<()> {
    // SAFETY: the descriptor is open; TUNSETOFFLOAD takes its argument by value.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, c_ulong::from(features)) })
}

/// `TUNSETSTEERINGEBPF`: the program that picks the queue of what the kernel sends; the device keeps it.
pub(crate) fn tun_set_steering(file: &File, program: BorrowedFd<'_>) -> io::Result<()> {
    let program: c_int = program.as_raw_fd();
    // SAFETY: the descriptor is open; TUNSETSTEERINGEBPF reads one `int` behind the pointer.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETSTEERINGEBPF, &raw const program) })
}

/// A blocking rtnetlink socket. What is written to it goes to the kernel.
pub(crate) fn route_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check(fd)?;
    // SAFETY: `fd` was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
