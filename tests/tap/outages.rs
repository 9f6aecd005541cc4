//! Links that lose frames, go down and come back, neighbours that are asked again, and devices that go away.

use std::thread;
use std::time::{Duration, Instant};

use catnip_os::libos::Error;
use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};

use crate::echo;
use crate::link::{self, Family};
use crate::namespace;

const PORT: u16 = 5008;

#[test]
fn what_a_short_queue_of_the_kernel_loses_is_sent_again() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config().set("tap.offload", false));
        // The kernel drops what does not fit in here while the library OS is busy elsewhere.
        link::command("ip link set tap-test txqueuelen 16");
        for family in Family::BOTH {
            echo::exchange(&libos, family.catnip(PORT), 1 << 20, &format!("{family:?}"));
        }
        assert!(link::metric(&libos, "catnip.tcp.out_of_order") > 0, "nothing was lost");
    });
}

#[test]
fn a_connection_outlives_a_link_that_goes_down_and_comes_back() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let address = Family::V4.catnip(PORT);
        let server = echo::spawn_server(&libos, address);
        let client = thread::spawn(move || {
            let stream = link::connect(address);
            assert_eq!(link::exchange(&stream, b"before"), b"before");
            link::command("ip link set tap-test down");
            let blackout = thread::spawn(|| {
                thread::sleep(Duration::from_millis(500));
                link::command("ip link set tap-test up");
                // An address of IPv4 stays with the link; the route to it comes back too.
            });
            assert_eq!(link::exchange(&stream, b"during"), b"during");
            blackout.join().unwrap();
        });
        link::drive_until_joined(&libos, client);
        assert_eq!(link::run(&libos, server), Ok(Ok(())));
    });
}

#[test]
fn what_catnip_sends_into_a_link_that_is_down_arrives_when_it_is_up_again() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        let address = Family::V4.catnip(PORT);
        let client = thread::spawn(move || {
            let stream = link::connect(address);
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut &stream, &mut bytes).unwrap();
            bytes.len()
        });
        link::run(&libos, async {
            let mut listener = TcpListener::bind(&libos, address).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            link::command("ip link set tap-test down");
            for _ in 0..10 {
                let data = libos.arena().copy_from(&[5; 10_000]).unwrap().freeze();
                stream.push(data).await.unwrap();
            }
            libos.sleep(Duration::from_millis(300)).await;
            link::command("ip link set tap-test up");
            stream.close().await.unwrap();
        });
        assert_eq!(link::drive_until_joined(&libos, client), 100_000);
        assert!(link::metric(&libos, "catnip.tcp.retransmitted_segments") > 0);
    });
}

#[test]
fn a_neighbour_that_is_asked_again_and_again_costs_no_datagram() {
    const ROUNDS: u32 = 400;
    namespace::enter("-Urn", || {
        let config = link::config().set("neighbor.reachable_ms", 30).set("neighbor.probe_delay_ms", 10);
        let libos = link::open(&config);
        for family in Family::BOTH {
            let address = family.catnip(PORT);
            let socket = UdpSocket::bind(&libos, address).unwrap();
            let echo = libos.spawn(async move {
                loop {
                    let (data, from) = socket.pop().await.unwrap();
                    socket.push_to(data, from.unwrap()).await.unwrap();
                }
            });
            let client = thread::spawn(move || {
                let socket = link::datagrams(family.kernel(0), address);
                for round in 0..ROUNDS {
                    let mut answer = [0; 4];
                    socket.send(&round.to_le_bytes()).unwrap();
                    socket.recv(&mut answer).unwrap();
                    assert_eq!(answer, round.to_le_bytes(), "{family:?}");
                    thread::sleep(Duration::from_millis(1));
                }
            });
            link::drive_until_joined(&libos, client);
            echo.abort();
        }
        assert!(link::metric(&libos, "catnip.network.arp_out_packets") > 5, "nobody was asked again");
    });
}

#[test]
fn when_the_device_is_deleted_everything_ends_with_an_error_and_nothing_spins() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config().set("libos.idle", "sleep"));
        let address = Family::V4.catnip(PORT);
        let client = thread::spawn(move || link::connect(address));
        link::run(&libos, async {
            let mut listener = TcpListener::bind(&libos, address).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let _client = link::joined(&libos, client).await;
            link::command("ip link delete tap-test");
            assert_eq!(stream.pop().await.map(drop), Err(Error::DeviceFailed));
            let connect = TcpStream::connect(&libos, Family::V4.kernel(9)).await.map(drop);
            assert_eq!(connect, Err(Error::DeviceFailed));
            let polls = link::metric(&libos, "libos.polls");
            let start = Instant::now();
            libos.sleep(Duration::from_millis(300)).await;
            let spun = link::metric(&libos, "libos.polls") - polls;
            assert!(spun < 100, "{spun} polls in {:?}", start.elapsed());
        });
    });
}
