//! Gives the shared library its soname, `libcatnip.so.` and the major version, which changes with the binary
//! interface; tells it where libraries are that the system does not look for; and puts a link of that name beside it, so
//! that programs linked against the build folder start.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let soname = format!("libcatnip.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,{soname}");
    // What `make dpdk` built lies where the system does not look.
    if let Ok(path) = env::var("DEP_CATNIP_OS_LIBRARY_PATH") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,{path}");
    }

    // OUT_DIR is <profile folder>/build/<package>/out.
    let out = env::var_os("OUT_DIR").unwrap_or_default();
    if let Some(folder) = Path::new(&out).ancestors().nth(3) {
        let link = folder.join(&soname);
        let linked = fs::read_link(&link).is_ok() || symlink("libcatnip.so", &link).is_ok();
        if !linked {
            println!("cargo::warning=no link {}: programs need one to start", link.display());
        }
    }
}
