//! Tells the program where libraries are that the system does not look for.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // What `make dpdk` built.
    if let Ok(path) = env::var("DEP_CATNIP_OS_LIBRARY_PATH") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{path}");
    }
}
