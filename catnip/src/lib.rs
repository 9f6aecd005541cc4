//! The Catnip protocol engine.
#![forbid(unsafe_code)]

pub mod tcp;
pub mod timer;
