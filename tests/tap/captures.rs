//! What tshark's expert information says of everything that leaves the stack: nothing is malformed, no checksum wrong.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpStream as KernelStream, UdpSocket as KernelSocket};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use catnip_os::libos::net::{TcpListener, TcpStream, UdpSocket};
use catnip_os::libos::{Arena, Config, Error, GroupMembership, LibOs, Runtime, SocketOption};
use runtime_linux::tap::Tap;
use socket2::SockRef;

use crate::echo;
use crate::forwarder::{Faults, Forwarder};
use crate::link::{self, Family};
use crate::namespace;
use crate::recorder::Recorder;
use crate::tagger::Tagger;
use crate::tshark;

const PORT: u16 = 5012;
const BYTES: usize = 1 << 20;
const VLAN: u16 = 77;
/// More than one packet carries, even of nine thousand bytes.
const LARGE_DATAGRAM_BYTES: usize = 20_000;

/// A capture file of a test's own.
fn capture_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tap-{name}.pcap"))
}

/// The library OS on a device that `wrap` makes and whose frames are recorded, and the filter for those that the
/// stack sent.
fn open<R: Runtime + 'static>(
    name: &str,
    config: &Config,
    wrap: impl FnOnce(Tap, &Arena) -> R,
) -> (LibOs, String) {
    let mut from_us = String::new();
    let libos = link::open_through(config, |tap, arena| {
        let address = tap.capabilities().hardware_address.map(|byte| format!("{byte:02x}"));
        from_us = format!("eth.src == {}", address.join(":"));
        Recorder::new(wrap(tap, arena), &capture_file(name))
    });
    (libos, from_us)
}

fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => [239, 1, 2, 3].into(),
        Family::V6 => [0xff02, 0, 0, 0, 0, 0, 0x1234, 0x5678].into(),
    }
}

/// Every kind of packet that programs bring about: streams both ways that end in every way, datagrams in one piece and
/// in many, to groups and to nobody, and what is sent about them.
fn make_traffic(libos: &LibOs) {
    for family in Family::BOTH {
        // First of all, so that the library OS has to look for the kernel.
        ask_nobody(libos, family);
        echo::exchange(libos, family.catnip(PORT), BYTES, "captured");
        exchange_datagrams(libos, family);
        be_reset(libos, family);
        join_and_leave(libos, family);
    }
}

fn exchange_datagrams(libos: &LibOs, family: Family) {
    let socket = UdpSocket::bind(libos, family.catnip(PORT)).unwrap();
    let server = libos.spawn(async move {
        loop {
            let (data, from) = socket.pop().await.unwrap();
            socket.push_to(data, from.unwrap()).await.unwrap();
        }
    });
    let client = thread::spawn(move || {
        let socket = link::datagrams(family.kernel(0), family.catnip(PORT));
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        // Some are lost on a link that loses, and others come twice.
        let answers = [0, 1, 1472, LARGE_DATAGRAM_BYTES].repeat(10).into_iter().filter(|&bytes| {
            socket.send(&vec![7; bytes]).unwrap();
            socket.recv(&mut [0; LARGE_DATAGRAM_BYTES]).is_ok_and(|len| len == bytes)
        });
        answers.count()
    });
    assert!(link::drive_until_joined(libos, client) > 5, "hardly a datagram comes back");
    server.abort();
}

/// Connections and datagrams to ports where nobody is, from either side.
fn ask_nobody(libos: &LibOs, family: Family) {
    link::run(libos, async {
        let refused = TcpStream::connect(libos, family.kernel(9)).await.map(drop);
        assert_eq!(refused, Err(Error::ConnectionRefused));
    });
    let client = thread::spawn(move || {
        drop(KernelStream::connect_timeout(&family.catnip(9), link::PATIENCE).unwrap_err());
        let socket = link::datagrams(family.kernel(0), family.catnip(9));
        socket.send(b"anybody there?").unwrap();
        drop(socket.recv(&mut [0; 8]).unwrap_err());
    });
    link::drive_until_joined(libos, client);
}

/// The library OS closes with something unread, so that the connection is reset.
fn be_reset(libos: &LibOs, family: Family) {
    let client = thread::spawn(move || {
        let mut stream = link::connect(family.catnip(PORT));
        SockRef::from(&stream).set_keepalive(true).unwrap();
        while stream.write_all(&[7; 1000]).is_ok() {}
    });
    link::run(libos, async {
        let mut listener = TcpListener::bind(libos, family.catnip(PORT)).unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.pop().await.unwrap();
        libos.sleep(Duration::from_millis(20)).await;
        stream.close().await.unwrap();
        link::joined(libos, client).await;
    });
}

fn join_and_leave(libos: &LibOs, family: Family) {
    let membership = GroupMembership::on_any_interface(group(family));
    link::run(libos, async {
        let socket = UdpSocket::bind(libos, family.catnip(PORT)).unwrap();
        socket.set_option(SocketOption::JoinGroup(membership)).unwrap();
        socket.send_to(b"to the group", (group(family), PORT).into()).await.unwrap();
        libos.sleep(Duration::from_millis(20)).await;
        socket.set_option(SocketOption::LeaveGroup(membership)).unwrap();
        libos.sleep(Duration::from_millis(20)).await;
    });
}

/// Packets of each of these kinds were captured, and none is wrong.
fn assert_nothing_wrong(name: &str, from_us: &str, kinds: &[&str]) {
    let file = capture_file(name);
    let filters: Vec<_> = kinds.iter().map(|kind| format!("{from_us} && {kind}")).collect();
    for (kind, count) in kinds.iter().zip(tshark::counts(&file, &filters)) {
        assert!(count > 0, "{name}: no packet is {kind}");
    }
    let wrong = tshark::wrong_frames(&file, from_us);
    assert!(wrong.is_empty(), "{}:\n{}", file.display(), wrong.join("\n"));
}

/// What [`make_traffic`] has the stack send, as tshark's filters have it.
const KINDS: [&str; 14] = [
    "arp",
    "icmpv6.type == 135",
    "icmpv6.type == 136",
    "tcp.flags.syn == 1 && ip",
    "tcp.flags.syn == 1 && ipv6",
    "tcp.flags.fin == 1",
    "tcp.flags.reset == 1",
    "udp && ip",
    "udp && ipv6",
    "ip.flags.mf == 1",
    "ipv6.fraghdr",
    "icmp.type == 3",
    "icmpv6.type == 1",
    "(igmp.type == 0x22 || icmpv6.type == 143)",
];

#[test]
fn tshark_finds_nothing_wrong_in_what_catnip_sends() {
    namespace::enter("-Urn", || {
        let name = "clean";
        let config = link::config().set("tap.offload", false);
        let (libos, from_us) = open(name, &config, |tap, _| tap);
        make_traffic(&libos);
        libos.abort_tasks();
        drop(libos);
        assert_nothing_wrong(name, &from_us, &KINDS);
    });
}

#[test]
fn tshark_finds_nothing_wrong_in_what_catnip_sends_while_frames_are_lost_and_damaged() {
    namespace::enter("-Urn", || {
        let name = "faulty";
        let faults =
            Faults { lost: 10, doubled: 10, damaged: 10, delayed: 20, delay: Duration::from_millis(2) };
        let config = link::config().set("tap.offload", false);
        let (libos, from_us) =
            open(name, &config, |tap, arena| Forwarder::new(tap, arena.clone(), faults, 5));
        for family in Family::BOTH {
            echo::exchange(&libos, family.catnip(PORT), BYTES, name);
            exchange_datagrams(&libos, family);
        }
        libos.abort_tasks();
        drop(libos);
        // An ICMP error quotes what it is about: bytes that were damaged on their way to us.
        let errors = "icmpv6.type < 128 || icmp.type == 3 || icmp.type == 11 || icmp.type == 12";
        let from_us = format!("{from_us} && !({errors})");
        assert_nothing_wrong(
            name,
            &from_us,
            &["tcp.options.sack_le", "tcp.analysis.retransmission", "ip.flags.mf == 1"],
        );
    });
}

#[test]
fn tshark_finds_nothing_wrong_in_what_catnip_sends_into_a_vlan() {
    namespace::enter("-Urn", || {
        let name = "vlan";
        let config = link::config().set("tap.offload", false).set("stack.vlan", i64::from(VLAN));
        let (libos, from_us) = open(name, &config, |tap, arena| Tagger::new(tap, arena.clone(), VLAN));
        make_traffic(&libos);
        libos.abort_tasks();
        drop(libos);
        assert_nothing_wrong(name, &from_us, &KINDS);
        let tagged = format!("{from_us} && !(vlan.id == {VLAN})");
        assert_eq!(tshark::counts(&capture_file(name), &[tagged]), [0]);
    });
}

#[test]
fn tshark_finds_what_is_damaged() {
    namespace::enter("-Urn", || {
        const WORDS: &[u8] = b"some words to damage";
        let name = "damaged";
        let config = link::config().set("tap.offload", false);
        let (libos, _) = open(name, &config, |tap, _| tap);
        let kernel = KernelSocket::bind(Family::V4.kernel(0)).unwrap();
        link::run(&libos, async {
            let socket = UdpSocket::bind(&libos, Family::V4.catnip(0)).unwrap();
            socket.send_to(WORDS, kernel.local_addr().unwrap()).await.unwrap();
            libos.sleep(Duration::from_millis(20)).await;
        });
        drop(libos);
        let file = capture_file(name);
        assert_eq!(tshark::wrong_frames(&file, "udp"), [""; 0]);
        let mut capture = fs::read(&file).unwrap();
        let at =
            capture.windows(WORDS.len()).position(|bytes| bytes == WORDS).expect("the datagram was captured");
        capture[at] ^= 1;
        fs::write(&file, capture).unwrap();
        assert_eq!(tshark::wrong_frames(&file, "udp").len(), 1);
    });
}
