//! Groups, VLANs and datagrams larger than the link, with the kernel at the other end.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;

use catnip_os::libos::net::UdpSocket;
use catnip_os::libos::{GroupMembership, LibOs, SocketOption};
use socket2::{Domain, Protocol, Socket, Type};

use crate::echo;
use crate::link::{self, Family, PATIENCE};
use crate::namespace;
use crate::noise::Noise;
use crate::tagger::Tagger;

const PORT: u16 = 5013;
const VLAN: u16 = 12;
/// What the kernel's end of the link is called.
const DEVICE: &str = "tap-test";
/// Largest datagrams: what IPv4's length field leaves, which is less than IPv6's does.
const LARGEST_DATAGRAM_BYTES: usize = 65_507;

fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => [239, 7, 7, 7].into(),
        Family::V6 => [0xff05, 0, 0, 0, 0, 0, 0x77, 0x77].into(),
    }
}

/// What who is in a group binds to: any address.
fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
        Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
    }
}

/// The number of the kernel's end among its interfaces, which stands beside each address of IPv6.
fn kernel_index() -> u32 {
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap();
    let own = addresses.lines().find(|line| line.ends_with(DEVICE)).unwrap();
    u32::from_str_radix(own.split(' ').nth(1).unwrap(), 16).unwrap()
}

/// A kernel socket that is in the group and sends to it through the link.
fn kernel_member(family: Family) -> std::net::UdpSocket {
    let domain = match family {
        Family::V4 => Domain::IPV4,
        Family::V6 => Domain::IPV6,
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&any(family).into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    match (group(family), family.kernel(0).ip()) {
        (IpAddr::V4(group), IpAddr::V4(interface)) => {
            socket.join_multicast_v4(&group, &interface).unwrap();
            socket.set_multicast_if_v4(&interface).unwrap();
            socket.set_multicast_loop_v4(false).unwrap();
        }
        (IpAddr::V6(group), _) => {
            let index = kernel_index();
            socket.join_multicast_v6(&group, index).unwrap();
            socket.set_multicast_if_v6(index).unwrap();
            socket.set_multicast_loop_v6(false).unwrap();
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => unreachable!("a family has addresses of one kind"),
    }
    socket.into()
}

#[test]
fn what_one_member_of_a_group_sends_the_other_receives_on_either_side() {
    namespace::enter("-Urn", || {
        let libos = link::open(&link::config());
        for family in Family::BOTH {
            let to_group = SocketAddr::new(group(family), PORT);
            let socket = UdpSocket::bind(&libos, any(family)).unwrap();
            let membership = GroupMembership::on_any_interface(group(family));
            socket.set_option(SocketOption::JoinGroup(membership)).unwrap();
            let kernel = kernel_member(family);
            let kernel = thread::spawn(move || {
                let mut words = [0; 100];
                let (len, from) = kernel.recv_from(&mut words).unwrap();
                assert_eq!((&words[..len], from.ip()), (&b"from Catnip"[..], family.catnip(0).ip()));
                kernel.send_to(b"from the kernel", to_group).unwrap();
            });
            link::run(&libos, async {
                socket.send_to(b"from Catnip", to_group).await.unwrap();
                let mut words = [0; 100];
                loop {
                    let (len, from) = socket.recv_from(&mut words).await.unwrap();
                    // What the socket itself sent to its group comes back, too.
                    if from.ip() != family.catnip(0).ip() {
                        assert_eq!(&words[..len], b"from the kernel", "{family:?}");
                        break;
                    }
                }
                link::joined(&libos, kernel).await;
            });
        }
    });
}

fn echo_datagrams(libos: &LibOs, family: Family, sizes: &'static [usize]) {
    let socket = UdpSocket::bind(libos, family.catnip(PORT)).unwrap();
    let server = libos.spawn(async move {
        loop {
            let (data, from) = socket.pop().await.unwrap();
            socket.push_to(data, from.unwrap()).await.unwrap();
        }
    });
    let client = thread::spawn(move || {
        let socket = link::datagrams(family.kernel(0), family.catnip(PORT));
        let noise = Noise::bytes(3, LARGEST_DATAGRAM_BYTES);
        let mut answer = vec![0; LARGEST_DATAGRAM_BYTES];
        for &size in sizes {
            socket.send(&noise[..size]).unwrap();
            let len = socket.recv(&mut answer).unwrap();
            assert!(answer[..len] == noise[..size], "{family:?}, {size} bytes: {len} others");
        }
    });
    link::drive_until_joined(libos, client);
    server.abort();
}

#[test]
fn datagrams_larger_than_the_link_come_back_in_parts_as_they_went() {
    const SIZES: [usize; 7] = [1_453, 1_473, 2_000, 9_000, 30_000, 65_000, LARGEST_DATAGRAM_BYTES];
    namespace::enter("-Urn", || {
        for offload in [true, false] {
            let libos = link::open(&link::config().set("tap.offload", offload));
            for family in Family::BOTH {
                echo_datagrams(&libos, family, &SIZES);
            }
            libos.abort_tasks();
        }
    });
}

#[test]
fn in_a_vlan_streams_and_datagrams_of_every_size_go_both_ways() {
    namespace::enter("-Urn", || {
        let config = link::config().set("tap.offload", false).set("stack.vlan", i64::from(VLAN));
        let libos = link::open_through(&config, |tap, arena| Tagger::new(tap, arena.clone(), VLAN));
        for family in Family::BOTH {
            echo::exchange(&libos, family.catnip(PORT), 1 << 20, "in a VLAN");
            echo_datagrams(&libos, family, &[0, 1, 1_400, 1_472, 1_500, 10_000]);
        }
        libos.abort_tasks();
    });
}
