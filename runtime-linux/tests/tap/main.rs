//! The TAP runtime against the kernel's own stack, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod end;
mod errors;
#[path = "../../../tests/common/namespace.rs"]
mod namespace;
mod offload;
mod traffic;
mod wire;
