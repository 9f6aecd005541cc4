//! Settings of a stack: its addresses and routes, and those of its parts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libos::SetupError;
use libos::runtime::{Capabilities, Medium};

use crate::network::{ConflictDetection, FragmentConfig, NeighborConfig, Prefix, Route};
use crate::steering::CoreShare;
use crate::tcp::TcpConfig;
use crate::udp::UdpConfig;
use crate::wire::vlan::{self, VlanId};
use crate::wire::{ethernet, ndp};

/// Smallest MTU that an IPv4 link has (RFC 791 section 3.2).
const MIN_MTU_IPV4: usize = 68;
/// Smallest MTU that an IPv6 link has (RFC 8200 section 5).
pub(crate) const MIN_MTU_IPV6: usize = 1280;
/// Largest packet that both IP versions can express.
const MAX_MTU: usize = 65535;

/// Most addresses of one stack: every received packet's destination is compared with each.
pub(crate) const MAX_ADDRESSES: usize = 16;
/// Most routes besides the default ones: each is looked at when a path is made.
const MAX_ROUTES: usize = 64;

/// Everything that can be set about a stack. Made with [`StackConfig::new`]; what is not set has a
/// default that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackConfig {
    /// What the device can do, and what its frames look like.
    pub device: Capabilities,
    /// The VLAN that the stack is in: all frames are tagged, and only frames so tagged are received. `None` for
    /// untagged frames. Tags take 4 bytes of the device's largest packet.
    pub vlan: Option<VlanId>,
    /// The stack's addresses with the prefixes of the networks they are in; at most 16, and at least one
    /// on Ethernet unless it gets some by itself. The loopback addresses are there besides.
    pub addresses: Vec<Prefix>,
    /// The router for IPv4 packets that no route fits.
    pub gateway_v4: Option<Ipv4Addr>,
    /// The router for IPv6 packets that no route fits.
    pub gateway_v6: Option<Ipv6Addr>,
    /// Routes through other routers. The longest prefix wins.
    pub routes: Vec<Route>,
    /// Form a link-local IPv6 address from the hardware address (RFC 4862 section 5.3). IPv6 needs
    /// one on Ethernet.
    pub link_local: bool,
    /// Get an IPv4 address, with router and MTU, from a DHCP server, and keep it (RFC 2131). Only on Ethernet.
    pub dhcp: bool,
    /// Ask for IPv6 routers, use those that advertise themselves, and form addresses from the prefixes they
    /// tell (RFC 4861 section 6, RFC 4862 section 5.5).
    pub router_discovery: bool,
    /// What the interface identifiers of those addresses follow from besides the network (RFC 7217). The same
    /// at each start gives the same addresses; `None` gives others each time.
    pub address_secret: Option<u128>,
    /// Follow redirects of the router in use (RFC 4861 section 8, RFC 1122 section 3.2.2.2).
    pub redirects: bool,
    /// What is done so that no other host on the link uses our addresses.
    pub conflict_detection: ConflictDetection,
    /// Check transport checksums of received packets that the device did not check.
    pub verify_checksums: bool,
    /// Most frames that wait for the device. At the limit nothing more is sent until it takes some.
    pub transmit_queue_frames: usize,
    /// Most packets that wait on their way back to this stack's own addresses. At the limit a further
    /// one is dropped.
    pub loop_queue_packets: usize,
    /// ICMP errors sent per second, in the long run; 0 for none.
    pub icmp_errors_per_second: u32,
    /// ICMP errors sent at once after a quiet time.
    pub icmp_errors_burst: u32,
    /// Limits of packets that are put together from parts.
    pub fragment: FragmentConfig,
    /// Settings of the neighbour cache.
    pub neighbor: NeighborConfig,
    /// Settings of UDP.
    pub udp: UdpConfig,
    /// Settings of TCP.
    pub tcp: TcpConfig,
    /// This core's part of the device, when several cores with a stack each share it.
    pub share: Option<CoreShare>,
}

impl StackConfig {
    /// Defaults for a device, and no address.
    #[must_use]
    pub fn new(device: Capabilities) -> Self {
        Self {
            device,
            vlan: None,
            addresses: Vec::new(),
            gateway_v4: None,
            gateway_v6: None,
            routes: Vec::new(),
            link_local: true,
            dhcp: false,
            router_discovery: false,
            address_secret: None,
            redirects: true,
            conflict_detection: ConflictDetection::default(),
            verify_checksums: true,
            transmit_queue_frames: 1024,
            loop_queue_packets: 1024,
            icmp_errors_per_second: 1000,
            icmp_errors_burst: 50,
            fragment: FragmentConfig::default(),
            neighbor: NeighborConfig::default(),
            udp: UdpConfig::default(),
            tcp: TcpConfig::default(),
            share: None,
        }
    }

    /// Adds an address.
    #[must_use]
    pub fn with_address(mut self, address: Prefix) -> Self {
        self.addresses.push(address);
        self
    }

    /// Sets the default router for the family of `gateway`.
    #[must_use]
    pub fn with_gateway(mut self, gateway: IpAddr) -> Self {
        match gateway {
            IpAddr::V4(gateway) => self.gateway_v4 = Some(gateway),
            IpAddr::V6(gateway) => self.gateway_v6 = Some(gateway),
        }
        self
    }

    /// The addresses set, and the link-local one that goes with those of IPv6.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = Prefix> {
        let has_v6 = self.wants_v6();
        let link_local = (self.link_local && self.device.medium == Medium::Ethernet && has_v6)
            .then(|| IpAddr::from(ndp::link_local(self.device.hardware_address)))
            .filter(|formed| self.addresses.iter().all(|own| own.address != *formed))
            .map(|address| Prefix { address, length: 64 });
        self.addresses.iter().copied().chain(link_local)
    }

    fn wants_v6(&self) -> bool {
        self.router_discovery || self.addresses.iter().any(|prefix| prefix.address.is_ipv6())
    }

    /// What the device can do with the frames of the VLAN.
    pub(crate) fn link(&self) -> Capabilities {
        match self.vlan {
            None => self.device,
            // Not all devices find the headers behind a tag.
            Some(_) => Capabilities {
                mtu: self.device.mtu.saturating_sub(vlan::TAG_BYTES),
                tcp_segmentation_bytes: 0,
                ..self.device
            },
        }
    }

    /// All routes: those set, and the default ones.
    pub(crate) fn all_routes(&self) -> impl Iterator<Item = Route> {
        let v4 = self.gateway_v4.map(|gateway| Route {
            destination: Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 },
            gateway: gateway.into(),
            metric: 0,
        });
        let v6 = self.gateway_v6.map(|gateway| Route {
            destination: Prefix { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 },
            gateway: gateway.into(),
            metric: 0,
        });
        self.routes.iter().copied().chain(v4).chain(v6)
    }

    /// What [`Self::check`] calls the device's MTU, which is set with the device.
    pub const DEVICE_MTU: &str = "device MTU";

    /// Checks what no single value shows.
    ///
    /// # Errors
    /// [`SetupError::Config`] that names the first value that does not fit.
    pub fn check(&self) -> Result<(), SetupError> {
        self.check_device()?;
        // A device that leads nowhere needs none: loopback addresses are there anyway.
        let ethernet = self.device.medium == Medium::Ethernet;
        let needs_address = ethernet && !self.router_discovery && !self.dhcp;
        if self.dhcp && !ethernet {
            return reject("dhcp", true, "false: the device has no hardware addresses");
        }
        if (needs_address && self.addresses.is_empty()) || self.addresses.len() > MAX_ADDRESSES {
            let allowed = format!(
                "1 to {MAX_ADDRESSES} addresses with their prefix lengths, such as [\"192.0.2.1/24\"]; none with dhcp \
                 or router_discovery"
            );
            return reject("addresses", self.addresses.len(), allowed);
        }
        for (place, address) in self.addresses.iter().enumerate() {
            let own = address.address;
            if self.addresses.iter().take(place).any(|other| other.address == own) {
                return reject("addresses", address, "each address once");
            }
            if !address.is_valid() || own.is_multicast() || own.is_unspecified() || own.is_loopback() {
                return reject("addresses", address, "unicast addresses with their prefix lengths");
            }
            let broadcast = address.broadcast().map(IpAddr::V4);
            if broadcast == Some(own) || own == IpAddr::V4(Ipv4Addr::BROADCAST) {
                return reject(
                    "addresses",
                    address,
                    "an address that is not its network's broadcast address",
                );
            }
        }
        if self.routes.len() > MAX_ROUTES {
            return reject("routes", self.routes.len(), format!("at most {MAX_ROUTES} routes"));
        }
        if ethernet {
            for route in &self.routes {
                self.check_gateway("routes", route.gateway)?;
            }
            for (key, gateway) in [
                ("gateway_v4", self.gateway_v4.map(IpAddr::V4)),
                ("gateway_v6", self.gateway_v6.map(IpAddr::V6)),
            ] {
                gateway.map_or(Ok(()), |gateway| self.check_gateway(key, gateway))?;
            }
        }
        if self.udp.ephemeral_low == 0 || self.udp.ephemeral_low > self.udp.ephemeral_high {
            let range = format!("{} to {}", self.udp.ephemeral_low, self.udp.ephemeral_high);
            return reject("ephemeral ports", range, "a lowest port of at least 1, not above the highest");
        }
        Ok(())
    }

    fn check_gateway(&self, key: &str, gateway: IpAddr) -> Result<(), SetupError> {
        let is_link_local = match gateway {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let is_ours = self.own_addresses().any(|own| own.address == gateway);
        let is_neighbour =
            |own: &Prefix| own.contains(gateway) && own.broadcast().map(IpAddr::V4) != Some(gateway);
        if !is_ours && (is_link_local || self.addresses.iter().any(is_neighbour)) {
            return Ok(());
        }
        reject(key, gateway, "another host in one of the stack's own networks (stack.addresses)")
    }

    fn check_device(&self) -> Result<(), SetupError> {
        let Capabilities { medium, hardware_address, mtu, max_segments, .. } = self.link();
        if let (Some(vlan), Medium::Ip) = (self.vlan, medium) {
            return reject("vlan", vlan.number(), "none: the device has no Ethernet frames");
        }
        let (smallest, why) = match self.wants_v6() {
            true => (MIN_MTU_IPV6, "as IPv6 needs"),
            false => (MIN_MTU_IPV4, "as IPv4 needs"),
        };
        if !(smallest..=MAX_MTU).contains(&mtu) {
            let tag = self.device.mtu.saturating_sub(mtu);
            let tagged = if tag > 0 { format!(", and {tag} for the VLAN's tag") } else { String::new() };
            let allowed = format!("{} to {MAX_MTU} bytes, {why}{tagged}", smallest + tag);
            return reject(Self::DEVICE_MTU, self.device.mtu, allowed);
        }
        if max_segments < 2 {
            return reject("device max_segments", max_segments, "at least 2");
        }
        if medium == Medium::Ethernet
            && (ethernet::is_multicast(hardware_address) || hardware_address == [0; 6])
        {
            return reject("device hardware address", format!("{hardware_address:x?}"), "a unicast address");
        }
        Ok(())
    }
}

fn reject(key: &str, value: impl fmt::Display, allowed: impl fmt::Display) -> Result<(), SetupError> {
    Err(SetupError::Config {
        source: "stack".to_owned(),
        key: key.to_owned(),
        value: value.to_string(),
        allowed: allowed.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use libos::runtime::TxChecksum;

    fn ethernet() -> StackConfig {
        let device = Capabilities {
            medium: Medium::Ethernet,
            hardware_address: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            tx_checksum: TxChecksum::Software,
            tcp_segmentation_bytes: 0,
            max_segments: 19,
        };
        let addresses = ["10.0.0.1/24", "fd00::1/64"].map(|prefix| prefix.parse().unwrap());
        addresses.into_iter().fold(StackConfig::new(device), StackConfig::with_address)
    }

    fn said(config: &StackConfig) -> String {
        config.check().map_or_else(|error| error.to_string(), |()| "fits".to_owned())
    }

    #[test]
    fn a_gateway_is_another_host_of_an_own_network() {
        let named = |key: &str, gateway: &str| {
            format!("stack: {key} = {gateway}: allowed is another host in one of the stack's own networks")
        };
        for (gateway, wrong) in [
            ("10.0.0.254", None),
            ("fd00::fe", None),
            ("fe80::1", None),
            ("10.0.1.1", Some("gateway_v4")),
            ("10.0.0.1", Some("gateway_v4")),
            ("10.0.0.255", Some("gateway_v4")),
            ("fd01::1", Some("gateway_v6")),
            ("fe80::ff:fe00:1", Some("gateway_v6")),
        ] {
            let gateway: IpAddr = gateway.parse().unwrap();
            let said_of_default = said(&ethernet().with_gateway(gateway));
            let mut routed = ethernet();
            let network = if gateway.is_ipv4() { "198.51.100.0/24" } else { "2001:db8::/32" };
            routed.routes.push(Route { destination: network.parse().unwrap(), gateway, metric: 0 });
            let said_of_route = said(&routed);
            match wrong {
                None => assert_eq!([said_of_default, said_of_route], ["fits", "fits"], "{gateway}"),
                Some(key) => {
                    let gateway = gateway.to_string();
                    assert!(said_of_default.starts_with(&named(key, &gateway)), "{said_of_default}");
                    assert!(said_of_route.starts_with(&named("routes", &gateway)), "{said_of_route}");
                }
            }
        }
    }

    #[test]
    fn a_devices_mtu_has_room_for_what_the_addresses_need_and_the_tag() {
        let with = |mtu, vlan| {
            let mut config = ethernet();
            config.device.mtu = mtu;
            config.vlan = VlanId::new(vlan);
            said(&config)
        };
        assert_eq!([with(1280, 0), with(1284, 5)], ["fits", "fits"]);
        assert_eq!(with(1279, 0), "stack: device MTU = 1279: allowed is 1280 to 65535 bytes, as IPv6 needs");
        let tagged = "stack: device MTU = 1283: allowed is 1284 to 65535 bytes, as IPv6 needs, and 4 for the VLAN's tag";
        assert_eq!(with(1283, 5), tagged);
    }

    #[test]
    fn an_address_is_named_once_and_may_be_the_link_local_one() {
        let formed: Prefix = "fe80::ff:fe00:1/64".parse().unwrap();
        assert_eq!(ethernet().own_addresses().last(), Some(formed));
        let named = ethernet().with_address(formed);
        assert_eq!(said(&named), "fits");
        assert_eq!(named.own_addresses().filter(|own| *own == formed).count(), 1);
        let twice = ethernet().with_address("10.0.0.1/8".parse().unwrap());
        assert_eq!(said(&twice), "stack: addresses = 10.0.0.1/8: allowed is each address once");
    }
}
