//! Our own addresses from the first probe to their end: duplicate address detection (RFC 4862 section 5.4),
//! IPv4 address conflict detection (RFC 5227), and lifetimes.

mod entry;
mod table;

pub use entry::{AddressOrigin, AddressState, AddressStatus, ConflictDetection};
pub(super) use entry::{Lifetime, Start};
pub(super) use table::{AddressTable, Reaction, Step, announcements};
