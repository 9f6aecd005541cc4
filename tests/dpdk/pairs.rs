//! Drivers whose other end is another DPDK process: this test's own program, started again.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use catnip_os::libos::{Config, LibOs};

use crate::echo::{self, PATIENCE, metric, nothing_is_copied};
use crate::{lossy, namespace};

/// Set in the client's process: the folder that both share.
const CLIENT: &str = "CATNIP_TEST_CLIENT";

const SERVER_ADDRESS: &str = "10.7.0.1";
const CLIENT_ADDRESS: &str = "10.7.0.2";

/// The two devices of a link, their arguments' socket in a folder that both share.
struct Link {
    server: &'static str,
    client: &'static str,
}

/// A started program, ended with the test.
struct Started(Child);

impl Started {
    fn this_test_as_client(folder: &Path) -> Self {
        let arguments = env::args_os().skip(1);
        let program = env::current_exe().unwrap();
        Self(Command::new(program).args(arguments).env(CLIENT, folder).spawn().unwrap())
    }

    fn wait(mut self) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "the client: {status}"),
                None => assert!(Instant::now() < end, "the client does not end"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Has ended already, unless the test fails.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = env::temp_dir().join(format!("catnip-dpdk-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(device: &str, folder: &Path, address: &str) -> Config {
    let device = device.replace("SOCKET", folder.join("socket").to_str().unwrap());
    echo::config(&device, &format!("{address}/24"))
}

fn open(config: &Config) -> LibOs {
    catnip_os::open(config).unwrap()
}

fn wait_for_socket(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    while !folder.join("socket").exists() {
        assert!(Instant::now() < end, "the server never made its socket");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the server here and the client in a process of its own, which compares what comes back; `check` looks at each end's
/// metrics in the end. `open_client` opens the client's end.
fn exchange(link: &Link, open_client: impl Fn(&Config) -> LibOs, check: impl Fn(&LibOs)) {
    let (server, client): (IpAddr, IpAddr) =
        (SERVER_ADDRESS.parse().unwrap(), CLIENT_ADDRESS.parse().unwrap());
    if let Some(folder) = env::var_os(CLIENT) {
        let folder = PathBuf::from(folder);
        wait_for_socket(&folder);
        let libos = open_client(&config(link.client, &folder, CLIENT_ADDRESS));
        echo::talk(&libos, client, server);
        return check(&libos);
    }
    let folder = Folder::new();
    let started = Started::this_test_as_client(&folder.0);
    let libos = open(&config(link.server, &folder.0, SERVER_ADDRESS));
    echo::serve_until_farewell(&libos, server);
    check(&libos);
    started.wait();
}

#[test]
fn memif_carries_echoes_between_processes() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_memif0,role=server,socket=SOCKET,socket-abstract=no",
            client: "net_memif0,role=client,socket=SOCKET,socket-abstract=no",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

#[test]
fn memif_without_a_copy_of_its_own_delivers_what_was_sent() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_memif0,role=server,socket=SOCKET,socket-abstract=no",
            client: "net_memif0,role=client,socket=SOCKET,socket-abstract=no,zero-copy=yes",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

#[test]
fn a_vhost_port_and_a_virtio_user_port_exchange_echoes() {
    namespace::enter("-Urn", || {
        let link = Link {
            server: "net_vhost0,iface=SOCKET,queues=1",
            client: "virtio_user0,path=SOCKET,queues=1,packed_vq=1",
        };
        exchange(&link, open, nothing_is_copied);
    });
}

/// The device reads the client's buffers where they are, the client frees them at once and writes over what it gets
/// next, and one frame of forty is lost: what arrives is right only if each buffer stayed until it was acknowledged.
#[test]
fn what_is_freed_and_sent_again_under_loss_arrives_as_it_was() {
    namespace::enter("-Urn", || {
        let link =
            Link { server: "net_vhost0,iface=SOCKET,queues=1", client: "virtio_user0,path=SOCKET,queues=1" };
        exchange(&link, lossy::open, |libos| {
            nothing_is_copied(libos);
            if env::var_os(CLIENT).is_some() {
                assert!(metric(libos, "catnip.tcp.retransmitted_segments") > 10);
            }
        });
    });
}
