//! Ethernet addresses: read, written, and made from a path.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::config::VhostRole;

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

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// True for the Ethernet address of one station: not a group's, and not all zeros.
pub(crate) fn is_station(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0 && mac != [0; 6]
}

/// A locally administered Ethernet address made from a socket's path: another one for each end of the link.
#[must_use]
pub(crate) fn stable_mac(socket: &Path, role: VhostRole) -> [u8; 6] {
    let end = match role {
        VhostRole::Front => b"f",
        VhostRole::Back => b"b",
    };
    // FNV-1a, 64 bits: short, well spread, and the same on every machine.
    let bytes = socket.as_os_str().as_encoded_bytes().iter().chain(end);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let [_, _, _, a, b, c, d, e] = hash.to_be_bytes();
    [0x02, a, b, c, d, e]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_each_link_has_a_stable_local_address_of_its_own() {
        let mac = |path: &str, role| stable_mac(Path::new(path), role);
        let front = mac("/tmp/a", VhostRole::Front);
        assert_eq!(front, mac("/tmp/a", VhostRole::Front));
        assert_ne!(front, mac("/tmp/a", VhostRole::Back));
        assert_ne!(front, mac("/tmp/b", VhostRole::Front));
        assert_eq!(front[0] & 3, 2, "locally administered, one station");
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
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }
}
