//! What routers say, checked and applied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libos::Instant;
use libos::runtime::Medium;

use crate::network::address::{AddressOrigin, Lifetime};
use crate::network::interface::{NextHop, RouteOrigin, group_hardware};
use crate::network::neighbor::Claim;
use crate::network::path::Exit;
use crate::network::quoted::Quoted;
use crate::network::receive::IpInfo;
use crate::network::router::RouterDiscovery;
use crate::network::{DestinationKind, Network, Prefix, Route};
use crate::stack::MIN_MTU_IPV6;
use crate::wire::ethernet;
use crate::wire::icmp::IcmpHeader;
use crate::wire::router::{
    PrefixInformation, Redirect, RouterAdvertisement, RouterOption, compose_solicitation,
};

/// All routers on the link (RFC 4291 section 2.7.1).
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// What shows that a message was not forwarded by any router (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;
/// Most options of one advertisement that are looked at.
const MAX_OPTIONS: usize = 64;
/// No router makes us believe a neighbour for longer (RFC 4861 section 6.2.1, `AdvReachableTime`).
const MAX_REACHABLE: Duration = Duration::from_secs(3600);
/// What a router can make of the time between solicitations: neither floods nor neighbours never found.
const RETRANSMISSION: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(10);
/// A hop limit below this would let a rogue router cut us off from the Internet.
const MIN_HOP_LIMIT: u8 = 32;
/// Within this time an address goes only when its own time is over (RFC 4862 section 5.5.3 (e)).
const TWO_HOURS: Duration = Duration::from_secs(7200);
/// The prefix length that leaves room for our interface identifiers (RFC 4291 section 2.5.1).
const FORMED_PREFIX_LENGTH: u8 = 64;
/// In lifetimes: for ever.
const INFINITY: u32 = u32::MAX;

fn after(now: Instant, seconds: u32) -> Instant {
    match seconds {
        INFINITY => Instant::FAR_FUTURE,
        seconds => now + Duration::from_secs(seconds.into()),
    }
}

/// RFC 4862 section 5.5.3 (e): until when an address is valid that had been until `known`. An advertisement
/// that nobody signed shortens no life to less than two hours.
fn valid_until(now: Instant, known: Instant, said: Instant) -> Instant {
    let two_hours = now + TWO_HOURS;
    if said > two_hours || said > known {
        said
    } else if known <= two_hours {
        known
    } else {
        two_hours
    }
}

impl Network {
    /// True when a message can come from a router on this link (RFC 4861 sections 6.1.2 and 8.1; RFC 6980
    /// section 5 for fragments).
    fn is_from_link(&self, ip: &IpInfo) -> bool {
        ip.hop_limit == HOP_LIMIT && !ip.fragmented && self.device.medium == Medium::Ethernet
    }

    /// Takes a router's advertisement whose checksum is right (RFC 4861 section 6.3.4).
    #[cold]
    pub(in crate::network) fn receive_advertisement(&mut self, now: Instant, ip: &IpInfo, message: &[u8]) {
        let message = RouterAdvertisement::parse(message).filter(|_| self.is_from_link(ip));
        let (Some(message), IpAddr::V6(source)) = (message, ip.source) else {
            self.counters.icmp_in_errors += 1;
            return;
        };
        if !source.is_unicast_link_local() {
            self.counters.icmp_in_errors += 1;
            return;
        }
        let Some(mut discovery) = self.routers.take() else { return };
        self.counters.router_advertisements += 1;
        discovery.on_advertisement(now, source, &message);
        self.take_parameters(&message);
        for option in message.options().take(MAX_OPTIONS) {
            match option {
                RouterOption::SourceAddress(hardware) => self.learn_from_router(now, source, hardware),
                RouterOption::Mtu(mtu) => self.take_link_mtu(mtu),
                RouterOption::Prefix(prefix) => self.take_prefix(now, &mut discovery, &prefix),
                RouterOption::TargetAddress(_) => {}
            }
        }
        self.routers = Some(discovery);
        self.choose_default_router();
        self.set_upkeep();
    }

    fn learn_from_router(&mut self, now: Instant, router: Ipv6Addr, hardware: ethernet::Address) {
        if ethernet::is_multicast(hardware) || hardware == [0; 6] {
            return;
        }
        let claim = Claim { solicited: false, overriding: true, create: true };
        if let Some(released) = self.neighbors.learn(now, router.into(), Some(hardware), claim) {
            self.send_released(released);
        }
    }

    fn take_parameters(&mut self, message: &RouterAdvertisement<'_>) {
        if message.hop_limit >= MIN_HOP_LIMIT {
            self.hop_limit_v6 = message.hop_limit;
        }
        let millis = |value: u32| (value > 0).then(|| Duration::from_millis(value.into()));
        let reachable = millis(message.reachable_ms).filter(|reachable| *reachable <= MAX_REACHABLE);
        let retransmission = millis(message.retransmission_ms)
            .map(|interval| interval.clamp(*RETRANSMISSION.start(), *RETRANSMISSION.end()));
        self.neighbors.set_advertised_times(reachable, retransmission);
    }

    fn take_link_mtu(&mut self, mtu: u32) {
        let mtu = usize::try_from(mtu).unwrap_or(usize::MAX);
        if (MIN_MTU_IPV6..=self.device.mtu).contains(&mtu) {
            self.mtu_v6 = mtu;
        }
    }

    fn take_prefix(&mut self, now: Instant, discovery: &mut RouterDiscovery, said: &PrefixInformation) {
        if said.prefix.is_unicast_link_local() || said.prefix.is_multicast() {
            return;
        }
        let mask = u128::MAX.checked_shl(u32::from(128 - said.length)).unwrap_or(0);
        let network = Ipv6Addr::from_bits(said.prefix.to_bits() & mask);
        // A prefix of no bits would draw all the world's packets onto the link.
        if said.on_link && said.length > 0 {
            let prefix = Prefix { address: network.into(), length: said.length };
            let until = after(now, said.valid_s);
            if said.valid_s == 0 {
                discovery.set_on_link_no_longer(prefix);
                self.interface.remove_on_link(prefix);
            } else if discovery.set_on_link(prefix, until) {
                self.interface.add_on_link(prefix);
            }
            self.neighbors.renew_epoch();
        }
        if said.autonomous && said.preferred_s <= said.valid_s && said.length == FORMED_PREFIX_LENGTH {
            self.form_address(now, discovery, network, said);
        }
    }

    /// RFC 4862 section 5.5.3 (d) and (e).
    fn form_address(
        &mut self,
        now: Instant,
        discovery: &mut RouterDiscovery,
        network: Ipv6Addr,
        said: &PrefixInformation,
    ) {
        let lifetime =
            Lifetime { preferred_until: after(now, said.preferred_s), valid_until: after(now, said.valid_s) };
        if let Some(address) = discovery.formed(network) {
            let address = IpAddr::V6(address);
            let Some(known) = self.addresses.lifetime(address) else { return };
            let valid_until = valid_until(now, known.valid_until, lifetime.valid_until);
            let preferred_until = lifetime.preferred_until.min(valid_until);
            self.addresses.set_lifetime(now, address, Lifetime { preferred_until, valid_until });
            self.interface.set_deprecated(address, preferred_until <= now);
        } else if said.valid_s > 0
            && let Some(address) = discovery.form(network)
        {
            self.start_formed_address(now, address, lifetime);
        }
    }

    fn start_formed_address(&mut self, now: Instant, address: Ipv6Addr, lifetime: Lifetime) {
        let prefix = Prefix { address: address.into(), length: FORMED_PREFIX_LENGTH };
        // Whether the prefix is on the link it says for itself.
        self.start_address(now, prefix, AddressOrigin::Formed, false, lifetime);
    }

    /// An address formed from a prefix is somebody else's: another is formed (RFC 7217 section 6).
    pub(in crate::network) fn replace_formed_address(&mut self, now: Instant, address: Ipv6Addr) {
        let Some(mut discovery) = self.routers.take() else { return };
        if let Some(another) = discovery.form_again(address)
            && let Some(lifetime) = self.addresses.lifetime(address.into())
        {
            self.drop_address(now, address.into());
            self.start_formed_address(now, another, lifetime);
        }
        self.routers = Some(discovery);
    }

    /// A router said that it is none, or is an ordinary host now (RFC 4861 section 7.2.5).
    pub(in crate::network) fn on_router_became_host(&mut self, now: Instant, router: Ipv6Addr) {
        if let Some(discovery) = &mut self.routers {
            discovery.remove(now, router);
            self.choose_default_router();
            self.set_upkeep();
        }
    }

    /// A neighbour did not answer: what was routed by way of it goes another (RFC 4861 section 7.3.3).
    #[cold]
    pub(in crate::network) fn on_neighbor_silence(&mut self, neighbor: IpAddr) {
        self.interface.remove_routes(RouteOrigin::Redirect, |route| route.gateway == neighbor);
        if let (Some(discovery), IpAddr::V6(router)) = (&mut self.routers, neighbor) {
            discovery.on_silence(router);
            self.choose_default_router();
        }
        self.neighbors.renew_epoch();
    }

    /// Makes the default route lead to the router chosen.
    fn choose_default_router(&mut self) {
        let chosen = self.routers.as_ref().and_then(|discovery| discovery.chosen()).map(IpAddr::V6);
        let used = self.interface.routes(RouteOrigin::Advertised).next().map(|route| route.gateway);
        if chosen == used {
            return;
        }
        self.interface.remove_routes(RouteOrigin::Advertised, |_| true);
        if let Some(gateway) = chosen {
            let destination = Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 0 };
            self.interface.add_route(Route { destination, gateway, metric: 0 }, RouteOrigin::Advertised);
        }
        self.neighbors.renew_epoch();
    }

    /// Serves what is known from routers.
    pub(in crate::network) fn upkeep_routers(&mut self, now: Instant) {
        let Some(mut discovery) = self.routers.take() else { return };
        if discovery.take_solicitation(now) {
            self.solicit_routers(now);
        }
        while let Some(prefix) = discovery.next_expired_prefix(now) {
            self.interface.remove_on_link(prefix);
            self.neighbors.renew_epoch();
        }
        discovery.expire_routers(now);
        self.routers = Some(discovery);
        self.choose_default_router();
    }

    /// Asks routers to advertise themselves (RFC 4861 section 6.3.7).
    fn solicit_routers(&mut self, now: Instant) {
        let local = self.interface.link_local();
        let (bytes, len) = compose_solicitation(local.map(|_| self.device.hardware_address));
        let exit = Exit::Fixed(group_hardware(ALL_ROUTERS.into()));
        let message = bytes.get(..len).unwrap_or_default();
        self.send_discovery(now, local.unwrap_or(Ipv6Addr::UNSPECIFIED), ALL_ROUTERS, exit, message);
    }

    /// Takes an ICMPv4 redirect whose checksum is right, about one destination whatever its code says (RFC 1122
    /// section 3.2.2.2).
    #[cold]
    pub(in crate::network) fn receive_redirect_v4(&mut self, ip: &IpInfo, header: IcmpHeader, body: &[u8]) {
        let quoted = Quoted::parse_v4(body).filter(|quoted| self.interface.is_local(quoted.source()));
        let Some(quoted) = quoted.filter(|_| ip.kind == DestinationKind::Unicast) else {
            self.counters.icmp_in_errors += 1;
            return;
        };
        let gateway = IpAddr::V4(Ipv4Addr::from(header.rest));
        let destination = quoted.destination();
        // Only the router that we send by may say so, and of no router but one on the link.
        let by_first_hop = self.interface.next_hop(destination) == Some(NextHop::Neighbor(ip.source));
        let from_router = by_first_hop && ip.source != destination;
        let is_on_link = self.interface.next_hop(gateway) == Some(NextHop::Neighbor(gateway));
        if !self.redirects || !from_router || !is_on_link {
            self.counters.redirects_refused += 1;
            return;
        }
        self.counters.redirects += 1;
        let destination = Prefix { address: destination, length: 32 };
        self.interface.add_route(Route { destination, gateway, metric: 0 }, RouteOrigin::Redirect);
        self.neighbors.renew_epoch();
    }

    /// Takes a redirect whose checksum is right (RFC 4861 section 8.3).
    #[cold]
    pub(in crate::network) fn receive_redirect(&mut self, now: Instant, ip: &IpInfo, message: &[u8]) {
        let redirect = Redirect::parse(message).filter(|_| self.is_from_link(ip));
        let (Some(redirect), IpAddr::V6(source)) = (redirect, ip.source) else {
            self.counters.icmp_in_errors += 1;
            return;
        };
        let Redirect { target, destination, hardware } = redirect;
        // RFC 4861 section 8.1: only the router that we send by may say so.
        let first_hop = self.interface.next_hop(destination.into());
        let from_first_hop = source.is_unicast_link_local()
            && first_hop == Some(NextHop::Neighbor(source.into()))
            && source != destination;
        if !self.redirects || !from_first_hop || self.interface.has(target.into()) {
            self.counters.redirects_refused += 1;
            return;
        }
        self.counters.redirects += 1;
        let route = Route {
            destination: Prefix { address: destination.into(), length: 128 },
            gateway: target.into(),
            metric: 0,
        };
        self.interface.add_route(route, RouteOrigin::Redirect);
        self.neighbors.renew_epoch();
        if let Some(hardware) = hardware {
            self.learn_from_router(now, target, hardware);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_advertisement_shortens_a_life_to_less_than_two_hours() {
        let at = |seconds: u64| Instant::from_millis(seconds * 1000);
        let now = at(1000);
        for (name, known, said, expected) in [
            ("longer than before", 2000, 3000, 3000),
            ("shorter, more than two hours", 50_000, 20_000, 20_000),
            ("shorter, less than two hours", 50_000, 1010, 8200),
            ("shorter, in the last two hours", 5000, 1010, 5000),
            ("none, in the last two hours", 5000, 1000, 5000),
        ] {
            assert_eq!(valid_until(now, at(known), at(said)), at(expected), "{name}");
        }
        assert_eq!(valid_until(now, Instant::FAR_FUTURE, now), at(8200));
        assert_eq!(after(now, INFINITY), Instant::FAR_FUTURE);
    }
}
