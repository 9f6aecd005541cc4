//! XDP sockets: memory registered with them, and the four rings.

use std::ffi::c_int;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::Ordering;

use libc::{SOL_XDP, XDP_RING_NEED_WAKEUP, xdp_desc, xdp_mmap_offsets, xdp_ring_offset};
use libos::memory::Region;

use super::mapping::Mapping;
use super::socket::{self, Plain};

// SAFETY: structures of integers, as the kernel's headers declare them.
unsafe impl Plain for xdp_desc {}
// SAFETY: as above.
unsafe impl Plain for xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_umem_reg {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: as above.
unsafe impl Plain for libc::sockaddr_xdp {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}

/// Registers a region, in chunks that begin anywhere.
pub(crate) fn register(fd: BorrowedFd<'_>, region: &Region, chunk_bytes: u32) -> io::Result<()> {
    let memory = libc::xdp_umem_reg {
        addr: region.base().as_ptr() as u64,
        len: region.len() as u64,
        chunk_size: chunk_bytes,
        headroom: 0,
        flags: libc::XDP_UMEM_UNALIGNED_CHUNK_FLAG,
        tx_metadata_len: 0,
    };
    socket::set_option(fd, SOL_XDP, libc::XDP_UMEM_REG, &memory)
}

/// Binds to one queue of an interface.
pub(crate) fn bind(fd: BorrowedFd<'_>, interface: u32, queue: u32, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: interface,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    socket::bind(fd, &address)
}

/// Has the kernel look at the transmit ring.
pub(crate) fn kick_transmit(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: no data and no address, which null pointers stand for.
    let sent = unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, flags, std::ptr::null(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has the kernel look at the fill ring and, with busy polling, at the device.
pub(crate) fn kick_receive(fd: BorrowedFd<'_>) {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: no data and no address, which null pointers stand for. What it returns says nothing that the ring does not.
    unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            std::ptr::null_mut(),
            0,
            flags,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
        )
    };
}

/// Which of a socket's rings.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RingKind {
    Fill,
    Completion,
    Receive,
    Transmit,
}

impl RingKind {
    fn option(self) -> c_int {
        match self {
            Self::Fill => libc::XDP_UMEM_FILL_RING,
            Self::Completion => libc::XDP_UMEM_COMPLETION_RING,
            Self::Receive => libc::XDP_RX_RING,
            Self::Transmit => libc::XDP_TX_RING,
        }
    }

    fn page_offset(self) -> libc::off_t {
        match self {
            Self::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            Self::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
            Self::Receive => libc::XDP_PGOFF_RX_RING,
            Self::Transmit => libc::XDP_PGOFF_TX_RING,
        }
    }

    fn layout(self, offsets: &xdp_mmap_offsets) -> xdp_ring_offset {
        match self {
            Self::Fill => offsets.fr,
            Self::Completion => offsets.cr,
            Self::Receive => offsets.rx,
            Self::Transmit => offsets.tx,
        }
    }
}

/// A ring of entries with one producer and one consumer, one of which is the kernel.
#[derive(Debug)]
struct Ring<T> {
    mapping: Mapping,
    producer_at: usize,
    consumer_at: usize,
    flags_at: usize,
    entries_at: usize,
    entries: u32,
    kind: PhantomData<T>,
}

impl<T: Plain> Ring<T> {
    /// Has the socket make a ring of so many entries, a power of two, and maps it.
    fn new(fd: BorrowedFd<'_>, kind: RingKind, entries: u32) -> io::Result<Self> {
        assert!(entries.is_power_of_two(), "the configuration allows no other");
        socket::set_option(fd, SOL_XDP, kind.option(), &entries)?;
        let offsets: xdp_mmap_offsets = socket::option(fd, SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let layout = kind.layout(&offsets);
        let bytes = layout.desc as usize + entries as usize * size_of::<T>();
        Ok(Self {
            mapping: Mapping::new(fd, bytes, kind.page_offset())?,
            producer_at: layout.producer as usize,
            consumer_at: layout.consumer as usize,
            flags_at: layout.flags as usize,
            entries_at: layout.desc as usize,
            entries,
            kind: PhantomData,
        })
    }

    #[inline]
    fn entry(&self, at: u32) -> *mut T {
        let index = (at & (self.entries - 1)) as usize;
        self.mapping.range(self.entries_at + index * size_of::<T>(), size_of::<T>()).as_ptr().cast()
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        self.mapping.word(self.flags_at).load(Ordering::Relaxed) & XDP_RING_NEED_WAKEUP != 0
    }
}

/// The end of a ring that entries are put into.
#[derive(Debug)]
pub(crate) struct Producer<T> {
    ring: Ring<T>,
    /// Entries put in, and how many the kernel had taken when it was last asked.
    put: u32,
    taken: u32,
}

impl<T: Plain> Producer<T> {
    pub fn new(fd: BorrowedFd<'_>, kind: RingKind, entries: u32) -> io::Result<Self> {
        Ok(Self { ring: Ring::new(fd, kind, entries)?, put: 0, taken: 0 })
    }

    /// Entries that there is room for; the kernel is asked when there seems to be none for `wanted`.
    #[inline]
    pub fn room(&mut self, wanted: u32) -> u32 {
        let room = self.ring.entries - self.put.wrapping_sub(self.taken);
        if room >= wanted {
            return room;
        }
        self.taken = self.ring.mapping.word(self.ring.consumer_at).load(Ordering::Acquire);
        self.ring.entries.saturating_sub(self.put.wrapping_sub(self.taken))
    }

    /// Puts an entry in, for which there has to be room; the kernel sees it after [`Self::submit`].
    #[inline]
    pub fn put(&mut self, value: T) {
        debug_assert!(self.room(1) > 0, "an entry of a full ring would be overwritten");
        // SAFETY: an entry within the mapping, aligned as the kernel lays rings out, which the kernel does not look at
        // before it is submitted, and has read before there was room for another.
        unsafe { self.ring.entry(self.put).write(value) };
        self.put = self.put.wrapping_add(1);
    }

    /// Lets the kernel see what was put in.
    #[inline]
    pub fn submit(&mut self) {
        self.ring.mapping.word(self.ring.producer_at).store(self.put, Ordering::Release);
    }

    /// True when the kernel looks at the ring only after a kick.
    #[inline]
    pub fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }
}

/// The end of a ring that entries are taken out of.
#[derive(Debug)]
pub(crate) struct Consumer<T> {
    ring: Ring<T>,
    /// Entries taken out, and how many the kernel had put in when it was last asked.
    taken: u32,
    put: u32,
}

impl<T: Plain> Consumer<T> {
    pub fn new(fd: BorrowedFd<'_>, kind: RingKind, entries: u32) -> io::Result<Self> {
        Ok(Self { ring: Ring::new(fd, kind, entries)?, taken: 0, put: 0 })
    }

    /// Takes the oldest entry; the kernel may use its place after [`Self::release`].
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.taken == self.put {
            self.put = self.ring.mapping.word(self.ring.producer_at).load(Ordering::Acquire);
            if self.taken == self.put {
                return None;
            }
        }
        // SAFETY: an entry within the mapping, aligned as the kernel lays rings out, which it wrote before it moved the
        // producer's end, and leaves alone until it is released.
        let value = unsafe { self.ring.entry(self.taken).read() };
        self.taken = self.taken.wrapping_add(1);
        Some(value)
    }

    /// Gives the places of what was taken back.
    #[inline]
    pub fn release(&mut self) {
        self.ring.mapping.word(self.ring.consumer_at).store(self.taken, Ordering::Release);
    }
}
