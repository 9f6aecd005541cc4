//! Two processes with a link between them: a test starts itself again as the other end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use std::{any, env, thread};

use catnip_os::libos::{Config, LibOs};

/// In the process that is the other end: the socket of the link.
const OTHER_END: &str = "CATNIP_TEST_VHOST_SOCKET";
/// A test that takes longer hangs, and is ended.
const TIMEOUT: Duration = Duration::from_secs(100);

/// Which end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Front,
    Back,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Front => Self::Back,
            Self::Back => Self::Front,
        }
    }

    /// The address that this end has, with a port.
    pub fn address(self, port: u16) -> SocketAddr {
        let host = if self == Self::Front { 1 } else { 2 };
        ([10, 77, 0, host], port).into()
    }
}

/// What this end's configuration is, with further keys and values.
pub fn config(socket: &Path, end: End, further: &[(&str, &str)]) -> Config {
    let text = format!(
        "[runtime]\nkind = \"vhost\"\n[memory]\nregion_mib = 64\n[vhost]\nsocket = \"{}\"\nrole = \"{}\"\n\
         wait_for_peer_ms = 30000\n[stack]\naddresses = [\"{}/24\"]\n",
        socket.display(),
        if end == End::Front { "front" } else { "back" },
        end.address(0).ip(),
    );
    let config = Config::from_toml_str("test", &text).unwrap();
    further.iter().fold(config, |config, (key, value)| match (value.parse::<bool>(), value.parse::<i64>()) {
        (Ok(value), _) => config.set(key, value),
        (_, Ok(value)) => config.set(key, value),
        _ => config.set(key, *value),
    })
}

pub fn open(socket: &Path, end: End, further: &[(&str, &str)]) -> LibOs {
    catnip_os::open(&config(socket, end, further)).unwrap_or_else(|error| panic!("{end:?}: {error}"))
}

/// The process that is the other end; killed when dropped.
pub struct OtherEnd(Child);

impl OtherEnd {
    /// Waits until it ends by itself.
    pub fn join(mut self) {
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "the other end does not end");
            thread::sleep(Duration::from_millis(5));
        };
        assert!(status.success(), "the other end: {status}");
    }

    /// Ends it as a crash does.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for OtherEnd {
    fn drop(&mut self) {
        // Fails when it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A socket's path that nobody else has.
pub fn socket() -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    env::temp_dir().join(format!("catnip-vhost-{}-{next}.sock", std::process::id()))
}

/// Runs `other` in another process, and `this` here. To be called from a `#[test]` function directly, with a
/// closure as `this`: its type's name tells which test to start again. `case` tells calls of one test apart.
pub fn run<T, O>(case: &str, this: T, other: O)
where
    T: FnOnce(&Path, OtherEnd),
    O: FnOnce(&Path),
{
    if let Some(path) = env::var_os(OTHER_END) {
        if env::var("CATNIP_TEST_VHOST_CASE").as_deref() == Ok(case) {
            thread::spawn(|| {
                thread::sleep(TIMEOUT);
                eprintln!("the other end did not end within {TIMEOUT:?}");
                std::process::abort();
            });
            other(Path::new(&path));
            std::process::exit(0);
        }
        return;
    }
    let socket = socket();
    let closure = any::type_name::<T>();
    let test = closure.strip_suffix("::{{closure}}").and_then(|path| path.split_once("::")).unwrap().1;
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(OTHER_END, &socket)
        .env("CATNIP_TEST_VHOST_CASE", case)
        .spawn()
        .unwrap();
    this(&socket, OtherEnd(child));
    let _ = std::fs::remove_file(&socket);
}
