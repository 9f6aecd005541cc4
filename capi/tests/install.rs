//! `make install` and what it installs: the examples are copied out of the repository and built with pkg-config and
//! with CMake against the installed library, as a user would.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{assert_success, crate_folder, run, scratch_folder};

const EXAMPLES: [&str; 6] =
    ["tcp-echo", "udp-echo", "tcp-ping-pong", "udp-ping-pong", "tcp-transfer", "tcp-echo-cpp"];

/// Installs into an empty folder, as somebody whose files are nobody else's business.
fn install(libdir: &str) -> PathBuf {
    // Built before the time that a run may take begins.
    common::library_folder();
    let prefix = scratch_folder("prefix").join(libdir.replace('/', "-"));
    fs::remove_dir_all(&prefix).ok();
    let script = crate_folder().join("../tools/install.sh");
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$@\"", "sh"])
        .arg(script)
        .arg(&prefix)
        .env("LIBDIR", libdir)
        .env("PROFILE", common::profile())
        .env("DESTDIR", "");
    command.env("FEATURES", common::FEATURES).env("CARGO_TARGET_DIR", common::target_folder());
    assert_success("tools/install.sh", &run(command));
    prefix
}

/// A copy of the examples with nothing else of the repository near it.
fn copy_examples(name: &str) -> PathBuf {
    let place = scratch_folder(name);
    fs::remove_dir_all(&place).unwrap();
    for folder in ["c", "cpp"] {
        fs::create_dir_all(place.join(folder)).unwrap();
        for entry in fs::read_dir(crate_folder().join("../examples").join(folder)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), place.join(folder).join(entry.file_name())).unwrap();
        }
    }
    place.join("c")
}

/// The program finds the library without help, and the library says what is wrong with its configuration.
fn assert_starts(program: &Path) {
    let mut command = common::command(program, common::Check::Plain);
    command.args(["--config", "/nonexistent/catnip.toml"]);
    let output = run(command);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}: {words}", program.display());
    assert!(words.contains("catnip: /nonexistent/catnip.toml: "), "{}: {words}", program.display());
}

/// All below a folder can be read by everybody, and what is a program be run.
fn assert_readable(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let about = fs::metadata(&path).unwrap();
        let needed = if about.is_dir() { 0o755 } else { 0o644 };
        assert_eq!(about.permissions().mode() & needed, needed, "{}", path.display());
        if about.is_dir() {
            assert_readable(&path);
        }
    }
}

#[test]
fn an_installed_library_is_found_by_pkg_config() {
    let prefix = install("lib");
    assert_readable(&prefix);
    for file in ["libcatnip.so", "libcatnip.a", "pkgconfig/catnip.pc", "cmake/Catnip/CatnipConfig.cmake"] {
        assert!(prefix.join("lib").join(file).exists(), "{file}");
    }
    for header in ["libos.h", "sga.h", "wait.h", "types.h", "cc.h", "ext.h", "catnip.hpp"] {
        assert!(prefix.join("include/demi").join(header).exists(), "{header}");
    }
    let folder = copy_examples("make");
    let mut make = Command::new("make");
    make.arg("-C").arg(&folder).env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    assert_success("make", &run(make));
    for example in EXAMPLES {
        assert_starts(&folder.join(example));
    }
}

#[test]
fn an_installed_library_is_found_by_cmake() {
    let prefix = install("lib/any-linux-gnu");
    let folder = copy_examples("cmake");
    let build = folder.join("build");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&folder).arg("-B").arg(&build);
    configure.arg(format!("-DCMAKE_PREFIX_PATH={}", prefix.display()));
    configure.arg(format!("-DCatnip_DIR={}", prefix.join("lib/any-linux-gnu/cmake/Catnip").display()));
    assert_success("cmake", &run(configure));
    let mut make = Command::new("cmake");
    make.arg("--build").arg(&build);
    assert_success("cmake --build", &run(make));
    for example in EXAMPLES {
        assert_starts(&build.join(example));
    }
}
