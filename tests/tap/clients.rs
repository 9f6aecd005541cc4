//! The library OS as a client of the kernel's servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use catnip_os::libos::net::{TcpStream, UdpSocket};
use catnip_os::libos::{Domain, Error, Outcome, Shutdown, SocketKind, SocketOptionName};

use crate::link::{self, Family, PATIENCE};
use crate::namespace;
use crate::noise::Noise;

/// A kernel server that sends back all of one connection once it has ended.
fn serve_one(listener: &TcpListener) -> usize {
    let mut stream = link::accept(listener);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    bytes.len()
}

#[test]
fn streams_to_kernel_servers_carry_every_size_both_ways() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for family in Family::BOTH {
            let listener = TcpListener::bind(family.kernel(0)).unwrap();
            let address = listener.local_addr().unwrap();
            for size in [0, 1, 1448, 1449, 200_000] {
                let listener = listener.try_clone().unwrap();
                let server = thread::spawn(move || serve_one(&listener));
                let message = Noise::bytes(size as u64, size);
                let answer = link::run(&libos, async {
                    let stream = TcpStream::connect(&libos, address).await.unwrap();
                    assert_eq!(stream.peer_addr(), Ok(address));
                    if size > 0 {
                        let data = libos.arena().copy_from(&message).unwrap().freeze();
                        stream.push(data).await.unwrap();
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                    let mut answer = Vec::new();
                    loop {
                        let data = stream.pop().await.unwrap();
                        if data.is_empty() {
                            break;
                        }
                        answer.extend(data.to_vec());
                    }
                    answer
                });
                assert!(answer == message, "{size} bytes to {address}: {} others came back", answer.len());
                assert_eq!(link::drive_until_joined(&libos, server), size);
            }
        }
    });
}

#[test]
fn tokens_connect_push_and_pop_against_a_kernel_server() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let listener = TcpListener::bind(Family::V4.kernel(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let stream = link::accept(&listener);
            let mut request = [0; 4];
            (&stream).read_exact(&mut request).unwrap();
            (&stream).write_all(b"pong").unwrap();
            request
        });
        let wait = |token| libos.wait(token, Some(PATIENCE)).unwrap().outcome;
        let queue = libos.socket(Domain::Ipv4, SocketKind::Stream).unwrap();
        assert!(matches!(wait(libos.connect(queue, address).unwrap()), Outcome::Connected));
        let data = libos.arena().copy_from(b"ping").unwrap().freeze();
        assert!(matches!(wait(libos.push(queue, data).unwrap()), Outcome::Pushed));
        let outcome = wait(libos.pop(queue).unwrap());
        assert!(matches!(outcome, Outcome::Popped { data, .. } if data.to_vec() == b"pong"));
        assert!(matches!(wait(libos.close(queue).unwrap()), Outcome::Closed));
        assert_eq!(&link::drive_until_joined(&libos, server), b"ping");
    });
}

#[test]
fn a_port_that_nobody_listens_on_refuses_streams_and_datagrams() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for family in Family::BOTH {
            let closed = family.kernel(9);
            link::run(&libos, async {
                let refused = TcpStream::connect(&libos, closed).await.map(drop);
                assert_eq!(refused, Err(Error::ConnectionRefused), "{closed}");

                let socket = UdpSocket::bind(&libos, family.catnip(0)).unwrap();
                socket.connect(closed).await.unwrap();
                socket.send(b"anybody there?").await.unwrap();
                assert_eq!(socket.recv(&mut [0; 8]).await, Err(Error::ConnectionRefused), "{closed}");
                assert!(socket.option(SocketOptionName::PendingError).is_ok());
            });
        }
    });
}

#[test]
fn a_host_that_is_not_on_the_link_is_unreachable_and_harms_no_other() {
    namespace::enter("-Urn", || {
        let config = link::config().set("neighbor.retry_ms", 50);
        let libos = link::open(&config);
        let listener = TcpListener::bind(Family::V4.kernel(0)).unwrap();
        let address = listener.local_addr().unwrap();
        let absent: SocketAddr = "10.5.0.77:80".parse().unwrap();
        let away: SocketAddr = "192.0.2.1:80".parse().unwrap();
        link::run(&libos, async {
            let lost = libos.spawn({
                let libos = libos.clone();
                async move { TcpStream::connect(&libos, absent).await.map(drop) }
            });
            TcpStream::connect(&libos, address).await.unwrap();
            assert_eq!(lost.await.unwrap(), Err(Error::HostUnreachable));
            let nowhere = TcpStream::connect(&libos, away).await.map(drop);
            assert_eq!(nowhere, Err(Error::NetworkUnreachable));
        });
    });
}
