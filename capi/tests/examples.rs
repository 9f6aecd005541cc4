//! The C and C++ examples on a TAP device against the kernel's own sockets, each in a network namespace of its own:
//! as they are, with AddressSanitizer and UBSan, and under valgrind. A server has to stop well on SIGTERM, with
//! no error found and nothing leaked.

#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod common;
#[path = "../../tests/common/namespace.rs"]
mod namespace;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Check, assert_success};

/// Longest that a program under valgrind takes to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// The library OS's addresses on the link; the kernel has those that end in 1.
const ADDRESSES: [&str; 2] = ["10.77.0.2", "fd77::2"];
const PORT: u16 = 7;
const CHECKS: [Check; 3] = [Check::Plain, Check::Sanitizers, Check::Valgrind];

const CONFIG: &str = r#"
[runtime]
kind = "tap"

[tap]
name = "catnip-test"
host_addresses = ["10.77.0.1/24", "fd77::1/64"]

[stack]
addresses = ["10.77.0.2/24", "fd77::2/64"]
"#;

fn example(folder: &str, file: &str, check: Check) -> PathBuf {
    common::compile(&common::crate_folder().join("../examples").join(folder).join(file), check)
}

fn config_file() -> PathBuf {
    let path = common::scratch_folder("config").join("tap.toml");
    fs::write(&path, CONFIG).unwrap();
    path
}

/// A running example. Killed when the test ends before it.
struct Running {
    what: String,
    child: Option<Child>,
    output: PathBuf,
}

impl Running {
    /// Starts a server and waits until it listens.
    fn server(program: &Path, check: Check, arguments: &[&str]) -> Self {
        let running = Self::start(program, check, arguments);
        let start = Instant::now();
        while !running.printed().contains("listening") {
            assert!(start.elapsed() < PATIENCE, "{} does not listen:\n{}", running.what, running.printed());
            thread::sleep(Duration::from_millis(5));
        }
        running
    }

    fn start(program: &Path, check: Check, arguments: &[&str]) -> Self {
        let what = program.file_name().unwrap().to_str().unwrap().to_owned();
        let output = common::scratch_folder("output").join(format!("{what}.{}", std::process::id()));
        let file = fs::File::create(&output).unwrap();
        let mut command = common::command(program, check);
        command.arg("--config").arg(config_file()).args(["--port", "7"]).args(arguments);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { what, child: Some(command.spawn().unwrap()), output }
    }

    fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap()
    }

    /// Asks the program to stop, waits for its end and checks that it was a good one.
    fn stop(mut self) -> String {
        let child = self.child.as_ref().unwrap();
        let mut kill = Command::new("kill");
        kill.args(["-TERM", &child.id().to_string()]);
        assert_success("kill", &common::run(kill));
        self.finish()
    }

    /// Waits for the program's end and checks that it was a good one. What it printed.
    fn finish(&mut self) -> String {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().unwrap();
                break child.wait().unwrap();
            }
            thread::sleep(Duration::from_millis(5));
        };
        let printed = self.printed();
        let output = Output { status, stdout: printed.clone().into_bytes(), stderr: Vec::new() };
        assert_success(&self.what, &output);
        for word in ["Sanitizer", "runtime error", "LeakSanitizer", "panicked", "ERROR SUMMARY"] {
            assert!(!printed.contains(word), "{}:\n{printed}", self.what);
        }
        printed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
            if thread::panicking() {
                eprintln!("{} printed:\n{}", self.what, self.printed());
            }
        }
        fs::remove_file(&self.output).ok();
    }
}

fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), PORT)
}

/// Bytes that differ from client to client and do not repeat soon.
fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends everything while reading it back, ends the sending, and expects the end in return.
fn exchange(to: SocketAddr, data: &[u8], piece_bytes: usize) {
    let stream = connect(to);
    let mut answer = Vec::with_capacity(data.len());
    thread::scope(|scope| {
        scope.spawn(|| {
            for piece in data.chunks(piece_bytes) {
                (&stream).write_all(piece).unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
        });
        (&stream).read_to_end(&mut answer).unwrap();
    });
    assert!(answer == data, "{} bytes came back, and other ones than were sent", answer.len());
}

/// Clients of all manners: several at once, large and small pieces, an abrupt end, one that says nothing.
fn try_tcp_echo(program: &Path, check: Check, listen: &str) {
    let bulk_bytes = if check == Check::Plain { 8 << 20 } else { 1 << 20 };
    let server = Running::server(program, check, &["--address", listen]);
    let to = address(listen);
    let silent = connect(to);
    thread::scope(|scope| {
        for client in 0..6 {
            let (len, piece_bytes) = [(1, 1), (5_000, 7), (bulk_bytes, 65_536)][client % 3];
            scope.spawn(move || exchange(to, &noise(client, len), piece_bytes));
        }
    });
    let mut abrupt = connect(to);
    abrupt.write_all(&noise(9, 100_000)).unwrap();
    drop(abrupt); // unread answers: the kernel resets the connection
    exchange(to, &noise(10, 1_000), 1_000);
    drop(silent);
    server.stop();
}

#[test]
fn tcp_echo_serves_the_kernels_clients() {
    namespace::enter("-Urn", || {
        for check in CHECKS {
            try_tcp_echo(&example("c", "tcp-echo.c", check), check, ADDRESSES[0]);
        }
        try_tcp_echo(&example("c", "tcp-echo.c", Check::Plain), Check::Plain, ADDRESSES[1]);
    });
}

#[test]
fn tcp_echo_in_cpp_serves_the_kernels_clients() {
    namespace::enter("-Urn", || {
        for check in CHECKS {
            try_tcp_echo(&example("cpp", "tcp-echo.cpp", check), check, ADDRESSES[0]);
        }
    });
}

#[test]
fn udp_echo_answers_over_both_ip_versions() {
    namespace::enter("-Urn", || {
        for (check, listen) in CHECKS.into_iter().zip([ADDRESSES[0], ADDRESSES[1], ADDRESSES[0]]) {
            let server = Running::server(&example("c", "udp-echo.c", check), check, &["--address", listen]);
            let any: SocketAddr = if listen.contains(':') { "[::]:0" } else { "0.0.0.0:0" }.parse().unwrap();
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(address(listen)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = [0; 2048];
            for (round, len) in [1, 0, 64, 512, 1_400, 3, 1_452].into_iter().enumerate() {
                let data = noise(round, len);
                socket.send(&data).unwrap();
                let count = socket.recv(&mut answer).unwrap();
                assert_eq!(answer[..count], data, "{len} bytes");
            }
            assert!(server.stop().contains("7 datagrams echoed"));
        }
    });
}

#[test]
fn tcp_ping_pong_measures_against_the_kernel_and_serves_it() {
    namespace::enter("-Urn", || {
        for check in CHECKS {
            let program = example("c", "tcp-ping-pong.c", check);
            let server =
                Running::server(&program, check, &["--server", "--address", ADDRESSES[0], "--size", "100"]);
            for client in 0..2 {
                let mut stream = connect(address(ADDRESSES[0]));
                for round in 0..20 {
                    let message = noise(client * 100 + round, 100);
                    let mut answer = [0; 100];
                    stream.write_all(&message[..33]).unwrap();
                    stream.write_all(&message[33..]).unwrap();
                    stream.read_exact(&mut answer).unwrap();
                    assert_eq!(answer[..], message);
                }
            }
            server.stop();

            let listener = TcpListener::bind("0.0.0.0:7").unwrap();
            listener.set_nonblocking(true).unwrap();
            let mut client = Running::start(
                &program,
                check,
                &["--client", "--address", "10.77.0.1", "--count", "500", "--size", "2000"],
            );
            let (mut stream, _) = retry(|| listener.accept());
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut piece = [0; 4096];
            loop {
                let count = stream.read(&mut piece).unwrap();
                if count == 0 {
                    break;
                }
                stream.write_all(&piece[..count]).unwrap();
            }
            drop((stream, listener));
            assert!(client.finish().contains("tcp-ping-pong: 500 round trips, p50 "));
        }
    });
}

#[test]
fn udp_ping_pong_measures_against_the_kernel_and_serves_it() {
    namespace::enter("-Urn", || {
        for check in CHECKS {
            let program = example("c", "udp-ping-pong.c", check);
            let server = Running::server(&program, check, &["--server", "--address", ADDRESSES[0]]);
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(address(ADDRESSES[0])).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = [0; 2048];
            for round in 0..20 {
                let data = noise(round, 64);
                socket.send(&data).unwrap();
                let count = socket.recv(&mut answer).unwrap();
                assert_eq!(answer[..count], data);
            }
            server.stop();

            let socket = UdpSocket::bind("0.0.0.0:7").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut client =
                Running::start(&program, check, &["--client", "--address", "10.77.0.1", "--count", "500"]);
            let mut answered = 0;
            while answered < 500 {
                let (count, from) = socket.recv_from(&mut answer).unwrap();
                // One answer is left out, and one comes twice: the client must cope with both.
                answered += 1;
                if answered == 10 {
                    continue;
                }
                socket.send_to(&answer[..count], from).unwrap();
                if answered == 20 {
                    socket.send_to(&answer[..count], from).unwrap();
                }
            }
            let (count, from) = socket.recv_from(&mut answer).unwrap();
            socket.send_to(&answer[..count], from).unwrap();
            let printed = client.finish();
            assert!(printed.contains("udp-ping-pong: 500 round trips, p50 "), "{printed}");
            assert!(printed.contains("udp-ping-pong: 1 lost"), "{printed}");
        }
    });
}

/// The first block of the README in that language.
fn readme_block(language: &str) -> String {
    let readme = fs::read_to_string(common::crate_folder().join("../README.md")).unwrap();
    let (_, behind) = readme.split_once(&format!("```{language}\n")).unwrap();
    behind.split("```").next().unwrap().to_owned()
}

/// With the very configuration that the README gives it.
#[test]
fn the_program_in_the_readme_echoes_datagrams_of_the_kernel() {
    namespace::enter("-Urn", || {
        let folder = common::scratch_folder("readme");
        fs::write(folder.join("readme.c"), readme_block("c")).unwrap();
        fs::write(folder.join("catnip.toml"), readme_block("toml")).unwrap();
        let program = common::compile(&folder.join("readme.c"), Check::Plain);
        let mut command = common::command(&program, Check::Plain);
        command.env("CATNIP_CONFIG", folder.join("catnip.toml")).stdin(Stdio::null());
        let mut server = Killed(command.spawn().unwrap());
        // Until the device is there, the kernel has no way to the address.
        let socket = retry(|| {
            assert!(server.0.try_wait()?.is_none(), "the program has ended");
            let socket = UdpSocket::bind("10.1.0.1:0")?;
            socket.connect("10.1.0.2:7")?;
            Ok(socket)
        });
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut answer = [0; 100];
        let count = retry(|| {
            socket.send(b"twelve bytes")?;
            socket.recv(&mut answer)
        });
        assert_eq!(&answer[..count], b"twelve bytes");
    });
}

/// A program that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Tries until it works: what is tried depends on the program under test.
fn retry<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// `--count` and `--seconds` end the servers as well, and a wrong device is said in one line.
#[test]
fn servers_end_by_themselves_when_told_to() {
    namespace::enter("-Urn", || {
        let program = example("c", "tcp-echo.c", Check::Plain);
        let mut server =
            Running::server(&program, Check::Plain, &["--address", ADDRESSES[0], "--count", "2"]);
        exchange(address(ADDRESSES[0]), b"one", 3);
        exchange(address(ADDRESSES[0]), b"two", 3);
        assert!(server.finish().contains("2 connections ended"));

        let mut server =
            Running::server(&program, Check::Plain, &["--address", ADDRESSES[0], "--seconds", "1"]);
        assert!(server.finish().contains("0 connections ended"));
    });
}
