//! How a port is to be set up, and what is refused before DPDK is asked.

use std::time::Duration;

use libos::SetupError;

use libos::mac::{Mac, is_station};

use crate::spreading::Spreading;

/// Smallest MTU: what every IPv4 host must take (RFC 791, section 3.2). IPv6 needs 1280.
pub const MIN_MTU: usize = 68;
/// Largest MTU: what fits the receive buffers of a port without scattered receiving.
pub const MAX_MTU: usize = 16_128;
/// Most queue pairs of a port.
pub const MAX_QUEUES: usize = 128;
/// Fewest descriptors of a queue.
pub const MIN_DESCRIPTORS: usize = 64;
/// Most descriptors of a queue.
pub const MAX_DESCRIPTORS: usize = 32_768;

/// Which memory a port is given; see [`libos::MemoryAccess`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryPolicy {
    /// What is known to be right for the port's driver; copying for drivers that are not known.
    #[default]
    Auto,
    /// The library OS's region, registered.
    Dma,
    /// A region made from DPDK's heap.
    RuntimeHeap,
    /// Everything is copied.
    Copy,
}

/// How a port is opened and set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DpdkConfig {
    /// The device as DPDK names it, with its arguments: `0000:3b:00.0` on the PCI bus, or a virtual one such as
    /// `net_tap0,iface=dtap0`. When empty, the port is one that `eal_args` made, and `port` its number.
    pub device: String,
    /// The port's number when `device` is empty.
    pub port: u16,
    /// Further arguments for DPDK's environment (EAL), behind the ones that the runtime chooses. The first port that a process opens
    /// decides: EAL is initialised once.
    pub eal_args: Vec<String>,
    /// Memory of DPDK's own, in MiB; 0 for what the port needs.
    pub memory_mib: usize,
    /// Queue pairs.
    pub queues: usize,
    /// Descriptors of each receive queue; the driver's limits apply.
    pub rx_descriptors: usize,
    /// Descriptors of each transmit queue; the driver's limits apply.
    pub tx_descriptors: usize,
    /// Largest IP packet, in bytes; 0 for the port's own.
    pub mtu: usize,
    /// The port's Ethernet address; without one the port keeps its own.
    pub mac: Option<[u8; 6]>,
    /// Use what the port offers: checksums both ways and segmentation.
    pub offload: bool,
    /// Which memory the port is given.
    pub memory: MemoryPolicy,
    /// How long opening waits for the link to come up; zero for not at all.
    pub link_wait: Duration,
    /// How flows are spread over several queues; without it, as the driver does by itself.
    pub spreading: Option<Spreading>,
}

impl Default for DpdkConfig {
    /// Port 0, one queue pair of 1024 descriptors each way, everything else as the port has it.
    fn default() -> Self {
        Self {
            device: String::new(),
            port: 0,
            eal_args: Vec::new(),
            memory_mib: 0,
            queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 0,
            mac: None,
            offload: true,
            memory: MemoryPolicy::Auto,
            link_wait: Duration::from_secs(10),
            spreading: None,
        }
    }
}

impl DpdkConfig {
    /// What the library OS calls the port before DPDK has named it.
    pub(crate) fn label(&self) -> String {
        match self.device.split(',').next() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("port {}", self.port),
        }
    }

    /// Checks what can be checked without DPDK.
    pub(crate) fn validate(&self) -> Result<(), SetupError> {
        let within = |key: &str, value: usize, low: usize, high: usize| {
            refuse_unless((low..=high).contains(&value), key, &value.to_string(), &format!("{low} to {high}"))
        };
        within("queues", self.queues, 1, MAX_QUEUES)?;
        within("rx_descriptors", self.rx_descriptors, MIN_DESCRIPTORS, MAX_DESCRIPTORS)?;
        within("tx_descriptors", self.tx_descriptors, MIN_DESCRIPTORS, MAX_DESCRIPTORS)?;
        if self.mtu != 0 {
            within("mtu", self.mtu, MIN_MTU, MAX_MTU)?;
        }
        if let Some(mac) = self.mac {
            refuse_unless(is_station(mac), "mac", &format!("{mac:x?}"), Mac::RULE)?;
        }
        if let Some(queue) = self.spreading.iter().flat_map(|spreading| &spreading.queues).max() {
            let last = self.queues - 1;
            within("spreading", usize::from(*queue), 0, last)?;
        }
        for text in self.eal_args.iter().chain([&self.device]) {
            refuse_unless(!text.contains('\0'), "device", text, "a text without zero bytes")?;
        }
        Ok(())
    }
}

fn refuse_unless(good: bool, key: &str, value: &str, allowed: &str) -> Result<(), SetupError> {
    if good {
        return Ok(());
    }
    Err(SetupError::Config {
        source: "builder".to_owned(),
        key: format!("dpdk.{key}"),
        value: value.to_owned(),
        allowed: allowed.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_with_their_key() {
        let good = DpdkConfig::default;
        for (config, key) in [
            (DpdkConfig { queues: 0, ..good() }, "dpdk.queues"),
            (DpdkConfig { queues: MAX_QUEUES + 1, ..good() }, "dpdk.queues"),
            (DpdkConfig { rx_descriptors: 63, ..good() }, "dpdk.rx_descriptors"),
            (DpdkConfig { tx_descriptors: MAX_DESCRIPTORS + 1, ..good() }, "dpdk.tx_descriptors"),
            (DpdkConfig { mtu: 67, ..good() }, "dpdk.mtu"),
            (DpdkConfig { mtu: MAX_MTU + 1, ..good() }, "dpdk.mtu"),
            (DpdkConfig { mac: Some([1, 0, 0, 0, 0, 1]), ..good() }, "dpdk.mac"),
            (DpdkConfig { device: "net\0null".into(), ..good() }, "dpdk.device"),
            (
                DpdkConfig { spreading: Some(Spreading { key: [0; 40], queues: vec![0, 1] }), ..good() },
                "dpdk.spreading",
            ),
        ] {
            match config.validate() {
                Err(SetupError::Config { key: found, .. }) => assert_eq!(found, key, "{config:?}"),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
        assert_eq!(good().validate(), Ok(()));
    }

    #[test]
    fn a_port_is_called_by_its_device_or_its_number() {
        let device = |device: &str| DpdkConfig { device: device.into(), port: 3, ..DpdkConfig::default() };
        assert_eq!(device("net_tap0,iface=dtap0").label(), "net_tap0");
        assert_eq!(device("").label(), "port 3");
    }
}
