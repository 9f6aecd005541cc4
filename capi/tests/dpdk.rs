//! C programs at both ends of a link between two DPDK ports, virtio_user and vhost: memory of the library goes through
//! without a copy, and every byte that comes back is compared. Needs no device and no network.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Check, assert_success};

/// A folder that goes away with the test. A socket's path is short, and the target folder's may not be.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("catnip-c-dpdk-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes an end's configuration, with further lines.
    fn config(&self, device: &str, host: u8, further: &str) -> PathBuf {
        let path = self.0.join(format!("{host}.toml"));
        let device = device.replace("SOCKET", self.0.join("link").to_str().unwrap());
        let text = format!(
            "[runtime]\nkind = \"dpdk\"\n[memory]\nregion_mib = 64\n[dpdk]\ndevice = \"{device}\"\n\
             [stack]\naddresses = [\"10.79.0.{host}/24\"]\n{further}"
        );
        fs::write(&path, text).unwrap();
        path
    }
}

impl Folder {
    fn wait_for_socket(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.0.join("link").exists() {
            assert!(Instant::now() < end, "the server never made its socket");
            std::thread::sleep(Duration::from_millis(5));
        }
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
    fn start(program: &Path, config: &Path, arguments: &[&str]) -> Self {
        let mut command = common::command(program, Check::Plain);
        command.arg("--config").arg(config).args(arguments);
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
    let folder = Folder::new("copies");
    let arguments = ["--address", "10.79.0.2", "--port", "7"];
    let serving =
        Server::start(&server, &folder.config("net_vhost0,iface=SOCKET,client=0", 2, ""), &arguments);
    let client = folder.config("virtio_user0,path=SOCKET,queues=1", 1, "");
    folder.wait_for_socket();

    let mut command = common::command(&copies, Check::Plain);
    command.args(["10.79.0.2", "7", "--config"]).arg(&client);
    assert_success("copies", &common::run(command));

    let mut command = common::command(&transfer, Check::Plain);
    command.args(["--address", "10.79.0.2", "--port", "7", "--count", "10", "--config"]).arg(&client);
    assert_success("tcp-transfer", &common::run(command));

    let printed = serving.end();
    assert!(printed.contains("2 connections ended"), "{printed}");
}

#[test]
fn two_threads_of_a_c_program_have_a_core_each_on_one_dpdk_port() {
    const CORES: &str = "[cores]\ncount = 2\npin = false\n";
    let program = common::compile(&common::crate_folder().join("tests/c/core_echo.c"), Check::Plain);
    let folder = Folder::new("cores");
    let server = folder.config("net_vhost0,iface=SOCKET,queues=2,client=0", 2, CORES);
    let serving = Server::start(&program, &server, &["server"]);
    folder.wait_for_socket();
    let mut client = common::command(&program, Check::Plain);
    client.arg("--config").arg(folder.config("virtio_user0,path=SOCKET,queues=2", 1, CORES)).arg("client");
    assert_success("client", &common::run(client));
    let printed = serving.end();
    assert!(printed.contains("connections: 1 1"), "each client's core has its core at the server: {printed}");
}
