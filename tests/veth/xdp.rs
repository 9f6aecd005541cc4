//! XDP sockets.

use std::thread;
use std::time::Duration;

use catnip_os::libos::net::{TcpStream, UdpSocket};
use catnip_os::libos::{Config, Error};

use crate::link::{self, Family};
use crate::noise::Noise;
use crate::transfer::{FLOWS, transfer};
use crate::{echo, idleness, namespace, pair, root};

const PORT: u16 = 5011;

fn config() -> Config {
    pair::config("xdp")
}

fn make(mtu: usize) {
    pair::make(mtu);
    pair::compute_checksums();
}

fn transfer_all(what: &str, config: &Config, mtu: usize) {
    make(mtu);
    let libos = link::open(config);
    for family in Family::BOTH {
        for flow in FLOWS {
            transfer(&libos, family, flow, what);
        }
    }
    assert_eq!(link::metric(&libos, "catnip.device.rx_unknown_buffers"), 0);
    let copied = link::metric(&libos, "catnip.device.rx_copied_bytes");
    assert_eq!(copied, link::metric(&libos, "catnip.device.rx_bytes"), "veth has no zero-copy mode");
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_native_mode() {
    root::enter(|| {
        let config = config().set("xdp.mode", "native");
        transfer_all("XDP, native", &config, 1500);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_generic_mode() {
    root::enter(|| {
        let config = config().set("xdp.mode", "generic");
        transfer_all("XDP, generic", &config, 1500);
    });
}

#[test]
fn bulk_arrives_unchanged_both_ways_in_frames_of_several_buffers() {
    root::enter(|| transfer_all("XDP, large frames", &config(), 9000));
}

#[test]
fn bulk_arrives_unchanged_both_ways_with_busy_polling() {
    root::enter(|| {
        let config = config().set("xdp.busy_poll_us", 20);
        transfer_all("XDP, busy polling", &config, 1500);
    });
}

#[test]
fn what_was_got_is_in_the_metrics() {
    root::enter(|| {
        make(1500);
        for (mode, native) in [("auto", 1), ("native", 1), ("generic", 0)] {
            let libos = link::open(&config().set("xdp.mode", mode));
            assert_eq!(link::metric(&libos, "catnip.device.native_mode"), native, "{mode}");
            assert_eq!(link::metric(&libos, "catnip.device.zero_copy"), 0, "{mode}");
        }
    });
}

#[test]
fn datagrams_come_back_unchanged() {
    root::enter(|| {
        make(1500);
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
fn a_library_os_may_have_an_address_of_its_own() {
    root::enter(|| {
        make(1500);
        let libos = link::open(&config().set("xdp.mac", "02:00:00:00:00:42"));
        let address = Family::V4.catnip(PORT);
        echo::exchange(&libos, address, 1 << 20, "an address of its own");
    });
}

#[test]
fn a_wait_that_sleeps_is_woken_by_a_frame() {
    root::enter(|| {
        make(1500);
        let libos = link::open(&config().set("libos.idle", "sleep"));
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
    });
}

#[test]
fn idle_connections_cost_next_to_nothing_and_a_packet_one_wake_up() {
    root::enter(|| {
        make(1500);
        for idle in ["adaptive", "sleep"] {
            let libos = link::open(&config().set("libos.idle", idle));
            idleness::costs_next_to_nothing_and_a_packet_costs_one_wake_up(&libos, &format!("XDP, {idle}"));
        }
    });
}

#[test]
fn garbage_is_dropped_and_what_follows_arrives() {
    root::enter(|| {
        make(1500);
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
    root::enter(|| {
        for idle in ["sleep", "spin"] {
            make(1500);
            let libos = link::open(&config().set("libos.idle", idle));
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
    root::enter(|| {
        make(1500);
        let libos = link::open(&config());
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
    });
}

#[test]
fn the_queue_can_be_bound_again_as_soon_as_it_is_free() {
    root::enter(|| {
        make(1500);
        for round in 0..5 {
            let libos = link::open(&config());
            echo::exchange(&libos, Family::V4.catnip(PORT), 1 << 16, &format!("round {round}"));
        }
    });
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line() {
    root::enter(|| {
        let said = |config: &Config| catnip_os::open(config).map(drop).unwrap_err().to_string();
        let line = said(&config());
        assert!(line.starts_with("veth-ours: RTM_GETLINK: there is no such interface"), "{line}");
        make(1500);
        let line = said(&config().set("xdp.queue", 1));
        assert!(line.contains("bind: ") && line.contains("has no queue 1"), "{line}");
        let line = said(&config().set("xdp.mtu", 1501));
        assert!(line.contains("xdp.mtu = 1501: allowed is at most the 1500 bytes of veth-ours"), "{line}");
        let _holder = link::open(&config());
        let line = said(&config());
        assert!(line.contains("another XDP program is attached"), "{line}");
    });
}

#[test]
fn root_of_a_user_namespace_is_told_that_this_is_not_enough() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        let line = catnip_os::open(&config()).map(drop).unwrap_err().to_string();
        assert!(line.contains("no permission") && line.contains("unshare -Urn"), "{line}");
    });
}
