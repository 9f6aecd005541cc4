//! Datagram sockets.

use std::time::Duration;

use super::{address, libos};
use crate::Error;
use crate::net::UdpSocket;

#[test]
fn datagrams_arrive_whole_with_their_sender() {
    let libos = libos(0);
    libos
        .block_on(async {
            let server = UdpSocket::bind(&libos, address(7)).unwrap();
            let client = UdpSocket::bind(&libos, address(8)).unwrap();
            for text in ["one", "", "three"] {
                assert_eq!(client.send_to(text.as_bytes(), address(7)).await, Ok(text.len()));
            }
            let mut bytes = [0; 4];
            for expected in ["one", "", "thre"] {
                let (len, from) = server.recv_from(&mut bytes).await.unwrap();
                assert_eq!((&bytes[..len], from), (expected.as_bytes(), address(8)));
            }
        })
        .unwrap();
}

#[test]
fn a_connected_socket_sends_without_an_address() {
    let libos = libos(0);
    libos
        .block_on(async {
            let server = UdpSocket::bind(&libos, address(7)).unwrap();
            let client = UdpSocket::bind(&libos, address(8)).unwrap();
            client.connect(address(7)).await.unwrap();
            assert_eq!((client.local_addr(), client.peer_addr()), (Ok(address(8)), Ok(address(7))));
            client.send(b"question").await.unwrap();
            let (data, from) = server.pop().await.unwrap();
            server.push_to(data, from.unwrap()).await.unwrap();
            let mut bytes = [0; 100];
            assert_eq!(client.recv(&mut bytes).await, Ok(8));
            assert_eq!(&bytes[..8], b"question");
        })
        .unwrap();
}

#[test]
fn a_receive_that_timed_out_loses_no_datagram() {
    let libos = libos(0);
    libos
        .block_on(async {
            let server = UdpSocket::bind(&libos, address(7)).unwrap();
            let client = UdpSocket::bind(&libos, address(8)).unwrap();
            let mut bytes = [0; 8];
            let received = libos.timeout(Duration::from_millis(2), server.recv(&mut bytes)).await;
            assert_eq!(received, Err(Error::TimedOut));
            client.send_to(b"late", address(7)).await.unwrap();
            libos.sleep(Duration::from_millis(1)).await;
            assert_eq!(server.recv(&mut bytes).await, Ok(4));
        })
        .unwrap();
}
