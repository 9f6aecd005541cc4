//! The Catnip protocol engine.
#![forbid(unsafe_code)]
