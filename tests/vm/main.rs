//! Emulated PCI NICs in a virtual machine: run by `make test-vm`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod nics;
mod ports;
mod xdp;

#[path = "../dpdk/echo.rs"]
#[allow(dead_code, reason = "shared with the tests on DPDK, which use all of it")]
mod echo;
#[path = "../dpdk/growing.rs"]
mod growing;
#[path = "../tap/echo.rs"]
mod kernel_echo;
#[path = "../tap/link.rs"]
#[allow(dead_code, reason = "shared with the tests on TAP, which use all of it")]
mod link;
#[path = "../common/namespace.rs"]
mod namespace;
#[path = "../tap/noise.rs"]
mod noise;
#[path = "../dpdk/processes.rs"]
mod processes;
#[path = "../common/root.rs"]
mod root;
#[path = "../common/transfer.rs"]
#[allow(dead_code, reason = "shared with the tests on veth, which use all of it")]
mod transfer;
