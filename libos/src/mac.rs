//! Ethernet addresses: read, written, and made from a name.

use std::fmt;
use std::str::FromStr;

/// The Ethernet address of one station, written as six hexadecimal bytes with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// What is allowed, in words for who wrote something else.
    pub const RULE: &str = "six hexadecimal bytes with colons, such as 02:00:00:00:00:01, of one station: the \
                        first byte even, not all zeros";
}

impl FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().ok_or(Self::RULE)?;
            // The parser alone would also take a sign and leading zeros.
            if part.len() > 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(Self::RULE);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| Self::RULE)?;
        }
        if parts.next().is_some() || !is_station(mac) {
            return Err(Self::RULE);
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// True for the Ethernet address of one station: not a group's, and not all zeros.
#[must_use]
pub const fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && !matches!(mac, [0, 0, 0, 0, 0, 0])
}

/// A locally administered Ethernet address made from a device's name, or a path. Two devices of one machine have
/// different names and so different addresses; devices that are bridged to other machines where the same
/// name is in use should be given addresses instead.
#[must_use]
pub fn stable_mac(name: &[u8]) -> [u8; 6] {
    // FNV-1a, 64 bits: short, well spread, and the same on every machine.
    let hash = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

/// Another address, locally administered, that differs from one station's in its last bit: for the other end of a
/// link whose ends say the same of themselves.
#[must_use]
pub const fn neighbour_of(mac: [u8; 6]) -> [u8; 6] {
    let [a, b, c, d, e, g] = mac;
    [(a | 2) & !1, b, c, d, e, g ^ 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_derived_from_a_name_is_stable_local_and_its_own() {
        assert_eq!(stable_mac(b"catnip0"), stable_mac(b"catnip0"));
        assert_ne!(stable_mac(b"catnip0"), stable_mac(b"catnip1"));
        assert_eq!(stable_mac(b"catnip0")[0] & 3, 2, "locally administered, one station");
    }

    #[test]
    fn addresses_are_read_as_written() {
        assert_eq!("02:00:5e:10:0:ff".parse(), Ok(Mac([2, 0, 0x5e, 0x10, 0, 0xff])));
        assert_eq!(Mac([2, 0, 0x5e, 0x10, 0, 0xff]).to_string(), "02:00:5e:10:00:ff");
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:01",
            "02:00:5e:10:00:fg",
            "2:0:0:0:0:+1",
            "2:0:0:0:0:001",
            "1:0:0:0:0:0",
            "0:0:0:0:0:0",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_neighbour_is_another_station() {
        for mac in [[0x52, 0x54, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1]] {
            assert!(is_station(neighbour_of(mac)));
            assert_ne!(neighbour_of(mac), mac);
        }
    }
}
