//! One exchange over one connection, for tests whose matter is what is between the two ends.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread::{self, JoinHandle};

use catnip_os::libos::net::TcpListener;
use catnip_os::libos::{Error, JoinHandle as TaskHandle, LibOs};

use crate::link;
use crate::noise::{Noise, Sum, Summer};

/// A task that sends all of the next connection back.
pub fn spawn_server(libos: &LibOs, address: SocketAddr) -> TaskHandle<Result<(), Error>> {
    let mut listener = TcpListener::bind(libos, address).unwrap();
    libos.spawn(async move {
        let (stream, _) = listener.accept().await?;
        loop {
            let data = stream.pop().await?;
            if data.is_empty() {
                return stream.close().await;
            }
            stream.push(data).await?;
        }
    })
}

/// A kernel client that sends noise and returns the sums of what it sent and of what came back.
pub fn spawn_client(address: SocketAddr, bytes: usize) -> JoinHandle<(Sum, Sum)> {
    thread::spawn(move || {
        let stream = link::connect(address);
        let sum = |bytes: &[u8]| {
            let mut summer = Summer::default();
            summer.add(bytes);
            summer.sum()
        };
        thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let sent = Noise::bytes(1, bytes);
                (&stream).write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                sum(&sent)
            });
            let mut received = Vec::with_capacity(bytes);
            (&stream).read_to_end(&mut received).unwrap();
            (sender.join().unwrap(), sum(&received))
        })
    })
}

/// A kernel client sends so many bytes, and they come back.
pub fn exchange(libos: &LibOs, address: SocketAddr, bytes: usize, what: &str) {
    let server = spawn_server(libos, address);
    let (sent, received) = link::drive_until_joined(libos, spawn_client(address, bytes));
    assert_eq!(received, sent, "{what}");
    assert_eq!(link::run(libos, server), Ok(Ok(())), "{what}");
}
