//! Tells AddressSanitizer which bytes of a region nobody may touch, so that a use after free inside
//! the region is found like one on the heap. Nothing in other builds.
//!
//! Sanitized builds say `--cfg sanitize_address` beside `-Zsanitizer=address`: the compiler's own
//! `cfg(sanitize)` is not stable.

#[cfg(sanitize_address)]
mod hooks {
    use std::ffi::c_void;

    // SAFETY: the signatures of compiler-rt's sanitizer/asan_interface.h.
    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(address: *const c_void, bytes: usize);
        pub(super) fn __asan_unpoison_memory_region(address: *const c_void, bytes: usize);
    }
}

/// From now on, touching these bytes is a fault.
#[inline]
pub(super) fn poison(start: *const u8, bytes: usize) {
    #[cfg(sanitize_address)]
    // SAFETY: the hook only marks shadow memory; the callers own the range.
    unsafe {
        hooks::__asan_poison_memory_region(start.cast(), bytes);
    }
    #[cfg(not(sanitize_address))]
    let _ = (start, bytes);
}

/// These bytes may be touched again.
#[inline]
pub(super) fn unpoison(start: *const u8, bytes: usize) {
    #[cfg(sanitize_address)]
    // SAFETY: as in `poison`.
    unsafe {
        hooks::__asan_unpoison_memory_region(start.cast(), bytes);
    }
    #[cfg(not(sanitize_address))]
    let _ = (start, bytes);
}

#[cfg(all(test, sanitize_address))]
mod tests {
    use std::ffi::{c_int, c_void};

    use crate::memory::{Arena, ArenaConfig};

    // SAFETY: the signature of compiler-rt's sanitizer/asan_interface.h.
    unsafe extern "C" {
        safe fn __asan_address_is_poisoned(address: *const c_void) -> c_int;
    }

    #[test]
    fn the_data_of_freed_buffers_is_poisoned_until_it_is_handed_out_again() {
        let arena = Arena::new(&ArenaConfig { region_bytes: 1 << 20, hugepages: false }).unwrap();
        for capacity in [64, 2048, 100_000] {
            let mut buffer = arena.allocate(capacity).unwrap();
            buffer.set_len(usize::MAX);
            let (first, last) = (buffer.as_ptr(), buffer.last().map(std::ptr::from_ref).unwrap());
            let poisoned = || [first, last].map(|byte| __asan_address_is_poisoned(byte.cast()) != 0);
            assert_eq!(poisoned(), [false; 2]);
            drop(buffer);
            assert_eq!(poisoned(), [true; 2], "{capacity}");
            let again = arena.allocate(capacity).unwrap();
            assert_eq!((again.as_ptr(), poisoned()), (first, [false; 2]));
        }
    }
}
