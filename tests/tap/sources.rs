//! Sources of groups, with the kernel at the other end: who is heard, and what a bridge that listens to reports takes
//! from ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as KernelSocket};
use std::process::Command;
use std::time::Duration;

use catnip_os::libos::net::UdpSocket;
use catnip_os::libos::{FilterMode, GroupMembership, LibOs, SocketOption, SourceMembership};

use crate::link::{self, Family};
use crate::namespace;

const PORT: u16 = 5014;
/// Another address of the kernel's end, in both families.
const OTHER: u16 = 3;

/// A group that is for sources by name only (RFC 4607).
fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => [232, 7, 7, 7].into(),
        Family::V6 => [0xff35, 0, 0, 0, 0, 0, 0x8000, 0x77].into(),
    }
}

fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)),
        Family::V6 => SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT)),
    }
}

/// The kernel's second address.
fn other(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 5, 0, OTHER as u8].into(),
        Family::V6 => [0xfd05, 0, 0, 0, 0, 0, 0, OTHER].into(),
    }
}

fn of(group: IpAddr, source: IpAddr) -> SourceMembership {
    SourceMembership { group: GroupMembership::on_any_interface(group), source }
}

fn open() -> LibOs {
    let addresses = ["10.5.0.1/24", "10.5.0.3/24", "fd05::1/64", "fd05::3/64"];
    link::open(&link::config().set("tap.host_addresses", addresses.map(str::to_owned).to_vec()))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn of_two_sources_of_the_kernel_the_one_that_was_named_is_heard() {
    namespace::enter("-Urn", || {
        let libos = open();
        // What goes to groups leaves by the device.
        run("ip", &["route", "add", "232.0.0.0/8", "dev", "tap-test"]);
        run("ip", &["-6", "route", "add", "multicast", "ff35::/16", "dev", "tap-test", "table", "local"]);
        for family in Family::BOTH {
            let socket = UdpSocket::bind(&libos, any(family)).unwrap();
            let named = of(group(family), other(family));
            socket.set_option(SocketOption::JoinSourceGroup(named)).unwrap();
            let sources = [family.kernel(0).ip(), other(family)];
            let kernel = sources.map(|source| KernelSocket::bind(SocketAddr::new(source, 0)).unwrap());
            let send = || {
                for socket in &kernel {
                    socket.send_to(b"to the group", SocketAddr::new(group(family), PORT)).unwrap();
                }
            };
            link::run(&libos, async {
                let mut words = [0; 100];
                for _ in 0..3 {
                    send();
                    let (_, from) = socket.recv_from(&mut words).await.unwrap();
                    assert_eq!(from.ip(), other(family));
                }
                // From nobody when it is named no longer, and from the first when that is.
                socket.set_option(SocketOption::LeaveSourceGroup(named)).unwrap();
                let named = of(group(family), family.kernel(0).ip());
                socket.set_option(SocketOption::JoinSourceGroup(named)).unwrap();
                send();
                let (_, from) = socket.recv_from(&mut words).await.unwrap();
                assert_eq!(from.ip(), family.kernel(0).ip());
            });
        }
    });
}

/// What the bridge knows of the group behind the library OS's port, once that is what is expected.
async fn until_known(libos: &LibOs, group: IpAddr, mode: &str, sources: &[IpAddr]) {
    let mut known = String::new();
    for _ in 0..200 {
        known = run("bridge", &["-d", "mdb", "show", "dev", "br-test"]);
        let of_group = |line: &&str| line.contains(&format!("grp {group} ")) && !line.contains(" src ");
        let entry = known.lines().find(of_group).unwrap_or_default();
        // Each source stands with the time that is left to it.
        let listed = entry.split("source_list ").nth(1).and_then(|list| list.split(' ').next());
        let mut listed: Vec<IpAddr> = listed
            .into_iter()
            .flat_map(|list| list.split(','))
            .filter_map(|source| source.split('/').next()?.parse().ok())
            .collect();
        listed.sort_unstable();
        if entry.contains(&format!("filter_mode {mode}")) && listed == sources {
            return;
        }
        libos.sleep(Duration::from_millis(20)).await;
    }
    panic!("not {group}, {mode} {sources:?}, but:\n{known}");
}

#[test]
fn a_bridge_of_the_kernel_learns_which_sources_are_wanted() {
    namespace::enter("-Urn", || {
        let libos = open();
        run(
            "ip",
            &[
                "link",
                "add",
                "br-test",
                "type",
                "bridge",
                "mcast_snooping",
                "1",
                "mcast_igmp_version",
                "3",
                "mcast_mld_version",
                "2",
            ],
        );
        run("ip", &["link", "set", "tap-test", "master", "br-test"]);
        run("ip", &["link", "set", "br-test", "up"]);
        for family in Family::BOTH {
            let socket = UdpSocket::bind(&libos, any(family)).unwrap();
            let (group, [first, second]) = (group(family), [family.kernel(0).ip(), other(family)]);
            let wide: IpAddr = match family {
                Family::V4 => [239, 7, 7, 7].into(),
                Family::V6 => [0xff05, 0, 0, 0, 0, 0, 0x77, 0x77].into(),
            };
            link::run(&libos, async {
                let set = |option| socket.set_option(option).unwrap();
                set(SocketOption::JoinSourceGroup(of(group, second)));
                until_known(&libos, group, "include", &[second]).await;
                set(SocketOption::JoinSourceGroup(of(group, first)));
                until_known(&libos, group, "include", &[first, second]).await;
                set(SocketOption::JoinGroup(GroupMembership::on_any_interface(wide)));
                until_known(&libos, wide, "exclude", &[]).await;
                set(SocketOption::BlockSource(of(wide, first)));
                until_known(&libos, wide, "exclude", &[first]).await;
                // A whole list at once, of the other kind.
                let all = GroupMembership::on_any_interface(wide);
                socket.set_source_filter(all, FilterMode::Include, &[second]).unwrap();
                until_known(&libos, wide, "include", &[second]).await;
                assert_eq!(socket.source_filter(all), Ok((FilterMode::Include, vec![second])));
            });
        }
    });
}
