//! Whole lists of the sources of a group: `struct ip_msfilter` and `struct group_filter` (RFC 3678, sections 4.2 and
//! 5.2), which are as long as their lists are.

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::net::IpAddr;
use std::ptr;

use catnip_os::libos::{FilterMode, GroupMembership};
use libc::{in_addr, sockaddr_storage, socklen_t};

use crate::address;
use crate::groups::{check_index, ipv4, named, stored};
use crate::options::read_value;

/// Sources of one list that are read: more than a group may have.
const MAX_SOURCES: usize = 1_024;

/// What `struct ip_msfilter` begins with.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Filter {
    group: in_addr,
    interface: in_addr,
    mode: u32,
    count: u32,
}

/// What `struct group_filter` begins with.
#[repr(C)]
#[derive(Clone, Copy)]
struct GroupFilter {
    interface: u32,
    group: sockaddr_storage,
    mode: u32,
    count: u32,
}

/// The structures of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `struct ip_msfilter`.
    Ipv4,
    /// `struct group_filter`.
    Group,
}

/// What a list says, or asks about.
#[derive(Debug, PartialEq, Eq)]
pub struct List {
    pub group: GroupMembership,
    /// The number of the mode, which who asks does not fill in.
    mode: u32,
    /// Sources that the list has, or has room for.
    pub count: usize,
}

impl Form {
    /// The form of an option's value; `None` for options that have no list.
    pub const fn of(level: c_int, option: c_int) -> Option<Self> {
        match (level, option) {
            (libc::IPPROTO_IP, libc::IP_MSFILTER) => Some(Self::Ipv4),
            (libc::IPPROTO_IP | libc::IPPROTO_IPV6, libc::MCAST_MSFILTER) => Some(Self::Group),
            _ => None,
        }
    }

    /// Bytes in front of the sources, which is where the structure's array begins.
    const fn head_bytes(self) -> usize {
        match self {
            Self::Ipv4 => size_of::<Ipv4Filter>(),
            Self::Group => size_of::<GroupFilter>(),
        }
    }

    const fn source_bytes(self) -> usize {
        match self {
            Self::Ipv4 => size_of::<in_addr>(),
            Self::Group => size_of::<sockaddr_storage>(),
        }
    }

    /// Reads what stands in front of the sources.
    ///
    /// # Errors
    /// `EINVAL` when `len` is too small for that, `ENODEV` for an interface that is not there.
    ///
    /// # Safety
    /// `len` bytes can be read at `value`.
    pub unsafe fn read_head(self, value: *const c_void, len: socklen_t) -> Result<List, c_int> {
        let (group, mode, count) = match self {
            Self::Ipv4 => {
                // SAFETY: the caller vouches for `len` bytes.
                let head = unsafe { read_value::<Ipv4Filter>(value, len) }?;
                let group = GroupMembership { group: ipv4(head.group), interface: named(head.interface) };
                (group, head.mode, head.count)
            }
            Self::Group => {
                // SAFETY: as above.
                let head = unsafe { read_value::<GroupFilter>(value, len) }?;
                check_index(head.interface)?;
                (GroupMembership::on_any_interface(stored(&head.group)?), head.mode, head.count)
            }
        };
        Ok(List { group, mode, count: count as usize })
    }

    /// Reads a list with its sources.
    ///
    /// # Errors
    /// As [`Self::read_head`], `EINVAL` when `len` is too small for the sources or the mode is none, `ENOBUFS` when there are too many.
    ///
    /// # Safety
    /// `len` bytes can be read at `value`.
    pub unsafe fn read(
        self,
        value: *const c_void,
        len: socklen_t,
    ) -> Result<(GroupMembership, FilterMode, Vec<IpAddr>), c_int> {
        // SAFETY: the caller vouches for `len` bytes.
        let List { group, mode, count } = unsafe { self.read_head(value, len) }?;
        let mode = match c_int::try_from(mode) {
            Ok(libc::MCAST_INCLUDE) => FilterMode::Include,
            Ok(libc::MCAST_EXCLUDE) => FilterMode::Exclude,
            Ok(_) | Err(_) => return Err(libc::EINVAL),
        };
        if count > MAX_SOURCES {
            return Err(libc::ENOBUFS);
        }
        if (len as usize) < self.head_bytes() + count * self.source_bytes() {
            return Err(libc::EINVAL);
        }
        let mut sources = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: within the bytes that the caller vouches for, as was checked.
            let place = unsafe { value.byte_add(self.head_bytes() + index * self.source_bytes()) };
            let bytes = self.source_bytes() as socklen_t;
            sources.push(match self {
                // SAFETY: as above.
                Self::Ipv4 => ipv4(unsafe { read_value(place, bytes) }?),
                // SAFETY: as above.
                Self::Group => stored(&unsafe { read_value(place, bytes) }?)?,
            });
        }
        Ok((group, mode, sources))
    }

    /// Stores the mode, the number of all sources, and as many of them as the list at `place` said it has room for.
    ///
    /// # Errors
    /// `EINVAL` when there is less room than it said.
    ///
    /// # Safety
    /// `len` can be read and written, and `*len` bytes can be read and written at `place`.
    pub unsafe fn write(
        self,
        mode: FilterMode,
        sources: &[IpAddr],
        room: usize,
        place: *mut c_void,
        len: *mut socklen_t,
    ) -> Result<(), c_int> {
        let stored_sources = sources.get(..room).unwrap_or(sources);
        let bytes = self.head_bytes() + stored_sources.len() * self.source_bytes();
        // SAFETY: the caller vouches for `len`.
        let offered = unsafe { ptr::read_unaligned(len) };
        if (offered as usize) < bytes {
            return Err(libc::EINVAL);
        }
        let mode = match mode {
            FilterMode::Include => libc::MCAST_INCLUDE,
            FilterMode::Exclude => libc::MCAST_EXCLUDE,
        };
        let counts = [mode as u32, sources.len() as u32];
        // The mode and the count are the last fields of both heads.
        let counts_at = self.head_bytes() - size_of_val(&counts);
        // SAFETY: within the bytes that the caller vouches for, as was checked.
        unsafe { ptr::write_unaligned(place.byte_add(counts_at).cast(), counts) };
        for (index, &source) in stored_sources.iter().enumerate() {
            // SAFETY: as above.
            let place = unsafe { place.byte_add(self.head_bytes() + index * self.source_bytes()) };
            match (self, source) {
                (Self::Ipv4, IpAddr::V4(source)) => {
                    // SAFETY: as above.
                    unsafe { ptr::write_unaligned(place.cast(), source.octets()) };
                }
                (Self::Ipv4, IpAddr::V6(_)) => return Err(libc::EINVAL),
                (Self::Group, source) => {
                    let (storage, _) = address::to_storage((source, 0).into());
                    // SAFETY: as above.
                    unsafe { ptr::write_unaligned(place.cast(), storage) };
                }
            }
        }
        // SAFETY: the caller vouches for `len`.
        unsafe { ptr::write_unaligned(len, bytes as socklen_t) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const GROUP: [u8; 4] = [239, 1, 2, 3];

    #[test]
    fn members_of_lists_lie_where_linux_has_them() {
        assert_eq!((Form::Ipv4.head_bytes(), offset_of!(Ipv4Filter, mode)), (16, 8));
        assert_eq!((Form::Group.head_bytes(), offset_of!(GroupFilter, group)), (144, 8));
        assert_eq!((offset_of!(GroupFilter, mode), offset_of!(GroupFilter, count)), (136, 140));
        assert_eq!(Form::of(libc::IPPROTO_IPV6, libc::IP_MSFILTER), None);
    }

    /// A list of one form, with the numbers that it has in it.
    fn list(form: Form, mode: u32, count: u32, sources: &[[u8; 4]]) -> Vec<u8> {
        let storage = |ip: [u8; 4]| {
            let mut bytes = vec![0; 128];
            bytes[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
            bytes[4..8].copy_from_slice(&ip);
            bytes
        };
        let mut bytes = match form {
            Form::Ipv4 => [GROUP, [0; 4]].concat(),
            Form::Group => [vec![0; 8], storage(GROUP)].concat(),
        };
        bytes.extend(mode.to_ne_bytes());
        bytes.extend(count.to_ne_bytes());
        for &source in sources {
            match form {
                Form::Ipv4 => bytes.extend(source),
                Form::Group => bytes.extend(storage(source)),
            }
        }
        bytes
    }

    #[test]
    fn a_list_is_read_and_written_back() {
        let sources = [[198, 51, 100, 7], [198, 51, 100, 8]];
        for form in [Form::Ipv4, Form::Group] {
            let bytes = list(form, 0, 2, &sources);
            // SAFETY: the pointer and the size belong to `bytes`.
            let read = |bytes: &[u8]| unsafe { form.read(bytes.as_ptr().cast(), bytes.len() as socklen_t) };
            let group = GroupMembership::on_any_interface(GROUP.into());
            let addresses = sources.map(IpAddr::from).to_vec();
            assert_eq!(read(&bytes), Ok((group, FilterMode::Exclude, addresses.clone())));
            assert_eq!(read(&bytes[..bytes.len() - 1]), Err(libc::EINVAL), "cut");
            assert_eq!(read(&list(form, 2, 0, &[])), Err(libc::EINVAL), "no mode");
            assert_eq!(read(&list(form, 1, u32::MAX, &[])), Err(libc::ENOBUFS), "too many");
            for (room, kept) in [(0_usize, 0_usize), (1, 1), (2, 2), (9, 2)] {
                let mut place = list(form, 1, room as u32, &vec![[0; 4]; room]);
                let mut len = place.len() as socklen_t;
                // SAFETY: the pointer and the size belong to `place`.
                let written = unsafe {
                    form.write(FilterMode::Exclude, &addresses, room, place.as_mut_ptr().cast(), &raw mut len)
                };
                assert_eq!(written, Ok(()));
                assert_eq!(place[..len as usize], list(form, 0, 2, &sources[..kept]), "room for {room}");
            }
            let (mut place, mut len) = (list(form, 1, 2, &[]), 144);
            // SAFETY: the pointer and a size that is too small for two sources belong to `place`.
            let written = unsafe {
                let place = place.as_mut_ptr().cast();
                len = len.min(form.head_bytes() as socklen_t);
                form.write(FilterMode::Include, &addresses, 2, place, &raw mut len)
            };
            assert_eq!(written, Err(libc::EINVAL), "less room than it said");
        }
    }
}
