//! Several cores with a stack each on one device, in virtual time on one thread: the device in its worst forms, and what
//! holds all the same. Each flow is served by one core, and no byte is lost or doubled.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod configuration;
mod device;
mod host;
mod neglect;
mod steering;
