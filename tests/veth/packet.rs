//! Packet sockets.

use std::net::UdpSocket as KernelSocket;
use std::thread;

use catnip_os::libos::Config;
use catnip_os::libos::net::UdpSocket;

use crate::link::{self, Family};
use crate::{both, echo, idleness, namespace, pair};

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
    both::transfer_all(&libos, what);
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
        both::datagrams_come_back_unchanged(&link::open(&config()));
    });
}

#[test]
fn a_library_os_with_an_address_of_its_own_shares_an_interface_with_the_kernel() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        // The kernel lives on our end too, at another IP address and another Ethernet address.
        link::command("ip address add 10.5.0.3/24 dev veth-ours");
        let libos = link::open(&config().set("packet.mac", "02:00:00:00:00:42"));
        let address = Family::V4.catnip(PORT);
        echo::exchange(&libos, address, 1 << 20, "an address of its own");
    });
}

#[test]
fn a_wait_that_sleeps_is_woken_by_a_frame() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        both::a_wait_that_sleeps_is_woken_by_a_frame(&config());
        both::a_wait_that_sleeps_is_woken_by_a_frame(&with_ring());
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
        both::garbage_is_dropped_and_what_follows_arrives(&link::open(&config()));
    });
}

#[test]
fn an_interface_that_goes_away_fails_what_waits() {
    namespace::enter("-Urn", || {
        for (idle, config) in [("sleep", config()), ("spin", config()), ("sleep", with_ring())] {
            pair::make(1500);
            both::an_interface_that_goes_away_fails_what_waits(&config.set("libos.idle", idle));
        }
    });
}

#[test]
fn a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        for config in [config(), with_ring()] {
            both::a_link_that_goes_down_and_comes_back_loses_only_what_was_sent_meanwhile(&config);
        }
    });
}

#[test]
fn what_cannot_be_opened_is_said_in_one_line() {
    namespace::enter("-Urn", || {
        let line = both::refusal(&config());
        assert!(line.starts_with("veth-ours: RTM_GETLINK: there is no such interface"), "{line}");
        pair::make(1500);
        let line = both::refusal(&config().set("packet.mtu", 1501));
        assert!(line.contains("packet.mtu = 1501: allowed is at most the 1500 bytes of veth-ours"), "{line}");
        let line = both::refusal(&config().set("packet.interface", "lo"));
        assert!(line.contains("packet.mac"), "{line}");
        link::command("ip link set veth-ours down");
        let line = both::refusal(&config());
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

#[test]
fn what_the_interface_does_not_have_is_said_with_the_file_and_the_key() {
    namespace::enter("-Urn", || {
        pair::make(1500);
        link::command("ip link set lo up");
        for (interface, further, said) in [
            (
                pair::OURS,
                "mtu = 9000",
                "c.toml: packet.mtu = 9000: allowed is at most the 1500 bytes of veth-ours",
            ),
            (
                "lo",
                "mtu = 1500",
                "c.toml: packet.mac = not set: allowed is one for lo, which has none of its own: ",
            ),
        ] {
            let text = format!(
                "[runtime]\nkind = \"packet\"\n[packet]\ninterface = \"{interface}\"\n{further}\n\
                 [stack]\naddresses = [\"10.5.0.2/24\"]"
            );
            let config = Config::from_toml_str("c.toml", &text).unwrap();
            let line = catnip_os::open(&config).map(drop).unwrap_err().to_string();
            assert!(line.starts_with(said), "{line}");
        }
    });
}
