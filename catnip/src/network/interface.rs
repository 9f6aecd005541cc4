//! The stack's addresses and routes: what is ours, and where everything else is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;
use libos::runtime::Medium;

use super::DestinationKind;
use super::prefix::{Prefix, Route};
use crate::stack::{MAX_ADDRESSES, StackConfig};
use crate::wire::ethernet;
use crate::wire::ndp;

#[derive(Debug, Clone, Copy)]
struct OwnV4 {
    address: Ipv4Addr,
    broadcast: Ipv4Addr,
    prefix: Prefix,
}

#[derive(Debug, Clone, Copy)]
struct OwnV6 {
    address: Ipv6Addr,
    solicited_node: Ipv6Addr,
    prefix: Prefix,
    /// All of the prefix is on the link. Not so for addresses formed from an advertised prefix, which says
    /// for itself whether it is (RFC 5942 section 4).
    on_link: bool,
    /// New connections prefer another address (RFC 4862 section 5.5.4).
    deprecated: bool,
}

/// Who a route comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteOrigin {
    /// The configuration.
    Static,
    /// The default router chosen among those that advertise themselves.
    Advertised,
    /// A redirect.
    Redirect,
    /// A DHCP lease.
    Leased,
}

#[derive(Debug, Clone, Copy)]
struct KnownRoute {
    route: Route,
    origin: RouteOrigin,
}

/// Where a packet's next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextHop {
    /// One of our own addresses, or a loopback address.
    Ourselves,
    /// Everybody on the link.
    Broadcast,
    /// A group.
    Group,
    /// A host or router on the link.
    Neighbor(IpAddr),
}

/// Most addresses formed from advertised prefixes.
pub(super) const MAX_FORMED_ADDRESSES: usize = 8;
/// Most advertised prefixes that are on the link. At the limit a further one is not taken.
pub(super) const MAX_ON_LINK_PREFIXES: usize = 16;
/// Most destinations that were redirected. At the limit the oldest redirect is forgotten.
const MAX_REDIRECTS: usize = 32;
/// Most IPv4 addresses: those configured, and a leased one.
pub(super) const MAX_V4: usize = MAX_ADDRESSES + 1;
/// Most IPv6 addresses: those configured, the link-local one, and those formed.
pub(super) const MAX_V6: usize = MAX_ADDRESSES + 1 + MAX_FORMED_ADDRESSES;

/// Addresses and routes, in tables that are short enough to be looked through.
#[derive(Debug)]
pub(super) struct Interface {
    medium: Medium,
    v4: ArrayVec<OwnV4, MAX_V4>,
    v6: ArrayVec<OwnV6, MAX_V6>,
    /// Prefixes on the link in which we need not have an address.
    on_link: ArrayVec<Prefix, MAX_ON_LINK_PREFIXES>,
    /// Longest prefix first.
    routes: Vec<KnownRoute>,
    /// Changes with addresses and routes: paths made before have to be looked at again.
    generation: u32,
}

/// All nodes on the link (RFC 4291 section 2.7.1).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// All systems on the link (RFC 1112 section 4).
pub(super) const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const LINK_LOCAL: Prefix =
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), length: 64 };

impl Interface {
    /// An interface with the routes of a checked configuration, and no addresses.
    pub(super) fn new(config: &StackConfig) -> Self {
        let mut interface = Self {
            medium: config.device.medium,
            v4: ArrayVec::new(),
            v6: ArrayVec::new(),
            on_link: ArrayVec::new(),
            routes: Vec::new(),
            generation: 0,
        };
        for route in config.all_routes() {
            interface.add_route(route, RouteOrigin::Static);
        }
        interface
    }

    /// The number of the present addresses and routes.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// Makes an address ours. False when there are too many, or when it is ours already.
    pub(super) fn assign(&mut self, prefix: Prefix, on_link: bool) -> bool {
        if self.has(prefix.address) {
            return false;
        }
        self.changed();
        match prefix.address {
            IpAddr::V4(address) => {
                let broadcast = prefix.broadcast().unwrap_or(Ipv4Addr::BROADCAST);
                self.v4.try_push(OwnV4 { address, broadcast, prefix }).is_ok()
            }
            IpAddr::V6(address) => {
                let solicited_node = ndp::solicited_node(address);
                let own = OwnV6 { address, solicited_node, prefix, on_link, deprecated: false };
                self.v6.try_push(own).is_ok()
            }
        }
    }

    /// An address is ours no longer, or is not going to be.
    pub(super) fn withdraw(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4.retain(|own| own.address != address),
            IpAddr::V6(address) => self.v6.retain(|own| own.address != address),
        }
        self.changed();
    }

    /// Whether new connections prefer other addresses to this one.
    pub(super) fn set_deprecated(&mut self, address: IpAddr, deprecated: bool) {
        if let Some(own) = self.v6.iter_mut().find(|own| IpAddr::V6(own.address) == address) {
            own.deprecated = deprecated;
        }
    }

    /// Adds a route, behind those that are as long and of no greater metric. One of the same origin to the same destination gives way,
    /// unless it is configured: of those the first counts.
    pub(super) fn add_route(&mut self, route: Route, origin: RouteOrigin) {
        if origin != RouteOrigin::Static {
            self.routes
                .retain(|known| known.origin != origin || known.route.destination != route.destination);
        }
        if origin == RouteOrigin::Redirect && self.routes(origin).count() >= MAX_REDIRECTS {
            // They are as long as each other, so that the first is the oldest.
            let oldest = self.routes.iter().position(|known| known.origin == origin);
            oldest.map(|index| self.routes.remove(index));
        }
        let rank = |route: &Route| (std::cmp::Reverse(route.destination.length), route.metric);
        let worse = |known: &KnownRoute| rank(&known.route) > rank(&route);
        let place = self.routes.iter().position(worse).unwrap_or(self.routes.len());
        self.routes.insert(place, KnownRoute { route, origin });
        self.changed();
    }

    /// Has paths be looked at again, if there is a choice of routers: one of them may have died.
    pub(super) fn reconsider_routers(&mut self) {
        if self.routes.len() > 1 {
            self.changed();
        }
    }

    /// Forgets the routes of an origin that `gone` is true for.
    pub(super) fn remove_routes(&mut self, origin: RouteOrigin, gone: impl Fn(&Route) -> bool) {
        let before = self.routes.len();
        self.routes.retain(|known| known.origin != origin || !gone(&known.route));
        if self.routes.len() != before {
            self.changed();
        }
    }

    /// Routes of an origin.
    pub(super) fn routes(&self, origin: RouteOrigin) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |known| known.origin == origin).map(|known| &known.route)
    }

    /// A prefix is on the link. There are as many places as are asked for.
    pub(super) fn add_on_link(&mut self, prefix: Prefix) {
        if !self.on_link.contains(&prefix) && self.on_link.try_push(prefix).is_ok() {
            self.changed();
        }
    }

    /// A prefix is on the link no longer.
    pub(super) fn remove_on_link(&mut self, prefix: Prefix) {
        self.on_link.retain(|known| *known != prefix);
        self.changed();
    }

    /// True for our own addresses, loopback ones apart.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.is_own_v4(address),
            IpAddr::V6(address) => self.is_own_v6(address),
        }
    }

    /// The address that is used when any will do.
    pub(super) fn first_v4(&self) -> Option<Ipv4Addr> {
        self.v4.first().map(|own| own.address)
    }

    /// The address that means something on the link alone.
    pub(super) fn link_local(&self) -> Option<Ipv6Addr> {
        self.v6.iter().map(|own| own.address).find(Ipv6Addr::is_unicast_link_local)
    }

    /// True for the groups that every host is in.
    pub(super) fn is_group_of_all(&self, group: IpAddr) -> bool {
        match group {
            IpAddr::V4(group) => group == ALL_SYSTEMS,
            IpAddr::V6(group) => group == ALL_NODES,
        }
    }

    #[inline]
    pub(super) fn is_own_v4(&self, address: Ipv4Addr) -> bool {
        self.v4.iter().any(|own| own.address == address)
    }

    #[inline]
    pub(super) fn is_own_v6(&self, address: Ipv6Addr) -> bool {
        self.v6.iter().any(|own| own.address == address)
    }

    /// True for our addresses and for loopback ones.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.is_loopback() || self.is_own_v4(address),
            IpAddr::V6(address) => address.is_loopback() || self.is_own_v6(address),
        }
    }

    /// How a packet to `destination` concerns us; `None` when it does not. Loopback destinations are
    /// not for packets from outside (RFC 1122 section 3.2.1.3 (g)).
    #[inline]
    pub(super) fn destination_kind_v4(&self, destination: Ipv4Addr) -> Option<DestinationKind> {
        for own in &self.v4 {
            if destination == own.address {
                return Some(DestinationKind::Unicast);
            }
            if destination == own.broadcast {
                return Some(DestinationKind::Broadcast);
            }
        }
        match destination {
            Ipv4Addr::BROADCAST => Some(DestinationKind::Broadcast),
            ALL_SYSTEMS => Some(DestinationKind::Multicast),
            _ => None,
        }
    }

    /// How a packet to `destination` concerns us; `None` when it does not.
    #[inline]
    pub(super) fn destination_kind_v6(&self, destination: Ipv6Addr) -> Option<DestinationKind> {
        if self.is_own_v6(destination) {
            return Some(DestinationKind::Unicast);
        }
        let group = destination == ALL_NODES
            || destination.is_multicast() && (self.v6.iter().any(|own| own.solicited_node == destination));
        group.then_some(DestinationKind::Multicast)
    }

    /// True when nobody else can be the sender: broadcast, group, loopback and unspecified addresses
    /// (RFC 1122 section 3.2.1.3), and our own.
    #[inline]
    pub(super) fn is_impossible_source_v4(&self, source: Ipv4Addr) -> bool {
        let [first, ..] = source.octets();
        matches!(first, 0 | 127 | 224..=239)
            || source == Ipv4Addr::BROADCAST
            || self.v4.iter().any(|own| source == own.address || source == own.broadcast)
    }

    /// As [`Self::is_impossible_source_v4`], except that the unspecified address has its use in IPv6. An address that
    /// stands for an IPv4 one inside of programs (RFC 4291 section 2.5.5.2) sends nothing: who answered it would answer
    /// somebody else.
    #[inline]
    pub(super) fn is_impossible_source_v6(&self, source: Ipv6Addr) -> bool {
        let mapped = source.to_bits() >> 32 == 0xffff;
        source.is_multicast() || source.is_loopback() || mapped || self.is_own_v6(source)
    }

    /// The way to `remote`; `None` when there is none.
    pub(super) fn next_hop(&self, remote: IpAddr) -> Option<NextHop> {
        self.next_hop_around(remote, |_| false)
    }

    /// As [`Self::next_hop`], past routers that are `dead` where another leads to the same network. When all
    /// are, the first has to do (RFC 1122 section 3.3.1.4).
    pub(super) fn next_hop_around(&self, remote: IpAddr, dead: impl Fn(IpAddr) -> bool) -> Option<NextHop> {
        if self.is_local(remote) {
            return Some(NextHop::Ourselves);
        }
        if remote.is_multicast() {
            return Some(NextHop::Group);
        }
        if self.is_broadcast(remote) {
            return Some(NextHop::Broadcast);
        }
        if self.medium == Medium::Ip {
            return Some(NextHop::Neighbor(remote));
        }
        let on_link = self.on_link(remote).map(|prefix| prefix.length);
        let mut routes = self.routes.iter().map(|known| &known.route);
        let first = routes.find(|route| route.destination.contains(remote));
        let route = first.map(|first| {
            let as_long = routes.filter(|other| other.destination.length == first.destination.length);
            let mut others = as_long.filter(|other| other.destination.contains(remote));
            let alive = |route: &&Route| !dead(route.gateway);
            Some(first).filter(alive).or_else(|| others.find(alive)).unwrap_or(first)
        });
        match (on_link, route) {
            (Some(length), Some(route)) if route.destination.length > length => {
                Some(NextHop::Neighbor(route.gateway))
            }
            (Some(_), _) => Some(NextHop::Neighbor(remote)),
            (None, Some(route)) => Some(NextHop::Neighbor(route.gateway)),
            (None, None) => None,
        }
    }

    pub(super) fn is_broadcast(&self, remote: IpAddr) -> bool {
        match remote {
            IpAddr::V4(remote) => {
                remote == Ipv4Addr::BROADCAST || self.v4.iter().any(|own| own.broadcast == remote)
            }
            IpAddr::V6(_) => false,
        }
    }

    /// The longest of our own prefixes that contains `remote`.
    pub(super) fn on_link(&self, remote: IpAddr) -> Option<Prefix> {
        let v4 = self.v4.iter().map(|own| own.prefix);
        let v6 = self.v6.iter().filter(|own| own.on_link).map(|own| own.prefix);
        let link_local = (!self.v6.is_empty()).then_some(LINK_LOCAL);
        let own = v4.chain(v6).chain(self.on_link.iter().copied()).chain(link_local);
        own.filter(|prefix| prefix.contains(remote)).max_by_key(|prefix| prefix.length)
    }

    /// The source address of packets to `remote` by way of `next_hop`: one in the same network as the
    /// next hop, else one of like scope (RFC 6724 rules 2 and 8), else any of the family.
    pub(super) fn source_for(&self, remote: IpAddr, next_hop: NextHop) -> Option<IpAddr> {
        let near = match next_hop {
            NextHop::Ourselves => return Some(remote),
            NextHop::Neighbor(hop) => hop,
            NextHop::Broadcast | NextHop::Group => remote,
        };
        match (remote, near) {
            (IpAddr::V4(_), IpAddr::V4(near)) => {
                let same_network = |own: &&OwnV4| own.prefix.contains(near.into());
                let own = self.v4.iter().find(same_network).or(self.v4.first())?;
                Some(own.address.into())
            }
            (IpAddr::V6(remote), IpAddr::V6(near)) => {
                let wants_link_local = is_link_scope(remote);
                let like = |own: &&OwnV6| own.address.is_unicast_link_local() == wants_link_local;
                let same_network = |own: &&OwnV6| like(own) && own.prefix.contains(near.into());
                // RFC 6724 section 5, rule 3: deprecated addresses are the last resort of their kind.
                let kinds: [&dyn Fn(&&OwnV6) -> bool; 4] = [
                    &|own| !own.deprecated && same_network(own),
                    &|own| !own.deprecated && like(own),
                    &|own| same_network(own),
                    &|own| like(own),
                ];
                let own = kinds.iter().find_map(|kind| self.v6.iter().find(kind)).or(self.v6.first())?;
                Some(own.address.into())
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }
}

/// True for addresses that mean something on one link only.
fn is_link_scope(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_unicast_link_local() || first == 0xff && second & 0xf <= 2
}

/// The Ethernet address of a group (RFC 1112 section 6.4, RFC 2464 section 7).
pub(super) fn group_hardware(group: IpAddr) -> ethernet::Address {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    }
}

#[cfg(test)]
mod tests {
    use libos::runtime::{Capabilities, TxChecksum};

    use super::*;

    fn interface(addresses: &[&str], routes: &[&str]) -> Interface {
        let device = Capabilities {
            medium: Medium::Ethernet,
            hardware_address: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 2,
        };
        let config = StackConfig {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            routes: routes.iter().map(|text| text.parse().unwrap()).collect(),
            gateway_v4: Some(Ipv4Addr::new(192, 0, 2, 254)),
            ..StackConfig::new(device)
        };
        config.check().unwrap();
        let mut interface = Interface::new(&config);
        for prefix in config.own_addresses() {
            assert!(interface.assign(prefix, true));
        }
        interface
    }

    fn both() -> Interface {
        interface(
            &["192.0.2.1/24", "10.1.0.1/16", "2001:db8::1/64"],
            &["198.51.100.0/24 via 10.1.0.9", "192.0.2.128/25 via 192.0.2.7", "2001:db8:1::/48 via fe80::9"],
        )
    }

    #[test]
    fn the_longest_prefix_says_where_a_packet_goes() {
        let interface = both();
        let hop = |text: &str| Some(NextHop::Neighbor(text.parse().unwrap()));
        for (remote, expected) in [
            ("192.0.2.9", hop("192.0.2.9")),
            ("192.0.2.200", hop("192.0.2.7")),
            ("10.1.255.1", hop("10.1.255.1")),
            ("198.51.100.4", hop("10.1.0.9")),
            ("203.0.113.1", hop("192.0.2.254")),
            ("192.0.2.1", Some(NextHop::Ourselves)),
            ("127.0.0.1", Some(NextHop::Ourselves)),
            ("::1", Some(NextHop::Ourselves)),
            ("192.0.2.255", Some(NextHop::Broadcast)),
            ("255.255.255.255", Some(NextHop::Broadcast)),
            ("224.0.0.5", Some(NextHop::Group)),
            ("2001:db8::9", hop("2001:db8::9")),
            ("2001:db8:1::9", hop("fe80::9")),
            ("fe80::1234", hop("fe80::1234")),
            ("2001:db8:2::9", None),
            ("ff02::1", Some(NextHop::Group)),
        ] {
            assert_eq!(interface.next_hop(remote.parse().unwrap()), expected, "{remote}");
        }
    }

    #[test]
    fn of_routes_to_one_network_the_one_of_least_metric_counts_whose_router_lives() {
        let interface = interface(
            &["192.0.2.1/24", "2001:db8::1/64"],
            &[
                "198.51.100.0/24 via 192.0.2.9 metric 20",
                "198.51.100.0/24 via 192.0.2.8 metric 10",
                "198.51.100.0/25 via 192.0.2.7 metric 99",
                "198.51.0.0/16 via 192.0.2.6",
                "2001:db8:1::/48 via fe80::9 metric 1",
                "2001:db8:1::/48 via fe80::8",
            ],
        );
        for (remote, dead, expected) in [
            ("198.51.100.200", &[][..], "192.0.2.8"),
            ("198.51.100.200", &["192.0.2.8"], "192.0.2.9"),
            ("198.51.100.200", &["192.0.2.8", "192.0.2.9"], "192.0.2.8"),
            ("198.51.100.1", &[], "192.0.2.7"),
            ("198.51.100.1", &["192.0.2.7"], "192.0.2.7"),
            ("198.51.7.1", &[], "192.0.2.6"),
            ("2001:db8:1::9", &[], "fe80::8"),
            ("2001:db8:1::9", &["fe80::8"], "fe80::9"),
        ] {
            let is_dead = |router: IpAddr| dead.contains(&router.to_string().as_str());
            let hop = interface.next_hop_around(remote.parse().unwrap(), is_dead);
            assert_eq!(hop, Some(NextHop::Neighbor(expected.parse().unwrap())), "{remote} without {dead:?}");
        }
    }

    #[test]
    fn the_source_address_is_in_the_next_hops_network_and_of_the_destinations_scope() {
        let interface = both();
        for (remote, expected) in [
            ("192.0.2.9", "192.0.2.1"),
            ("10.1.0.7", "10.1.0.1"),
            ("198.51.100.4", "10.1.0.1"),
            ("203.0.113.1", "192.0.2.1"),
            ("10.1.0.1", "10.1.0.1"),
            ("127.0.0.9", "127.0.0.9"),
            ("10.1.255.255", "10.1.0.1"),
            ("2001:db8::9", "2001:db8::1"),
            ("2001:db8:1::9", "2001:db8::1"),
            ("fe80::7", "fe80::ff:fe00:1"),
            ("ff02::1", "fe80::ff:fe00:1"),
        ] {
            let remote: IpAddr = remote.parse().unwrap();
            let source = interface.source_for(remote, interface.next_hop(remote).unwrap());
            assert_eq!(source, Some(expected.parse().unwrap()), "{remote}");
        }
    }

    #[test]
    fn senders_that_cannot_be_are_known() {
        let interface = both();
        for (source, impossible) in [
            ("0.0.0.0", true),
            ("127.0.0.1", true),
            ("224.0.0.1", true),
            ("239.255.255.255", true),
            ("255.255.255.255", true),
            ("192.0.2.255", true),
            ("10.1.255.255", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(interface.is_impossible_source_v4(source.parse().unwrap()), impossible, "{source}");
        }
        for (source, impossible) in
            [("ff02::1", true), ("::1", true), ("2001:db8::1", true), ("::", false), ("fe80::2", false)]
        {
            assert_eq!(interface.is_impossible_source_v6(source.parse().unwrap()), impossible, "{source}");
        }
    }

    #[test]
    fn only_what_concerns_us_is_taken() {
        use DestinationKind::{Broadcast, Multicast, Unicast};
        let interface = both();
        for (destination, kind) in [
            ("192.0.2.1", Some(Unicast)),
            ("192.0.2.2", None),
            ("192.0.2.255", Some(Broadcast)),
            ("255.255.255.255", Some(Broadcast)),
            ("224.0.0.1", Some(Multicast)),
            ("224.0.0.251", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(interface.destination_kind_v4(destination.parse().unwrap()), kind, "{destination}");
        }
        for (destination, kind) in [
            ("2001:db8::1", Some(Unicast)),
            ("fe80::ff:fe00:1", Some(Unicast)),
            ("ff02::1", Some(Multicast)),
            ("ff02::1:ff00:1", Some(Multicast)),
            ("ff02::1:ff00:2", None),
            ("::1", None),
        ] {
            assert_eq!(interface.destination_kind_v6(destination.parse().unwrap()), kind, "{destination}");
        }
    }

    #[test]
    fn groups_have_their_ethernet_addresses() {
        assert_eq!(group_hardware("224.129.2.3".parse().unwrap()), [1, 0, 0x5e, 1, 2, 3]);
        assert_eq!(
            group_hardware("ff02::1:ff12:3456".parse().unwrap()),
            [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]
        );
    }
}
