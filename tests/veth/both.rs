//! What packet sockets and XDP sockets have in common: a test of each runs these with its own configuration.

use std::thread;
use std::time::Duration;

use catnip_os::libos::net::{TcpStream, UdpSocket};
use catnip_os::libos::{Config, Error, LibOs};

use crate::link::{self, Family};
use crate::noise::Noise;
use crate::transfer::{FLOWS, transfer};
use crate::{datagrams, echo, pair};

const PORT: u16 = 5010;

/// Streams of both families and in each direction, compared by hash.
pub fn transfer_all(libos: &LibOs, what: &str) {
    for family in Family::BOTH {
        for flow in FLOWS {
            transfer(libos, family, flow, what);
        }
    }
}

/// Datagrams of both families and of many sizes; the largest goes in fragments.
pub fn datagrams_come_back_unchanged(libos: &LibOs) {
    for family in Family::BOTH {
        datagrams::come_back_unchanged(libos, family, PORT, [0, 1, 17, 64, 1000, 1452, 1472, 20_000]);
    }
    libos.abort_tasks();
}

pub fn a_wait_that_sleeps_is_woken_by_a_frame(config: &Config) {
    let libos = link::open(&config.clone().set("libos.idle", "sleep"));
    datagrams::are_answered_in_turn_from_sleep(&libos, PORT, 100);
}

/// Frames of any bytes, and then a connection.
pub fn garbage_is_dropped_and_what_follows_arrives(libos: &LibOs) {
    let mut sender = pair::RawSender::open(pair::KERNEL);
    for (number, size) in [14, 15, 33, 60, 600, 1514].into_iter().cycle().take(3000).enumerate() {
        let mut frame = Noise::bytes(number as u64, size);
        if number % 2 == 0 {
            // For everybody, and seemingly of IP.
            frame[..14].copy_from_slice(&[255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 9, 8, 0]);
        }
        sender.send(&frame);
    }
    echo::exchange(libos, Family::V4.catnip(PORT), 1 << 20, "after garbage");
}

/// The pair is deleted while a pop waits.
pub fn an_interface_that_goes_away_fails_what_waits(config: &Config) {
    let libos = link::open(config);
    let socket = UdpSocket::bind(&libos, Family::V4.catnip(PORT)).unwrap();
    let remover = thread::spawn(|| {
        thread::sleep(Duration::from_millis(200));
        link::command("ip link delete veth-kernel");
    });
    let failed = link::run(&libos, async { socket.pop().await.map(drop) });
    assert_eq!(failed, Err(Error::DeviceFailed), "{config:?}");
    remover.join().unwrap();
    let connected =
        link::run(&libos, async { TcpStream::connect(&libos, Family::V4.kernel(9)).await.map(drop) });
    assert_eq!(connected, Err(Error::DeviceFailed), "{config:?}");
}

pub fn a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile(config: &Config) {
    let libos = link::open(config);
    let address = Family::V4.catnip(PORT);
    let server = echo::spawn_server(&libos, address);
    let client = thread::spawn(move || {
        let stream = link::connect(address);
        assert_eq!(link::exchange(&stream, b"before"), b"before");
        link::command("ip link set veth-ours down");
        thread::sleep(Duration::from_millis(300));
        link::command("ip link set veth-ours up");
        assert_eq!(link::exchange(&stream, b"after"), b"after");
    });
    link::drive_until_joined(&libos, client);
    assert_eq!(link::run(&libos, server), Ok(Ok(())));
}

/// What opening says in its one line of refusal.
pub fn refusal(config: &Config) -> String {
    catnip_os::open(config).map(drop).unwrap_err().to_string()
}
