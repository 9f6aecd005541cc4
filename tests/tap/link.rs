//! The link that every test has: the library OS on one end, the kernel on the other.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use catnip_os::catnip::{Stack, StackConfig, StackModule};
use catnip_os::libos::{Arena, Config, Error, LibOs, LibOsBuilder, Runtime};
use runtime_linux::tap::{Tap, TapConfig};
use socket2::{Socket, Type};

/// Nothing on one machine takes that long; reached only by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether a thread has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// An address of the kernel's end.
    pub fn kernel(self, port: u16) -> SocketAddr {
        self.address(1, port)
    }

    /// An address of the library OS.
    pub fn catnip(self, port: u16) -> SocketAddr {
        self.address(2, port)
    }

    fn address(self, host: u8, port: u16) -> SocketAddr {
        let ip: IpAddr = match self {
            Self::V4 => [10, 5, 0, host].into(),
            Self::V6 => [0xfd05, 0, 0, 0, 0, 0, 0, u16::from(host)].into(),
        };
        SocketAddr::new(ip, port)
    }
}

pub fn config() -> Config {
    let list = |text: &[&str]| text.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    Config::new()
        .set("runtime.kind", "tap")
        .set("tap.name", "tap-test")
        .set("tap.host_addresses", list(&["10.5.0.1/24", "fd05::1/64"]))
        .set("stack.addresses", list(&["10.5.0.2/24", "fd05::2/64"]))
        .set("memory.region_mib", 64)
}

/// The library OS on a new device. The device goes away with it.
pub fn open(config: &Config) -> LibOs {
    catnip_os::open(config).unwrap()
}

/// The library OS on a new device with something between the two, which `wrap` makes.
pub fn open_through<R: Runtime + 'static>(config: &Config, wrap: impl FnOnce(Tap, &Arena) -> R) -> LibOs {
    open_with(LibOs::builder(), config, wrap)
}

/// As [`open_through`], with what the builder says.
pub fn open_with<R: Runtime + 'static>(
    builder: LibOsBuilder,
    config: &Config,
    wrap: impl FnOnce(Tap, &Arena) -> R,
) -> LibOs {
    let libos = builder.config(config).build().unwrap();
    let tap = Tap::open(&TapConfig::from_config(config).unwrap(), libos.device_arena()).unwrap().remove(0);
    let device = wrap(tap, libos.device_arena());
    let settings = StackConfig::from_config(config, device.capabilities()).unwrap();
    let stack = Stack::new(&settings, libos.device_arena().clone(), 12, libos.now()).unwrap();
    libos.install(StackModule::new(stack, device)).unwrap();
    libos
}

/// Runs a command with words; it has to succeed.
pub fn command(words: &str) {
    let mut parts = words.split(' ');
    let output = Command::new(parts.next().unwrap()).args(parts).output().unwrap();
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A number among the library OS's metrics.
pub fn metric(libos: &LibOs, name: &str) -> u64 {
    let metrics = libos.metrics().unwrap();
    metrics.get(name).unwrap_or_else(|| panic!("there is no metric {name}")).value()
}

/// Polls until the thread, which uses the kernel's sockets, has ended, and returns what it returns.
pub fn drive_until_joined<T>(libos: &LibOs, thread: JoinHandle<T>) -> T {
    libos.block_on(joined(libos, thread)).unwrap()
}

/// Waits for a thread as a task does.
pub async fn joined<T>(libos: &LibOs, thread: JoinHandle<T>) -> T {
    let ended = async {
        while !thread.is_finished() {
            libos.sleep(LOOK_EVERY).await;
        }
    };
    libos.timeout(2 * PATIENCE, ended).await.expect("the kernel's side hangs");
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Polls until `condition` holds.
pub async fn until(libos: &LibOs, what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            libos.sleep(LOOK_EVERY).await;
        }
    };
    libos.timeout(PATIENCE, holds).await.unwrap_or_else(|error| panic!("{what}: {error}"));
}

/// Runs a task to its end, but no longer than a test may take.
pub fn run<T>(libos: &LibOs, task: impl Future<Output = T>) -> T {
    let result: Result<T, Error> = libos.block_on(libos.timeout(2 * PATIENCE, task)).unwrap();
    result.expect("the task does not end")
}

/// A kernel socket connected to the library OS, with time limits.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    limit(&stream);
    stream
}

/// As [`connect`], from this address.
pub fn connect_from(local: SocketAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(socket2::Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&local.into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    let stream = socket.into();
    limit(&stream);
    Ok(stream)
}

/// As [`connect`], with a receive buffer so large: from before the kernel first tells a window, so that the window
/// says what there is room for.
pub fn connect_with_buffer(address: SocketAddr, bytes: usize) -> TcpStream {
    let socket = Socket::new(socket2::Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(bytes).unwrap();
    socket.connect_timeout(&address.into(), PATIENCE).unwrap();
    let stream = socket.into();
    limit(&stream);
    stream
}

/// The next connection to a kernel socket, with time limits.
pub fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    limit(&stream);
    stream
}

fn limit(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

/// A kernel datagram socket that talks to the library OS, with time limits.
pub fn datagrams(local: SocketAddr, peer: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(local).unwrap();
    socket.connect(peer).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends the message and reads as many bytes back.
pub fn exchange(mut stream: &TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).unwrap();
    answer
}
