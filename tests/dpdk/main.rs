//! The library OS on DPDK's ports that need no hardware, payloads compared end to end. EAL is initialised once in a
//! process: each test runs in one of its own, in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod cores;
mod echo;
mod growing;
mod idle;
mod kernel;
mod lossy;
#[path = "../common/namespace.rs"]
mod namespace;
mod pairs;
mod processes;
#[path = "../common/root.rs"]
mod root;
