//! Routers that advertise themselves, addresses formed from prefixes, and redirects, as the link sees them.

use std::net::{IpAddr, Ipv6Addr};

use libos::memory::ArenaConfig;
use libos::{Arena, Error, Instant};

use crate::network::testing::*;
use crate::network::{AddressOrigin, AddressState, AddressStatus, Network, Payload};
use crate::random::Random;
use crate::stack::StackConfig;
use crate::steering::{CoreShare, HashKey};
use crate::wire::ethernet::{self, EthernetHeader};
use crate::wire::ipv6::Ipv6Header;
use crate::wire::ndp::{AdvertisementFlags, NeighborMessage};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const MINUTE_S: u32 = 60;
const HOUR_S: u32 = 3600;
const PREFIX: &str = "2001:db8:0:5::";

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

/// The link-local address of router or host by number.
fn link_local(number: u8) -> Ipv6Addr {
    crate::wire::ndp::link_local(hardware(number))
}

fn started() -> Network {
    let config = StackConfig { router_discovery: true, ..StackConfig::new(device(1)) };
    let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
    Network::new(&config, arena, &mut Random::new(1), Instant::ZERO).unwrap()
}

/// Lets time pass.
fn run(network: &mut Network, until: Instant) -> Vec<(Instant, Sent)> {
    let mut sent = Vec::new();
    while let Some(now) = network.next_deadline().filter(|now| *now <= until) {
        network.poll(now);
        sent.extend(take_frames(network).into_iter().map(|frame| (now, frame)));
    }
    sent
}

/// The ICMPv6 message in a frame, if there is one right behind the IP header.
fn message(frame: &Sent) -> Option<(Ipv6Addr, Vec<u8>)> {
    let (header, packet) = EthernetHeader::parse(&frame.bytes)?;
    (header.ether_type() == ethernet::TYPE_IPV6 && packet[6] == 58)
        .then(|| (Ipv6Header::parse(packet, packet.len()).unwrap().source(), packet[40..].to_vec()))
}

/// A frame from a router with a message of this kind.
fn from_router(number: u8, hop_limit: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let (source, destination) = (link_local(number), ALL_NODES);
    let message = icmp_message(source.into(), destination.into(), kind, 0, body);
    let mut packet = ip_packet(source.into(), destination.into(), 58, &message);
    packet[7] = hop_limit;
    framed(&packet)
}

struct Advertised {
    lifetime_s: u16,
    options: Vec<Vec<u8>>,
}

impl Advertised {
    fn router(lifetime_s: u16) -> Self {
        Self { lifetime_s, options: Vec::new() }
    }

    fn with(mut self, option: Vec<u8>) -> Self {
        self.options.push(option);
        self
    }

    fn frame(&self, number: u8) -> Vec<u8> {
        let mut body = vec![0, 0];
        body.extend(self.lifetime_s.to_be_bytes());
        body.extend([0; 8]);
        body.extend([1, 1]);
        body.extend(hardware(number));
        body.extend(self.options.concat());
        from_router(number, 255, 134, &body)
    }
}

fn prefix_option(prefix: &str, flags: u8, valid_s: u32, preferred_s: u32) -> Vec<u8> {
    let mut option = vec![3, 4, 64, flags];
    option.extend(valid_s.to_be_bytes());
    option.extend(preferred_s.to_be_bytes());
    option.extend([0; 4]);
    option.extend(prefix.parse::<Ipv6Addr>().unwrap().octets());
    option
}

const ON_LINK: u8 = 0x80;
const AUTONOMOUS: u8 = 0x40;

fn formed(network: &Network) -> Option<AddressStatus> {
    network.addresses().find(|status| status.origin == AddressOrigin::Formed)
}

/// The hardware address that a packet leaves for.
fn leaves_for(network: &mut Network, now: Instant, remote: &str) -> Result<ethernet::Address, Error> {
    let mut path = network.path(now, None, remote.parse().unwrap())?;
    network.frames().clear();
    send_udp(network, now, &mut path, Payload::Empty)?;
    let frames = take_frames(network);
    frames[0].bytes.first_chunk().copied().ok_or(Error::NoBuffers)
}

#[test]
fn routers_are_asked_for_ever_more_rarely_until_one_answers() {
    let mut network = started();
    let asked: Vec<u64> = run(&mut network, at(100))
        .iter()
        .filter(|(_, frame)| message(frame).is_some_and(|(_, message)| message[0] == 133))
        .map(|(now, _)| now.as_nanos() / 1_000_000_000)
        .collect();
    let gaps: Vec<u64> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(asked[0], 0);
    for (gap, expected) in gaps.iter().zip([4, 8, 16, 32]) {
        assert!((expected * 9 / 10 - 1..=expected * 11 / 10 + 1).contains(gap), "{gaps:?}");
    }
    receive(&mut network, at(100), &Advertised::router(1800).frame(9));
    let more = run(&mut network, at(1800));
    assert!(!more.iter().any(|(_, frame)| message(frame).is_some_and(|(_, message)| message[0] == 133)));
    // Its time is over without another word.
    let more = run(&mut network, at(2000));
    assert!(more.iter().any(|(_, frame)| message(frame).is_some_and(|(_, message)| message[0] == 133)));
}

#[test]
fn of_several_cores_the_others_ask_only_when_the_first_is_not_answered() {
    let second_core = || {
        let share = CoreShare::split(2, HashKey::SYMMETRIC).pop();
        let config = StackConfig { router_discovery: true, share, ..StackConfig::new(device(1)) };
        let arena = Arena::new(&ArenaConfig { region_bytes: 16 << 20, hugepages: false }).unwrap();
        Network::new(&config, arena, &mut Random::new(1), Instant::ZERO).unwrap()
    };
    let asks = |sent: Vec<(Instant, Sent)>| {
        sent.iter().any(|(_, frame)| message(frame).is_some_and(|(_, message)| message[0] == 133))
    };
    let mut network = second_core();
    assert!(!asks(run(&mut network, at(14))));
    receive(&mut network, at(14), &Advertised::router(1800).frame(9));
    assert!(!asks(run(&mut network, at(1000))), "it knows the router that the first core asked for");
    let mut network = second_core();
    assert!(asks(run(&mut network, at(16))), "nobody was heard");
}

#[test]
fn a_router_that_advertises_itself_is_the_way_to_everywhere_for_its_lifetime() {
    let mut network = started();
    run(&mut network, at(3));
    let elsewhere = "2001:db8:ffff::1";
    assert_eq!(leaves_for(&mut network, at(3), elsewhere), Err(Error::NetworkUnreachable));
    let prefix = prefix_option(PREFIX, ON_LINK | AUTONOMOUS, HOUR_S, HOUR_S);
    receive(&mut network, at(3), &Advertised::router(600).with(prefix).frame(9));
    run(&mut network, at(10));
    assert_eq!(leaves_for(&mut network, at(10), elsewhere), Ok(hardware(9)));
    run(&mut network, at(603));
    assert_eq!(leaves_for(&mut network, at(603), elsewhere), Err(Error::NetworkUnreachable));
    receive(&mut network, at(604), &Advertised::router(600).frame(9));
    assert_eq!(leaves_for(&mut network, at(604), elsewhere), Ok(hardware(9)));
    receive(&mut network, at(605), &Advertised::router(0).frame(9));
    assert_eq!(leaves_for(&mut network, at(605), elsewhere), Err(Error::NetworkUnreachable));
}

#[test]
fn invalid_advertisements_change_nothing() {
    let good = Advertised::router(600).frame(9);
    let mut forwarded = good.clone();
    forwarded[14 + 7] = 254;
    let mut body = vec![64, 0, 2, 88];
    body.extend([0; 8]);
    let from_global = {
        let source = "2001:db8::9".parse().unwrap();
        let message = icmp_message(source, ALL_NODES.into(), 134, 0, &body);
        let mut packet = ip_packet(source, ALL_NODES.into(), 58, &message);
        packet[7] = 255;
        framed(&packet)
    };
    let (front, rest) = good.split_at(54);
    let mut fragmented = [front, &[58, 0, 0, 0, 0, 0, 0, 1], rest].concat();
    fragmented[14 + 6] = 44;
    fragmented[14 + 5] += 8;
    for (name, frame) in [
        ("forwarded", forwarded),
        ("not from the link", from_global),
        ("in a fragment", fragmented),
        ("too short", from_router(9, 255, 134, &body[..8])),
        (
            "with an option of no length",
            from_router(9, 255, 134, &[&body[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ),
    ] {
        let mut network = started();
        run(&mut network, at(3));
        let errors = network.counters().icmp_in_errors;
        receive(&mut network, at(3), &frame);
        assert_eq!(network.counters().icmp_in_errors, errors + 1, "{name}");
        assert_eq!(network.counters().router_advertisements, 0, "{name}");
    }
}

#[test]
fn without_router_discovery_nobody_is_asked_or_believed() {
    let mut network = network(&config(1));
    assert!(
        !run(&mut network, at(60))
            .iter()
            .any(|(_, frame)| { message(frame).is_some_and(|(_, message)| message[0] == 133) })
    );
    let prefix = prefix_option(PREFIX, ON_LINK | AUTONOMOUS, HOUR_S, HOUR_S);
    receive(&mut network, at(60), &Advertised::router(600).with(prefix).frame(9));
    assert_eq!(formed(&network), None);
}

#[test]
fn an_address_is_formed_probed_deprecated_and_given_up_as_its_prefix_says() {
    let mut network = started();
    run(&mut network, at(3));
    let prefix = prefix_option(PREFIX, ON_LINK | AUTONOMOUS, 10 * MINUTE_S, 5 * MINUTE_S);
    receive(&mut network, at(3), &Advertised::router(1800).with(prefix).frame(9));
    let status = formed(&network).unwrap();
    assert_eq!(status.state, AddressState::Tentative);
    assert!(status.prefix.contains(PREFIX.parse().unwrap()));
    let sent = run(&mut network, at(6));
    let probe = sent.iter().filter_map(|(_, frame)| message(frame)).find(|(_, message)| message[0] == 135);
    assert!(probe.is_some_and(|(source, _)| source.is_unspecified()));
    let address = status.prefix.address;
    assert!(network.is_local(address));
    assert_eq!(network.path(at(6), None, "2001:db8:9::1".parse().unwrap()).unwrap().local, address);
    for (seconds, state) in
        [(302, Some(AddressState::Preferred)), (303, Some(AddressState::Deprecated)), (603, None)]
    {
        run(&mut network, at(seconds));
        assert_eq!(formed(&network).map(|status| status.state), state, "{seconds}");
    }
    assert!(!network.is_local(address));
}

#[test]
fn lifetimes_follow_later_advertisements_but_fall_to_two_hours_at_once_only() {
    for (name, valid_s, valid_at_s) in
        [("longer", 10 * HOUR_S, 36_010), ("shorter", 3 * HOUR_S, 10_810), ("none", 0, 7_210)]
    {
        let mut network = started();
        run(&mut network, at(3));
        let advertise = |network: &mut Network, now, valid_s: u32| {
            let prefix = prefix_option(PREFIX, AUTONOMOUS, valid_s, valid_s.min(HOUR_S));
            receive(network, now, &Advertised::router(1800).with(prefix).frame(9));
        };
        advertise(&mut network, at(3), 5 * HOUR_S);
        run(&mut network, at(10));
        advertise(&mut network, at(10), valid_s);
        assert_eq!(formed(&network).unwrap().valid_until, at(valid_at_s), "{name}");
    }
}

#[test]
fn prefixes_that_cannot_be_used_are_passed_over() {
    for (name, option) in [
        ("link-local", prefix_option("fe80::", AUTONOMOUS, HOUR_S, HOUR_S)),
        ("preferred for longer than valid", prefix_option(PREFIX, AUTONOMOUS, 60, 61)),
        ("not for forming addresses", prefix_option(PREFIX, ON_LINK, HOUR_S, HOUR_S)),
        ("over already", prefix_option(PREFIX, AUTONOMOUS, 0, 0)),
        ("of another length", {
            let mut option = prefix_option(PREFIX, AUTONOMOUS, HOUR_S, HOUR_S);
            option[2] = 65;
            option
        }),
    ] {
        let mut network = started();
        receive(&mut network, at(1), &Advertised::router(1800).with(option).frame(9));
        assert_eq!(formed(&network), None, "{name}");
    }
}

#[test]
fn a_flood_of_prefixes_makes_a_bounded_number_of_addresses() {
    let mut network = started();
    for number in 0..1000 {
        let prefix = prefix_option(&format!("2001:db8:{number:x}::"), ON_LINK | AUTONOMOUS, HOUR_S, HOUR_S);
        receive(&mut network, at(1), &Advertised::router(1800).with(prefix).frame(9));
    }
    run(&mut network, at(10));
    assert_eq!(network.addresses().filter(|status| status.origin == AddressOrigin::Formed).count(), 8);
    assert!(network.addresses().all(|status| status.state == AddressState::Preferred));
}

#[test]
fn another_address_is_formed_when_one_is_somebody_elses() {
    let mut network = started();
    run(&mut network, at(3));
    let prefix = prefix_option(PREFIX, AUTONOMOUS, HOUR_S, HOUR_S);
    receive(&mut network, at(3), &Advertised::router(1800).with(prefix).frame(9));
    let mut tried = Vec::new();
    for _ in 0..3 {
        let IpAddr::V6(target) = formed(&network).unwrap().prefix.address else { panic!("IPv6") };
        tried.push(target);
        let flags = AdvertisementFlags { router: false, solicited: false, overriding: true };
        let claim = NeighborMessage::Advertisement { flags, target, hardware: Some(hardware(2)) };
        receive(&mut network, at(3), &neighbor_frame(target, ALL_NODES, 255, claim));
    }
    assert!(tried[0] != tried[1] && tried[1] != tried[2]);
    assert_eq!(formed(&network).unwrap().state, AddressState::Duplicate);
}

#[test]
fn a_prefix_on_the_link_is_reached_directly_until_it_is_withdrawn() {
    let mut network = started();
    run(&mut network, at(3));
    let advertise = |network: &mut Network, now, flags, valid_s| {
        let prefix = prefix_option(PREFIX, flags, valid_s, valid_s);
        receive(network, now, &Advertised::router(1800).with(prefix).frame(9));
    };
    advertise(&mut network, at(3), AUTONOMOUS, HOUR_S);
    run(&mut network, at(10));
    let neighbor = "2001:db8:0:5::77";
    // Not said to be on the link, so by way of the router (RFC 5942).
    assert_eq!(leaves_for(&mut network, at(10), neighbor), Ok(hardware(9)));
    advertise(&mut network, at(11), ON_LINK, HOUR_S);
    assert_eq!(leaves_for(&mut network, at(11), neighbor), Ok([0x33, 0x33, 0xff, 0, 0, 0x77]));
    advertise(&mut network, at(12), ON_LINK, 0);
    assert_eq!(leaves_for(&mut network, at(12), neighbor), Ok(hardware(9)));
}

#[test]
fn the_mtu_and_the_hop_limit_are_taken_within_bounds() {
    for (name, mtu, hop_limit, expected) in [
        ("usual", 1400_u32, 100, (1400, 100)),
        ("too small", 1279, 31, (1500, 64)),
        ("too large", 9000, 0, (1500, 64)),
    ] {
        let mut network = started();
        run(&mut network, at(3));
        let mut option = vec![5, 1, 0, 0];
        option.extend(mtu.to_be_bytes());
        let mut body = vec![hop_limit, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        body.extend(option);
        receive(&mut network, at(3), &from_router(9, 255, 134, &body));
        let path = network.path(at(3), None, link_local(9).into()).unwrap();
        assert_eq!((path.mtu, network.hop_limit_v6), expected, "{name}");
    }
}

/// A network with two routers, and a path by way of the first.
fn with_two_routers() -> (Network, crate::network::Path) {
    let mut network = started();
    run(&mut network, at(3));
    let prefix = || prefix_option(PREFIX, AUTONOMOUS, HOUR_S, HOUR_S);
    receive(&mut network, at(3), &Advertised::router(1800).with(prefix()).frame(8));
    receive(&mut network, at(3), &Advertised::router(1800).with(prefix()).frame(9));
    run(&mut network, at(10));
    let path = network.path(at(10), None, "2001:db8:9::1".parse().unwrap()).unwrap();
    (network, path)
}

fn sent_by(network: &mut Network, now: Instant, path: &mut crate::network::Path) -> ethernet::Address {
    network.frames().clear();
    send_udp(network, now, path, Payload::Empty).unwrap();
    *take_frames(network)[0].bytes.first_chunk().unwrap()
}

#[test]
fn a_router_that_falls_silent_is_replaced_under_way() {
    let (mut network, mut path) = with_two_routers();
    assert_eq!(sent_by(&mut network, at(10), &mut path), hardware(8));
    // Five seconds of doubt, three probes without an answer.
    run(&mut network, at(20));
    assert_eq!(sent_by(&mut network, at(20), &mut path), hardware(9));
}

#[test]
fn a_router_that_becomes_a_host_is_replaced_under_way() {
    let (mut network, mut path) = with_two_routers();
    assert_eq!(sent_by(&mut network, at(10), &mut path), hardware(8));
    let flags = AdvertisementFlags { router: false, solicited: false, overriding: true };
    let target = link_local(8);
    let host = NeighborMessage::Advertisement { flags, target, hardware: Some(hardware(8)) };
    receive(&mut network, at(11), &neighbor_frame(target, ALL_NODES, 255, host));
    assert_eq!(sent_by(&mut network, at(11), &mut path), hardware(9));
}

fn redirect(from: u8, hop_limit: u8, target: Ipv6Addr, destination: &str) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(target.octets());
    body.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
    body.extend([2, 1]);
    body.extend(hardware(7));
    from_router(from, hop_limit, 137, &body)
}

#[test]
fn a_redirect_of_the_router_in_use_is_followed_until_its_target_falls_silent() {
    let (mut network, mut path) = with_two_routers();
    assert_eq!(sent_by(&mut network, at(10), &mut path), hardware(8));
    receive(&mut network, at(10), &redirect(8, 255, link_local(7), "2001:db8:9::1"));
    assert_eq!(network.counters().redirects, 1);
    assert_eq!(sent_by(&mut network, at(10), &mut path), hardware(7));
    assert_eq!(leaves_for(&mut network, at(10), "2001:db8:9::2"), Ok(hardware(8)));
    run(&mut network, at(20));
    // The router that redirected does not answer either.
    assert_eq!(sent_by(&mut network, at(20), &mut path), hardware(9));
}

#[test]
fn redirects_of_others_and_malformed_ones_are_not_followed() {
    for (name, frame, refused) in [
        ("of another router", redirect(9, 255, link_local(7), "2001:db8:9::1"), 1),
        ("of a host", redirect(5, 255, link_local(7), "2001:db8:9::1"), 1),
        ("to ourselves", redirect(8, 255, link_local(1), "2001:db8:9::1"), 1),
        ("forwarded", redirect(8, 254, link_local(7), "2001:db8:9::1"), 0),
        ("to a router off the link", redirect(8, 255, "2001:db8::7".parse().unwrap(), "2001:db8:9::1"), 0),
        ("of a group", redirect(8, 255, link_local(7), "ff05::1"), 0),
    ] {
        let (mut network, mut path) = with_two_routers();
        receive(&mut network, at(10), &frame);
        assert_eq!(network.counters().redirects, 0, "{name}");
        assert_eq!(network.counters().redirects_refused, refused, "{name}");
        assert_eq!(sent_by(&mut network, at(10), &mut path), hardware(8), "{name}");
    }
}

#[test]
fn a_flood_of_redirects_leaves_the_latest() {
    let (mut network, _) = with_two_routers();
    for number in 0..1000 {
        receive(&mut network, at(10), &redirect(8, 255, link_local(7), &format!("2001:db8:9::{number:x}")));
    }
    assert_eq!(leaves_for(&mut network, at(10), "2001:db8:9::3e7"), Ok(hardware(7)));
    assert_eq!(leaves_for(&mut network, at(10), "2001:db8:9::1"), Ok(hardware(8)));
}

/// An ICMPv4 redirect of host `from`: what `sender` sent to `destination` had better go by way of `gateway`.
fn redirect_v4(from: u8, gateway: [u8; 4], sender: u8, destination: [u8; 4]) -> Vec<u8> {
    let quoted = ip_packet(v4(sender).into(), destination.into(), 17, &[0; 8]);
    let body = [&gateway[..], &quoted].concat();
    let message = icmp_message(v4(from).into(), v4(1).into(), 5, 1, &body);
    framed(&ip_packet(v4(from).into(), v4(1).into(), 1, &message))
}

/// The host on the link that packets to `destination` go by way of.
fn next_hop_v4(network: &Network, destination: [u8; 4]) -> Option<crate::network::interface::NextHop> {
    network.interface.next_hop(destination.into())
}

#[test]
fn an_icmpv4_redirect_of_the_gateway_in_use_is_followed_until_its_target_falls_silent() {
    use crate::network::interface::NextHop::Neighbor;
    let far = [203, 0, 113, 5];
    let mut network = network(&StackConfig { gateway_v4: Some(v4(2)), ..config(1) });
    assert_eq!(next_hop_v4(&network, far), Some(Neighbor(v4(2).into())));
    receive(&mut network, at(1), &redirect_v4(2, v4(7).octets(), 1, far));
    assert_eq!((network.counters().redirects, network.counters().redirects_refused), (1, 0));
    assert_eq!(next_hop_v4(&network, far), Some(Neighbor(v4(7).into())));
    // It is about one host, whatever its code says.
    assert_eq!(next_hop_v4(&network, [203, 0, 113, 6]), Some(Neighbor(v4(2).into())));
    network.on_neighbor_silence(v4(7).into());
    assert_eq!(next_hop_v4(&network, far), Some(Neighbor(v4(2).into())));
}

#[test]
fn icmpv4_redirects_of_others_and_to_elsewhere_are_not_followed() {
    let far = [203, 0, 113, 5];
    for (name, frame, refused) in [
        ("of a host that is not the gateway", redirect_v4(5, v4(7).octets(), 1, far), 1),
        ("to a router off the link", redirect_v4(2, [198, 51, 100, 7], 1, far), 1),
        ("to ourselves", redirect_v4(2, v4(1).octets(), 1, far), 1),
        ("to nobody", redirect_v4(2, [0; 4], 1, far), 1),
        ("to everybody", redirect_v4(2, v4(255).octets(), 1, far), 1),
        ("about a host on the link", redirect_v4(2, v4(7).octets(), 1, v4(9).octets()), 1),
        ("about what another sent", redirect_v4(2, v4(7).octets(), 3, far), 0),
    ] {
        let mut network = network(&StackConfig { gateway_v4: Some(v4(2)), ..config(1) });
        receive(&mut network, at(1), &frame);
        assert_eq!(network.counters().redirects, 0, "{name}");
        assert_eq!(network.counters().redirects_refused, refused, "{name}");
    }
    let unwanted = StackConfig { gateway_v4: Some(v4(2)), redirects: false, ..config(1) };
    let mut network = network(&unwanted);
    receive(&mut network, at(1), &redirect_v4(2, v4(7).octets(), 1, far));
    assert_eq!((network.counters().redirects, network.counters().redirects_refused), (0, 1));
}
