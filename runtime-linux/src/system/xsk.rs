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
///
/// Where its words and entries are is checked once, when it is made. What the other side writes there later may be anything:
/// the ends believe no count that a ring of this size cannot have.
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
        socket::set_option(fd, SOL_XDP, kind.option(), &entries)?;
        let offsets: xdp_mmap_offsets = socket::option(fd, SOL_XDP, libc::XDP_MMAP_OFFSETS)?;
        let layout = kind.layout(&offsets);
        let bytes = Self::bytes(&layout, entries).ok_or(io::ErrorKind::InvalidData)?;
        Self::within(Mapping::new(fd, bytes, kind.page_offset())?, &layout, entries)
    }

    /// Bytes of the mapping that the layout needs.
    fn bytes(layout: &xdp_ring_offset, entries: u32) -> Option<usize> {
        (entries as usize).checked_mul(size_of::<T>())?.checked_add(usize::try_from(layout.desc).ok()?)
    }

    /// Takes a mapping for a ring of this layout. An error when that lies outside, or across the processor's words.
    fn within(mapping: Mapping, layout: &xdp_ring_offset, entries: u32) -> io::Result<Self> {
        let (producer_at, consumer_at) = (layout.producer as usize, layout.consumer as usize);
        let (flags_at, entries_at) = (layout.flags as usize, layout.desc as usize);
        let words = [producer_at, consumer_at, flags_at];
        let fits = entries.is_power_of_two()
            && words.into_iter().all(|at| mapping.contains::<u32>(at))
            && entries_at.is_multiple_of(align_of::<T>())
            && Self::bytes(layout, entries).is_some_and(|bytes| bytes <= mapping.len());
        if !fits {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self { mapping, producer_at, consumer_at, flags_at, entries_at, entries, kind: PhantomData })
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
    /// Entries put in, and how many the kernel had taken when it was last asked: never more than were put in, nor
    /// fewer than all but a ring of them.
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
        let taken = self.ring.mapping.word(self.ring.consumer_at).load(Ordering::Acquire);
        // The kernel only goes forward, up to what was put in. Any other count is not believed.
        if taken.wrapping_sub(self.taken) <= self.put.wrapping_sub(self.taken) {
            self.taken = taken;
        }
        self.ring.entries - self.put.wrapping_sub(self.taken)
    }

    /// Puts an entry in; false, and nothing done, when the ring is full. The kernel sees it after [`Self::submit`].
    #[inline]
    pub fn put(&mut self, value: T) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        // SAFETY: an entry within the mapping and aligned, as was checked when the ring was made. The kernel has read
        // what was there, since there is room, and does not look at it again before it is submitted.
        unsafe { self.ring.entry(self.put).write(value) };
        self.put = self.put.wrapping_add(1);
        true
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
    /// Entries taken out, and how many the kernel had put in when it was last asked: at most a ring of them more.
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
            let put = self.ring.mapping.word(self.ring.producer_at).load(Ordering::Acquire);
            // More than a ring of entries cannot have come: such a count is not believed.
            if put == self.taken || put.wrapping_sub(self.taken) > self.ring.entries {
                return None;
            }
            self.put = put;
        }
        // SAFETY: an entry within the mapping and aligned, as was checked when the ring was made. The kernel wrote it
        // before it moved the producer's end, and leaves it alone until it is released; any bytes are a value.
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

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: xdp_ring_offset = xdp_ring_offset { producer: 0, consumer: 64, desc: 128, flags: 192 };
    const ENTRIES: u32 = 8;

    fn ring(layout: &xdp_ring_offset, entries: u32) -> io::Result<Ring<u64>> {
        Ring::within(Mapping::anonymous(4096).unwrap(), layout, entries)
    }

    /// What the other side says of how far it is.
    fn say<T>(ring: &Ring<T>, at: usize, count: u32) {
        ring.mapping.word(at).store(count, Ordering::Release);
    }

    #[test]
    fn a_layout_that_does_not_fit_into_the_mapping_is_refused() {
        assert!(ring(&LAYOUT, ENTRIES).is_ok());
        assert!(ring(&LAYOUT, 496).is_err(), "no power of two");
        assert!(ring(&LAYOUT, 512).is_err(), "128 and 4096 bytes");
        for wrong in [
            xdp_ring_offset { producer: 4096, ..LAYOUT },
            xdp_ring_offset { consumer: 4094, ..LAYOUT },
            xdp_ring_offset { flags: 2, ..LAYOUT },
            xdp_ring_offset { flags: u64::MAX, ..LAYOUT },
            xdp_ring_offset { desc: 132, ..LAYOUT },
            xdp_ring_offset { desc: 4096 - 56, ..LAYOUT },
            xdp_ring_offset { desc: u64::MAX - 7, ..LAYOUT },
        ] {
            assert!(ring(&wrong, ENTRIES).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_producer_believes_no_count_that_cannot_be() {
        let mut fill = Producer { ring: ring(&LAYOUT, ENTRIES).unwrap(), put: 0, taken: 0 };
        for start in [0_u32, u32::MAX - 3] {
            (fill.put, fill.taken) = (start, start);
            (0..ENTRIES).for_each(|value| assert!(fill.put(value.into())));
            for count in [start.wrapping_add(ENTRIES + 1), start.wrapping_sub(1), start.wrapping_add(1 << 31)]
            {
                say(&fill.ring, fill.ring.consumer_at, count);
                assert_eq!(fill.room(ENTRIES), 0, "{count}");
                assert!(!fill.put(99), "{count}");
            }
            say(&fill.ring, fill.ring.consumer_at, start.wrapping_add(3));
            assert_eq!(fill.room(ENTRIES), 3);
            // Never back.
            say(&fill.ring, fill.ring.consumer_at, start);
            assert_eq!(fill.room(ENTRIES), 3);
        }
    }

    #[test]
    fn a_consumer_takes_no_more_than_a_ring_whatever_the_count() {
        let mut received = Consumer { ring: ring(&LAYOUT, ENTRIES).unwrap(), taken: 0, put: 0 };
        for start in [0_u32, u32::MAX - 3] {
            (received.put, received.taken) = (start, start);
            for count in [start.wrapping_add(ENTRIES + 1), start.wrapping_sub(1), start.wrapping_add(1 << 31)]
            {
                say(&received.ring, received.ring.producer_at, count);
                assert_eq!(received.take(), None, "{count}");
            }
            say(&received.ring, received.ring.producer_at, start.wrapping_add(ENTRIES));
            assert_eq!(std::iter::from_fn(|| received.take()).count(), ENTRIES as usize);
        }
    }
}
