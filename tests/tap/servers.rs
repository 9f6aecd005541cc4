//! The library OS as a server of the kernel's clients, with tokens and with tasks.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Domain, Error, LibOs, Outcome, SocketKind};

use crate::link::{self, Family, PATIENCE};
use crate::namespace;
use crate::noise::Noise;

const PORT: u16 = 7;
const SIZES: [usize; 8] = [0, 1, 64, 1447, 1448, 1449, 65_536, 1_000_000];

/// Sends back what comes on every connection, until so many have ended. Tokens only.
fn echo_with_tokens(libos: &LibOs, addresses: &[SocketAddr], connections: usize) {
    for &address in addresses {
        let listener = libos.socket(Domain::of(address), SocketKind::Stream).unwrap();
        libos.bind(listener, address).unwrap();
        libos.listen(listener, 16).unwrap();
        libos.accept(listener).unwrap();
    }
    let mut completions = Vec::new();
    let mut ended = 0;
    while ended < connections {
        libos.wait_next(&mut completions, 64, Some(PATIENCE)).unwrap();
        for completion in completions.drain(..) {
            match completion.outcome {
                Outcome::Accepted { queue, peer } => {
                    assert!(peer.port() != 0);
                    libos.pop(queue).unwrap();
                    libos.accept(completion.queue).unwrap();
                }
                Outcome::Popped { data, .. } if data.is_empty() => {
                    libos.close(completion.queue).unwrap();
                }
                Outcome::Popped { data, .. } => drop(libos.push(completion.queue, data).unwrap()),
                Outcome::Pushed => drop(libos.pop(completion.queue).unwrap()),
                Outcome::Closed => ended += 1,
                Outcome::Connected | Outcome::Failed(_) => panic!("{completion:?}"),
            }
        }
    }
}

/// Sends back what comes on one connection.
async fn echo(stream: &TcpStream) -> Result<(), Error> {
    loop {
        let data = stream.pop().await?;
        if data.is_empty() {
            return Ok(());
        }
        stream.push(data).await?;
    }
}

/// Accepts for ever; each connection has a task.
async fn echo_with_tasks(libos: LibOs, mut listener: TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        libos.spawn(async move {
            echo(&stream).await.unwrap();
            stream.close().await.unwrap();
        });
    }
}

/// One kernel client a size, all at once; each reads back what it sent to the end of the stream.
fn echo_clients(address: SocketAddr) {
    thread::scope(|scope| {
        for (seed, size) in SIZES.into_iter().enumerate() {
            scope.spawn(move || {
                let stream = link::connect(address);
                let message = Noise::bytes(seed as u64, size);
                let answer = thread::scope(|scope| {
                    scope.spawn(|| {
                        (&stream).write_all(&message).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    let mut answer = Vec::new();
                    (&stream).read_to_end(&mut answer).unwrap();
                    answer
                });
                assert!(answer == message, "{size} bytes to {address}: {} others came back", answer.len());
            });
        }
    });
}

#[test]
fn an_echo_server_with_tokens_serves_kernel_clients_of_both_families() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let addresses = Family::BOTH.map(|family| family.catnip(PORT));
        let clients = thread::spawn(move || addresses.map(echo_clients));
        echo_with_tokens(&libos, &addresses, addresses.len() * SIZES.len());
        link::drive_until_joined(&libos, clients);
    });
}

#[test]
fn an_echo_server_of_tasks_serves_kernel_clients_of_both_families() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let addresses = Family::BOTH.map(|family| family.catnip(PORT));
        for address in addresses {
            let listener = TcpListener::bind(&libos, address).unwrap();
            libos.spawn(echo_with_tasks(libos.clone(), listener));
        }
        let clients = thread::spawn(move || addresses.map(echo_clients));
        link::drive_until_joined(&libos, clients);
        libos.abort_tasks();
    });
}

#[test]
fn a_listener_on_the_unspecified_address_serves_every_address_of_its_family() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for any in ["0.0.0.0:7", "[::]:7"] {
            let listener = TcpListener::bind(&libos, any.parse().unwrap()).unwrap();
            libos.spawn(echo_with_tasks(libos.clone(), listener));
        }
        let clients = thread::spawn(|| {
            Family::BOTH.map(|family| link::exchange(&link::connect(family.catnip(PORT)), b"hello"))
        });
        assert_eq!(link::drive_until_joined(&libos, clients), [b"hello", b"hello"]);
        libos.abort_tasks();
    });
}

#[test]
fn a_datagram_server_of_tasks_answers_kernel_clients_of_both_families() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for family in Family::BOTH {
            let socket = UdpSocket::bind(&libos, family.catnip(PORT)).unwrap();
            libos.spawn(async move {
                let mut datagram = [0; 2048];
                loop {
                    let (len, from) = socket.recv_from(&mut datagram).await.unwrap();
                    assert_eq!(from.ip(), family.kernel(0).ip());
                    socket.send_to(&datagram[..len], from).await.unwrap();
                }
            });
        }
        let clients = thread::spawn(|| {
            for family in Family::BOTH {
                let socket = link::datagrams(family.kernel(0), family.catnip(PORT));
                for round in 0..100_u8 {
                    let mut answer = [0; 8];
                    socket.send(&[round; 5]).unwrap();
                    assert_eq!(socket.recv(&mut answer).unwrap(), 5);
                    assert_eq!(answer[..5], [round; 5]);
                }
            }
        });
        link::drive_until_joined(&libos, clients);
        libos.abort_tasks();
    });
}
