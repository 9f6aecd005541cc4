//! Address prefixes, and routes to them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An address and how many of its first bits name the network: `192.0.2.1/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address, with or without host bits.
    pub address: IpAddr,
    /// Bits that name the network: at most 32 for IPv4, 128 for IPv6.
    pub length: u8,
}

/// The first `length` bits of both numbers are the same; the numbers are `bits` long.
const fn same_start(a: u128, b: u128, length: u8, bits: u8) -> bool {
    let differing = a ^ b;
    length == 0 || length <= bits && differing >> (bits - length) == 0
}

impl Prefix {
    /// True when `address` is in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_start(u128::from(own.to_bits()), u128::from(other.to_bits()), self.length, 32)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same_start(own.to_bits(), other.to_bits(), self.length, 128)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The network's broadcast address, if it has one (RFC 919; none in networks of one or two
    /// addresses, RFC 3021).
    #[must_use]
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(own) if self.length <= 30 => {
                Some(Ipv4Addr::from_bits(own.to_bits() | (u32::MAX >> self.length)))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// True when the length is one that the address family has.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.length <= if self.address.is_ipv4() { 32 } else { 128 }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The text is not an address, a slash and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsePrefixError;

impl fmt::Display for ParsePrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address with its prefix length, such as 192.0.2.1/24 or 2001:db8::1/64")
    }
}

impl std::error::Error for ParsePrefixError {}

impl FromStr for Prefix {
    type Err = ParsePrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.trim().split_once('/').ok_or(ParsePrefixError)?;
        let prefix = Self {
            address: address.parse().map_err(|_| ParsePrefixError)?,
            length: length.parse().map_err(|_| ParsePrefixError)?,
        };
        if prefix.is_valid() { Ok(prefix) } else { Err(ParsePrefixError) }
    }
}

/// Where packets for a network go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Route {
    /// The network.
    pub destination: Prefix,
    /// The router, which must be on the link.
    pub gateway: IpAddr,
    /// Of several routes to the same network the one of the least metric is used whose router answers.
    pub metric: u32,
}

/// The text is not a prefix, `via` and an address, perhaps with `metric` and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseRouteError;

impl fmt::Display for ParseRouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a network and the router to it, such as 198.51.100.0/24 via 192.0.2.254 metric 10")
    }
}

impl std::error::Error for ParseRouteError {}

impl FromStr for Route {
    type Err = ParseRouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (destination, gateway) = text.split_once(" via ").ok_or(ParseRouteError)?;
        let (gateway, metric) = match gateway.split_once(" metric ") {
            Some((gateway, metric)) => (gateway, metric.trim().parse().map_err(|_| ParseRouteError)?),
            None => (gateway, 0),
        };
        let route = Self {
            destination: destination.parse().map_err(|_| ParseRouteError)?,
            gateway: gateway.trim().parse().map_err(|_| ParseRouteError)?,
            metric,
        };
        if route.gateway.is_ipv4() == route.destination.address.is_ipv4() {
            Ok(route)
        } else {
            Err(ParseRouteError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_network_and_nothing_else() {
        for (prefix, address, inside) in [
            ("192.0.2.1/24", "192.0.2.254", true),
            ("192.0.2.1/24", "192.0.3.1", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.1/32", "192.0.2.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("2001:db8::1/64", "2001:db8::ffff:0:0:9", true),
            ("2001:db8::1/64", "2001:db8:0:1::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::1/128", "2001:db8::1", true),
            ("2001:db8::1/128", "2001:db8::2", false),
        ] {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{prefix} {address}");
        }
    }

    #[test]
    fn the_broadcast_address_has_all_host_bits_set() {
        for (prefix, broadcast) in [
            ("192.0.2.1/24", Some("192.0.2.255")),
            ("10.1.2.3/8", Some("10.255.255.255")),
            ("192.0.2.1/30", Some("192.0.2.3")),
            ("192.0.2.1/31", None),
            ("192.0.2.1/32", None),
            ("2001:db8::1/64", None),
        ] {
            let parsed: Prefix = prefix.parse().unwrap();
            assert_eq!(parsed.broadcast(), broadcast.map(|text| text.parse().unwrap()), "{prefix}");
        }
    }

    #[test]
    fn malformed_prefixes_and_routes_are_refused() {
        for text in ["", "192.0.2.1", "192.0.2.1/33", "192.0.2.1/-1", "2001:db8::/129", "host/24", "1/2/3"] {
            assert_eq!(text.parse::<Prefix>(), Err(ParsePrefixError), "{text}");
        }
        for text in ["192.0.2.0/24", "192.0.2.0/24 via", "192.0.2.0/24 via 2001:db8::1", "x via 192.0.2.1"] {
            assert_eq!(text.parse::<Route>(), Err(ParseRouteError), "{text}");
        }
        let route: Route = "198.51.100.0/24 via 192.0.2.254".parse().unwrap();
        assert_eq!(route.destination.to_string(), "198.51.100.0/24");
        assert_eq!((route.gateway.to_string().as_str(), route.metric), ("192.0.2.254", 0));
        let route: Route = "::/0 via fe80::1 metric 20".parse().unwrap();
        assert_eq!((route.gateway.to_string().as_str(), route.metric), ("fe80::1", 20));
        for text in ["::/0 via fe80::1 metric", "::/0 via fe80::1 metric -1", "::/0 via fe80::1 metric x"] {
            assert_eq!(text.parse::<Route>(), Err(ParseRouteError), "{text}");
        }
    }
}
