//! The typed sockets on the stack: options that count before a socket listens, connects or is bound.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use catnip_os::libos::{Config, Domain, Error, GroupMembership, LibOs, SocketOption, SocketOptionName};

const FAMILIES: [(Domain, &str); 2] = [(Domain::Ipv4, "127.0.0.1:0"), (Domain::Ipv6, "[::1]:0")];

/// Runs `work` on a library OS whose sockets reach each other; what takes long has failed.
fn run<T, F: Future<Output = Result<T, Error>>>(work: impl FnOnce(LibOs) -> F) -> T {
    // What goes to a group has to come from an address that others could answer to.
    let config = Config::new().set("stack.addresses", ["192.0.2.1/24"]);
    let libos = catnip_os::open(&config).unwrap();
    let work = work(libos.clone());
    libos.block_on(libos.timeout(Duration::from_secs(10), work)).unwrap().unwrap().unwrap()
}

/// A bound socket that shares its port with others like it.
fn sharing(libos: &LibOs, local: SocketAddr) -> Result<TcpSocket, Error> {
    let socket = TcpSocket::new(libos, Domain::of(local))?;
    socket.set_option(SocketOption::ReusePort(true))?;
    socket.bind(local)?;
    Ok(socket)
}

async fn greet(stream: &TcpStream, listener: &mut TcpListener) -> Result<SocketAddr, Error> {
    let (accepted, peer) = listener.accept().await?;
    stream.push(b"hello".to_vec()).await?;
    assert_eq!(accepted.pop().await?.to_vec(), b"hello");
    Ok(peer)
}

#[test]
fn listeners_that_agree_share_a_port_and_others_do_not() {
    for (_, any) in FAMILIES {
        run(async |libos| {
            let first = sharing(&libos, any.parse().unwrap())?;
            let local = first.local_addr()?;
            let mut listeners = vec![first.listen(8)?];
            listeners.push(sharing(&libos, local)?.listen(8)?);
            assert_eq!(TcpListener::bind(&libos, local).map(drop), Err(Error::AddressInUse));

            let mut reached = BTreeSet::new();
            for _ in 0..64 {
                let stream = TcpStream::connect(&libos, local).await?;
                let peer = stream.local_addr()?;
                for (index, listener) in listeners.iter_mut().enumerate() {
                    if let Ok(accepted) = libos.timeout(Duration::from_millis(1), listener.accept()).await {
                        assert_eq!(accepted?.1, peer);
                        reached.insert(index);
                    }
                }
            }
            assert_eq!(reached, BTreeSet::from([0, 1]), "64 connections all went to one of two listeners");
            Ok(())
        });
    }
}

#[test]
fn a_stream_connects_from_the_address_and_with_the_options_that_it_was_given() {
    for (domain, any) in FAMILIES {
        run(async |libos| {
            let mut listener = TcpListener::bind(&libos, any.parse().unwrap())?;
            listener.set_option(SocketOption::NoDelay(true))?;
            assert_eq!(listener.option(SocketOptionName::NoDelay)?, SocketOption::NoDelay(true));

            let socket = TcpSocket::new(&libos, domain)?;
            socket.set_option(SocketOption::ReceiveBuffer(5_000))?;
            socket.bind(any.parse().unwrap())?;
            let local = socket.local_addr()?;
            assert_eq!(socket.option(SocketOptionName::ReceiveBuffer)?, SocketOption::ReceiveBuffer(5_000));
            let stream = socket.connect(listener.local_addr()?).await?;

            assert_eq!(stream.local_addr()?, local);
            assert_eq!(stream.option(SocketOptionName::ReceiveBuffer)?, SocketOption::ReceiveBuffer(5_000));
            assert_eq!(greet(&stream, &mut listener).await?, local);
            Ok(())
        });
    }
}

#[test]
fn a_socket_that_goes_unused_gives_its_port_back() {
    run(async |libos| {
        let socket = TcpSocket::new(&libos, Domain::Ipv4)?;
        socket.bind(FAMILIES[0].1.parse().unwrap())?;
        let local = socket.local_addr()?;
        assert_eq!(TcpListener::bind(&libos, local).map(drop), Err(Error::AddressInUse));
        drop(socket);
        TcpListener::bind(&libos, local).map(drop)
    });
}

#[test]
fn several_sockets_receive_what_goes_to_a_group_at_one_port() {
    run(async |libos| {
        let group = "239.1.2.3".parse().unwrap();
        let mut port = 0;
        let mut members = Vec::new();
        for _ in 0..3 {
            let socket = UdpSocket::unbound(&libos, Domain::Ipv4)?;
            socket.set_option(SocketOption::ReuseAddress(true))?;
            socket.bind_to(SocketAddr::from(([0, 0, 0, 0], port)))?;
            socket.set_option(SocketOption::JoinGroup(GroupMembership { group, interface: None }))?;
            port = socket.local_addr()?.port();
            members.push(socket);
        }
        let sender = UdpSocket::unbound(&libos, Domain::Ipv4)?;
        assert_eq!(sender.send_to(b"news", SocketAddr::new(group, port)).await?, 4);
        for member in &members {
            let mut room = [0; 8];
            let (count, from) = member.recv_from(&mut room).await?;
            assert_eq!((&room[..count], from.port()), (&b"news"[..], sender.local_addr()?.port()));
        }
        Ok(())
    });
}
