//! Datagrams of all sizes, and those that find nobody.

use std::io::ErrorKind;
use std::net::UdpSocket as KernelSocket;
use std::thread;

use catnip_os::libos::Error;
use catnip_os::libos::net::UdpSocket;

use crate::link::{self, Family};
use crate::{datagrams, namespace};

const PORT: u16 = 5005;
const MTU: usize = 1500;

impl Family {
    /// The largest datagram that one packet carries.
    fn largest_datagram(self) -> usize {
        match self {
            Self::V4 => MTU - 20 - 8,
            Self::V6 => MTU - 40 - 8,
        }
    }
}

#[test]
fn datagrams_of_every_size_come_back_unchanged() {
    namespace::enter("-Urn", || {
        for offload in [true, false] {
            let libos = link::open(&link::config().set("tap.offload", offload));
            for family in Family::BOTH {
                datagrams::come_back_unchanged(&libos, family, PORT, 0..=family.largest_datagram());
            }
            libos.abort_tasks();
        }
    });
}

#[test]
fn a_datagram_that_no_packet_carries_is_refused_and_the_next_goes() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let receiver = KernelSocket::bind(Family::V4.kernel(0)).unwrap();
        let address = receiver.local_addr().unwrap();
        let received = thread::spawn(move || receiver.recv(&mut [0; MTU]).unwrap());
        link::run(&libos, async {
            let socket = UdpSocket::bind(&libos, Family::V4.catnip(0)).unwrap();
            let too_long = socket.send_to(&[0; 65_508], address).await;
            assert_eq!(too_long, Err(Error::MessageTooLong));
            socket.send_to(b"fits", address).await.unwrap();
        });
        assert_eq!(link::drive_until_joined(&libos, received), 4);
    });
}

#[test]
fn the_kernel_learns_that_nobody_is_at_a_port() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for family in Family::BOTH {
            let client = thread::spawn(move || {
                let socket = link::datagrams(family.kernel(0), family.catnip(9));
                socket.send(b"anybody there?").unwrap();
                socket.recv(&mut [0; 8]).unwrap_err().kind()
            });
            let error = link::drive_until_joined(&libos, client);
            assert_eq!(error, ErrorKind::ConnectionRefused, "{family:?}");
        }
    });
}

#[test]
fn a_flood_that_nobody_reads_is_dropped_within_limits_and_the_socket_goes_on() {
    const FLOOD: usize = 20_000;
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let address = Family::V4.catnip(PORT);
        let socket = UdpSocket::bind(&libos, address).unwrap();
        let flood = thread::spawn(move || {
            let sender = link::datagrams(Family::V4.kernel(0), address);
            for _ in 0..FLOOD {
                sender.send(&[0; 1000]).unwrap();
            }
        });
        link::drive_until_joined(&libos, flood);
        let used_bytes = link::metric(&libos, "arena.used_bytes");
        assert!(used_bytes < 16 << 20, "{used_bytes} bytes are held");
        let answer = thread::spawn(move || {
            let sender = link::datagrams(Family::V4.kernel(0), address);
            sender.send(b"last").unwrap();
        });
        link::run(&libos, async {
            // What was queued before the limit comes first.
            let mut datagram = [0; 1000];
            let mut count = 0;
            while socket.recv(&mut datagram).await.unwrap() != 4 {
                count += 1;
                assert!(count < FLOOD, "nothing was dropped");
            }
        });
        link::drive_until_joined(&libos, answer);
    });
}
