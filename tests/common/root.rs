//! Tests that need root on the machine, and not only of a user namespace of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::namespace;

/// Runs `body` in a network namespace that root made. Where a user without that right runs the tests it says so, and
/// the test is left out.
pub fn enter<F: FnOnce()>(body: F) {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    if is_root {
        namespace::enter("-n", body);
    } else {
        eprintln!("left out: this needs root on the machine; run the tests as root");
    }
}
