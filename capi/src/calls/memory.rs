//! `demi/sga.h`: memory of scatter-gather arrays.

use std::ffi::c_int;

use crate::abi::SgArray;
use crate::arrays::Mark;
use crate::instance::{self, Instance};
use crate::results;

/// `demi_sgaalloc`.
#[unsafe(no_mangle)]
pub extern "C" fn demi_sgaalloc(size: usize) -> SgArray {
    let mut array = SgArray::NULL;
    // The array of zeros is this function's way to say that something went wrong.
    let _ = instance::call(|instance| {
        if size == 0 || u32::try_from(size).is_err() {
            return Err(libc::EINVAL);
        }
        let buffer = allocate(instance, size)?;
        array = results::give(&mut instance.arrays, buffer).map_err(|_| libc::ENOBUFS)?;
        Ok(())
    });
    array
}

/// `demi_sgafree`.
///
/// # Safety
/// `array` is null or can be read and written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn demi_sgafree(array: *mut SgArray) -> c_int {
    if array.is_null() {
        return libc::EINVAL;
    }
    instance::call(|instance| {
        // SAFETY: not null, so the caller vouches for it.
        let owner = unsafe { (&raw const (*array).owner).read_unaligned() };
        instance.arrays.remove(Mark::from_pointer(owner)).map_err(|_| libc::EINVAL)?;
        // SAFETY: as above. A second free of the same structure finds nothing to free.
        unsafe { array.write_unaligned(SgArray::NULL) };
        Ok(())
    })
}

/// A buffer of `size` bytes with any contents.
pub fn allocate(instance: &Instance, size: usize) -> Result<catnip_os::libos::Buffer, c_int> {
    let mut buffer = instance.libos.arena().allocate(size).ok_or(libc::ENOBUFS)?;
    buffer.set_len(size);
    Ok(buffer.freeze())
}
