//! What stacks that share a device agree on without a word between them.

use std::collections::HashSet;
use std::net::SocketAddr;

use libos::memory::ArenaConfig;
use libos::{Arena, Error, Instant, RxFrame};

use super::{CoreShare, HashKey, Transport};
use crate::network::testing;
use crate::stack::Stack;
use crate::tcp::TcpOptions;

const CORES: usize = 3;

/// The stacks of all cores of host 1.
fn stacks() -> Vec<(CoreShare, Stack)> {
    let stack = |share: CoreShare| {
        let mut config = testing::config(1);
        config.share = Some(share.clone());
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 20, hugepages: false }).unwrap();
        let seed = share.core() as u64;
        (share, Stack::new(&config, arena, seed, Instant::ZERO).unwrap())
    };
    CoreShare::split(CORES, HashKey::SYMMETRIC).into_iter().map(stack).collect()
}

fn peers() -> [SocketAddr; 2] {
    [(testing::v4(2), 80).into(), (testing::v6(2), 80).into()]
}

#[test]
fn an_active_open_has_a_port_whose_answers_come_to_its_core() {
    for peer in peers() {
        let mut ends = HashSet::new();
        for (share, stack) in &mut stacks() {
            for _ in 0..100 {
                let options = TcpOptions::default();
                let id = stack.tcp_connect(Instant::ZERO, &mut None, peer, &options).unwrap();
                let local = stack.tcp_local_address(id).unwrap();
                assert!(share.is_home(local, peer), "{local} at core {}", share.core());
                assert!(ends.insert(local), "{local} twice");
            }
        }
    }
}

#[test]
fn a_connected_datagram_socket_has_a_port_whose_answers_come_to_its_core() {
    for peer in peers() {
        let mut ends = HashSet::new();
        for (share, stack) in &mut stacks() {
            for _ in 0..100 {
                let local = stack.udp_home_towards(Instant::ZERO, peer).unwrap();
                let id = stack.udp_bind(local).unwrap();
                stack.udp_connect(Instant::ZERO, id, peer).unwrap();
                let local = stack.udp_local_address(id).unwrap();
                assert!(share.is_home(local, peer), "{local} at core {}", share.core());
                assert!(ends.insert(local), "{local} twice");
            }
        }
    }
}

#[test]
fn when_no_port_comes_home_the_open_fails() {
    let mut stacks = stacks();
    let (share, stack) = &mut stacks[1];
    let peer = peers()[0];
    let (low, own) = (49_152, testing::v4(1));
    let home = (low..=u16::MAX).filter(|port| share.is_home((own, *port).into(), peer)).count();
    for _ in 0..home {
        let local = stack.udp_home_towards(Instant::ZERO, peer).unwrap();
        stack.udp_bind(local).unwrap();
    }
    assert_eq!(stack.udp_home_towards(Instant::ZERO, peer), None);
    assert!(stack.udp_bind("0.0.0.0:0".parse().unwrap()).is_ok(), "others are left");
}

#[test]
fn a_port_bound_by_number_is_every_cores_and_one_that_the_stack_picked_is_one_cores() {
    let mut stacks = stacks();
    let mut picked = HashSet::new();
    for (_, stack) in &mut stacks {
        let bind = |stack: &mut Stack, local: &str| {
            let binding = stack.tcp_bind(local.parse().unwrap())?;
            Ok::<_, Error>((binding.local().port(), stack.tcp_listen(binding, 8, &TcpOptions::default())?))
        };
        assert!(bind(stack, "0.0.0.0:80").is_ok());
        for _ in 0..50 {
            assert!(picked.insert((Transport::Tcp, bind(stack, "0.0.0.0:0").unwrap().0)));
            let datagrams = stack.udp_bind("0.0.0.0:0".parse().unwrap()).unwrap();
            let port = stack.udp_local_address(datagrams).unwrap().port();
            assert!(picked.insert((Transport::Udp, port)));
        }
    }
    let users = |transport, port| stacks[0].0.users(transport, port);
    assert_eq!((users(Transport::Tcp, 80), users(Transport::Udp, 80)), (0b111, 0));
}

#[test]
fn a_closed_datagram_socket_leaves_its_port_to_other_cores() {
    let mut stacks = stacks();
    let (share, stack) = &mut stacks[2];
    let id = stack.udp_bind("0.0.0.0:53".parse().unwrap()).unwrap();
    assert_eq!(share.users(Transport::Udp, 53), 0b100);
    stack.udp_close(id);
    assert_eq!(share.users(Transport::Udp, 53), 0);
}

#[test]
fn a_stack_claims_what_it_has_a_socket_for() {
    let mut stacks = stacks();
    let (_, stack) = &mut stacks[0];
    let frame = |port| {
        let (peer, us) = (testing::v4(2).into(), testing::v4(1).into());
        let datagram = testing::udp_datagram(peer, us, (5000, port), b"?");
        let frame = testing::framed(&testing::ip_packet(peer, us, 17, &datagram));
        let arena = Arena::new(&ArenaConfig { region_bytes: 64 << 10, hugepages: false }).unwrap();
        RxFrame::from(arena.copy_from(&frame).unwrap().freeze())
    };
    stack.udp_bind("0.0.0.0:53".parse().unwrap()).unwrap();
    assert!(stack.claims(&frame(53)));
    assert!(!stack.claims(&frame(54)));
}
