//! Two ends of a link in two processes: this test's own program, started again, is the client.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use catnip_os::libos::{Config, LibOs};

use crate::echo::{self, PATIENCE};

/// Set in the client's process: the folder that both share.
pub const CLIENT: &str = "CATNIP_TEST_CLIENT";

/// What stands in a device's arguments for a socket that both share.
const SOCKET: &str = "SOCKET";

const SERVER_ADDRESS: &str = "10.7.0.1";
const CLIENT_ADDRESS: &str = "10.7.0.2";

/// The two devices of a link.
pub struct Link {
    pub server: &'static str,
    pub client: &'static str,
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
    let device = device.replace(SOCKET, folder.join("socket").to_str().unwrap());
    echo::config(&device, &format!("{address}/24"))
}

pub fn open(config: &Config) -> LibOs {
    catnip_os::open(config).unwrap()
}

fn wait_for_socket(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    while !folder.join("socket").exists() {
        assert!(Instant::now() < end, "the server never made its socket");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs one end here and the other in a process of its own, each with its device's configuration, its own address
/// and the other one's.
pub fn run_ends(
    link: &Link,
    serve: impl FnOnce(Config, IpAddr, IpAddr),
    talk: impl FnOnce(Config, IpAddr, IpAddr),
) {
    let (server, client): (IpAddr, IpAddr) =
        (SERVER_ADDRESS.parse().unwrap(), CLIENT_ADDRESS.parse().unwrap());
    if let Some(folder) = env::var_os(CLIENT) {
        let folder = PathBuf::from(folder);
        if link.client.contains(SOCKET) {
            wait_for_socket(&folder);
        }
        return talk(config(link.client, &folder, CLIENT_ADDRESS), client, server);
    }
    let folder = Folder::new();
    let started = Started::this_test_as_client(&folder.0);
    serve(config(link.server, &folder.0, SERVER_ADDRESS), server, client);
    started.wait();
}

/// Runs the server here and the client in a process of its own, which compares what comes back; `check` looks at each end's
/// metrics in the end. `open_client` opens the client's end.
pub fn exchange(link: &Link, open_client: impl Fn(&Config) -> LibOs, check: impl Fn(&LibOs)) {
    let serve = |config: Config, own, _| {
        let libos = open(&config);
        echo::serve_until_farewell(&libos, own);
        check(&libos);
    };
    let talk = |config: Config, own, server| {
        let libos = open_client(&config);
        echo::talk(&libos, own, server);
        check(&libos);
    };
    run_ends(link, serve, talk);
}
