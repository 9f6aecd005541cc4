//! Registered memory as the Rust program's global allocator.
//!
//! With it, what a `Vec<u8>`, a `String` or `Bytes` holds lies in a region that devices are told about, and is sent
//! without a copy. It is a general allocator (mimalloc, its heap confined to the region), for any thread and any size;
//! the arena of a library OS stays beside it, as buffers need headroom, reference counts without atomics
//! and memory of their own that the program cannot use up.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use libmimalloc_sys as mi;

use super::Region;
use crate::metrics::MetricsSink;

/// Overrides the size given in the program, in MiB; 0 leaves everything to the system's allocator.
const SIZE_VARIABLE: &CStr = c"CATNIP_GLOBAL_REGION_MIB";

/// Size when nobody says one, in MiB.
const DEFAULT_REGION_MIB: usize = 256;
/// Smallest region that mimalloc manages well, in MiB: it cuts regions into pieces of 32 MiB.
const MIN_REGION_MIB: usize = 64;
const MAX_REGION_MIB: usize = 1 << 20;

/// [`GlobalAllocator::phase`]: nobody has allocated yet.
const UNUSED: u8 = 0;
/// One thread sets the region up; all others, and what this one allocates meanwhile, go to the system.
const STARTING: u8 = 1;
/// As good as it gets: with a region, or without one when there is no memory for it.
const STARTED: u8 = 2;

/// Bytes of all regions that global allocators made. A process has one at most, its tests have more.
static REGION_BYTES: AtomicUsize = AtomicUsize::new(0);
static FALLBACK_ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// What the process's [`GlobalAllocator`] has, and what it could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GlobalAllocatorStats {
    /// Size of the region, in bytes; 0 when there is none.
    pub region_bytes: usize,
    /// Allocations that the region had no room for and the system's allocator served. Devices copy what is
    /// in them.
    pub fallback_allocations: u64,
}

impl GlobalAllocatorStats {
    pub(crate) fn write(self, sink: &mut dyn MetricsSink) {
        let Self { region_bytes, fallback_allocations } = self;
        if region_bytes > 0 {
            sink.enter("global_allocator");
            sink.gauge("region_bytes", region_bytes as u64);
            sink.counter("fallback_allocations", fallback_allocations);
            sink.leave();
        }
    }
}

/// Allocates in a region of registered memory, for use as the program's `#[global_allocator]`.
///
/// The region is mapped and registered at the first allocation, and stays until the process ends. When it is full, the system's
/// allocator serves what does not fit, which is counted and works like everything else, but is copied by devices that
/// send from registered memory alone.
///
/// ```
/// #[global_allocator]
/// static MEMORY: libos::memory::GlobalAllocator = libos::memory::GlobalAllocator::new();
///
/// let message = vec![7_u8; 1000];
/// assert!(libos::memory::registry::region_of(&message).is_some());
/// ```
#[derive(Debug)]
pub struct GlobalAllocator {
    region_mib: usize,
    sharing: Sharing,
    phase: AtomicU8,
    base: AtomicUsize,
    len: AtomicUsize,
    heap: AtomicPtr<mi::mi_heap_t>,
}

/// Who can map the region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// This process alone.
    Private,
    /// Processes that are given its file.
    Shared,
}

impl Default for GlobalAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl GlobalAllocator {
    /// With a region of 256 MiB, or what `CATNIP_GLOBAL_REGION_MIB` in the environment says. Pages count once
    /// they are used, unless a device wants all of them pinned.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_region_mib(DEFAULT_REGION_MIB)
    }

    /// With a region of another size in MiB, 64 at least; 0 for none. The environment has the last word.
    #[must_use]
    pub const fn with_region_mib(region_mib: usize) -> Self {
        Self {
            region_mib,
            sharing: Sharing::Private,
            phase: AtomicU8::new(UNUSED),
            base: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            heap: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The same with a region that another process can map, as a device in another process has to: without it, such a device's
    /// runtime copies what is sent from here.
    ///
    /// Not for a program that forks and goes on without `exec`: the child's allocations and the parent's would be in the
    /// same memory.
    #[must_use]
    pub const fn shared(mut self) -> Self {
        self.sharing = Sharing::Shared;
        self
    }

    /// What the process has of this kind. In the metrics of each library OS as `global_allocator.*`, when there is one.
    #[must_use]
    pub fn stats() -> GlobalAllocatorStats {
        GlobalAllocatorStats {
            region_bytes: REGION_BYTES.load(Ordering::Relaxed),
            fallback_allocations: FALLBACK_ALLOCATIONS.load(Ordering::Relaxed),
        }
    }

    /// True when `address` is in the region. Who has an address that was allocated there sees the region.
    #[inline]
    fn contains(&self, address: *const u8) -> bool {
        let offset = (address as usize).wrapping_sub(self.base.load(Ordering::Relaxed));
        offset < self.len.load(Ordering::Relaxed)
    }

    /// Memory in the region from `allocate`, else null.
    #[inline]
    fn in_region(&self, allocate: impl FnOnce(*mut mi::mi_heap_t) -> *mut u8) -> *mut u8 {
        let mut heap = self.heap.load(Ordering::Acquire);
        if heap.is_null() {
            heap = self.start();
            if heap.is_null() {
                return ptr::null_mut();
            }
        }
        let memory = allocate(heap);
        if self.contains(memory) { memory } else { self.refuse(memory) }
    }

    /// Gives back what the heap has from elsewhere, if anything: [`Self::dealloc`] goes by the address.
    #[cold]
    fn refuse(&self, memory: *mut u8) -> *mut u8 {
        // SAFETY: null, or just allocated by mimalloc.
        unsafe { mi::mi_free(memory.cast()) };
        FALLBACK_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        ptr::null_mut()
    }

    /// Makes the region, unless that was tried before; null without one.
    #[cold]
    #[inline(never)]
    fn start(&self) -> *mut mi::mi_heap_t {
        let started = self.phase.compare_exchange(UNUSED, STARTING, Ordering::Acquire, Ordering::Relaxed);
        if started.is_err() {
            return ptr::null_mut();
        }
        let heap = self.make_heap().unwrap_or(ptr::null_mut());
        self.heap.store(heap, Ordering::Release);
        self.phase.store(STARTED, Ordering::Relaxed);
        heap
    }

    fn make_heap(&self) -> Option<*mut mi::mi_heap_t> {
        let region_mib = size_in_environment().unwrap_or(self.region_mib);
        if region_mib == 0 {
            return None;
        }
        let bytes = region_mib.clamp(MIN_REGION_MIB, MAX_REGION_MIB) << 20;
        let region = match self.sharing {
            Sharing::Private => Region::map(bytes, false),
            Sharing::Shared => Region::map_shared(bytes),
        };
        let region = region.ok()?;
        let mut arena: mi::mi_arena_id_t = ptr::null_mut();
        // Committed and pinned: devices know the pages, so mimalloc must not give any of them back to the kernel.
        // Exclusive: the process's other heaps stay out.
        let (base, len) = (region.base().as_ptr(), region.len());
        // SAFETY: the region is a zeroed mapping of ours, aligned as mimalloc wants it.
        if !unsafe {
            mi::mi_manage_os_memory_ex(base.cast(), len, true, true, true, -1, true, &raw mut arena)
        } {
            return None;
        }
        // Mimalloc never lets go of it, so it stays mapped and registered.
        std::mem::forget(region);
        self.base.store(base as usize, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        REGION_BYTES.fetch_add(len, Ordering::Relaxed);
        // SAFETY: the arena exists from here on.
        Some(unsafe { mi::mi_heap_new_in_arena(arena) })
    }

    #[cold]
    #[inline(never)]
    unsafe fn move_to(&self, memory: *mut u8, from: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promises of `realloc`: the layout fits the memory, and the new size is not 0 and does not
        // overflow when rounded up to the alignment.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, from.align()));
            if !moved.is_null() {
                ptr::copy_nonoverlapping(memory, moved, from.size().min(new_size));
                self.dealloc(memory, from);
            }
            moved
        }
    }
}

/// The size that the environment says, read without allocating.
fn size_in_environment() -> Option<usize> {
    // SAFETY: the name is a C string. The first allocation of a Rust program comes before `main`, and so
    // before anybody could change the environment meanwhile.
    let value = unsafe { libc::getenv(SIZE_VARIABLE.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: `getenv` gives a C string.
    unsafe { CStr::from_ptr(value) }.to_str().ok()?.parse().ok()
}

// SAFETY: memory comes from mimalloc or the system's allocator, with the layout that was asked for, and goes back to the
// one it came from: all that came from mimalloc is in the region, and nothing else is. The set-up recurses into the system's
// allocator at most. Nothing here unwinds.
unsafe impl GlobalAlloc for GlobalAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = self.in_region(|heap| {
            // SAFETY: the heap lives as long as the process, and any thread may allocate from it.
            unsafe { mi::mi_heap_malloc_aligned(heap, layout.size(), layout.align()) }.cast()
        });
        if !memory.is_null() {
            return memory;
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let memory = self.in_region(|heap| {
            // SAFETY: as in `alloc`.
            unsafe { mi::mi_heap_zalloc_aligned(heap, layout.size(), layout.align()) }.cast()
        });
        if !memory.is_null() {
            return memory;
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, and the address says who allocated it.
        unsafe {
            if self.contains(memory) { mi::mi_free(memory.cast()) } else { System.dealloc(memory, layout) }
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !self.contains(memory) {
            // SAFETY: the caller's promise; it came from there.
            return unsafe { System.realloc(memory, layout, new_size) };
        }
        // SAFETY: allocated by mimalloc and in use.
        let usable = unsafe { mi::mi_usable_size(memory.cast()) };
        // In place, unless that would keep more than half of the memory idle.
        if (usable / 2..=usable).contains(&new_size) {
            return memory;
        }
        // SAFETY: the caller's promise.
        unsafe { self.move_to(memory, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// The region is never given back, so all tests share one. Who comes while another thread sets it up is served
    /// by the system, so they wait.
    fn allocator() -> &'static GlobalAllocator {
        static ALLOCATOR: GlobalAllocator = GlobalAllocator::with_region_mib(128);
        static START: std::sync::Once = std::sync::Once::new();
        START.call_once(|| assert!(!ALLOCATOR.start().is_null()));
        &ALLOCATOR
    }

    #[test]
    fn sizes_and_alignments_are_in_the_region() {
        let allocator = allocator();
        for size in [1, 8, 100, 1460, 2048, 9000, 65_536, 1 << 20, 20 << 20] {
            for align in [1, 8, 64, 4096, 65_536] {
                let layout = layout(size, align);
                // SAFETY: sizes above 0; each block is written within its size and given back once.
                unsafe {
                    let zeroed = allocator.alloc_zeroed(layout);
                    assert!(allocator.contains(zeroed), "{layout:?}");
                    assert_eq!(zeroed as usize % align, 0);
                    assert_eq!((zeroed.read(), zeroed.add(size - 1).read()), (0, 0));
                    ptr::write_bytes(zeroed, 0xa5, size);
                    allocator.dealloc(zeroed, layout);
                }
            }
        }
    }

    #[test]
    fn blocks_that_grow_and_shrink_keep_their_bytes() {
        let allocator = allocator();
        let mut size = 16;
        // SAFETY: the layout always says what was last asked for.
        unsafe {
            let mut block = allocator.alloc(layout(size, 16));
            block.cast::<u64>().write(0x0123_4567_89ab_cdef);
            for next in [17, 40, 39, 5_000, 4_999, 70_000, 3_000_000, 100, 12, 300 << 20, 8] {
                block = allocator.realloc(block, layout(size, 16), next);
                size = next;
                assert_eq!(block.cast::<u64>().read(), 0x0123_4567_89ab_cdef, "{next}");
                assert_eq!(block as usize % 16, 0);
            }
            allocator.dealloc(block, layout(size, 16));
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system_and_is_counted() {
        let allocator = allocator();
        let before = GlobalAllocator::stats().fallback_allocations;
        let larger = layout(200 << 20, 8);
        // SAFETY: given back with the same layout.
        unsafe {
            let block = allocator.alloc(larger);
            assert!(!block.is_null() && !allocator.contains(block));
            allocator.dealloc(block, larger);
            assert!(GlobalAllocator::stats().fallback_allocations > before);
            let block = allocator.alloc(layout(100, 8));
            assert!(allocator.contains(block), "what fits still comes from the region");
            allocator.dealloc(block, layout(100, 8));
        }
    }

    #[test]
    fn threads_free_what_others_allocated_and_leave_nothing_behind() {
        let allocator = allocator();
        let fill = |mark: u8| {
            let blocks = (1..4_000_usize).map(|index| {
                let layout = layout(index * 37 % 3_000 + 1, 8);
                // SAFETY: written within its size; freed below.
                let block = unsafe {
                    let block = allocator.alloc(layout);
                    ptr::write_bytes(block, mark, layout.size());
                    block as usize
                };
                (block, layout, mark)
            });
            blocks.collect::<Vec<_>>()
        };
        for round in 0..20_u8 {
            let threads: Vec<_> =
                (0..4).map(|index| thread::spawn(move || fill(round * 4 + index))).collect();
            for (block, layout, mark) in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                let block = ptr::with_exposed_provenance_mut::<u8>(block);
                // SAFETY: allocated by a thread that has ended, and freed once.
                unsafe {
                    let bytes = std::slice::from_raw_parts(block, layout.size());
                    assert!(bytes.iter().all(|&byte| byte == mark), "nobody else had these bytes");
                    assert!(allocator.contains(block), "round {round}: the region never fills up");
                    allocator.dealloc(block, layout);
                }
            }
        }
    }

    #[test]
    fn without_a_region_everything_comes_from_the_system() {
        static NONE: GlobalAllocator = GlobalAllocator::with_region_mib(0);
        // SAFETY: given back with the same layout.
        unsafe {
            let block = NONE.alloc(layout(100, 8));
            assert!(!block.is_null() && !NONE.contains(block));
            let block = NONE.realloc(block, layout(100, 8), 10_000);
            NONE.dealloc(block, layout(10_000, 8));
        }
    }
}
