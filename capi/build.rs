//! Gives the shared library its soname: `libcatnip.so.` and the major version, which changes with the
//! binary interface.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let major = env!("CARGO_PKG_VERSION_MAJOR");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcatnip.so.{major}");
}
