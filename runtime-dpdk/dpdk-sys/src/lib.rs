//! Bindings of the DPDK functions that Catnip's runtime uses, generated from the headers of the machine's DPDK. Their
//! documentation is DPDK's.
#![no_std]
#![allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    non_snake_case,
    unused_qualifications,
    unsafe_op_in_unsafe_fn,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    rustdoc::all,
    reason = "generated from C, under its names"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
