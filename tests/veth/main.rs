//! The library OS on one end of a veth pair, through packet sockets and through XDP sockets, against the kernel's own
//! sockets on the other end, each test in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod both;
mod cores;
#[path = "../common/datagrams.rs"]
mod datagrams;
#[path = "../tap/echo.rs"]
mod echo;
#[path = "../common/idleness.rs"]
mod idleness;
#[path = "../common/kernel_clients.rs"]
mod kernel_clients;
#[path = "../tap/link.rs"]
#[allow(dead_code, reason = "shared with the tests on TAP, which use all of it")]
mod link;
#[path = "../common/namespace.rs"]
mod namespace;
#[path = "../tap/noise.rs"]
mod noise;
mod packet;
mod pair;
#[path = "../common/root.rs"]
mod root;
#[path = "../common/transfer.rs"]
mod transfer;
mod xdp;
