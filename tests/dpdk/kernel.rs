//! Drivers whose other end is the kernel: its sockets are the clients.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::process::Command;
use std::rc::Rc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use catnip_os::libos::LibOs;

use crate::echo::{
    self, DATAGRAM_BYTES, PATIENCE, PORT, RETRY_EVERY, TRANSFER_BYTES, metric, nothing_is_copied, pattern,
};
use crate::{namespace, root};

/// Runs a program of iproute2 or the like, and wants it to succeed.
pub fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits, as a task does, for a thread that uses the kernel's sockets.
async fn joined<T>(libos: &LibOs, thread: JoinHandle<T>) -> T {
    while !thread.is_finished() {
        libos.sleep(Duration::from_millis(1)).await;
    }
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends datagrams of these sizes from a kernel's socket, each until it comes back as it was.
fn datagrams_from_kernel(address: SocketAddr, datagram_bytes: &[usize]) {
    let socket = UdpSocket::bind((if address.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(RETRY_EVERY)).unwrap();
    for (seed, &bytes) in datagram_bytes.iter().enumerate() {
        let sent = pattern(bytes, seed as u64);
        let mut received = vec![0; 10_000];
        let end = Instant::now() + PATIENCE;
        loop {
            socket.send(&sent).unwrap();
            match socket.recv(&mut received) {
                Ok(count) if count == bytes => break assert_eq!(received[..count], sent),
                _ => assert!(Instant::now() < end, "{bytes} bytes never came back from {address}"),
            }
        }
    }
}

/// Sends so many bytes from a kernel's socket, and compares what comes back. Returns the socket's own address.
pub fn stream_from_kernel(server: SocketAddr, bytes: usize) -> SocketAddr {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sent = pattern(bytes, 77);
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::with_capacity(bytes);
    stream.read_to_end(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == expected, "{} bytes came back, of {bytes}, or others", received.len());
    stream.local_addr().unwrap()
}

/// Serves a client on the kernel's sockets, which compares what it gets.
fn serve_kernel_client(libos: &LibOs, server: &str, datagram_bytes: &'static [usize]) {
    let server: IpAddr = server.parse().unwrap();
    let client = thread::spawn(move || {
        let address = SocketAddr::new(server, PORT);
        datagrams_from_kernel(address, datagram_bytes);
        stream_from_kernel(address, TRANSFER_BYTES);
    });
    echo::serve(libos, server, Rc::default(), joined(libos, client));
}

#[test]
fn a_tap_port_carries_echoes_without_a_copy() {
    namespace::enter("-Urn", || {
        let libos = catnip_os::open(&echo::config("net_tap0,iface=dtap0", "10.6.0.2/24")).unwrap();
        run("ip address add 10.6.0.1/24 dev dtap0");
        run("ip link set dtap0 up");
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES);
        nothing_is_copied(&libos);
        assert!(metric(&libos, "catnip.device.rx_bytes") > TRANSFER_BYTES as u64);
        assert!(metric(&libos, "catnip.device.port.rx_good_packets") > 0);
    });
}

/// Makes a pair of interfaces, one for a port and one for the kernel.
fn make_veth() {
    // An XDP port of one queue is refused by an interface of more.
    let one = "numrxqueues 1 numtxqueues 1";
    run(&format!("ip link add veth0 {one} type veth peer name veth1 {one}"));
    for side in ["veth0", "veth1"] {
        run(&format!("ip link set {side} up"));
    }
    run("ip address add 10.6.0.1/24 dev veth1");
    // The kernel would leave sums and cutting to a device that does neither for these ports.
    run("ethtool -K veth1 tx off tso off gso off");
}

#[test]
fn a_packet_port_on_a_veth_carries_echoes_without_a_copy() {
    namespace::enter("-Urn", || {
        make_veth();
        let libos = catnip_os::open(&echo::config("net_af_packet0,iface=veth0", "10.6.0.2/24")).unwrap();
        // The driver has the kernel put fragments together, and frames of its ring are not larger than 2 KiB.
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES[..7]);
        nothing_is_copied(&libos);
    });
}

/// The driver sends other bytes than those of an attached buffer: its ports get copies. The stream is longer than the pool has mbufs, so that
/// each of them is sent from.
#[test]
fn an_xdp_port_on_a_veth_carries_echoes_of_copies() {
    root::enter(|| {
        make_veth();
        // One queue of the interface is one of the port.
        let libos = catnip_os::open(&echo::config("net_af_xdp0,iface=veth0", "10.6.0.2/24")).unwrap();
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES);
        assert_eq!(metric(&libos, "catnip.device.tx_refused"), 0);
        let copied = metric(&libos, "catnip.device.tx_copied_bytes");
        assert_eq!(copied, metric(&libos, "catnip.device.tx_bytes"), "every byte, and each once");
        assert_eq!(metric(&libos, "catnip.device.zero_copy"), 0);
    });
}

#[test]
fn a_pcap_port_on_a_veth_carries_echoes() {
    namespace::enter("-Urn", || {
        make_veth();
        let libos = catnip_os::open(&echo::config("net_pcap0,iface=veth0", "10.6.0.2/24")).unwrap();
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES);
    });
}

/// A port over another one: what the one below can do is known to DPDK alone.
#[test]
fn a_failsafe_port_over_a_tap_port_carries_echoes() {
    namespace::enter("-Urn", || {
        let device = "net_failsafe0,mac=02:00:00:00:00:77,dev(net_tap0,iface=dtap0)";
        let libos = catnip_os::open(&echo::config(device, "10.6.0.2/24")).unwrap();
        run("ip address add 10.6.0.1/24 dev dtap0");
        run("ip link set dtap0 address 02:00:00:00:00:66");
        run("ip link set dtap0 up");
        serve_kernel_client(&libos, "10.6.0.2", &DATAGRAM_BYTES);
    });
}
