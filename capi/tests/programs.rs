//! The C API as C and C++ programs see it, without a device: the layout of the structures, the error number
//! of every mistake, in-memory queues, threads, sockets over loopback. Each program runs as it is, with sanitizers and under valgrind.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;

use std::fs;
use std::process::Command;

use common::{Check, assert_success, compiler, crate_folder, library_folder, run, run_test_program};

/// No device: in-memory queues only.
const NO_DEVICE: [(&str, &str); 1] = [("CATNIP_RUNTIME__KIND", "none")];

fn run_checked(name: &str) {
    for check in [Check::Plain, Check::Sanitizers, Check::Valgrind] {
        run_test_program(name, &[], check, &NO_DEVICE);
    }
}

#[test]
fn structures_have_the_sizes_and_places_of_the_interface() {
    run_test_program("c/layout.c", &[], Check::Plain, &NO_DEVICE);
}

#[test]
fn every_mistake_of_a_program_gets_its_error_number() {
    run_checked("c/errors.c");
}

#[test]
fn a_program_whose_standard_error_takes_nothing_goes_on() {
    for check in [Check::Plain, Check::Static] {
        run_test_program("c/unheard.c", &[], check, &[]);
    }
}

#[test]
fn in_memory_queues_carry_bytes_and_memory_in_order() {
    run_checked("c/queues.c");
}

#[test]
fn threads_share_nothing_and_calls_from_inside_a_call_are_refused() {
    run_checked("c/threads.c");
}

#[test]
fn a_forked_child_leaves_the_library_os_to_its_parent() {
    for check in [Check::Plain, Check::Sanitizers, Check::Valgrind] {
        run_test_program("c/fork.c", &[], check, &[]);
    }
}

/// Two cores, each with a stack that reaches itself alone.
const TWO_CORES: [(&str, &str); 2] = [("CATNIP_CORES__COUNT", "2"), ("CATNIP_CORES__PIN", "false")];

#[test]
fn threads_take_a_core_each_of_what_the_process_opened_once() {
    for check in [Check::Plain, Check::Sanitizers, Check::Valgrind] {
        run_test_program("c/cores.c", &[], check, &TWO_CORES);
    }
}

#[test]
fn the_cpp_types_own_what_they_hold() {
    run_checked("cpp/types.cpp");
}

/// With no configuration at all: the sockets of one thread over loopback addresses.
#[test]
fn sockets_carry_streams_and_datagrams_and_have_options_over_both_ip_versions() {
    for (check, address) in [
        (Check::Plain, "127.0.0.1"),
        (Check::Plain, "::1"),
        (Check::Sanitizers, "127.0.0.1"),
        (Check::Sanitizers, "::1"),
        (Check::Valgrind, "127.0.0.1"),
    ] {
        run_test_program("c/sockets.c", &[address], check, &[]);
        run_test_program("c/socket_options.c", &[address], check, &[]);
    }
}

/// Connections may end in TIME-WAIT, which a minute would be too long to wait for.
const SHORT_TIME_WAIT: [(&str, &str); 1] = [("CATNIP_TCP__TIME_WAIT_MS", "10")];

#[test]
fn no_sequence_of_calls_breaks_the_library_or_loses_memory() {
    for (seed, calls, threads, check) in [
        ("1", "200000", "1", Check::Plain),
        ("2", "200000", "1", Check::Plain),
        ("3", "100000", "3", Check::Plain),
        ("4", "50000", "2", Check::Sanitizers),
        ("5", "8000", "2", Check::Valgrind),
    ] {
        run_test_program("c/random_calls.c", &[seed, calls, threads], check, &SHORT_TIME_WAIT);
    }
}

#[test]
fn the_static_library_links_and_works() {
    run_test_program("c/queues.c", &[], Check::Static, &NO_DEVICE);
}

/// Each header compiles first in a file, by itself and twice, with all warnings.
#[test]
fn every_header_stands_on_its_own() {
    const C: [(&str, &str); 2] = [("c", "c99"), ("c", "c11")];
    const CPP: [(&str, &str); 2] = [("cpp", "c++17"), ("cpp", "c++20")];
    let headers = crate_folder().join("include/demi");
    let mut seen = 0;
    for entry in fs::read_dir(headers).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let languages = if name.ends_with(".hpp") { CPP.to_vec() } else { [C, CPP].concat() };
        for (language, standard) in languages {
            let source = common::scratch_folder("headers").join(format!("{name}.{language}"));
            fs::write(&source, format!("#include <demi/{name}>\n#include <demi/{name}>\nint used;\n"))
                .unwrap();
            let mut command = compiler(&source);
            command.arg(format!("-std={standard}")).arg("-fsyntax-only").arg(&source);
            assert_success(&format!("{name} as {standard}"), &run(command));
        }
        seen += 1;
    }
    assert_eq!(seen, 7, "a header was added or removed: types, cc, libos, sga, wait, ext, catnip.hpp");
}

/// The shared library says its soname, and shows the functions of the headers and nothing else.
#[test]
fn the_shared_library_exports_the_functions_of_the_headers() {
    let library = library_folder().join("libcatnip.so");
    let mut dynamic = Command::new("readelf");
    dynamic.arg("-dW").arg(&library);
    let dynamic = run(dynamic);
    assert_success("readelf", &dynamic);
    let soname = format!("[libcatnip.so.{}]", env!("CARGO_PKG_VERSION_MAJOR"));
    assert!(String::from_utf8_lossy(&dynamic.stdout).contains(&soname));

    let mut symbols = Command::new("nm");
    symbols.args(["--dynamic", "--defined-only", "--format=just-symbols"]).arg(&library);
    let symbols = run(symbols);
    assert_success("nm", &symbols);
    let mut exported: Vec<String> =
        String::from_utf8_lossy(&symbols.stdout).lines().map(str::to_owned).collect();
    exported.sort();

    let mut declared = Vec::new();
    for header in ["libos.h", "sga.h", "wait.h", "ext.h"] {
        let text = fs::read_to_string(crate_folder().join("include/demi").join(header)).unwrap();
        for line in text.lines().filter(|line| line.contains("extern ") && line.contains("demi_")) {
            let name = line.split('(').next().and_then(|head| head.rsplit([' ', '*']).next()).unwrap();
            declared.push(name.to_owned());
        }
    }
    declared.sort();
    assert_eq!(exported, declared);
}
