//! Neighbour solicitations and advertisements (RFC 4861 sections 4.3 and 4.4).

use std::net::Ipv6Addr;

use super::ethernet::Address;
use super::icmp::{self, v6};

/// Bytes of a message with one option, ICMP header included.
pub const MESSAGE_BYTES: usize = icmp::HEADER_BYTES + 16 + 8;

const SOURCE_ADDRESS_OPTION: u8 = 1;
const TARGET_ADDRESS_OPTION: u8 = 2;
/// RFC 3971 section 5.3.2.
const NONCE_OPTION: u8 = 14;

/// What marks a sender's own question (RFC 7527 section 4).
pub type Nonce = [u8; 6];

/// An advertisement's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AdvertisementFlags {
    /// The sender is a router.
    pub router: bool,
    /// It answers a solicitation.
    pub solicited: bool,
    /// The hardware address in it replaces one that is known.
    pub overriding: bool,
}

impl AdvertisementFlags {
    const fn to_byte(self) -> u8 {
        (self.router as u8) << 7 | (self.solicited as u8) << 6 | (self.overriding as u8) << 5
    }

    const fn from_byte(byte: u8) -> Self {
        Self { router: byte & 0x80 != 0, solicited: byte & 0x40 != 0, overriding: byte & 0x20 != 0 }
    }
}

/// A message about a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighborMessage {
    /// Asks who has the target address.
    Solicitation {
        /// The address asked for.
        target: Ipv6Addr,
        /// The sender's hardware address.
        source: Option<Address>,
        /// What marks the sender's own question, if its address does not.
        nonce: Option<Nonce>,
    },
    /// Tells who has the target address.
    Advertisement {
        /// What kind of answer it is.
        flags: AdvertisementFlags,
        /// The address told about.
        target: Ipv6Addr,
        /// The target's hardware address.
        hardware: Option<Address>,
    },
}

impl NeighborMessage {
    /// The message, checked as RFC 4861 sections 7.1.1 and 7.1.2 ask as far as its own bytes show.
    /// `None` for anything malformed, and for other messages.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, body) = icmp::IcmpHeader::parse(message)?;
        let (target, options) = body.split_first_chunk::<16>()?;
        let target = Ipv6Addr::from_octets(*target);
        if header.code != 0 || target.is_multicast() {
            return None;
        }
        let [flags, ..] = header.rest;
        match header.kind {
            v6::NEIGHBOR_SOLICITATION => {
                let source = find_option(options, SOURCE_ADDRESS_OPTION)?;
                Some(Self::Solicitation { target, source, nonce: find_option(options, NONCE_OPTION)? })
            }
            v6::NEIGHBOR_ADVERTISEMENT => Some(Self::Advertisement {
                flags: AdvertisementFlags::from_byte(flags),
                target,
                hardware: find_option(options, TARGET_ADDRESS_OPTION)?,
            }),
            _ => None,
        }
    }

    /// Composes the message, checksum zero, at the start of `bytes`, which takes
    /// [`MESSAGE_BYTES`] at most; returns how many were used.
    pub fn compose(&self, bytes: &mut [u8; MESSAGE_BYTES]) -> usize {
        bytes.fill(0);
        let (target, option, hardware) = match *self {
            Self::Solicitation { target, source, nonce } => {
                bytes[0] = v6::NEIGHBOR_SOLICITATION;
                // There is never use for both.
                match source {
                    Some(_) => (target, SOURCE_ADDRESS_OPTION, source),
                    None => (target, NONCE_OPTION, nonce),
                }
            }
            Self::Advertisement { flags, target, hardware } => {
                bytes[0] = v6::NEIGHBOR_ADVERTISEMENT;
                bytes[4] = flags.to_byte();
                (target, TARGET_ADDRESS_OPTION, hardware)
            }
        };
        bytes[8..24].copy_from_slice(&target.octets());
        let Some(hardware) = hardware else { return MESSAGE_BYTES - 8 };
        bytes[24] = option;
        bytes[25] = 1;
        bytes[26..].copy_from_slice(&hardware);
        MESSAGE_BYTES
    }
}

/// The hardware address, or what is as long, in the first option of the kind. The outer `None` says that the options are
/// malformed. Each option takes at least eight bytes, so the walk ends.
#[allow(clippy::option_option, reason = "malformed, absent and present are three things")]
fn find_option(mut options: &[u8], wanted: u8) -> Option<Option<Address>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units, ..] = *options else { return None };
        // RFC 4861 section 4.6: a length of zero makes the whole message invalid.
        let len = usize::from(units) * 8;
        if units == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(len)?;
        if kind == wanted && units == 1 && found.is_none() {
            found = option.last_chunk::<6>().copied();
        }
        options = rest;
    }
    Some(found)
}

/// The group that the owner of `address` listens to for solicitations (RFC 4291 section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The link-local address formed from a hardware address (RFC 4291 appendix A).
#[must_use]
pub fn link_local(hardware: Address) -> Ipv6Addr {
    let [a, b, c, d, e, f] = hardware;
    Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
    const HARDWARE: Address = [2, 0, 0, 0, 0, 9];

    fn composed(message: NeighborMessage) -> Vec<u8> {
        let mut bytes = [0xaa; MESSAGE_BYTES];
        let len = message.compose(&mut bytes);
        bytes[..len].to_vec()
    }

    #[test]
    fn what_is_composed_is_read_back() {
        let flags = AdvertisementFlags { router: false, solicited: true, overriding: true };
        for message in [
            NeighborMessage::Solicitation { target: TARGET, source: Some(HARDWARE), nonce: None },
            NeighborMessage::Solicitation { target: TARGET, source: None, nonce: None },
            NeighborMessage::Solicitation { target: TARGET, source: None, nonce: Some([7; 6]) },
            NeighborMessage::Advertisement { flags, target: TARGET, hardware: Some(HARDWARE) },
            NeighborMessage::Advertisement {
                flags: AdvertisementFlags { router: true, ..Default::default() },
                target: TARGET,
                hardware: None,
            },
        ] {
            assert_eq!(NeighborMessage::parse(&composed(message)), Some(message));
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let good =
            composed(NeighborMessage::Solicitation { target: TARGET, source: Some(HARDWARE), nonce: None });
        for (name, offset, value) in [
            ("another kind", 0, v6::ECHO_REQUEST),
            ("code", 1, 1),
            ("multicast target", 8, 0xff),
            ("option of no length", 25, 0),
            ("option beyond the end", 25, 2),
        ] {
            let mut message = good.clone();
            message[offset] = value;
            assert_eq!(NeighborMessage::parse(&message), None, "{name}");
        }
        for len in (0..24).chain(25..32) {
            assert_eq!(NeighborMessage::parse(&good[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn unknown_options_are_skipped() {
        let mut message =
            composed(NeighborMessage::Solicitation { target: TARGET, source: None, nonce: None });
        message.extend([25, 1, 0, 0, 0, 0, 0, 0]);
        message.extend([1, 1]);
        message.extend(HARDWARE);
        let expected = NeighborMessage::Solicitation { target: TARGET, source: Some(HARDWARE), nonce: None };
        assert_eq!(NeighborMessage::parse(&message), Some(expected));
    }

    #[test]
    fn addresses_are_derived_as_the_standards_show() {
        assert_eq!(solicited_node(TARGET).to_string(), "ff02::1:ff12:3456");
        assert_eq!(link_local([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]).to_string(), "fe80::3656:78ff:fe9a:bcde");
    }
}
