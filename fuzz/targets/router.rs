//! Fuzz target: see `catnip_fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| catnip_fuzz::parsers::router(bytes));
