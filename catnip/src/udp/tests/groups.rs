//! Groups and broadcasts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::{Domain, FilterMode, GroupMembership, SourceMembership};

use super::*;
use crate::network::testing::{framed_to_group, ip_packet, udp_datagram};

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(239, 1, 2, 3));
const GROUP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 1, 3));
const PORT: u16 = 5000;

fn on_any(group: IpAddr) -> GroupMembership {
    GroupMembership::on_any_interface(group)
}

/// An address that stands for all of the family's.
fn any(group: IpAddr) -> IpAddr {
    if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

impl Host {
    /// A socket on the port that shares it.
    fn bind_shared(&mut self, address: IpAddr) -> Result<UdpId, Error> {
        let id = self.udp.open(if address.is_ipv4() { Domain::Ipv4 } else { Domain::Ipv6 }).unwrap();
        self.set(id, SocketOption::ReuseAddress(true)).unwrap();
        self.udp.bind_opened(&self.network, id, (address, PORT).into()).map(|()| id)
    }

    /// The data of all datagrams that wait.
    fn all_received(&mut self, id: UdpId) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.received(id)).map(|(_, data)| data).collect()
    }

    fn take_looped(&mut self) {
        while let Some(ingress) = self.network.receive_looped(NOW) {
            self.take(ingress);
        }
    }
}

#[test]
fn a_datagram_to_a_group_reaches_every_socket_in_it_and_no_other() {
    for group in [GROUP, GROUP_V6] {
        let (mut one, mut two) = (Host::new(1), Host::new(2));
        let [first, second, outsider] = [0; 3].map(|_| two.bind_shared(any(group)).unwrap());
        let on_group = two.bind_shared(group).unwrap();
        for id in [first, second, on_group] {
            two.set(id, SocketOption::JoinGroup(on_any(group))).unwrap();
        }
        let sender = one.bind((any(group), 0));
        one.send(sender, Some((group, PORT).into()), b"to all").unwrap();
        settle(&mut one, &mut two);
        for (id, expected) in [(first, 1), (second, 1), (on_group, 1), (outsider, 0)] {
            assert_eq!(two.all_received(id), vec![b"to all".to_vec(); expected]);
        }
        two.set(first, SocketOption::LeaveGroup(on_any(group))).unwrap();
        two.udp.close(&mut two.network, &mut two.events, on_group);
        one.send(sender, Some((group, PORT).into()), b"again").unwrap();
        settle(&mut one, &mut two);
        assert_eq!((two.all_received(first).len(), two.all_received(second).len()), (0, 1));
        two.udp.close(&mut two.network, &mut two.events, second);
        assert!(!two.network.is_in_group(group), "nobody is left");
        let before = two.network.counters().ip_in_address_errors;
        one.send(sender, Some((group, PORT).into()), b"to nobody").unwrap();
        settle(&mut one, &mut two);
        assert_eq!(two.network.counters().ip_in_address_errors, before + 1);
    }
}

#[test]
fn what_goes_to_ones_own_group_comes_back_unless_that_is_off() {
    for group in [GROUP, GROUP_V6] {
        let mut one = Host::new(1);
        let id = one.bind((any(group), PORT));
        one.set(id, SocketOption::JoinGroup(on_any(group))).unwrap();
        for (on, comes_back) in [(true, 1), (false, 0)] {
            one.set(id, SocketOption::MulticastLoop(on)).unwrap();
            one.network.frames().clear();
            one.send(id, Some((group, PORT).into()), b"echo").unwrap();
            one.take_looped();
            assert_eq!(one.all_received(id).len(), comes_back, "{group} {on}");
            assert_eq!(take_frames(&mut one.network).len(), 1, "it also goes out");
        }
        one.set(id, SocketOption::MulticastLoop(true)).unwrap();
        one.set(id, SocketOption::LeaveGroup(on_any(group))).unwrap();
        one.send(id, Some((group, PORT).into()), b"echo").unwrap();
        assert_eq!(one.network.looped_packets(), 0, "we are not in it");
    }
}

#[test]
fn datagrams_to_groups_have_their_own_hop_limit_and_source() {
    let mut config = config(1);
    config.addresses.push("10.1.0.1/16".parse().unwrap());
    let mut one = Host::with(&config);
    let id = one.bind((any(GROUP), 0));
    one.set(id, SocketOption::HopLimit(50)).unwrap();
    let sent = |one: &mut Host, remote: IpAddr| {
        one.network.frames().clear();
        one.send(id, Some((remote, PORT).into()), b"x").unwrap();
        let frame = take_frames(&mut one.network).remove(0).bytes;
        (frame[22], IpAddr::from(*frame[26..].first_chunk::<4>().unwrap()))
    };
    assert_eq!(sent(&mut one, GROUP), (1, v4(1).into()));
    one.set(id, SocketOption::MulticastHops(9)).unwrap();
    let second = IpAddr::from([10, 1, 0, 1]);
    one.set(id, SocketOption::MulticastInterface(Some(second))).unwrap();
    assert_eq!(sent(&mut one, GROUP), (9, second));
    one.set(id, SocketOption::Broadcast(true)).unwrap();
    assert_eq!(sent(&mut one, v4(255).into()), (50, v4(1).into()));
    one.set(id, SocketOption::MulticastInterface(None)).unwrap();
    assert_eq!(sent(&mut one, GROUP), (9, v4(1).into()));
    for wrong in [
        SocketOption::MulticastInterface(Some(v4(9).into())),
        SocketOption::JoinGroup(GroupMembership { group: GROUP, interface: Some(v4(9).into()) }),
    ] {
        assert_eq!(one.set(id, wrong), Err(Error::AddressNotAvailable));
    }
}

#[test]
fn groups_are_joined_once_by_a_socket_and_left_once() {
    let mut one = Host::new(1);
    let id = one.bind((any(GROUP), PORT));
    for (option, expected) in [
        (SocketOption::JoinGroup(on_any(v4(1).into())), Err(Error::InvalidArgument)),
        (SocketOption::JoinGroup(on_any(GROUP_V6)), Err(Error::InvalidArgument)),
        (SocketOption::LeaveGroup(on_any(GROUP)), Err(Error::AddressNotAvailable)),
        (SocketOption::JoinGroup(on_any(GROUP)), Ok(())),
        (SocketOption::JoinGroup(on_any(GROUP)), Err(Error::AddressInUse)),
        (SocketOption::LeaveGroup(on_any(GROUP)), Ok(())),
        (SocketOption::LeaveGroup(on_any(GROUP)), Err(Error::AddressNotAvailable)),
    ] {
        assert_eq!(one.set(id, option), expected, "{option:?}");
    }
    let group = |number: u8| on_any(Ipv4Addr::new(239, 0, 0, number).into());
    let joined = (0..=255).filter(|number| one.set(id, SocketOption::JoinGroup(group(*number))).is_ok());
    assert_eq!(joined.count(), 64);
}

#[test]
fn routers_hear_of_a_socket_that_joins_with_the_next_poll() {
    let mut one = Host::new(1);
    one.network.poll(Instant::from_millis(5_000));
    one.network.frames().clear();
    let id = one.bind((any(GROUP), PORT));
    one.set(id, SocketOption::JoinGroup(on_any(GROUP))).unwrap();
    let now = Instant::from_millis(6_000);
    assert!(one.network.next_deadline().is_some_and(|deadline| deadline <= now));
    one.network.poll(now);
    let reports =
        |one: &mut Host| take_frames(&mut one.network).iter().filter(|frame| frame.bytes[23] == 2).count();
    assert_eq!(reports(&mut one), 1);
    one.network.poll(now);
    assert_eq!(reports(&mut one), 0, "the second comes later");
}

#[test]
fn a_port_is_shared_only_by_those_who_all_allow_it() {
    let mut one = Host::new(1);
    let address = any(GROUP);
    let first = one.bind((address, PORT));
    assert_eq!(one.bind_shared(address).err(), Some(Error::AddressInUse));
    one.udp.close(&mut one.network, &mut one.events, first);
    let shared = one.bind_shared(address).unwrap();
    assert_eq!(one.udp.bind(&one.network, (address, PORT).into()).err(), Some(Error::AddressInUse));
    assert_eq!(one.udp.bind_opened(&one.network, shared, (address, 7).into()), Err(Error::InvalidArgument));
    let more = (0..100).filter(|_| one.bind_shared(address).is_ok()).count();
    assert_eq!(more, 63, "so that a datagram is copied to a bounded number of them");
}

#[test]
fn the_last_socket_on_a_shared_port_gets_what_is_for_one() {
    let (mut one, mut two) = (Host::new(1), Host::new(2));
    let first = two.bind_shared(any(GROUP)).unwrap();
    let last = two.bind_shared(any(GROUP)).unwrap();
    let sender = one.bind((v4(1), 0));
    one.send(sender, Some((v4(2), PORT).into()), b"x").unwrap();
    one.set(sender, SocketOption::Broadcast(true)).unwrap();
    one.send(sender, Some((v4(255), PORT).into()), b"all").unwrap();
    settle(&mut one, &mut two);
    assert_eq!(two.all_received(first), [b"all".to_vec()]);
    // The broadcast need not wait for a neighbour's address.
    assert_eq!(two.all_received(last), [b"all".to_vec(), b"x".to_vec()]);
}

#[test]
fn broadcasts_need_permission() {
    let mut one = Host::new(1);
    let id = one.bind((v4(1), 0));
    for remote in [v4(255), Ipv4Addr::BROADCAST] {
        assert_eq!(one.send(id, Some((remote, 7).into()), b"x"), Err(Error::NotPermitted));
        assert_eq!(one.connect(id, (remote, 7)), Err(Error::NotPermitted));
    }
    one.set(id, SocketOption::Broadcast(true)).unwrap();
    assert_eq!(one.send(id, Some((v4(255), 7).into()), b"x"), Ok(()));
    one.set(id, SocketOption::Broadcast(false)).unwrap();
    assert_eq!(one.send(id, Some((v4(255), 7).into()), b"x"), Err(Error::NotPermitted));
}

#[test]
fn a_socket_without_address_can_be_set_up_and_closed_but_not_used() {
    let mut one = Host::new(1);
    let id = one.udp.open(Domain::Ipv4).unwrap();
    assert_eq!(one.send(id, Some((v4(2), 7).into()), b"x"), Err(Error::InvalidArgument));
    assert_eq!(one.connect(id, (v4(2), 7)), Err(Error::InvalidArgument));
    let other_family = one.udp.bind_opened(&one.network, id, (v6(1), 7).into());
    assert_eq!(other_family, Err(Error::InvalidArgument));
    one.udp.close(&mut one.network, &mut one.events, id);
    assert!(one.udp.is_empty());
}

/// Two sources and a group of one family.
fn sources_of(group: IpAddr) -> [IpAddr; 2] {
    [2, 3].map(|host| if group.is_ipv4() { v4(host).into() } else { v6(host).into() })
}

impl Host {
    /// Which of the two sources' datagrams to the group the socket gets.
    fn heard(&mut self, id: UdpId, group: IpAddr) -> [bool; 2] {
        sources_of(group).map(|source| {
            let datagram = udp_datagram(source, group, (1000, PORT), b"data");
            let frame = framed_to_group(group, &ip_packet(source, group, 17, &datagram));
            let ingress = receive(&mut self.network, NOW, &frame);
            self.take(ingress);
            !self.all_received(id).is_empty()
        })
    }
}

#[test]
fn a_socket_gets_what_the_sources_that_it_named_send_and_others_what_they_asked_for() {
    for group in [GROUP, GROUP_V6] {
        let mut host = Host::new(1);
        let [first, second] = sources_of(group);
        let of = |source| SourceMembership { group: on_any(group), source };
        let [narrow, wide] = [0; 2].map(|_| host.bind_shared(any(group)).unwrap());
        for (id, option, heard) in [
            (narrow, SocketOption::JoinSourceGroup(of(first)), [true, false]),
            (narrow, SocketOption::JoinSourceGroup(of(second)), [true, true]),
            (narrow, SocketOption::LeaveSourceGroup(of(first)), [false, true]),
            (wide, SocketOption::JoinGroup(on_any(group)), [true, true]),
            (wide, SocketOption::BlockSource(of(second)), [true, false]),
            (wide, SocketOption::UnblockSource(of(second)), [true, true]),
            (wide, SocketOption::BlockSource(of(first)), [false, true]),
        ] {
            host.set(id, option).unwrap();
            assert_eq!(host.heard(id, group), heard, "{option:?}");
            let _ = (host.all_received(narrow), host.all_received(wide));
        }
        assert_eq!(host.heard(narrow, group), [false, true]);
        let _ = host.all_received(wide);
        // With its last source a socket leaves, and so it does with the group as a whole.
        host.set(narrow, SocketOption::LeaveSourceGroup(of(second))).unwrap();
        host.set(wide, SocketOption::LeaveGroup(on_any(group))).unwrap();
        assert!(!host.network.is_in_group(group));
        host.set(narrow, SocketOption::JoinSourceGroup(of(first))).unwrap();
        host.udp.close(&mut host.network, &mut host.events, narrow);
        assert!(!host.network.is_in_group(group));
    }
}

#[test]
fn sources_are_named_once_each_and_in_the_mode_that_the_group_was_joined_in() {
    let (specific, specific_v6) = ([232, 1, 1, 1].into(), "ff35::8000:1".parse().unwrap());
    for (group, specific) in [(GROUP, specific), (GROUP_V6, specific_v6)] {
        let mut host = Host::new(1);
        let id = host.bind((any(group), PORT));
        let [first, second] = sources_of(group);
        let of = |source| SourceMembership { group: on_any(group), source };
        let other_family = if group.is_ipv4() { v6(2).into() } else { IpAddr::from(v4(2)) };
        for (option, expected) in [
            (SocketOption::JoinSourceGroup(of(group)), Err(Error::InvalidArgument)),
            (SocketOption::JoinSourceGroup(of(other_family)), Err(Error::InvalidArgument)),
            (SocketOption::JoinSourceGroup(of(any(group))), Err(Error::InvalidArgument)),
            (SocketOption::LeaveSourceGroup(of(first)), Err(Error::AddressNotAvailable)),
            (SocketOption::BlockSource(of(first)), Err(Error::AddressNotAvailable)),
            (SocketOption::JoinSourceGroup(of(first)), Ok(())),
            (SocketOption::JoinSourceGroup(of(first)), Err(Error::AddressNotAvailable)),
            (SocketOption::LeaveSourceGroup(of(second)), Err(Error::AddressNotAvailable)),
            (SocketOption::BlockSource(of(first)), Err(Error::InvalidArgument)),
            (SocketOption::JoinGroup(on_any(group)), Err(Error::AddressInUse)),
            (SocketOption::LeaveGroup(on_any(group)), Ok(())),
            (SocketOption::JoinGroup(on_any(group)), Ok(())),
            (SocketOption::JoinSourceGroup(of(first)), Err(Error::InvalidArgument)),
            (SocketOption::BlockSource(of(first)), Ok(())),
            (SocketOption::UnblockSource(of(second)), Err(Error::AddressNotAvailable)),
            (SocketOption::UnblockSource(of(first)), Ok(())),
            // Nobody delivers what anybody sends to a group that is for sources by name (RFC 4604).
            (SocketOption::JoinGroup(on_any(specific)), Err(Error::InvalidArgument)),
            (
                SocketOption::JoinSourceGroup(SourceMembership { group: on_any(specific), source: first }),
                Ok(()),
            ),
        ] {
            assert_eq!(host.set(id, option), expected, "{option:?}");
        }
    }
}

#[test]
fn a_whole_list_takes_the_place_of_what_a_socket_wanted_before() {
    let (specific, specific_v6) = ([232, 1, 1, 1].into(), "ff35::8000:1".parse().unwrap());
    for (group, specific) in [(GROUP, specific), (GROUP_V6, specific_v6)] {
        let mut host = Host::new(1);
        let id = host.bind_shared(any(group)).unwrap();
        let [first, second] = sources_of(group);
        let of = |source| SourceMembership { group: on_any(group), source };
        let set = |host: &mut Host, mode, sources: &[IpAddr]| {
            host.udp.set_source_filter(&mut host.network, id, on_any(group), mode, sources)
        };
        // To include nobody is not to be in the group, also for who is not.
        assert_eq!(set(&mut host, FilterMode::Include, &[]), Ok(()));
        assert_eq!(host.udp.source_filter(id, on_any(group)).err(), Some(Error::AddressNotAvailable));
        for (mode, sources, heard) in [
            (FilterMode::Include, vec![second, first, second], [true, true]),
            (FilterMode::Include, vec![second], [false, true]),
            (FilterMode::Exclude, vec![second], [true, false]),
            (FilterMode::Exclude, vec![], [true, true]),
            (FilterMode::Include, vec![first], [true, false]),
        ] {
            assert_eq!(set(&mut host, mode, &sources), Ok(()));
            let filter = host.udp.source_filter(id, on_any(group)).unwrap();
            assert_eq!(filter.mode(), mode);
            let listed = |source: &IpAddr| sources.contains(source);
            assert_eq!(filter.sources(), [first, second].into_iter().filter(listed).collect::<Vec<_>>());
            assert_eq!(host.heard(id, group), heard, "{mode:?} {sources:?}");
        }
        // Single sources go on from there.
        host.set(id, SocketOption::JoinSourceGroup(of(second))).unwrap();
        assert_eq!(host.heard(id, group), [true, true]);
        assert_eq!(set(&mut host, FilterMode::Include, &[first, group]), Err(Error::InvalidArgument));
        assert_eq!(set(&mut host, FilterMode::Include, &[first; 65]), Err(Error::NoBuffers));
        assert_eq!(host.heard(id, group), [true, true], "what is refused changes nothing");
        assert_eq!(set(&mut host, FilterMode::Include, &[]), Ok(()));
        assert!(!host.network.is_in_group(group));
        let all_of_specific = host.udp.set_source_filter(
            &mut host.network,
            id,
            on_any(specific),
            FilterMode::Exclude,
            &[first],
        );
        assert_eq!(all_of_specific, Err(Error::InvalidArgument));
    }
}
