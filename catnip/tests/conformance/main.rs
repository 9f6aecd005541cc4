//! The stack as a stranger's conformance suite sees it: the public `Stack`, packets made and read byte by byte here, and a
//! clock of microseconds. What the RFCs say is written down a second time, without a look at how the stack does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod errors;
mod headers;
mod host;
mod link;
mod model;
mod options;
mod states;
mod timers;
mod wire;
