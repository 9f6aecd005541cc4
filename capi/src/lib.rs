//! The C API of the Catnip library OS: `libcatnip.so` and `libcatnip.a`.
//!
//! The headers in `include/demi/` are the reference of every function; what is here only checks what a program
//! hands in, translates, and calls the library OS of the thread. A program's mistake ends as an error
//! number: pointers are checked for null and never trusted to be aligned, memory is named by marks
//! and not by addresses (`arrays`), and no panic crosses the border (`instance`).

mod abi;
mod address;
mod arrays;
mod calls;
mod errno;
mod fork;
mod groups;
mod held_blocks;
mod instance;
mod logger;
mod metrics;
mod options;
mod results;
mod source_lists;
mod tcp_info;
