//! Echo between two processes: datagrams of all sizes, and streams compared byte by byte.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{LibOs, Shutdown};
use futures_util::future;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::pair::{self, End};

const PORT: u16 = 7;
const DATAGRAMS: usize = 500;
const STREAM_BYTES: usize = 8 << 20;
const LONGEST: Duration = Duration::from_secs(60);

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Sends everything back that the other end sends, until its stream ends.
fn serve(libos: &LibOs, address: SocketAddr) {
    let datagrams = UdpSocket::bind(libos, address).unwrap();
    let mut listener = TcpListener::bind(libos, address).unwrap();
    libos.spawn(async move {
        while let Ok((data, Some(from))) = datagrams.pop().await {
            datagrams.push_to(data, from).await.unwrap();
        }
    });
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        loop {
            let data = stream.pop().await.unwrap();
            if data.is_empty() {
                break;
            }
            stream.push(data).await.unwrap();
        }
        stream.close().await.unwrap();
        // The last acknowledgment, before the link goes.
        libos.sleep(Duration::from_millis(100)).await;
    };
    libos.block_on(libos.timeout(LONGEST, serving)).unwrap().unwrap();
}

/// Sends datagrams and a stream, and compares what comes back.
fn ask(libos: &LibOs, local: SocketAddr, peer: SocketAddr) {
    let asking = async {
        let datagrams = UdpSocket::bind(libos, local).unwrap();
        for round in 0..DATAGRAMS {
            let sent = noise(round as u64, [0, 1, 18, 64, 700, 1472, 1473, 9000][round % 8]);
            datagrams.push_to(sent.clone(), peer).await.unwrap();
            let (data, from) = datagrams.pop().await.unwrap();
            assert!(data.to_vec() == sent, "datagram {round}");
            assert_eq!(from, Some(peer));
        }
        let stream = TcpStream::connect(libos, peer).await.unwrap();
        let sent = noise(1, STREAM_BYTES);
        let mut received = Vec::with_capacity(STREAM_BYTES);
        let sending = async {
            for piece in sent.chunks(100_000) {
                stream.push(piece.to_vec()).await.unwrap();
            }
            stream.shutdown(Shutdown::Write).unwrap();
        };
        let receiving = async {
            loop {
                let data = stream.pop().await.unwrap();
                if data.is_empty() {
                    break;
                }
                received.extend_from_slice(&data.to_vec());
            }
        };
        future::join(sending, receiving).await;
        assert!(received == sent, "the stream");
        stream.close().await.unwrap();
    };
    libos.block_on(libos.timeout(LONGEST, asking)).unwrap().unwrap();
}

fn echo(socket: &Path, end: End, asks: bool, further: &[(&str, &str)]) -> LibOs {
    let libos = pair::open(socket, end, further);
    if asks {
        ask(&libos, end.address(PORT), end.other().address(PORT));
    } else {
        serve(&libos, end.address(PORT));
    }
    libos
}

/// All of what can be chosen: rings, who asks, who makes the socket, what is offloaded, how a wait idles.
const CASES: [(End, &[(&str, &str)]); 6] = [
    (End::Front, &[("vhost.ring", "split"), ("libos.idle", "adaptive")]),
    (End::Back, &[("vhost.ring", "split"), ("libos.idle", "sleep")]),
    (End::Front, &[("vhost.ring", "packed"), ("libos.idle", "sleep")]),
    (End::Back, &[("vhost.ring", "packed"), ("libos.idle", "adaptive")]),
    (End::Front, &[("vhost.offload", "false"), ("vhost.queue_size", "16")]),
    (End::Back, &[("vhost.offload", "false"), ("vhost.mtu", "9000"), ("vhost.ring", "split")]),
];

#[test]
fn everything_comes_back_between_two_processes() {
    for (index, (asking, further)) in CASES.into_iter().enumerate() {
        pair::run(
            &index.to_string(),
            |socket, other| {
                let libos = echo(socket, asking, true, further);
                let metrics = libos.metrics().unwrap();
                let device = |name: &str| {
                    metrics.iter().find(|(key, _)| key.ends_with(name)).map(|(_, metric)| metric.value())
                };
                assert!(device("tx_frames") > Some(DATAGRAMS as u64), "{metrics}");
                let reaches = u64::from(asking == End::Front);
                assert_eq!(device("device.zero_copy"), Some(reaches), "a back end copies");
                if asking == End::Front {
                    assert_eq!(
                        device("rx_copied_frames"),
                        Some(0),
                        "what a front end receives is not copied"
                    );
                }
                other.join();
            },
            |socket| drop(echo(socket, asking.other(), false, further)),
        );
    }
}
