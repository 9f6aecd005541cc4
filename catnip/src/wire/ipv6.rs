//! IPv6 headers (RFC 8200).

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 40;
