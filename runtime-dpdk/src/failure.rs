//! Errors in words: the port, the call, and what DPDK says of it.

use std::ffi::{CStr, c_int};

use libos::SetupError;

/// What DPDK says of an error number.
pub(crate) fn describe(number: c_int) -> String {
    // SAFETY: any number may be asked for; the text stays valid until the thread asks again.
    let text = unsafe { dpdk_sys::rte_strerror(number.wrapping_abs()) };
    if text.is_null() {
        return format!("error {number}");
    }
    // SAFETY: not null, and ends with a zero.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// The number of the error that the last call on this thread left in `rte_errno`.
pub(crate) fn last_number() -> c_int {
    // SAFETY: reads a thread-local number.
    unsafe { dpdk_sys::catnip_rte_errno() }
}

/// An error of the port named so, in the given words.
pub(crate) fn failed(port: &str, call: &'static str, reason: impl Into<String>) -> SetupError {
    SetupError::Device { device: port.to_owned(), call, reason: reason.into() }
}

/// Takes the result of a call that returns 0 or more, or an error number below 0.
pub(crate) fn check(port: &str, call: &'static str, result: c_int) -> Result<c_int, SetupError> {
    // Some calls return -1 and leave the number in rte_errno.
    let number = if result == -1 { last_number() } else { result };
    if result >= 0 { Ok(result) } else { Err(failed(port, call, describe(number))) }
}
