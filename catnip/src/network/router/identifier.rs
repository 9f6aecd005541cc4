//! Interface identifiers that tell nothing about the host and stay the same on the same link (RFC 7217).

use std::hash::Hasher;
use std::net::Ipv6Addr;

use siphasher::sip::SipHasher24;

use crate::wire::ethernet;

/// The address that this host has in a network of 64 bits. `counter` counts the addresses there that were
/// found to be somebody else's (RFC 7217 section 5).
pub(super) fn form(secret: u128, prefix: Ipv6Addr, hardware: ethernet::Address, counter: u8) -> Ipv6Addr {
    let [high, low] = [(secret >> 64) as u64, secret as u64];
    let prefix = (prefix.to_bits() >> 64) as u64;
    // The few reserved identifiers are passed over.
    let identifier = (0..=u8::MAX).map(|attempt| {
        let mut hasher = SipHasher24::new_with_keys(high, low);
        hasher.write_u64(prefix);
        hasher.write(&hardware);
        hasher.write(&[counter, attempt]);
        hasher.finish()
    });
    let identifier = { identifier }.find(|identifier| !is_reserved(*identifier)).unwrap_or(1);
    Ipv6Addr::from_bits(u128::from(prefix) << 64 | u128::from(identifier))
}

/// RFC 5453.
const fn is_reserved(identifier: u64) -> bool {
    matches!(identifier, 0 | 0x0200_5eff_fe00_0000..=0x0200_5eff_feff_ffff | 0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identifier_depends_on_all_that_it_is_formed_from_and_on_nothing_else() {
        let prefix: Ipv6Addr = "2001:db8:0:5::".parse().unwrap();
        let other: Ipv6Addr = "2001:db8:0:6::".parse().unwrap();
        let hardware = [2, 0, 0, 0, 0, 1];
        let formed = form(1, prefix, hardware, 0);
        assert_eq!(formed, form(1, prefix, hardware, 0));
        assert_eq!(formed.segments()[..4], prefix.segments()[..4]);
        let low = |address: Ipv6Addr| address.to_bits() as u64;
        for (name, another) in [
            ("secret", form(2, prefix, hardware, 0)),
            ("prefix", form(1, other, hardware, 0)),
            ("hardware address", form(1, prefix, [2, 0, 0, 0, 0, 2], 0)),
            ("counter", form(1, prefix, hardware, 1)),
        ] {
            assert_ne!(low(formed), low(another), "{name}");
        }
    }

    #[test]
    fn reserved_identifiers_are_known() {
        for (identifier, reserved) in [
            (0, true),
            (1, false),
            (0x0200_5eff_fe00_5212, true),
            (0xfdff_ffff_ffff_ff7f, false),
            (0xfdff_ffff_ffff_ff80, true),
            (u64::MAX, false),
        ] {
            assert_eq!(is_reserved(identifier), reserved, "{identifier:x}");
        }
    }
}
