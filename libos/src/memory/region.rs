//! The memory an arena hands out: one contiguous, initialised range that stays where it is until the
//! last buffer in it is gone.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use super::registry::Registration;
use crate::SetupError;

/// Mapped regions begin at a multiple of this, where the kernel allows it: what allocators that
/// find their bookkeeping by masking an address ask for.
const REGION_ALIGN_BYTES: usize = 64 << 20;

/// Normal pages are this large at most, on any processor.
const PAGE_BYTES: usize = 64 << 10;

/// Size of the hugepages that are asked for: the default of x86-64 and of arm64 with 4 KiB pages.
const HUGEPAGE_BYTES: usize = 2 << 20;

enum Backing {
    /// A mapping of our own.
    #[cfg(not(miri))]
    Mapped,
    /// A mapping of an anonymous file, which other processes may map too.
    Shared(OwnedFd),
    /// The global allocator: Miri knows no mappings.
    #[cfg(miri)]
    Heap(std::alloc::Layout),
    /// Memory of a device runtime, and how to give it back.
    Foreign(Option<Box<dyn FnOnce() + Send>>),
}

/// A contiguous range of initialised memory, given back when dropped. Until then it stands in the process's table of
/// registered regions ([`super::registry`]), where device runtimes find it.
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    hugepages: bool,
    backing: Backing,
    /// None once the memory is being given back.
    registration: Option<Registration>,
}

// SAFETY: the region is a range of addresses that this object alone gives back, which any thread
// may do: `munmap` takes calls from anywhere and a foreign release hook is `Send`.
unsafe impl Send for Region {}

impl Region {
    /// Maps `bytes` of zeroed memory, rounded up to whole pages. With `hugepages`, reserved hugepages
    /// are tried first; without any, normal pages are used and transparent hugepages asked for.
    /// Normal pages cost nothing until they are written to.
    ///
    /// # Errors
    /// [`SetupError::Memory`] when the address space or the memory cannot be had.
    pub fn map(bytes: usize, hugepages: bool) -> Result<Self, SetupError> {
        let page_bytes = if hugepages { HUGEPAGE_BYTES } else { PAGE_BYTES };
        let refuse = |reason: String| SetupError::Memory { bytes, reason };
        mapping::map(page_multiple(bytes, page_bytes).map_err(refuse)?, hugepages).map_err(refuse)
    }

    /// Maps `bytes` of zeroed memory, rounded up to whole pages, that can be shared with other processes: it
    /// is an anonymous file, which [`Self::shared_fd`] lends. The file can be made neither shorter nor longer, so
    /// that who maps it need not fear that its pages go away. Pages cost nothing until they are written to. Never
    /// on reserved hugepages: their owner could give them back under the other process.
    ///
    /// # Errors
    /// [`SetupError::Memory`] when the address space or the memory cannot be had.
    pub fn map_shared(bytes: usize) -> Result<Self, SetupError> {
        let refuse = |reason: String| SetupError::Memory { bytes, reason };
        mapping::map_shared(page_multiple(bytes, PAGE_BYTES).map_err(refuse)?).map_err(refuse)
    }

    /// A region in memory that somebody else mapped, such as a device runtime that can only send from
    /// memory of its own. `release` is called once, on any thread, when nothing uses it any more.
    ///
    /// # Safety
    /// The `len` bytes from `base` on are initialised, may be read and written, stay valid until
    /// `release` is called, and nobody else touches them meanwhile other than through buffers.
    pub unsafe fn from_foreign(
        base: NonNull<u8>,
        len: usize,
        release: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::new(base, len, false, Backing::Foreign(Some(Box::new(release))))
    }

    fn new(base: NonNull<u8>, len: usize, hugepages: bool, backing: Backing) -> Self {
        let fd = if let Backing::Shared(file) = &backing { Some(file.as_raw_fd()) } else { None };
        let registration = Some(Registration::new(base, len, fd));
        Self { base, len, hugepages, backing, registration }
    }

    /// The first byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there is nothing to hand out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True when reserved hugepages back the region.
    #[must_use]
    pub fn is_on_hugepages(&self) -> bool {
        self.hugepages
    }

    /// The anonymous file that the region is a mapping of, from its first byte on, when other processes may map it.
    #[must_use]
    pub fn shared_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.backing {
            Backing::Shared(file) => Some(file.as_fd()),
            _ => None,
        }
    }

    /// True when `address` is in the region.
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        (address as usize).wrapping_sub(self.base.as_ptr() as usize) < self.len
    }
}

/// `bytes` rounded up to whole pages.
fn page_multiple(bytes: usize, page_bytes: usize) -> Result<usize, String> {
    let len = bytes.max(1).checked_next_multiple_of(page_bytes);
    len.filter(|&len| len <= isize::MAX as usize - REGION_ALIGN_BYTES)
        .ok_or_else(|| "larger than the address space".into())
}

impl Drop for Region {
    fn drop(&mut self) {
        // Before the memory: whoever is given the same addresses next must not be taken for this region.
        drop(self.registration.take());
        match &mut self.backing {
            #[cfg(not(miri))]
            Backing::Mapped | Backing::Shared(_) => mapping::unmap(self.base, self.len),
            #[cfg(miri)]
            Backing::Shared(_) => {}
            #[cfg(miri)]
            // SAFETY: `mapping::map` allocated it with this layout.
            Backing::Heap(layout) => unsafe { std::alloc::dealloc(self.base.as_ptr(), *layout) },
            Backing::Foreign(release) => {
                if let Some(release) = release.take() {
                    release();
                }
            }
        }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("base", &self.base)
            .field("len", &self.len)
            .field("hugepages", &self.hugepages)
            .finish_non_exhaustive()
    }
}

#[cfg(miri)]
mod mapping {
    use super::{Backing, Region};
    use std::alloc::{Layout, alloc_zeroed};
    use std::ptr::NonNull;

    pub(super) fn map(len: usize, _hugepages: bool) -> Result<Region, String> {
        let layout = Layout::from_size_align(len, 4096).map_err(|error| error.to_string())?;
        // SAFETY: the caller rounds `len` up to at least one page.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or("out of memory")?;
        Ok(Region::new(base, len, false, Backing::Heap(layout)))
    }
}

#[cfg(not(miri))]
mod mapping {
    use super::{Backing, REGION_ALIGN_BYTES, Region};
    use std::fs::File;
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::ptr::{self, NonNull};

    /// Maps `len` bytes, a multiple of the page size, at an aligned address.
    ///
    /// Nothing here uses `MAP_FIXED`: the kernel clears the range before it finds out that it has too few
    /// hugepages, and what another thread maps into that hole meanwhile would be overwritten by a second try.
    pub(super) fn map(len: usize, hugepages: bool) -> Result<Region, String> {
        if hugepages && let Some(base) = map_hugepages(len) {
            return Ok(Region::new(base, len, true, Backing::Mapped));
        }
        let base = reserve_aligned(len)?;
        // SAFETY: the range is a reservation of ours that nobody uses yet.
        if unsafe { libc::mprotect(base.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
            let error = io::Error::last_os_error();
            unmap(base, len);
            return Err(format!("{error}; a smaller region needs less (memory.region_mib)"));
        }
        if hugepages {
            // SAFETY: the range is ours. Advice that is refused costs speed alone, so the result
            // does not matter.
            unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Ok(Region::new(base, len, false, Backing::Mapped))
    }

    /// Another thread may take the aligned address between its discovery and its use: so often it is tried again.
    const SHARED_TRIES: usize = 16;

    /// Maps `len` bytes, a multiple of the page size, of a new anonymous file at an aligned address.
    pub(super) fn map_shared(len: usize) -> Result<Region, String> {
        let file = sealed_file(len).map_err(|error| format!("memfd_create: {error}"))?;
        for _ in 0..SHARED_TRIES {
            let base = reserve_aligned(len)?;
            unmap(base, len);
            // SAFETY: `MAP_FIXED_NOREPLACE` maps over nothing that exists.
            let mapped = unsafe {
                libc::mmap(
                    base.as_ptr().cast(),
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE,
                    file.as_raw_fd(),
                    0,
                )
            };
            if mapped == libc::MAP_FAILED {
                let error = io::Error::last_os_error();
                if error.raw_os_error() == Some(libc::EEXIST) {
                    continue;
                }
                return Err(format!("{error}; a smaller region needs less (memory.region_mib)"));
            }
            let Some(mapped) = NonNull::new(mapped.cast::<u8>()) else { continue };
            // Kernels before 4.17 take the address for a wish.
            if mapped != base {
                unmap(mapped, len);
                continue;
            }
            // SAFETY: the range is ours. Advice that is refused costs speed alone.
            unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
            return Ok(Region::new(base, len, false, Backing::Shared(file.into())));
        }
        Err("other threads keep taking the address space".into())
    }

    /// An anonymous file of `len` zeros whose length is sealed.
    fn sealed_file(len: usize) -> io::Result<File> {
        // SAFETY: the name is a C string; nothing else is passed by address.
        let fd =
            unsafe { libc::memfd_create(c"catnip".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just opened, and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len as u64)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: takes no pointers.
        if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }

    /// Maps reserved hugepages at an aligned address. None when there are too few of them, or when another
    /// thread took the address between its discovery and its use. Without `MAP_NORESERVE`: the kernel then refuses
    /// here what it would otherwise end with a signal at the first touch.
    fn map_hugepages(len: usize) -> Option<NonNull<u8>> {
        let base = reserve_aligned(len).ok()?;
        unmap(base, len);
        // SAFETY: `MAP_FIXED_NOREPLACE` maps over nothing that exists.
        let mapped = unsafe {
            libc::mmap(
                base.as_ptr().cast(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_HUGETLB,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        let mapped = NonNull::new(mapped.cast::<u8>())?;
        // Kernels before 4.17 take the address for a wish.
        if mapped != base {
            unmap(mapped, len);
            return None;
        }
        Some(base)
    }

    /// Reserves `len` bytes of address space, without memory behind them.
    fn reserve_aligned(len: usize) -> Result<NonNull<u8>, String> {
        let spare = REGION_ALIGN_BYTES;
        // SAFETY: a new anonymous mapping wherever the kernel likes touches nothing that exists.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len + spare,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(format!("no address space: {}", io::Error::last_os_error()));
        }
        let start = start.cast::<u8>();
        let before = start.align_offset(REGION_ALIGN_BYTES);
        // SAFETY: `before` is less than `spare`, so the results are within the reservation, which is ours.
        let (base, end) = unsafe { (start.add(before), start.add(before + len)) };
        for (unneeded, bytes) in [(start, before), (end, spare - before)] {
            if bytes > 0 {
                // SAFETY: an outer part of the reservation that nobody uses.
                unsafe { libc::munmap(unneeded.cast(), bytes) };
            }
        }
        NonNull::new(base).ok_or_else(|| "no address space".into())
    }

    pub(super) fn unmap(base: NonNull<u8>, len: usize) {
        // SAFETY: the range is a mapping of ours that nothing points into any more.
        unsafe { libc::munmap(base.as_ptr().cast(), len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_mapped_region_is_zeroed_writable_and_whole_pages() {
        for hugepages in [false, true] {
            let region = Region::map(100_000, hugepages).unwrap();
            assert!(region.len() >= 100_000);
            assert_eq!(region.len() % 4096, 0);
            let last = region.len() - 1;
            // SAFETY: within the region, which nobody else uses.
            unsafe {
                assert_eq!(region.base().read(), 0);
                assert_eq!(region.base().add(last).read(), 0);
                region.base().add(last).write(7);
                assert_eq!(region.base().add(last).read(), 7);
            }
        }
    }

    #[test]
    fn a_shared_region_is_what_others_see_in_its_file_which_keeps_its_length() {
        use std::os::unix::fs::FileExt;
        let region = Region::map_shared(100_000).unwrap();
        assert_eq!(region.base().as_ptr() as usize % REGION_ALIGN_BYTES, 0);
        let file = std::fs::File::from(region.shared_fd().unwrap().try_clone_to_owned().unwrap());
        assert_eq!(file.metadata().unwrap().len(), region.len() as u64);
        // SAFETY: within the region, which nobody else uses.
        unsafe { region.base().add(70_000).write(7) };
        let mut seen = [0];
        file.read_exact_at(&mut seen, 70_000).unwrap();
        assert_eq!(seen, [7]);
        // SAFETY: within the region.
        let byte = unsafe { std::slice::from_raw_parts(region.base().as_ptr(), 1) };
        let registered = crate::memory::registry::region_of(byte).unwrap();
        assert_eq!(registered.fd, region.shared_fd().map(|fd| fd.as_raw_fd()));
        for len in [0, region.len() as u64 - 1, region.len() as u64 + 1] {
            file.set_len(len).unwrap_err();
        }
        assert!(Region::map(4096, false).unwrap().shared_fd().is_none());
    }

    /// Asking for hugepages that are not there must not open a hole for other threads' mappings to fall into.
    #[test]
    fn mapping_a_region_leaves_other_threads_mappings_alone() {
        let done = Arc::new(AtomicUsize::new(0));
        let regions = {
            let done = done.clone();
            std::thread::spawn(move || {
                for _ in 0..2_000 {
                    drop(Region::map(64 << 20, true).unwrap());
                }
                done.store(1, Ordering::Release);
            })
        };
        let mut bystanders = std::collections::VecDeque::new();
        while done.load(Ordering::Acquire) == 0 {
            let bystander = Region::map(4096, false).unwrap();
            // SAFETY: the region is this thread's alone.
            unsafe { bystander.base().write(0x5a) };
            bystanders.push_back(bystander);
            if bystanders.len() > 64 {
                let oldest = bystanders.pop_front().unwrap();
                // SAFETY: as above.
                assert_eq!(unsafe { oldest.base().read_volatile() }, 0x5a);
            }
        }
        regions.join().unwrap();
    }

    #[test]
    fn a_region_knows_its_addresses() {
        let region = Region::map(4096, false).unwrap();
        let base = region.base().as_ptr();
        assert!(region.contains(base));
        assert!(region.contains(base.wrapping_add(region.len() - 1)));
        assert!(!region.contains(base.wrapping_add(region.len())));
        assert!(!region.contains(base.wrapping_sub(1)));
        assert!(!region.contains(std::ptr::null()));
    }

    #[test]
    fn more_than_the_address_space_is_refused_with_a_reason() {
        for bytes in [usize::MAX, isize::MAX as usize, 1 << 60] {
            let error = Region::map(bytes, false).unwrap_err();
            assert!(error.to_string().starts_with(&format!("mapping {bytes} bytes: ")), "{error}");
        }
    }

    #[test]
    fn foreign_memory_is_released_once() {
        let released = Arc::new(AtomicUsize::new(0));
        let memory = Box::leak(vec![0_u8; 4096].into_boxed_slice());
        let base = NonNull::from(&mut *memory).cast::<u8>();
        let counter = released.clone();
        let address = base.as_ptr() as usize;
        // SAFETY: the memory lives until the hook runs and nobody else uses it.
        let region = unsafe {
            Region::from_foreign(base, 4096, move || {
                counter.fetch_add(1, Ordering::Relaxed);
                let start = std::ptr::with_exposed_provenance_mut::<u8>(address);
                drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, 4096)));
            })
        };
        base.as_ptr().expose_provenance();
        assert_eq!(released.load(Ordering::Relaxed), 0);
        drop(region);
        assert_eq!(released.load(Ordering::Relaxed), 1);
    }
}
