//! The Rust examples on a TAP device against the kernel's own sockets, each in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test reports")]

#[path = "common/namespace.rs"]
mod namespace;

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const ADDRESS: &str = "10.78.0.2:7";

/// A running example, killed when the test ends.
struct Example(Child);

impl Example {
    /// Starts the example and waits until it listens.
    fn start(name: &str) -> Self {
        // Cargo puts a package's examples beside the folder that its tests are in.
        let tests = env::current_exe().unwrap();
        let program = tests.ancestors().nth(2).unwrap().join("examples").join(name);
        let mut child = Command::new(&program)
            .arg(ADDRESS)
            .env("CATNIP_RUNTIME__KIND", "tap")
            .env("CATNIP_TAP__NAME", "examples")
            .env("CATNIP_TAP__HOST_ADDRESSES", "10.78.0.1/24")
            .env("CATNIP_STACK__ADDRESSES", "10.78.0.2/24")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error} (cargo build --examples)", program.display()));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let example = Self(child);
        assert_eq!(line, format!("listening on {ADDRESS}\n"));
        example
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed then.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn connect() -> TcpStream {
    let address: SocketAddr = ADDRESS.parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What the server says until it ends the connection, after the client has said this and ended its side.
fn answer_to(said: &[u8]) -> Vec<u8> {
    let mut stream = connect();
    let mut answer = Vec::new();
    thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            // A server that refuses a request may stop listening before its end.
            if writer.write_all(said).is_ok() {
                writer.shutdown(Shutdown::Write).ok();
            }
        });
        stream.read_to_end(&mut answer).unwrap();
    });
    answer
}

fn pattern(client: usize) -> Vec<u8> {
    (0..1_000_000 + client).map(|index| (index * (2 * client + 1) % 251) as u8).collect()
}

fn echoes_to_several_clients_at_once() {
    thread::scope(|scope| {
        for client in 0..4 {
            scope.spawn(move || {
                let sent = pattern(client);
                assert!(answer_to(&sent) == sent, "client {client} got something else back");
            });
        }
    });
}

fn echoes_datagrams() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(ADDRESS).unwrap();
    for len in [1, 64, 1472, 0, 9] {
        let sent = &pattern(len)[..len];
        socket.send(sent).unwrap();
        let mut received = [0; 2048];
        let bytes = socket.recv(&mut received).unwrap();
        assert_eq!(&received[..bytes], sent);
    }
}

/// A client that goes away with a reset takes nobody with it.
fn survives_a_reset() {
    let stream = connect();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    assert_eq!(answer_to(b"still there?"), b"still there?");
}

#[test]
fn the_token_style_echo_server_serves_kernel_clients() {
    namespace::enter("-Urn", || {
        let _example = Example::start("echo-tokens");
        echoes_to_several_clients_at_once();
        echoes_datagrams();
        survives_a_reset();
    });
}

#[test]
fn the_async_echo_server_serves_kernel_clients() {
    namespace::enter("-Urn", || {
        let _example = Example::start("echo-async");
        echoes_to_several_clients_at_once();
        echoes_datagrams();
        survives_a_reset();
    });
}

#[test]
fn the_http_server_answers_kernel_clients() {
    namespace::enter("-Urn", || {
        let _example = Example::start("http-server");
        let too_large = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 10_000]].concat();
        let cases: [(&[u8], &str, bool); 9] = [
            (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 OK", true),
            (b"GET / HTTP/1.0\r\n\r\n", "200 OK", true),
            (b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "200 OK", false),
            (b"GET /nothing HTTP/1.1\r\nConnection: close\r\n\r\n", "404 Not Found", false),
            (b"DELETE / HTTP/1.1\r\nConnection: close\r\n\r\n", "405 Method Not Allowed", false),
            (b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "413 Content Too Large", false),
            (
                b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "413 Content Too Large",
                false,
            ),
            (b"\x00\x01 nonsense\r\n\r\n", "400 Bad Request", false),
            (&too_large, "431 Request Header Fields Too Large", false),
        ];
        for (request, status, with_page) in cases {
            let answer = String::from_utf8(answer_to(request)).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
            assert_eq!(answer.ends_with("came out of a library OS.\n"), with_page, "{answer}");
        }
    });
}

#[test]
fn the_http_server_keeps_connections_and_answers_requests_sent_ahead_in_order() {
    namespace::enter("-Urn", || {
        let _example = Example::start("http-server");
        let requests = b"GET / HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\nHEAD / HTTP/1.1\r\n\r\n";
        // In pieces that end anywhere, and then nothing more: the server ends the connection.
        let mut stream = connect();
        for piece in requests.chunks(7) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let statuses: Vec<&str> = answers.lines().filter(|line| line.starts_with("HTTP/1.1 ")).collect();
        assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found", "HTTP/1.1 200 OK"]);
        assert_eq!(answers.matches("Connection: keep-alive").count(), 3);
    });
}
