//! The simulator's tests: whole stacks on simulated links, under faults and invariants.
//!
//! `SEEDS=n` runs so many random configurations, `SEED=s` replays one; see `docs/design/simulator.md`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod app;
mod captures;
mod congestion;
mod coverage;
mod host;
mod pattern;
mod raw;
mod scenario;
mod seeds;
#[path = "../common/tshark.rs"]
mod tshark;
mod wire;
mod world;
