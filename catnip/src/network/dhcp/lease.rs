//! What a server grants.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arrayvec::ArrayVec;
use libos::Instant;

use crate::network::Prefix;
use crate::wire::dhcp::{MAX_LISTED, ServerMessage};

/// In seconds of a lease: for ever.
const INFINITY: u32 = u32::MAX;
/// Nobody is made to renew more often than leases of this length ask for, which are those of portals that a guest has yet
/// to pass.
const MIN_LEASE_S: u32 = 10;

/// An address and what goes with it, for a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address, and the length of its network's prefix.
    pub address: Prefix,
    /// The server that granted it.
    pub server: Ipv4Addr,
    /// Routers in order of preference; at most four.
    pub routers: ArrayVec<Ipv4Addr, MAX_LISTED>,
    /// Name servers in order of preference; at most four.
    pub name_servers: ArrayVec<Ipv4Addr, MAX_LISTED>,
    /// The link's MTU, in bytes, if the server told it.
    pub mtu: Option<u16>,
    /// From when on the server is asked to prolong it.
    pub renew_at: Instant,
    /// From when on any server is asked.
    pub rebind_at: Instant,
    /// When it ends; [`Instant::FAR_FUTURE`] for never.
    pub expires_at: Instant,
}

impl Lease {
    /// What an offer or an agreement grants from `now` on. `None` when it makes no sense.
    pub(super) fn granted(now: Instant, message: &ServerMessage) -> Option<Self> {
        let (server, lease_s) = (message.server?, message.lease_s?);
        let own = message.yours;
        let length = message.prefix_length.unwrap_or_else(|| natural_length(own));
        let address = Prefix { address: own.into(), length };
        let [first, ..] = own.octets();
        let possible = !matches!(first, 0 | 127 | 224..)
            && (1..=32).contains(&length)
            && address.broadcast() != Some(own)
            && !is_network(own, length)
            && own != server
            && lease_s >= MIN_LEASE_S;
        if !possible || !is_host(server) {
            return None;
        }
        let (renew_at, rebind_at, expires_at) = times(now, lease_s, message.renewal_s, message.rebinding_s);
        let on_link =
            |router: &Ipv4Addr| is_host(*router) && *router != own && address.contains(IpAddr::V4(*router));
        Some(Self {
            address,
            server,
            routers: message.routers.iter().copied().filter(on_link).collect(),
            name_servers: message.name_servers.clone(),
            mtu: message.mtu,
            renew_at,
            rebind_at,
            expires_at,
        })
    }
}

/// True for the address of the network itself, of which those of one or two hosts have none (RFC 3021).
fn is_network(address: Ipv4Addr, length: u8) -> bool {
    length < 31 && address.to_bits().unbounded_shl(length.into()) == 0
}

fn is_host(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    !matches!(first, 0 | 127 | 224..)
}

/// The prefix of a network whose server tells no mask: that of its class (RFC 791 section 2.3).
const fn natural_length(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        192..=255 => 24,
    }
}

/// T1, T2 and the end (RFC 2131 section 4.4.5).
fn times(
    now: Instant,
    lease_s: u32,
    renewal_s: Option<u32>,
    rebinding_s: Option<u32>,
) -> (Instant, Instant, Instant) {
    if lease_s == INFINITY {
        return (Instant::FAR_FUTURE, Instant::FAR_FUTURE, Instant::FAR_FUTURE);
    }
    let after = |seconds: u32| now + Duration::from_secs(seconds.into());
    let (renewal_s, rebinding_s) = match (renewal_s, rebinding_s) {
        (Some(renewal), Some(rebinding)) if renewal < rebinding && rebinding < lease_s && renewal > 0 => {
            (renewal, rebinding)
        }
        // Times out of order are as good as none.
        (Some(_) | None, Some(_) | None) => (lease_s / 2, lease_s - lease_s / 8),
    };
    (after(renewal_s), after(rebinding_s), after(lease_s))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dhcp::MessageType;

    fn message() -> ServerMessage {
        ServerMessage {
            kind: MessageType::Ack,
            transaction: 1,
            hardware: [2, 0, 0, 0, 0, 1],
            yours: Ipv4Addr::new(192, 0, 2, 77),
            server: Some(Ipv4Addr::new(192, 0, 2, 254)),
            prefix_length: Some(24),
            routers: [Ipv4Addr::new(192, 0, 2, 254), Ipv4Addr::new(10, 0, 0, 1)].into_iter().collect(),
            name_servers: ArrayVec::new(),
            mtu: None,
            lease_s: Some(3600),
            renewal_s: None,
            rebinding_s: None,
        }
    }

    #[test]
    fn times_follow_from_the_lease_unless_the_server_tells_sensible_ones() {
        for (name, lease_s, renewal_s, rebinding_s, expected_s) in [
            ("none", 3600, None, None, (1800, 3150, 3600)),
            ("the server's", 3600, Some(600), Some(1200), (600, 1200, 3600)),
            ("out of order", 3600, Some(1200), Some(600), (1800, 3150, 3600)),
            ("beyond the end", 3600, Some(1200), Some(4000), (1800, 3150, 3600)),
            ("at once", 3600, Some(0), Some(1), (1800, 3150, 3600)),
        ] {
            let at = |seconds: u64| Instant::from_millis(1000 * seconds);
            let (renew_s, rebind_s, end_s) = expected_s;
            let expected = (at(renew_s), at(rebind_s), at(end_s));
            assert_eq!(times(Instant::ZERO, lease_s, renewal_s, rebinding_s), expected, "{name}");
        }
        let (renew_at, _, expires_at) = times(Instant::ZERO, INFINITY, None, None);
        assert_eq!((renew_at, expires_at), (Instant::FAR_FUTURE, Instant::FAR_FUTURE));
    }

    #[test]
    fn what_makes_no_sense_is_no_lease() {
        let granted = Lease::granted(Instant::ZERO, &message()).unwrap();
        assert_eq!(granted.routers.as_slice(), [Ipv4Addr::new(192, 0, 2, 254)]);
        let yours = |text: &str| ServerMessage { yours: text.parse().unwrap(), ..message() };
        for (name, message) in [
            ("no address", yours("0.0.0.0")),
            ("a group", yours("224.0.0.1")),
            ("loopback", yours("127.0.0.1")),
            ("the broadcast address", yours("192.0.2.255")),
            ("the network's address", yours("192.0.2.0")),
            ("the server's own", yours("192.0.2.254")),
            ("no server", ServerMessage { server: None, ..message() }),
            ("no time", ServerMessage { lease_s: None, ..message() }),
            ("hardly any time", ServerMessage { lease_s: Some(9), ..message() }),
            ("the whole world as network", ServerMessage { prefix_length: Some(0), ..message() }),
        ] {
            assert_eq!(Lease::granted(Instant::ZERO, &message), None, "{name}");
        }
        for (length, last) in [(31, 0), (31, 1), (32, 0)] {
            let message = ServerMessage {
                yours: Ipv4Addr::new(203, 0, 113, last),
                prefix_length: Some(length),
                ..message()
            };
            assert!(Lease::granted(Instant::ZERO, &message).is_some(), "{length} {last}");
        }
    }
}
