//! Socket options across the border: level, name and bytes to and from [`SocketOption`].

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr;
use std::time::Duration;

use catnip_os::libos::{CongestionName, Instant, SocketOption, SocketOptionName};
use libc::socklen_t;

use crate::tcp_info::TcpInfo;
use crate::{errno, groups};

/// `DEMI_EXT_TCP_USER_TIMEOUT_OPTION` of `demi/ext.h`: Linux has no such option, and numbers its own far below.
pub const TCP_USER_TIMEOUT_OPTION: c_int = 0x6000;

/// The option that a level and a name stand for.
///
/// # Errors
/// `ENOPROTOOPT` when there is none.
pub fn name(level: c_int, option: c_int) -> Result<SocketOptionName, c_int> {
    use SocketOptionName as Name;
    match (level, option) {
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => Ok(Name::KeepAlive),
        (libc::SOL_SOCKET, libc::SO_LINGER) => Ok(Name::Linger),
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => Ok(Name::SendBuffer),
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => Ok(Name::ReceiveBuffer),
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => Ok(Name::ReuseAddress),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => Ok(Name::ReusePort),
        (libc::SOL_SOCKET, libc::SO_ERROR) => Ok(Name::PendingError),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => Ok(Name::NoDelay),
        (libc::IPPROTO_TCP, libc::TCP_CONGESTION) => Ok(Name::Congestion),
        (libc::IPPROTO_TCP, libc::TCP_MAXSEG) => Ok(Name::MaxSegmentSize),
        (libc::IPPROTO_TCP, libc::TCP_INFO) => Ok(Name::StreamInfo),
        (libc::IPPROTO_TCP, libc::TCP_CORK) => Ok(Name::Cork),
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) => Ok(Name::QuickAck),
        (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT) => Ok(Name::UserTimeout),
        (libc::IPPROTO_TCP, TCP_USER_TIMEOUT_OPTION) => Ok(Name::UserTimeoutOption),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => Ok(Name::KeepAliveIdle),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => Ok(Name::KeepAliveInterval),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => Ok(Name::KeepAliveProbes),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN) => Ok(Name::FastOpenQueue),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT) => Ok(Name::FastOpenConnect),
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => {
            Ok(Name::HopLimit)
        }
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => Ok(Name::TrafficClass),
        (libc::SOL_SOCKET, libc::SO_BROADCAST) => Ok(Name::Broadcast),
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP | libc::MCAST_JOIN_GROUP)
        | (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP | libc::MCAST_JOIN_GROUP) => Ok(Name::JoinGroup),
        (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP | libc::MCAST_LEAVE_GROUP)
        | (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP | libc::MCAST_LEAVE_GROUP) => Ok(Name::LeaveGroup),
        (libc::IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP)
        | (libc::IPPROTO_IP | libc::IPPROTO_IPV6, libc::MCAST_JOIN_SOURCE_GROUP) => Ok(Name::JoinSourceGroup),
        (libc::IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP)
        | (libc::IPPROTO_IP | libc::IPPROTO_IPV6, libc::MCAST_LEAVE_SOURCE_GROUP) => {
            Ok(Name::LeaveSourceGroup)
        }
        (libc::IPPROTO_IP, libc::IP_BLOCK_SOURCE)
        | (libc::IPPROTO_IP | libc::IPPROTO_IPV6, libc::MCAST_BLOCK_SOURCE) => Ok(Name::BlockSource),
        (libc::IPPROTO_IP, libc::IP_UNBLOCK_SOURCE)
        | (libc::IPPROTO_IP | libc::IPPROTO_IPV6, libc::MCAST_UNBLOCK_SOURCE) => Ok(Name::UnblockSource),
        (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS) => {
            Ok(Name::MulticastHops)
        }
        (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP) | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP) => {
            Ok(Name::MulticastLoop)
        }
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) | (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => {
            Ok(Name::MulticastInterface)
        }
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) | (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER) => {
            Ok(Name::PathMtuDiscovery)
        }
        (libc::IPPROTO_IP, libc::IP_MTU) | (libc::IPPROTO_IPV6, libc::IPV6_MTU) => Ok(Name::PathMtu),
        _ => Err(libc::ENOPROTOOPT),
    }
}

/// Reads the value that a program wants to set.
///
/// # Errors
/// `EINVAL` when `len` is too small or the value out of range, `ENOPROTOOPT` for what cannot be set.
///
/// # Safety
/// `len` bytes can be read at `value`.
pub unsafe fn read(
    name: SocketOptionName,
    value: *const c_void,
    len: socklen_t,
) -> Result<SocketOption, c_int> {
    use SocketOptionName as Name;
    if matches!(name, Name::Linger) {
        // SAFETY: the caller vouches for `len` bytes.
        let linger = unsafe { read_value::<libc::linger>(value, len) }?;
        let seconds = u64::try_from(linger.l_linger).map_err(|_| libc::EINVAL)?;
        let wait = (linger.l_onoff != 0).then(|| Duration::from_secs(seconds));
        return Ok(SocketOption::Linger(wait));
    }
    if matches!(name, Name::Congestion) {
        // SAFETY: the caller vouches for `len` bytes.
        return unsafe { read_name(value, len) }.map(SocketOption::Congestion);
    }
    if let Some(option) =
        // SAFETY: the caller vouches for `len` bytes.
        unsafe { read_of_group(name, value, len) }?
    {
        return Ok(option);
    }
    // SAFETY: the caller vouches for `len` bytes.
    let number = unsafe { read_value::<c_int>(value, len) }?;
    let size = || usize::try_from(number).map_err(|_| libc::EINVAL);
    match name {
        Name::NoDelay => Ok(SocketOption::NoDelay(number != 0)),
        Name::KeepAlive => Ok(SocketOption::KeepAlive(number != 0)),
        Name::ReuseAddress => Ok(SocketOption::ReuseAddress(number != 0)),
        Name::ReusePort => Ok(SocketOption::ReusePort(number != 0)),
        Name::Cork => Ok(SocketOption::Cork(number != 0)),
        Name::QuickAck => Ok(SocketOption::QuickAck(number != 0)),
        Name::UserTimeout => {
            let millis = u64::try_from(number).map_err(|_| libc::EINVAL)?;
            Ok(SocketOption::UserTimeout((millis > 0).then(|| Duration::from_millis(millis))))
        }
        Name::UserTimeoutOption => Ok(SocketOption::UserTimeoutOption(number != 0)),
        Name::KeepAliveIdle => keepalive_seconds(number).map(SocketOption::KeepAliveIdle),
        Name::KeepAliveInterval => keepalive_seconds(number).map(SocketOption::KeepAliveInterval),
        Name::KeepAliveProbes => match u8::try_from(number) {
            Ok(probes @ 1..=MAX_KEEPALIVE_PROBES) => Ok(SocketOption::KeepAliveProbes(probes)),
            Ok(_) | Err(_) => Err(libc::EINVAL),
        },
        Name::FastOpenQueue => Ok(SocketOption::FastOpenQueue(size()?)),
        Name::FastOpenConnect => Ok(SocketOption::FastOpenConnect(number != 0)),
        Name::SendBuffer => Ok(SocketOption::SendBuffer(size()?)),
        Name::ReceiveBuffer => Ok(SocketOption::ReceiveBuffer(size()?)),
        Name::MaxSegmentSize => Ok(SocketOption::MaxSegmentSize(size()?)),
        Name::Broadcast => Ok(SocketOption::Broadcast(number != 0)),
        Name::PathMtuDiscovery => groups::discovery(number).map(SocketOption::PathMtuDiscovery),
        Name::HopLimit => u8::try_from(number).map(SocketOption::HopLimit).map_err(|_| libc::EINVAL),
        Name::TrafficClass => u8::try_from(number).map(SocketOption::TrafficClass).map_err(|_| libc::EINVAL),
        _ => Err(libc::ENOPROTOOPT),
    }
}

/// Linux's bounds of `TCP_KEEPIDLE` and `TCP_KEEPINTVL`, in seconds, and of `TCP_KEEPCNT`.
const MAX_KEEPALIVE_SECONDS: u64 = 32_767;
const MAX_KEEPALIVE_PROBES: u8 = 127;

fn keepalive_seconds(number: c_int) -> Result<Duration, c_int> {
    match u64::try_from(number) {
        Ok(seconds @ 1..=MAX_KEEPALIVE_SECONDS) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err(libc::EINVAL),
    }
}

/// Reads the value of an option about groups; `None` for any other option.
///
/// # Safety
/// `len` bytes can be read at `value`.
unsafe fn read_of_group(
    name: SocketOptionName,
    value: *const c_void,
    len: socklen_t,
) -> Result<Option<SocketOption>, c_int> {
    use SocketOptionName as Name;
    // SAFETY: the caller vouches for `len` bytes.
    let membership = || unsafe { groups::read_membership(value, len) };
    // SAFETY: as above.
    let source = || unsafe { groups::read_source(value, len) };
    // SAFETY: as above.
    let number = || unsafe { groups::read_small_number(value, len) };
    let option = match name {
        Name::JoinGroup => SocketOption::JoinGroup(membership()?),
        Name::LeaveGroup => SocketOption::LeaveGroup(membership()?),
        Name::JoinSourceGroup => SocketOption::JoinSourceGroup(source()?),
        Name::LeaveSourceGroup => SocketOption::LeaveSourceGroup(source()?),
        Name::BlockSource => SocketOption::BlockSource(source()?),
        Name::UnblockSource => SocketOption::UnblockSource(source()?),
        Name::MulticastHops => {
            // -1 is the default, as on Linux.
            let hops = Some(number()?).filter(|hops| *hops != -1).unwrap_or(1);
            SocketOption::MulticastHops(u8::try_from(hops).map_err(|_| libc::EINVAL)?)
        }
        Name::MulticastLoop => SocketOption::MulticastLoop(number()? != 0),
        Name::MulticastInterface => {
            // SAFETY: as above.
            SocketOption::MulticastInterface(unsafe { groups::read_interface(value, len) }?)
        }
        _ => return Ok(None),
    };
    Ok(Some(option))
}

/// Checks that a program offers room for an option's value, before the option is read: reading some clears them.
///
/// # Errors
/// `EINVAL` when the room is too small.
///
/// # Safety
/// `len` can be read.
pub unsafe fn check_room(name: SocketOptionName, len: *const socklen_t) -> Result<(), c_int> {
    let needed = match name {
        SocketOptionName::Linger => size_of::<libc::linger>(),
        // As much as there is room for, as on Linux.
        SocketOptionName::Congestion | SocketOptionName::StreamInfo => 0,
        _ => size_of::<c_int>(),
    };
    // SAFETY: the caller vouches for `len`.
    let room = unsafe { len.read_unaligned() };
    if (room as usize) < needed { Err(libc::EINVAL) } else { Ok(()) }
}

/// Stores an option's value for a program that offers `*len` bytes, and the value's size in `*len`.
///
/// # Errors
/// `EINVAL` when the room is too small, `ENOPROTOOPT` for an option that this edge does not know.
///
/// A name of at most `len` bytes that a NUL may end before.
///
/// # Safety
/// `len` bytes can be read at `place`.
unsafe fn read_name(place: *const c_void, len: socklen_t) -> Result<CongestionName, c_int> {
    let len = (len as usize).min(CongestionName::MAX_BYTES + 1);
    // SAFETY: no more than the bytes that the caller vouches for.
    let bytes = unsafe { std::slice::from_raw_parts(place.cast::<u8>(), len) };
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|_| libc::EINVAL)?;
    CongestionName::new(name).ok_or(libc::EINVAL)
}

/// Stores as much of a structure as there is room for.
///
/// # Safety
/// `len` can be read and written, and `*len` bytes can be written at `place`.
unsafe fn write_prefix<T: Copy>(value: &T, place: *mut c_void, len: *mut socklen_t) {
    // SAFETY: the caller vouches for `len`.
    let room = unsafe { ptr::read_unaligned(len) } as usize;
    let count = room.min(size_of::<T>());
    // SAFETY: no more than the room that the caller vouches for and than there is to copy.
    unsafe { ptr::copy_nonoverlapping(ptr::from_ref(value).cast::<u8>(), place.cast::<u8>(), count) };
    // SAFETY: the caller vouches for `len`.
    unsafe { ptr::write_unaligned(len, count as socklen_t) };
}

/// # Safety
/// `len` can be read and written, and `*len` bytes can be written at `place`.
unsafe fn write_name(name: &CongestionName, place: *mut c_void, len: *mut socklen_t) {
    let bytes = name.as_c_bytes();
    // SAFETY: the caller vouches for `len`.
    let room = unsafe { ptr::read_unaligned(len) } as usize;
    let count = room.min(bytes.len());
    // SAFETY: no more than the room that the caller vouches for and than there is to copy.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), place.cast::<u8>(), count) };
    // SAFETY: the caller vouches for `len`.
    unsafe { ptr::write_unaligned(len, count as socklen_t) };
}

/// # Safety
/// `len` can be read and written, and `*len` bytes can be written at `place`.
pub unsafe fn write(
    option: SocketOption,
    now: Instant,
    place: *mut c_void,
    len: *mut socklen_t,
) -> Result<(), c_int> {
    let number = match option {
        SocketOption::Linger(wait) => {
            let seconds = wait.map_or(0, |wait| wait.as_secs());
            let linger = libc::linger { l_onoff: c_int::from(wait.is_some()), l_linger: saturate(seconds) };
            // SAFETY: the caller vouches for both.
            return unsafe { write_value(&linger, place, len) };
        }
        SocketOption::StreamInfo(info) => {
            // SAFETY: the caller vouches for both.
            unsafe { write_prefix(&TcpInfo::new(&info, now), place, len) };
            return Ok(());
        }
        SocketOption::Congestion(name) => {
            // SAFETY: the caller vouches for both.
            unsafe { write_name(&name, place, len) };
            return Ok(());
        }
        SocketOption::NoDelay(on)
        | SocketOption::KeepAlive(on)
        | SocketOption::ReuseAddress(on)
        | SocketOption::ReusePort(on)
        | SocketOption::Cork(on)
        | SocketOption::QuickAck(on)
        | SocketOption::FastOpenConnect(on)
        | SocketOption::UserTimeoutOption(on)
        | SocketOption::Broadcast(on)
        | SocketOption::MulticastLoop(on) => c_int::from(on),
        SocketOption::UserTimeout(limit) => saturate(limit.map_or(0, |limit| limit.as_millis())),
        // A configuration may have parts of a second: none of them is nought.
        SocketOption::KeepAliveIdle(time) | SocketOption::KeepAliveInterval(time) => {
            saturate(time.as_millis().div_ceil(1_000))
        }
        SocketOption::KeepAliveProbes(probes) => c_int::from(probes),
        SocketOption::SendBuffer(bytes)
        | SocketOption::ReceiveBuffer(bytes)
        | SocketOption::MaxSegmentSize(bytes) => saturate(bytes),
        SocketOption::FastOpenQueue(connections) => saturate(connections),
        SocketOption::HopLimit(number)
        | SocketOption::MulticastHops(number)
        | SocketOption::TrafficClass(number) => c_int::from(number),
        SocketOption::MulticastInterface(interface) => groups::interface_number(interface),
        SocketOption::PathMtuDiscovery(discovery) => groups::discovery_number(discovery),
        SocketOption::PathMtu(bytes) => saturate(bytes),
        SocketOption::PendingError(error) => error.map_or(0, errno::of),
        _ => return Err(libc::ENOPROTOOPT),
    };
    // SAFETY: the caller vouches for both.
    unsafe { write_value(&number, place, len) }
}

fn saturate<T>(value: T) -> c_int
where
    c_int: TryFrom<T>,
{
    c_int::try_from(value).unwrap_or(c_int::MAX)
}

/// Reads a value.
///
/// # Errors
/// `EINVAL` when `len` is too small.
///
/// # Safety
/// `len` bytes can be read at `place`, and any bytes make a `T`.
pub unsafe fn read_value<T>(place: *const c_void, len: socklen_t) -> Result<T, c_int> {
    if (len as usize) < size_of::<T>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: `len`, for which the caller vouches, covers the value.
    Ok(unsafe { ptr::read_unaligned(place.cast::<T>()) })
}

/// # Safety
/// `len` can be read and written, and `*len` bytes can be written at `place`.
unsafe fn write_value<T: Copy>(value: &T, place: *mut c_void, len: *mut socklen_t) -> Result<(), c_int> {
    // SAFETY: the caller vouches for `len`.
    let room = unsafe { ptr::read_unaligned(len) };
    if (room as usize) < size_of::<T>() {
        return Err(libc::EINVAL);
    }
    // SAFETY: the room, for which the caller vouches, covers the value.
    unsafe { ptr::write_unaligned(place.cast::<T>(), *value) };
    // SAFETY: the caller vouches for `len`.
    unsafe { ptr::write_unaligned(len, size_of::<T>() as socklen_t) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(5_000);

    #[test]
    fn a_value_set_reads_back_the_same() {
        let table: [(c_int, c_int, c_int); 29] = [
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 1),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, 32_767),
            (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, 75),
            (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, 127),
            (libc::IPPROTO_TCP, TCP_USER_TIMEOUT_OPTION, 1),
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::SOL_SOCKET, libc::SO_REUSEADDR, 0),
            (libc::SOL_SOCKET, libc::SO_SNDBUF, 65_536),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 1_048_576),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG, 1_460),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1),
            (libc::IPPROTO_TCP, libc::TCP_CORK, 1),
            (libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 30_000),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 0),
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 64),
            (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1),
            (libc::SOL_SOCKET, libc::SO_BROADCAST, 1),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, 7),
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, 255),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0),
            (libc::IPPROTO_IP, libc::IP_MULTICAST_IF, 0x0200_010a),
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
            (libc::IPPROTO_IP, libc::IP_TTL, 64),
            (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, 255),
            (libc::IPPROTO_IP, libc::IP_TOS, 0xb8),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0xb8),
        ];
        for (level, option, value) in table {
            let name = name(level, option).unwrap();
            // SAFETY: the pointer and the size belong to `value`.
            let set = unsafe { read(name, ptr::from_ref(&value).cast(), 4) }.unwrap();
            let (mut back, mut len) = (-1, 4);
            // SAFETY: the pointer and the size belong to `back`.
            unsafe { write(set, NOW, ptr::from_mut(&mut back).cast(), &raw mut len) }.unwrap();
            assert_eq!((back, len), (value, 4), "level {level} option {option}");
        }
    }

    #[test]
    fn keepalive_times_have_linuxs_bounds() {
        for (option, value) in [
            (libc::TCP_KEEPIDLE, 0),
            (libc::TCP_KEEPIDLE, -1),
            (libc::TCP_KEEPIDLE, 32_768),
            (libc::TCP_KEEPINTVL, 0),
            (libc::TCP_KEEPINTVL, 32_768),
            (libc::TCP_KEEPCNT, 0),
            (libc::TCP_KEEPCNT, 128),
            (libc::TCP_KEEPCNT, 257),
        ] {
            let name = name(libc::IPPROTO_TCP, option).unwrap();
            // SAFETY: the pointer and the size belong to `value`.
            let read = unsafe { read(name, ptr::from_ref(&value).cast(), 4) };
            assert_eq!(read, Err(libc::EINVAL), "{option} {value}");
        }
    }

    #[test]
    fn linger_is_a_structure_and_off_is_no_time() {
        for (on, seconds, expected) in
            [(0, 9, None), (1, 0, Some(Duration::ZERO)), (1, 9, Some(Duration::from_secs(9)))]
        {
            let value = libc::linger { l_onoff: on, l_linger: seconds };
            // SAFETY: the pointer and the size belong to `value`.
            let option = unsafe { read(SocketOptionName::Linger, ptr::from_ref(&value).cast(), 8) };
            assert_eq!(option, Ok(SocketOption::Linger(expected)));
        }
    }

    #[test]
    fn a_congestion_name_is_text_with_or_without_its_nul() {
        let option = name(libc::IPPROTO_TCP, libc::TCP_CONGESTION).unwrap();
        for (text, expected) in [
            (&b"reno"[..], CongestionName::new("reno").ok_or(0)),
            (b"cubic\0rubbish", CongestionName::new("cubic").ok_or(0)),
            (b"sixteen-letters-and-more", Err(libc::EINVAL)),
            (b"\xff", Err(libc::EINVAL)),
        ] {
            // SAFETY: the pointer and the size belong to `text`.
            let read = unsafe { read(option, text.as_ptr().cast(), text.len() as socklen_t) };
            assert_eq!(read, expected.map(SocketOption::Congestion), "{text:?}");
        }
        for (room, expected) in [(20_usize, &b"reno\0\0\0\0\0\0\0\0\0\0\0\0"[..]), (2, b"re"), (0, b"")] {
            let (mut place, mut len) = ([0x55_u8; 20], room as socklen_t);
            let value = SocketOption::Congestion(CongestionName::truncated("reno"));
            // SAFETY: the pointer and the size belong to `place`.
            unsafe { write(value, NOW, place.as_mut_ptr().cast(), &raw mut len) }.unwrap();
            assert_eq!(
                (&place[..len as usize], place[len as usize..].iter().all(|&b| b == 0x55)),
                (expected, true)
            );
        }
    }

    #[test]
    fn a_snapshot_is_cut_to_the_room_there_is() {
        let info = libos_info(1_234);
        for (room, filled) in [(72_u32, 72), (4_096, 232), (0, 0)] {
            let mut place = [0xaa_u8; 4_096];
            let mut len = room;
            // SAFETY: the pointer and the size belong to `place`.
            unsafe { write(info, NOW, place.as_mut_ptr().cast(), &raw mut len) }.unwrap();
            assert_eq!(len, filled);
            assert!(place[filled as usize..].iter().all(|&byte| byte == 0xaa));
            if filled > 0 {
                assert_eq!(place[68..72], 1_234_u32.to_ne_bytes(), "tcpi_rtt");
                assert_eq!(place[44..48], 1_500_u32.to_ne_bytes(), "tcpi_last_data_sent");
                assert_eq!(place[52..56], [0; 4], "tcpi_last_data_recv: there was none");
            }
        }
    }

    fn libos_info(rtt_us: u32) -> SocketOption {
        SocketOption::StreamInfo(catnip_os::libos::StreamInfo {
            rtt_us,
            last_data_sent: Instant::from_millis(3_500),
            ..Default::default()
        })
    }

    #[test]
    fn values_out_of_range_and_too_little_room_are_refused() {
        use SocketOptionName as Name;
        for (name, value) in
            [(Name::SendBuffer, -1), (Name::HopLimit, 256), (Name::HopLimit, -1), (Name::TrafficClass, 256)]
        {
            // SAFETY: the pointer and the size belong to `value`.
            assert_eq!(unsafe { read(name, ptr::from_ref(&value).cast(), 4) }, Err(libc::EINVAL));
        }
        let value: c_int = 1;
        // SAFETY: two bytes of `value` can be read.
        assert_eq!(unsafe { read(Name::NoDelay, ptr::from_ref(&value).cast(), 2) }, Err(libc::EINVAL));
        // SAFETY: the pointer and the size belong to `value`.
        let read_only = unsafe { read(Name::PendingError, ptr::from_ref(&value).cast(), 4) };
        assert_eq!(read_only, Err(libc::ENOPROTOOPT));
        let (mut place, mut len): (c_int, socklen_t) = (0, 3);
        // SAFETY: three bytes of `place` can be written.
        let written = unsafe {
            write(SocketOption::NoDelay(true), NOW, ptr::from_mut(&mut place).cast(), &raw mut len)
        };
        assert_eq!(written, Err(libc::EINVAL));
        assert_eq!(name(libc::SOL_SOCKET, -1), Err(libc::ENOPROTOOPT));
    }
}
