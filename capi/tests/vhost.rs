//! C programs at both ends of shared memory: the echo server serves one client after the other, and every byte
//! that comes back is compared. As they are, and with AddressSanitizer and UBSan.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Check, assert_success};

const PATIENCE: Duration = Duration::from_secs(60);

/// Writes an end's configuration, with further lines.
fn config(folder: &Path, role: &str, host: u8, further: &str) -> PathBuf {
    let path = folder.join(format!("{role}.toml"));
    let socket = folder.join("link.sock");
    let text = format!(
        "[runtime]\nkind = \"vhost\"\n[memory]\nregion_mib = 64\n[vhost]\nsocket = \"{}\"\nrole = \"{role}\"\n\
         reconnect = {}\n[stack]\naddresses = [\"10.79.0.{host}/24\"]\n{further}",
        socket.display(),
        role == "back"
    );
    fs::write(&path, text).unwrap();
    path
}

/// A folder that is gone when this is dropped. A socket's path is short, and the target folder's may not be.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("catnip-c-vhost-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A test that failed has said why.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn terminate(program: &Child) {
    let mut kill = std::process::Command::new("kill");
    kill.args(["-TERM", &program.id().to_string()]);
    assert_success("kill", &common::run(kill));
}

fn start(program: &Path, check: Check, config: &Path, arguments: &[&str]) -> Child {
    let mut command = common::command(program, check);
    command.arg("--config").arg(config).args(["--address", "10.79.0.2", "--port", "7"]).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a program's end, which has to be a good one; what it printed.
fn finish(what: &str, mut child: Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output: Output = child.wait_with_output().unwrap();
    assert_success(what, &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn streams_between_two_c_programs_come_back_as_they_went() {
    for check in [Check::Plain, Check::Sanitizers] {
        let example = |file| common::compile(&common::crate_folder().join("../examples/c").join(file), check);
        let (server, client) = (example("tcp-echo.c"), example("tcp-transfer.c"));
        let folder = Folder::new("streams");
        let serving = start(&server, check, &config(&folder.0, "back", 2, ""), &[]);
        for _ in 0..2 {
            let child = start(&client, check, &config(&folder.0, "front", 1, ""), &["--count", "3"]);
            let printed = finish("tcp-transfer", child);
            assert!(printed.contains("3 MB there and back"), "{printed}");
        }
        terminate(&serving);
        let printed = finish("tcp-echo", serving);
        assert!(printed.contains("2 connections ended"), "{printed}");
    }
}

#[test]
fn two_threads_of_a_c_program_serve_a_core_each() {
    const CORES: &str = "[cores]\ncount = 2\npin = false\n";
    for check in [Check::Plain, Check::Sanitizers] {
        let program = common::compile(&common::crate_folder().join("tests/c/core_echo.c"), check);
        let folder = Folder::new("cores");
        let run = |role, host, what: &str| {
            let mut command = common::command(&program, check);
            command.arg("--config").arg(config(&folder.0, role, host, CORES)).arg(what);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let serving = run("back", 2, "server");
        for _ in 0..2 {
            finish("client", run("front", 1, "client"));
        }
        terminate(&serving);
        let printed = finish("server", serving);
        assert!(
            printed.contains("connections: 2 2"),
            "each client's core has its core at the server: {printed}"
        );
    }
}

#[test]
fn a_c_program_is_told_why_its_device_failed() {
    let server = common::compile(&common::crate_folder().join("../examples/c/tcp-echo.c"), Check::Plain);
    let program = common::compile(&common::crate_folder().join("tests/c/lost_link.c"), Check::Plain);
    let folder = Folder::new("lost");
    let serving = start(&server, Check::Plain, &config(&folder.0, "back", 2, ""), &[]);
    let mut command = common::command(&program, Check::Plain);
    command.arg("--config").arg(config(&folder.0, "front", 1, ""));
    let mut waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 8];
    std::io::Read::read_exact(waiting.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"waiting\n");
    terminate(&serving);
    finish("tcp-echo", serving);
    let printed = finish("lost_link", waiting);
    assert!(printed.ends_with("link.sock: the back end left\n"), "{printed}");
}
