//! Two library OSes in two processes that share memory, through the facade and a configuration alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod cores;
mod echo;
mod idle;
mod pair;
mod peers;
