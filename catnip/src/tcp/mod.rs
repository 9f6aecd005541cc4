//! The transmission control protocol (RFC 9293), one concern a file.

pub mod options;
pub mod segment;
pub mod sequence;
