//! IPv4 headers (RFC 791).

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;
