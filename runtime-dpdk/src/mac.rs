//! Ethernet addresses as texts.

use std::str::FromStr;

/// The Ethernet address of one station, written as six hexadecimal bytes with colons between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mac(pub [u8; 6]);

impl Mac {
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

/// True for the Ethernet address of one station: not a group's, and not all zeros.
pub(crate) fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// Another address, locally administered, that differs from one station's in its last bit.
pub(crate) fn neighbour_of(mac: [u8; 6]) -> [u8; 6] {
    let [a, b, c, d, e, g] = mac;
    [(a | 2) & !1, b, c, d, e, g ^ 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        assert_eq!("02:00:5e:10:0:ff".parse(), Ok(Mac([2, 0, 0x5e, 0x10, 0, 0xff])));
        for bad in ["", "02:00:5e:10:00", "02:0:0:0:0:0:1", "02:0:0:0:0:fg", "2:0:0:0:0:+1", "1:0:0:0:0:0"] {
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
