//! Router solicitations and advertisements, and redirects (RFC 4861 sections 4.1, 4.2, 4.5 and 4.6).

use std::net::Ipv6Addr;

use super::ethernet::Address;
use super::icmp::{self, IcmpHeader};

/// ICMPv6 types of the messages.
pub mod kind {
    /// Asks routers to advertise themselves.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Tells what a router is good for.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Tells a better way to a destination.
    pub const REDIRECT: u8 = 137;
}

/// Bytes of a solicitation with the sender's hardware address.
pub const SOLICITATION_BYTES: usize = icmp::HEADER_BYTES + 8;

const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
const PREFIX_INFORMATION: u8 = 3;
const MTU: u8 = 5;

/// How much a router wants to be the default one (RFC 4191 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Preference {
    /// When there is no other.
    Low,
    /// As routers that know of no preferences.
    Medium,
    /// Rather than others.
    High,
}

/// What a router tells about itself and the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouterAdvertisement<'a> {
    /// Hop limit for what hosts send; 0 when the router does not say.
    pub hop_limit: u8,
    /// How much it wants to be the default router.
    pub preference: Preference,
    /// For how many seconds it is a default router; 0 when it is none.
    pub lifetime_s: u16,
    /// For how long a neighbour that was heard from is taken to be reachable, in milliseconds; 0 when the
    /// router does not say.
    pub reachable_ms: u32,
    /// Time between solicitations, in milliseconds; 0 when the router does not say.
    pub retransmission_ms: u32,
    options: &'a [u8],
}

/// A prefix that a router advertises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixInformation {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// How many of its bits count, 0 to 128.
    pub length: u8,
    /// All addresses with the prefix are on the link.
    pub on_link: bool,
    /// Hosts may form addresses with the prefix.
    pub autonomous: bool,
    /// For how many seconds what is said is valid; all ones for ever.
    pub valid_s: u32,
    /// For how many seconds addresses with the prefix are preferred; all ones for ever.
    pub preferred_s: u32,
}

/// What options of the messages say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouterOption {
    /// The sender's hardware address.
    SourceAddress(Address),
    /// The hardware address of a redirect's target.
    TargetAddress(Address),
    /// A prefix of the link.
    Prefix(PrefixInformation),
    /// The link's MTU, in bytes.
    Mtu(u32),
}

/// A better way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The better first hop: a router, or the destination itself.
    pub target: Ipv6Addr,
    /// The destination.
    pub destination: Ipv6Addr,
    /// The target's hardware address.
    pub hardware: Option<Address>,
}

impl<'a> RouterAdvertisement<'a> {
    /// The message, checked as RFC 4861 section 6.1.2 asks as far as its own bytes show. `None` for anything
    /// malformed, and for other messages.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Option<Self> {
        let (header, body) = IcmpHeader::parse(message)?;
        let (times, options) = body.split_first_chunk::<8>()?;
        if header.kind != kind::ROUTER_ADVERTISEMENT || header.code != 0 || !are_well_formed(options) {
            return None;
        }
        let [hop_limit, flags, lifetime @ ..] = header.rest;
        let [a, b, c, d, e, f, g, h] = *times;
        // RFC 4191 section 2.2: the reserved value means medium.
        let preference = match flags >> 3 & 3 {
            1 => Preference::High,
            3 => Preference::Low,
            _ => Preference::Medium,
        };
        Some(Self {
            hop_limit,
            preference,
            lifetime_s: u16::from_be_bytes(lifetime),
            reachable_ms: u32::from_be_bytes([a, b, c, d]),
            retransmission_ms: u32::from_be_bytes([e, f, g, h]),
            options,
        })
    }

    /// What the options say, unknown and malformed ones left out.
    pub fn options(&self) -> impl Iterator<Item = RouterOption> + use<'a> {
        options(self.options)
    }
}

impl Redirect {
    /// The message, checked as RFC 4861 section 8.1 asks as far as its own bytes show. `None` for anything
    /// malformed, and for other messages.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, body) = IcmpHeader::parse(message)?;
        let (target, body) = body.split_first_chunk::<16>()?;
        let (destination, rest) = body.split_first_chunk::<16>()?;
        let (target, destination) = (Ipv6Addr::from_octets(*target), Ipv6Addr::from_octets(*destination));
        let possible = header.kind == kind::REDIRECT
            && header.code == 0
            && are_well_formed(rest)
            && !destination.is_multicast()
            && (target == destination || target.is_unicast_link_local());
        let hardware = options(rest).find_map(|option| match option {
            RouterOption::TargetAddress(address) => Some(address),
            RouterOption::SourceAddress(_) | RouterOption::Prefix(_) | RouterOption::Mtu(_) => None,
        });
        possible.then_some(Self { target, destination, hardware })
    }
}

/// Composes a router solicitation, checksum zero; returns how many bytes it takes.
#[must_use]
pub fn compose_solicitation(source: Option<Address>) -> ([u8; SOLICITATION_BYTES], usize) {
    let mut bytes = [0; SOLICITATION_BYTES];
    bytes[0] = kind::ROUTER_SOLICITATION;
    let Some(source) = source else { return (bytes, icmp::HEADER_BYTES) };
    bytes[icmp::HEADER_BYTES] = SOURCE_ADDRESS;
    bytes[icmp::HEADER_BYTES + 1] = 1;
    bytes[icmp::HEADER_BYTES + 2..].copy_from_slice(&source);
    (bytes, SOLICITATION_BYTES)
}

/// Takes the first option off: its type and its body. `None` at the end, or when it is malformed.
fn split_option(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [kind, units, ..] = *bytes else { return None };
    let len = usize::from(units) * 8;
    // RFC 4861 section 4.6: no option has a length of zero.
    let (option, rest) = bytes.split_at_checked(len)?;
    Some((kind, option.get(2..)?, rest))
}

/// True when the options fill the bytes. Each takes at least eight, so the walk ends.
fn are_well_formed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match split_option(bytes) {
            Some((_, _, rest)) => bytes = rest,
            None => return false,
        }
    }
    true
}

fn options(mut bytes: &[u8]) -> impl Iterator<Item = RouterOption> {
    std::iter::from_fn(move || {
        let (kind, body, rest) = split_option(bytes)?;
        bytes = rest;
        Some((kind, body))
    })
    .filter_map(|(kind, body)| match kind {
        SOURCE_ADDRESS => body.first_chunk().copied().map(RouterOption::SourceAddress),
        TARGET_ADDRESS => body.first_chunk().copied().map(RouterOption::TargetAddress),
        MTU => body.get(2..)?.first_chunk().map(|mtu| RouterOption::Mtu(u32::from_be_bytes(*mtu))),
        PREFIX_INFORMATION => prefix_information(body).map(RouterOption::Prefix),
        _ => None,
    })
}

fn prefix_information(body: &[u8]) -> Option<PrefixInformation> {
    let ([length, flags], rest) = body.split_first_chunk()?;
    let (valid, rest) = rest.split_first_chunk::<4>()?;
    let (preferred, rest) = rest.split_first_chunk::<4>()?;
    let (_reserved, rest) = rest.split_first_chunk::<4>()?;
    let prefix = rest.first_chunk::<16>()?;
    (*length <= 128).then_some(PrefixInformation {
        prefix: Ipv6Addr::from_octets(*prefix),
        length: *length,
        on_link: flags & 0x80 != 0,
        autonomous: flags & 0x40 != 0,
        valid_s: u32::from_be_bytes(*valid),
        preferred_s: u32::from_be_bytes(*preferred),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: [u8; 32] = [
        3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 7, 8, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 5, 0, 0, 0, 0,
        0, 0, 0, 0,
    ];

    fn advertisement(options: &[&[u8]]) -> Vec<u8> {
        let mut message = vec![134, 0, 0, 0, 64, 0b0000_1000, 7, 8, 0, 0, 0x75, 0x30, 0, 0, 3, 0xe8];
        message.extend(options.concat());
        message
    }

    #[test]
    fn an_advertisement_is_read_with_its_options() {
        let unknown = [25, 1, 0, 0, 0, 0, 0, 0];
        let bytes =
            advertisement(&[&[1, 1, 2, 0, 0, 0, 0, 9], &unknown, &[5, 1, 0, 0, 0, 0, 5, 0xdc], &PREFIX]);
        let message = RouterAdvertisement::parse(&bytes).unwrap();
        assert_eq!((message.hop_limit, message.lifetime_s, message.preference), (64, 1800, Preference::High));
        assert_eq!((message.reachable_ms, message.retransmission_ms), (30_000, 1000));
        let prefix = PrefixInformation {
            prefix: "2001:db8:0:5::".parse().unwrap(),
            length: 64,
            on_link: true,
            autonomous: true,
            valid_s: 3600,
            preferred_s: 1800,
        };
        assert_eq!(
            message.options().collect::<Vec<_>>(),
            [
                RouterOption::SourceAddress([2, 0, 0, 0, 0, 9]),
                RouterOption::Mtu(1500),
                RouterOption::Prefix(prefix)
            ]
        );
    }

    #[test]
    fn malformed_advertisements_are_refused() {
        let good = advertisement(&[&PREFIX]);
        for (name, offset, value) in [
            ("another kind", 0, 133),
            ("code", 1, 1),
            ("option of no length", 17, 0),
            ("option beyond the end", 17, 5),
        ] {
            let mut bytes = good.clone();
            bytes[offset] = value;
            assert_eq!(RouterAdvertisement::parse(&bytes), None, "{name}");
        }
        for len in (0..16).chain(17..48) {
            assert_eq!(RouterAdvertisement::parse(&good[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn options_of_a_wrong_size_or_with_impossible_values_are_left_out() {
        let mut long_prefix = PREFIX;
        long_prefix[2] = 129;
        let bytes = advertisement(&[&[3, 1, 64, 0xc0, 0, 0, 0, 0], &long_prefix]);
        assert_eq!(RouterAdvertisement::parse(&bytes).unwrap().options().count(), 0);
    }

    #[test]
    fn a_redirect_names_a_router_or_the_destination_itself() {
        let redirect = |target: &str, destination: &str, options: &[u8]| {
            let mut message = vec![137, 0, 0, 0, 0, 0, 0, 0];
            message.extend(target.parse::<Ipv6Addr>().unwrap().octets());
            message.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
            message.extend(options);
            Redirect::parse(&message)
        };
        let hardware = Some([2, 0, 0, 0, 0, 7]);
        let (target, destination) = ("fe80::7".parse().unwrap(), "2001:db8::9".parse().unwrap());
        assert_eq!(
            redirect("fe80::7", "2001:db8::9", &[2, 1, 2, 0, 0, 0, 0, 7]),
            Some(Redirect { target, destination, hardware })
        );
        assert!(redirect("2001:db8::9", "2001:db8::9", &[]).is_some());
        assert_eq!(redirect("2001:db8::8", "2001:db8::9", &[]), None);
        assert_eq!(redirect("fe80::7", "ff02::1", &[]), None);
        assert_eq!(redirect("fe80::7", "2001:db8::9", &[2, 0]), None);
    }

    #[test]
    fn a_solicitation_has_the_senders_address_if_there_is_one() {
        let (bytes, len) = compose_solicitation(Some([2, 0, 0, 0, 0, 9]));
        assert_eq!(bytes[..len], [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9]);
        let (bytes, len) = compose_solicitation(None);
        assert_eq!(bytes[..len], [133, 0, 0, 0, 0, 0, 0, 0]);
    }
}
