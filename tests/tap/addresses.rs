//! Addresses that the library OS gets by itself, from a DHCP server and a router of a few lines on the kernel's side.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as KernelSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use catnip_os::libos::net::UdpSocket;
use catnip_os::libos::{Config, LibOs};
use socket2::{Domain, Protocol, Socket, Type};

use crate::link::{self, PATIENCE};
use crate::namespace;

const DEVICE: &str = "tap-test";
const KERNEL_V4: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const LEASED: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 77);
/// The kernel's address in the network that its router advertises.
const KERNEL_V6: Ipv6Addr = Ipv6Addr::new(0xfd05, 0, 0, 7, 0, 0, 0, 1);
/// A kernel's address that is only reached by way of the router.
const BEYOND: Ipv6Addr = Ipv6Addr::new(0xfd05, 0, 0, 8, 0, 0, 0, 1);
const PORT: u16 = 5011;
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Longer than probes take.
const WAIT_MS: i64 = 20_000;

fn config() -> Config {
    link::config().set("stack.addresses", Vec::<String>::new()).set("runtime.wait_for_addresses_ms", WAIT_MS)
}

/// A thread of the kernel's side that goes on until this is dropped.
struct Helper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Helper {
    /// Calls `turn` again and again, on a socket that can be made once the device is there.
    fn spawn(open: fn() -> Option<KernelSocket>, turn: fn(&KernelSocket)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut socket = None;
            while !stopped.load(Ordering::Relaxed) {
                match &socket {
                    Some(socket) => turn(socket),
                    None => {
                        socket = open();
                        thread::sleep(LOOK_EVERY);
                    }
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn dhcp_socket() -> Option<KernelSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    socket.bind_device(Some(DEVICE.as_bytes())).ok()?;
    socket.set_broadcast(true).ok()?;
    socket.set_read_timeout(Some(LOOK_EVERY)).ok()?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 67)).into()).ok()?;
    Some(socket.into())
}

/// Grants the one address there is to whoever asks, for an hour.
fn serve_dhcp(socket: &KernelSocket) {
    let mut request = [0; 1500];
    let Ok(len) = socket.recv(&mut request) else { return };
    let kind = request[240..len].windows(3).find(|option| option[..2] == [53, 1]).map(|option| option[2]);
    let answer_kind = match kind {
        Some(1) => 2,
        Some(3) => 5,
        _ => return,
    };
    let mut answer = vec![0; 236];
    answer[..3].copy_from_slice(&[2, 1, 6]);
    answer[4..8].copy_from_slice(&request[4..8]);
    answer[16..20].copy_from_slice(&LEASED.octets());
    answer[28..34].copy_from_slice(&request[28..34]);
    answer.extend([99, 130, 83, 99, 53, 1, answer_kind, 54, 4]);
    answer.extend(KERNEL_V4.octets());
    answer.extend([1, 4, 255, 255, 255, 0, 3, 4]);
    answer.extend(KERNEL_V4.octets());
    answer.extend([51, 4, 0, 0, 14, 16, 255]);
    drop(socket.send_to(&answer, (Ipv4Addr::BROADCAST, 68)));
}

fn router_socket() -> Option<KernelSocket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).ok()?;
    socket.bind_device(Some(DEVICE.as_bytes())).ok()?;
    socket.set_multicast_hops_v6(255).ok()?;
    Some(socket.into())
}

/// Advertises the kernel as router, and a network on the link. The kernel adds the checksum and the source, its
/// link-local address, once it has one.
fn advertise(socket: &KernelSocket) {
    let mut message = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
    message.extend(Ipv6Addr::new(0xfd05, 0, 0, 7, 0, 0, 0, 0).octets());
    let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, 0);
    drop(socket.send_to(&message, all_nodes));
    thread::sleep(10 * LOOK_EVERY);
}

/// Sends a datagram to an echo of the kernel's and returns from where the kernel saw it come.
fn seen_from(libos: &LibOs, kernel: SocketAddr) -> SocketAddr {
    let echo = KernelSocket::bind(kernel).unwrap();
    echo.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = echo.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let mut data = [0; 16];
        let (len, from) = echo.recv_from(&mut data).unwrap();
        echo.send_to(&data[..len], from).unwrap();
        from
    });
    link::run(libos, async {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(libos, any.parse::<SocketAddr>().unwrap()).unwrap();
        socket.send_to(b"hello", to).await.unwrap();
        let (answer, _) = socket.pop().await.unwrap();
        assert_eq!(answer.to_vec(), b"hello");
    });
    link::drive_until_joined(libos, echo)
}

#[test]
fn a_leased_address_is_used_to_talk_to_the_kernel() {
    namespace::enter("-Urn", || {
        let _server = Helper::spawn(dhcp_socket, serve_dhcp);
        let libos = link::open(&config().set("stack.dhcp", true));
        assert_eq!(link::metric(&libos, "catnip.network.dhcp.bound"), 1);
        assert_eq!(seen_from(&libos, (KERNEL_V4, PORT).into()).ip(), LEASED);
    });
}

#[test]
fn an_address_formed_from_an_advertised_prefix_is_used_on_the_link_and_beyond() {
    namespace::enter("-Urn", || {
        let _router = Helper::spawn(router_socket, advertise);
        let host_addresses = ["10.5.0.1/24", "fd05:0:0:7::1/64", "fd05:0:0:8::1/64"].map(str::to_owned);
        let config = config().set("tap.host_addresses", host_addresses.to_vec());
        let libos = link::open(&config.set("stack.router_discovery", true));
        assert_eq!(link::metric(&libos, "catnip.network.routers"), 1);
        for kernel in [KERNEL_V6, BEYOND] {
            let SocketAddr::V6(from) = seen_from(&libos, (kernel, PORT).into()) else { panic!("IPv6") };
            assert_eq!(from.ip().segments()[..4], KERNEL_V6.segments()[..4]);
        }
    });
}

#[test]
fn an_address_that_the_kernel_has_is_not_taken() {
    namespace::enter("-Urn", || {
        // Before the library OS comes, and not by its configuration, which may not name an address for both ends.
        for words in [
            "ip tuntap add dev tap-test mode tap",
            "ip address add 10.5.0.1/24 dev tap-test",
            "ip address add fd05::1/64 dev tap-test nodad",
        ] {
            link::command(words);
        }
        let config = link::config().set("stack.conflict_detection", "probe");
        let config = config.set("tap.host_addresses", Vec::<String>::new());
        let config = config.set("stack.addresses", vec!["10.5.0.1/24".to_owned(), "fd05::1/64".to_owned()]);
        let libos = link::open(&config.set("runtime.wait_for_addresses_ms", WAIT_MS));
        assert_eq!(link::metric(&libos, "catnip.network.address_duplicates"), 2);
        for address in ["10.5.0.1:0", "[fd05::1]:0"] {
            assert!(UdpSocket::bind(&libos, address.parse::<SocketAddr>().unwrap()).is_err(), "{address}");
        }
    });
}

#[test]
fn a_start_without_addresses_says_so() {
    namespace::enter("-Urn", || {
        let config = config().set("stack.dhcp", true).set("runtime.wait_for_addresses_ms", 100);
        let said = catnip_os::open(&config).map(drop).unwrap_err().to_string();
        assert!(said.contains("none within 100 ms"), "{said}");
    });
}

#[test]
fn a_link_too_narrow_for_ipv6_is_said_with_the_key_that_made_it_so() {
    namespace::enter("-Urn", || {
        let config = Config::from_toml_str("t.toml", "[tap]\nmtu = 600").unwrap();
        let config = config.set("runtime.kind", "tap").set("stack.addresses", ["fd00::2/64"]);
        let line = catnip_os::open(&config).map(drop).unwrap_err().to_string();
        let expected =
            "t.toml: tap.mtu = 600: allowed is 1280 to 65535 bytes, as IPv6 needs; the device has 600";
        assert_eq!(line, expected);
    });
}
