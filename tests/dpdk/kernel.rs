//! Drivers whose other end is the kernel: its sockets are the clients.

use std::net::IpAddr;
use std::process::Command;
use std::thread;

use catnip_os::libos::LibOs;

use crate::echo::{self, joined, metric, talk_from_kernel};
use crate::namespace;

/// Runs a program of iproute2 or the like, and wants it to succeed.
fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves a client on the kernel's sockets, which compares what it gets.
fn serve_kernel_client(libos: &LibOs, server: &str) {
    let server: IpAddr = server.parse().unwrap();
    let client = thread::spawn(move || talk_from_kernel(server));
    echo::serve(libos, server, joined(libos, client));
}

#[test]
fn a_tap_port_carries_echoes_without_a_copy() {
    namespace::enter("-Urn", || {
        let libos = catnip_os::open(&echo::config("net_tap0,iface=dtap0", "10.6.0.2/24")).unwrap();
        run("ip address add 10.6.0.1/24 dev dtap0");
        run("ip link set dtap0 up");
        serve_kernel_client(&libos, "10.6.0.2");
        for counter in ["rx_copied_frames", "tx_copied_frames", "tx_refused", "rx_no_buffers"] {
            assert_eq!(metric(&libos, &format!("catnip.device.{counter}")), 0, "{counter}");
        }
        assert!(metric(&libos, "catnip.device.rx_bytes") > echo::TRANSFER_BYTES as u64);
        assert!(metric(&libos, "catnip.device.port.rx_good_packets") > 0);
    });
}
