//! The transmission control protocol (RFC 9293), one concern a file.

pub mod sequence;
