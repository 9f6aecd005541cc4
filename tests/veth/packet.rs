//! Packet sockets.

use std::net::UdpSocket as KernelSocket;
use std::thread;
use std::time::Duration;

use catnip_os::libos::net::{TcpStream, UdpSocket};
use catnip_os::libos::{Config, Error};

use crate::link::{self, Family};
use crate::noise::Noise;
use crate::transfer::{FLOWS, transfer};
use crate::{echo, idleness, namespace, pair};

const PORT: u16 = 5010;

fn config() -> Config {
    pair::config("packet")
}

/// With a ring: fewer system calls, and its latency.
fn with_ring() -> Config {
    config().set("packet.ring_kib", 8192)
}

fn transfer_all(what: &str, config: &Config, mtu: usize) {
    pair::make(mtu);
    let libos = link::open(config);
    for family in Family::BOTH {
        for flow in FLOWS {
            transfer(&libos, family, flow, what);
        }
    }
    assert!(link::metric(&libos, "catnip.device.rx_copied_bytes") > 0);
}

#[test]
fn bulk_arrives_unchanged_both_ways_with_offloads() {
    namespace::enter("-Urn", || transfer_all("packet socket, offloads", &config(), 1500));
}

#[test]
fn bulk_arrives_unchanged_both_ways_without_offloads() {
    namespace::enter("-Urn", || {
        transfer_all("packet socket, no offloads", &config().set("packet.offload", false), 1500);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_large_frames() {
    namespace::enter("-Urn", || {
        transfer_all("packet socket, large frames", &config().set("packet.offload", false), 9000);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_with_a_ring() {
    namespace::enter("-Urn", || transfer_all("packet socket, ring", &with_ring(), 1500));
}

#[test]
fn datagrams_come_back_unchanged() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        let libos = link::open(&config());
        for family in Family::BOTH {
            let socket = UdpSocket::bind(&libos, family.catnip(PORT)).unwrap();
            libos.spawn(async move {
                loop {
                    let (data, from) = socket.pop().await.unwrap();
                    socket.push_to(data, from.unwrap()).await.unwrap();
                }
            });
            let client = thread::spawn(move || {
                let socket = link::datagrams(family.kernel(0), family.catnip(PORT));
                let noise = Noise::bytes(1, 20_000);
                let mut answer = [0; 20_001];
                // The largest goes in fragments.
                for size in [0, 1, 17, 64, 1000, 1452, 1472, 20_000] {
                    socket.send(&noise[..size]).unwrap();
                    let len = socket.recv(&mut answer).unwrap();
                    assert!(answer[..len] == noise[..size], "{family:?}, {size} bytes: {len} others");
                }
            });
            link::drive_until_joined(&libos, client);
        }
        libos.abort_tasks();
    });
}

#[test]
fn a_library_os_with_an_address_of_its_own_shares_an_interface_with_the_kernel() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        // The kernel lives on our end too, at another IP address and another Ethernet address.
        pair::run("ip address add 10.5.0.3/24 dev veth-ours");
        let libos = link::open(&config().set("packet.mac", "02:00:00:00:00:42"));
        let address = Family::V4.catnip(PORT);
        echo::exchange(&libos, address, 1 << 20, "an address of its own");
    });
}

#[test]
fn a_wait_that_sleeps_is_woken_by_a_frame() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for config in [config(), with_ring()] {
            let libos = link::open(&config.set("libos.idle", "sleep"));
            let address = Family::V4.catnip(PORT);
            let socket = UdpSocket::bind(&libos, address).unwrap();
            libos.spawn(async move {
                loop {
                    let (data, from) = socket.pop().await.unwrap();
                    socket.push_to(data, from.unwrap()).await.unwrap();
                }
            });
            let client = thread::spawn(move || {
                let socket = link::datagrams(Family::V4.kernel(0), address);
                for number in 0..100_u32 {
                    let mut answer = [0; 4];
                    socket.send(&number.to_le_bytes()).unwrap();
                    socket.recv(&mut answer).unwrap();
                    assert_eq!(answer, number.to_le_bytes());
                }
            });
            link::drive_until_joined(&libos, client);
            assert!(link::metric(&libos, "libos.sleeps") > 0);
            libos.abort_tasks();
        }
    });
}

#[test]
fn idle_connections_cost_next_to_nothing_and_a_packet_one_wake_up() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for (idle, config) in [("adaptive", config()), ("sleep", config()), ("adaptive", with_ring())] {
            let libos = link::open(&config.set("libos.idle", idle));
            idleness::costs_next_to_nothing_and_a_packet_costs_one_wake_up(
                &libos,
                &format!("packet socket, {idle}"),
            );
        }
    });
}

#[test]
fn garbage_is_dropped_and_what_follows_arrives() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        let libos = link::open(&config());
        let mut sender = pair::RawSender::open(pair::KERNEL);
        for (number, size) in [14, 15, 33, 60, 600, 1514].into_iter().cycle().take(3000).enumerate() {
            let mut frame = Noise::bytes(number as u64, size);
            if number % 2 == 0 {
                // For everybody, and seemingly of IP.
                frame[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 0]);
            }
            sender.send(&frame);
        }
        echo::exchange(&libos, Family::V4.catnip(PORT), 1 << 20, "after garbage");
    });
}

#[test]
fn an_interface_that_goes_away_fails_what_waits() {
    namespace::enter("-Urn", || {
        for (idle, config) in [("sleep", config()), ("spin", config()), ("sleep", with_ring())] {
            pair::make(1500);
            let libos = link::open(&config.set("libos.idle", idle));
            let socket = UdpSocket::bind(&libos, Family::V4.catnip(PORT)).unwrap();
            let remover = thread::spawn(|| {
                thread::sleep(Duration::from_millis(200));
                pair::run("ip link delete veth-kernel");
            });
            let failed = link::run(&libos, async { socket.pop().await.map(drop) });
            assert_eq!(failed, Err(Error::DeviceFailed), "{idle}");
            remover.join().unwrap();
            let connected =
                link::run(&libos, async { TcpStream::connect(&libos, Family::V4.kernel(9)).await.map(drop) });
            assert_eq!(connected, Err(Error::DeviceFailed), "{idle}");
        }
    });
}

#[test]
fn a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for config in [config(), with_ring()] {
            let libos = link::open(&config);
            let address = Family::V4.catnip(PORT);
            let server = echo::spawn_server(&libos, address);
            let client = thread::spawn(move || {
                let stream = link::connect(address);
                assert_eq!(link::exchange(&stream, b"before"), b"before");
                pair::run("ip link set veth-ours down");
                thread::sleep(Duration::from_millis(300));
                pair::run("ip link set veth-ours up");
                assert_eq!(link::exchange(&stream, b"after"), b"after");
            });
            link::drive_until_joined(&libos, client);
            assert_eq!(link::run(&libos, server), Ok(Ok(())));
        }
    });
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line() {
    namespace::enter("-Urn", || {
        let said = |config: &Config| catnip_os::open(config).map(drop).unwrap_err().to_string();
        let line = said(&config());
        assert!(line.starts_with("veth-ours: RTM_GETLINK: there is no such interface"), "{line}");
        pair::make(1500);
        let line = said(&config().set("packet.mtu", 1501));
        assert!(line.contains("packet.mtu = 1501: allowed is at most the 1500 bytes of veth-ours"), "{line}");
        let line = said(&config().set("packet.interface", "lo"));
        assert!(line.contains("packet.mac"), "{line}");
        pair::run("ip link set veth-ours down");
        let line = said(&config());
        assert!(line.contains("the interface is down"), "{line}");
    });
}

#[test]
fn a_user_without_rights_is_told_what_to_do() {
    namespace::enter("-U", || {
        // The machine's own first interface besides the loopback, or else that: neither may be opened.
        let line =
            catnip_os::open(&config().set("packet.interface", "lo").set("packet.mac", "02:00:00:00:00:01"))
                .map(drop)
                .unwrap_err()
                .to_string();
        assert!(line.contains("socket(AF_PACKET)") && line.contains("CAP_NET_RAW"), "{line}");
    });
}

/// A datagram that the kernel's end sends while nobody has asked for it yet.
#[test]
fn what_came_before_anybody_waited_is_there() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        let libos = link::open(&config());
        let address = Family::V4.catnip(PORT);
        let socket = UdpSocket::bind(&libos, address).unwrap();
        let sender = thread::spawn(move || {
            let socket = KernelSocket::bind(Family::V4.kernel(0)).unwrap();
            for number in 0..200_u32 {
                socket.send_to(&number.to_le_bytes(), address).unwrap();
            }
        });
        // The first waits for the neighbour's address.
        link::drive_until_joined(&libos, sender);
        link::run(&libos, async {
            let (first, _) = socket.pop().await.unwrap();
            assert_eq!(first.to_vec().len(), 4);
        });
    });
}
