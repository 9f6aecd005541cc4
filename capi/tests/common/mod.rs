//! Builds the libraries, compiles C and C++ programs against them, and runs them, bounded in time.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time that a test program may take.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What the library is built with: what this test was.
pub const FEATURES: &str = if cfg!(feature = "dpdk") { "dpdk" } else { "" };

/// How a program is built and run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// As a user would.
    Plain,
    /// With AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer.
    Sanitizers,
    /// Under valgrind: no error, no leak.
    Valgrind,
    /// Against `libcatnip.a`.
    Static,
}

/// The folder of this crate.
pub fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with `libcatnip.so` under all its names and `libcatnip.a`, as `make install` would fill one.
pub fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let built = build_libraries();
        let folder = scratch_folder("lib");
        let soname = format!("libcatnip.so.{}", env!("CARGO_PKG_VERSION_MAJOR"));
        for (name, file) in
            [("libcatnip.so", "libcatnip.so"), ("libcatnip.a", "libcatnip.a"), (&*soname, "libcatnip.so")]
        {
            let made = folder.join(format!("{name}.{}", process::id()));
            fs::remove_file(&made).ok();
            symlink(built.join(file), &made).unwrap();
            fs::rename(made, folder.join(name)).unwrap();
        }
        folder
    })
}

/// `cargo test` builds no shared library for integration tests, so it is built here, with the profile of the tests.
fn build_libraries() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "catnip-capi", "--profile", &profile()])
        .args(["--features", FEATURES, "--target-dir"])
        .arg(target_folder())
        .current_dir(crate_folder())
        .output()
        .unwrap();
    assert!(output.status.success(), "building libcatnip: {}", String::from_utf8_lossy(&output.stderr));
    profile_folder()
}

/// `target/debug` or its like: two above this test's own file in `deps`.
fn profile_folder() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_path_buf()
}

/// The folder that cargo builds into.
pub fn target_folder() -> PathBuf {
    profile_folder().parent().unwrap().to_path_buf()
}

/// The profile that this test was built with.
pub fn profile() -> String {
    match profile_folder().file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev".to_owned(),
        Some(profile) => profile.to_owned(),
    }
}

/// A folder of this test file's own under the target folder.
pub fn scratch_folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The compiler command for a source file, C or C++ by its name, with every warning an error.
pub fn compiler(source: &Path) -> Command {
    let cpp = source.extension().is_some_and(|extension| extension == "cpp" || extension == "hpp");
    let (program, standard) = if cpp { ("c++", "-std=c++17") } else { ("cc", "-std=c11") };
    let mut command = Command::new(program);
    command.args([
        standard,
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Wshadow",
        "-Werror",
        "-pthread",
    ]);
    command.arg("-I").arg(crate_folder().join("include"));
    command
}

/// Compiles a program against the library and returns its path.
pub fn compile(source: &Path, check: Check) -> PathBuf {
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let program = scratch_folder("bin").join(format!("{stem}-{check:?}"));
    // Tests run side by side, some in processes of their own, and may compile the same program: each makes a file
    // of its own, and the last one moved into place stays.
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let made = program.with_extension(format!("{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let library = library_folder();
    let mut command = compiler(source);
    if check == Check::Sanitizers {
        command.args([
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-fno-omit-frame-pointer",
        ]);
    }
    command.arg("-o").arg(&made).arg(source);
    if check == Check::Static {
        command.arg(library.join("libcatnip.a")).args(["-lm", "-ldl"]);
    } else {
        command.arg("-L").arg(library).arg("-lcatnip").arg(format!("-Wl,-rpath,{}", library.display()));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "compiling {stem}: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(made, &program).unwrap();
    program
}

/// The command that runs a compiled program under its check.
pub fn command(program: &Path, check: Check) -> Command {
    let mut command = if check == Check::Valgrind {
        let mut command = Command::new("valgrind");
        command.args([
            "--quiet",
            "--error-exitcode=99",
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect,possible",
            "--errors-for-leak-kinds=definite,indirect,possible",
            "--track-fds=no",
        ]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1");
    command.env("UBSAN_OPTIONS", "print_stacktrace=1");
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CATNIP_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end; kills it when it takes too long.
pub fn run(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > RUN_LIMIT {
            child.kill().unwrap();
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// Asserts that a run ended well; shows what it printed when not.
pub fn assert_success(what: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{what}: status {:?}, signal {:?}\n{}{}",
        output.status.code(),
        output.status.signal(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

/// Compiles and runs one of the test programs; `environment` configures the library OS.
pub fn run_test_program(name: &str, arguments: &[&str], check: Check, environment: &[(&str, &str)]) {
    let program = compile(&crate_folder().join("tests").join(name), check);
    let mut command = command(&program, check);
    command.args(arguments).envs(environment.iter().copied());
    assert_success(&format!("{name} ({check:?})"), &run(command));
}
