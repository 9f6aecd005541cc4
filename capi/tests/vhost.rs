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

/// Writes an end's configuration.
fn config(folder: &Path, role: &str, host: u8) -> PathBuf {
    let path = folder.join(format!("{role}.toml"));
    let socket = folder.join("link.sock");
    let text = format!(
        "[runtime]\nkind = \"vhost\"\n[memory]\nregion_mib = 64\n[vhost]\nsocket = \"{}\"\nrole = \"{role}\"\n\
         reconnect = {}\n[stack]\naddresses = [\"10.79.0.{host}/24\"]\n",
        socket.display(),
        role == "back"
    );
    fs::write(&path, text).unwrap();
    path
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
        // A socket's path is short, and the target folder's may not be.
        let folder = std::env::temp_dir().join(format!("catnip-c-vhost-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let serving = start(&server, check, &config(&folder, "back", 2), &[]);
        for _ in 0..2 {
            let child = start(&client, check, &config(&folder, "front", 1), &["--count", "3"]);
            let printed = finish("tcp-transfer", child);
            assert!(printed.contains("3 MB there and back"), "{printed}");
        }
        let mut kill = std::process::Command::new("kill");
        kill.args(["-TERM", &serving.id().to_string()]);
        assert_success("kill", &common::run(kill));
        let printed = finish("tcp-echo", serving);
        assert!(printed.contains("2 connections ended"), "{printed}");
        fs::remove_dir_all(&folder).unwrap();
    }
}
