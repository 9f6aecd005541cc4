//! C programs at both ends of a link between two DPDK ports, virtio_user and vhost: memory of the library goes through
//! without a copy, and every byte that comes back is compared. Needs no device and no network.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Check, assert_success};

/// A folder that goes away with the test. A socket's path is short, and the target folder's may not be.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("catnip-c-dpdk-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes an end's configuration.
    fn config(&self, device: &str, host: u8) -> PathBuf {
        let path = self.0.join(format!("{host}.toml"));
        let device = device.replace("SOCKET", self.0.join("link").to_str().unwrap());
        let text = format!(
            "[runtime]\nkind = \"dpdk\"\n[memory]\nregion_mib = 64\n[dpdk]\ndevice = \"{device}\"\n\
             [stack]\naddresses = [\"10.79.1.{host}/24\"]\n"
        );
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The echo server's process, ended with the test.
struct Server(Child);

impl Server {
    fn start(program: &Path, config: &Path) -> Self {
        let mut command = common::command(program, Check::Plain);
        command.arg("--config").arg(config).args(["--address", "10.79.1.2", "--port", "7"]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Ends the server with a signal; what it printed.
    fn end(mut self) -> String {
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &self.0.id().to_string()]);
        assert_success("kill", &common::run(kill));
        let mut printed = String::new();
        std::io::Read::read_to_string(self.0.stdout.as_mut().unwrap(), &mut printed).unwrap();
        assert!(self.0.wait().unwrap().success(), "{printed}");
        printed
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Has ended already, unless the test fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_of_the_library_crosses_two_dpdk_ports_without_a_copy() {
    let source = |file: &str| common::crate_folder().join(file);
    let server = common::compile(&source("../examples/c/tcp-echo.c"), Check::Plain);
    let transfer = common::compile(&source("../examples/c/tcp-transfer.c"), Check::Plain);
    let copies = common::compile(&source("tests/c/copies.c"), Check::Plain);
    let folder = Folder::new();
    let serving = Server::start(&server, &folder.config("net_vhost0,iface=SOCKET,client=0", 2));
    let client = folder.config("virtio_user0,path=SOCKET,queues=1", 1);
    while !folder.0.join("link").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }

    let mut command = common::command(&copies, Check::Plain);
    command.args(["10.79.1.2", "7", "--config"]).arg(&client);
    assert_success("copies", &common::run(command));

    let mut command = common::command(&transfer, Check::Plain);
    command.args(["--address", "10.79.1.2", "--port", "7", "--count", "10", "--config"]).arg(&client);
    assert_success("tcp-transfer", &common::run(command));

    let printed = serving.end();
    assert!(printed.contains("2 connections ended"), "{printed}");
}
