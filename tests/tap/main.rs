//! The library OS on a TAP device against the kernel's own sockets, each test in a network namespace of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod addresses;
mod bulk;
mod captures;
mod clients;
mod closing;
mod connections;
mod cores;
mod datagram_sizes;
#[path = "../common/datagrams.rs"]
mod datagrams;
mod dialects;
mod echo;
mod faulty;
mod filters;
mod forwarder;
mod groups;
mod icmp;
mod idle;
#[path = "../common/idleness.rs"]
mod idleness;
#[path = "../common/kernel_clients.rs"]
mod kernel_clients;
mod link;
#[path = "../common/namespace.rs"]
mod namespace;
mod noise;
mod outages;
mod pressure;
mod recorder;
#[path = "../common/root.rs"]
mod root;
mod routes;
mod servers;
mod sources;
mod tagger;
#[path = "../common/transfer.rs"]
mod transfer;
#[path = "../common/tshark.rs"]
mod tshark;
mod zero_window;
