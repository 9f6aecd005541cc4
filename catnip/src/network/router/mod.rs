//! Routers that advertise themselves (RFC 4861 section 6), addresses formed from what they say (RFC 4862
//! section 5.5), and redirects (RFC 4861 section 8).

mod default;
mod discovery;
mod identifier;
mod receive;

pub(super) use discovery::RouterDiscovery;
