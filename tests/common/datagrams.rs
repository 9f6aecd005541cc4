//! Datagrams to the library OS and back, for tests whose matter is the device between.

use std::net::SocketAddr;
use std::thread;

use catnip_os::libos::LibOs;
use catnip_os::libos::net::UdpSocket;

use crate::link::{self, Family};
use crate::noise::Noise;

/// Sends every datagram back.
pub fn spawn_echo(libos: &LibOs, address: SocketAddr) {
    let socket = UdpSocket::bind(libos, address).unwrap();
    libos.spawn(async move {
        loop {
            let (data, from) = socket.pop().await.unwrap();
            socket.push_to(data, from.unwrap()).await.unwrap();
        }
    });
}

/// A kernel client sends a datagram of each size, and it comes back unchanged.
pub fn come_back_unchanged(
    libos: &LibOs,
    family: Family,
    port: u16,
    sizes: impl IntoIterator<Item = usize> + Send + 'static,
) {
    spawn_echo(libos, family.catnip(port));
    let client = thread::spawn(move || {
        let socket = link::datagrams(family.kernel(0), family.catnip(port));
        let mut answer = vec![0; 1 << 16];
        for size in sizes {
            let noise = Noise::bytes(1, size);
            socket.send(&noise).unwrap();
            let len = socket.recv(&mut answer).unwrap();
            assert!(answer[..len] == noise, "{family:?}, {size} bytes: {len} others");
        }
    });
    link::drive_until_joined(libos, client);
}

/// A kernel client sends so many datagrams, each when the one before came back, to a library OS that sleeps in between.
pub fn are_answered_in_turn_from_sleep(libos: &LibOs, port: u16, count: u32) {
    let address = Family::V4.catnip(port);
    spawn_echo(libos, address);
    let client = thread::spawn(move || {
        let socket = link::datagrams(Family::V4.kernel(0), address);
        for number in 0..count {
            let mut answer = [0; 4];
            socket.send(&number.to_le_bytes()).unwrap();
            socket.recv(&mut answer).unwrap();
            assert_eq!(answer, number.to_le_bytes());
        }
    });
    link::drive_until_joined(libos, client);
    assert!(link::metric(libos, "libos.sleeps") > 0);
    libos.abort_tasks();
}
