//! Says where libraries are that the system does not look for, and in one line what is missing.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_DPDK").is_none() {
        return;
    }
    match env::var("DEP_RUNTIME_DPDK_LIBRARY_PATH") {
        // What `make dpdk` built: programs have to find it when they start, those of other packages too.
        Ok(path) => {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
            println!("cargo::metadata=library_path={path}");
        }
        Err(_) => need_library("dpdk", "libdpdk", "21.11", "DPDK 21.11 or newer", "libdpdk-dev"),
    }
}

/// Ends with one line when neither pkg-config knows the library in that version nor a build of our own is there.
fn need_library(feature: &str, name: &str, version: &str, words: &str, package: &str) {
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    let found = Command::new("pkg-config").args(["--exists", &format!("{name} >= {version}")]).status();
    if !found.is_ok_and(|status| status.success()) && !Path::new("build/dpdk/install").exists() {
        eprintln!(
            "the feature {feature} needs {words}: apt-get install {package} pkg-config (or: make {feature})"
        );
        exit(1);
    }
}
