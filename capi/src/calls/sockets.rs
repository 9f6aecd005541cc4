//! `demi/libos.h`: calls on sockets that answer at once.

use std::ffi::{c_int, c_void};
use std::net::SocketAddr;

use catnip_os::libos::{Domain, Error, LibOs, QueueDescriptor, SocketKind};
use libc::{sockaddr, socklen_t};

use super::{close, queue};
use crate::source_lists::Form;
use crate::{address, errno, instance, options, results};

/// `demi_socket`.
///
/// # Safety
/// `out` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_socket(out: *mut c_int, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if out.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let domain = domain_of(domain)?;
        let kind = kind_of(kind, protocol)?;
        let queue = instance.libos.socket(domain, kind).map_err(errno::of)?;
        // SAFETY: not null, so the caller vouches for it.
        unsafe { out.write_unaligned(results::descriptor(queue.raw())) };
        Ok(())
    })
}

fn domain_of(domain: c_int) -> Result<Domain, c_int> {
    match domain {
        libc::AF_INET => Ok(Domain::Ipv4),
        libc::AF_INET6 => Ok(Domain::Ipv6),
        libc::AF_UNIX | libc::AF_NETLINK | libc::AF_PACKET | libc::AF_VSOCK | libc::AF_XDP => {
            Err(libc::ENOTSUP)
        }
        _ => Err(libc::EINVAL),
    }
}

fn kind_of(kind: c_int, protocol: c_int) -> Result<SocketKind, c_int> {
    match (kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC), protocol) {
        (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => Ok(SocketKind::Stream),
        (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => Ok(SocketKind::Datagram),
        (libc::SOCK_RAW | libc::SOCK_SEQPACKET | libc::SOCK_RDM, _) => Err(libc::ENOTSUP),
        _ => Err(libc::EINVAL),
    }
}

/// `demi_listen`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_listen(qd: c_int, backlog: c_int) -> c_int {
    instance::call(|instance| {
        let queue = queue(qd)?;
        let backlog = match usize::try_from(backlog) {
            Ok(backlog @ 1..) => backlog,
            _ => return Err(libc::EINVAL),
        };
        instance.libos.listen(queue, backlog).map_err(errno::of)
    })
}

/// `demi_bind`.
///
/// # Safety
/// `local` is null or `size` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_bind(qd: c_int, local: *const sockaddr, size: socklen_t) -> c_int {
    // SAFETY: the caller vouches for the address.
    let Some(local) = (unsafe { address::read(local, size) }) else { return libc::EINVAL };
    instance::call(|instance| instance.libos.bind(queue(qd)?, local).map_err(errno::of))
}

/// `demi_close`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_close(qd: c_int) -> c_int {
    instance::call(|instance| close(&instance.libos, queue(qd)?))
}

/// `demi_setsockopt`.
///
/// # Safety
/// `value` is null or `len` bytes can be read there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_setsockopt(
    qd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    if value.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let queue = open(&instance.libos, qd)?;
        if let Some(form) = Form::of(level, name) {
            // SAFETY: not null, so the caller vouches for it.
            let (group, mode, sources) = unsafe { form.read(value, len) }?;
            return instance.libos.set_source_filter(queue, group, mode, &sources).map_err(option_error);
        }
        let name = options::name(level, name)?;
        // SAFETY: not null, so the caller vouches for it.
        let option = unsafe { options::read(name, value, len) }?;
        instance.libos.set_option(queue, option).map_err(option_error)
    })
}

/// `demi_getsockopt`.
///
/// # Safety
/// `len` is null or can be read and written; `value` is null or `*len` bytes can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_getsockopt(
    qd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    if value.is_null() || len.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let queue = open(&instance.libos, qd)?;
        if let Some(form) = Form::of(level, name) {
            // SAFETY: not null, so the caller vouches for both, and the value says what it has room for.
            let asked = unsafe { form.read_head(value, len.read_unaligned()) }?;
            let found = instance.libos.source_filter(queue, asked.group).map_err(option_error)?;
            // SAFETY: as above.
            return unsafe { form.write(found.0, &found.1, asked.count, value, len) };
        }
        let name = options::name(level, name)?;
        // SAFETY: not null, so the caller vouches for both.
        unsafe { options::check_room(name, len) }?;
        let option = instance.libos.option(queue, name).map_err(option_error)?;
        // SAFETY: as above.
        unsafe { options::write(option, instance.libos.now(), value, len) }
    })
}

/// `demi_getpeername`.
///
/// # Safety
/// `len` is null or can be read and written; `place` is null or `*len` bytes can be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_getpeername(qd: c_int, place: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe { name_of(qd, place, len, LibOs::peer_address) }
}

/// `demi_getsockname`.
///
/// # Safety
/// As [`demi_getpeername`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_getsockname(qd: c_int, place: *mut sockaddr, len: *mut socklen_t) -> c_int {
    // SAFETY: the caller vouches for both.
    unsafe { name_of(qd, place, len, LibOs::local_address) }
}

/// # Safety
/// As [`demi_getpeername`].
unsafe fn name_of(
    qd: c_int,
    place: *mut sockaddr,
    len: *mut socklen_t,
    name: impl Fn(&LibOs, QueueDescriptor) -> Result<SocketAddr, Error>,
) -> c_int {
    if place.is_null() || len.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        let address = name(&instance.libos, queue(qd)?).map_err(errno::of)?;
        // SAFETY: not null, so the caller vouches for both.
        unsafe { address::write(address, place, len) };
        Ok(())
    })
}

/// The descriptor, which is open. For calls that would else find fault with another argument first.
fn open(libos: &LibOs, qd: c_int) -> Result<QueueDescriptor, c_int> {
    let queue = queue(qd)?;
    match libos.local_address(queue) {
        Err(Error::BadDescriptor) => Err(libc::EBADF),
        _ => Ok(queue),
    }
}

/// An option that a queue does not have is `ENOPROTOOPT` by POSIX.
fn option_error(error: Error) -> c_int {
    match error {
        Error::NotSupported => libc::ENOPROTOOPT,
        error => errno::of(error),
    }
}
