//! Tells programs where the libraries are that they are linked with, when that is not where the system looks, and
//! whoever links them in their turn.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Ok(path) = env::var("DEP_DPDK_LIBRARY_PATH") {
        println!("cargo::rustc-link-arg-tests=-Wl,-rpath,{path}");
        println!("cargo::metadata=library_path={path}");
    }
}
