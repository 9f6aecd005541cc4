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
