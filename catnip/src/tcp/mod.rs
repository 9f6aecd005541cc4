//! The transmission control protocol (RFC 9293), one concern a file.
//!
//! A segment goes from [`layer`](self) through `input` (acceptability, acknowledgments) to `receiver` (data);
//! what goes out is decided and composed in `sender`; `timers` runs what waits. `state` has the diagram.

mod access;
mod accurate_ecn;
mod buffers;
mod calls;
mod config;
pub mod congestion;
mod connection;
mod connections;
mod cookies;
mod counters;
pub mod demux;
mod duplicates;
mod ecn;
mod emit;
mod express;
mod fast_open;
mod handshake;
mod info;
mod input;
pub mod isn;
mod keepalive;
mod layer;
mod listener;
mod lone;
pub mod options;
mod pacing;
mod path_search;
mod ports;
mod prr;
mod rack;
pub mod reassembly;
pub mod receive_queue;
mod receiver;
mod recovery;
mod reset;
mod retransmission;
pub mod rtt;
mod scoreboard;
pub mod segment;
mod selective;
pub mod send_queue;
mod sender;
pub mod sequence;
mod socket_options;
mod state;
mod tail_probe;
#[cfg(test)]
mod tests;
mod throttle;
mod timers;
pub mod transmissions;
mod user_timeout;
pub mod window;

pub use calls::TcpBinding;
pub use config::{Reuse, TcpConfig, TcpOptions};
pub use connection::{Connection, MIN_SEGMENT_BYTES};
pub use counters::TcpCounters;
pub use ecn::EcnMode;
pub use fast_open::FastOpenCookie;
pub use info::TcpInfo;
pub use keepalive::Keepalive;
pub(crate) use layer::TcpLayer;
pub use state::{State, Transitions, Trigger};
