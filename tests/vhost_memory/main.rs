//! A program whose global allocator is memory that the other process can map: what it pushes crosses the link without having been
//! copied on its side, and what it receives was not either.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../vhost/pair.rs"]
#[allow(dead_code, reason = "shared with the tests of the link, which use all of it")]
mod pair;

use std::time::Duration;

use catnip_os::libos::LibOs;
use catnip_os::libos::memory::GlobalAllocator;
use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use pair::End;

#[global_allocator]
static MEMORY: GlobalAllocator = GlobalAllocator::new().shared();

const PORT: u16 = 7;
const LONGEST: Duration = Duration::from_secs(60);
/// From a byte to many segments.
const SIZES: [usize; 9] = [1, 63, 64, 127, 1000, 1460, 20_000, 65_536, 1_000_000];

fn message(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + (at >> 8) + size) as u8).collect()
}

/// Compares what comes with what the other end sends, without a reply: the front end is all that sends payload.
async fn check(libos: &LibOs) {
    let address = End::Back.address(PORT);
    let datagrams = UdpSocket::bind(libos, address).unwrap();
    let mut listener = TcpListener::bind(libos, address).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut expected: Vec<u8> = SIZES.into_iter().flat_map(message).collect();
    while !expected.is_empty() {
        let data = stream.pop().await.unwrap().to_vec();
        assert!(!data.is_empty() && expected.starts_with(&data), "{} bytes were left", expected.len());
        expected.drain(..data.len());
    }
    for size in SIZES.into_iter().filter(|&size| size <= 20_000) {
        let (data, from) = datagrams.pop().await.unwrap();
        assert!(data.to_vec() == message(size), "a datagram of {size}");
        datagrams.push_to(vec![1; 1], from.unwrap()).await.unwrap();
    }
    stream.close().await.unwrap();
    libos.sleep(Duration::from_millis(100)).await;
}

async fn send(libos: &LibOs) {
    let peer = End::Back.address(PORT);
    let stream = TcpStream::connect(libos, peer).await.unwrap();
    for size in SIZES {
        // Once as a vector, once as `Bytes`, and dropped by us at once.
        if size % 2 == 0 {
            stream.push(message(size)).await.unwrap();
        } else {
            stream.push(bytes::Bytes::from(message(size))).await.unwrap();
        }
    }
    let datagrams = UdpSocket::bind(libos, End::Front.address(PORT)).unwrap();
    for size in SIZES.into_iter().filter(|&size| size <= 20_000) {
        datagrams.push_to(message(size), peer).await.unwrap();
        datagrams.pop().await.unwrap();
    }
    // Until everything was taken.
    assert!(stream.pop().await.unwrap().is_empty());
}

#[test]
fn vectors_and_bytes_of_the_global_allocator_are_sent_where_they_are() {
    for (case, shares) in [("0", "true"), ("1", "false")] {
        pair::run(
            case,
            |socket, other| {
                let libos = pair::open(socket, End::Front, &[("vhost.share_registered", shares)]);
                libos.block_on(libos.timeout(LONGEST, send(&libos))).unwrap().unwrap();
                let metrics = libos.metrics().unwrap();
                let copied = metrics.value("catnip.device.tx_copied_frames");
                if shares == "true" {
                    assert_eq!(copied, 0, "{metrics}");
                    assert_eq!(metrics.value("global_allocator.fallback_allocations"), 0);
                } else {
                    assert!(copied > SIZES.len() as u64, "{copied}: the counter says when there are copies");
                }
                assert_eq!(metrics.value("catnip.device.rx_copied_frames"), 0);
                other.join();
            },
            |socket| {
                let libos = pair::open(socket, End::Back, &[]);
                libos.block_on(libos.timeout(LONGEST, check(&libos))).unwrap().unwrap();
            },
        );
    }
}
