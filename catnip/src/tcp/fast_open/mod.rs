//! TCP Fast Open (RFC 7413): data on the SYN of a peer that has been here before. Off unless a socket asks for it.
//!
//! A cookie proves that an address can receive: a server makes them (`keys`) and takes data with a SYN that carries
//! one (`server`), a client keeps them (`cache`) and puts what the program pushes first on its SYN (`client`).

mod cache;
mod client;
mod cookie;
mod keys;
mod server;

pub(super) use cache::CookieCache;
pub use cookie::FastOpenCookie;
pub(super) use keys::CookieKeys;
pub(super) use server::{EarlyQueue, Syn};

use client::Active;
use server::Passive;

use super::connection::Connection;
use super::state::State;

/// What Fast Open is about in a connection that does not stand yet. Those that stand have none.
#[derive(Debug)]
pub(super) enum FastOpen {
    /// We opened it.
    Active(Active),
    /// The peer opened it.
    Passive(Passive),
}

impl Connection {
    /// True while the data of the peer's SYN was taken and the handshake is not over.
    pub(super) fn is_early(&self) -> bool {
        matches!(self.fast_open.as_deref(), Some(FastOpen::Passive(passive)) if passive.is_early())
    }

    /// True when data, or with a deferred SYN the SYN, goes before the handshake is over.
    #[cold]
    pub(super) fn sends_early(&self) -> bool {
        match (self.fast_open.as_deref(), self.state) {
            (Some(FastOpen::Active(active)), State::SynSent) => active.is_deferred(),
            (Some(FastOpen::Passive(passive)), State::SynReceived) => passive.is_early(),
            (Some(FastOpen::Active(_) | FastOpen::Passive(_)) | None, _) => false,
        }
    }

    /// True while the program has a connection in its hands whose handshake is not over.
    pub(super) fn is_open_early(&self) -> bool {
        match (self.fast_open.as_deref(), self.state) {
            (Some(FastOpen::Active(active)), State::SynSent) => active.carries_data(),
            (Some(FastOpen::Passive(passive)), State::SynReceived) => passive.is_early(),
            (Some(FastOpen::Active(_) | FastOpen::Passive(_)) | None, _) => false,
        }
    }
}
