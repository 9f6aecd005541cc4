//! Options about groups: the structures of the sockets API to and from values. A library OS has one interface, whose
//! number is 1, and which 0 and the address 0.0.0.0 mean too.

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

use catnip_os::libos::{GroupMembership, PathMtuDiscovery, SourceMembership};
use libc::{sockaddr_storage, socklen_t};

use crate::address;
use crate::options::read_value;

/// The number of the only interface.
const INTERFACE_INDEX: i64 = 1;

/// Reads a `struct ip_mreq`, `ip_mreqn`, `ipv6_mreq` or `group_req`, which their sizes tell apart.
///
/// # Errors
/// `EINVAL` when `len` is none of theirs, `ENODEV` for an interface that is not there.
///
/// # Safety
/// `len` bytes can be read at `value`.
pub unsafe fn read_membership(value: *const c_void, len: socklen_t) -> Result<GroupMembership, c_int> {
    if len as usize >= size_of::<libc::group_req>() {
        // SAFETY: the caller vouches for `len` bytes.
        let request = unsafe { read_value::<libc::group_req>(value, len) }?;
        check_index(request.gr_interface)?;
        return Ok(GroupMembership::on_any_interface(stored(&request.gr_group)?));
    }
    if len as usize >= size_of::<libc::ipv6_mreq>() {
        // SAFETY: as above.
        let request = unsafe { read_value::<libc::ipv6_mreq>(value, len) }?;
        check_index(request.ipv6mr_interface)?;
        let group = Ipv6Addr::from_octets(request.ipv6mr_multiaddr.s6_addr);
        return Ok(GroupMembership::on_any_interface(group.into()));
    }
    // SAFETY: as above; `ip_mreq` is what all forms begin with.
    let request = unsafe { read_value::<libc::ip_mreq>(value, len) }?;
    if len as usize >= size_of::<libc::ip_mreqn>() {
        // SAFETY: as above.
        check_index(unsafe { read_value::<libc::ip_mreqn>(value, len) }?.imr_ifindex)?;
    }
    Ok(GroupMembership { group: ipv4(request.imr_multiaddr), interface: named(request.imr_interface) })
}

/// Reads a `struct ip_mreq_source` or `group_source_req`, which their sizes tell apart.
///
/// # Errors
/// As [`read_membership`].
///
/// # Safety
/// `len` bytes can be read at `value`.
pub unsafe fn read_source(value: *const c_void, len: socklen_t) -> Result<SourceMembership, c_int> {
    if len as usize >= size_of::<libc::group_source_req>() {
        // SAFETY: the caller vouches for `len` bytes.
        let request = unsafe { read_value::<libc::group_source_req>(value, len) }?;
        check_index(request.gsr_interface)?;
        let group = GroupMembership::on_any_interface(stored(&request.gsr_group)?);
        return Ok(SourceMembership { group, source: stored(&request.gsr_source)? });
    }
    // SAFETY: as above.
    let request = unsafe { read_value::<libc::ip_mreq_source>(value, len) }?;
    let group =
        GroupMembership { group: ipv4(request.imr_multiaddr), interface: named(request.imr_interface) };
    Ok(SourceMembership { group, source: ipv4(request.imr_sourceaddr) })
}

/// Reads what names an interface: an address, a `struct ip_mreq` or `ip_mreqn`, or a number.
///
/// # Errors
/// As [`read_membership`].
///
/// # Safety
/// `len` bytes can be read at `value`.
pub unsafe fn read_interface(value: *const c_void, len: socklen_t) -> Result<Option<IpAddr>, c_int> {
    if len as usize >= size_of::<libc::ip_mreq>() {
        // SAFETY: the caller vouches for `len` bytes.
        return unsafe { read_membership(value, len) }.map(|membership| membership.interface);
    }
    // SAFETY: as above.
    let number = unsafe { read_value::<c_int>(value, len) }?;
    if check_index(number).is_ok() {
        return Ok(None);
    }
    // SAFETY: as above.
    Ok(Some(ipv4(unsafe { read_value::<libc::in_addr>(value, len) }?)))
}

/// Reads a number that may be a byte or an `int`, as the sockets API has it for options about groups.
///
/// # Errors
/// `EINVAL` when `len` is 0.
///
/// # Safety
/// `len` bytes can be read at `value`.
pub unsafe fn read_small_number(value: *const c_void, len: socklen_t) -> Result<c_int, c_int> {
    if len as usize >= size_of::<c_int>() {
        // SAFETY: the caller vouches for `len` bytes.
        return unsafe { read_value::<c_int>(value, len) };
    }
    // SAFETY: as above.
    unsafe { read_value::<u8>(value, len) }.map(c_int::from)
}

/// What a number of `IP_MTU_DISCOVER` means.
///
/// # Errors
/// `EINVAL` when it means nothing here.
pub fn discovery(number: c_int) -> Result<PathMtuDiscovery, c_int> {
    match number {
        libc::IP_PMTUDISC_DONT => Ok(PathMtuDiscovery::Never),
        libc::IP_PMTUDISC_WANT => Ok(PathMtuDiscovery::Wanted),
        libc::IP_PMTUDISC_DO => Ok(PathMtuDiscovery::Always),
        libc::IP_PMTUDISC_PROBE => Ok(PathMtuDiscovery::Probe),
        _ => Err(libc::EINVAL),
    }
}

/// The number of `IP_MTU_DISCOVER` for a value.
pub const fn discovery_number(discovery: PathMtuDiscovery) -> c_int {
    match discovery {
        PathMtuDiscovery::Never => libc::IP_PMTUDISC_DONT,
        PathMtuDiscovery::Wanted => libc::IP_PMTUDISC_WANT,
        PathMtuDiscovery::Always => libc::IP_PMTUDISC_DO,
        PathMtuDiscovery::Probe => libc::IP_PMTUDISC_PROBE,
    }
}

/// An interface as `IP_MULTICAST_IF` has it; for IPv6 the number that stands for any.
pub const fn interface_number(interface: Option<IpAddr>) -> c_int {
    match interface {
        Some(IpAddr::V4(address)) => c_int::from_ne_bytes(address.octets()),
        Some(IpAddr::V6(_)) | None => 0,
    }
}

/// The address in a `struct in_addr`.
pub fn ipv4(address: libc::in_addr) -> IpAddr {
    Ipv4Addr::from_octets(address.s_addr.to_ne_bytes()).into()
}

/// The address that names an interface; 0.0.0.0 names none.
pub fn named(interface: libc::in_addr) -> Option<IpAddr> {
    Some(ipv4(interface)).filter(|address| !address.is_unspecified())
}

/// The address in a `sockaddr_storage`.
///
/// # Errors
/// `EINVAL` when it is of another family than those of IP.
pub fn stored(storage: &sockaddr_storage) -> Result<IpAddr, c_int> {
    // SAFETY: the pointer and the size belong to `storage`.
    let address =
        unsafe { address::read(ptr::from_ref(storage).cast(), size_of::<sockaddr_storage>() as socklen_t) };
    address.map(|address| address.ip()).ok_or(libc::EINVAL)
}

/// Checks the number of an interface.
///
/// # Errors
/// `ENODEV` when it is none.
pub fn check_index(index: impl Into<i64>) -> Result<(), c_int> {
    if (0..=INTERFACE_INDEX).contains(&index.into()) { Ok(()) } else { Err(libc::ENODEV) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: [u8; 4] = [239, 1, 2, 3];
    const OWN: [u8; 4] = [10, 1, 0, 2];

    fn membership(bytes: &[u8]) -> Result<GroupMembership, c_int> {
        // SAFETY: the pointer and the size belong to `bytes`.
        unsafe { read_membership(bytes.as_ptr().cast(), bytes.len() as socklen_t) }
    }

    #[test]
    fn memberships_of_every_form_are_read() {
        let index = |number: i32| number.to_ne_bytes();
        let group_v6 = "ff05::1:3".parse::<Ipv6Addr>().unwrap();
        let on_own = GroupMembership { group: GROUP.into(), interface: Some(OWN.into()) };
        let anywhere = GroupMembership::on_any_interface(GROUP.into());
        for (bytes, expected) in [
            ([GROUP, OWN].concat(), Ok(on_own)),
            ([GROUP, [0; 4]].concat(), Ok(anywhere)),
            ([GROUP, [0; 4], index(1)].concat(), Ok(anywhere)),
            ([GROUP, [0; 4], index(7)].concat(), Err(libc::ENODEV)),
            (
                [&group_v6.octets()[..], &index(0)].concat(),
                Ok(GroupMembership::on_any_interface(group_v6.into())),
            ),
            ([&group_v6.octets()[..], &index(7)].concat(), Err(libc::ENODEV)),
            (GROUP.to_vec(), Err(libc::EINVAL)),
        ] {
            assert_eq!(membership(&bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn sources_of_every_form_are_read() {
        const SOURCE: [u8; 4] = [198, 51, 100, 7];
        let read = |place: *const c_void, len: usize| {
            // SAFETY: callers name a place and its size.
            unsafe { read_source(place, len as socklen_t) }
        };
        let plain = [GROUP, OWN, SOURCE].concat();
        let group = GroupMembership { group: GROUP.into(), interface: Some(OWN.into()) };
        let expected = Ok(SourceMembership { group, source: SOURCE.into() });
        assert_eq!(read(plain.as_ptr().cast(), 12), expected);
        assert_eq!(read(plain.as_ptr().cast(), 8), Err(libc::EINVAL));
        for (group, source) in [("232.1.2.3", "198.51.100.7"), ("ff35::8000:1", "2001:db8::7")] {
            let (group, source): (IpAddr, IpAddr) = (group.parse().unwrap(), source.parse().unwrap());
            let storage = |ip: IpAddr| address::to_storage((ip, 0).into()).0;
            let mut request = libc::group_source_req {
                gsr_interface: 1,
                gsr_group: storage(group),
                gsr_source: storage(source),
            };
            let whole = size_of::<libc::group_source_req>();
            let group = GroupMembership::on_any_interface(group);
            let place = ptr::from_ref(&request).cast();
            assert_eq!(read(place, whole), Ok(SourceMembership { group, source }));
            // What it begins with is a `group_req`.
            // SAFETY: the pointer and the size belong to `request`.
            let joined = unsafe { read_membership(place, size_of::<libc::group_req>() as socklen_t) };
            assert_eq!(joined, Ok(group));
            request.gsr_interface = 7;
            assert_eq!(read(ptr::from_ref(&request).cast(), whole), Err(libc::ENODEV));
            request.gsr_interface = 0;
            request.gsr_source = address::no_storage();
            assert_eq!(read(ptr::from_ref(&request).cast(), whole), Err(libc::EINVAL));
        }
    }

    #[test]
    fn interfaces_and_small_numbers_are_read() {
        let interface = |bytes: &[u8]| {
            // SAFETY: the pointer and the size belong to `bytes`.
            unsafe { read_interface(bytes.as_ptr().cast(), bytes.len() as socklen_t) }
        };
        assert_eq!(interface(&OWN), Ok(Some(OWN.into())));
        assert_eq!(interface(&[0; 4]), Ok(None));
        assert_eq!(interface(&1_i32.to_ne_bytes()), Ok(None));
        assert_eq!(interface(&[GROUP, OWN].concat()), Ok(Some(OWN.into())));
        assert_eq!(interface(&[0; 3]), Err(libc::EINVAL));
        assert_eq!(interface_number(Some(OWN.into())).to_ne_bytes(), OWN);
        let number = |bytes: &[u8]| {
            // SAFETY: the pointer and the size belong to `bytes`.
            unsafe { read_small_number(bytes.as_ptr().cast(), bytes.len() as socklen_t) }
        };
        assert_eq!(number(&[7]), Ok(7));
        assert_eq!(number(&(-1_i32).to_ne_bytes()), Ok(-1));
        assert_eq!(number(&[]), Err(libc::EINVAL));
    }

    #[test]
    fn every_kind_of_path_mtu_discovery_has_its_number() {
        for number in 0..4 {
            assert_eq!(discovery(number).map(discovery_number), Ok(number));
        }
        assert_eq!(discovery(4), Err(libc::EINVAL));
    }
}
