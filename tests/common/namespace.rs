//! Tests that need a network of their own.
//!
//! A test wraps its body in [`enter`]. The test binary then starts itself again under `unshare`, with
//! only that test, and the body runs there: as root of a user namespace of its own with an empty
//! network, whatever user started it. Everything made there (devices, addresses, sockets) goes away
//! with the process, also when the test fails. Plain `cargo test` and `cargo nextest` both work.
//!
//! ```ignore
//! #[path = "common/namespace.rs"]
//! mod namespace;
//!
//! #[test]
//! fn a_packet_crosses() {
//!     namespace::enter("-Urn", || { /* open devices, send, compare */ });
//! }
//! ```
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot run has failed")]

use std::process::{Command, abort};
use std::time::Duration;
use std::{any, env, thread};

/// Set, to anything, in the process that runs a test's body.
const INSIDE: &str = "CATNIP_TEST_NAMESPACE";
/// Printed by the inner process once it runs: without it, `unshare` itself failed.
const ENTERED: &str = "[test runs in its namespace]";
/// A body that takes longer hangs, and is ended.
const TIMEOUT: Duration = Duration::from_secs(120);
/// So many seconds instead.
const TIMEOUT_S: &str = "CATNIP_TEST_TIMEOUT_S";

/// Runs `body` in new namespaces: `-Urn` for a network to rule over, `-U` for a user without rights.
///
/// To be called from a `#[test]` function directly, with a closure: its type's name tells which test
/// to start again.
///
/// # Panics
/// When the body does, or when the namespaces cannot be made.
pub fn enter<F: FnOnce()>(unshare_flags: &str, body: F) {
    if env::var_os(INSIDE).is_some() {
        println!("{ENTERED}");
        let seconds = env::var(TIMEOUT_S).ok().and_then(|seconds| seconds.parse().ok());
        let timeout = seconds.map_or(TIMEOUT, Duration::from_secs);
        thread::spawn(move || {
            thread::sleep(timeout);
            eprintln!("the test did not end within {timeout:?}");
            abort();
        });
        return body();
    }

    let test = test_name(any::type_name::<F>());
    let program = env::current_exe().expect("the test binary has a path");
    let output = Command::new("unshare")
        .arg(unshare_flags)
        .arg("--")
        .arg(program)
        .args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap_or_else(|error| panic!("this test needs the program `unshare` of util-linux: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains(ENTERED),
        "this test needs `unshare {unshare_flags}`, that is user and network namespaces. Where they are \
         switched off for users, run the tests as root or allow them (`sysctl -w \
         kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0`).\n\
         {}\n{text}{errors}",
        output.status
    );
    assert!(
        output.status.success(),
        "{test} under unshare {unshare_flags}: {}\n{text}{errors}",
        output.status
    );
}

/// The test's name for the test harness: `crate::module::test::{{closure}}` less both ends.
fn test_name(closure: &'static str) -> &'static str {
    closure
        .strip_suffix("::{{closure}}")
        .and_then(|path| path.split_once("::"))
        .map(|(_crate_name, test)| test)
        .expect("namespace::enter() is called with a closure from a test function directly")
}
