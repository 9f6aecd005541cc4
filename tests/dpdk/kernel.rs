//! Drivers whose other end is the kernel: its sockets are the clients.

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use catnip_os::libos::LibOs;

use crate::echo::{self, DATAGRAM_BYTES, joined, metric, nothing_is_copied, talk_from_kernel};
use crate::namespace;

/// Runs a program of iproute2 or the like, and wants it to succeed.
fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves a client on the kernel's sockets, which compares what it gets.
fn serve_kernel_client(libos: &LibOs, server: &str, datagram_bytes: &'static [usize]) {
    let server: IpAddr = server.parse().unwrap();
    let client = thread::spawn(move || talk_from_kernel(server, datagram_bytes));
    echo::serve(libos, server, joined(libos, client));
}

#[test]
fn a_tap_port_carries_echoes_without_a_copy() {
    namespace::enter("-Urn", || {
        let libos = catnip_os::open(&echo::config("net_tap0,iface=dtap0", "10.6.0.2/24")).unwrap();
        run("ip address add 10.6.0.1/24 dev dtap0");
        run("ip link set dtap0 up");
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES);
        nothing_is_copied(&libos);
        assert!(metric(&libos, "catnip.device.rx_bytes") > echo::TRANSFER_BYTES as u64);
        assert!(metric(&libos, "catnip.device.port.rx_good_packets") > 0);
    });
}

#[test]
fn a_packet_port_on_a_veth_carries_echoes_without_a_copy() {
    namespace::enter("-Urn", || {
        run("ip link add veth0 type veth peer name veth1");
        for side in ["veth0", "veth1"] {
            run(&format!("ip link set {side} up"));
        }
        run("ip address add 10.6.0.1/24 dev veth1");
        // The kernel would leave sums and cutting to a device that does neither for a packet socket of this kind.
        run("ethtool -K veth1 tx off tso off gso off");
        let libos = catnip_os::open(&echo::config("net_af_packet0,iface=veth0", "10.6.0.2/24")).unwrap();
        // The driver has the kernel put fragments together, and frames of its ring are not larger than 2 KiB.
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES[..7]);
        nothing_is_copied(&libos);
    });
}
