//! Socket addresses across the border: `sockaddr_in` and `sockaddr_in6` to and from [`SocketAddr`].

use std::mem::{offset_of, size_of};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ptr;

use libc::{
    AF_INET, AF_INET6, sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, socklen_t,
};

use crate::abi::NO_ADDRESS;

const IN_BYTES: usize = size_of::<sockaddr_in>();
const IN6_BYTES: usize = size_of::<sockaddr_in6>();

/// Reads an address of `len` bytes. `None` when it is null, too short for its family, or of a family other
/// than `AF_INET` and `AF_INET6`. It need not be aligned.
///
/// # Safety
/// `address` is null, or `len` bytes can be read there.
pub unsafe fn read(address: *const sockaddr, len: socklen_t) -> Option<SocketAddr> {
    let len = usize::try_from(len).ok()?;
    if address.is_null() || len < size_of::<sa_family_t>() {
        return None;
    }
    // SAFETY: the family is the first field, and the caller vouches for `len` bytes, at least its size.
    let family = unsafe { ptr::read_unaligned(address.cast::<sa_family_t>()) };
    match i32::from(family) {
        AF_INET if len >= IN_BYTES => {
            // SAFETY: as above, `len` covers the structure; any bytes make one.
            let v4 = unsafe { ptr::read_unaligned(address.cast::<sockaddr_in>()) };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        AF_INET6 if len >= IN6_BYTES => {
            // SAFETY: as above, `len` covers the structure; any bytes make one.
            let v6 = unsafe { ptr::read_unaligned(address.cast::<sockaddr_in6>()) };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id)))
        }
        _ => None,
    }
}

/// The address in the structure for any family, and how many bytes of it are in use.
pub fn to_storage(address: SocketAddr) -> (sockaddr_storage, socklen_t) {
    let mut storage = no_storage();
    let place = ptr::from_mut(&mut storage);
    let len = match address {
        SocketAddr::V4(v4) => {
            // SAFETY: `sockaddr_storage` is at least as large and as aligned as every other address.
            unsafe { place.cast::<sockaddr_in>().write(to_in(v4)) };
            IN_BYTES
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            unsafe { place.cast::<sockaddr_in6>().write(to_in6(v6)) };
            IN6_BYTES
        }
    };
    (storage, len as socklen_t)
}

/// A `sockaddr_storage` of zeros.
pub fn no_storage() -> sockaddr_storage {
    // SAFETY: the structure consists of integers; all zeros is a value of it.
    unsafe { std::mem::zeroed() }
}

/// The address in a `sockaddr_in`, as the plain results have it. An IPv6 address does not fit: its family
/// and port are there, the address is zero. An IPv4-mapped one (RFC 4291 section 2.5.5.2) is IPv4.
pub fn to_sockaddr_in(address: SocketAddr) -> sockaddr_in {
    match address {
        SocketAddr::V4(v4) => to_in(v4),
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(ip) => to_in(SocketAddrV4::new(ip, v6.port())),
            None => {
                sockaddr_in { sin_family: AF_INET6 as sa_family_t, sin_port: v6.port().to_be(), ..NO_ADDRESS }
            }
        },
    }
}

/// Stores `address` for a caller that offers `*len` bytes at `place`, and its full size in `*len`, as
/// `getsockname` of POSIX does.
///
/// # Safety
/// `*len` can be read and written, and `*len` bytes can be written at `place`.
pub unsafe fn write(address: SocketAddr, place: *mut sockaddr, len: *mut socklen_t) {
    let (storage, full) = to_storage(address);
    // SAFETY: the caller vouches for `len`.
    let room = unsafe { ptr::read_unaligned(len) };
    let count = room.min(full) as usize;
    // SAFETY: `count` is at most the room the caller vouches for and at most the storage.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(&storage).cast::<u8>(), place.cast::<u8>(), count) };
    // SAFETY: the caller vouches for `len`.
    unsafe { ptr::write_unaligned(len, full) };
}

fn to_in(v4: SocketAddrV4) -> sockaddr_in {
    sockaddr_in {
        sin_family: AF_INET as sa_family_t,
        sin_port: v4.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn to_in6(v6: SocketAddrV6) -> sockaddr_in6 {
    sockaddr_in6 {
        sin6_family: AF_INET6 as sa_family_t,
        sin6_port: v6.port().to_be(),
        sin6_flowinfo: v6.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
        sin6_scope_id: v6.scope_id(),
    }
}

// `read` takes the family from the first bytes.
const _: () = assert!(offset_of!(sockaddr, sa_family) == 0);
const _: () = assert!(offset_of!(sockaddr_in, sin_family) == 0);
const _: () = assert!(offset_of!(sockaddr_in6, sin6_family) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn read_back(storage: &sockaddr_storage, len: socklen_t) -> Option<SocketAddr> {
        // SAFETY: every `len` used here is at most the storage's size.
        unsafe { read(ptr::from_ref(storage).cast(), len) }
    }

    #[test]
    fn addresses_survive_the_way_out_and_back() {
        for text in ["192.0.2.7:80", "0.0.0.0:0", "[2001:db8::1]:443", "[fe80::2%3]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let (storage, len) = to_storage(address);
            assert_eq!(read_back(&storage, len), Some(address), "{text}");
        }
    }

    #[test]
    fn short_null_and_foreign_addresses_are_refused() {
        let (v4, v4_len) = to_storage("192.0.2.7:80".parse().unwrap());
        let (v6, v6_len) = to_storage("[::1]:80".parse().unwrap());
        let (mut other, other_len) = to_storage("192.0.2.7:80".parse().unwrap());
        other.ss_family = libc::AF_UNIX as sa_family_t;
        assert_eq!(read_back(&v4, 0), None);
        assert_eq!(read_back(&v4, 1), None);
        assert_eq!(read_back(&v4, v4_len - 1), None);
        assert_eq!(read_back(&v6, v6_len - 1), None);
        assert_eq!(read_back(&other, other_len), None);
        // SAFETY: null is allowed.
        assert_eq!(unsafe { read(ptr::null(), v4_len) }, None);
    }

    #[test]
    fn a_small_room_gets_the_first_bytes_and_the_full_size() {
        let address: SocketAddr = "192.0.2.7:80".parse().unwrap();
        let mut place = [0xaa_u8; IN_BYTES];
        let mut len: socklen_t = 4;
        // SAFETY: four bytes fit.
        unsafe { write(address, place.as_mut_ptr().cast(), &raw mut len) };
        assert_eq!(len as usize, IN_BYTES);
        assert_eq!(place[2..4], [0, 80]);
        assert_eq!(place[4..], [0xaa; IN_BYTES - 4]);
    }

    #[test]
    fn an_ipv6_peer_shows_as_its_family_and_a_mapped_one_as_ipv4() {
        let v6 = to_sockaddr_in("[2001:db8::1]:443".parse().unwrap());
        assert_eq!(
            (i32::from(v6.sin_family), v6.sin_port, v6.sin_addr.s_addr),
            (AF_INET6, 443_u16.to_be(), 0)
        );
        let mapped = to_sockaddr_in("[::ffff:192.0.2.7]:443".parse().unwrap());
        assert_eq!(i32::from(mapped.sin_family), AF_INET);
        assert_eq!(u32::from_be(mapped.sin_addr.s_addr), u32::from(Ipv4Addr::new(192, 0, 2, 7)));
    }
}
