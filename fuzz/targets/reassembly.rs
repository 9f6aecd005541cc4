//! Fuzz target: see `catnip_fuzz`.
#![no_main]

use catnip_fuzz::reassembly::Insert;

libfuzzer_sys::fuzz_target!(|inserts: Vec<Insert>| catnip_fuzz::reassembly::run(&inserts));
