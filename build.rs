//! Checks that the system libraries an enabled feature needs are there.

use std::env;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_DPDK").is_some() {
        need_library("dpdk", "libdpdk", "21.11", "DPDK 21.11 or newer", "libdpdk-dev");
    }
}

/// Ends with one line when pkg-config does not know the library in that version.
fn need_library(feature: &str, name: &str, version: &str, words: &str, package: &str) {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    let found = Command::new("pkg-config").args(["--exists", &format!("{name} >= {version}")]).status();
    if !found.is_ok_and(|status| status.success()) {
        eprintln!("the feature {feature} needs {words}: apt-get install {package} pkg-config");
        exit(1);
    }
}
