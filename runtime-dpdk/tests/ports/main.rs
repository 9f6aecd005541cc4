//! Ports that are polled by hand: what happens to bursts, buffers and devices. EAL is initialised once in a process: each
//! test runs in one of its own, in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod end;
mod errors;
mod loans;
#[path = "../../../tests/common/namespace.rs"]
mod namespace;
mod offloads;
mod packets;
mod queues;
mod removal;
mod ring;
mod sleeping;
