//! How a TAP device is to be: names, addresses, sizes, and which of them are refused.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use libos::SetupError;

use crate::interface::{MAX_MTU, MAX_NAME_BYTES, MIN_MTU, is_interface_name};
use crate::steering::Steering;
use libos::mac::{Mac, is_station, stable_mac};

/// Most queues of one device that the kernel allows.
pub const MAX_QUEUES: usize = 256;

/// An address with the length of its network's prefix, such as `10.1.0.1/24` or `fd00::1/64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// Leading bits that all hosts on the link share.
    pub prefix_bits: u8,
}

impl FromStr for HostAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            let prefix_bits: u8 = prefix.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            (prefix_bits <= most).then_some(Self { address, prefix_bits })
        };
        parse().ok_or(Self::RULE)
    }
}

impl HostAddress {
    pub(super) const RULE: &str = "addresses with their prefix lengths, such as 10.1.0.1/24 or fd00::1/64";
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

/// How a TAP device is opened and set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface's name as the kernel shows it, at most [`MAX_NAME_BYTES`] long. A TAP interface
    /// of that name is used if there is one that nobody holds open; else it is made, and goes away
    /// with the program.
    pub name: String,
    /// The Ethernet address of the library OS on the link. Without one it is derived from the name
    /// ([`stable_mac`]): the same one every time.
    pub mac: Option<[u8; 6]>,
    /// Largest IP packet, in bytes, for both ends of the link: [`MIN_MTU`] to [`MAX_MTU`].
    pub mtu: usize,
    /// Queue pairs, 1 to [`MAX_QUEUES`]. The kernel keeps each flow on the queue that last sent on it.
    pub queues: usize,
    /// Let the kernel complete checksums and cut large TCP sends into segments, and take both
    /// unfinished from it. Ten and more times the throughput between programs of one machine.
    pub offload: bool,
    /// Take several UDP datagrams of one flow joined in one frame (`segment_bytes` says how long each
    /// is). Off by default: the stack above must know how to cut them apart. Needs `offload`, and is
    /// left out by kernels before 6.2.
    pub udp_segmentation: bool,
    /// Have the kernel take frames from us through its own polling, as from a NIC (NAPI). The slowest of a hundred round trips take
    /// half the time then, and small frames in great numbers half as long again.
    pub napi: bool,
    /// Bring the kernel's end up and give it the MTU. Needs no privilege when it is that way already.
    pub up: bool,
    /// Addresses that the kernel's end gets.
    pub host_addresses: Vec<HostAddress>,
    /// What picks the queue of each frame that the kernel sends to us. Without it, and where the kernel takes no programs from
    /// this user, the kernel picks the queue that last sent on the flow, and a new flow's by a hash of its own.
    pub steering: Option<Steering>,
}

impl Default for TapConfig {
    /// `catnip0` with one queue, an MTU of 1500 and offloads; the kernel's end is brought up, without
    /// an address.
    fn default() -> Self {
        Self {
            name: "catnip0".into(),
            mac: None,
            mtu: 1500,
            queues: 1,
            offload: true,
            udp_segmentation: false,
            napi: false,
            up: true,
            host_addresses: Vec::new(),
            steering: None,
        }
    }
}

impl TapConfig {
    /// The Ethernet address of the library OS on the link: the given one or the name's own.
    #[must_use]
    pub fn hardware_address(&self) -> [u8; 6] {
        self.mac.unwrap_or_else(|| stable_mac(self.name.as_bytes()))
    }

    /// Checks what can be checked without the kernel.
    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        check(
            is_interface_name(&self.name),
            "tap.name",
            || self.name.clone(),
            || {
                format!(
                    "1 to {MAX_NAME_BYTES} visible ASCII characters without `/`, `:` and `%`, not `.` or `..`"
                )
            },
        )?;
        check(
            (MIN_MTU..=MAX_MTU).contains(&self.mtu),
            "tap.mtu",
            || self.mtu.to_string(),
            || format!("{MIN_MTU} to {MAX_MTU} bytes"),
        )?;
        check(
            (1..=MAX_QUEUES).contains(&self.queues),
            "tap.queues",
            || self.queues.to_string(),
            || format!("1 to {MAX_QUEUES}"),
        )?;
        let mac = self.hardware_address();
        check(is_station(mac), "tap.mac", || Mac(mac).to_string(), || Mac::RULE.into())
    }
}

fn check(
    good: bool,
    key: &str,
    value: impl FnOnce() -> String,
    allowed: impl FnOnce() -> String,
) -> Result<(), SetupError> {
    if good {
        return Ok(());
    }
    Err(SetupError::Config { source: "builder".into(), key: key.into(), value: value(), allowed: allowed() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_with_their_key() {
        let good = TapConfig::default;
        for (config, key) in [
            (TapConfig { name: String::new(), ..good() }, "tap.name"),
            (TapConfig { name: "sixteen-bytes-xx".into(), ..good() }, "tap.name"),
            (TapConfig { name: "a/b".into(), ..good() }, "tap.name"),
            (TapConfig { name: "a:b".into(), ..good() }, "tap.name"),
            (TapConfig { name: "tap%d".into(), ..good() }, "tap.name"),
            (TapConfig { name: "a b".into(), ..good() }, "tap.name"),
            (TapConfig { name: "täp".into(), ..good() }, "tap.name"),
            (TapConfig { name: "..".into(), ..good() }, "tap.name"),
            (TapConfig { name: "a\0b".into(), ..good() }, "tap.name"),
            (TapConfig { mtu: 67, ..good() }, "tap.mtu"),
            (TapConfig { mtu: 65_522, ..good() }, "tap.mtu"),
            (TapConfig { queues: 0, ..good() }, "tap.queues"),
            (TapConfig { queues: 257, ..good() }, "tap.queues"),
            (TapConfig { mac: Some([1, 0, 0, 0, 0, 1]), ..good() }, "tap.mac"),
            (TapConfig { mac: Some([0; 6]), ..good() }, "tap.mac"),
        ] {
            match config.validate() {
                Err(SetupError::Config { key: found, .. }) => assert_eq!(found, key, "{config:?}"),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
        assert_eq!(good().validate(), Ok(()));
        assert_eq!(TapConfig { name: "fifteen-bytes-x".into(), ..good() }.validate(), Ok(()));
    }

    #[test]
    fn host_addresses_are_read_with_their_prefix() {
        let parsed: HostAddress = "10.1.0.1/24".parse().unwrap();
        assert_eq!(parsed, HostAddress { address: [10, 1, 0, 1].into(), prefix_bits: 24 });
        assert_eq!("fd00::1/64".parse::<HostAddress>().unwrap().to_string(), "fd00::1/64");
        for bad in ["10.1.0.1", "10.1.0.1/33", "fd00::1/129", "10.1.0/24", "a/b", "10.1.0.1/-1"] {
            assert!(bad.parse::<HostAddress>().is_err(), "{bad}");
        }
    }
}
