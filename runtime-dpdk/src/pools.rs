//! Pools of mbufs: over the arena's buffers where the device reaches them, over DPDK's own memory elsewhere.

use std::cell::Cell;
use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use dpdk_sys as sys;
use libos::memory::RawBuffer;
use libos::runtime::BURST;
use libos::{Arena, Buffer, SetupError};

use crate::failure::{describe, failed, last_number};
use crate::mbufs::{Burst, Mbuf};
use crate::registration::while_shared;

/// Mbufs that a thread keeps for itself, so that most are taken and given back without an atomic.
const CACHE_MBUFS: usize = 256;

/// Mbufs beyond those in a queue's descriptors: in caches, which hold one and a half times their size, and in bursts.
pub(crate) const SPARE_MBUFS: usize = 2 * CACHE_MBUFS;

/// Bytes in front of a frame's data, which drivers may use.
pub(crate) const HEADROOM_BYTES: usize = sys::RTE_PKTMBUF_HEADROOM as usize;

const _: () = assert!(HEADROOM_BYTES <= libos::memory::HEADROOM_BYTES);

/// Largest room of an mbuf.
const MAX_ROOM_BYTES: usize = u16::MAX as usize - HEADROOM_BYTES;

/// How a pool's mbufs lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolLayout {
    /// None across the end of a page, which leaves gaps.
    Any,
    /// One behind the other, all in one piece.
    OnePiece,
}

/// Numbers pools, whose names have to differ.
static POOLS: AtomicUsize = AtomicUsize::new(0);

/// A pool of mbufs with memory of DPDK's own.
#[derive(Debug)]
pub(crate) struct Pool {
    raw: NonNull<sys::rte_mempool>,
    count: usize,
}

impl Pool {
    /// A pool of `count` mbufs with `room_bytes` for data each.
    pub(crate) fn new(
        port: &str,
        count: usize,
        room_bytes: usize,
        layout: PoolLayout,
    ) -> Result<Self, SetupError> {
        let call = match layout {
            PoolLayout::Any => "rte_pktmbuf_pool_create",
            PoolLayout::OnePiece => "rte_mempool_populate_default",
        };
        let name = name(port, call)?;
        let (count_c, room) = (count as u32, (room_bytes.min(MAX_ROOM_BYTES) + HEADROOM_BYTES) as u16);
        let (name, cache) = (name.as_ptr(), CACHE_MBUFS as u32);
        // SAFETY: the name ends with a zero and is copied.
        let make = || unsafe {
            match layout {
                PoolLayout::Any => sys::rte_pktmbuf_pool_create(name, count_c, cache, 0, room, ANY_SOCKET),
                PoolLayout::OnePiece => sys::catnip_pool_in_one_piece(name, count_c, cache, room, ANY_SOCKET),
            }
        };
        Self::made(while_shared(make), count, port, call)
    }

    fn made(
        raw: *mut sys::rte_mempool,
        count: usize,
        port: &str,
        call: &'static str,
    ) -> Result<Self, SetupError> {
        let raw = NonNull::new(raw).ok_or_else(|| {
            let reason = describe(last_number());
            failed(port, call, format!("{count} mbufs: {reason} (dpdk.memory_mib gives DPDK more memory)"))
        })?;
        Ok(Self { raw, count })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }

    /// Takes new mbufs, as many as `into` has room for; none when there are not so many.
    pub(crate) fn take(&self, into: &mut Burst) {
        let (start, wanted) = (into.len(), into.remaining_capacity());
        // SAFETY: there is room for as many pointers, which are all written, or none.
        unsafe {
            let spare = into.as_mut_ptr().add(start);
            if sys::rte_pktmbuf_alloc_bulk(self.as_ptr(), spare, wanted as u32) == 0 {
                into.set_len(start + wanted);
            }
        }
    }

    fn is_whole(&self) -> bool {
        // SAFETY: the pool lives.
        unsafe { sys::rte_mempool_avail_count(self.as_ptr()) as usize == self.count }
    }
}

impl Drop for Pool {
    /// A pool of which mbufs are under way somewhere stays: they come back to it.
    fn drop(&mut self) {
        if self.is_whole() {
            // SAFETY: nobody has an mbuf of it.
            while_shared(|| unsafe { sys::rte_mempool_free(self.as_ptr()) });
        }
    }
}

/// No preference for a NUMA node (`SOCKET_ID_ANY`).
const ANY_SOCKET: i32 = -1;

fn name(port: &str, call: &'static str) -> Result<CString, SetupError> {
    let number = POOLS.fetch_add(1, Ordering::Relaxed);
    CString::new(format!("catnip{number}")).map_err(|_| failed(port, call, "the name has a zero byte"))
}

/// A pool whose mbufs have buffers of the arena: what arrives in one is handed up as it is, and the mbuf gets
/// another.
#[derive(Debug)]
pub(crate) struct BufferPool {
    pool: Pool,
    room_bytes: usize,
}

/// Mbufs of a [`BufferPool`] on their way back, each with the buffer that it is given, if it is given another.
#[derive(Default)]
pub(crate) struct Returns {
    mbufs: Burst,
    buffers: ArrayVec<*mut c_void, BURST>,
}

impl Returns {
    /// Adds an mbuf, which keeps its buffer when the other one is null.
    #[inline]
    fn push(&mut self, pool: &BufferPool, mbuf: Mbuf, buffer: *mut c_void) {
        if self.mbufs.is_full() {
            self.finish(pool);
        }
        self.mbufs.push(mbuf);
        self.buffers.push(buffer);
    }

    /// Gives all back to the pool that they are of.
    #[inline]
    pub(crate) fn finish(&mut self, pool: &BufferPool) {
        let (count, room) = (self.mbufs.len() as u16, (HEADROOM_BYTES + pool.room_bytes) as u16);
        if count > 0 {
            let (mbufs, buffers) = (self.mbufs.as_mut_ptr(), self.buffers.as_ptr());
            // SAFETY: as many mbufs of the pool that are nobody else's, and buffers with the room that all have.
            unsafe { sys::catnip_mbufs_recycle(pool.as_ptr(), mbufs, buffers, room, count) };
            self.mbufs.clear();
            self.buffers.clear();
        }
    }
}

/// What the private part of such an mbuf holds.
type Holding = Cell<Option<RawBuffer>>;

impl BufferPool {
    /// A pool of `count` mbufs with `room_bytes` for data each, out of `arena`.
    pub(crate) fn new(
        port: &str,
        arena: &Arena,
        count: usize,
        room_bytes: usize,
    ) -> Result<Self, SetupError> {
        let call = "rte_pktmbuf_pool_create_extbuf";
        let room = HEADROOM_BYTES + room_bytes;
        let full = || {
            let reason = format!("no memory for {count} receive buffers of {room_bytes} bytes in the region");
            failed(port, call, format!("{reason} (memory.region_mib)"))
        };
        let buffers: Vec<Buffer> = (0..count)
            .map(|_| arena.allocate(room_bytes).map(libos::BufferMut::freeze))
            .collect::<Option<_>>()
            .ok_or_else(full)?;
        let areas: Vec<sys::rte_pktmbuf_extmem> = buffers
            .iter()
            .map(|buffer| {
                let start = buffer.as_ptr().wrapping_sub(HEADROOM_BYTES);
                sys::rte_pktmbuf_extmem {
                    buf_ptr: start.cast_mut().cast(),
                    buf_iova: start as u64,
                    buf_len: room,
                    elt_size: room as u16,
                }
            })
            .collect();
        let name = name(port, call)?;
        // SAFETY: the areas are live memory of the arena that is the pool's from here on; the name and the areas'
        // descriptions are copied.
        let make = || unsafe {
            sys::rte_pktmbuf_pool_create_extbuf(
                name.as_ptr(),
                count as u32,
                CACHE_MBUFS as u32,
                size_of::<Holding>().next_multiple_of(8) as u16,
                room as u16,
                ANY_SOCKET,
                areas.as_ptr(),
                areas.len() as u32,
            )
        };
        let pool = Pool::made(while_shared(make), count, port, call)?;
        let this = Self { pool, room_bytes };
        let mbufs = this.take_all();
        if mbufs.len() != count {
            return Err(failed(port, "rte_mempool_get_bulk", "a new pool is not whole"));
        }
        let mut returns = Returns::default();
        for (mbuf, buffer) in mbufs.into_iter().zip(buffers) {
            // SAFETY: the mbuf was just taken and has no buffer yet.
            unsafe { this.place(mbuf, buffer, &mut returns) };
        }
        returns.finish(&this);
        Ok(this)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }

    /// Every mbuf of the pool that is not under way.
    fn take_all(&self) -> Vec<Mbuf> {
        let pool = self.pool.as_ptr();
        // SAFETY: the pool lives.
        let count = unsafe { sys::rte_mempool_avail_count(pool) } as usize;
        let mut mbufs: Vec<Mbuf> = vec![ptr::null_mut(); count];
        // SAFETY: there is room for as many pointers, which are all written, or none.
        let result = unsafe { sys::rte_mempool_get_bulk(pool, mbufs.as_mut_ptr().cast(), count as u32) };
        if result != 0 {
            mbufs.clear();
        }
        mbufs
    }

    /// What the mbuf holds.
    ///
    /// # Safety
    /// The mbuf is of this pool, and valid.
    unsafe fn holding<'a>(mbuf: Mbuf) -> &'a Holding {
        // SAFETY: the pool's mbufs have room for it behind them, which is zeroed at first: None's address part. It is
        // only ever read by the arena's thread, or before the port starts.
        unsafe { &*mbuf.add(1).cast::<Holding>() }
    }

    /// Lets the mbuf go back to its pool with this buffer.
    ///
    /// # Safety
    /// The mbuf is of this pool and nobody else's, and its buffer was taken out.
    #[inline]
    unsafe fn place(&self, mbuf: Mbuf, buffer: Buffer, returns: &mut Returns) {
        let raw = buffer.into_raw();
        // SAFETY: buffers of an arena have as much in front of their data, and the room behind it.
        unsafe {
            let start = raw.data.as_ptr().sub(HEADROOM_BYTES);
            returns.push(self, mbuf, start.cast());
            Self::holding(mbuf).set(Some(raw));
        }
    }

    /// Takes the `bytes` at `data` that arrived in the mbuf, which goes back to the pool with another buffer. When the
    /// arena has no memory, what arrived is lost, and None returned.
    ///
    /// # Safety
    /// The mbuf is of this pool and nobody else's.
    #[inline]
    pub(crate) unsafe fn exchange(
        &self,
        arena: &Arena,
        mbuf: Mbuf,
        (data, bytes): (*const u8, usize),
        returns: &mut Returns,
    ) -> Option<Buffer> {
        // SAFETY: the caller's promise.
        let holding = unsafe { Self::holding(mbuf) };
        let Some((next, held)) = arena.allocate(self.room_bytes).zip(holding.get()) else {
            returns.push(self, mbuf, ptr::null_mut());
            return None;
        };
        // SAFETY: the mbuf's buffer is taken out, and the device is done with it.
        unsafe {
            self.place(mbuf, next.freeze(), returns);
            Buffer::from_raw_at(held, data, bytes)
        }
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        let mut returns = Returns::default();
        for mbuf in self.take_all() {
            // SAFETY: the mbuf is ours, and goes back without a buffer: the pool is given up.
            drop(unsafe { Self::holding(mbuf).take().map(|raw| Buffer::from_raw(raw)) });
            returns.push(self, mbuf, ptr::null_mut());
        }
        returns.finish(self);
    }
}
