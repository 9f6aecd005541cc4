//! Fuzz target: see `catnip_fuzz`.
#![no_main]

use catnip_fuzz::ingress::Input;

libfuzzer_sys::fuzz_target!(|input: Input| {
    catnip_fuzz::ingress::run(input);
});
